"""Which equation a value comes from: what that says of its place among neighbours, and of the pass that first computed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy

from cellspec import ir
from cellspec.backends.remarks import AGAIN
from cellspec.ir import Program


def marked(program: Program, again: Sequence[str]) -> Program:
    """``program`` with values that come ``again`` from equations of the forward pass, not from their adjoints, told apart."""
    again_values = {name: replace(program.values[name], origin=program.values[name].origin + AGAIN) for name in again}
    return replace(program, values={**program.values, **again_values})


def ranks(program: Program) -> dict[str, tuple[int, ...]]:
    """Each equation's place among neighbours: logistic gates first, the latest used of them foremost; then hyperbolic tangents.

    One ``tanh`` then serves the whole stack, and the gates of the state stand together in the backward pass.
    """
    order = {name: k for k, op in enumerate(program.ops) for name in ir.outs(op)}
    first_use: dict[str, int] = {}
    for k, op in enumerate(program.ops):
        for name in program.args(op):
            first_use.setdefault(program.values[name].name, k)
    found: dict[str, tuple[int, ...]] = {}
    for op in program.ops:
        (out,) = ir.outs(op)
        origin = program.values[out].origin
        if isinstance(op, ir.Pointwise) and isinstance(op.expr, sympy.Function):
            kind = {"sigmoid": 0, "tanh": 1}.get(type(op.expr).__name__, 2)
            found[origin] = (kind, -first_use.get(out, 10**6), order[out])
        else:
            found.setdefault(origin, (3, 0, order[out]))
    return found
