"""What makes a program well formed: single assignment, definition before use, and shapes that fit every operation."""

from __future__ import annotations

import sympy

from cellspec.ir.ops import (
    Concat,
    CumSum,
    Eye,
    Index,
    Inverse,
    Largest,
    MatMul,
    Op,
    Outer,
    Pointwise,
    Product,
    Reshape,
    Roll,
    Slice,
    Stack,
    Stop,
    SumTo,
    Transpose,
    operands,
    outs,
)
from cellspec.ir.program import Program
from cellspec.ir.shapes import TypecheckError, outer, product, size, stretches, turned


def typecheck(program: Program) -> Program:
    """Return ``program`` after checking single assignment, definition before use, and the shape of every operation.

    SymPy may drop what an expression reads, never add to it: whatever is read is a value, or a dim that stands for a number.
    """
    defined = {*program.constants, *program.sequences, *program.befores}
    missing = [name for name in (*defined, *program.roots()) if name not in program.values]
    if missing:
        raise TypecheckError(f"values without a type: {sorted(missing)}")
    for op in program.ops:
        for name in operands(op):
            is_dim = isinstance(op, Pointwise) and name not in program.values and name.isidentifier()
            if not is_dim and name not in defined:
                raise TypecheckError(f"{name!r} is read before it is defined, in {op}")
        for name in outs(op):
            if name in defined:
                raise TypecheckError(f"{name!r} is defined twice, in {op}")
        _check_shape(program, op)
        defined.update(outs(op))
    for name in program.roots():
        if name not in defined:
            raise TypecheckError(f"the result {name!r} is never defined")
    for link in program.links:
        if program.shape(link.before) != program.shape(link.after):
            raise TypecheckError(f"{link} changes its shape")
    return program


def _check_shape(program: Program, op: Op) -> None:
    shape = program.shape
    match op:
        case Pointwise(out=out, expr=expr):
            if expr.has(sympy.zoo, sympy.nan):
                raise TypecheckError(f"{out!r} is not a number: {expr}")
            ok = all(stretches(shape(name), shape(out)) for name in program.args(op))
        case MatMul(out=out, left=left, right=right, left_t=left_t, right_t=right_t):
            ok = product(turned(shape(left), left_t), turned(shape(right), right_t)) == shape(out)
        case Product(outs=targets, weights=weights, operands=vectors, transposed=transposed):
            ok = all(
                product(turned(shape(w), transposed), shape(v)) == shape(out)
                for out, row in zip(targets, weights, strict=True)
                for w, v in zip(row, vectors, strict=True)
            )
        case Outer(out=out, left=left, right=right):
            ok = shape(out) == outer(shape(left), shape(right))
        case Concat(out=out, parts=parts):
            heads = {shape(p)[:-1] for p in parts}
            ok = heads == {shape(out)[:-1]} and sympy.expand(sum(shape(p)[-1] for p in parts)) == shape(out)[-1]
        case Slice(out=out, operand=operand, start=start, stop=stop):
            ok = shape(out) == (*shape(operand)[:-1], sympy.expand(stop - start))
        case Transpose(out=out, operand=operand):
            ok = shape(out) == shape(operand)[::-1]
        case Eye(out=out):
            ok = len(shape(out)) == 2 and shape(out)[0] == shape(out)[1]
        case Inverse(out=out, operand=operand):
            ok = shape(out) == shape(operand) and len(shape(out)) == 2 and shape(out)[0] == shape(out)[1]
        case Index(out=out, operand=operand, index=index):
            ok = shape(out) == shape(operand)[1:] and 0 <= index < shape(operand)[0]
        case Stack(out=out, parts=parts):
            ok = all(shape(out) == (len(parts), *shape(part)) for part in parts)
        case Reshape(out=out, operand=operand):
            ok = size(shape(out)) == size(shape(operand))
        case Largest(out=out, operand=operand):
            ok = shape(out) == (*shape(operand)[:-1], 1)
        case Roll(out=out, operand=operand) | Stop(out=out, operand=operand) | CumSum(out=out, operand=operand):
            ok = shape(out) == shape(operand)
        case SumTo(out=out, operand=operand):
            ok = stretches(shape(out), shape(operand))
    if not ok:
        shapes = {name: shape(name) for name in (*outs(op), *program.args(op))}
        raise TypecheckError(f"shapes do not fit in {op}: {shapes}")
