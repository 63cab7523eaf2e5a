"""Helpers of the tests of layers: modules by their cells' names, random arguments, gradients by differences."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from support import ROOT, Array, cell_of, leaves, module_of

import cellspec
from cellspec import layers
from cellspec.cell import Cell
from cellspec.layers import AnyLayer, tree_map
from cellspec.layers.trees import named

DIFFERENCE, TOLERANCE = 1e-5, 1e-6


def module(name: str) -> ModuleType:
    """The NumPy module of a shipped cell."""
    return module_of(ROOT / "specs" / f"{name}.yaml")


def shipped(name: str) -> Cell:
    """A shipped cell."""
    return cell_of(ROOT / "specs" / f"{name}.yaml")


@cache
def regularised(name: str, zoneout: tuple[str, ...] = (), state_dropout: tuple[str, ...] = ()) -> ModuleType:
    """The NumPy module of a shipped cell with masks for its states."""
    return cellspec.build(cellspec.regularise(shipped(name), zoneout=zoneout, state_dropout=state_dropout))


def layer(name: str, inputs: int, units: int, **options: Any) -> layers.Layer:
    """A layer of a shipped cell in float64."""
    return layers.Layer(module(name), I=inputs, H=units, dtype=options.pop("dtype", np.float64), **options)


def arguments(tested: AnyLayer, steps: int = 5, batch: int = 3, seed: int = 0) -> tuple[Any, Array, Any]:
    """Parameters, x and a state, all random: nothing is zero because it starts so."""
    rng = np.random.default_rng(seed)

    def near(value: Array) -> Array:
        noise: Array = rng.normal(0, 0.3, value.shape).astype(value.dtype)
        return value + noise

    params = tree_map(near, tested.init_params(rng))
    dtype = leaves(params)[0].dtype
    x = rng.normal(size=(steps, batch, tested.input_size)).astype(dtype)
    return params, x, tree_map(near, tested.init_state(params, batch))


def product(one: Any, other: Any) -> float:
    """The scalar product of two trees."""
    return sum(float((a * b).sum()) for a, b in zip(leaves(one), leaves(other), strict=True))


def check_gradients(
    tested: AnyLayer, *, own_state: bool = False, seed: int = 0, noise: int | None = None, steps: int = 5, **options: Any
) -> None:
    """Every array of the gradients against central differences along a random direction in it, in float64.

    ``noise`` is the seed of what is random in the layer, the same at every call; ``own_state`` leaves out the state.
    """
    params, x, state = arguments(tested, steps=steps, seed=seed)
    rng = np.random.default_rng(seed + 1)

    def run(params: Any, x: Any, state: Any) -> Any:
        random = None if noise is None else np.random.default_rng(noise)
        return tested.forward(params, x, None if own_state else state, rng=random, **options)

    y, final, tape = run(params, x, state)
    dy = rng.normal(size=y.shape)
    dfinal = tree_map(lambda value: rng.normal(size=value.shape), final)
    grads = tested.backward(params, tape, dy, dfinal)
    given = (params, x, state)
    moving = {name: array for name, array in named(given).items() if not (own_state and name.startswith("2."))}
    for name, gradient in named(tuple(grads)).items():
        if name not in moving:
            continue
        direction = rng.normal(size=gradient.shape)

        def loss(distance: float, name: str = name, direction: Array = direction) -> float:
            moved = {key: array + distance * direction if key == name else array for key, array in named(given).items()}
            around = layers.trees.rebuilt(given, list(moved.values()))
            y, final, _ = run(*around)
            return product(y, dy) + product(final, dfinal)

        numeric = (loss(DIFFERENCE) - loss(-DIFFERENCE)) / (2 * DIFFERENCE)
        scale = float(np.abs(gradient * direction).sum())
        assert abs(numeric - float((gradient * direction).sum())) <= TOLERANCE * max(scale, 1e-2), name
