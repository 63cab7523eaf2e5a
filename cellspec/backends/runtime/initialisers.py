"""How parameters start: an array in a dtype, drawn by NumPy's generator whatever the backend."""

from __future__ import annotations

from typing import Any

import numpy as np


def _chrono(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, t_max: float) -> np.ndarray:
    """log(u), u uniform between 1 and t_max - 1: a gate bias for time scales up to t_max (Tallec and Ollivier, 2018)."""
    return np.log(rng.uniform(1, t_max - 1, shape)).astype(dtype)


def _glorot_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Normal with variance 2/(fan_in + fan_out) (Glorot and Bengio, 2010)."""
    return ((2/max(1, shape[-2] + shape[-1]))**0.5*rng.standard_normal(shape)).astype(dtype)


def _glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uniform within ±sqrt(6/(fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    limit = (6/max(1, shape[-2] + shape[-1]))**0.5
    return rng.uniform(-limit, limit, shape).astype(dtype)


def _identity(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The identity matrix; [..., m, n]."""
    return np.broadcast_to(np.eye(*shape[-2:]), shape).astype(dtype)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, std: float) -> np.ndarray:
    """Normal with mean 0 and this standard deviation."""
    return (std*rng.standard_normal(shape)).astype(dtype)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer, uniformly distributed (Saxe et al., 2014); [..., m, n]."""
    *stack, m, n = shape
    q, r = np.linalg.qr(rng.standard_normal((*stack, max(m, n), min(m, n))))
    q *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    return np.ascontiguousarray(q if m >= n else q.swapaxes(-1, -2)).astype(dtype)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Uniform between two bounds; without them, within ±1/sqrt(fan_in)."""
    limit = max(1, shape[-1])**-0.5
    return rng.uniform(-limit if low is None else low, limit if high is None else high, shape).astype(dtype)
