"""The elements of values: through moves (slices, rotations, other shapes) to the memory that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import sympy

from cellspec import ir
from cellspec.backends.fused.code import EMPTY, Code, code
from cellspec.backends.fused.indices import Factor, rolled, widened
from cellspec.backends.fused.memory import Columns, Memory
from cellspec.model.nodes import Shape


@dataclass(frozen=True)
class Elements:
    """``factor`` spells sizes, ``at`` the element of a place at a unit, as a target has them."""

    memory: Memory
    factor: Factor
    at: Callable[[Columns, Code], Code]

    def shape(self, name: str) -> Shape:
        return self.memory.flow.program.shape(name)

    def element(self, name: str, unit: Code, ahead: sympy.Expr = sympy.S.Zero) -> Code:
        """The element of memory that is ``name`` at ``unit``, or so many units ahead of it."""
        made = self.memory.flow.made.get(name)
        op = made[1] if made else None
        match op:
            case ir.Reshape(operand=operand):
                return self.element(operand, unit, ahead)
            case ir.Slice(operand=operand, start=start) if len(self.shape(name)) == 1:
                return self.element(operand, unit, sympy.expand(ahead + start))
        place = self.memory.reads.get(name)
        if ahead != 0 and (place is None or place.pitch is not None):
            unit = code("{} + {}", self.factor(ahead), unit)
            ahead = sympy.S.Zero
        match op:
            case ir.Roll(operand=operand, shift=shift):
                return self.element(operand, rolled(unit, self.shape(name), shift, self.factor))
            case ir.Slice(operand=operand, start=start):
                begin = EMPTY if start == 0 else self.factor(start)
                widths = self.shape(name)[-1], self.shape(operand)[-1]
                return self.element(operand, widened(unit, *widths, begin, self.factor))
        assert place is not None
        return self.at(replace(place, start=sympy.expand(place.start + ahead)), unit)
