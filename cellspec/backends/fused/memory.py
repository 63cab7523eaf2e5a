"""Where the values of one direction lie, in terms of :mod:`cellspec.backends.memory.model`.

All arrays have a row a sample, units contiguous: neighbouring threads touch neighbouring numbers, and each operand of a product
is one contiguous matrix. The length of a buffer's last axis is in the spec's dims, as values have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import sympy

from cellspec.backends.fused.flow import Flow
from cellspec.backends.fused.regions import Plan
from cellspec.backends.memory.model import Buffer, Element, Home, Owner, Place, samples_first
from cellspec.ir import Carry


@dataclass(frozen=True)
class Columns(Place):
    """Columns of a buffer, from ``start``; ``late`` for what a carry is after the step, ``first`` for before all steps.

    Values of several axes that lie side by side do so along the last: with ``pitch``, rows of the first length stand in rows
    of the second. Where ``rows`` says which row of the buffer a step reads, -1 is the number ``otherwise``.
    """

    late: bool = False
    first: bool = False
    pitch: tuple[sympy.Expr, sympy.Expr] | None = None
    rows: Buffer | None = None
    otherwise: sympy.Expr = sympy.S.Zero


@dataclass(frozen=True)
class Kept:
    """The memory of a carry: ``state``, and ``operand``, what products read (the same memory where the types are the same)."""

    carry: Carry
    state: Buffer
    operand: Buffer | None


@dataclass(frozen=True)
class Memory:
    """Where the values of one direction lie.

    ``reads``: where a value is read; ``stores``: where the region that computes it puts it; ``results``: what a product or a
    sum over units writes; ``stacks``: the buffer of a product's operands, by the set of them; ``totals``: what each thread of
    a kernel over the whole loop sums, and ``summed``: where the values of other sums lie.
    """

    plan: Plan
    buffers: tuple[Buffer, ...]
    reads: Mapping[str, Columns]
    stores: Mapping[str, tuple[Columns, ...]]
    stacks: Mapping[frozenset[str], tuple[Columns, tuple[str, ...]]]
    carries: tuple[Kept, ...]
    outputs: Mapping[str, Buffer]
    totals: Mapping[str, Buffer]
    summed: Mapping[str, Columns]

    @property
    def flow(self) -> Flow:
        """The flow that this is the memory of."""
        return self.plan.flow

    def kept(self, name: str) -> Kept | None:
        """The carry that ``name`` is an end of."""
        return next((k for k in self.carries if name in (k.carry.before, k.carry.after)), None)

    def is_behind(self, place: Columns) -> bool:
        """Whether ``place``, of a carry, is behind the step in time, and not before it: the loop may run the other way."""
        return place.late is (self.flow.forwards or place.buffer.owner is Owner.TAPE)


def owner(flow: Flow) -> Owner:
    """Who owns what one direction makes."""
    return Owner.FORWARD if flow.forwards else Owner.BACKWARD


def buffer(name: str, home: Home, units: sympy.Expr, owner: Owner = Owner.FORWARD, element: Element = Element.STORED) -> Buffer:
    """A buffer with a row a sample."""
    return Buffer(name, samples_first(home, units), owner, home, element)


def matrices(memory: Memory) -> dict[str, Columns]:
    """What of ``memory`` a product can read: contiguous rows of the type that is stored, for every step."""
    here = {name: place for name, place in memory.reads.items() if place.rows is None}
    found = {name: place for name, place in here.items() if memory.flow.width(name) == place.buffer.units}
    found |= {names[0]: place for place, names in memory.stacks.values() if len(names) == 1}
    return {name: place for name, place in found.items() if is_matrix(place.buffer)}


def is_matrix(buffer: Buffer) -> bool:
    """Whether all steps' rows of a buffer are a matrix of the type that is stored."""
    return buffer.element is Element.STORED and buffer.home in (Home.SEQUENCE, Home.HISTORY)


def as_saved(place: Columns) -> Columns:
    """A place of the forward pass, as the backward pass sees it."""
    rows = None if place.rows is None else replace(place.rows, owner=Owner.TAPE)
    return replace(place, buffer=replace(place.buffer, owner=Owner.TAPE), rows=rows)
