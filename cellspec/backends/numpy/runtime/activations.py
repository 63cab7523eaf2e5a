"""Functions that NumPy does not have, elementwise: of numbers or arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def _elu(z: Any) -> Any:
    """z where it is positive, else exp(z) - 1."""
    return np.maximum(z, 0) + np.expm1(np.minimum(z, 0))


def _erf(z: Any, out: np.ndarray | None = None) -> Any:
    """The error function."""
    from math import erf

    if out is not None and out.ndim == 3:  # all steps: one after the other, for the sake of memory
        for z_t, out_t in zip(z, out):
            _erf(z_t, out_t)
        return out
    z = np.asarray(z)
    value = np.fromiter(map(erf, z.ravel().tolist()), z.dtype if z.dtype.kind == "f" else np.float64, z.size).reshape(z.shape)
    if out is None:
        return value
    np.copyto(out, value)
    return out


def _erfc(z: Any, out: np.ndarray | None = None) -> Any:
    """1 less the error function, accurate also where it is tiny."""
    from math import erfc

    if out is not None and out.ndim == 3:  # all steps: one after the other, for the sake of memory
        for z_t, out_t in zip(z, out):
            _erfc(z_t, out_t)
        return out
    z = np.asarray(z)
    value = np.fromiter(map(erfc, z.ravel().tolist()), z.dtype if z.dtype.kind == "f" else np.float64, z.size).reshape(z.shape)
    if out is None:
        return value
    np.copyto(out, value)
    return out


def _gelu(z: Any) -> Any:
    """z times the standard normal distribution function at z."""
    return z/2*_erfc(-z/2**0.5)


def _sigmoid(z: Any) -> Any:
    """1/(1 + exp(-z)), without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(np.asarray(z) >= 0, 1, e)/(1 + e)


def _silu(z: Any) -> Any:
    """z/(1 + exp(-z))."""
    return z*_sigmoid(z)


def _softsign(z: Any) -> Any:
    """z/(1 + |z|)."""
    return z/(1 + np.abs(z))
