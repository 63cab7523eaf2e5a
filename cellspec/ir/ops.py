"""The operations of the intermediate representation: each defines named values of others, and knows no shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import sympy


@dataclass(frozen=True)
class Pointwise:
    """``out = expr``: a SymPy expression over the values' symbols, with broadcasting; dims may stand in it as numbers."""

    out: str
    expr: sympy.Expr


@dataclass(frozen=True)
class MatMul:
    """``out = left @ right``, ``left`` transposed first if ``left_t``, ``right`` if ``right_t``.

    A ``left`` of three axes holds a matrix for each head, ``[n, m, k] @ [n, k]``, each of them transposed if ``left_t``.
    """

    out: str
    left: str
    right: str
    left_t: bool = False
    right_t: bool = False


@dataclass(frozen=True)
class Product:
    """Packed products, ``outs[r] = sum_k weights[r][k] @ operands[k]``: one block matrix times stacked vectors.

    With ``transposed``, every weight is transposed first.
    """

    outs: tuple[str, ...]
    weights: tuple[tuple[str, ...], ...]
    operands: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Outer:
    """``out = left rightᵀ``: what one step adds to the gradient of a matrix; of each head's matrix, if it has heads."""

    out: str
    left: str
    right: str


@dataclass(frozen=True)
class Concat:
    """``out``: the parts one after the other along the last axis."""

    out: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """``out = operand[..., start:stop]``."""

    out: str
    operand: str
    start: sympy.Expr
    stop: sympy.Expr


@dataclass(frozen=True)
class Transpose:
    """``out = operandᵀ``."""

    out: str
    operand: str


@dataclass(frozen=True)
class Eye:
    """``out``: the identity matrix."""

    out: str


@dataclass(frozen=True)
class Inverse:
    """``out``: the inverse of the matrix ``operand``."""

    out: str
    operand: str


@dataclass(frozen=True)
class Index:
    """``out = operand[index]``: one of a family."""

    out: str
    operand: str
    index: int


@dataclass(frozen=True)
class Stack:
    """``out[k]`` is ``parts[k]``: a family of them."""

    out: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Reshape:
    """``out``: the elements of ``operand``, in their order, in another shape."""

    out: str
    operand: str


@dataclass(frozen=True)
class Largest:
    """``out``: the largest element along the last axis, which stays with size 1, or 0 where that is not finite.

    What is taken from the elements to keep exponentials in range; no cotangent flows through it.
    """

    out: str
    operand: str


@dataclass(frozen=True)
class CumSum:
    """``out[j] = sum of operand[:j + 1]`` along the last axis; of ``operand[j:]`` if ``reverse``."""

    out: str
    operand: str
    reverse: bool = False


@dataclass(frozen=True)
class Roll:
    """``out[j] = operand[j - shift]``, cyclically, along the last axis."""

    out: str
    operand: str
    shift: int


@dataclass(frozen=True)
class SumTo:
    """``out``: ``operand`` summed over the axes along which ``out`` had been stretched; the adjoint of broadcasting."""

    out: str
    operand: str


@dataclass(frozen=True)
class Stop:
    """``out = operand``, through which no cotangent flows."""

    out: str
    operand: str


Op = (
    Pointwise
    | MatMul
    | Product
    | Outer
    | Concat
    | Slice
    | Transpose
    | Eye
    | Inverse
    | Index
    | Stack
    | Reshape
    | Largest
    | CumSum
    | Roll
    | SumTo
    | Stop
)


def symbol(name: str) -> sympy.Symbol:
    """The SymPy symbol that stands for the value ``name`` (or the dim ``name``) in an expression."""
    return sympy.Symbol(name)


def outs(op: Op) -> tuple[str, ...]:
    """The values that ``op`` defines."""
    return op.outs if isinstance(op, Product) else (op.out,)


def operands(op: Op) -> tuple[str, ...]:
    """The names that ``op`` reads; those of a pointwise expression sorted, dims included."""
    match op:
        case Pointwise(expr=expr):
            return tuple(sorted(s.name for s in expr.free_symbols))
        case MatMul(left=left, right=right) | Outer(left=left, right=right):
            return (left, right)
        case Product(weights=weights, operands=vectors):
            return (*(w for row in weights for w in row), *vectors)
        case Concat(parts=parts) | Stack(parts=parts):
            return parts
        case Eye():
            return ()
        case _:
            return (op.operand,)


def rename(op: Op, names: Mapping[str, str]) -> Op:
    """``op`` reading other values: each operand in ``names`` is replaced."""

    def new(name: str) -> str:
        return names.get(name, name)

    match op:
        case Pointwise(expr=expr):
            table = {symbol(a): symbol(b) for a, b in names.items()}
            return replace(op, expr=expr.xreplace(table))
        case MatMul() | Outer():
            return replace(op, left=new(op.left), right=new(op.right))
        case Product():
            weights = tuple(tuple(new(w) for w in row) for row in op.weights)
            return replace(op, weights=weights, operands=tuple(new(v) for v in op.operands))
        case Concat() | Stack():
            return replace(op, parts=tuple(new(p) for p in op.parts))
        case Eye():
            return op
        case _:
            return replace(op, operand=new(op.operand))


def with_out(op: Op, out: str) -> Op:
    """``op``, which defines one value, defining it under another name."""
    match op:
        case Product():
            return replace(op, outs=(out,))
        case _:
            return replace(op, out=out)
