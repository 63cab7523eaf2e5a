"""Where everything lies that kernels and products read and write: nobody's memory is another's, and what is shared is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import sympy
from fused_support import GATED, SCAN, memory_of, plan_of

from cellspec import ir
from cellspec.backends.fused.allocation import SUFFIXES, allocate
from cellspec.backends.fused.flow import origin
from cellspec.backends.fused.memory import Columns, Memory, buffer
from cellspec.backends.memory.model import Element, Home, Owner
from cellspec.backends.naming import Names

D, H = sympy.symbols("D H")

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
      i: [H]     = sigmoid(i.pre)
      f: [H]     = sigmoid(f.pre)
      c[t]: [H]  = f*c[t-1] + i
      h[t]: [H]  = tanh(c[t])
    carry     h[t-1] <- h[t]
    carry     c[t-1] <- c[t]
    give out  h[t]
"""
SPREAD = """
    constant  b: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      e: [H]    = exp(x[t]*h[t-1])
      s: [1]    = sum_to(e)
      h[t]: [H] = e/s + b
    carry     h[t-1] <- h[t]
    give out  h[t]
"""
"""A sum over units between two regions of a step."""

BACK = """
    constant  U: [H, H], V: [H, D]
    sequence  dy[t]: [H], s[t]: [H], x[t]: [D], z[t]: [H]
    carried   p: [H]
      d: [H]    = dy[t] + p
      e: [H]    = d*s[t]*(1 - s[t])
      f: [H]    = d*z[t]
      m: [H]    = e + f
      n: [H]    = U.T @ m
      dx: [D]   = V.T @ e
      O: [H, D] = outer(e, x[t])
      Q: [H, D] = outer(f, x[t])
    carry     p <- n
    total     db = sum of e
    total     dV = sum of O
    total     dW = sum of Q
    give out  dx
"""
MEMORIES = {
    "gated": memory_of(GATED, kept=("i",)),
    "gates": memory_of(GATES, kept=("i", "f")),
    "scan": memory_of(SCAN, single=True),
    "spread": memory_of(SPREAD),
    "given out": memory_of(SPREAD.replace("give out  h[t]", "give out  h[t], e")),
    "back": memory_of(BACK, forwards=False),
}


def stretch(place: Columns, width: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    return place.start, sympy.expand(place.start + width)


def at_most_nothing(size: sympy.Expr) -> bool:
    """Whether a polynomial in dims is none for any of them, by its coefficients."""
    return all(number <= 0 for number in sympy.expand(size).as_coefficients_dict().values())


@pytest.mark.parametrize("name", MEMORIES)
def test_what_a_kernel_reads_it_has_a_place_for(name: str) -> None:
    """And what steps write and others read is stored there."""
    memory = MEMORIES[name]
    flow = memory.flow
    for region in memory.plan.regions:
        for value in region.loads:
            place = memory.reads[origin(flow, value)]
            made = flow.made.get(origin(flow, value))
            if made is not None and isinstance(made[1], ir.Pointwise):
                stored = memory.stores[origin(flow, value)]
                assert any(p.buffer == place.buffer and p.start == place.start for p in stored), value


@pytest.mark.parametrize("name", MEMORIES)
def test_names_of_buffers_are_of_one_each(name: str) -> None:
    names = Counter(b.name for b in MEMORIES[name].buffers)
    assert names and set(names.values()) == {1}


@pytest.mark.parametrize("name", MEMORIES)
def test_values_in_one_buffer_do_not_overlap_unless_one_overwrites_the_other(name: str) -> None:
    """What lies in the same columns lies there exactly, and the later one's region reads the earlier."""
    memory = MEMORIES[name]
    flow = memory.flow
    here = [(n, p) for n, p in memory.reads.items() if n in flow.made]
    for n, (one, first) in enumerate(here):
        for other, second in here[n + 1 :]:
            if first.buffer != second.buffer or first.pitch or second.pitch:
                continue
            (a, b), (c, d) = stretch(first, flow.width(one)), stretch(second, flow.width(other))
            if (a, b) == (c, d):
                readers = [r for r in memory.plan.regions if {one, other} & set(r.loads) and {one, other} & set(r.results)]
                assert len(readers) == 1, f"{one} and {other} lie together, but no region reads one and makes the other"
            else:
                assert at_most_nothing(b - c) or at_most_nothing(d - a), f"{one} and {other} overlap"


@pytest.mark.parametrize("name", MEMORIES)
def test_a_place_is_within_its_buffer(name: str) -> None:
    memory = MEMORIES[name]
    for value, place in memory.reads.items():
        if value in memory.flow.made and place.pitch is None:
            assert at_most_nothing(place.start + memory.flow.width(value) - place.buffer.units), value


@pytest.mark.parametrize("name", MEMORIES)
def test_products_read_matrices_of_the_stored_type(name: str) -> None:
    memory = MEMORIES[name]
    operands = [op.operands for ops in memory.flow.phases for op in ops if isinstance(op, ir.Product)]
    for names in operands:
        place, order = memory.stacks[frozenset(names)]
        assert set(order) == set(names) and place.buffer.element is Element.STORED


@pytest.mark.parametrize("name", MEMORIES)
def test_what_is_given_out_nobody_reads(name: str) -> None:
    """The caller may change it."""
    memory = MEMORIES[name]
    outs = set(memory.outputs.values())
    assert set(memory.outputs) >= set(memory.flow.outputs)
    read = {memory.reads[origin(memory.flow, value)].buffer for region in memory.plan.regions for value in region.loads}
    assert not outs & (read | {place.buffer for place, _ in memory.stacks.values()})


def test_kept_gates_lie_over_their_pre_activations_side_by_side() -> None:
    """The product over all steps wrote these in one piece; the buffer is called after what stays."""
    memory = MEMORIES["gates"]
    i, f = (memory.reads[name] for name in "if")
    assert i.buffer == f.buffer and {i.start, f.start} == {0, H} and i.buffer.units == 2 * H
    assert memory.reads["Wi@x"] == i and memory.reads["Wf@x"] == f
    assert i.buffer.name == f"i_f{SUFFIXES[Home.SEQUENCE]}"
    assert memory_of(GATES).reads["Wi@x"].buffer.name.startswith("W"), "without them it is called after what was written"


def test_what_an_exchange_within_a_step_needs_is_exact_and_of_one_step() -> None:
    e, s = (MEMORIES["spread"].reads[name].buffer for name in "es")
    assert (e.home, s.home) == (Home.STEP, Home.STEP) and e.element is s.element is Element.EXACT


def test_cotangents_of_one_gradient_are_one_matrix() -> None:
    memory = MEMORIES["back"]
    place, order = memory.stacks[frozenset("ef")]
    assert place.buffer.home is Home.SEQUENCE and place.buffer.units == 2 * H and set(order) == {"e", "f"}
    both = memory_of(BACK.replace("total     db", "total     dc = sum of f\n    total     db"), forwards=False)
    assert both.summed["e"].buffer == both.summed["f"].buffer == both.stacks[frozenset("ef")][0].buffer, "and one sum"
    assert memory.stacks[frozenset("m")][0].buffer.home is Home.STEP, "a product in the loop alone reads that"
    assert memory.outputs["dx"].name == "dx_out" and memory.reads["dx"].buffer == memory.outputs["dx"]


def test_ranks_say_who_stands_first() -> None:
    made = plan_of(BACK, forwards=False)
    values = {name: replace(value, origin=name) for name, value in made.flow.program.values.items()}
    made = replace(made, flow=replace(made.flow, program=replace(made.flow.program, values=values)))

    def order(rank: dict[str, int]) -> tuple[str, ...]:
        given = {n: Columns(buffer(n, Home.SEQUENCE, made.flow.width(n), Owner.CALLER)) for n in made.flow.program.sequences}
        constants = {n: Columns(buffer(n, Home.CONSTANT, made.flow.width(n))) for n in made.flow.program.constants}
        return allocate(made, given | constants, given, Names(()), False, rank).stacks[frozenset("ef")][1]

    assert order({"e": 0, "f": 1}) == ("e", "f") and order({"f": 0, "e": 1}) == ("f", "e")


def states(memory: Memory) -> dict[str, Home]:
    return {kept.carry.before: kept.state.home for kept in memory.carries}


def test_a_carry_lives_as_long_as_somebody_asks_for_it() -> None:
    """Forwards for every step; backwards for this step and the next, or in registers; what is read late is a copy."""
    assert states(MEMORIES["gates"]) == {"h[t-1]": Home.HISTORY, "c[t-1]": Home.HISTORY}
    assert states(MEMORIES["back"]) == {"p": Home.ROLLING}
    late = BACK.replace("O: [H, D] = outer(e, x[t])", "O: [H, D] = outer(p, x[t])")
    memory = memory_of(late, forwards=False)
    assert states(memory) == {"p": Home.ROLLING} and frozenset({"f", "p kept"}) in memory.stacks
    assert states(memory_of(SCAN, single=True, forwards=False)) == {"h[t-1]": Home.LATEST}


def test_a_state_that_no_product_reads_has_no_copy_for_products() -> None:
    kept = {k.carry.before: k for k in MEMORIES["gates"].carries}
    operand = kept["h[t-1]"].operand
    assert kept["c[t-1]"].operand is None and operand is not None
    assert (operand.element, kept["h[t-1]"].state.element) == (Element.STORED, Element.EXACT)
    back = {k.carry.before: k for k in MEMORIES["back"].carries}
    assert back["p"].state.element is Element.STORED, "a product has written it"
