"""What steps read far back, and what is left of it in the end, where samples end or begin anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.numpy.runtime.begun import _by_step, _firsts
    from cellspec.backends.numpy.runtime.surroundings import _Cuts


def _earlier(history: np.ndarray, before: np.ndarray, k: int, cuts: _Cuts | None, number: float) -> None:
    """Into ``before``, [T, B, n], what steps read k steps back in ``history``, [T + K, B, n].

    Where a sample has begun since, that is what it was given for before its beginning: of the first K rows, or the spec's number.
    """
    T = len(before)
    K = len(history) - T
    np.copyto(before, history[K - k:][:T])
    if cuts is not None and cuts.begins:
        firsts, sources = _firsts(history[:K], number, 1), _by_step(cuts.steps, cuts.sources)
        for t, columns in cuts.begins.items():
            part = before[t:t + k]
            part[:, columns] = firsts[K - k:][:len(part), sources[t]]


def _kept(history: np.ndarray, rows: int, T: int, cuts: _Cuts | None, number: float) -> np.ndarray:
    """The oldest ``rows`` of the K values up to each sample's end, the newest first, [B, rows, n]; ``history`` is [T + K, B, n]."""
    if cuts is None:
        return history[T:T + rows][::-1].swapaxes(0, 1).copy()
    K, own = len(history) - T, np.arange(len(cuts.lengths))
    begun, sources = np.full(len(own), -K), own.copy()
    run = cuts.steps < cuts.lengths[cuts.columns]  # where a sample begins before its end, in order: the last one counts
    begun[cuts.columns[run]], sources[cuts.columns[run]] = cuts.steps[run], cuts.sources[run]
    at = cuts.lengths + np.arange(rows)[::-1, None]
    given = _firsts(history[:K], number, 1)[np.clip(at - begun, 0, K - 1), sources]
    return np.where((at < begun + K)[:, :, None], given, history[at, own]).swapaxes(0, 1).copy()


def _window(d: np.ndarray, k: int, t: int) -> np.ndarray:
    """What steps from t on have left for up to k steps before it: rows of a history, or all of what is handed from step to step."""
    return d[t:t + k] if k else d
