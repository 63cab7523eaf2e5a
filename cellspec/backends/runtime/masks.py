"""Sequences of different lengths, episodes and directions: which step of which sample is run when. On the host, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.runtime.surroundings import _on_host


class _Masks(NamedTuple):
    """Where each sample ends and begins anew, and in which direction it is read."""

    lengths: np.ndarray  # [B], integers: how many steps each sample has
    resets: np.ndarray | None  # [T, B], in the order in which the steps are run; none past a sample's end
    index: np.ndarray | None  # [T, B]: which step of the sequence is run when, and the other way round; None if in order
    behind: np.ndarray  # the steps behind the samples' ends, t*B + b
    cuts: dict[tuple[int, int], Any]  # the resets and ends within each range of steps, once they are asked for


def _masks(lengths: Any, resets: Any, reverse: Any, T: int, B: int) -> _Masks | None:
    """``lengths``, ``resets`` and ``reverse`` of a call, or an error before anything is computed; None if it has none of them."""
    if not isinstance(reverse, (bool, np.bool_)):
        raise TypeError(f"reverse must be True or False, got {type(reverse).__name__}")
    if lengths is None and resets is None and not reverse:
        return None
    ends = np.full(B, T) if lengths is None else _on_host("lengths", lengths)
    if ends.dtype.kind not in "iu" and ends.size > 0:
        raise TypeError(f"lengths has dtype {ends.dtype}, expected integers")
    if ends.shape != (B,):
        raise ValueError(f"lengths has shape {ends.shape}, expected [B] = {(B,)}")
    for b in np.flatnonzero((ends < 0) | (ends > T))[:1]:
        raise ValueError(f"lengths[{b}] is {ends[b]}, expected 0 to T = {T}")
    ends, steps = ends.astype(np.int64), np.arange(T)[:, None]
    index = np.where(steps < ends, ends - 1 - steps, steps) if reverse else None
    if resets is not None:
        resets = _on_host("resets", resets)
        if resets.dtype != bool:
            raise TypeError(f"resets has dtype {resets.dtype}, expected bool")
        if resets.shape != (T, B):
            raise ValueError(f"resets has shape {resets.shape}, expected [T, B] = {(T, B)}")
        resets = (resets if index is None else np.take_along_axis(resets, index, 0)) & (steps < ends)
    return _Masks(ends, resets, index, np.flatnonzero(steps >= ends), {})


def _readings(masks: _Masks, start: int, T: int, as_itself: bool) -> tuple[np.ndarray, ...]:
    """What T steps from step ``start`` on read: step t of sample b reads what step rows[t, b] of sample samples[t, b] does.

    Behind its end a sample is run from the beginning, once more ``as_itself`` or as the longest one, as whom one without a step is
    run: whatever a step reads there, inputs, earlier inputs, counts and states, a step of the data has read, so that nothing is
    computed that is not computed of the data; and no cotangent comes in there. At least one sample must have a step.
    Returns the lengths within these steps [B]; rows and samples; and [T, B] before which steps a state is put back: to the spec's
    own, and to the one before the first of these steps, of sample samples[t, b].
    """
    lengths, steps, own = np.clip(masks.lengths - start, 0, T), np.arange(T)[:, None], np.arange(len(masks.lengths))
    others, behind = np.where(as_itself & (lengths > 0), own, lengths.argmax()), steps >= lengths
    rows = np.where(behind, (steps - lengths) % lengths[others], steps)
    samples = np.where(behind, others, own)
    resets = np.zeros(rows.shape, bool) if masks.resets is None else masks.resets[start + rows, samples]
    return lengths, rows, samples, resets, behind & (rows == 0) & ~resets
