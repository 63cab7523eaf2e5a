"""Parts of the oracle: functions along an axis and their tangents, masks turn by turn, rounding; and how verify asks it."""

from __future__ import annotations

import numpy as np
import pytest
from support import cell_from, draw

from cellspec import oracle
from cellspec.model.nodes import Along, Apply, Const, Kind, MatMul, Ref, Transpose
from cellspec.oracle.along import tangent, value
from cellspec.oracle.duals import Tangents, jvp
from cellspec.oracle.exact import exact_gradients
from cellspec.oracle.masks import Masks
from cellspec.oracle.rounding import AMPLITUDE, Rounding, rounded_forward, rounds
from cellspec.oracle.values import forward, infer_dims, probe
from cellspec.verification.expected import FACTOR, Expected, gradient_shapes

CELL = """
name: small
inputs: {x: I}
states: {h: H}
params: {W: [H, I], U: [H, H], b: {shape: H, trainable: false}}
equations: |
  h[t] = tanh(W @ x[t] + U @ h[t-1] + b)
"""

# --- along an axis ------------------------------------------------------------------------------------------------------

V, B = np.array([[0.5, -2.0, 1.25], [3.0, 0.0, 1.0]]), np.array([[2.0, 1.0, -3.0], [0.5, 0.5, 0.5]])
VALUES = {
    "sum": V.sum(-1, keepdims=True),
    "mean": V.mean(-1, keepdims=True),
    "var": V.var(-1, keepdims=True),
    "norm": np.linalg.norm(V, axis=-1, keepdims=True),
    "softmax": np.exp(V) / np.exp(V).sum(-1, keepdims=True),
    "logsumexp": np.log(np.exp(V).sum(-1, keepdims=True)),
    "cumsum": np.cumsum(V, -1),
    "dot": (V * B).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("function", VALUES)
def test_values_along_an_axis(function: str) -> None:
    np.testing.assert_allclose(value(function, [V, B] if function == "dot" else [V]), VALUES[function], rtol=1e-14)


@pytest.mark.parametrize("function", VALUES)
def test_tangents_along_an_axis(function: str) -> None:
    args = [V, B] if function == "dot" else [V]
    moved = [np.random.default_rng(k).normal(size=V.shape) for k in range(len(args))]
    ahead, back = (value(function, [a + s * d for a, d in zip(args, moved, strict=True)]) for s in (1e-6, -1e-6))
    found = tangent(function, args, moved)
    assert found is not None
    np.testing.assert_allclose(found, (ahead - back) / 2e-6, rtol=1e-8, atol=1e-9)


def test_no_tangent_stands_for_zero() -> None:
    assert tangent("dot", [V, B], [None, None]) is None and tangent("norm", [V], [None]) is None
    np.testing.assert_array_equal(tangent("dot", [V, B], [None, V]), (V * V).sum(-1, keepdims=True))


def test_there_are_no_other_functions() -> None:
    with pytest.raises(ValueError, match="'median'"):
        value("median", [V])
    with pytest.raises(ValueError, match="'median'"):
        tangent("median", [V], [V])


# --- masks --------------------------------------------------------------------------------------------------------------


def steps(masks: Masks, count: int = 4, batch: int = 2) -> list[tuple[list[int], list[bool], list[bool]]]:
    return [(t.step.tolist(), t.runs.tolist(), t.anew.tolist()) for t in masks.turns(count, batch)]


def test_without_masks_every_sample_reads_every_step() -> None:
    assert steps(Masks(), 2) == [([0, 0], [True, True], [False, False]), ([1, 1], [True, True], [False, False])]


def test_samples_end_apart_and_are_read_from_their_own_ends() -> None:
    lengths = np.array([3, 1])
    assert [runs for _, runs, _ in steps(Masks(lengths), 3)] == [[True, True], [True, False], [True, False]]
    assert [step[0] for step, _, _ in steps(Masks(lengths, reverse=True), 3)] == [2, 1, 0]
    assert steps(Masks(lengths, reverse=True), 3)[0][0] == [2, 0], "the shorter one begins at its own end"


def test_a_reset_belongs_to_the_step_that_is_read() -> None:
    resets = np.array([[False], [True], [False]])
    assert [anew for _, _, (anew,) in steps(Masks(resets=resets), 3, 1)] == [False, True, False]
    resets = np.array([[False], [False], [True]])
    assert [anew for _, _, (anew,) in steps(Masks(resets=resets, reverse=True), 3, 1)] == [True, False, False]
    assert [anew for _, _, (anew,) in steps(Masks(np.array([2]), resets), 3, 1)] == [False] * 3, (
        "behind the end it means nothing"
    )


def test_what_a_turn_does_with_states_and_sequences() -> None:
    masks = Masks(np.array([2, 1]), np.array([[False, False], [True, False]]))
    _, second = masks.turns(2, 2)
    state, first = np.array([[1.0], [2.0]]), np.array([[9.0], [9.0]])
    np.testing.assert_array_equal(second.before(state, first), [[9.0], [2.0]])
    np.testing.assert_array_equal(second.after(state + 10, state), [[11.0], [2.0]])
    sequence = np.zeros((2, 2, 1))
    second.write(sequence, np.array([[5.0], [6.0]]))
    np.testing.assert_array_equal(sequence[:, :, 0], [[0.0, 0.0], [5.0, 0.0]])
    np.testing.assert_array_equal(second.read(np.arange(4.0).reshape(2, 2, 1))[0], [2.0])


# --- rounding -----------------------------------------------------------------------------------------------------------


def test_numbers_move_by_some_units_in_the_last_place() -> None:
    numbers = np.full(1000, 3.0)
    for dtype in (np.float32, np.float64):
        moved = Rounding(np.dtype(dtype), np.random.default_rng(0))(numbers)
        unit = AMPLITUDE * np.finfo(dtype).eps
        assert 0.5 * unit < np.max(np.abs(moved / 3 - 1)) <= unit and np.mean(moved != 3.0) > 0.9


def test_what_does_not_fit_the_dtype() -> None:
    rounding = Rounding(np.dtype(np.float32), np.random.default_rng(0))
    found = rounding(np.array([1e39, -1e39, 0.0, np.inf]))
    np.testing.assert_array_equal(found, [np.inf, -np.inf, 0.0, np.inf])
    faint = rounding(np.full(100, -1e-42))
    assert np.all(faint <= 0) and np.any(faint == 0) and np.min(faint) >= -np.finfo(np.float32).tiny
    counts = rounding.arguments({"t_now": np.array([7.0]), "h": np.array([7.0])})
    assert counts["t_now"] == 7.0 and counts["h"] != 7.0, "a count stays"


def test_what_has_to_be_rounded() -> None:
    x = Ref("x", Kind.INPUT, ())
    assert (
        rounds(Apply("mul", (x, x), ())) and rounds(Const(0.1)) and rounds(MatMul(x, x, ())) and rounds(Along("sum", (x,), ()))
    )
    assert not rounds(Apply("neg", (x,), ())) and not rounds(Apply("relu", (x,), ())) and not rounds(Const(2))
    assert not rounds(x) and not rounds(Transpose(x, ()))


# --- the whole ----------------------------------------------------------------------------------------------------------


def test_tangents_are_the_gradients_paired_with_directions() -> None:
    """Dual numbers against the exact gradients, which share nothing with them."""
    cell = cell_from(CELL)
    drawn = draw(cell, steps=2)
    exact = exact_gradients(cell, drawn.params, drawn.x, drawn.state, drawn.dy, drawn.dfinal)
    direction = np.random.default_rng(2).normal(size=drawn.params["U"].shape)
    moved = jvp(cell, drawn.params, drawn.x, drawn.state, Tangents({"U": direction[None]}, {}, {}))
    pairing = np.sum(moved.outputs["h"] * drawn.dy["h"]) + np.sum(moved.final["h"] * drawn.dfinal["h"])
    assert pairing == pytest.approx(np.sum(exact.params["U"] * direction), rel=1e-12)
    assert not exact.params["b"].any(), "it is not trained"
    np.testing.assert_allclose(exact.outputs["h"], forward(cell, drawn.params, drawn.x, drawn.state).outputs["h"], rtol=1e-13)


def test_a_rounded_evaluation_is_near() -> None:
    cell = cell_from(CELL)
    drawn = draw(cell)
    rounding = Rounding(np.dtype(np.float32), np.random.default_rng(0))
    plain = forward(cell, drawn.params, drawn.x, drawn.state).outputs["h"]
    rounded = rounded_forward(cell, drawn.params, drawn.x, drawn.state, rounding, dims=drawn.dims).outputs["h"]
    assert 0 < np.max(np.abs(rounded - plain)) < 1e-4


def test_a_probe_tells_kinks() -> None:
    cell = cell_from(CELL.replace("tanh(", "relu(1e-3 + 0*").replace("+ b)", "+ 0*b)").replace("+ U @", "+ 0*U @"))
    drawn = draw(cell)
    assert probe(cell, drawn.params, drawn.x, drawn.state).nearest == pytest.approx(1e-3)
    assert infer_dims(cell, drawn.params, drawn.x, drawn.state) == drawn.dims


def test_what_is_expected_of_a_call() -> None:
    cell = cell_from(CELL)
    drawn = draw(cell, steps=2, batch=1)
    found = Expected(cell, drawn)
    assert dict(gradient_shapes(cell, drawn)).keys() == {"d W", "d U", "d b", "d x", "d h[0]"}
    assert found.moving == ["d W", "d U", "d x", "d h[0]"], "what is not trained has no direction"
    own = found.pairings[found.own("d U")]
    directions = found.directions["d U"][found.own("d U")]
    assert not found.directions["d U"][found.own("d W")].any()
    np.testing.assert_allclose(own, [np.sum(found.exact.params["U"] * v) for v in directions], rtol=1e-11)
    spread = found.spread("outputs", "h")
    assert spread.shape == drawn.dy["h"].shape and 0 < spread.max() < FACTOR * 1e-13
    assert not found.exact_spread["d b"].any()
    assert isinstance(found.results, oracle.Forward)
