"""PyTorch's words for operations and primitives."""

from __future__ import annotations

from cellspec.backends.arrays.spelling import COMPARED, MATH, Spelling

TORCH = Spelling(
    functions={
        **COMPARED,
        **{name: f"torch.{name}({{0}})" for name in ("tanh", "exp", "expm1", "log", "sqrt", "sin", "cos", "sigmoid", "relu")},
        **{name: f"torch.{name}({{0}})" for name in ("abs", "sign", "floor", "erf", "erfc")},
        **{name: f"functional.{name}({{0}})" for name in ("elu", "silu", "softsign", "leaky_relu", "logsigmoid")},
        "gauss": "torch.exp(-torch.square({0}))",
        "softplus": "-functional.logsigmoid(-({0}))",  # functional.softplus is the identity from 20 on
        "gelu": "_gelu({0})",
        "hard_sigmoid": "functional.hardsigmoid({0})",
        "hard_tanh": "functional.hardtanh({0})",
        "max": "_maximum({all})",
        "min": "_minimum({all})",
        "clip": "_minimum(_maximum({0}, {1}), {2})",
        "mod": "torch.remainder({all})",
    },
    numbers=MATH,
    operations={
        "infinity": "math.inf",
        "like": "{array}",
        "cast": "{value}.to({dtype})",
        "truth": "({value}) != 0",
        "number": "torch.as_tensor({value}).to({dtype})",
        "where": "torch.where({condition}, {yes}, {no})",
        "heads": 'torch.einsum("nmk,...nk->...nm", {left}, {right})',
        "heads transposed": 'torch.einsum("nkm,...nk->...nm", {left}, {right})',
        "outer": "torch.outer({left}, {right})",
        "gradients": 'torch.einsum("tbm,tbk->mk", {left}, {right})',
        "gradients of heads": 'torch.einsum("tbnm,tbnk->nmk", {left}, {right})',
        "total": "{value}.sum((0, 1))",
        "concat": "torch.cat(({parts}), {axis})",
        "split": "torch.split({value}, ({sizes}), {axis})",
        "stack": "torch.stack(({parts},))",
        "eye": "torch.eye({size}).to({dtype})",
        "roll": "torch.roll({value}, {shift}, -1)",
        "stop": "{value}.detach()",
        "inverse": "torch.linalg.inv({value})",
        "largest": "_largest({value})",
        "cumsum": "torch.cumsum({value}, -1)",
        "cumsum reversed": "torch.cumsum({value}.flip(-1), -1).flip(-1)",
        "sum": "torch.sum({value}, {axes})",
        "sum kept": "torch.sum({value}, {axes}, keepdim=True)",
        "full": "_full({value}, {shape}, {dtype})",
        "stretch": "{value}.expand({shape})",
        "zeros": "torch.zeros_like({value})",
        "added": "{rows}[{index}] += {value}",
    },
)
