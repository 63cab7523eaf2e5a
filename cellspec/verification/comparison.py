"""Arrays beside what they should be, and the report about them: rows of errors and errors allowed, faults as sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FLOORS = {"float64": 1e-3, "float32": 1e-1}
"""The part of the largest array of a group to which a smaller one's errors are compared."""


@dataclass(frozen=True)
class Row:
    """One comparison: what, in which setting, the worst relative error, and the error allowed."""

    quantity: str
    setting: str
    dtype: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; a NaN is not."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All the comparisons of one module; ``faults`` are sentences on what is missing or misshapen.

    ``seed`` is -1 where the arguments were given.
    """

    cell: str
    seed: int
    rows: tuple[Row, ...]
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was there and within its tolerance."""
        return not self.faults and bool(self.rows) and all(row.ok for row in self.rows)

    def worst(self) -> tuple[Row, ...]:
        """For each quantity and dtype the row that comes nearest its tolerance, or exceeds it most."""
        found: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            key = (row.quantity, row.dtype)
            if key not in found or not _ratio(row) <= _ratio(found[key]):
                found[key] = row
        return tuple(found.values())

    def __str__(self) -> str:
        """The failures, one a line; or one line that says there are none."""
        bad = [f"{r.quantity} ({r.setting}, {r.dtype}): error {r.error:.1e} > {r.tolerance:.1e}" for r in self.rows if not r.ok]
        lines = [*self.faults, *bad] or [f"{len(self.rows)} comparisons, all within tolerance"]
        seed = f", seed {self.seed}" if self.seed >= 0 else ""
        return "\n".join([f"{self.cell}{seed}:", *lines])


def _ratio(row: Row) -> float:
    if not row.error <= row.tolerance:
        return row.error / row.tolerance if row.tolerance and math.isfinite(row.error) else math.inf
    return row.error / row.tolerance if row.tolerance else 0.0


@dataclass(frozen=True)
class Compared:
    """An array, what it should be, and how far rounding may move each element, which is computed when asked for."""

    got: Any
    expected: Array
    spread: Callable[[], Array]


@dataclass
class Log:
    """Rows and faults as they come."""

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def compare(
        self, group: Mapping[str, Compared], setting: str, dtype: np.dtype[Any], tolerance: float, around: float = 1.0
    ) -> None:
        """Compare each quantity of a group with what is expected; shapes and dtypes must be right as well.

        ``around`` is the magnitude of what the group was made from.
        """
        most = max((largest(one.expected) for one in group.values()), default=0.0)
        floor = FLOORS[dtype.name] * max(most, around)
        for quantity, one in group.items():
            got = np.asarray(one.got)
            if got.shape != np.shape(one.expected) or got.dtype != dtype:
                wanted = f"{dtype.name}{np.shape(one.expected)}"
                self.faults.append(f"{quantity} ({setting}) is {got.dtype}{got.shape}, not {wanted}")
                continue
            scale = max(largest(one.expected), floor, 1e-300)
            with np.errstate(invalid="ignore"):  # where both are the same infinity there is no difference
                difference = np.where(got == one.expected, 0.0, np.abs(got.astype(np.float64) - one.expected))
            self.judge(quantity, setting, dtype, difference, np.full_like(difference, scale), tolerance, one.spread)

    def judge(
        self,
        quantity: str,
        setting: str,
        dtype: np.dtype[Any],
        difference: Array,
        scale: Array,
        tolerance: float,
        spread: Callable[[], Array],
    ) -> None:
        """A row for differences, each of which may be ``tolerance * scale + spread``; the worst of them is told.

        What may be off without limit, as the equation itself has no value in this dtype, is left out. The spread is asked for
        where it matters alone.
        """
        error = float(np.max(difference / scale, initial=0.0))
        if not error <= tolerance:
            allowed = tolerance + spread() / scale
            relative = np.where(np.isinf(allowed), 0.0, difference / scale)
            with np.errstate(invalid="ignore"):
                worst = np.unravel_index(np.argmax(relative / allowed), allowed.shape)  # a NaN is the worst of all
            error, tolerance = float(relative[worst]), float(allowed[worst])
        self.rows.append(Row(quantity, setting, dtype.name, error, tolerance))


def largest(array: Array) -> float:
    """The largest magnitude of the finite numbers in ``array``."""
    finite = np.abs(array[np.isfinite(array)])
    return float(np.max(finite, initial=0.0))
