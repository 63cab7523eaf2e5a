"""Which rows of a history steps read far back, where samples end or begin anew, and to which rows gradients go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp
import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _arranged, _Masks, _readings


def _begun(masks: _Masks | None, T: int, B: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Before which step each sample has begun last, -T if none, [T, B]; whether that was a reset; and the lengths, [B]."""
    if masks is None or T == 0:
        return np.full((T, B), -T), np.zeros((T, B), bool), np.full(B, T)
    lengths, _, _, resets, again = _readings(masks, 0, T, as_itself=True)
    begins = (resets | again) & (np.arange(T)[:, None] > 0)  # before the first step the state itself is another
    begun = np.maximum.accumulate(np.where(begins, np.arange(T)[:, None], -1), axis=0)
    anew = np.take_along_axis(resets, np.maximum(begun, 0), 0)
    return np.where(begun < 0, -T, begun), anew, lengths


def _rows_read(masks: _Masks | None, T: int, B: int, K: int, k: int) -> np.ndarray:
    """Which row of a history, [T + K, B, n], step t of a sample reads k steps back, [T, B]; -1: the spec's initial value.

    Where a sample has begun since, that is what was there before its beginning.
    """
    begun, anew, _ = _begun(masks, T, B)
    at = np.broadcast_to(np.arange(T)[:, None] - k, begun.shape)
    crosses = (begun >= 0) & (at < begun)
    rows = (K + np.where(crosses, at - begun, at))*B + np.arange(B)
    return np.where(crosses & anew, -1, rows)


def _last_rows(history: cp.ndarray, masks: _Masks | None, T: int, rows: int, number: float, dtype: Any) -> cp.ndarray:
    """The oldest ``rows`` of the K values up to each sample's end, the oldest first; ``history`` is [T + K, B, n]."""
    if masks is None or T == 0:
        return history[T:T + rows]
    begun, anew, lengths = _begun(masks, T, len(masks.lengths))
    own, K = np.arange(len(lengths)), len(history) - T
    begun = np.where(lengths > 0, begun[np.maximum(lengths - 1, 0), own], -T)  # behind an end nothing counts: a reset it was
    at = lengths + np.arange(rows)[:, None]
    crosses = (begun >= 0) & (at - K < begun)
    last = _arranged(cp.asarray(np.where(crosses, -1, at*len(own) + own)), history, dtype)
    return cp.where(cp.asarray(crosses[:, :, None]), last.dtype.type(number), last)


def _rows_back(masks: _Masks | None, T: int, B: int, K: int, k: int, rows: int) -> np.ndarray:
    """Which row of what steps have left for what they read k steps back belongs to step t - K of a sample, [T + K, B]; -1: none.

    Behind the steps' rows come ``rows`` of the final state's, the oldest first: of the K steps up to each sample's end.
    """
    begun, _, lengths = _begun(masks, T, B)
    steps, own = np.arange(-K, T)[:, None], np.arange(B)
    reads = steps + k  # the step that has read it
    inside = (reads >= 0) & (reads < lengths)
    whose = np.clip(reads, 0, max(T - 1, 0))
    since = np.take_along_axis(begun, np.broadcast_to(whose, (T + K, B)), 0) if T else np.full((K, B), -1)
    found = np.where(inside & ((since < 0) | (steps >= since)), whose*B + own, -1)
    last = begun[np.maximum(lengths - 1, 0), own] if T else np.full(B, -1)
    kept = (steps >= lengths - K) & (steps < lengths - K + rows) & ((last < 0) | (steps >= last))
    return np.where(kept, (T + steps - (lengths - K))*B + own, found)


def _back(left: cp.ndarray, rows: cp.ndarray, dtype: Any) -> cp.ndarray:
    """Those rows of what steps have left."""
    return _arranged(cp.ascontiguousarray(rows), left, dtype)
