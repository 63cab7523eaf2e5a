"""What the GPU makes of a cell, for people: the class of each direction's loop and why, its exchanges and its kernels."""

from __future__ import annotations

from cellspec import ir
from cellspec.backends.cupy.module import plans
from cellspec.backends.dims import bracket
from cellspec.backends.fused import loop_kinds
from cellspec.backends.fused.chains import Chain, launches
from cellspec.backends.fused.loop_kinds import Choice, Kind
from cellspec.backends.fused.regions import Plan, Region, Step
from cellspec.backends.memory.model import Phase
from cellspec.passes.exchanges import Exchange, exchanges
from cellspec.pipeline import BACKWARD, FORWARD, Compiled

ABOUT = {
    Kind.PARALLEL: "no step needs another",
    Kind.SEQUENCE: "one kernel for the whole sequence, states in registers",
    Kind.STEP: "products and fused kernels, step by step",
}
PHASES = {Phase.BEFORE: "before the loop", Phase.LOOP: "in the loop", Phase.AFTER: "after the loop"}


def describe(compiled: Compiled) -> tuple[str, str]:
    """Each direction as lines of text."""
    ahead, back = plans(compiled)
    forward, backward = (exchanges(compiled.schedules[name]) for name in (FORWARD, BACKWARD))
    return _direction(*ahead, forward), _direction(*back, backward)


def _direction(plan: Plan, choice: Choice, found: tuple[Exchange, ...]) -> str:
    lines = [f"class {choice.kind.value}: {ABOUT[choice.kind]}"]
    lines += [f"  not {kind.value}: {why_not}" for kind, why_not in choice.against]
    lines.append(f"exchanges per step: {len(found)}")
    lines += [f"  {number} carries {_exchange(exchange)}" for number, exchange in enumerate(found, 1)]
    for phase, where in PHASES.items():
        for step in launches(plan, phase):
            if isinstance(step, Chain):
                lines.append(f"{where}: kernel of a block for each sample:")
                lines += [f"  {_step(link)}" for link in step.links]
            else:
                lines.append(f"{where}: {_step(step)}")
    return "\n".join(lines)


def _exchange(exchange: Exchange) -> str:
    carried = ", ".join(f"{name}: {bracket(shape)}" for name, shape in exchange.carries)
    return f"{carried}, for {', '.join(name for op in exchange.readers for name in ir.outs(op))}"


def _step(step: Step) -> str:
    match step:
        case Region(units=units, results=results):
            held = f"{loop_kinds.live(step)} of {loop_kinds.BUDGET} values a thread"
            return f"kernel over {units} units, {held}: {', '.join(results)}"
        case ir.Product(outs=outs):
            return f"product: {', '.join(outs)}"
        case _:
            return f"across units: {', '.join(ir.outs(step))}"
