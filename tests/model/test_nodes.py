"""Nodes of typed equations: their operands, what they refer to, and how members of families are called."""

from __future__ import annotations

from typing import get_args

import pytest
import sympy

from cellspec.model.nodes import (
    Along,
    Apply,
    Concat,
    Const,
    DimValue,
    Eye,
    Inverse,
    Kind,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    StopGradient,
    Transpose,
    children,
    member,
    of_family,
    refs,
    with_children,
)
from cellspec.model.primitive import divides, divisors

H = sympy.Symbol("H")
a, b, c = (Ref(name, Kind.PARAM, (H,)) for name in "abc")
NODES: dict[type, tuple[Node, tuple[Node, ...]]] = {
    Const: (Const(2), ()),
    DimValue: (DimValue(H), ()),
    Ref: (a, ()),
    Eye: (Eye((H, H)), ()),
    Member: (Member(a, 1, ()), (a,)),
    Apply: (Apply("add", (a, b), (H,)), (a, b)),
    Along: (Along("dot", (a, b), ()), (a, b)),
    Concat: (Concat((a, b, a), (3 * H,)), (a, b, a)),
    MatMul: (MatMul(a, b, (H,)), (a, b)),
    OuterProduct: (OuterProduct(a, b, (H, H)), (a, b)),
    Transpose: (Transpose(a, (H,)), (a,)),
    Inverse: (Inverse(a, (H,)), (a,)),
    Roll: (Roll(a, 2, (H,)), (a,)),
    StopGradient: (StopGradient(a, (H,)), (a,)),
}


def test_the_table_holds_every_kind_of_node() -> None:
    assert set(NODES) == set(get_args(Node))


@pytest.mark.parametrize("kind", NODES, ids=lambda kind: kind.__name__)
def test_operands(kind: type) -> None:
    node, operands = NODES[kind]
    assert children(node) == operands
    assert with_children(node, operands) == node
    others = [c if part == b else part for part in operands]
    changed = with_children(node, others)
    assert children(changed) == tuple(others) and type(changed) is kind and changed.shape == node.shape


def test_references_from_left_to_right() -> None:
    node = Apply("add", (MatMul(a, Apply("mul", (b, a), (H,)), (H,)), Along("sum", (c,), ())), (H,))
    assert [ref.name for ref in refs(node)] == ["a", "b", "a", "c"]


def test_labels() -> None:
    assert Ref("h", Kind.STATE, ()).label == "h[t]" and Ref("h", Kind.PREVIOUS, ()).label == "h[t-1]"
    assert Ref("x", Kind.INPUT, ()).label == "x[t]" and a.label == "a"
    assert Ref("h", Kind.PREVIOUS, (), back=8).label == "h[t-9]" and Ref("x", Kind.INPUT, (), back=9).label == "x[t-9]"


def test_members_of_families() -> None:
    assert member("s", 1) == "s[1]" and of_family("s[1]") == ("s", 1)
    assert of_family("s") is None and of_family("h[t]") is None and of_family("h[t-1]") is None


@pytest.mark.parametrize(
    ("power", "parts"),
    [
        (1 / H, [H]),
        (H**-2, [H, H]),
        (H**-3, [H, H, H]),
        (H**-9, [H**4, H**5]),
        (H ** sympy.Rational(-1, 2), [sympy.sqrt(H)]),
    ],
)
def test_powers_to_divide_by(power: sympy.Expr, parts: list[sympy.Expr]) -> None:
    """One after the other, so that no step leaves the range."""
    assert divides(power) and divisors(power) == parts
    assert not divides(1 / power) and not divides(H)
