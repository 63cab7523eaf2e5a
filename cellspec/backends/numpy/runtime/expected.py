"""What arguments must be: arrays of a dtype and a shape."""

from __future__ import annotations

from typing import Any

import numpy as np


def _expect(name: str, value: Any, dtype: Any, shape: tuple[int, ...], axes: str) -> None:
    """``value`` must be an array of this dtype and shape; ``axes`` says the shape in the spec's dims."""
    if type(value) is not np.ndarray and not _is_array(value):
        raise TypeError(f"{name} must be a NumPy array of shape {axes}, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name} has dtype {value.dtype}, expected {dtype}")
    if value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}, expected {axes} = {shape}")


def _axis(name: str, value: Any, ndim: int, axis: int, axes: str) -> int:
    """The length of an axis, from which a dim is read."""
    if type(value) is not np.ndarray and not _is_array(value):
        raise TypeError(f"{name} must be a NumPy array of shape {axes}, got {type(value).__name__}")
    if value.ndim != ndim:
        raise ValueError(f"{name} has shape {value.shape}, expected {axes}")
    return value.shape[axis]


def _is_array(value: Any) -> bool:
    """Whether ``value`` is an array, in memory or in a file. Masks, matrices and units mean what is not computed here."""
    return type(value) in (np.ndarray, np.memmap)
