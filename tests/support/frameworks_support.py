"""What tests of PyTorch's and JAX's modules share: which cells, and calls of their modules as ``verify`` makes them."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import ROOT, Array, cell_from, cell_of

import cellspec
from cellspec.backends import registry
from cellspec.cell import Cell
from cellspec.verification.sampling import Sample

FAR = """name: far
inputs: {x: I, m: 1}
states: {h: {shape: H, init: 0.25}, g: [2, H]}
outputs: [h, g]
params: {W: [H, I], U: [H, H], a: H}
equations: |
  i = W @ x[t] + W @ x[t-6]
  h[t] = tanh(U @ h[t-5] + i + a*h[t-2]) + 0.5*h[t-1]*m[t-1] + 0.01*t_now
  g[t] = 0.5*g[t-7] + outer([1*m[t], m[t-5]], U @ h[t-1])
"""
"""Lags of all kinds: of states and inputs, near and far, and the step's index."""

SAMPLE = ("lstm", "gru_before", "mlstm_xlstm", "slstm", "scornn", "clockwork", "qrnn_fo", "cfc", "skip_gru", "far")
"""Matrix states, heads, derived parameters, an inverse, lags, several inputs and outputs."""

FEW = ("lstm", "mlstm_xlstm", "scornn", "far")
SOME = [pytest.param(name, marks=[pytest.mark.slow] if name not in FEW else []) for name in SAMPLE]
"""The sample, of which few cells are tried each time."""


@cache
def cell(name: str) -> Cell:
    return cell_from(FAR) if name == "far" else cell_of(ROOT / "specs" / f"{name}.yaml")


@cache
def module(name: str, backend: str, residuals: str = "speed") -> ModuleType:
    return cellspec.build(cell(name), backend, residuals=residuals)


def bridge(name: str, backend: str, residuals: str = "speed", plain: bool = False) -> Any:
    """The module over NumPy arrays; ``plain`` with its ``forward_plain`` in place of ``forward``."""
    made = registry.backend(backend).on_host(module(name, backend, residuals))
    return type(made)(made.module, plain) if plain else made


def masks(steps: int, batch: int, seed: int = 0) -> dict[str, Any]:
    """Samples of all lengths, the first of none, the second of all steps; resets, the first before the first step; reversed."""
    rng = np.random.default_rng(seed)
    lengths = np.array([0, steps, *rng.integers(1, steps, batch - 2)])
    resets: Array = rng.random((steps, batch)) < 0.25
    resets[0, 1] = True
    return {"lengths": lengths, "resets": resets, "reverse": True}


def everything(made: Any, drawn: Sample, given: dict[str, Any]) -> tuple[Any, ...]:
    """Outputs, final states and every gradient of a call with masks."""
    params, x, state = drawn.module_params(made), drawn.module_x(made), drawn.module_state(made)
    y, final, tape = made.forward(params, x, state, **given)
    grads = made.backward(params, tape, *drawn.upstream(made))
    return y, final, grads.params, grads.x, grads.state
