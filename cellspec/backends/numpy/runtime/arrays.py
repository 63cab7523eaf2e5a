"""What one call of NumPy does not do: copies from one order of memory to another, and choices that keep their memory."""

from __future__ import annotations

from typing import Any

import numpy as np


def _columns(steps: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """The matrix [n, T*B] of ``steps`` [T, n, B]: a view if there is one sample, otherwise copied into ``buffer`` [n, T, B]."""
    n, T, B = buffer.shape
    if B == 1:
        return steps.transpose(1, 0, 2).reshape(n, T)
    _move(steps, buffer.transpose(1, 0, 2))
    return buffer.reshape(n, T*B)


def _from_left(weights: np.ndarray) -> np.ndarray:
    """``weights.T``, for products with samples from the left: copied unless it is large, as BLAS is then faster for few samples."""
    return np.ascontiguousarray(weights.T) if weights.size <= 2**17 else weights.T


def _largest(a: np.ndarray, axis: int, out: np.ndarray | None = None) -> np.ndarray:
    """The largest element along ``axis``, which stays with size 1, or 0 where that is not finite."""
    out = np.max(a, axis=axis, keepdims=True, out=out)
    out[~np.isfinite(out)] = 0
    return out


def _move(source: np.ndarray, target: np.ndarray) -> None:
    """Copy ``source`` into ``target``, both [T, n, B] in different orders in memory: the samples of a row in one piece, if they are one."""
    if source.size and source.strides[-1] == target.strides[-1] == source.itemsize:
        row = f"V{source.itemsize*source.shape[-1]}"
        source, target = source.view(row), target.view(row)
    np.copyto(target, source)


def _transposed(weights: np.ndarray, T: int, B: int, buffer: np.ndarray) -> np.ndarray:
    """``weights.T``, which every step multiplies with: copied into ``buffer`` if they are large, as BLAS packs rows faster than columns."""
    if B == 1 or T < 32 or weights.size < 2**16:
        return weights.T
    for start in range(0, len(weights), 32):  # in pieces: rows that are powers of two apart share few lines of the cache
        np.copyto(buffer[:, start:start + 32], weights[start:start + 32].T)
    return buffer


def _where(condition: np.ndarray, a: Any, b: Any, out: np.ndarray) -> None:
    """out = a where the condition is not zero, else b."""
    chosen = np.asarray(condition) != 0
    np.copyto(out, b)
    np.copyto(out, a, where=chosen)
