"""Where the values of one direction live: the kinds of memory, the plan, and what it is asked for.

Three decisions make the plan, in this order:

- *Sharing* (:mod:`.sharing`): an elementwise instruction writes over an operand that it is the last to read. Gates overwrite
  their pre-activations, cotangents overwrite their factors.
- *Packing* (:mod:`.packing`): values that a product writes or reads as one stack lie side by side in one buffer; elementwise
  instructions of one kind on neighbours become one call (superword-level parallelism, on arrays).
- *Buffers*: a pack, or a value alone, gets a buffer.

Per-step arrays are feature-major, ``[n, B]``: every value is a contiguous block of rows of its buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellspec import ir
from cellspec.backends.memory.model import Home
from cellspec.backends.numpy.instructions import Code, Contraction, Scalar, reads, writes
from cellspec.ir import Op, Value
from cellspec.model.nodes import Shape


@dataclass(frozen=True)
class Packed:
    """``ufunc`` on blocks of neighbours: ``outs`` side by side, each argument too, in the same order, or one number for all."""

    ufunc: str
    outs: tuple[str, ...]
    args: tuple[tuple[str, ...] | Scalar, ...]


Step = Packed | Contraction | Op


@dataclass(frozen=True)
class Block:
    """A run of neighbouring values in a buffer: rows ``start`` to ``stop`` of its list of places."""

    buffer: int
    start: int
    stop: int


@dataclass(frozen=True)
class Slots:
    """A buffer of values: the shapes of the places side by side in it, in which memory; ``members`` are the values at each."""

    home: Home
    shapes: tuple[Shape, ...]
    members: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Storage:
    """The plan of one direction."""

    code: Code
    steps: tuple[tuple[Step, ...], ...]  # by region
    buffers: tuple[Slots, ...]
    place: Mapping[str, tuple[int, int]]  # value → buffer, place
    values: Mapping[str, Value]
    copied_carries: tuple[ir.Carry, ...]  # carries whose two ends do not share memory
    aliases: Mapping[str, str]  # a given value in another shape → the given value

    def reach(self, name: str) -> int:
        """How many steps more than there are the history has that ``name`` lies in."""
        program = self.code.schedule.program
        (after,) = {link.after for link in program.links if name in (link.before, link.after)}
        return max((delay.steps for delay in program.delays if delay.after == after), default=1)

    def distance(self, name: str) -> int | None:
        """How many steps after its definition ``name`` is read; None of what is not read of another step, but defined."""
        program = self.code.schedule.program
        steps = {carry.before: 1 for carry in program.carries} | {delay.before: delay.steps for delay in program.delays}
        return steps.get(name)

    def block(self, names: Sequence[str]) -> Block | None:
        """The block that holds ``names`` in this order, if they are neighbours."""
        places = [self.place[name] for name in names if name in self.place]
        if len(places) != len(names):
            return None
        buffer, start = places[0]
        if [(buffer, start + k) for k in range(len(places))] != places:
            return None
        return Block(buffer, start, start + len(places))

    def home(self, name: str) -> Home:
        """The kind of memory that ``name`` lives in."""
        return self.buffers[self.place[name][0]].home


@dataclass(frozen=True)
class Demands:
    """What the surroundings ask of a direction's memory: ``keep`` outlives it, ``given`` comes from outside."""

    keep: frozenset[str]
    given: frozenset[str]
    states: bool  # whether carries keep every step (forward) or only the latest (backward)
    neighbours: bool  # whether values may lie side by side, as parts of one array
    rank: Mapping[str, tuple[int, ...]]  # value → its place among neighbours
    alone: bool = False  # whether there is one step only, and no sequence


def is_mixed(shape: Shape, args: Iterable[Shape]) -> bool:
    """Whether an instruction stretches operands along some of several axes: all of them then have their axes apart."""
    return any(arg != shape and not ir.is_one(arg) for arg in args)


def step_reads(step: Step) -> tuple[str, ...]:
    """The values that a step reads."""
    if isinstance(step, Packed):
        return tuple(name for column in step.args if not isinstance(column, Scalar) for name in column)
    return reads(step)


def step_writes(step: Step) -> tuple[str, ...]:
    """The values that a step defines."""
    return step.outs if isinstance(step, Packed) else writes(step)
