"""`cupy.ndarray`: a NumPy view of a `Memory`, which it shows to nobody."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .machine import Memory, active

SUPPORTED = "?bhilqBHILQefd"


def supported(dtype: Any) -> np.dtype[Any]:
    """The dtype, if CuPy has it."""
    found: np.dtype[Any] = np.dtype(dtype)
    if found.char not in SUPPORTED and found.name != "bfloat16":
        raise NotImplementedError(f"the substitute for CuPy has no dtype {found}")
    return found


class MemoryPointer:
    """An address within a memory."""

    def __init__(self, mem: Memory, offset: int = 0) -> None:
        self.mem = mem
        self.offset = offset

    @property
    def ptr(self) -> int:
        """The address itself."""
        return self.mem.ptr + self.offset

    @property
    def device_id(self) -> int:
        """The device that it is an address of."""
        return self.mem.device

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.offset + offset)


class Flags:
    """`ndarray.flags`."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous = bool(flags.c_contiguous)
        self.f_contiguous = bool(flags.f_contiguous)

    def __getitem__(self, name: str) -> bool:
        return bool(getattr(self, name.lower()))


def view_of(memory: Memory, shape: Sequence[int], dtype: np.dtype[Any], offset: int = 0, strides: Any = None) -> np.ndarray:
    """The NumPy array that lies at an offset in a memory."""
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    return np.ndarray(tuple(shape), dtype, memoryview(memory.bytes), offset, strides)


def shape_of(shape: Any) -> tuple[int, ...]:
    """A shape from what may be a number."""
    return tuple(int(n) for n in shape) if isinstance(shape, Sequence) else (int(shape),)


class ndarray:
    """CuPy's array, as far as it goes here.

    ``_np`` is the NumPy view, ``_memory`` what it is a view of: work that a stream records holds the first alone, so that
    memory can be seen to have been freed.
    """

    __array_ufunc__ = None  # NumPy's operators leave a mixed operation to ours, which refuse it
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> None:
        found, sizes = supported(dtype), shape_of(shape)
        if order not in ("C", "F"):
            raise NotImplementedError(f"order {order!r}")
        if memptr is None:
            memptr = MemoryPointer(active().allocate(math.prod(sizes) * found.itemsize, f"an array {sizes} of {found}"))
        if strides is None and order == "F" and len(sizes) > 1:
            strides = tuple(found.itemsize * math.prod(sizes[:axis]) for axis in range(len(sizes)))
        self._memory: Memory = memptr.mem
        self._np = view_of(memptr.mem, sizes, found, memptr.offset, strides)
        if memptr.mem.size < self._np.nbytes + memptr.offset and strides is None:
            raise ValueError(f"an array {sizes} of {found} does not fit into its memory")
        if found == np.bool_ and memptr.offset == 0:
            self._np.view(np.uint8)[...] = 1  # no other byte is a bool

    @classmethod
    def _of(cls, memory: Memory, array: np.ndarray) -> ndarray:
        """A wrapper of a view."""
        self = cls.__new__(cls)
        self._memory = memory
        self._np = array
        return self

    # --- what it is ---------------------------------------------------------------------------------------------

    shape = property(lambda self: self._np.shape)
    dtype = property(lambda self: self._np.dtype)
    ndim = property(lambda self: self._np.ndim)
    size = property(lambda self: self._np.size)
    nbytes = property(lambda self: self._np.nbytes)
    itemsize = property(lambda self: self._np.itemsize)
    strides = property(lambda self: self._np.strides)
    flags = property(lambda self: Flags(self._np.flags))
    T = property(lambda self: self.transpose())

    @property
    def _offset(self) -> int:
        """Where in its memory it begins."""
        return address(self._np) - self._memory.ptr if self._np.size else 0

    @property
    def data(self) -> MemoryPointer:
        """Its address; an array of nothing has 0."""
        return MemoryPointer(self._memory, self._offset if self._np.size else -self._memory.ptr)

    @property
    def device(self) -> Any:
        """The device where it lies."""
        from .stream import Device

        return Device(self._memory.device)

    def __len__(self) -> int:
        return len(self._np)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self._np)

    # --- to the host: never by accident ---------------------------------------------------------------------------

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """A copy in the host's memory, once the device has done what makes it."""
        active().copy("an array to the host")
        active().synchronise("ndarray.get")
        if out is None:
            return np.array(self._np, order=order)  # type: ignore[call-overload,no-any-return]
        out[...] = self._np
        return out  # type: ignore[no-any-return]

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """The host's array, copied to here."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        active().copy("an array to the device")
        self._np[...] = arr

    def item(self) -> Any:
        """Its one number, for which the host waits."""
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        """Its numbers, for which the host waits."""
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": [("", self.dtype.str)],
            "stream": 1,
            "version": 3,
            "strides": None if self._np.flags.c_contiguous else self.strides,
            "data": (self.data.ptr, False),
        }

    def __dlpack__(self, **options: Any) -> Any:
        """No PyCapsule, but what `from_dlpack` here takes for one."""
        return Capsule(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._memory.device)

    # --- to other processes, and copies -------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        from .creation import array

        return array, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    # --- views ----------------------------------------------------------------------------------------------------

    def _view(self, array: np.ndarray) -> ndarray:
        return ndarray._of(self._memory, array)

    def view(self, dtype: Any = None) -> ndarray:
        """The same bytes, perhaps as another dtype."""
        return self._view(self._np.view() if dtype is None else self._np.view(supported(dtype)))

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        """A view if there is one, as CuPy has it; else a copy."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        if order != "C":
            raise NotImplementedError(f"reshape in order {order!r}")
        result = self._np.reshape(tuple(sizes))
        if result.size and not np.may_share_memory(result, self._np):
            return self.copy().reshape(tuple(sizes))
        return self._view(result)

    def ravel(self, order: str = "C") -> ndarray:
        """In one dimension."""
        return self.reshape(-1, order=order)

    def transpose(self, *axes: Any) -> ndarray:
        """The view with its axes in another order."""
        return self._view(self._np.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        """The view with two axes exchanged."""
        return self._view(self._np.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        """The view without the axes of length 1."""
        return self._view(self._np.squeeze(axis))

    def __getitem__(self, key: Any) -> ndarray:
        check_basic(key)
        parts = key if isinstance(key, tuple) else (key,)
        # With an ellipsis NumPy gives a view of a single number too, as CuPy does.
        return self._view(self._np[key if Ellipsis in parts else (*parts, Ellipsis)])

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self[key]
        if isinstance(value, np.ndarray):
            if not (key is Ellipsis or key == slice(None)):
                raise TypeError(f"Unsupported type {type(value)}")
            if value.shape != target.shape or value.dtype != target.dtype:
                raise ValueError(
                    "copying a numpy.ndarray to a cupy.ndarray by empty slice assignment must ensure arrays have "
                    "same shape and dtype"
                )
            target.set(value)
            return
        assign(target, value, "__setitem__", casting="unsafe")

    # --- copies ---------------------------------------------------------------------------------------------------

    def copy(self, order: str = "C") -> ndarray:
        """A copy."""
        result = ndarray(self.shape, self.dtype, order="F" if order == "F" else "C")
        assign(result, self, "copy")
        return result

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> ndarray:
        """A copy of another dtype."""
        if not copy and self.dtype == supported(dtype):
            return self
        fortran = order == "F" or (order == "K" and self.flags.f_contiguous and not self.flags.c_contiguous)
        result = ndarray(self.shape, dtype, order="F" if fortran else "C")
        assign(result, self, "astype", casting="unsafe")
        return result

    def fill(self, value: Any) -> None:
        """The same number everywhere."""
        assign(self, value, "fill", casting="unsafe")

    # --- reductions, operators: see functions.py ----------------------------------------------------------------------

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        from .functions import PUBLIC

        return PUBLIC[name](self, *args, **options)

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """The sum along axes."""
        return self._call("sum", axis, dtype, out, keepdims)  # type: ignore[no-any-return]

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """The greatest along axes."""
        return self._call("amax", axis, out, keepdims)  # type: ignore[no-any-return]

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """The least along axes."""
        return self._call("amin", axis, out, keepdims)  # type: ignore[no-any-return]

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """Whether all are true."""
        return self._call("all", axis, out, keepdims)  # type: ignore[no-any-return]

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        """Whether one is true."""
        return self._call("any", axis, out, keepdims)  # type: ignore[no-any-return]

    def dot(self, b: ndarray, out: Any = None) -> ndarray:
        """The dot product."""
        return self._call("dot", b, out)  # type: ignore[no-any-return]


def operator(name: str, *, reflected: bool = False, in_place: bool = False) -> Callable[[ndarray, Any], Any]:
    """A binary operator that calls a ufunc."""

    def call(self: ndarray, other: Any) -> Any:
        if in_place:
            return self._call(name, other, out=self)
        if reflected:
            from .functions import PUBLIC

            return PUBLIC[name](other, self)
        return self._call(name, other)

    return call


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "pow": "power",
    "matmul": "matmul", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
for short, long in OPERATORS.items():
    setattr(ndarray, f"__{short}__", operator(long))
    setattr(ndarray, f"__r{short}__", operator(long, reflected=True))
    setattr(ndarray, f"__i{short}__", operator(long, in_place=True))
for short, long in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(ndarray, f"__{short}__", operator(long))
for short, long in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
    setattr(ndarray, f"__{short}__", lambda self, name=long: self._call(name))


class Capsule:
    """What `__dlpack__` gives: the array, to be taken once."""

    def __init__(self, array: ndarray) -> None:
        self.array: ndarray | None = array


def check_basic(key: Any) -> None:
    """That an index is basic: numbers, slices, None and an ellipsis."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, np.ndarray):
            raise TypeError("a CuPy array is indexed with a NumPy array")
        basic = part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        if not basic or isinstance(part, (bool, np.bool_)):
            raise NotImplementedError(f"the substitute for CuPy has basic indexing only, not {type(part).__name__}")


def address(array: np.ndarray) -> int:
    """Where a NumPy array begins."""
    return int(array.__array_interface__["data"][0])


def bounds(array: np.ndarray) -> tuple[int, int]:
    """The first byte of an array and the one behind its last."""
    return np.lib.array_utils.byte_bounds(array)


def may_overlap(a: ndarray, b: ndarray) -> bool:
    """Whether CuPy takes two arrays to share memory: it compares where they begin and end."""
    if not (a.size and b.size) or a._memory is not b._memory:
        return False
    (a0, a1), (b0, b1) = bounds(a._np), bounds(b._np)
    return a0 < b1 and b0 < a1


def assign(target: ndarray, value: Any, what: str, casting: Any = "same_kind") -> None:
    """Broadcasts and copies within the device, or fills with a scalar."""
    if isinstance(value, ndarray):
        if may_overlap(value, target) and value is not target and address(value._np) != address(target._np):
            active().hidden_copy(f"{what} copies its operand, which overlaps the target")
        if not np.can_cast(value.dtype, target.dtype, casting):
            raise TypeError(f"Cannot cast {value.dtype!r} to {target.dtype!r} according to the rule '{casting}'")
        source, memory = value._np, [target._memory, value._memory]
        np.broadcast_to(source, target.shape)  # refuses now what cannot be done later
    elif isinstance(value, (bool, int, float, np.number, np.bool_)) or (type(value).__module__ == "ml_dtypes"):
        source, memory = np.asarray(value), [target._memory]
    else:
        raise TypeError(f"Unsupported type {type(value)}")
    goal = target._np
    active().submit(what, lambda: np.copyto(goal, source, casting="unsafe"), memory)


def checked(what: str, args: list[Any], scalars: bool = False) -> list[Any]:
    """The arguments, if CuPy would take them."""
    for arg in args:
        if not isinstance(arg, ndarray) and not (scalars and isinstance(arg, (bool, int, float, np.number, np.bool_))):
            raise TypeError(f"Unsupported type {type(arg)}")
    return args
