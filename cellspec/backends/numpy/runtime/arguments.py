"""What arguments must be besides: lengths, parameters that are those of the tape, dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.numpy.runtime.surroundings import Params, Tape, Workspace, _fields, _is_array


def _on_host(name: str, value: Any) -> np.ndarray:
    """``value``, an array or a list, as an array."""
    if isinstance(value, np.ndarray) and not _is_array(value):
        raise TypeError(f"{name} must be a NumPy array or a list, got {type(value).__name__}")
    return np.asarray(value)


def _marks(params: Params) -> list[float]:
    """The first and the last number of each parameter."""
    return [each.item(k) for each in params if each.size for k in (0, -1)]


def _check_same(params: Params, tape: Tape) -> None:
    """The parameters must be those of the forward pass: the same arrays, of which the first and last number are looked at, or equal ones."""
    for name, now, then in zip(Params._fields, params, tape.params):
        if now is not then and not np.array_equal(now, then, equal_nan=True):
            raise ValueError(f"params.{name} has other values than in forward, whose tape this is")
    if (marks := _marks(params)) != tape.marks and repr(marks) != repr(tape.marks):  # nan is not equal to nan
        raise ValueError("params have been changed since forward, whose tape this is")


def _size(name: str, value: Any, least: int = 0) -> None:
    """``value`` must be a length."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} is {value}, expected {least} or more")


def _interval(checkpoint: Any, workspace: Workspace | None = None) -> int | None:
    """How many steps lie between the states that are kept; None if every step is."""
    if checkpoint is not None:
        _size("checkpoint", checkpoint, 1)
    if workspace is not None and checkpoint not in (None, workspace.checkpoint):
        raise ValueError(f"checkpoint is {checkpoint}, but workspace was made with checkpoint={workspace.checkpoint}")
    return checkpoint if workspace is None else workspace.checkpoint


def _float_dtype(dtype: Any) -> Any:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype is {dtype}, expected float32 or float64")
    return dtype


def _params_dtype(params: Params) -> Any:
    first = _fields("params", params, Params)[0] if Params._fields else np.empty(0)
    if not _is_array(first):
        raise TypeError(f"params.{Params._fields[0]} must be a NumPy array, got {type(first).__name__}")
    if first.dtype not in (np.float32, np.float64):
        raise TypeError(f"params.{Params._fields[0]} has dtype {first.dtype}, expected float32 or float64")
    return first.dtype
