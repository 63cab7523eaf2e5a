"""The caller's arrays: samples before a value's own axes, which code works on as one, ``[B, n]`` or ``[T, B, n]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from cellspec import ir
from cellspec.backends.arrays.expressions import NONE, Attribute, Binary, Choice, Expression, Word, local, reshaped
from cellspec.backends.memory.model import Axes, B, T
from cellspec.cell import Cell
from cellspec.model.nodes import Shape

SAMPLES, STEPS = (B,), (T, B)
"""The axes before a value's own, of one step and of all."""

DFINAL = Word("dfinal")


@dataclass(frozen=True)
class Caller:
    """The arguments of a cell's functions; ``dims`` are the module's names of the dims."""

    cell: Cell
    dims: Mapping[str, str]

    def size(self, shape: Shape) -> sympy.Expr:
        """The number of a value's elements."""
        return local(ir.size(shape), self.dims)

    def axes(self, shape: Shape) -> Axes:
        """A value's own axes."""
        return tuple(local(axis, self.dims) for axis in shape)

    def flat(self, array: Expression, shape: Shape, lead: Axes = SAMPLES) -> Expression:
        """An array with its own axes flattened to one behind those of ``lead``."""
        return array if len(shape) == 1 else reshaped(array, *lead, self.size(shape))

    def shaped(self, array: Expression, shape: Shape, lead: Axes = SAMPLES) -> Expression:
        """An array with the one axis behind those of ``lead`` unfolded to its own."""
        return array if len(shape) == 1 else reshaped(array, *lead, *self.axes(shape))

    def input(self, name: str, whole: str = "x") -> Expression:
        """An input: ``x``, or one of several; ``whole`` is what all of them are called."""
        return Word(whole) if len(self.cell.inputs) == 1 else Attribute(Word(whole), name)

    def dy(self, name: str) -> Expression:
        """The gradient of an output."""
        return Word("dy") if len(self.cell.outputs) == 1 else Attribute(Word("dy"), name)


def state(name: str) -> Expression:
    """A state before the first step."""
    return Attribute(Word("state"), name)


def dfinal(name: str) -> Expression:
    """The gradient of a state after the last step."""
    return Attribute(DFINAL, name)


def if_dfinal(value: Expression, otherwise: Expression) -> Choice:
    """``value`` where there is a gradient of the final state."""
    return Choice(Binary("is", DFINAL, NONE), otherwise, value)
