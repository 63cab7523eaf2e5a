"""Layouts: which axis of an array comes first, the features' or the batch's.

- *Feature-major*, ``[n, B]`` at a step: every value is a contiguous block of rows of its buffer, so that gates which a product
  writes side by side can be worked on one by one or together at no cost. Sequences from and for the caller, ``[T, B, n]``, are
  transposed.
- *Batch-major*, ``[B, n]`` at a step: what the caller gives and gets, and what a product over all steps and samples writes, is
  used as it is; of several values side by side, one is a strided view.

A loop with products in it works on stacks of gates at every step: feature-major. A loop without does as little at a step as
there can be, so that transposing would be much of the time: batch-major.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from cellspec import ir
from cellspec.backends.arrays.expressions import ELLIPSIS, EVERYTHING, Attribute, Expression, Index, Method, Stretch
from cellspec.backends.memory.model import Axes, B
from cellspec.passes.schedule import Schedule


@dataclass(frozen=True)
class Orientation:
    """How arrays are laid out. ``lead`` are the axes before: none, or T."""

    features_first: bool
    name: str
    axes_doc: str
    why: str

    def shape(self, lead: Axes, *rows: sympy.Expr) -> Axes:
        """The axes of an array of values: ``T, n, B`` or ``T, B, n``."""
        return (*lead, *rows, B) if self.features_first else (*lead, B, *rows)

    def single(self, *rows: sympy.Expr) -> Axes:
        """The axes of an array that stands for every sample of a step: ``n, 1`` or ``1, n``."""
        return (*rows, sympy.S.One) if self.features_first else (sympy.S.One, *rows)

    def part(self, array: Expression, rows: Stretch, *, steps: bool) -> Expression:
        """A stretch of the features, of a step or of all steps."""
        if not self.features_first:
            return Index(array, (ELLIPSIS, rows))
        return Index(array, (EVERYTHING, rows) if steps else (rows,))

    def of_caller(self, array: Expression, *, steps: bool = False) -> Expression:
        """A caller's array ``[B, n]`` or ``[T, B, n]`` as a view in this layout."""
        if not self.features_first:
            return array
        return Method(array, "transpose", (0, 2, 1)) if steps else Attribute(array, "T")

    @property
    def all_steps(self) -> tuple[int, int]:
        """The axes of time and batch in a sequence."""
        return (0, 2) if self.features_first else (0, 1)

    def last_axis(self, *, apart: bool, steps: bool) -> int:
        """The position of the last of a value's axes, which stand ``apart`` or are one."""
        if not self.features_first:
            return -1
        return -2 if apart else 1 if steps else 0


FEATURE_MAJOR = Orientation(
    True, "feature-major", "[n, B] at a step, [T, n, B] for all steps", "products write gates side by side, each in one piece"
)
BATCH_MAJOR = Orientation(
    False, "batch-major", "[B, n] at a step, [T, B, n] for all steps", "no loop has a product, and nothing need be transposed"
)


def orientation_for(*directions: Schedule) -> Orientation:
    """Batch-major where no direction has a product in its loop, nor products head by head anywhere."""
    products = any(isinstance(op, ir.Product) for direction in directions for op in direction.loop)
    return FEATURE_MAJOR if products or any(map(has_heads, directions)) else BATCH_MAJOR


def has_heads(direction: Schedule) -> bool:
    """Whether a direction has products head by head, whose results are made feature-major."""
    ops = (*direction.before, *direction.loop, *direction.after)
    weights = {name for op in ops if isinstance(op, ir.Product) for row in op.weights for name in row}
    return any(len(direction.program.shape(name)) == 3 for name in weights)
