"""What makes a program well formed: single assignment, definition before use, and shapes that fit every operation."""

from __future__ import annotations

from cellspec.ir.ops import Op, Pointwise, operands, outs
from cellspec.ir.program import Program
from cellspec.ir.shapes import TypecheckError


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
    shapes = {name: program.shape(name) for name in (*outs(op), *program.args(op))}
    if not op.fits(shapes):
        raise TypecheckError(f"shapes do not fit in {op}: {shapes}")
