"""Gates that saturate and normalisers that are tiny: every way to compute a cell gives the same numbers there.

**Invariant**: ``forward``, the packed and the plain ``step``, and ``trace`` agree to 1e-12 in float64 and 4e-6 in float32,
beside the larger of 1 and the value, whatever the vectors among the parameters (biases, gains) between ±0.1 and ±40, but for
what the cell itself makes of half a dozen roundings of its arguments.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import Array, cell_from, cell_of, draw, generator, leaves, module_of

import cellspec
from cellspec.backends.dims import other_dims
from cellspec.cell import Cell
from cellspec.verification.sampling import Sample, pack

TOLERANCES = {np.float64: 1e-12, np.float32: 4e-6}
ROUNDINGS = 6
DRAWS = [(0.1, 0), (2.0, 0), (20.0, -1), (20.0, 0), (40.0, -1), (40.0, 1)]


def shifted(drawn: Sample, size: float, sign: int, seed: int = 7) -> Sample:
    """The same call with the vectors among the trainable parameters moved by ±size: all one way, or with signs at random."""
    rng = generator(seed)

    def shift(array: Array) -> Array:
        signs = np.full(array.shape, sign) if sign else rng.choice([-1, 1], size=array.shape)
        return (array + size * signs).astype(array.dtype) if array.ndim == 1 else array

    return dataclasses.replace(drawn, params={name: shift(array) for name, array in drawn.params.items()})


def rounded(drawn: Sample, unit: float, seed: int) -> Sample:
    """The same call with every argument moved by ``unit`` beside itself, up or down."""
    rng = generator(seed)

    def move(array: Array) -> Array:
        return array * (1 + unit * rng.choice([-1.0, 1.0], size=array.shape))

    def moved(arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: move(array) for name, array in arrays.items()}

    state = None if drawn.state is None else moved(drawn.state)
    return dataclasses.replace(drawn, params=moved(drawn.params), x=moved(drawn.x), state=state)


def wide(drawn: Sample) -> Sample:
    """The same call in float64."""

    def widen(arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: array.astype(np.float64) for name, array in arrays.items()}

    state = None if drawn.state is None else widen(drawn.state)
    return dataclasses.replace(drawn, dtype=np.dtype(np.float64), params=widen(drawn.params), x=widen(drawn.x), state=state)


def by_steps(module: Any, drawn: Sample, given: Any = None) -> list[Array]:
    """Outputs at every step, then the final states, step by step, with parameters ``given`` packed or as they are."""
    now, outputs = drawn.module_state(module), []
    for t in range(drawn.steps):
        x_t = pack(module, "Inputs", [stream[t] for stream in drawn.x.values()])
        y_t, now = module.step(drawn.module_params(module) if given is None else given, x_t, now)
        outputs.append(leaves(y_t))
    return [*(np.stack(steps) for steps in zip(*outputs, strict=True)), *leaves(now)]


def ways(cell: Cell, module: Any, drawn: Sample) -> dict[str, list[Array]]:
    """The same by each way to compute it."""
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, final, _ = module.forward(params, x, state)
    found = {"forward": [*leaves(y), *leaves(final)], "step": by_steps(module, drawn)}
    packed = module.pack(params, **{dim: drawn.dims[dim] for dim in other_dims(cell)})
    found["packed step"] = by_steps(module, drawn, packed)
    values = module.trace(params, x, state)
    found["trace"] = [
        np.asarray(values[ref.label.split("[")[0]]).reshape(array.shape)
        for ref, array in zip(cell.outputs, found["forward"], strict=False)
    ]
    return found


def agree(cell: Cell, module: Any, drawn: Sample) -> None:
    """Assert the invariant for one call. A value may leave the range, if it does so whatever the way."""
    dtype = drawn.dtype.type
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = ways(cell, module, drawn)
        right = by_steps(module, wide(drawn))
        unit = float(np.finfo(dtype).eps)
        moved = [by_steps(module, rounded(wide(drawn), unit, seed)) for seed in (11, 12, 13)]
        for way, arrays in found.items():
            for k, array in enumerate(arrays):
                spread = np.max([np.abs(one[k] - right[k]) for one in moved], axis=0)
                allowed = TOLERANCES[dtype] * np.maximum(1, np.abs(right[k])) + ROUNDINGS * spread
                error = np.abs(array.astype(np.float64) - found["step"][k])
                same = (error <= allowed) | (array == found["step"][k]) | (np.isnan(array) & np.isnan(found["step"][k]))
                assert same.all(), (
                    f"{way}, result {k}: off by {np.max(np.where(same, 0, error / allowed)):.2g} times what is allowed"
                )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_all_ways_agree_whatever_the_biases(path: Path, dtype: Any) -> None:
    cell, module, drawn = cell_of(path), module_of(path), draw(cell_of(path), dtype=dtype)
    for size, sign in DRAWS:
        agree(cell, module, shifted(drawn, size, sign))


GATES = """
name: gates
inputs: {{x: I}}
states: {{h: H}}
params: {{W: [H, I], U: [H, H], b: H}}
equations: |
  i = sigmoid(W @ x[t] + U @ h[t-1] + b)
  h[t] = {result}
"""

NORMALISED = [
    "i/sum(i)", "i/norm(i)", "cumsum(i)/mean(i)", "i/(1e-9 + sum(i))", "i*exp(-b)/10", "log(i)/50", "sqrt(i)/sum(sqrt(i))",
    "i**2/dot(i, i)", "roll(i, 1)/logsumexp(log(i))", "i/max(i, roll(i, 1))", "inv(eye(H)) @ (i/sum(i))", "softmax(log(i))",
    "where(i > 1e-12, 1, 0)", "(i - mean(i))/sqrt(var(i))", "(U @ i)/norm(i)", "tanh(log(1 - i)/50)",
    "U @ (outer(i, i) @ i)/norm(i)**3", "sign(i)*tanh(U @ h[t-1])", "relu(i)/sum(abs(i))", "1e15*i*tanh(U @ h[t-1])",
    "i*(i/sum(i))/norm(i)", "norm([i, 2*i])/i/20", "(eye(H) @ i)/sum(i)", "stop_gradient(i)/sum(i)",
]  # fmt: skip
"""Results that need a tiny gate to be accurate beside itself, by way of each kind of operation."""


@cache
def gates(result: str) -> tuple[Cell, ModuleType]:
    cell = cell_from(GATES.format(result=result))
    return cell, cellspec.build(cell)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("result", NORMALISED)
def test_a_tiny_gate_is_accurate_where_something_magnifies_it(result: str, dtype: Any) -> None:
    cell, module = gates(result)
    drawn = draw(cell, dtype=dtype)
    for bias in (-20.0, -27.0) if dtype is np.float32 else (-40.0, -200.0):  # cubes stay in range
        low = dataclasses.replace(drawn, params={**drawn.params, "b": (0.1 * drawn.params["b"] + bias).astype(dtype)})
        agree(cell, module, low)
        _, _, tape = module.forward(low.module_params(module), low.module_x(module), low.module_state(module))
        grads = module.backward(low.module_params(module), tape, *low.upstream(module))
        assert all(np.isfinite(array).all() for array in leaves(grads)), "gradients"
