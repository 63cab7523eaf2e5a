"""What a forward pass keeps for the backward pass, and how much memory that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy

from cellspec import ir
from cellspec.model.nodes import Shape

if TYPE_CHECKING:
    from cellspec.pipeline import Compiled

FLOAT32 = 4
"""Bytes of a number."""

EXAMPLE_DIM = 128
"""Every dim's size where one is needed for an example."""


def kept(compiled: Compiled) -> dict[str, Shape]:
    """What is kept of every step, by name, with its shape.

    A state is kept as one sequence, whether its value before a step is wanted or that after it. The inputs are the caller's
    arrays, which are only referred to.
    """
    histories = {name: carry.before for carry in compiled.forward.carries for name in (carry.before, carry.after)}
    histories |= {delay.before: histories[delay.after] for delay in compiled.forward.delays}
    inputs = {f"{item.name}[t]" for item in compiled.cell.inputs}
    names = dict.fromkeys(histories.get(name, name) for name in compiled.stash if name not in inputs)
    return {name.removesuffix("[t-1]"): compiled.forward.shape(name) for name in names}


def again(compiled: Compiled) -> tuple[str, ...]:
    """What the backward pass reads of the forward pass's values and computes again; not what it needs for that alone."""
    repeated = set(compiled.again)
    own = (op for op in compiled.backward.ops if not repeated.intersection(ir.outs(op)))
    read = {name for op in own for name in ir.operands(op)} | {total.value for total in compiled.backward.totals}
    return tuple(name for name in compiled.again if name in read)


def numbers(compiled: Compiled) -> sympy.Expr:
    """How many numbers are kept for each step and sample: a polynomial over the dims."""
    return sympy.expand(sympy.Add(*(ir.size(shape) for shape in kept(compiled).values())))


def example(size: sympy.Expr) -> float:
    """``size`` where every dim is :data:`EXAMPLE_DIM`."""
    return float(size.subs(dict.fromkeys(size.free_symbols, EXAMPLE_DIM)))
