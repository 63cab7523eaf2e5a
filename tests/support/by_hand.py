"""Cells built from nodes, for what is tested below the front end: constructors that find the shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy

from cellspec.cell import Cell
from cellspec.errors import Location
from cellspec.language.spec import Expect, Initialiser
from cellspec.model.equations import Equation, Input, Param, State
from cellspec.model.nodes import (
    STEP_INDEX,
    Along,
    Apply,
    Concat,
    Const,
    Eye,
    Inverse,
    Kind,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    Shape,
    StopGradient,
    Transpose,
    refs,
)
from cellspec.model.shapes import broadcast

AT = Location("by hand", 1, 1)
ONE = sympy.Integer(1)

Axes = Sequence[sympy.Expr | int]


def shaped(axes: Axes) -> Shape:
    return tuple(sympy.sympify(axis) for axis in axes)


def param(name: str, *axes: sympy.Expr | int) -> Ref:
    return Ref(name, Kind.PARAM, shaped(axes))


def derived(name: str, *axes: sympy.Expr | int) -> Ref:
    return Ref(name, Kind.DERIVED, shaped(axes))


def stream(name: str, *axes: sympy.Expr | int) -> Ref:
    return Ref(name, Kind.INPUT, shaped(axes))


def before(name: str, *axes: sympy.Expr | int) -> Ref:
    return Ref(name, Kind.PREVIOUS, shaped(axes))


def after(name: str, *axes: sympy.Expr | int) -> Ref:
    return Ref(name, Kind.STATE, shaped(axes))


def value(name: str, *axes: sympy.Expr | int) -> Ref:
    return Ref(name, Kind.VALUE, shaped(axes))


def number(node: Node | float) -> Node:
    return Const(node) if isinstance(node, int | float) else node


def op(function: str, *args: Node | float) -> Apply:
    nodes = tuple(number(arg) for arg in args)
    shape: Shape = ()
    for node in nodes:
        joined = broadcast(shape, node.shape)
        assert joined is not None, f"{function} of {[node.shape for node in nodes]}"
        shape = joined
    return Apply(function, nodes, shape)


def add(*args: Node | float) -> Node:
    first, *rest = args
    total = number(first)
    for arg in rest:
        total = op("add", total, arg)
    return total


def mul(a: Node | float, b: Node | float) -> Node:
    return op("mul", a, b)


def along(function: str, *args: Node) -> Along:
    shape = op("add", *args).shape if len(args) == 2 else args[0].shape
    return Along(function, args, shape if function in ("softmax", "cumsum") else (*shape[:-1], ONE))


def matmul(left: Node, right: Node) -> MatMul:
    assert left.shape[-1] == right.shape[-2 if len(left.shape) == len(right.shape) else -1]
    if len(left.shape) == len(right.shape):
        return MatMul(left, right, (*left.shape[:-1], right.shape[-1]))
    return MatMul(left, right, left.shape[:-1])


def member(family: Ref, index: int) -> Member:
    return Member(family, index, family.shape[1:])


def transpose(node: Node) -> Transpose:
    return Transpose(node, node.shape[::-1])


def inverse(node: Node) -> Inverse:
    return Inverse(node, node.shape)


def eye(axis: sympy.Expr) -> Eye:
    return Eye((axis, axis))


def concat(*parts: Node) -> Concat:
    return Concat(parts, (*parts[0].shape[:-1], sympy.Add(*(part.shape[-1] for part in parts))))


def outer(left: Node, right: Node) -> OuterProduct:
    return OuterProduct(left, right, (*left.shape, *right.shape))


def roll(node: Node, shift: int) -> Roll:
    return Roll(node, shift, node.shape)


def stop(node: Node) -> StopGradient:
    return StopGradient(node, node.shape)


def cell(
    equations: Mapping[Ref, Node],
    *,
    outputs: Sequence[Ref] = (),
    init: Mapping[str, float] | None = None,
    families: Sequence[str] = (),
) -> Cell:
    """The cell of these equations; parameters, inputs and states are those that they mention, in order of appearance."""
    found: dict[str, Ref] = {}
    for target, node in equations.items():
        for ref in (target, *refs(node)):
            found.setdefault(ref.label, ref)
    of = {kind: [ref for ref in found.values() if ref.kind is kind] for kind in Kind}
    dims = sorted({str(s.name) for ref in found.values() for axis in ref.shape for s in axis.free_symbols})
    return Cell(
        name="by_hand", title="", doc="", cite=(), sha256="", dims=tuple(dims), hyper=(), activations=(), settings=(),
        inputs=tuple(Input(ref.name, ref.shape) for ref in of[Kind.INPUT]),
        states=tuple(
            State(r.name, r.shape, (init or {}).get(r.name, 0.0), (STEP_INDEX, 0) if r.name == STEP_INDEX else None)
            for r in of[Kind.STATE]
        ),
        outputs=tuple(outputs) or (of[Kind.STATE][0],),
        params=tuple(
            Param(r.name, r.shape, Initialiser("normal", (1.0,)), True, int(r.shape[0]) if r.name in families else None)
            for r in of[Kind.PARAM]
        ),
        assignments=tuple(Equation(target, node, "", AT) for target, node in equations.items()),
        expect=Expect(), at=AT, path="",
    )  # fmt: skip
