"""The language beyond vectors: specs of ``tests/valid_language`` against loops of NumPy that were written by hand.

The oracle evaluates the cell that the front end has made of the spec; what it is compared with reads the spec's equations anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Array, draw

from cellspec import oracle
from cellspec.elaborate import elaborate
from cellspec.loader import load_spec

FOLDER = Path(__file__).with_name("valid_language")

Values = dict[str, Any]
Step = Callable[[Values, Values, Values, int], tuple[Values, Values]]
"""(params, inputs of the step, states before it, its index) -> (states after it, other values to compare); of one sample."""


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def softmax(v: Array) -> Array:
    return np.exp(v) / np.exp(v).sum(-1, keepdims=True)


def total(v: Array) -> Array:
    return v.sum(-1, keepdims=True)


def logsumexp(v: Array) -> Array:
    return np.log(np.exp(v).sum(-1, keepdims=True))


def heads(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    N, D = p["b"].shape
    z = np.stack([p["W"][n] @ x["x"] + p["R"][n] @ s["h"][n] + p["b"][n] for n in range(N)])
    v = np.stack([np.tanh(p["V"][n] @ np.concatenate([z[n], x["q"][n]])) for n in range(N)])
    a = np.maximum(s["a"], logsumexp(z))
    w = softmax(z * p["s"])
    g = (s["g"] + p["G"]) / 2
    read = np.stack([s["g"][n] @ x["q"][n] + g[n] @ (p["P"].T @ np.cumsum(p["e"])) for n in range(N)])
    rotated = p["b"][:, [(j + 1) % D for j in range(D)]]
    h = w * v + rotated + np.exp(s["a"] - a) * np.cumsum(v, -1) + read
    y = total(h) * np.linalg.norm(p["b"], axis=-1, keepdims=True) + z.var(-1, keepdims=True) - total(v * p["b"]) / D
    return {"h": h, "a": a, "g": g}, {"z": z, "v": v, "w": w, "y": y}


def memory(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    q, k = p["Wq"] @ x["x"], softmax(p["Wk"] @ x["x"])
    v = p["Wv"] @ x["x"] - s["C"] @ k
    C = sigmoid(p["w"] @ x["x"]) * s["C"] + np.outer(v, k) + 0.1 * np.outer(p["one"], q) * p["G"]
    n = sigmoid(p["w"] @ x["x"]) * s["n"] + k
    S = s["S"] ** 2 / 2 + (C * p["G"]).sum(1)[:, None]
    y = (C * S) @ q / max(abs(n @ q), 1) + np.outer(v, q) @ k + (p["G"] - s["C"]) @ s["n"] + np.roll(C, 2, 1) @ q
    return {"C": C, "n": n, "S": S}, {"y": y + np.concatenate([p["G"], C], 1) @ np.concatenate([k, q])}


def cayley(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    H = len(p["b"])
    A, number = p["M"] - p["M"].T, np.cumsum(p["one"]) - 1
    Q = np.linalg.inv(np.eye(H) + A) @ (np.eye(H) - A)
    mask = np.array([[1 if number[i] * p["one"][j] < p["one"][i] * number[j] else 0.5 for j in range(H)] for i in range(H)])
    L = np.concatenate([mask * p["M"], np.outer(p["b"], p["b"])], 1)
    still = softmax(p["b"]) * np.sqrt((p["b"] ** 2).sum())
    return {"h": Q @ s["h"] + np.tanh(p["W"] @ x["x"] + still + L @ np.concatenate([s["h"], p["b"]]))}, {}


def clock(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    phase = t % 3
    n = s["n"] + x["dt"] * t
    inner = np.tanh(p["W"] @ (x["m"] * x["x"]) + p["b"] * p["k"] * t)
    h = (1 if phase < 1 else 0.5) * inner + np.exp(-np.abs(x["dt"])) * s["h"] + x["x"].sum()
    return {"h": h, "n": n}, {"phase": phase, "age": p["k"] * t}


STEPS: Mapping[str, Step] = {"heads": heads, "memory": memory, "cayley": cayley, "clock": clock}


def test_every_spec_has_its_loop() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(STEPS)


@pytest.mark.parametrize("default_state", [False, True], ids=["drawn", "default"])
@pytest.mark.parametrize("name", STEPS)
def test_the_cell_does_what_the_loop_does(name: str, default_state: bool) -> None:
    cell = elaborate(load_spec(FOLDER / f"{name}.yaml"))
    drawn = draw(cell, steps=7, batch=2, seed=5, default_state=default_state)
    found = oracle.forward(cell, drawn.params, drawn.x, drawn.state, dims=drawn.dims)
    shapes = {state.name: array.shape[1:] for state, array in zip(cell.states, found.final.values(), strict=True)}
    for sample in range(2):
        if drawn.state is None:
            state = {one.name: np.full(shapes[one.name], one.init) for one in cell.states}
        else:
            state = {name: array[sample] for name, array in drawn.state.items()}
        for t in range(7):
            state, values = STEPS[name](drawn.params, {key: array[t, sample] for key, array in drawn.x.items()}, state, t)
            for key, value in (state | values).items():
                np.testing.assert_allclose(found.values[key][t, sample], value, rtol=1e-12, atol=1e-12, err_msg=f"{key} {t}")
        for key, value in state.items():
            np.testing.assert_allclose(found.final[key][sample], value, rtol=1e-12, atol=1e-12)
