"""Exchanges: what the parts of a machine that share one step's work have to tell one another.

A product needs the whole of its operands, whoever computed them, and what goes along units or turns them needs other units'
values too.
What can be told at the same time is one exchange; a further one waits for results of the one before. Where the weights stay on
chip for a whole sequence, exchanges are all that a step costs beside its arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cellspec import ir
from cellspec.ir import Op
from cellspec.model.nodes import Shape
from cellspec.passes.schedule import Schedule


@dataclass(frozen=True)
class Exchange:
    """One exchange of a step: the values that it carries with their shapes, and the operations that wait for them."""

    carries: tuple[tuple[str, Shape], ...]
    readers: tuple[Op, ...]


def exchanges(schedule: Schedule) -> tuple[Exchange, ...]:
    """The exchanges of one step of ``schedule``, in order."""
    after: dict[str, int] = {}  # the exchanges that must be over before a value is known; none for what no step computes
    rounds: defaultdict[int, list[Op]] = defaultdict(list)
    for op in schedule.loop:
        number = max((after.get(name, 0) for name in ir.operands(op)), default=0)
        if op.traits.crosses_units:
            rounds[number].append(op)
            number += 1
        after |= dict.fromkeys(ir.outs(op), number)
    return tuple(_exchange(schedule, rounds[number]) for number in sorted(rounds))


def _exchange(schedule: Schedule, readers: list[Op]) -> Exchange:
    names = dict.fromkeys(name for op in readers for name in op.samples())
    return Exchange(tuple((name, schedule.program.shape(name)) for name in names), tuple(readers))
