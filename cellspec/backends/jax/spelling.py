"""JAX's words for operations; those for primitives stand in their rows."""

from __future__ import annotations

from cellspec.backends.arrays.spelling import MATH, Spelling
from cellspec.model.primitives import column

JAX = Spelling(
    functions=column("jax"),
    numbers=MATH,
    operations={
        "infinity": "jnp.inf",
        "like": "{array}",
        "cast": "{value}.astype({dtype}.dtype)",
        "truth": "({value}) != 0",
        "number": "jnp.asarray({value}, {dtype}.dtype)",
        "where": "jnp.where({condition}, {yes}, {no})",
        "heads": 'jnp.einsum("nmk,...nk->...nm", {left}, {right})',
        "heads transposed": 'jnp.einsum("nkm,...nk->...nm", {left}, {right})',
        "outer": "jnp.outer({left}, {right})",
        "gradients": 'jnp.einsum("tbm,tbk->mk", {left}, {right})',
        "gradients of heads": 'jnp.einsum("tbnm,tbnk->nmk", {left}, {right})',
        "total": "{value}.sum((0, 1))",
        "concat": "jnp.concatenate(({parts}), {axis})",
        "split": "jnp.split({value}, [{ends}], {axis})",
        "stack": "jnp.stack(({parts},))",
        "eye": "jnp.eye({size}, dtype={dtype}.dtype)",
        "roll": "jnp.roll({value}, {shift}, -1)",
        "stop": "jax.lax.stop_gradient({value})",
        "inverse": "jnp.linalg.inv({value})",
        "largest": "_largest({value})",
        "cumsum": "jnp.cumsum({value}, -1)",
        "cumsum reversed": "jnp.cumsum({value}[..., ::-1], -1)[..., ::-1]",
        "sum": "jnp.sum({value}, {axes})",
        "sum kept": "jnp.sum({value}, {axes}, keepdims=True)",
        "full": "_full({value}, {shape}, {dtype})",
        "stretch": "jnp.broadcast_to({value}, {shape})",
        "zeros": "jnp.zeros_like({value})",
        "added": "{rows} = {rows}.at[{index}].add({value})",
    },
)
