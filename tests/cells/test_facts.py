"""Numbers that others have published, bounds, and Jacobians in closed form, through the committed NumPy modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fact_support import shipped
from support import SHIPPED, Array, cell_of

# --- golden values -----------------------------------------------------------------------------------------


def first_step(
    name: str, x: float, state: dict[str, list[float]] | None = None, inputs: int = 2, **biases: float
) -> dict[str, Array]:
    """Every value of one step with H = 2, weights 0.5, biases 0 but for ``biases``, and states 0.1."""
    module: Any = shipped(name)
    dims = {dim: 2 for dim in module.DIMS} | {"I": inputs}
    shapes = {name: array.shape for name, array in module.init_params(np.random.default_rng(0), **dims)._asdict().items()}
    params = {name: np.full(shape, float(biases.get(name, 0.5 if len(shape) > 1 else 0.0))) for name, shape in shapes.items()}
    start = {name: np.array([values], dtype=float) for name, values in (state or {}).items()}
    filled = module.State(*(start.get(name, np.full((1, 2), 0.1)) for name in module.State._fields))
    found = module.trace(module.Params(**params), np.full((1, 1, inputs), float(x)), filled)
    return {name: value[0, 0] for name, value in found.items()}


def published(value: Array, number: float | Array, digits: int) -> None:
    """``value``, of every unit, is ``number`` as far as it was printed and computed, in float32."""
    assert (np.abs(value - number) <= 0.5 * 10.0**-digits + 2.0**-22 * np.abs(number)).all()


@pytest.mark.parametrize(("inputs", "h"), [(2, 0.175991), (3, 0.156736)])
def test_golden_gru(inputs: int, h: float) -> None:
    published(first_step("gru_before", 1, inputs=inputs, br=1, bu=1)["h"], h, 6)


def test_golden_lstm() -> None:
    values = first_step("lstm", 1, bf=1)
    published(values["c"], 0.68967271, 8)
    published(values["h"], 0.44848421, 8)


@pytest.mark.parametrize(("x", "h"), [(1, 0.121753), (2, 0.103349), (3, 0.100178)])
def test_golden_coupled_lstm(x: float, h: float) -> None:
    published(first_step("cifg", x, inputs=4, bf=1)["h"], h, 6)


@pytest.mark.parametrize(("x", "h"), [(1, 0.13752282), (2, 0.10545051), (3, 0.10074195)])
def test_golden_ugrnn(x: float, h: float) -> None:
    published(first_step("ugrnn", x, inputs=4, bg=1)["h"], h, 8)


def test_golden_sru() -> None:
    published(first_step("sru_v1", 1)["h"], 0.509682, 6)


def test_golden_layer_norm_lstm() -> None:
    ones = {name: 1.0 for name in ("si", "sf", "sg", "so", "sc")}
    values = first_step("ln_lstm", 1, {"c": [0, 0.1], "h": [0.2, 0.3]}, **ones)
    published(values["c"], np.array([-1.0, 1.0]), 8)
    published(values["h"], np.array([-0.38079708, 0.38079708]), 8)


# --- bounds ------------------------------------------------------------------------------------------------

BOUNDED = [path for path in SHIPPED if cell_of(path).expect.bound]


@pytest.mark.parametrize("path", BOUNDED, ids=lambda path: path.stem)
def test_bounds_hold_over_a_thousand_steps(path: Path) -> None:
    """With weights of size 3, under inputs of size 0.1, 1 and 10, from the spec's initial state."""
    cell, module = cell_of(path), shipped(path.stem)
    rng = np.random.default_rng(4)
    start = module.init_params(rng, **{dim: 4 + k for k, dim in enumerate(cell.dims)})
    weights = {
        param.name: array if not param.trainable else 3 * rng.normal(size=array.shape)
        for param, array in zip(cell.params, start, strict=True)
    }
    sizes = dict(zip(cell.dims, range(4, 20), strict=False))
    scales = np.array([0.1, 1.0, 10.0])
    streams = []
    for stream in cell.inputs:
        shape = tuple(int(axis.subs(sizes)) for axis in stream.shape)
        streams.append(rng.normal(size=(1000, 3, *shape)) * scales.reshape(3, *(1 for _ in shape)))
    x = streams[0] if len(streams) == 1 else module.Inputs(*streams)
    values = module.trace(module.Params(**weights), x)
    for name, bound, _ in cell.expect.bound:
        assert np.abs(values[name]).max() <= bound + 1e-12, name


def test_bounds_are_those_of_the_papers() -> None:
    """What is a mean of bounded candidates, or squashed last, says so."""
    named = {path.stem for path in BOUNDED}
    assert {"lstm", "gru", "mgu", "ugrnn", "janet", "lem", "slstm", "elstm", "qrnn_f", "minimalrnn", "cfn"} <= named
    assert not {"irnn", "indrnn", "noaf", "atr", "antisymmetric", "qrnn_ifo"} & named


# --- Jacobians ---------------------------------------------------------------------------------------------

H = 7


class Step:
    """One random step of a cell, and its Jacobians through ``backward``: a sample for each unit, with a unit cotangent."""

    def __init__(self, name: str) -> None:
        module: Any = shipped(name)
        rng = np.random.default_rng(7)
        shapes = [array.shape for array in module.init_params(rng, I=5, H=H)]
        self.params = module.Params(*(rng.normal(size=shape) / max(1, len(shape) - 1) for shape in shapes))
        self.p = self.params._asdict()
        self.x = rng.normal(size=5)
        self.before = {state: rng.normal(size=H) for state in module.State._fields}
        self.module = module
        x = np.tile(self.x, (1, H, 1))
        self.state = module.State(*(np.tile(value, (H, 1)) for value in self.before.values()))
        self.values = {name: value[0, 0] for name, value in module.trace(self.params, x, self.state).items()}
        self.y, _, self.tape = module.forward(self.params, x, self.state)

    def jacobian(self, of: str) -> dict[str, Array]:
        """The derivatives of the state ``of`` by each earlier state and by x, ``[H, n]``."""
        zeros = {name: np.zeros((H, H)) for name in self.before}
        grads = self.module.backward(
            self.params, self.tape, np.zeros_like(self.y), self.module.State(**zeros | {of: np.eye(H)})
        )
        return grads.state._asdict() | {"x": grads.x[0]}


def rows(factors: Array, matrix: Array) -> Array:
    """diag(factors) @ matrix."""
    return factors[:, None] * matrix


def check(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_jacobian_of_elman() -> None:
    step = Step("elman")
    slope = 1 - step.values["h"] ** 2
    found = step.jacobian("h")
    check(found["h"], rows(slope, step.p["U"]))
    check(found["x"], rows(slope, step.p["W"]))


@pytest.mark.parametrize("name", ["lstm", "peephole"])
def test_jacobian_of_lstm(name: str) -> None:
    """The carousel's own entry is f; peepholes add to it, and to the slope of the output in c."""
    step = Step(name)
    p, v, c0 = step.p, step.values, step.before["c"]
    i, f, g, o, tc = v["i"], v["f"], v["g"], v["o"], np.tanh(v["c"])
    slopes = {"i": g * i * (1 - i), "f": c0 * f * (1 - f), "g": i * (1 - g**2)}
    peep = {gate: p.get(f"p{gate}", np.zeros(H)) for gate in "ifo"}
    through_o = tc * o * (1 - o)
    through_c = o * (1 - tc**2) + through_o * peep["o"]
    own = f + slopes["i"] * peep["i"] + slopes["f"] * peep["f"]
    of_c, of_h = step.jacobian("c"), step.jacobian("h")
    check(of_c["c"], np.diag(own))
    check(of_h["c"], np.diag(through_c * own))
    for weights, by in (("U", "h"), ("W", "x")):
        expected = sum(rows(slope, p[f"{weights}{gate}"]) for gate, slope in slopes.items())
        check(of_c[by], expected)
        check(of_h[by], rows(through_o, p[f"{weights}o"]) + rows(through_c, expected))


@pytest.mark.parametrize("name", ["gru", "gru_after"])
def test_jacobian_of_gru(name: str) -> None:
    """Reset before the product: Un (diag(r) + diag(h r (1 - r)) Ur); after it: diag(r) Un + diag((Un h) r (1 - r)) Ur."""
    step = Step(name)
    p, v, h = step.p, step.values, step.before["h"]
    r, u, n = v["r"], v["u"], v["n"]
    reset = r * (1 - r)
    if name == "gru":
        inner = p["Un"] @ (np.diag(r) + rows(h * reset, p["Ur"]))
        inner_x = p["Wn"] + p["Un"] @ rows(h * reset, p["Wr"])
    else:
        inner = rows(r, p["Un"]) + rows((p["Un"] @ h) * reset, p["Ur"])
        inner_x = p["Wn"] + rows((p["Un"] @ h) * reset, p["Wr"])
    update, candidate = (n - h) * u * (1 - u), u * (1 - n**2)
    found = step.jacobian("h")
    check(found["h"], np.diag(1 - u) + rows(update, p["Uu"]) + rows(candidate, inner))
    check(found["x"], rows(update, p["Wu"]) + rows(candidate, inner_x))
