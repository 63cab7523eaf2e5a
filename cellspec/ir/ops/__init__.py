"""The operations of the intermediate representation: each defines named values of others.

To add one, write its class, a row of :data:`Op`, here; its spellings in the backends and in :mod:`cellspec.ir.text`; and say
in a pass where programs come to have it. Other passes ask its traits.
"""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.ir.ops.along import CumSum, Largest, SumTo
from cellspec.ir.ops.moves import Concat, Index, Reshape, Roll, Slice, Stack, Stop
from cellspec.ir.ops.pointwise import Pointwise
from cellspec.ir.ops.products import Eye, Inverse, MatMul, Outer, Product, Transpose
from cellspec.ir.ops.row import Operation, symbol

__all__ = [
    "Concat",
    "CumSum",
    "Eye",
    "Index",
    "Inverse",
    "Largest",
    "MatMul",
    "Op",
    "Outer",
    "Pointwise",
    "Product",
    "Reshape",
    "Roll",
    "Slice",
    "Stack",
    "Stop",
    "SumTo",
    "Transpose",
    "operands",
    "outs",
    "rename",
    "symbol",
    "with_out",
]

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
"""The table."""


def outs(op: Operation) -> tuple[str, ...]:
    """The values that ``op`` defines."""
    return op.defines()


def operands(op: Operation) -> tuple[str, ...]:
    """The names that ``op`` reads; those of a pointwise expression sorted, dims included."""
    return op.reads()


def rename(op: Op, names: Mapping[str, str]) -> Op:
    """``op`` reading other values: each operand in ``names`` is replaced."""
    return op.reading(names)


def with_out(op: Op, out: str) -> Op:
    """``op``, which defines one value, defining it under another name."""
    return op.defining(out)
