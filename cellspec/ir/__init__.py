"""Program: the intermediate representation, one step of a cell (or of its adjoint) in A-normal form."""

from cellspec.ir import ops
from cellspec.ir.ops import *  # noqa: F403 - the table of operations
from cellspec.ir.ops.row import Along, Combine, ErrorFlow, Joined, Move, Operation, Traits
from cellspec.ir.program import Carry, Delay, Program, Total, Value
from cellspec.ir.shapes import TypecheckError, is_one, outer, product, size, stretched, stretches, turned
from cellspec.ir.typecheck import typecheck

__all__ = [
    "Along",
    "Carry",
    "Combine",
    "Delay",
    "ErrorFlow",
    "Joined",
    "Move",
    "Operation",
    "Program",
    "Total",
    "Traits",
    "TypecheckError",
    "Value",
    "is_one",
    "outer",
    "product",
    "size",
    "stretched",
    "stretches",
    "turned",
    "typecheck",
]
__all__ += ops.__all__
