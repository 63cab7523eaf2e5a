"""PyTorch's words for operations; those for primitives stand in their rows."""

from __future__ import annotations

from cellspec.backends.arrays.spelling import MATH, Spelling
from cellspec.model.primitives import column

TORCH = Spelling(
    functions=column("torch"),
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
