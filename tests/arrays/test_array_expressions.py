"""Expressions of array code: what they are made of, and what that says of buffers, names and dims."""

from __future__ import annotations

import pytest
import sympy

from cellspec.backends.arrays.expressions import (
    ELLIPSIS,
    SAMPLES,
    Apply,
    Attribute,
    Choice,
    Expression,
    Index,
    Items,
    Library,
    Local,
    Method,
    Number,
    OfMemory,
    Stretch,
    View,
    Word,
    buffers,
    dims_of,
    local,
    locals_of,
    reshaped,
    root,
    transposed,
)
from cellspec.backends.memory.model import B, Buffer, Owner, T

H, D = sympy.symbols("H D")
A = Buffer("a", (T, H, B), Owner.FORWARD)
LOW = View("a_low", A, Index(A, (ELLIPSIS, Stretch(stop=H))))
X = Local("x")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        (A, {A}),
        (LOW, {A}),
        (Index(reshaped(LOW, SAMPLES, H), (0,)), {A}),
        (Choice(OfMemory("apart"), A, X), {A}),
        (Apply(Library("array"), (X,), (("like", Items((A,))),)), {A}),
        (Attribute(X, "T"), set()),
    ],
)
def test_the_buffers_of_an_expression(expression: Expression, found: set[Buffer]) -> None:
    assert buffers(expression) == found


def test_names_inside_a_view_are_not_those_of_whoever_reads_it() -> None:
    empty = Apply(Word("empty"), (Local("dtype"),))
    assert locals_of(empty) == {Word("empty"), Local("dtype")}
    assert locals_of(Index(View("v", A, empty), (Local("t"),))) == {Local("t")}
    assert Word("t") != Local("t")


def test_dims_are_found_under_the_names_that_the_module_has_for_them() -> None:
    dims = {"T": "T_", "H": "H", "D": "D"}
    shape = reshaped(LOW, T, sympy.Symbol("T_") * 2, B)
    assert dims_of(shape, dims) == {"T_"}
    assert dims_of(Number(sympy.Symbol("T") / 2), dims) == {"T_"}
    assert dims_of(Index(X, (Stretch(D, None),)), dims) == {"D"}
    assert dims_of(LOW, dims) == set()


def test_a_polynomial_in_the_names_of_the_module() -> None:
    old = sympy.Symbol("T", positive=True)
    assert local(2 * old + H, {"T": "T_"}) == 2 * sympy.Symbol("T_") + H


def test_a_transpose_of_a_transpose_is_the_matrix() -> None:
    assert transposed(X) == Attribute(X, "T")
    assert transposed(transposed(X)) == X


def test_the_root_of_a_view_is_the_array() -> None:
    array = Attribute(Local("dy"), "h")
    assert root(Attribute(Index(Method(array, "transpose", (0, 2, 1)), (0,)), "T")) == array
