"""How an array library spells operations and primitives: the one thing that functional code of two libraries differs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """A library's words.

    ``functions`` spell primitives: ``torch.relu({0})``, with the arguments numbered and ``{all}`` for all of them. A function
    whose name starts with ``_`` is the module's own. A primitive without a spelling is written as its row defines it by ufuncs.
    ``numbers`` spell primitives of Python numbers, as dims are; without them the array function's result is made one.
    ``operations`` spell operations and what they need, by the names used in :mod:`cellspec.backends.arrays.functional`.
    """

    functions: Mapping[str, str]
    numbers: Mapping[str, str]
    operations: Mapping[str, str]

    def operation(self, name: str, **parts: object) -> str:
        """The text of an operation made of ``parts``."""
        return self.operations[name].format(**parts)


NUMPY = Spelling(
    functions={
        **{
            name: f"np.{name}({{all}})"
            for name in ("tanh", "exp", "log", "sqrt", "sin", "cos", "abs", "sign", "floor", "expm1")
        },
        **{name: f"np.{name}({{all}})" for name in ("logaddexp", "maximum", "minimum", "reciprocal")},
        **{name: f"_{name}({{all}})" for name in ("sigmoid", "gelu", "silu", "softsign", "erf", "erfc", "elu")},
        "max": "np.maximum({all})",
        "min": "np.minimum({all})",
        "mod": "np.mod({all})",
        "relu": "np.maximum({all}, 0)",
        "lt": "np.less({all})",
        "le": "np.less_equal({all})",
        "gt": "np.greater({all})",
        "ge": "np.greater_equal({all})",
        "eq": "np.equal({all})",
        "ne": "np.not_equal({all})",
    },
    numbers={},
    operations={
        "infinity": "np.inf",
        "like": "{array}.dtype",  # what tells functions that make arrays which kind to make
        "cast": "{value}.astype({dtype})",  # the sum of two truths is no 2
        "truth": "np.asarray({value}) != 0",
        "number": "{dtype}.type({value})",
        "where": "np.where({condition}, {yes}, {no})",
        "heads": "({left} @ {right}[..., None])[..., 0]",
        "heads transposed": "({left}.transpose(0, 2, 1) @ {right}[..., None])[..., 0]",
        "outer": "np.outer({left}, {right})",
        "concat": "np.concatenate(({parts}), axis={axis})",
        "stack": "np.stack(({parts},))",
        "eye": "np.eye({size}, dtype={dtype})",
        "roll": "np.roll({value}, {shift}, axis=-1)",
        "stop": "{value}",
        "inverse": "np.linalg.inv({value})",
        "largest": "_largest({value}, axis=-1)",
        "cumsum": "np.cumsum({value}, axis=-1)",
        "cumsum reversed": "np.cumsum({value}[..., ::-1], axis=-1)[..., ::-1]",
        "sum": "np.sum({value}, axis={axes})",
        "sum kept": "np.sum({value}, axis={axes}, keepdims=True)",
        "full": "np.full({shape}, {value}, {dtype})",
        "stretch": "np.broadcast_to({value}, {shape})",
    },
)
