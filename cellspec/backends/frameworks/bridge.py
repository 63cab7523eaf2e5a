"""Modules of array libraries as ``cellspec verify`` asks them: NumPy arrays in, NumPy arrays out.

A bridge has ``forward``, which leaves a tape, and ``backward``, for which the library takes the derivatives of its ``forward``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class Bridge:
    """What bridges have in common; ``plain`` for the module's ``forward_plain``."""

    def __init__(self, module: ModuleType, plain: bool = False) -> None:
        self.module = module
        self.run: Callable[..., Any] = module.forward_plain if plain else module.forward
        for kind in ("Params", "State", "Inputs", "Outputs"):
            if hasattr(module, kind):
                setattr(self, kind, getattr(module, kind))

    def array(self, value: Any) -> Any:
        """A NumPy array as the library's."""
        raise NotImplementedError

    def numpy(self, value: Any) -> Any:
        """The library's array as NumPy's."""
        return np.asarray(value)

    def pulled(self, arguments: tuple[Any, ...], options: dict[str, Any], cotangents: Any) -> Any:
        """The gradients of ``arguments``."""
        raise NotImplementedError

    def called(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What ``function`` gives for NumPy arrays, in NumPy arrays."""
        return mapped(self.numpy, function(*mapped(self.array, arguments), **options))

    def forward(
        self, params: Any, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None, reverse: bool = False
    ) -> tuple[Any, Any, Any]:
        options = {"lengths": lengths, "resets": resets, "reverse": reverse}
        y, final = self.called(self.run, params, x, state, **options)
        if state is None:
            state = self.init_state(params, batch=(x[0] if isinstance(x, tuple) else x).shape[1])
        return y, final, ((params, x, state), options)

    def backward(self, params: Any, tape: Any, dy: Any, dfinal: Any) -> Any:
        arguments, options = tape
        grads = self.pulled(mapped(self.array, arguments), options, mapped(self.array, (dy, dfinal)))
        return SimpleNamespace(**dict(zip(("params", "x", "state"), mapped(self.numpy, grads), strict=True)))

    @cached_property
    def init_state(self) -> Callable[..., Any]:
        made = self.module.init_state

        @wraps(made)
        def init_state(params: Any, batch: int, **dims: int) -> Any:
            return self.called(made, params, batch=batch, **dims)

        return init_state

    def step(self, params: Any, x_t: Any, state: Any) -> Any:
        return self.called(self.module.step, params, x_t, state)

    def trace(self, params: Any, x: Any, state: Any = None) -> Any:
        return self.called(self.module.trace, params, x, state)


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """``tree``, tuples within tuples or a dictionary, with ``function`` of its arrays in place of them."""
    if isinstance(tree, tuple):
        parts = [mapped(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if isinstance(tree, dict):
        return {name: mapped(function, part) for name, part in tree.items()}
    return function(tree) if hasattr(tree, "shape") else tree


def flat(tree: Any) -> list[Any]:
    """The arrays of tuples within tuples, from left to right."""
    return [leaf for part in tree for leaf in flat(part)] if isinstance(tree, tuple) else [tree]
