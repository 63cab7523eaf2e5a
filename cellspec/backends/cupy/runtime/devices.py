"""On which device a call works: that of its arrays."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import Packed


def _on_its_device(function: Any) -> Any:
    """``function`` with the CUDA device of its first array as the current one: memory, streams and kernels are that device's."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with _device_of((*arguments, *options.values())) or contextlib.nullcontext():
            return function(*arguments, **options)

    return call


def _device_of(value: Any) -> Any:
    """The CUDA device where an array lies, or the first one in a tuple; None if there is none, or nothing in it."""
    if isinstance(value, Packed):
        value = value.params
    if isinstance(value, tuple):
        return next((device for device in map(_device_of, value) if device is not None), None)
    if isinstance(value, cp.ndarray):
        return value.device if value.size else None
    if hasattr(value, "__dlpack_device__"):
        kind, number = value.__dlpack_device__()
        return cp.cuda.Device(number) if int(kind) in (2, 13) else None  # CUDA, CUDA managed
    return _device_of(cp.asarray(value)) if hasattr(value, "__cuda_array_interface__") else None
