"""Who overwrites whom: results take the place of operands that nobody reads any more, and of no others."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from memory_simulation import Simulation
from numpy_support import code_of, demands, homes, sharers, storage_of
from program_support import scheduled
from support import ROOT, cell_of

from cellspec.backends.memory.model import Home
from cellspec.backends.numpy.backend import BACKEND
from cellspec.backends.numpy.instructions import instructions, keep_carries
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.sharing import share
from cellspec.backends.numpy.storage import Demands, Storage
from cellspec.pipeline import BACKWARD, FORWARD, compile_cell

GATES = """
    constant  Wi: [H, I], Wf: [H, I], Ui: [H, H], Uf: [H, H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H], c[t-1]: [H]
      Wi@x: [H]  = Wi @ x[t]
      Wf@x: [H]  = Wf @ x[t]
      Ui@h: [H]  = Ui @ h[t-1]
      Uf@h: [H]  = Uf @ h[t-1]
      i.pre: [H] = Wi@x + Ui@h
      f.pre: [H] = Wf@x + Uf@h
      i: [H]     = tanh(i.pre)
      f: [H]     = tanh(f.pre)
      c[t]: [H]  = f*c[t-1] + i
      h[t]: [H]  = tanh(c[t])
    carry     h[t-1] <- h[t]
    carry     c[t-1] <- c[t]
    give out  h[t]
"""

BACK = """
    constant  U: [H, H]
    sequence  dy: [H], s[t]: [H], x[t]: [H]
    carried   p: [H]
      d: [H]    = dy + p
      e: [H]    = d*s[t]*(1 - s[t])
      n: [H]    = U.T @ e
      O: [H, H] = outer(e, x[t])
    carry     p <- n
    total     db = sum of e
    total     dU = sum of O
"""

TURN = """
    sequence  x[t]: [H]
    carried   p: [H], q: [H]
      n: [H] = q + x[t]
      m: [H] = p*x[t]
    carry     p <- n
    carry     q <- m
    give out  n
"""
"""Each carry is made of the other."""

SUMS = """
    constant  U: [H, H], V: [H, H]
    sequence  x[t]: [H], y[t]: [H]
    carried   h[t-1]: [H]
      a: [H]    = tanh(h[t-1]*x[t])
      b: [H]    = tanh(h[t-1]*y[t])
      p: [H]    = U.T @ a
      q: [H]    = V.T @ b
      e: [H]    = p + q
      h[t]: [H] = e + a
    carry     h[t-1] <- h[t]
    give out  h[t]
"""

MOVED = """
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      a: [H]    = h[t-1]*x[t]
      r: [1, H] = reshape(a)
      s: [1, H] = reshape(x[t])
      u: [1, H] = r*s
      v: [H]    = reshape(u)
      w: [H]    = v + a
      h[t]: [H] = tanh(w)
    carry     h[t-1] <- h[t]
    give out  h[t]
"""

ERF = "sequence x[t]: [H]\ncarried h[t-1]: [H]\n a: [H] = 2*h[t-1]\n h[t]: [H] = erf(a)\ncarry h[t-1] <- h[t]\ngive out h[t]"
LATE = """
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      a: [H]    = tanh(x[t])
      h[t]: [H] = a*h[t-1]
      b: [H]    = a + h[t]
    carry     h[t-1] <- h[t]
    give out  b
"""
PROGRAMS = {"gates": GATES, "back": BACK, "turn": TURN, "sums": SUMS, "moved": MOVED, "erf": ERF, "late": LATE}


def simulate(storage: Storage, wanted: Demands) -> None:
    Simulation(storage, wanted.keep, wanted.states).run()


@pytest.mark.parametrize("neighbours", [True, False])
@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("name", PROGRAMS)
def test_whoever_reads_a_value_finds_it(name: str, states: bool, neighbours: bool) -> None:
    """Where carries are not kept, what is read of them after the loop has been copied, and none is given out."""
    wanted, text = demands(states=states, neighbours=neighbours), PROGRAMS[name]
    if not states:
        text = re.sub(r"give out +(h\[t\]|n)", "", text)
    schedule = scheduled(text, blocks=True)
    simulate(plan(code_of(schedule if states else keep_carries(schedule)), wanted), wanted)


@pytest.mark.parametrize("name", ["lstm", "gru_before", "slstm", "qrnn_fo", "skip_gru", "mlstm_xlstm"])
def test_whoever_reads_a_value_finds_it_in_real_cells(name: str) -> None:
    compiled = compile_cell(cell_of(ROOT / "specs" / f"{name}.yaml"), "speed", BACKEND)
    for direction in (FORWARD, BACKWARD):
        ahead = direction == FORWARD
        given = () if ahead else compiled.stash
        code = instructions(compiled.schedules[direction])
        wanted = demands(keep=compiled.kept if ahead else (), given=given, states=ahead)
        simulate(plan(code, wanted), wanted)


def test_the_simulation_sees_a_value_that_is_lost() -> None:
    """Of any two places of the gates' step, one must not be the other."""
    wanted = demands(keep=("i", "f"))
    storage = plan(code_of(GATES), wanted)
    simulate(storage, wanted)
    for lost, other in (("f", "i"), ("c[t]", "f"), ("Uf@h", "Ui@h")):
        wrong = replace(storage, place={**storage.place, lost: storage.place[other]})
        with pytest.raises(AssertionError, match="looks for"):
            simulate(wrong, wanted)


# --- which do -------------------------------------------------------------------------------------------------------


def test_gates_overwrite_their_pre_activations() -> None:
    storage = storage_of(GATES, keep=("i", "f"))
    assert storage.place["Ui@h"] == storage.place["i.pre"] == storage.place["i"]
    assert storage.place["Uf@h"] == storage.place["f.pre"] == storage.place["f"]
    assert storage.home("i") is Home.SEQUENCE, "what is kept is there for every step"
    assert storage_of(GATES).home("f") is Home.STEP


def test_cotangents_overwrite_their_factors() -> None:
    """And what a step hands on, what it was handed; what other directions left, nobody overwrites."""
    storage = storage_of(BACK, states=False, given=("s[t]",))
    assert ("p", "d", "n") in sharers(storage) and storage.copied_carries == ()
    assert storage.home("e") is Home.SEQUENCE and "s[t]" not in storage.place


def test_carries_of_which_each_is_made_of_the_other_do_not_both_stay_in_place() -> None:
    storage = storage_of(TURN, states=False)
    assert [carry.before for carry in storage.copied_carries] == ["p"]
    assert storage_of(TURN, states=True).copied_carries == ()


def test_a_function_that_makes_its_result_bit_by_bit_overwrites_nothing() -> None:
    storage = storage_of(ERF, states=False)
    assert storage.place["a"] != storage.place["h[t]"]
    tanh = storage_of(ERF.replace("erf", "tanh"), states=False)
    assert tanh.place["a"] == tanh.place["h[t]"]


def test_another_shape_is_the_same_place() -> None:
    """Of what is given, an alias."""
    storage = storage_of(MOVED)
    assert storage.place["a"] == storage.place["r"] and storage.place["u"] == storage.place["v"]
    assert storage.place["u"] != storage.place["a"], "which is still read"
    assert storage.aliases == {"s": "x[t]"} and "s" not in storage.place


def test_what_one_step_gives_out_has_a_place_of_its_own() -> None:
    step = LATE.replace("b: [H]    = a + h[t]", "b: [H] = tanh(a)")
    assert storage_of(step, alone=True, states=False).place["b"] != storage_of(step, alone=True, states=False).place["a"]
    assert set(homes(storage_of(step, alone=True, states=False)).values()) == {Home.STEP}


# --- what is known of values ------------------------------------------------------------------------------------------


def test_lifetimes() -> None:
    """Positions of instructions; what outlives the pass is read at its end."""
    sharing = share(code_of(LATE), demands(states=False))
    end = len(sharing.sequence)
    assert sharing.defined == {"x[t]": -1, "h[t-1]": -1, "a": 0, "h[t]": 1, "b": 2}
    assert sharing.last == {"x[t]": 0, "h[t-1]": 1, "a": 2, "h[t]": end, "b": end}


def test_homes() -> None:
    sharing = share(code_of(GATES), demands(keep=("i",)))
    assert {name: sharing.homes[name] for name in ("x[t]", "Wi", "Wi@x", "i", "f", "h[t-1]", "h[t]")} == {
        "x[t]": Home.GIVEN,
        "Wi": Home.CONSTANT,
        "Wi@x": Home.FLAT,
        "i": Home.SEQUENCE,
        "f": Home.STEP,
        "h[t-1]": Home.HISTORY,
        "h[t]": Home.HISTORY,
    }
    assert share(code_of(GATES), demands(states=False)).homes["h[t]"] is Home.STEP
    assert share(code_of(GATES), demands(neighbours=False)).homes["Wi@x"] is Home.SEQUENCE


def test_a_product_for_the_caller_is_written_where_he_gets_it() -> None:
    """In the backward pass: the forward pass copies its outputs from states."""
    step = "constant W: [H, I]\nsequence dy: [H]\n dx: [I] = W.T @ dy\ngive out dx"
    assert storage_of(step, states=False).home("dx") is Home.USER
    assert storage_of(step, states=True).home("dx") is Home.FLAT
