"""Sequences in the order in which they are run, and back in the caller's, where samples end early or are read from their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.numpy.runtime.surroundings import Workspace, _cuts, _Masks


def _read(masks: _Masks, sequence: np.ndarray, k: int, ws: Workspace | None, name: str) -> np.ndarray:
    """One sequence [T, B, ...] in that order, in C order; ``name`` is that of its copy in the workspace."""
    T, B = sequence.shape[:2]
    if not len(masks.behind):
        return sequence if masks.index is None else np.ascontiguousarray(sequence[::-1])
    index, samples = np.arange(T)[:, None].repeat(B, 1), np.arange(B)[None].repeat(T, 0)
    for start in range(0, masks.lengths.max(), k):
        if (cuts := _cuts(masks, start, min(k, T - start))) is not None:
            index[start:start + k], samples[start:start + k] = start + cuts.rows, cuts.samples
    if masks.index is not None:
        index = masks.index[index, samples]
    return _rows(sequence, index, samples, _room(ws, name, sequence))


def _turned(masks: _Masks, sequence: np.ndarray, ws: Workspace | None, name: str) -> np.ndarray:
    """``sequence`` [T, B, ...] from the caller's order into that of the run or back, and zero behind a sample's end."""
    if not len(masks.behind):
        return sequence if masks.index is None else sequence[::-1]
    turned = _room(ws, name, sequence)
    if masks.index is None:
        np.copyto(turned, sequence)
    else:
        _rows(np.ascontiguousarray(sequence), masks.index, np.arange(len(masks.lengths)), turned)
    return _ended(masks, turned)


def _given_back(masks: _Masks, y: np.ndarray, ws: Workspace | None, name: str) -> np.ndarray:
    """An output in the caller's order, in its own memory if that is the order of the run."""
    return _ended(masks, y) if masks.index is None else _turned(masks, y, ws, name)


def _ended(masks: _Masks, sequence: np.ndarray) -> np.ndarray:
    """``sequence`` itself, in C order, set to zero behind a sample's end."""
    if len(masks.behind):
        T, B = sequence.shape[:2]
        sequence.reshape(T*B, *sequence.shape[2:])[masks.behind] = 0
    return sequence


def _rows(sequence: np.ndarray, index: np.ndarray, samples: np.ndarray, out: np.ndarray) -> np.ndarray:
    """``sequence[index[t, b], samples[b]]`` for every step and sample, into ``out``."""
    T, B = index.shape
    return np.take(sequence.reshape(T*B, *sequence.shape[2:]), index*B + samples, axis=0, out=out, mode="clip")


def _room(ws: Workspace | None, name: str, like: np.ndarray) -> np.ndarray:
    """Memory for a sequence such as ``like``: the workspace's, if there is one."""
    if ws is None:
        return np.empty(like.shape, like.dtype)
    if name not in ws.turned:
        ws.turned[name] = ws.owner.empty(like.shape, like.dtype)
    return ws.turned[name]
