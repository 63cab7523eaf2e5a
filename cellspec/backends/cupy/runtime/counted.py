"""The index of the step where samples begin anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy as cp
import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _Masks, _readings


def _count_anew(count: cp.ndarray, masks: _Masks) -> None:
    """Let ``count``, [T + 1, B, 1], begin again wherever the state is put back; its last row is that of the ends."""
    T = len(count) - 1
    lengths, _, _, resets, again = _readings(masks, 0, T, as_itself=True)
    slots, own = np.arange(T)[:, None], np.arange(len(lengths))
    begun = np.maximum.accumulate((resets | again)*slots, axis=0)
    since, anew = np.empty((T + 1, len(own)), int), np.empty((T + 1, len(own)), bool)
    since[:T], anew[:T] = slots - begun, resets[begun, own]
    since[T], anew[T] = since[np.maximum(lengths - 1, 0), own] + 1, anew[np.maximum(lengths - 1, 0), own]
    since, anew = cp.asarray(since[:, :, None].astype(count.dtype)), cp.asarray(anew[:, :, None])
    count[...] = cp.where(anew, since, count[:1] + since)
