"""The one table of pointwise primitives: a row each, with its definition, derivatives and spellings.

A row of :data:`PRIMITIVES` serves every stage: elaboration reads the arity, lowering builds ``symbol(*args)``, the adjoint
reads the derivatives, a backend its spelling, the oracle the *definition* alone, and for its bounds how a result and a slope
are rounded. To add a primitive, add a row to a module of :mod:`cellspec.model.rows`, with a spelling for each backend; to add
a backend, give the rows spellings of its own.

Derivatives are written in terms of the arguments *and the result* ``y`` (``y*(1 - y)`` for the logistic function), so that the
backward pass reads what the forward pass has computed. Where there is no derivative the convention is PyTorch's: see each row.

**Range**: a spelling is right to rounding wherever the result is a number of the dtype, float64 as float32, and neither it
nor a derivative has an intermediate that leaves the range when the result does not. So no constant in a row may depend on the
width of a dtype. (Derivatives in terms of ``y`` are right to rounding beside their own largest value: ``1 - y**2`` is 0 where
y is 1.)
"""

from __future__ import annotations

from cellspec.model.primitive import Primitive
from cellspec.model.rows import activations, choices, elementary
from cellspec.model.spelling import Spelling

PRIMITIVES: dict[str, Primitive] = {row.name: row for row in (*elementary.ROWS, *activations.ROWS, *choices.ROWS)}
"""Name → row."""


def column(target: str) -> dict[str, Spelling]:
    """How ``target`` spells the functions that it has a word for; the others are made of NumPy's ufuncs."""
    return {name: row.spellings[target] for name, row in PRIMITIVES.items() if target in row.spellings}


COMPARISONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
"""Operators of a condition → rows."""

OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}
"""Binary operators → rows."""

CALLABLE = tuple(name for name, row in PRIMITIVES.items() if row.listed)
"""The pointwise functions that a spec may call."""
