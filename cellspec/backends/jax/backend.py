"""The JAX backend, as the registry has it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from cellspec.backends.base import Backend
from cellspec.backends.frameworks.backend import ArrayBackend
from cellspec.backends.frameworks.module import Target
from cellspec.backends.jax.spelling import JAX

TARGET = Target(
    folder="jax",
    title="JAX",
    spelling=JAX,
    array="jax.Array",
    noun="a JAX array",
    xp="jnp",
    empty="jnp.empty(0)",
    diagonal="jnp.diagonal(r, axis1=-2, axis2=-1)",
    copy="copy()",
    differentiable="JAX takes its derivatives in reverse by the derived backward pass; forwards, take ``forward_plain``.",
    source="key: jax.Array",
    options="dtype: Any = jnp.float32",
    draws="{source}, dtype",
    standard=("from functools import partial",),
    seeded="``key`` is one of JAX's random keys",
)


def _bridge(module: ModuleType) -> Any:
    from cellspec.backends.jax.bridge import JaxBridge

    return JaxBridge(module)


BACKEND: Backend = ArrayBackend(TARGET, needs=("jax",), dtypes=("float64", "float32", "bfloat16", "float16"), bridge=_bridge)
