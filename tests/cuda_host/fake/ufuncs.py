"""CuPy's ufuncs, over NumPy's.

What CuPy allocates behind the caller's back is said to the machine: an operand that overlaps `out` and is another object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .array import checked, may_overlap, ndarray
from .creation import empty
from .machine import active

SMALL = ("float16", "bfloat16")  # computed in float32, rounded once


class ufunc:
    """A ufunc: NumPy's loop, in float32 for the small floats, which CuPy rounds once."""

    def __init__(self, name: str, host: Callable[..., Any] | None = None) -> None:
        self.__name__ = name
        self.host = host or getattr(np, name)
        self.nin = getattr(self.host, "nin", 2)

    def compute(self, views: list[Any]) -> Any:
        """The result in the host's memory, of CuPy's dtype."""
        small = [v.dtype for v in views if isinstance(v, np.ndarray) and v.dtype.name in SMALL]
        if not small:
            return self.host(*views)
        wide = [v.astype(np.float32) if getattr(v, "dtype", np.dtype(int)).name in SMALL else v for v in views]
        result = self.host(*wide)
        same = all(not isinstance(v, (np.ndarray, np.generic)) or v.dtype == small[0] for v in views)
        return result.astype(small[0]) if same and result.dtype == np.float32 else result

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> ndarray:
        if len(args) == self.nin + 1 and out is None:
            *args, out = args  # type: ignore[assignment]
        if len(args) != self.nin:
            raise TypeError(f"Wrong number of arguments for {self.__name__!r}")
        if dtype is not None:
            raise NotImplementedError("ufunc(dtype=)")
        if isinstance(out, tuple):
            (out,) = out
        if out is not None and not isinstance(out, ndarray):
            raise TypeError("Output arguments type must be cupy.ndarray")
        given = checked(self.__name__, list(args), scalars=True)
        arrays = [a for a in given if isinstance(a, ndarray)]
        weak = any(isinstance(a, float) and not isinstance(a, np.generic) for a in given)
        if out is None and weak and any(a.dtype.name == "bfloat16" for a in arrays):
            raise NotImplementedError("bfloat16 with a Python float: give out=, the dtype that CuPy takes is not known here")
        for a in arrays:
            if out is not None and a is not out and may_overlap(a, out):
                active().hidden_copy(f"{self.__name__} copies an operand, which overlaps out")
        views = [a._np if isinstance(a, ndarray) else a for a in given]
        with np.errstate(all="ignore"):
            sample = self.compute([np.ones((1,) * v.ndim, v.dtype) if isinstance(v, np.ndarray) else v for v in views])
        found = np.asarray(sample).dtype
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        if out is None:
            out = empty(shape, found)
        elif out.shape != shape:
            raise ValueError("Out shape is mismatched" if shape == () else f"{self.__name__}: out is {out.shape}, not {shape}")
        elif not np.can_cast(found, out.dtype, casting):  # type: ignore[arg-type]
            raise TypeError(
                f"output (typecode {found.char!r}) could not be coerced to provided output parameter "
                f"(typecode {out.dtype.char!r}) according to the casting rule {casting!r}"
            )
        goal = out._np

        def work() -> None:
            with np.errstate(all="ignore"):
                np.copyto(goal, self.compute(views), casting="unsafe")

        active().submit(self.__name__, work, [out._memory, *(a._memory for a in arrays)])
        return out  # type: ignore[no-any-return]


UFUNCS = (
    "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "bitwise_and", "bitwise_or",
    "bitwise_xor", "cbrt", "ceil", "copysign", "cos", "cosh", "divide", "equal", "exp", "exp2", "expm1", "fabs", "floor",
    "floor_divide", "fmax", "fmin", "fmod", "greater", "greater_equal", "heaviside", "hypot", "invert", "isfinite", "isinf",
    "isnan", "less", "less_equal", "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2", "logical_and", "logical_not",
    "logical_or", "logical_xor", "maximum", "minimum", "multiply", "negative", "not_equal", "positive", "power",
    "reciprocal", "remainder", "rint", "sign", "signbit", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh",
    "trunc", "true_divide",
)  # fmt: skip
NAMED = {name: ufunc(name) for name in UFUNCS}
NAMED["abs"] = NAMED["absolute"]
NAMED["mod"] = NAMED["remainder"]


def error_function(x: Any) -> Any:
    """The error function of each element, in the dtype of ``x``."""
    x = np.asarray(x)
    return np.array([math.erf(value) for value in x.ravel().tolist()], x.dtype).reshape(x.shape)


def complementary_error_function(x: Any) -> Any:
    """One less the error function of each element, in the dtype of ``x``."""
    x = np.asarray(x)
    return np.array([math.erfc(value) for value in x.ravel().tolist()], x.dtype).reshape(x.shape)


error_function.nin = complementary_error_function.nin = 1  # type: ignore[attr-defined]


def outer(a: ndarray, b: ndarray, out: Any = None) -> ndarray:
    """Every product of an element of a with one of b."""
    return NAMED["multiply"](a.reshape(-1, 1), b.reshape(1, -1), out=out)


def clip(a: ndarray, a_min: Any, a_max: Any, out: Any = None) -> ndarray:
    """Numbers held within limits."""
    call = ufunc("clip", lambda x, low, high: np.clip(x, low, high))
    call.nin = 3
    if a_min is None or a_max is None:
        raise NotImplementedError("clip with one limit")
    return call(a, a_min, a_max, out=out)


def where(condition: ndarray, x: Any = None, y: Any = None) -> ndarray:
    """From x or from y."""
    if x is None or y is None:
        raise NotImplementedError("where with a condition alone, for which the host waits")
    call = ufunc("where", np.where)
    call.nin = 3
    if checked("where", [condition])[0].dtype != np.bool_:
        raise NotImplementedError("where with a condition that is not bool")
    return call(condition, x, y)
