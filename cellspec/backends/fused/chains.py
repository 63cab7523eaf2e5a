"""Plan → the launches of a phase: runs of steps that stay within a sample become chains, a kernel each.

Between its fused regions and its functions along axes a chain waits for its own block alone, which has a sample to itself:
layer normalisation after a matrix product is one launch.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from cellspec import ir
from cellspec.backends.fused.regions import Plan, Region, Step
from cellspec.backends.memory.model import Phase
from cellspec.ir import Along

Link = Region | Along


@dataclass(frozen=True)
class Chain:
    """Steps that a block does one after the other for a sample (and a step of time, where all are done at once)."""

    links: tuple[Link, ...]


def launches(plan: Plan, phase: Phase) -> tuple[Step | Chain, ...]:
    """The steps of a phase, those in chains together."""
    widths = _vectors(plan) if phase is Phase.LOOP else None
    found: list[Step | Chain] = []
    run: list[Link] = []
    for step in (*plan.steps[phase], None):
        if isinstance(step, Region | Along) and _fits(plan, step, widths):
            run.append(step)
            continue
        together = len(run) > 1 and any(isinstance(link, Along) for link in run)
        found += [Chain(tuple(run))] if together else run
        run = []
        if step is not None:
            found.append(step)
    return tuple(found)


def _fits(plan: Plan, step: Link, widths: set[sympy.Expr] | None) -> bool:
    """Whether a block is enough for a sample of ``step``: in the loop there are few samples, so only for vectors."""
    units = step.units if isinstance(step, Region) else plan.flow.width(step.operand)
    return widths is None or units in widths


def _vectors(plan: Plan) -> set[sympy.Expr]:
    """The sizes of vectors: of what products with weights read and make, and of single numbers. Matrices are larger."""
    products = [op for ops in plan.flow.phases for op in ops if isinstance(op, ir.Product)]
    return {sympy.Integer(1)} | {plan.flow.width(name) for op in products for name in (*op.outs, *op.operands)}
