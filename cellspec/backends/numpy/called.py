"""What buffers and blocks of them are called: after the values that lie there."""

from __future__ import annotations

import sympy

from cellspec import ir
from cellspec.backends.memory.model import Home
from cellspec.backends.naming import Groups, identifier
from cellspec.backends.numpy.storage import Block, Storage


def block_name(storage: Storage, block: Block, forwards: bool, groups: Groups) -> str:
    """What lies in a block, in one word; cotangents that a backward pass carries are called after what they are of."""
    return groups.name([_place(storage, block.buffer, place, forwards) for place in range(block.start, block.stop)])


def _place(storage: Storage, buffer: int, place: int, forwards: bool) -> str:
    """What is at a place in a buffer is called after the last value there that has a name of its own."""
    members = storage.buffers[buffer].members[place]
    if storage.buffers[buffer].home is Home.CONSTANT:
        return constant_name(storage, members[0])
    carried = [c.before for c in storage.code.schedule.program.carries if c.before in members]
    if carried and not forwards:
        return identifier(carried[0].removesuffix("<-"))
    own = [m for m in members if not m.startswith("%")]
    return identifier(own[-1] if own else members[-1])


def constant_name(storage: Storage, name: str) -> str:
    """A scaled parameter is called after the parameter."""
    for op in storage.code.schedule.prologue:
        match op:
            case ir.Pointwise(out=out, expr=sympy.Mul() as expr) if out == name:
                number, rest = expr.as_coeff_Mul()
                if rest.is_Symbol:
                    return identifier(rest.name) + ("_half" if number == sympy.Rational(1, 2) else "_scaled")
    return identifier(name)
