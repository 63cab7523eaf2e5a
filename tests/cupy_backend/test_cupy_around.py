"""How a thread finds its place: the C++ text, run for every thread, picks the elements that values have in their buffers."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import sympy
from support import cell_from

from cellspec.backends import registry
from cellspec.backends.cupy.around import Around, Texts
from cellspec.backends.fused.code import Code
from cellspec.backends.fused.directions import Directions
from cellspec.backends.fused.indices import UNIT
from cellspec.backends.fused.memory import Columns, Memory, buffer
from cellspec.backends.fused.regions import Region
from cellspec.backends.memory.model import Home, Owner, Phase
from cellspec.pipeline import compile_cell

H = sympy.Symbol("H")
SIZES = {"T": 4, "B": 3, "H": 2}
LEAKY = """
name: leaky
inputs: {x: H}
states: {h: H}
params: {a: H}
equations: |
  h[t] = sigmoid(a)*h[t-1] + x[t]
"""


@cache
def memory(direction: str) -> Memory:
    compiled = compile_cell(cell_from(LEAKY), "speed", registry.backend("cupy"))
    made = Directions(compiled, {"x[t]": "x"}, [], [])
    forward, _ = made.forward_memory()
    return forward if direction == "forward" else made.backward_memory(forward)[0]


def around(direction: str, phase: Phase, units: sympy.Expr = H) -> Around:
    region = Region(phase, 0, (units,), (), (), frozenset())
    return Around(memory(direction), region, Texts({"H": "H"}, {}), single=False)


def run(lines: list[Code], known: dict[str, Any]) -> None:
    """Define what lines of C++ do; whole numbers are divided as ``//`` does, where none is negative."""
    for line in lines:
        if found := re.fullmatch(r"const long long (.*);", line.text):
            for definition in found[1].split(", "):
                name, value = definition.split(" = ")
                known[name] = value_of(value, known)


def value_of(text: str, known: dict[str, Any]) -> int:
    return int(eval(text.replace("(long long)", "").replace("/", "//"), dict(known)))


class Thread:
    """As CUDA tells a thread which one it is."""

    def __init__(self, x: int) -> None:
        self.x = x


def found(finds: Around, index: Code, t: int) -> list[int]:
    """What the text ``index`` comes to in each thread of step ``t``, in the order of threads; of all steps without a loop."""
    opening = [*finds.opening([index]), *finds.moment([index])]
    rows = SIZES["T"] * SIZES["B"] if finds.flat else SIZES["B"]
    results = []
    for number in range(rows * int(sympy.sympify(finds.region.units).subs(SIZES))):
        known: dict[str, Any] = {**SIZES, "t": t, "rows": rows, "blockIdx": Thread(0), "blockDim": Thread(256)}
        known["threadIdx"] = Thread(number)
        run(opening, known)
        results.append(value_of(index.text, known))
    return results


def elements(place: Columns, row: int | slice | None, units: int = 2) -> list[int]:
    """The elements of the value at ``place`` in this row of its buffer, as NumPy counts them."""
    shape = [int(sympy.sympify(axis).subs(SIZES)) for axis in place.buffer.axes]
    whole = np.arange(np.prod(shape)).reshape(shape)
    start = int(place.start.subs(SIZES))
    picked: np.ndarray[Any, Any] = (whole if row is None else whole[row])[..., start : start + units]
    return picked.ravel().tolist()


def place(home: Home, units: sympy.Expr = H, start: sympy.Expr = sympy.S.Zero, **more: Any) -> Columns:
    return Columns(buffer("v", home, units, more.pop("owner", Owner.FORWARD)), start, **more)


widths = pytest.mark.parametrize(
    ("units", "start"), [(H, sympy.S.Zero), (3 * H, H), (3 * H, sympy.S.Zero), (H + 1, sympy.S.One)]
)


@widths
@pytest.mark.parametrize("t", [0, 3])
def test_in_the_loop(units: sympy.Expr, start: sympy.Expr, t: int) -> None:
    finds = around("forward", Phase.LOOP)

    def picks(at: Columns) -> list[int]:
        return found(finds, finds.index(at, UNIT), t)

    for home, row in ((Home.SEQUENCE, t), (Home.STEP, None), (Home.LATEST, None), (Home.HISTORY, t), (Home.ROLLING, t % 2)):
        at = place(home, units, start)
        assert picks(at) == elements(at, row), home
    for home, row in ((Home.HISTORY, t + 1), (Home.ROLLING, (t + 1) % 2)):
        at = place(home, units, start, late=True)
        assert picks(at) == elements(at, row), "after the step"


@widths
def test_before_and_after_the_loop_a_thread_has_a_step_too(units: sympy.Expr, start: sympy.Expr) -> None:
    finds = around("forward", Phase.BEFORE)
    for home, rows in ((Home.SEQUENCE, slice(0, 4)), (Home.HISTORY, slice(0, 4))):
        at = place(home, units, start)
        assert found(finds, finds.index(at, UNIT), 0) == elements(at, rows)
    at = place(Home.HISTORY, units, start, late=True)
    assert found(finds, finds.index(at, UNIT), 0) == elements(at, slice(1, 5))
    at = place(Home.LATEST, units, start)
    assert found(finds, finds.index(at, UNIT), 0) == 4 * elements(at, None), "the same at every step"


def test_backwards_what_comes_after_a_step_lies_before_it() -> None:
    """But on the forward direction's tape it does not."""
    finds = around("backward", Phase.LOOP)
    own, late = place(Home.HISTORY, owner=Owner.BACKWARD), place(Home.HISTORY, owner=Owner.BACKWARD, late=True)
    assert found(finds, finds.index(own, UNIT), 2) == elements(own, 3)
    assert found(finds, finds.index(late, UNIT), 2) == elements(late, 2)
    taped = place(Home.HISTORY, owner=Owner.TAPE, late=True)
    assert found(finds, finds.index(taped, UNIT), 2) == elements(taped, 3)


def test_a_value_of_one_unit_has_a_thread_a_sample() -> None:
    finds = around("forward", Phase.LOOP, sympy.S.One)
    at = place(Home.SEQUENCE, sympy.S.One)
    assert found(finds, finds.index(at, Code("0")), 2) == elements(at, 2, units=1)


@pytest.mark.parametrize("units", [H, 3 * H])
@pytest.mark.parametrize(("direction", "row"), [("forward", 0), ("backward", 4)])
def test_where_a_carry_starts(direction: str, row: int, units: sympy.Expr) -> None:
    """Forwards in front of the first step, backwards behind the last."""
    finds = around(direction, Phase.LOOP)
    at = place(Home.HISTORY, units)
    assert found(finds, finds.start(at.buffer, UNIT), 0) == elements(at, row)


def test_sizes_are_passed_as_far_as_they_are_mentioned() -> None:
    finds = around("forward", Phase.LOOP)
    index = finds.index(place(Home.SEQUENCE), UNIT)
    assert finds.sizes_used([*finds.opening([index]), *finds.moment([index]), index]) == ("t", "B", "H")
    assert finds.sizes_used([finds.index(place(Home.STEP), UNIT)]) == ()
