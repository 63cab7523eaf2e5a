"""Compiled cell → the text of a JAX module."""

from __future__ import annotations

from cellspec.backends.arrays.module import Target, module_text
from cellspec.backends.jax.spelling import JAX
from cellspec.cell import Cell
from cellspec.errors import blamed
from cellspec.pipeline import compile_cell

TARGET = Target(
    folder="jax",
    title="JAX",
    spelling=JAX,
    names=("jax", "jnp", "partial", "key", "arguments", "kept", "cotangents"),
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
    seeded="``key`` is one of JAX's random keys",
)


def generate(cell: Cell, residuals: str = "speed") -> str:
    """The JAX module of ``cell``; ``residuals`` is one of :data:`cellspec.RESIDUALS`."""
    with blamed(f"cell {cell.name!r}"):
        return module_text(compile_cell(cell, residuals), TARGET)
