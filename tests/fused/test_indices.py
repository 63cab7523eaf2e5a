"""Index arithmetic: the text that it makes, run, picks the element that NumPy picks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sympy
from program_support import program

from cellspec import ir
from cellspec.backends.fused.axes import extent, in_turn, kernel_of
from cellspec.backends.fused.c_family import size_text
from cellspec.backends.fused.code import EMPTY, Code, code, name
from cellspec.backends.fused.indices import UNIT, ZERO, first, groups, rolled, stretched, sum_of, widened

H, D = sympy.symbols("H D")
ONE = sympy.Integer(1)
SIZES = {"H": 3, "D": 2}
Shape = tuple[sympy.Expr, ...]


def factor(expr: sympy.Expr) -> Code:
    text = size_text(expr, {})
    return text if expr.is_Atom else code("({})", text)


def size(shape: Shape) -> tuple[int, ...]:
    return tuple(int(sympy.sympify(axis).subs(SIZES)) for axis in shape)


def at(text: Code, **variables: int) -> int:
    """What the text of an index comes to; C divides whole numbers as ``//`` does here, where none is negative."""
    assert set(text.names) <= {*SIZES, *variables}
    return int(eval(text.text.replace("/", "//"), {**SIZES, **variables}))


STRETCHED: list[tuple[Shape, Shape, str]] = [
    ((H,), (H,), "j"),
    ((), (H,), "0"),
    ((ONE,), (H, D), "0"),
    ((H, ONE), (H, D), "j/D"),
    ((ONE, D), (H, D), "j%D"),
    ((H, D), (H, D), "j"),
    ((H, ONE, D), (H, H, D), "j/(D*H)*D + j%D"),
    ((ONE, H, ONE), (D, H, D), "j/D%H"),
]


@pytest.mark.parametrize(("value", "whole", "text"), STRETCHED)
def test_the_unit_that_stands_over_another(value: Shape, whole: Shape, text: str) -> None:
    made = stretched(value, whole, factor)
    assert made.text == text
    units = np.arange(int(np.prod(size(value)))).reshape(size(value))
    expected = np.broadcast_to(units, size(whole)).ravel()
    assert [at(made, j=j) for j in range(expected.size)] == expected.tolist()


@pytest.mark.parametrize(("value", "whole"), [(value, whole) for value, whole, _ in STRETCHED])
def test_the_first_of_those_that_have_a_unit_stores_it(value: Shape, whole: Shape) -> None:
    condition, unit = first(value, whole, factor), stretched(value, whole, factor)
    count = int(np.prod(size(whole)))
    stores = [
        j
        for j in range(count)
        if not condition or eval(condition.text.replace("/", "//").replace("&&", "and"), {**SIZES, "j": j})
    ]
    stored = [at(unit, j=j) for j in stores]
    assert sorted(stored) == list(range(int(np.prod(size(value)))))
    assert stores == [min(j for j in range(count) if at(unit, j=j) == u) for u in stored]


def test_neighbouring_axes_of_a_kind_are_one() -> None:
    assert groups((H, ONE, ONE), (H, D, H)) == [(True, H), (False, D * H)]
    assert groups((), (H, D)) == [(False, D * H)]


@pytest.mark.parametrize("shift", [0, 1, 2, 5, -1, -4])
@pytest.mark.parametrize("shape", [(H,), (D, H)])
def test_a_rotation(shape: Shape, shift: int) -> None:
    made = rolled(UNIT, shape, shift, factor)
    units = np.arange(int(np.prod(size(shape)))).reshape(size(shape))
    assert [at(made, j=j) for j in range(units.size)] == np.roll(units, shift, axis=-1).ravel().tolist()
    inner = rolled(code("{} + 1", UNIT), shape, shift, factor)  # of what is itself a sum
    assert [at(inner, j=j - 1) for j in range(units.size)] == np.roll(units, shift, axis=-1).ravel().tolist()


def test_rows_within_wider_rows() -> None:
    wide = np.arange(2 * 7).reshape(2, 7)
    made = widened(UNIT, H, 2 * H + 1, name("start"), factor)
    assert made.text == "j/H*(2*H + 1) + start + j%H"
    assert [at(made, j=j, start=2) for j in range(6)] == wide[:, 2:5].ravel().tolist()
    assert widened(UNIT, H, 2 * H, EMPTY, factor).text == "j/H*(2*H) + j%H"


def test_sums_leave_nothing_out_but_nothing() -> None:
    assert sum_of(name("a"), ZERO, EMPTY, name("b")).text == "a + b"
    assert sum_of(ZERO) == EMPTY


# --- functions along axes -------------------------------------------------------------------------------------------


def whole(array: npt.NDArray[Any], outer: int, length: int, inner: int) -> npt.NDArray[Any]:
    return array.reshape(outer, length, inner)


@pytest.mark.parametrize(
    ("operand", "out", "seen", "kernel"),
    [
        ((H,), (ONE,), (1, 3, 1), "sum_units"),
        ((D, H), (D, ONE), (2, 3, 1), "sum_units"),
        ((D, H), (ONE, H), (1, 2, 3), "sum_across"),
        ((D, H, D), (D, ONE, D), (2, 3, 2), "sum_across"),
        ((D, H, D), (D, ONE, ONE), (2, 6, 1), "sum_units"),
    ],
)
def test_what_a_sum_goes_through(operand: Shape, out: Shape, seen: tuple[int, int, int], kernel: str) -> None:
    op = ir.SumTo("s", "a")
    found = extent(op, operand, out)
    assert size((found.outer, found.length, found.inner)) == seen and kernel_of(op, found) == kernel
    array = np.arange(np.prod(size(operand)), dtype=float).reshape(size(operand))
    axes = tuple(k for k, (a, b) in enumerate(zip(operand, out, strict=False)) if a != b)
    expected = array.sum(axis=axes if len(operand) == len(out) else None).ravel()
    np.testing.assert_array_equal(whole(array, *seen).sum(axis=1).ravel(), expected)


def test_what_running_sums_and_largest_elements_go_through() -> None:
    up, down, top = ir.CumSum("s", "a"), ir.CumSum("s", "a", True), ir.Largest("s", "a")
    assert extent(up, (D, H), (D, H)) == extent(top, (D, H), (D, ONE))
    assert [kernel_of(op, extent(up, (H,), (H,))) for op in (up, down, top)] == [
        "running_sum",
        "running_sum_back",
        "largest_unit",
    ]


def test_a_sum_over_axes_that_are_no_neighbours_is_two_the_last_first() -> None:
    step = program("sequence a: [D, H, D]\n  s: [1, H, 1] = sum_to(a)\ngive out s")
    values = dict(step.values)
    assert in_turn(step.ops[0], values) == [ir.SumTo("s over 1", "a"), ir.SumTo("s", "s over 1")]
    assert values["s over 1"].shape == (D, H, 1)
    other = program("sequence a: [D, H]\n  s: [1, H] = sum_to(a)\ngive out s")
    assert in_turn(other.ops[0], dict(other.values)) == [ir.SumTo("s", "a")]
