"""What the host reads of the arguments of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp
import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _array


def _on_host(name: str, value: Any) -> np.ndarray:
    """``value`` as a NumPy array; the host waits for one that lies on a device."""
    if hasattr(value, "__cuda_array_interface__"):
        return cp.asnumpy(_array(name, value))
    if isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} must be an array or a list, got {type(value).__name__}")
    return np.asarray(value)
