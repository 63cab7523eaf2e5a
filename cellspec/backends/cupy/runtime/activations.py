"""Functions that CuPy does not have, of numbers or arrays: elementwise, but for the largest element."""

from __future__ import annotations

from typing import Any

import cupy as cp


def _elu(z: Any) -> Any:
    """z where it is positive, else exp(z) - 1."""
    return cp.maximum(z, 0) + cp.expm1(cp.minimum(z, 0))


def _erf(z: Any) -> Any:
    """The error function."""
    from cupyx.scipy.special import erf

    return erf(z)


def _erfc(z: Any) -> Any:
    """1 less the error function, accurate also where it is tiny."""
    from cupyx.scipy.special import erfc

    return erfc(z)


def _gelu(z: Any) -> Any:
    """z times the standard normal distribution function at z."""
    return z/2*_erfc(-z/2**0.5)


def _largest(a: Any, axis: int) -> Any:
    """The largest element along ``axis``, which stays with size 1, or 0 where that is not finite."""
    top = cp.max(a, axis=axis, keepdims=True)
    return cp.where(cp.abs(top) < cp.inf, top, 0)


def _sigmoid(z: Any) -> Any:
    """1/(1 + exp(-z)), without overflow."""
    e = cp.exp(-cp.abs(z))
    return cp.where(cp.asarray(z) >= 0, 1, e)/(1 + e)


def _silu(z: Any) -> Any:
    """z/(1 + exp(-z))."""
    return z*_sigmoid(z)


def _softsign(z: Any) -> Any:
    """z/(1 + |z|)."""
    return z/(1 + cp.abs(z))
