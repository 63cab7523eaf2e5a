"""What tests of facts share: the committed modules of shipped cells, calls of them, and the comparison of two calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from support import ROOT, Array, cell_of, draw, leaves

import cellspec
from cellspec.verification.sampling import pack

BIG = 1000.0
"""A pre-activation at which the logistic function is 1, and at its negative 0, exactly."""


@cache
def shipped(name: str) -> ModuleType:
    """The committed NumPy module of a shipped cell."""
    spec = importlib.util.spec_from_file_location(f"{name}_numpy", ROOT / "generated" / f"{name}_numpy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def changed(name: str, **settings: Any) -> ModuleType:
    """The module of a shipped cell with other hyperparameters or activations."""
    return cellspec.build(cellspec.load(name, {key: str(value) for key, value in settings.items()}))


@dataclass(frozen=True)
class Call:
    """A module and what it is given: parameters, inputs and initial states by name."""

    module: ModuleType
    params: Mapping[str, Array]
    x: Mapping[str, Array]
    state: Mapping[str, Array]

    def of(self, module: ModuleType | str, params: Mapping[str, Array] | None = None, **state: Array) -> Call:
        """The call of another module with the same inputs; with the same parameters and states unless others are given."""
        chosen = shipped(module) if isinstance(module, str) else module
        return replace(self, module=chosen, params=self.params if params is None else params, state=state or self.state)

    def changing(self, **params: Array) -> Call:
        """The same call with some parameters exchanged."""
        assert set(params) <= set(self.params), "no such parameter"
        return replace(self, params={**self.params, **params})

    def zeroing(self, *names: str) -> Call:
        """The same call with some parameters zero."""
        return self.changing(**{name: np.zeros_like(self.params[name]) for name in names})

    def saturating(self, *names: str, by: float = BIG) -> Call:
        """The same call with some parameters, biases of gates, so large that the gates are open."""
        return self.changing(**{name: np.full_like(self.params[name], by) for name in names})

    def arguments(self) -> tuple[Any, Any, Any]:
        """Parameters, inputs and states as the module takes them."""
        module: Any = self.module
        assert set(self.params) == set(module.Params._fields), "parameters are missing or left over"
        streams = getattr(module, "Inputs", None)
        x = [self.x[name] for name in (streams._fields if streams else ("x",))]
        return module.Params(**self.params), pack(module, "Inputs", x), module.State(**self.state)

    def trace(self) -> dict[str, Array]:
        """The value of every equation."""
        found: dict[str, Array] = self.module.trace(*self.arguments())
        return found

    def result(self) -> tuple[list[Array], Array]:
        """The outputs, and the gradient by the input ``x`` for fixed random gradients by the outputs."""
        params, x, state = self.arguments()
        y, _, tape = self.module.forward(params, x, state)
        rng = np.random.default_rng(8)
        dy = [rng.normal(size=array.shape) for array in leaves(y)]
        grads: Any = self.module.backward(params, tape, pack(self.module, "Outputs", dy))
        return leaves(y), grads.x if isinstance(grads.x, np.ndarray) else grads.x.x


def drawn(name: str, steps: int = 6, seed: int = 5) -> Call:
    """Random arguments for a shipped cell."""
    sample = draw(cell_of(ROOT / "specs" / f"{name}.yaml"), steps=steps, batch=2, seed=seed)
    return Call(shipped(name), sample.params, sample.x, dict(sample.state or {}))


def same(one: Call, other: Call, tolerance: float = 1e-11) -> None:
    """Both calls give the same outputs and the same gradient by ``x``."""
    (y, dx), (z, dz) = one.result(), other.result()
    for a, b in zip([*y, dx], [*z, dz], strict=True):
        near(a, b, tolerance)


def same_values(one: Call, other: Call, pairs: Sequence[tuple[str, str]]) -> None:
    """Some values of one call are some values of the other."""
    a, b = one.trace(), other.trace()
    for mine, yours in pairs:
        near(a[mine], b[yours])


def near(one: Array, other: Array, tolerance: float = 1e-11) -> None:
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(other).max(initial=0.0))))


def diagonal(vector: Array) -> Array:
    return np.diag(vector)
