"""Buffers and places: what every backend that manages memory says of an array, whatever it prints for it.

A *buffer* is an array. Its ``home`` says what a value that lies there needs: memory for one step or for all, in which order of
axes, and whether more than one step stands there. Its ``owner`` is the part of the memory that holds it; how that is spelt is
for printers to say. Its ``axes`` are polynomials over T, B and the module's names of the dims, as SymPy has them: nothing reads
a size off text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

import sympy

STEPS, BATCH = "T", "B"
"""What modules call the numbers of steps and samples."""

T, B = sympy.Symbol(STEPS), sympy.Symbol(BATCH)
"""The same in the axes of buffers."""

Axes = tuple[sympy.Expr, ...]


class Phase(IntEnum):
    """When something runs: before the loop or after it, for all steps at once, or in the loop, step by step."""

    BEFORE = 0
    LOOP = 1
    AFTER = 2


class Home(Enum):
    """The kind of memory that a value lives in.

    n are the values' own elements, which stand before or behind the samples as the backend has its arrays; k is how many steps
    apart a value is defined and read.
    """

    STEP = "[B, n], overwritten at every step"
    SEQUENCE = "[T, B, n]"
    FLAT = "[n, T, B], what one product over all steps and samples writes"
    HISTORY = "[T + k, B, n], what a step defines, and k steps later, or before, reads: of a carry k is 1"
    ROLLING = "[2, B, n], a carry before and after this step"
    LATEST = "[B, n], a carry before and after the sequence"
    FINAL = "[B, n], read or stored where a sample ends and nowhere else"
    CONSTANT = "[n], the same for every sample and step"
    GIVEN = "the caller's, or another direction's: no memory of its own"
    USER = "[T, B, n], written for the caller"


class Owner(Enum):
    """The part of the memory that holds a buffer."""

    FORWARD = "the forward pass"
    BACKWARD = "the backward pass"
    ALONE = "one step alone"
    TAPE = "what the forward pass leaves for the backward pass"
    SCRATCH = "blocks, in which buffers of either pass lie that are never needed at once"
    CALLER = "whoever calls"


class Element(Enum):
    """What the elements of a buffer are, where a backend tells types apart."""

    STORED = "numbers of the type that is stored and multiplied"
    EXACT = "numbers of the type of gate arithmetic"
    ROW = "the numbers of rows of another buffer"


@dataclass(frozen=True)
class Buffer:
    """An array called ``name``: two of one owner have two names."""

    name: str
    axes: Axes
    owner: Owner
    home: Home = Home.STEP
    element: Element = Element.STORED

    @property
    def size(self) -> sympy.Expr:
        """How many numbers it holds."""
        return size(self.axes)

    @property
    def grows(self) -> bool:
        """Whether it is larger for more steps."""
        return any(T in axis.free_symbols for axis in self.axes)

    @property
    def units(self) -> sympy.Expr:
        """The length of its last axis: the columns of one that has its samples first."""
        return self.axes[-1]


@dataclass(frozen=True)
class Place:
    """Where something lies: in which buffer, and behind how many numbers, or columns, of it."""

    buffer: Buffer
    start: sympy.Expr = sympy.S.Zero


def size(axes: Axes) -> sympy.Expr:
    """How many numbers an array with these axes holds."""
    return sympy.expand(sympy.Mul(*axes))


_SAMPLES_FIRST: dict[Home, Axes] = {
    Home.STEP: (B,),
    Home.SEQUENCE: (T, B),
    Home.HISTORY: (T + 1, B),
    Home.ROLLING: (sympy.Integer(2), B),
    Home.LATEST: (B,),
    Home.FINAL: (B,),
    Home.CONSTANT: (),
    Home.USER: (T, B),
}


def samples_first(home: Home, units: sympy.Expr) -> Axes:
    """The axes of a buffer with a row a sample: in front of ``units`` what its home says, with k = 1."""
    return (*_SAMPLES_FIRST[home], units)
