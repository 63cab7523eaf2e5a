"""Launches of the kernel that multiplies head by head (``heads.cu``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _kernel


def _heads_grid(rows: int, columns: int, heads: int) -> tuple[int, int, int]:
    return (max(1, -(-rows//8)), max(1, -(-columns//32)), max(1, heads))


def _heads_blocks(rows: int, weights: cp.ndarray) -> tuple[int, int, int]:
    """The blocks that multiply so many rows with ``weights``, [heads, inner, columns]."""
    return _heads_grid(rows, weights.shape[2], weights.shape[0])


def _heads_arguments(left: cp.ndarray, weights: cp.ndarray, out: cp.ndarray) -> tuple[Any, ...]:
    """The arguments of the kernel that multiplies rows of [heads, inner] with ``weights`` to rows of [heads, columns]."""
    heads, inner, columns = weights.shape
    lengths = (left.shape[0], inner, columns, inner, heads*inner, 1, inner*columns, columns, columns, heads*columns)
    return (*map(cp.int64, lengths), left, weights, out)


def _multiply_heads(left: cp.ndarray, weights: cp.ndarray, out: cp.ndarray) -> None:
    """Rows of [heads, inner] by [heads, inner, columns], head by head."""
    kernel = _kernel("multiply_heads", out.dtype)
    kernel(_heads_blocks(left.shape[0], weights), (32, 8), _heads_arguments(left, weights, out))


def _gradient_of_heads(left: cp.ndarray, right: cp.ndarray, out: cp.ndarray) -> None:
    """``out``, [heads, m, n]: the transpose of ``left``'s rows of [heads, m] by ``right``'s rows of [heads, n], head by head."""
    heads, m, n = out.shape
    lengths = (m, left.shape[0], n, m, 1, heads*m, n, heads*n, m*n, n)
    _kernel("multiply_heads", out.dtype)(_heads_grid(m, n, heads), (32, 8), (*map(cp.int64, lengths), left, right, out))
