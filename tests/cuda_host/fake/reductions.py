"""Reductions and matrix products.

What CuPy allocates behind the caller's back is said to the machine: workspaces, and copies of operands that cuBLAS cannot
take as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .array import checked, may_overlap, ndarray, shape_of, supported
from .creation import empty, new_like
from .cublas import NO_CAPTURE, get_handle, set_stream
from .machine import active
from .ufuncs import SMALL

# --- reductions --------------------------------------------------------------------------------------------------------


def reduction(name: str, a: ndarray, axis: Any, dtype: Any, out: ndarray | None, keepdims: bool) -> ndarray:
    """A reduction: small floats in float32."""
    view = checked(name, [a])[0]._np
    host: Callable[..., Any] = getattr(np, name)
    extra = {} if dtype is None else {"dtype": supported(dtype)}

    def compute(v: np.ndarray) -> np.ndarray:
        if v.dtype.name in SMALL:
            return np.asarray(host(v.astype(np.float32), axis=axis, keepdims=keepdims)).astype(dtype or v.dtype)
        return np.asarray(host(v, axis=axis, keepdims=keepdims, **extra))

    shape_only = compute(np.broadcast_to(np.ones((), view.dtype), view.shape))
    if out is not None and not isinstance(out, ndarray):
        raise TypeError("output arguments must be cupy.ndarray")
    target = new_like(shape_only, out, name)
    goal = target._np
    axes = range(a.ndim) if axis is None else {n % a.ndim for n in shape_of(axis)}
    if a.flags.c_contiguous and a.size and a.ndim and set(axes) == set(range(a.ndim - len(set(axes)), a.ndim)):
        active().hidden_copy(f"{name} along the last axes takes a workspace (CUB)")
    active().submit(name, lambda: np.copyto(goal, compute(view), casting="unsafe"), [a._memory, target._memory])
    return target


def total(a: ndarray, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    """The sum along axes."""
    return reduction("sum", a, axis, dtype, out, keepdims)


def amax(a: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    """The greatest along axes."""
    return reduction("amax", a, axis, None, out, keepdims)


def amin(a: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    """The least along axes."""
    return reduction("amin", a, axis, None, out, keepdims)


def all_true(a: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    """Whether all are true."""
    return reduction("all", a, axis, None, out, keepdims)


def one_true(a: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    """Whether one is true."""
    return reduction("any", a, axis, None, out, keepdims)


def cumsum(a: ndarray, axis: Any = None, dtype: Any = None, out: Any = None) -> ndarray:
    """Running sums along an axis."""
    view = checked("cumsum", [a])[0]._np
    target = new_like(np.cumsum(np.broadcast_to(np.ones((), view.dtype), view.shape), axis, dtype), out, "cumsum")
    goal = target._np
    active().submit("cumsum", lambda: np.copyto(goal, np.cumsum(view, axis), casting="unsafe"), [a._memory, target._memory])
    return target


def inverse(a: ndarray) -> ndarray:
    """`linalg.inv`; a singular matrix is an error, or gives what is not finite."""
    view = checked("inv", [a])[0]._np
    if a.dtype.name not in ("float32", "float64"):
        raise TypeError(f"Array type {a.dtype} is unsupported in linalg")
    target = empty(a.shape, a.dtype)
    goal = target._np
    active().submit("inv", lambda: np.copyto(goal, np.linalg.inv(view)), [a._memory, target._memory])
    return target


# --- products: cuBLAS --------------------------------------------------------------------------------------------------


def contiguous(a: ndarray) -> bool:
    """Whether cuBLAS takes it as it is, or transposed."""
    return bool(a.flags.c_contiguous or a.flags.f_contiguous)


def product(what: str, a: ndarray, b: ndarray, out: ndarray | None) -> ndarray:
    """A matrix product into `out`; small floats are accumulated in float32 and rounded once."""
    machine = active()
    found = np.promote_types(a.dtype, b.dtype)
    if found.kind != "f" and found.name != "bfloat16":
        raise NotImplementedError(f"{what} of {found}")
    shape = np.matmul(np.empty(a.shape, "?"), np.empty(b.shape, "?")).shape
    if machine.capturing() and not machine.capture_products:
        raise NotImplementedError(NO_CAPTURE)
    target = empty(shape, found) if out is None else out
    if target.shape != shape:
        raise ValueError(f"Output operand 0 has invalid shape {target.shape} expected {shape}")
    if target.dtype != found or not target.flags.c_contiguous:
        if not np.can_cast(found, target.dtype, "same_kind"):
            raise TypeError(f"Cannot cast out dtype from {found!r} to {target.dtype!r} with casting rule same_kind")
        machine.hidden_copy(f"{what} into an array that is not C-contiguous, or of another dtype")
    for operand in (a, b):
        if max(a.ndim, b.ndim) <= 2 and not contiguous(operand):
            machine.hidden_copy(f"{what} copies an operand that is not contiguous")
        elif max(a.ndim, b.ndim) > 2 and not operand.flags.c_contiguous:
            machine.hidden_copy(f"{what} of batches copies an operand that is not C-contiguous")
        if operand.dtype != found:
            machine.hidden_copy(f"{what} casts an operand to {found}")
        if may_overlap(operand, target):
            machine.hidden_copy(f"{what} into memory that an operand shares")
    if max(a.ndim, b.ndim) > 2 and a.shape[:-2] != b.shape[:-2]:
        machine.hidden_copy(f"{what} of batches that broadcast makes arrays of pointers")
    left, right, goal = a._np, b._np, target._np
    if not machine.capturing():
        set_stream(get_handle(), machine.current())

    def work() -> None:
        for seen in machine.watchers:
            seen.products += 1
        wide = np.dtype(np.float32) if found.name in SMALL else found
        with np.errstate(all="ignore"):
            np.copyto(goal, np.matmul(left.astype(wide, copy=False), right.astype(wide, copy=False)), casting="unsafe")

    machine.submit(what, work, [a._memory, b._memory, target._memory])
    return target


def matmul(x1: ndarray, x2: ndarray, out: Any = None) -> ndarray:
    """The matrix product; an `out` that CuPy would have to copy into is counted as an allocation."""
    checked("matmul", [x1, x2])
    if isinstance(out, tuple):
        (out,) = out
    if out is not None and not isinstance(out, ndarray):
        raise TypeError("`out` must be a tuple or `cupy.ndarray`")
    if x1.ndim == 0 or x2.ndim == 0:
        raise ValueError("Scalar operands are not allowed, use '*' instead")
    return product("matmul", x1, x2, out)


def dot(a: ndarray, b: ndarray, out: Any = None) -> ndarray:
    """The dot product of matrices and vectors, with stricter rules for `out` than matmul's."""
    checked("dot", [a, b])
    if out is not None and np.result_type(a.dtype, b.dtype) != out.dtype:
        raise ValueError("Not supported dtype combination.")
    if out is not None and not out.flags.c_contiguous:
        raise ValueError("Output array must be C-contiguous")
    if not (a.ndim in (1, 2) and b.ndim in (1, 2)):
        raise NotImplementedError("dot of more than two dimensions")
    if a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] == 1 and a.size and out is not None:
        return one_number(a, b, out)
    return product("dot", a, b, out)


def one_number(a: ndarray, b: ndarray, out: ndarray) -> ndarray:
    """What CuPy makes of a row times a column: no call of cuBLAS, but an array of products, each rounded, and its sum."""
    active().hidden_copy("dot of a row and a column makes an array of their products")
    left, right, goal = a._np.reshape(-1), b._np.reshape(-1), out._np
    wide = np.float32 if a.dtype.name in SMALL else a.dtype

    def work() -> None:
        with np.errstate(all="ignore"):
            products = (left.astype(wide) * right.astype(wide)).astype(left.dtype)
            np.copyto(goal, products.astype(wide).sum(), casting="unsafe")

    active().submit("dot of a row and a column", work, [a._memory, b._memory, out._memory])
    return out
