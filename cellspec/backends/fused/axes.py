"""Functions along an axis of a sample's value: how a kernel goes through the elements, and sums that need several kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy

from cellspec import ir
from cellspec.backends.fused.indices import groups
from cellspec.ir import Along, Op, Value
from cellspec.model.nodes import Shape

KERNELS = ("sum_units", "sum_across", "largest_unit", "running_sum", "running_sum_back")


@dataclass(frozen=True)
class Extent:
    """A value as ``[outer, length, inner]``, row-major: what a function along the middle axis goes through."""

    outer: sympy.Expr
    length: sympy.Expr
    inner: sympy.Expr


def kernel_of(op: Along, extent: Extent) -> str:
    """The kernel that computes ``op``."""
    match op:
        case ir.Largest():
            return "largest_unit"
        case ir.CumSum(reverse=reverse):
            return "running_sum_back" if reverse else "running_sum"
        case ir.SumTo():
            return "sum_units" if extent.inner == 1 else "sum_across"
    raise NotImplementedError(f"no kernel computes {op}")


def extent(op: Along, operand: Shape, out: Shape) -> Extent:
    """How the kernel of ``op`` sees its operand."""
    if not op.reduces:
        return Extent(ir.size(operand[:-1]), operand[-1], sympy.Integer(1))
    parts = groups(out, operand)
    gone = [k for k, (kept, _) in enumerate(parts) if not kept]
    if not gone:
        return Extent(ir.size(operand), sympy.Integer(1), sympy.Integer(1))
    (middle,) = gone
    before, behind = (ir.size(tuple(size for _, size in part)) for part in (parts[:middle], parts[middle + 1 :]))
    return Extent(before, parts[middle][1], behind)


def in_turn(op: Op, values: dict[str, Value]) -> list[Op]:
    """``op``, or where it sums over axes that are no neighbours, a sum over each in turn, the last first.

    The values between are added to ``values``.
    """
    if not isinstance(op, ir.SumTo):
        return [op]
    large, small = values[op.operand].shape, values[op.out].shape
    padded = (sympy.Integer(1),) * (len(large) - len(small)) + small
    found: list[Op] = []
    operand = op.operand
    while sum(not kept for kept, _ in groups(padded, large)) > 1:
        reduced = list(large)
        axis = max(k for k, size in enumerate(large) if size != padded[k])
        while axis >= 0 and (large[axis] != padded[axis] or large[axis] == 1):
            reduced[axis] = sympy.Integer(1)
            axis -= 1
        large = tuple(reduced)
        between = f"{op.out} over {len(found) + 1}"
        values[between] = replace(values[op.out], name=between, shape=large)
        found.append(ir.SumTo(between, operand))
        operand = between
    return [*found, ir.SumTo(op.out, operand)]
