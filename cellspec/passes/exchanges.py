"""Exchanges: what the parts of a machine that share one step's work have to tell one another.

A product needs the whole of its operands, whoever computed them, and a sum over units or a roll needs other units' values too.
What can be told at the same time is one exchange; a further one waits for results of the one before. Where the weights stay on
chip for a whole sequence, exchanges are all that a step costs beside its arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cellspec import ir
from cellspec.model.nodes import Shape
from cellspec.passes.schedule import Schedule

Reader = ir.Product | ir.SumTo | ir.Roll
"""The operations of a loop that look at other units. A concatenation or a slice only calls units by other numbers."""


@dataclass(frozen=True)
class Exchange:
    """One exchange of a step: the values that it carries with their shapes, and the operations that wait for them."""

    carries: tuple[tuple[str, Shape], ...]
    readers: tuple[Reader, ...]


def exchanges(schedule: Schedule) -> tuple[Exchange, ...]:
    """The exchanges of one step of ``schedule``, in order."""
    after: dict[str, int] = {}  # the exchanges that must be over before a value is known; none for what no step computes
    rounds: defaultdict[int, list[Reader]] = defaultdict(list)
    for op in schedule.loop:
        number = max((after.get(name, 0) for name in ir.operands(op)), default=0)
        match op:
            case ir.Product() | ir.SumTo() | ir.Roll():
                rounds[number].append(op)
                number += 1
        after |= dict.fromkeys(ir.outs(op), number)
    return tuple(_exchange(schedule, rounds[number]) for number in sorted(rounds))


def _exchange(schedule: Schedule, readers: list[Reader]) -> Exchange:
    names = dict.fromkeys(name for op in readers for name in (op.operands if isinstance(op, ir.Product) else ir.operands(op)))
    return Exchange(tuple((name, schedule.program.shape(name)) for name in names), tuple(readers))
