"""The functions of `cupy`, by the names that they have there."""

from __future__ import annotations

from typing import Any

from . import creation, reductions, ufuncs

PUBLIC: dict[str, Any] = {
    **ufuncs.NAMED,
    **{
        name: getattr(creation, name)
        for name in (
            "empty", "full", "zeros", "ones", "empty_like", "zeros_like", "ones_like", "eye", "arange", "array", "asarray",
            "ascontiguousarray", "asnumpy", "from_dlpack", "copyto", "concatenate", "stack", "broadcast_to", "roll",
        )
    },
    "clip": ufuncs.clip,
    "where": ufuncs.where,
    "outer": ufuncs.outer,
    "sum": reductions.total,
    "max": reductions.amax,
    "amax": reductions.amax,
    "min": reductions.amin,
    "amin": reductions.amin,
    "all": reductions.all_true,
    "any": reductions.one_true,
    "cumsum": reductions.cumsum,
    "matmul": reductions.matmul,
    "dot": reductions.dot,
}  # fmt: skip
