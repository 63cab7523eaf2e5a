"""Launches of the kernels along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import ALONG_THREADS, _blocks, _kernel


def _along_blocks(kernel: str, results: int) -> tuple[int]:
    """The blocks of a kernel along an axis: one for each row, or a thread for each result."""
    return _blocks(results) if kernel.startswith("sum_across") else (results,)


def _along_arguments(rows: cp.ndarray, offset: int, shape: tuple[int, int, int], out: cp.ndarray) -> tuple[Any, ...]:
    """The arguments of a kernel along the middle axis of ``shape``, as which each row's columns from ``offset`` are seen."""
    return (*(cp.int64(n) for n in (*rows.shape, offset, *shape)), rows, out)


def _along(kernel: str, rows: cp.ndarray, offset: int, shape: tuple[int, int, int], out: cp.ndarray, dtype: Any) -> None:
    """Run a kernel along the middle axis of ``shape`` for each of ``rows``."""
    if results := rows.shape[0]*shape[0]*shape[2]:
        _kernel(kernel, dtype)(_along_blocks(kernel, results), ALONG_THREADS, _along_arguments(rows, offset, shape, out))
