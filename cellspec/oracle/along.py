"""Functions along the last axis in float64: values, stable for large arguments, and tangents, written down from calculus.

Their definitions for the exact gradients are in :mod:`cellspec.oracle.scalars`, apart from these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellspec.oracle.primitives import Array


def value(function: str, args: Sequence[Array]) -> Array:
    """``function`` of arrays ``[…, n]``: ``[…, n]`` for ``softmax`` and ``cumsum``, else ``[…, 1]``."""
    v = args[0]
    with np.errstate(all="ignore"):
        match function:
            case "sum":
                return total(v)
            case "mean":
                return mean(v)
            case "var":
                return mean(centred(v) ** 2)
            case "norm":
                result: Array = np.sqrt(total(v**2))
                return result
            case "softmax":
                weights = np.exp(v - peak(v))
                return weights / total(weights)
            case "logsumexp":
                return peak(v) + np.log(total(np.exp(v - peak(v))))
            case "cumsum":
                return np.cumsum(v, axis=-1)
            case "dot":
                return total(v * args[1])
    raise ValueError(f"no function along the last axis is called {function!r}")


def tangent(function: str, args: Sequence[Array], moved: Sequence[Array | None]) -> Array | None:
    """How the value moves when ``args`` move by ``moved``; None stands for zero. The norm's derivative at zero is zero."""
    if function == "dot":
        first, second = (None if d is None else total(d * other) for d, other in zip(moved, reversed(args), strict=True))
        return second if first is None else first if second is None else first + second
    (v,), (d,) = args, moved
    if d is None:
        return None
    match function:
        case "sum" | "mean" | "cumsum":  # linear
            return value(function, [d])
        case "var":
            return 2.0 * mean(centred(v) * d)
        case "norm":
            length = value("norm", [v])
            return total(v * d) / np.where(length == 0.0, np.inf, length)
        case "softmax":
            weights = value("softmax", [v])
            return weights * (d - total(weights * d))
        case "logsumexp":
            return total(value("softmax", [v]) * d)
    raise ValueError(f"no function along the last axis is called {function!r}")


def total(v: Array) -> Array:
    """The sum over the last axis, which stays with size 1."""
    result: Array = v.sum(axis=-1, keepdims=True)
    return result


def mean(v: Array) -> Array:
    """The mean over the last axis, which stays with size 1."""
    result: Array = v.mean(axis=-1, keepdims=True)
    return result


def centred(v: Array) -> Array:
    """``v`` less its mean."""
    return v - mean(v)


def peak(v: Array) -> Array:
    """The largest element, or 0 where that is not finite, so that ``v - peak(v)`` is no difference of infinities."""
    largest = v.max(axis=-1, keepdims=True)
    return np.where(np.isfinite(largest), largest, 0.0)
