"""Operations that put elements elsewhere, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from cellspec.ir.ops.pointwise import Pointwise
from cellspec.ir.ops.row import Backward, ErrorFlow, Joined, Move, Part, Traits, cotangent, symbol
from cellspec.ir.shapes import size
from cellspec.model.nodes import Shape

_VIEW = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=False, view=True)


@dataclass(frozen=True)
class Concat(Joined):
    """``out``: the parts one after the other along the last axis."""

    traits = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=False)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        parts = [shapes[part] for part in self.parts]
        *rows, columns = shapes[self.out]
        return {part[:-1] for part in parts} == {tuple(rows)} and sympy.expand(sum(part[-1] for part in parts)) == columns

    def transpose(self, back: Backward, d_out: str) -> None:
        start: sympy.Expr = sympy.Integer(0)
        for k, part in enumerate(self.parts):
            stop = sympy.expand(start + back.shape(part)[-1])
            if back.wants(part):
                back.add(part, back.emit(Slice(f"{d_out}[{k}]", d_out, start, stop), back.shape(part), self.out))
            start = stop


@dataclass(frozen=True)
class Slice(Part):
    """``out = operand[..., start:stop]``."""

    start: sympy.Expr
    stop: sympy.Expr

    traits = _VIEW

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == (*shapes[self.operand][:-1], sympy.expand(self.stop - self.start))

    @staticmethod
    def assemble(back: Backward, whole: str, parts: list[tuple[Part, str]]) -> None:
        """Column blocks: side by side where they tile the whole, else each among zeros."""
        blocks = [(part, d_out) for part, d_out in parts if isinstance(part, Slice)]
        columns = back.shape(whole)[-1]
        while blocks:
            row: list[tuple[Slice, str]] = []
            start = sympy.Integer(0)
            while following := [b for b in blocks if b[0].start == start and b not in row]:
                row.append(following[0])
                start = following[0][0].stop
            if start != columns:
                row = blocks[:1]
            blocks = [b for b in blocks if b not in row]
            _side_by_side(back, whole, row)


def _side_by_side(back: Backward, whole: str, row: list[tuple[Slice, str]]) -> None:
    """Add the blocks of ``row``, in order, to the cotangent of ``whole``, with zeros in the gaps."""
    *rows, columns = back.shape(whole)
    parts: list[str] = []
    start = sympy.Integer(0)
    number = back.terms_of(whole)

    def zeros(stop: sympy.Expr) -> None:
        if stop != start:
            gap = Pointwise(f"{cotangent(whole)} zeros{number}.{len(parts)}", sympy.Integer(0))
            parts.append(str(back.emit(gap, (*rows, sympy.expand(stop - start)), whole).name))

    for block, d_out in row:
        zeros(block.start)
        parts.append(d_out)
        start = block.stop
    zeros(columns)
    back.add(whole, back.emit(Concat(f"{cotangent(whole)} blocks{number}", tuple(parts)), (*rows, columns), whole))


@dataclass(frozen=True)
class Index(Part):
    """``out = operand[index]``: one of a family."""

    index: int

    traits = _VIEW

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        first, *rest = shapes[self.operand]
        return tuple(rest) == shapes[self.out] and bool(0 <= self.index < first)

    @staticmethod
    def assemble(back: Backward, whole: str, parts: list[tuple[Part, str]]) -> None:
        """A family's members, stacked; zero for those that nothing reads."""
        members = [(part.index, d_out) for part, d_out in parts if isinstance(part, Index)]
        count, *shape = back.shape(whole)
        names = []
        for index in range(int(count)):
            member = Pointwise(
                f"{cotangent(whole)} member{index}", sympy.Add(*(symbol(d_out) for k, d_out in members if k == index))
            )
            names.append(str(back.emit(member, tuple(shape), whole).name))
        back.add(whole, back.emit(Stack(f"{cotangent(whole)} members", tuple(names)), back.shape(whole), whole))


@dataclass(frozen=True)
class Stack(Joined):
    """``out[k]`` is ``parts[k]``: a family of them."""

    traits = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=False)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return all(shapes[self.out] == (len(self.parts), *shapes[part]) for part in self.parts)

    def transpose(self, back: Backward, d_out: str) -> None:
        for k, part in enumerate(self.parts):
            if back.wants(part):
                back.add(part, back.emit(Index(f"{d_out}[{k}]", d_out, k), back.shape(part), self.out))


@dataclass(frozen=True)
class Reshape(Move):
    """``out``: the elements of ``operand``, in their order, in another shape."""

    in_order = True
    traits = _VIEW

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return bool(size(shapes[self.out]) == size(shapes[self.operand]))

    def transpose(self, back: Backward, d_out: str) -> None:
        back.add(self.operand, back.emit(Reshape(f"{d_out}.flat", d_out), back.shape(self.operand), self.out))


@dataclass(frozen=True)
class Roll(Move):
    """``out[j] = operand[j - shift]``, cyclically, along the last axis."""

    shift: int

    traits = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == shapes[self.operand]

    def transpose(self, back: Backward, d_out: str) -> None:
        made = Roll(f"roll({d_out}, {-self.shift})", d_out, -self.shift)
        back.add(self.operand, back.emit(made, back.shape(self.operand), self.out))


@dataclass(frozen=True)
class Stop(Move):
    """``out = operand``, through which no cotangent flows."""

    in_order = True
    traits = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=False, stops=True, view=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == shapes[self.operand]

    def source(self) -> str | None:
        return self.operand

    def transpose(self, back: Backward, d_out: str) -> None:
        """It stops cotangents."""
