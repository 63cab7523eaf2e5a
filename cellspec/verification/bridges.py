"""Modules of array libraries as :mod:`cellspec.verification.check` asks them: NumPy arrays in, NumPy arrays out.

A bridge has ``forward``, which leaves a tape, and ``backward``, for which the library takes the derivatives of its ``forward``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cached_property, wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cellspec.errors import CellspecError


def bridged(module: ModuleType, backend: str) -> Any:
    """``module``, which was made for ``backend``, as something that takes and gives NumPy arrays.

    Raises CellspecError if the library is not installed.
    """
    kinds: dict[str, type[_Bridge]] = {"numpy": _Bridge, "torch": _TorchBridge, "jax": _JaxBridge}
    return module if kinds[backend] is _Bridge else kinds[backend](module)


def needed(backend: str) -> None:
    """Raises CellspecError, one sentence, if a library that modules for ``backend`` import is not installed."""
    for library in {"torch": ("torch",), "jax": ("jax",)}.get(backend, ()):
        try:
            importlib.import_module(library)
        except ImportError:
            raise CellspecError(f"--backend {backend} needs {library}, which is not installed: pip install {library}") from None


class _Bridge:
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


class _TorchBridge(_Bridge):
    def array(self, value: Any) -> Any:
        import torch

        return torch.tensor(value)

    def numpy(self, value: Any) -> Any:
        return value.detach().numpy()

    def pulled(self, arguments: tuple[Any, ...], options: dict[str, Any], cotangents: Any) -> Any:
        import torch

        leaves: list[Any] = []

        def leaf(tensor: Any) -> Any:
            leaves.append(tensor.requires_grad_())
            return tensor

        y, final = self.run(*mapped(leaf, arguments), **options)
        pairs = [(r, d) for r, d in zip(flat((y, final)), flat(cotangents), strict=True) if r.requires_grad]
        results, given = zip(*pairs, strict=True)
        found = torch.autograd.grad(results, leaves, given, allow_unused=True)
        grads = iter([torch.zeros_like(at) if one is None else one for one, at in zip(found, leaves, strict=True)])
        return mapped(lambda _: next(grads), arguments)


class _JaxBridge(_Bridge):
    def __init__(self, module: ModuleType, plain: bool = False) -> None:
        import jax

        super().__init__(module, plain)
        self.jax = jax
        self.jitted = {function: jax.jit(function) for function in (module.step, module.trace)}

    def array(self, value: Any) -> Any:
        return self.jax.numpy.asarray(value)

    def called(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with self.jax.enable_x64(True):
            jitted = self.jitted.get(function, function)
            if function is self.run:
                jitted = self.jax.jit(lambda *given: self.run(*given, **options))
                return mapped(self.numpy, jitted(*mapped(self.array, arguments)))
            return super().called(jitted, *arguments, **options)

    def backward(self, params: Any, tape: Any, dy: Any, dfinal: Any) -> Any:
        with self.jax.enable_x64(True):
            return super().backward(params, tape, dy, dfinal)

    def pulled(self, arguments: tuple[Any, ...], options: dict[str, Any], cotangents: Any) -> Any:
        def pull(arguments: Any, cotangents: Any) -> Any:
            _, pulled = self.jax.vjp(lambda *given: self.run(*given, **options), *arguments)
            return pulled(cotangents)

        return self.jax.jit(pull)(arguments, cotangents)


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
