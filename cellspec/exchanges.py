"""Exchanges: what the parts of a machine that share one step's work have to tell one another.

Every product of the loop needs the whole of its operands, whoever computed them: each level of products is one exchange a step.
Where the weights stay on chip for a whole sequence, exchanges are all that a step costs beside its arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellspec import ir
from cellspec.cell import Shape
from cellspec.schedule import Schedule


@dataclass(frozen=True)
class Exchange:
    """One exchange of a step: the values that it carries with their shapes, and the products that wait for them."""

    operands: tuple[tuple[str, Shape], ...]
    products: tuple[ir.Product, ...]


def exchanges(schedule: Schedule) -> tuple[Exchange, ...]:
    """The exchanges of one step of ``schedule``, in order."""
    found = []
    for level in schedule.levels:
        products = tuple(op for op in level if isinstance(op, ir.Product))
        if products:
            names = dict.fromkeys(name for product in products for name in product.operands)
            found.append(Exchange(tuple((name, schedule.program.shape(name)) for name in names), products))
    return tuple(found)
