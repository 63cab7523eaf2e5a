"""Launches of the kernels that sum columns (``sums.cu``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _kernel


def _parts(rows: int) -> int:
    """How many partial sums a sum over ``rows`` is made of: by the shape alone, so that it is always the same sum."""
    return min(128, max(1, rows//64))


def _sum_rows(rows: cp.ndarray, parts: cp.ndarray, sums: cp.ndarray) -> None:
    """The sums of the columns of ``rows``: first of so many parts, then of these. No atomics: the same bits every time."""
    columns = cp.int64(rows.shape[1])
    kernel = _kernel("sum_rows", sums.dtype)
    kernel((max(1, -(-rows.shape[1]//32)), parts.shape[0]), (32, 8), (cp.int64(rows.shape[0]), columns, rows, parts))
    _sum_parts(parts, sums)


def _sum_parts(parts: cp.ndarray, sums: cp.ndarray) -> None:
    """The sums of the columns of ``parts``."""
    rows, columns = parts.shape
    kernel = _kernel("sum_parts", sums.dtype)
    kernel((max(1, -(-columns//32)),), (32, 8), (cp.int64(rows), cp.int64(columns), parts, sums))
