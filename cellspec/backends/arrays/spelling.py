"""How an array library spells operations and primitives: the one thing that functional code of two libraries differs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cellspec.model.primitives import COMPARISONS, column
from cellspec.model.spelling import Spelling as Function
from cellspec.model.spelling import called


@dataclass(frozen=True)
class Spelling:
    """A library's words.

    ``functions`` spell primitives; one whose name starts with ``_`` is the module's own. A primitive without a spelling is
    written as its row makes it of ufuncs.
    ``numbers`` spell primitives of Python numbers, as dims are; without them the array function's result is made one.
    ``operations`` spell operations and what they need, by the names used in :mod:`cellspec.backends.arrays.functional`.
    """

    functions: Mapping[str, Function]
    numbers: Mapping[str, str]
    operations: Mapping[str, str]

    def operation(self, name: str, **parts: object) -> str:
        """The text of an operation made of ``parts``."""
        return self.operations[name].format(**parts)


@cache
def own_functions(spelled: str) -> frozenset[str]:
    """The functions of a module's own that a spelling calls, without the ``_`` in front."""
    return frozenset(name[1:] for name in called(spelled) if name[0] == "_" and "." not in name)


NUMPY = Spelling(
    functions=column("numpy"),
    numbers={},
    operations={
        "infinity": "np.inf",
        "ufunc": "np.{function}({args})",
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

MATH = {
    **{name: f"math.{name}({{all}})" for name in ("tanh", "exp", "expm1", "log", "sqrt", "sin", "cos", "erf", "erfc")},
    **{name: f"float({{0}} {operator} {{1}})" for operator, name in COMPARISONS.items()},
    "floor": "float(math.floor({0}))",
    "abs": "abs({0})",
    "sign": "float(({0} > 0) - ({0} < 0))",
    "max": "max({all})",
    "maximum": "max({all})",
    "min": "min({all})",
    "minimum": "min({all})",
    "mod": "({0}) % ({1})",
    "remainder": "({0}) % ({1})",
    "logaddexp": "(max({0}, {1}) + math.log1p(math.exp(-abs(({0}) - ({1})))))",
    "where": "({1} if ({0}) != 0 else {2})",
}
"""Primitives of Python numbers."""
