"""Where values lie, and what the code of a region loads, computes and stores."""

from __future__ import annotations

import dataclasses

import pytest
import sympy
from fused_support import GATED, SCAN, memory_of
from program_support import told

from cellspec import ir
from cellspec.backends.fused.bodies import Body, Store, body, variables
from cellspec.backends.fused.c_family import size_text
from cellspec.backends.fused.code import Code, code, name
from cellspec.backends.fused.elements import Elements
from cellspec.backends.fused.memory import Columns, Memory, as_saved, buffer, is_matrix, matrices, owner
from cellspec.backends.memory.model import B, Element, Home, Owner, Phase, T

D, H, I = sympy.symbols("D H I")  # noqa: E741


def buffers(memory: Memory) -> dict[str, tuple[Home, sympy.Expr, Element]]:
    return {b.name: (b.home, b.units, b.element) for b in memory.buffers}


def stores(memory: Memory) -> dict[str, list[str]]:
    return {name: [place.buffer.name for place in places] for name, places in memory.stores.items() if places}


EXACT, STORED = Element.EXACT, Element.STORED

TOTAL = """
    constant  b: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      f: [H]    = sigmoid(x[t])
      g: [H]    = f*h[t-1]
      h[t]: [H] = g + b
    carry     h[t-1] <- h[t]
    total     d:b = sum of g
    give out  f
"""
"""A step that leaves a sum over all steps."""


def test_a_step_with_a_product() -> None:
    """Products read copies of the type that is stored; carries are kept for the caller, who may ask for any step's state."""
    memory = memory_of(GATED)
    assert buffers(memory) == {
        "W_x_all": (Home.SEQUENCE, H, STORED),
        "U_h_now": (Home.STEP, H, STORED),
        "h_all": (Home.HISTORY, H, EXACT),
        "h_operand": (Home.HISTORY, H, STORED),
        "c_all": (Home.HISTORY, H, EXACT),
        "h_out": (Home.SEQUENCE, H, STORED),
    }
    assert stores(memory) == {"h[t]": ["h_all", "h_operand", "h_out"], "c[t]": ["c_all"]}
    assert memory.reads["h[t-1]"] == Columns(memory.carries[0].state) and memory.reads["h[t]"].late
    assert memory.stacks[frozenset({"h[t-1]"})] == (Columns(memory.carries[0].operand), ("h[t-1]",))
    assert memory.stacks[frozenset({"x[t]"})][0].buffer.owner is Owner.CALLER
    assert all(b.owner is Owner.FORWARD for b in memory.buffers) and owner(memory.flow) is Owner.FORWARD


def test_what_the_other_direction_reads_is_kept_for_every_step() -> None:
    memory = memory_of(GATED, kept=("i",))
    place = memory.reads["i"]
    assert memory.reads["W@x"] == place, "it lies in the place of what only its region reads"
    assert place.buffer.name == "i_all_2" and memory.stores["i"] == (place,), "and that is called after it"
    assert buffers(memory)["i_all_2"] == (Home.SEQUENCE, H, STORED) and "W_x_all" not in buffers(memory)


def test_the_backward_direction_takes_turns_with_two_halves() -> None:
    """Nobody asks for cotangents of other steps."""
    memory = memory_of(GATED.replace("give out  h[t]", "give out  i"), forwards=False)
    assert {b.name: b.home for b in memory.buffers if b.element is EXACT} == {
        "h_prev_pair": Home.ROLLING,
        "c_prev_pair": Home.ROLLING,
    }
    assert all(b.owner is Owner.BACKWARD for b in memory.buffers)


def test_a_kernel_over_the_whole_loop_keeps_carries_in_registers() -> None:
    text = TOTAL
    memory = memory_of(text, single=True, forwards=False)
    assert memory.carries[0].state.home is Home.LATEST
    assert memory.totals["g"] == buffer("g_totals", Home.LATEST, H, Owner.BACKWARD, EXACT)
    assert memory_of(SCAN, single=True).carries[0].state.home is Home.HISTORY, "a sample may end at any step"


def test_operands_of_a_stacked_product_lie_side_by_side() -> None:
    memory = memory_of(
        """
        constant V: [H, D], W: [H, H]
        sequence x[t]: [D]
        carried  h[t-1]: [H]
          sum: [1]  = sum_to(h[t-1])
          y: [D]    = x[t]*sum
          z: [H]    = 2*h[t-1]
          p: [H]    = V @ y
          q: [H]    = W @ z
          s: [H]    = p + q
          h[t]: [H] = tanh(s)
        carry    h[t-1] <- h[t]
        give out h[t]
        """
    )
    place, order = memory.stacks[frozenset({"y", "z"})]
    assert place.buffer.units == D + H and order == ("y", "z")
    (first,), (second,) = memory.stores["y"], memory.stores["z"]
    assert (first.start, second.start) == (0, D) and first.buffer == second.buffer == place.buffer


def test_values_of_several_axes_lie_side_by_side_along_the_last() -> None:
    memory = memory_of(
        """
        constant U: [N, H, D], V: [N, H, H]
        carried  h[t-1]: [N, H], g[t-1]: [N, D]
          a: [N, D] = 2*g[t-1]
          b: [N, H] = 3*h[t-1]
          p: [N, H] = U @ a
          q: [N, H] = V @ b
          s: [N, H] = p + q
          h[t]: [N, H] = tanh(s)
          g[t]: [N, D] = g[t-1] + 1
        carry    h[t-1] <- h[t]
        carry    g[t-1] <- g[t]
        give out h[t]
        """
    )
    place, _ = memory.stacks[frozenset({"a", "b"})]
    (a,), (b,) = memory.stores["a"], memory.stores["b"]
    assert {a.pitch, b.pitch} == {(D, D + H), (H, D + H)} and place.buffer.units == sympy.expand(sympy.Symbol("N") * (D + H))


def test_which_slot_is_behind_a_step() -> None:
    """The loop of the backward direction runs the other way, but the tape's memory is the forward direction's."""
    history = Columns(buffer("h", Home.HISTORY, H))
    forward, backward = memory_of(SCAN), memory_of(SCAN, forwards=False)
    assert [m.is_behind(dataclasses.replace(history, late=late)) for m in (forward, backward) for late in (True, False)] == [
        True, False, False, True,
    ]  # fmt: skip
    saved = as_saved(dataclasses.replace(history, late=True))
    assert saved.buffer.owner is Owner.TAPE and backward.is_behind(saved) and forward.is_behind(saved)


def test_matrices_are_rows_of_the_stored_type_for_every_step() -> None:
    memory = memory_of(GATED, kept=("i",), forwards=False)
    assert {name: place.buffer.name for name, place in matrices(memory).items()} == {
        "x[t]": "x", "i": "i_all_2", "W@x": "i_all_2",
    }  # fmt: skip
    assert not is_matrix(buffer("a", Home.STEP, H)) and not is_matrix(buffer("a", Home.SEQUENCE, H, element=EXACT))
    assert buffer("a", Home.HISTORY, H).axes == (T + 1, B, H)


# --- bodies -----------------------------------------------------------------------------------------------------------


def body_of(text: str, *, whole: bool = False, **options: object) -> Body:
    memory = memory_of(text, single=whole, **options)
    return body(memory, memory.plan.in_phase(Phase.LOOP)[0], whole)


def test_what_is_read_once_is_written_where_it_is_read() -> None:
    found = body_of(GATED)
    ops = {op.out: op.expr for op in found.ops}
    assert list(ops) == ["i", "c[t]", "h[t]"]
    assert ops["i"].args[0] == sum(map(ir.symbol, ("U@h", "W@x", "b")))
    assert found.loads == ("b", "c[t-1]", "W@x", "U@h") and found.constants == ("b",) and found.carries == ()
    assert found.varying == ("c[t-1]", "W@x", "U@h") and found.on_demand == ()
    assert [(s.name, s.place.buffer.name) for s in found.stores] == [
        ("c[t]", "c_all"), ("h[t]", "h_all"), ("h[t]", "h_operand"), ("h[t]", "h_out"),
    ]  # fmt: skip
    assert {b.name for b in found.written} == {"c_all", "h_all", "h_operand", "h_out"}
    assert {b.name for b in found.buffers} > {"b", "W_x_all", "U_h_now"}


def test_code_for_the_whole_loop_holds_its_carries() -> None:
    text = TOTAL
    found = body_of(text, whole=True, forwards=False)
    assert [kept.carry.before for kept in found.carries] == ["h[t-1]"] and "h[t-1]" not in found.varying
    assert [store.name for store in found.last_stores] == ["h[t-1]"]
    assert [(store.name, store.place.buffer.name) for store in found.totals] == [("g", "g_totals")]
    assert all(store.place.buffer.home is not Home.LATEST for store in found.stores)
    step = body_of(text, forwards=False)
    assert not step.whole and step.totals == () and step.carries == ()


def test_variables_are_called_after_their_values() -> None:
    found = body_of(GATED)
    assert variables(found, ["i"]) == {
        "b": "b_j", "c[t-1]": "c_prev", "W@x": "W_x", "U@h": "U_h", "i": "i_2", "c[t]": "c", "h[t]": "h",
    }  # fmt: skip


# --- elements ---------------------------------------------------------------------------------------------------------


def elements(text: str) -> Elements:
    def factor(expr: sympy.Expr) -> Code:
        return size_text(expr, {}) if expr.is_Atom else code("({})", size_text(expr, {}))

    def at(place: Columns, unit: Code) -> Code:
        return code("{}[{} + {}]", name(place.buffer.name), size_text(place.start, {}), unit)

    return Elements(memory_of(text), factor, at)


MOVED = """
    constant  b: [H]
    sequence  x[t]: [2*H], y[t]: [D, 2*H]
    carried   h[t-1]: [H]
      left: [H]     = x[t][..., 0:H]
      right: [H]    = x[t][..., H:2*H]
      turned: [H]   = roll(right, 1)
      part: [D, H]  = y[t][..., H:2*H]
      flat: [D*H]   = reshape(part)
      u: [D*H]      = tanh(flat)
      h[t]: [H]     = left*turned + h[t-1]
    carry     h[t-1] <- h[t]
    give out  h[t], u
"""


@pytest.mark.parametrize(
    ("value", "element"),
    [
        ("x[t]", "x[0 + j]"),
        ("left", "x[0 + j]"),
        ("right", "x[H + j]"),
        ("turned", "x[H + (j + H - 1%H)%H]"),
        ("part", "y[0 + j/H*(2*H) + H + j%H]"),
        ("flat", "y[0 + j/H*(2*H) + H + j%H]"),
    ],
)
def test_moves_are_followed_to_the_memory(value: str, element: str) -> None:
    found = elements(MOVED)
    made = found.element(value, name("j"))
    assert made.text == element and made.names[0] == element[0] and "j" in made.names
    assert told(found.memory.flow.program)


def test_a_store_is_a_value_and_a_place() -> None:
    place = Columns(buffer("a", Home.STEP, H))
    assert Store("v", place) == Store("v", Columns(buffer("a", Home.STEP, H)))
