"""Launches of kernels that have a thread for each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import THREADS


def _real(dtype: Any) -> Any:
    """The type of carries and gate arithmetic."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def _blocks(count: int) -> tuple[int]:
    """The blocks that ``count`` threads make; one at least, whose threads find that there is nothing to do."""
    return (max(1, -(-count//THREADS[0])),)


def _run(kernel: Any, count: int, arguments: tuple[Any, ...]) -> None:
    """Launch a thread for each of ``count`` elements."""
    kernel(_blocks(count), THREADS, arguments)
