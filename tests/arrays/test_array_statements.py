"""Statements: what they read and write, directly and through variables, and from when to when a buffer is needed."""

from __future__ import annotations

import pytest
import sympy

from cellspec.backends.arrays.expressions import (
    NONE,
    Apply,
    Attribute,
    Binary,
    Helper,
    Index,
    Library,
    Local,
    Method,
    Stretch,
    View,
    Word,
    reshaped,
)
from cellspec.backends.arrays.statements import (
    Bind,
    BindAll,
    Call,
    Comment,
    Copy,
    Increase,
    Perform,
    Statement,
    Store,
    When,
    bound,
    names,
    reads,
    simple,
    spans,
    where,
    writes,
)
from cellspec.backends.memory.model import B, Buffer, Owner, T

H = sympy.Symbol("H")
A, C, D = (Buffer(name, (T, H, B), Owner.FORWARD) for name in "acd")
F = Buffer("f", (H, T, B), Owner.FORWARD)
X, FLAT, ADD = Local("x"), Local("flat"), Local("add")
CUT = Perform(Apply(Attribute(Local("cuts"), "part"), (A, X)), (A,))


@pytest.mark.parametrize(
    ("statement", "read", "written"),
    [
        (Comment("a"), set(), set()),
        (Bind(FLAT, A), {A}, set()),
        (BindAll((ADD,), (Library("add"),)), set(), set()),
        (Call(ADD, (A, X), C), {A}, {C}),
        (Call(Library("sum"), (X,), C, keywords=(("like", A),), options=(("of", D),)), {A, D}, {C}),
        (Copy(Index(A, (0,)), C), {C}, {A}),
        (Store(Index(A, (0,)), C), {C}, {A}),
        (Increase(A, C), {A, C}, {A}),
        (CUT, {A}, {A}),
        (When(Binary("is", X, NONE), (Copy(A, C), Bind(FLAT, D))), {C, D}, {A}),
    ],
)
def test_what_a_statement_reads_and_writes(statement: Statement, read: set[Buffer], written: set[Buffer]) -> None:
    assert reads(statement) == read
    assert writes(statement) == written


def test_the_names_of_a_statement_are_those_it_binds_and_those_it_reads() -> None:
    statement = When(X, (Bind(FLAT, Apply(Helper("columns"), (Local("y"), A))),))
    assert names(statement) == {X, FLAT, Local("y")}
    assert bound(statement) == (FLAT,)
    assert names(BindAll((ADD,), (Library("add"),))) == {ADD}
    assert names(Call(ADD, (X,), Index(Word("out"), (0,)))) == {ADD, X, Word("out")}


def test_what_stands_under_a_condition_happens_for_itself() -> None:
    copy, store = Copy(A, C), Store(A, C)
    assert list(simple([Comment("a"), When(X, (copy, When(X, (store,)))), copy])) == [copy, store, copy]


def test_when_buffers_are_needed() -> None:
    """Under their own names, through views and variables, in the loop at one moment."""
    low = View("a_low", A, Index(A, (Stretch(stop=2),)))
    moments = [
        [Copy(low, 1)],
        [Store(Index(A, (0,)), 0)],
        [Bind(FLAT, Apply(Helper("columns"), (A, F)))],
        [Call(ADD, (X, X), X), C],
        [Call(Library("sum"), (FLAT,), D)],
        [Call(Library("add"), (1,), C)],
        [Method(Index(C, (T,)), "copy"), reshaped(D, T, B, H)],
    ]
    assert spans(moments) == {A: (0, 4), F: (2, 4), C: (3, 6), D: (4, 6)}
    assert where([reshaped(D, T, B, H)], moments) == {D}


def test_a_variable_stands_for_all_that_it_has_been_bound_to() -> None:
    y = Local("y")
    moments = [[Bind(X, A)], [Bind(X, C)], [Bind(y, Binary("+", X, D))]]
    assert where([y], moments) == {A, C, D}
    assert spans([*moments, [y]]) == {A: (0, 3), C: (1, 3), D: (2, 3)}
