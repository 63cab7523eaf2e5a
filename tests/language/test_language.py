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
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import load_spec

FOLDER = Path(__file__).parents[1] / "valid_language"

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
    step = s["t_now"]
    phase = step % 3
    n = s["n"] + x["dt"] * step
    inner = np.tanh(p["W"] @ (x["m"] * x["x"]) + p["b"] * p["k"] * step)
    h = (1 if phase < 1 else 0.5) * inner + np.exp(-np.abs(x["dt"])) * s["h"] + x["x"].sum()
    return {"h": h, "n": n, "t_now": step + 1}, {"phase": phase, "age": p["k"] * step}


def dilated(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    h = np.tanh(p["U"] @ s["h_lag4"] + p["W"] @ x["x"] + p["V"] @ s["x_lag3"] + s["h_lag2"]) + p["a"] * s["p"]
    now = {"h": h, "p": p["a"] * s["p_lag3"] + s["m_lag2"] + x["m"]}
    now["g"] = 0.5 * s["g_lag2"] + np.outer(p["one"], p["W"] @ x["x"])
    for name in ("h_lag4", "h_lag3", "h_lag2", "p_lag3", "p_lag2", "g_lag2"):
        base, back = name.split("_lag")
        now[name] = s[f"{base}_lag{int(back) - 1}"] if back != "2" else s[base]
    now |= {"x_lag1": x["x"], "x_lag2": s["x_lag1"], "x_lag3": s["x_lag2"], "m_lag1": x["m"], "m_lag2": s["m_lag1"]}
    return now, {}


def depth(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    H = len(s["h"])
    first = np.tanh(p["W"] @ x["x"] + p["R"][0] @ s["h"])
    second = np.tanh(p["R"][1] @ first + p["b"][1])
    third = np.tanh(p["R"][2] @ second + 2 * p["b"][2]) + s["g"]
    P1 = np.eye(H) * 0.5 @ p["U"][0] * 0.5
    P2 = P1 @ p["U"][1] * 0.5
    m4, m5 = np.sin(P1 @ first + s["h"]), np.sin(P2 @ first + s["h_lag2"])
    m8 = np.sin(P2 @ second + s["h_lag2"])
    a1 = m5 / 2
    a2 = a1 + m8 / 9
    y = np.concatenate([a2, s["x_lag4"], p["U"][3] @ a1])
    h = third + first.sum() + x["x"].sum() + 0.25 * m5
    w = np.array([[(p["q"][0][n] @ a2 - p["q"][1][n] @ first).sum()] for n in range(2)])
    now = {"h": h, "g": a2 / 2, "h_lag2": s["h"]}
    now |= {"x_lag1": x["x"], **{f"x_lag{k}": s[f"x_lag{k - 1}"] for k in (2, 3, 4)}}
    return now, {"s[2]": second, "s[3]": third, "m[4]": m4, "m[8]": m8, "a[2]": a2, "y": y, "w": w}


def normed(p: Values, x: Values, s: Values, t: int) -> tuple[Values, Values]:
    def ln(v: Array, scale: Array, bias: Array) -> Array:
        return scale * (v - v.mean()) / np.sqrt(v.var() + 0.01) + bias

    a0 = ln(p["W"] @ x["x"], p["s"], p["gain"])
    a1 = np.tanh(p["U"][0] @ a0) + 0.1 * s["h"]
    a2 = np.tanh(p["U"][1] @ a1) + 0.1 * s["h"] ** 2
    chosen = np.where(x["x"] > 0, x["x"], 1 / 3)
    v = chosen - chosen.mean()
    h = ln(a2, p["gain"], p["s"]) + 0.1 * (p["gain"] * s["h_lag3"] + p["s"]) + len(a1) * a1
    now = {"h": h + np.roll(p["s"] / 3, 1) + p["W"] @ s["x_lag2"], "n": s["n"] + v.sum() ** 2}
    return now | {"h_lag2": s["h"], "h_lag3": s["h_lag2"], "x_lag1": x["x"], "x_lag2": s["x_lag1"]}, {"a[0]": a0, "v": v}


STEPS: Mapping[str, Step] = {step.__name__: step for step in (heads, memory, cayley, clock, dilated, depth, normed)}


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


def test_lags_begin_with_the_initial_state_and_zero_inputs() -> None:
    cell = elaborate(load_spec(FOLDER / "dilated.yaml"))
    drawn = draw(cell, steps=9, batch=1, seed=6, default_state=True)
    found = oracle.forward(cell, drawn.params, drawn.x, None, dims=drawn.dims)
    p, x, m = drawn.params, drawn.x["x"][:, 0], drawn.x["m"][:, 0]
    h: dict[int, Array] = {t: np.full(len(p["a"]), 0.25) for t in range(-4, 0)}
    q: dict[int, Array] = {t: np.zeros(len(p["a"])) for t in range(-4, 0)}
    for t in range(9):
        earlier = x[t - 3] if t >= 3 else 0 * x[0]
        h[t] = np.tanh(p["U"] @ h[t - 4] + p["W"] @ x[t] + p["V"] @ earlier + h[t - 2]) + p["a"] * q[t - 1]
        q[t] = p["a"] * q[t - 3] + (m[t - 2] if t >= 2 else 0) + m[t]
        np.testing.assert_allclose(found.values["h"][t, 0], h[t], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.values["p"][t, 0], q[t], rtol=1e-12, atol=1e-13)


def test_lags_become_states_after_the_spec_s_own() -> None:
    cell = elaborate(load_spec(FOLDER / "dilated.yaml"))
    expected = ["h", "p", "g", "h_lag2", "h_lag3", "h_lag4", "p_lag2", "p_lag3", "g_lag2"]
    assert [state.name for state in cell.states] == [*expected, "x_lag1", "x_lag2", "x_lag3", "m_lag1", "m_lag2"]
    assert [state.lag_of for state in cell.states[3:6]] == [("h", 2), ("h", 3), ("h", 4)]
    assert [state.init for state in cell.states[3:7]] == [0.25] * 3 + [0.0]
    texts = {equation.target.name: (equation.text, equation.at.line) for equation in cell.assignments}
    assert texts["h_lag2"] == ("h_lag2[t] = h[t-1]", 15) and texts["h_lag3"][0] == "h_lag3[t] = h_lag2[t-1]"
    assert texts["x_lag1"][0] == "x_lag1[t] = x[t]" and texts["x_lag2"][0] == "x_lag2[t] = x_lag1[t-1]"
