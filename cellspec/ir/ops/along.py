"""Functions along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cellspec.ir.ops.row import Along, Backward, Combine, ErrorFlow, Traits, symbol
from cellspec.ir.shapes import stretches
from cellspec.model.nodes import Shape


@dataclass(frozen=True)
class Largest(Along):
    """``out``: the largest element along the last axis, which stays with size 1, or 0 where that is not finite.

    What is taken from the elements to keep exponentials in range; no cotangent flows through it.
    """

    combines, reduces = Combine.LARGEST, True
    traits = Traits(errors=ErrorFlow.SAME, cheap=False, crosses_units=True, stops=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == (*shapes[self.operand][:-1], 1)

    def transpose(self, back: Backward, d_out: str) -> None:
        """It stops cotangents."""


@dataclass(frozen=True)
class CumSum(Along):
    """``out[j] = sum of operand[:j + 1]`` along the last axis; of ``operand[j:]`` if ``reverse``."""

    reverse: bool = False

    combines, reduces = Combine.SUM, False
    traits = Traits(errors=ErrorFlow.SAME, cheap=False, crosses_units=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == shapes[self.operand]

    def transpose(self, back: Backward, d_out: str) -> None:
        made = CumSum(f"cumsum({d_out})", d_out, not self.reverse)
        back.add(self.operand, back.emit(made, back.shape(self.operand), self.out))


@dataclass(frozen=True)
class SumTo(Along):
    """``out``: ``operand`` summed over the axes along which ``out`` had been stretched; the adjoint of broadcasting."""

    combines, reduces = Combine.SUM, True
    traits = Traits(errors=ErrorFlow.SAME, cheap=False, crosses_units=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return stretches(shapes[self.out], shapes[self.operand])

    def transpose(self, back: Backward, d_out: str) -> None:
        back.add(self.operand, symbol(d_out))
