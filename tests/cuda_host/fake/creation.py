"""Arrays made, taken over from elsewhere, copied and joined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .array import Capsule, MemoryPointer, assign, checked, ndarray, supported, view_of
from .machine import Memory, active


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """An array of NaN."""
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    """An array of one number, or of an array that is stretched to the shape."""
    if isinstance(fill_value, ndarray):
        result = empty(shape, dtype or fill_value.dtype, order)
        copyto(result, fill_value, casting="unsafe")
        return result
    result = empty(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    result.fill(fill_value)
    return result


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """An array of zeros."""
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """An array of ones."""
    return full(shape, 1, dtype, order)


def order_like(prototype: ndarray, order: str) -> str:
    """C, or F if that is what the prototype is and the order is to be kept."""
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"order {order!r}")
    fortran = prototype.flags.f_contiguous and not prototype.flags.c_contiguous
    return "F" if order == "F" or (order in "AK" and fortran) else "C"


def empty_like(prototype: ndarray, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> ndarray:
    """An array of NaN, as large as another."""
    return empty(prototype.shape if shape is None else shape, dtype or prototype.dtype, order_like(prototype, order))


def zeros_like(a: ndarray, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> ndarray:
    """An array of zeros, as large as another."""
    result = empty_like(a, dtype, order, subok, shape)
    result.fill(0)
    return result


def ones_like(a: ndarray, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None) -> ndarray:
    """An array of ones, as large as another."""
    result = empty_like(a, dtype, order, subok, shape)
    result.fill(1)
    return result


def made(array: np.ndarray) -> ndarray:
    """An array that the device computes from nothing."""
    result = empty(array.shape, array.dtype)
    assign_host(result, array)
    return result


def assign_host(target: ndarray, array: np.ndarray) -> None:
    """Puts numbers into an array, as work of the stream."""
    goal = target._np
    active().submit("a fill", lambda: np.copyto(goal, array, casting="unsafe"), [target._memory])


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float, order: str = "C") -> ndarray:
    """Ones on a diagonal."""
    return made(np.eye(N, M, k, supported(dtype)))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    """Numbers at equal distances."""
    return made(np.arange(*((start,) if stop is None else (start, stop, step)), dtype=dtype))


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    """An array from another, from the host's, or from another library's."""
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = from_interface(obj)
    if isinstance(obj, ndarray):
        found = supported(dtype or obj.dtype)
        wrong_order = (order == "C" and not obj.flags.c_contiguous) or (order == "F" and not obj.flags.f_contiguous)
        result = obj.astype(found, order=order) if copy or found != obj.dtype or wrong_order else obj
    else:
        if isinstance(obj, Sequence) and any(isinstance(part, ndarray) for part in obj):
            raise NotImplementedError("an array from a list of arrays")
        host = np.asarray(obj, dtype)
        result = empty(host.shape, host.dtype, "F" if order == "F" else "C")
        active().copy("an array to the device")
        result._np[...] = host
    return result.reshape((1,) * max(0, ndmin - result.ndim) + result.shape)


def asarray(
    a: Any, dtype: Any = None, order: str | None = None, *, copy: bool | None = None, blocking: bool = False
) -> ndarray:
    """The array itself if it will do."""
    return array(a, dtype, copy=bool(copy), order=order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """The array itself if it is C-contiguous, of at least one dimension."""
    return array(a, dtype, copy=False, order="C", ndmin=1)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    """A copy in the host's memory."""
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a)


def from_interface(obj: Any) -> ndarray:
    """Another library's array on the device, by `__cuda_array_interface__`: a view."""
    what = obj.__cuda_array_interface__
    found = supported(what["typestr"])
    strides = what.get("strides")
    extent = math.prod(what["shape"]) * found.itemsize
    if strides is not None and extent:
        extent = found.itemsize + sum((n - 1) * step for n, step in zip(what["shape"], strides, strict=True))
    memory = Memory(extent, obj, what["data"][0])
    memory.device = active().device_of(what["data"][0])
    return ndarray._of(memory, view_of(memory, what["shape"], found, 0, strides))


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> ndarray:
    """Another library's array on the device, by DLPack: a view."""
    if array.__dlpack_device__()[0] != 2:
        raise TypeError("CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead.")
    capsule = array.__dlpack__(stream=active().current() or 1)  # as CuPy asks: 1 is the default stream
    if not isinstance(capsule, Capsule) or capsule.array is None:
        raise NotImplementedError("the substitute for CuPy takes the DLPack capsules of its own arrays, each once")
    source, capsule.array = capsule.array, None
    return source.view()


def new_like(result: np.ndarray, out: ndarray | None, what: str) -> ndarray:
    """The array for a result: `out` if it fits, else a new one."""
    if out is None:
        return empty(result.shape, result.dtype)
    if out.shape != result.shape:
        raise ValueError(f"{what}: out has the shape {out.shape}, not {result.shape}")
    return out


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    """Copies within the device."""
    if where is not None:
        raise NotImplementedError("copyto(where=)")
    assign(dst, src, "copyto", casting)


def gather(name: str, arrays: Sequence[ndarray], axis: int, out: ndarray | None, dtype: Any, casting: str) -> ndarray:
    """`concatenate` and `stack`."""
    if dtype is not None or casting != "same_kind":
        raise NotImplementedError(f"{name}(dtype=) and {name}(casting=)")
    arrays = checked(name, list(arrays))
    host: Callable[..., np.ndarray] = getattr(np, name)
    views = [a._np for a in arrays]
    target = new_like(host([np.empty_like(view) for view in views], axis=axis), out, name)
    goal = target._np
    active().submit(name, lambda: np.copyto(goal, host(views, axis=axis)), [target._memory, *(a._memory for a in arrays)])
    return target


def concatenate(
    tup: Sequence[ndarray], axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> ndarray:
    """Arrays one after another."""
    return gather("concatenate", tup, axis, out, dtype, casting)


def stack(tup: Sequence[ndarray], axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> ndarray:
    """Arrays along a new axis."""
    return gather("stack", tup, axis, out, dtype, casting)


def broadcast_to(array: ndarray, shape: Any) -> ndarray:
    """A view with strides of 0."""
    view = np.broadcast_to(checked("broadcast_to", [array])[0]._np, shape)
    return ndarray._of(array._memory, np.lib.stride_tricks.as_strided(array._np, view.shape, view.strides))


def roll(a: ndarray, shift: Any, axis: Any = None) -> ndarray:
    """A copy turned round."""
    result = empty(a.shape, a.dtype)
    source, goal = a._np, result._np
    active().submit("roll", lambda: np.copyto(goal, np.roll(source, shift, axis)), [a._memory, result._memory])
    return result


def alloc(size: int) -> MemoryPointer:
    """`cupy.cuda.alloc`."""
    return MemoryPointer(active().allocate(size, "cupy.cuda.alloc"))
