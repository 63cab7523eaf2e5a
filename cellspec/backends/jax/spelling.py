"""JAX's words for operations and primitives."""

from __future__ import annotations

from cellspec.backends.arrays.spelling import COMPARED, MATH, Spelling

JAX = Spelling(
    functions={
        **COMPARED,
        **{
            name: f"jnp.{name}({{0}})" for name in ("tanh", "exp", "expm1", "log", "sqrt", "sin", "cos", "abs", "sign", "floor")
        },
        **{name: f"jax.nn.{name}({{0}})" for name in ("sigmoid", "relu", "elu", "silu", "leaky_relu", "softplus")},
        "erf": "jax.scipy.special.erf({0})",
        "erfc": "jax.scipy.special.erfc({0})",
        "gauss": "jnp.exp(-jnp.square({0}))",
        "logsigmoid": "jax.nn.log_sigmoid({0})",
        "softsign": "jax.nn.soft_sign({0})",
        "gelu": "_gelu({0})",
        "hard_sigmoid": "jax.nn.hard_sigmoid({0})",
        "hard_tanh": "jax.nn.hard_tanh({0})",
        "max": "jnp.maximum({all})",
        "min": "jnp.minimum({all})",
        "clip": "jnp.minimum(jnp.maximum({0}, {1}), {2})",
        "mod": "jnp.remainder({all})",
    },
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
        "split": "jnp.split({value}, ({ends},), {axis})",
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
