"""The rules of what is not pointwise: products, transposes, inverses, lists, rotations, functions along the last axis.

Each takes typed operands and gives a node, or raises a :class:`~cellspec.language.check.typed.Clash`
that says why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from cellspec.language.check.shapes import expand
from cellspec.language.check.typed import Clash, Typed
from cellspec.language.spec import Binary, Expr, Transposed
from cellspec.language.unparse import source
from cellspec.model.nodes import Along, Concat, Inverse, Kind, MatMul, Node, OuterProduct, Ref, Roll, Shape, Transpose
from cellspec.model.shapes import ONE, broadcast

ALONG = {"sum": 1, "mean": 1, "var": 1, "norm": 1, "softmax": 1, "logsumexp": 1, "cumsum": 1, "dot": 2}
"""Functions along the last axis → number of arguments."""

_KEEP_THE_AXIS = ("softmax", "cumsum")


def product(left: Typed, right: Typed) -> MatMul:
    """``left @ right``: a matrix, or one for each head, times a vector; among params also a matrix times a matrix.

    ``[m, k] @ [k]``, ``[n, m, k] @ [k]``, ``[n, m, k] @ [n, k]`` (each head its own), ``[m, k] @ [k, p]``.
    """
    clash = f"cannot multiply {left} and {right} with '@'"
    if len(left.shape) < 2:
        raise Clash(f"{clash}: the left side must be a matrix{_turned(left, right)}")
    if not right.shape:
        raise Clash(f"{clash}: the right side must be a vector or a matrix; write * for numbers")
    match left.shape, right.shape:
        case (*_, columns), (length,):
            pairs = [(columns, length)]
        case (heads, _, columns), (others, length):
            pairs = [(heads, others), (columns, length)]
        case (_, columns), (rows, _):
            if columns != rows and columns == right.shape[1] and right.varies:
                raise Clash(f"{clash}: {columns} is not {rows}; for each of {rows} heads the matrix needs an axis of its own")
            pairs = [(columns, rows)]
        case _:
            raise Clash(f"{clash}: the right side has more than two axes")
    for one, other in pairs:
        if one != other:
            raise Clash(f"{clash}: {one} is not {other}")
    if len(left.shape) == 2 and len(right.shape) == 2:
        for side in (left, right):
            if side.varies:
                changing = f"but {source(side.expr)!r} changes from step to step"
                raise Clash(f"{clash}: a product of two matrices is for params and derived params, {changing}")
        return MatMul(left.node, right.node, (left.shape[0], right.shape[1]))
    return MatMul(left.node, right.node, left.shape[:-1])


def _turned(left: Typed, right: Typed) -> str:
    """How to write a product that has a vector on its left, where there is a way."""
    one, other = left.expr, right.expr
    match left.shape, right.shape:
        case [axis], [_, columns] if axis == columns:
            return f"; write {source(Binary('@', other, one, one.at))!r}"
        case [axis], [rows, _] if axis == rows and not right.varies:
            return f"; write {source(Binary('@', Transposed(other, one.at), one, one.at))!r}"
        case [_], [_]:
            return "; products of vectors are written with * or dot(a, b)"
        case _:
            return ""


def outer(left: Typed, right: Typed) -> OuterProduct:
    """``outer(u, v)``, the matrix ``u vᵀ``."""
    for side in (left, right):
        if len(side.shape) != 1:
            raise Clash(f"outer needs two vectors, but {side} is none", side.expr)
    return OuterProduct(left.node, right.node, (left.shape[0], right.shape[0]))


def transposed(operand: Typed) -> Transpose:
    """``M.T`` of a matrix made of params."""
    _made_of_params("'.T'", operand)
    if len(operand.shape) != 2:
        raise Clash(f"'.T' needs a matrix, but {operand} is none")
    rows, columns = operand.shape
    return Transpose(operand.node, (columns, rows))


def inverse(operand: Typed) -> Inverse:
    """``inv(M)`` of a square matrix made of params."""
    _made_of_params("inv", operand)
    if len(operand.shape) != 2 or operand.shape[0] != operand.shape[1]:
        raise Clash(f"inv needs a square matrix, but {operand} is none", operand.expr)
    return Inverse(operand.node, operand.shape)


def _made_of_params(what: str, operand: Typed) -> None:
    if operand.varies:
        kept = isinstance(operand.node, Ref) and operand.node.kind in (Kind.STATE, Kind.PREVIOUS) and what == "'.T'"
        hint = "; a matrix state can be kept transposed, with outer(v, u) for outer(u, v)" if kept else ""
        text = f"{source(operand.expr)!r} changes from step to step{hint}"
        raise Clash(f"{what} is for params and derived params, but {text}")


def along(function: str, args: Sequence[Typed]) -> Along:
    """A function along the last axis, which ``softmax`` and ``cumsum`` keep and the others leave with size 1.

    A number has no axis to run along: that is a mistake, though NumPy would take it for its own sum.
    """
    shape: Shape = ()
    for arg in args:
        wider = broadcast(shape, arg.shape)
        if wider is None:
            raise Clash(f"{function} cannot combine {args[0]} and {arg}")
        shape = wider
    if not shape:
        (first, *_) = args
        raise Clash(f"{function} runs along the last axis, but {source(first.expr)!r} is a number and has none", first.expr)
    return Along(function, tuple(arg.node for arg in args), shape if function in _KEEP_THE_AXIS else (*shape[:-1], ONE))


def concat(parts: Sequence[Typed], expr: Expr) -> Node:
    """``[a, b, …]`` along the last axis; the axes before it must be the same."""
    first = parts[0]
    for part in parts:
        if not part.shape:
            raise Clash(f"a list is made of vectors, but {part} is none", part.expr)
        if part.shape[:-1] != first.shape[:-1]:
            raise Clash(f"cannot put {first} and {part} one after the other: only their last axes may differ", part.expr)
    if len(parts) == 1:
        return first.node
    length = expand(sympy.Add(*(part.shape[-1] for part in parts)))
    if length is None:
        raise Clash(f"the shape of {source(expr)!r} is too complicated")
    return Concat(tuple(part.node for part in parts), (*first.shape[:-1], length))


def rolled(operand: Typed, shift: int) -> Roll:
    """``roll(v, k)`` along the last axis."""
    if not operand.shape:
        raise Clash(f"roll needs a vector, but {operand} is none", operand.expr)
    return Roll(operand.node, shift, operand.shape)
