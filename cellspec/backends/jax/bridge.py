"""A JAX module over NumPy arrays, jitted, with the gradients that JAX takes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax

from cellspec.backends.frameworks.bridge import Bridge, mapped


class JaxBridge(Bridge):
    """The module where JAX puts it; in float64 too, whatever is set elsewhere."""

    def __init__(self, module: ModuleType, plain: bool = False) -> None:
        super().__init__(module, plain)
        self.jitted = {function: jax.jit(function) for function in (module.step, module.trace)}

    def array(self, value: Any) -> Any:
        return jax.numpy.asarray(value)

    def called(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with jax.enable_x64(True):
            jitted = self.jitted.get(function, function)
            if function is self.run:
                jitted = jax.jit(lambda *given: self.run(*given, **options))
                return mapped(self.numpy, jitted(*mapped(self.array, arguments)))
            return super().called(jitted, *arguments, **options)

    def backward(self, params: Any, tape: Any, dy: Any, dfinal: Any) -> Any:
        with jax.enable_x64(True):
            return super().backward(params, tape, dy, dfinal)

    def pulled(self, arguments: tuple[Any, ...], options: dict[str, Any], cotangents: Any) -> Any:
        def pull(arguments: Any, cotangents: Any) -> Any:
            _, pulled = jax.vjp(lambda *given: self.run(*given, **options), *arguments)
            return pulled(cotangents)

        return jax.jit(pull)(arguments, cotangents)
