"""How far rounding may move results: the equations evaluated again with every number in them moved a little.

A program rounds each result to its dtype; which of several equal forms it evaluates, and in which order it adds, is its own
affair. So each argument, each result of an operation and each tangent is moved by a random part of ``AMPLITUDE`` units in its
last place; what is too small for the dtype is lost, what is too large becomes infinite. A quantity may be off by about as much
as it moves here: by little where the equations are well conditioned, by all of it where they cancel or amplify.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cellspec.cell import Cell
from cellspec.model.nodes import STEP_INDEX, Along, Apply, Const, Inverse, MatMul, Node, OuterProduct
from cellspec.model.primitives import PRIMITIVES
from cellspec.oracle.duals import Duals, Moved, Tangents, carry
from cellspec.oracle.masks import Masks
from cellspec.oracle.primitives import Array
from cellspec.oracle.values import Evaluator, Forward, Inputs, Numbers, run

AMPLITUDE = 16
"""Units in the last place: more than one, as one operation here stands for a few there, and as few draws must do for many."""


class Rounding:
    """Moves numbers as an evaluation in ``dtype`` might."""

    def __init__(self, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
        limits = np.finfo(dtype)
        self.unit = AMPLITUDE * float(limits.eps)
        self.least, self.largest = float(limits.tiny), float(limits.max)
        self.rng = rng

    def __call__(self, numbers: Array) -> Array:
        """``numbers``, each moved; zeros and infinities stay."""
        with np.errstate(all="ignore"):
            size = np.abs(numbers)
            moved: Array = numbers * (1.0 + self.unit * self.rng.uniform(-1.0, 1.0, numbers.shape))
            if size.size and not (size.max() <= self.largest):
                moved = np.where(size > self.largest, np.copysign(np.inf, numbers), moved)
            faint = (size < self.least) & (size > 0.0)
            if faint.any():
                left = self.least * np.maximum(self.rng.uniform(-1.0, 1.0, numbers.shape), 0.0)
                moved = np.where(faint, np.copysign(left, numbers), moved)
            return moved

    def arguments(self, arrays: Mapping[str, Numbers]) -> dict[str, Array]:
        """Arguments by name, moved; a count stays."""
        wide = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        return {name: array if name == STEP_INDEX else self(array) for name, array in wide.items()}


def rounds(node: Node) -> bool:
    """Whether the value of ``node`` has to be rounded."""
    match node:
        case Apply(function=function):
            return PRIMITIVES[function].rounds
        case Const(value=value):
            return not float(value).is_integer()
        case MatMul() | OuterProduct() | Inverse() | Along():
            return True
        case _:
            return False


class _Rounded(Evaluator):
    def __init__(self, cell: Cell, dims: Mapping[str, int], rounding: Rounding) -> None:
        super().__init__(cell, dims)
        self.rounding = rounding

    def __call__(self, node: Node) -> Array:
        value = super().__call__(node)
        return self.rounding(value) if rounds(node) else value


class _RoundedDuals(_Rounded, Duals):
    """Tangents are moved wherever they are read: terms that cancel are rounded one by one."""

    def tangent(self, node: Node) -> Array | None:
        moved = super().tangent(node)
        return None if moved is None else self.rounding(moved)

    def slope(self, node: Apply, value: Array) -> Array:
        """Where a program makes it of the value, ``1 - y*y``, it is moved beside 1: what follows may amplify it."""
        if not PRIMITIVES[node.function].slope_beside_one:
            return value
        return value + self.rounding.unit * self.rounding.rng.uniform(-1.0, 1.0, value.shape)


def rounded_forward(
    cell: Cell,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None,
    rounding: Rounding,
    *,
    dims: Mapping[str, int],
    masks: Masks | None = None,
) -> Forward:
    """:func:`cellspec.oracle.forward`, rounded."""
    start = None if state is None else rounding.arguments(state)
    return run(_Rounded(cell, dims, rounding), rounding.arguments(params), rounding.arguments(x), start, masks)


def rounded_jvp(
    cell: Cell,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None,
    tangents: Tangents,
    rounding: Rounding,
    *,
    dims: Mapping[str, int],
    masks: Masks | None = None,
) -> Moved:
    """:func:`cellspec.oracle.jvp`, rounded."""
    start = None if state is None else rounding.arguments(state)
    evaluator = _RoundedDuals(cell, dims, rounding)
    return carry(evaluator, rounding.arguments(params), rounding.arguments(x), start, tangents, masks)
