"""Where samples begin anew: at which steps, and from what."""

from __future__ import annotations

import numpy as np


def _by_step(steps: np.ndarray, columns: np.ndarray) -> dict[int, np.ndarray]:
    """The samples of each step that there is in ``steps``, which are in order."""
    found, first = np.unique(steps, return_index=True)
    bounds = [*first.tolist(), len(steps)]
    return {t: columns[i:j] for t, i, j in zip(found.tolist(), bounds, bounds[1:])}


def _firsts(first: np.ndarray, number: float, axis: int) -> np.ndarray:
    """The states before the first step, samples along ``axis``, and behind them the spec's own."""
    return np.concatenate((first, np.full_like(first.take([0], axis), number)), axis)
