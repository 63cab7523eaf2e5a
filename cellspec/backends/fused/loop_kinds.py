"""The classes of loops, from the fastest to the most general: a row each. The first that holds a cell is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cellspec import ir
from cellspec.backends.fused.regions import Plan, Region
from cellspec.backends.memory.model import Phase
from cellspec.ir import Move

BUDGET = 96
"""Values that a thread may hold at once, two registers each in float64; a thread has 255, and some are for addresses."""


class Kind(Enum):
    """How the loop over time runs."""

    PARALLEL = "parallel"  # no step needs another: no loop
    SEQUENCE = "sequence"  # the whole sequence in one kernel a width, a thread per (sample, unit), carries in registers
    STEP = "step"  # products and fused kernels, step by step


@dataclass(frozen=True)
class Choice:
    """The class of a direction's loop; ``against`` says of each faster one, the fastest first, why it cannot run that loop."""

    kind: Kind
    against: tuple[tuple[Kind, str], ...]


def choose(plan: Plan) -> Choice:
    """The first class that can run ``plan``."""
    against: list[tuple[Kind, str]] = []
    for kind, objection in _CLASSES:
        why_not = objection(plan)
        if why_not is None:
            return Choice(kind, tuple(against))
        against.append((kind, why_not))
    raise AssertionError("the last class runs everything")


def live(region: Region) -> int:
    """The most values that a thread of ``region`` holds at once."""
    last: dict[str, int] = {}
    for k, op in enumerate(region.ops):
        last |= dict.fromkeys(ir.operands(op), k)
    held = {name for name in region.loads if name in last}
    most = len(held)
    for k, op in enumerate(region.ops):
        held.add(op.out)
        most = max(most, len(held))
        held -= {name for name in ir.operands(op) if last[name] == k and name not in region.results}
    return most


def _loops(plan: Plan) -> str | None:
    return "a step reads what the step before has left" if plan.steps[Phase.LOOP] else None


def _couples(plan: Plan) -> str | None:
    """Why the threads of a loop cannot run on their own."""
    for step in plan.steps[Phase.LOOP]:
        match step:
            case ir.Product(outs=outs):
                return f"the loop holds the product {', '.join(outs)}"
            case Region():
                pass
            case _:
                return f"the loop looks across units for {', '.join(ir.outs(step))}"
    moved = {op.out: op for op in plan.flow.phases[Phase.LOOP] if isinstance(op, Move)}
    if moved:
        return f"the loop looks across units for {', '.join(moved)}"
    for region in plan.in_phase(Phase.LOOP):
        own = {op.out for op in region.ops}
        for carry in plan.flow.program.carries:
            if carry.before in region.loads and carry.after not in own:
                return f"units of different widths share {carry.before}"
        for delay in plan.flow.program.delays:
            whole = plan.flow.width(delay.before) == region.units
            if delay.before in region.loads and not (whole and delay.after in own):
                return f"units of different widths share {delay.before}"
        if live(region) > BUDGET:
            return f"a thread would hold {live(region)} values at once, and there is room for {BUDGET}"
    return None


_CLASSES: tuple[tuple[Kind, Callable[[Plan], str | None]], ...] = (
    (Kind.PARALLEL, _loops),
    (Kind.SEQUENCE, _couples),
    (Kind.STEP, lambda plan: None),
)
"""Each class with what tells why it cannot run a plan. A persistent class (weights on chip) would stand before STEP."""
