"""Lengths, resets and reverse through layers of layers: every sample, and every part of it between resets, run alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_support import arguments, check_gradients, layer, module, regularised, shipped
from support import Array, close, generator, leaves, same_bits
from test_layers import stacks

from cellspec import layers, oracle
from cellspec.layers import AnyLayer, tree_map

STEPS, BATCH = 6, 5
LENGTHS = np.array([6, 0, 3, 1, 4])
RESETS = np.random.default_rng(5).random((STEPS, BATCH)) < 0.4


def nested() -> AnyLayer:
    """Every kind of layer inside another, without a learnt state: resets know the spec's alone."""
    inner = layers.Bidirectional(layer("gru", 4, 4), layers.Residual(layer("elman", 4, 4)), "sum")
    both = layers.Bidirectional(layers.Stack(layer("lstm", 3, 4), layers.Residual(inner)), layer("gru", 3, 2))
    return layers.Stack(both, layer("lstm", 6, 3))


def spoilt(values: Array, lengths: Array) -> Array:
    """NaN where nothing is read."""
    return np.where(np.arange(len(values))[:, None, None] < lengths[:, None], values, np.nan)


def runs(lengths: Array, resets: Array | None, reverse: bool) -> Iterator[tuple[slice, int]]:
    """The steps that belong together, and their sample."""
    for b, length in enumerate(lengths):
        cuts = [] if resets is None else [t + reverse for t in range(length) if resets[t, b]]
        for start, stop in zip([0, *cuts], [*cuts, length], strict=True):
            if start < stop:
                yield slice(start, stop), b


def check_parts(tested: AnyLayer, lengths: Array | None, resets: Array | None, reverse: bool, seed: int = 0) -> None:
    """y and all gradients against runs of each part alone, from the initial state, and with NaN behind the ends."""
    params, x, _ = arguments(tested, steps=STEPS, batch=BATCH, seed=seed)
    dy = np.random.default_rng(seed).normal(size=(STEPS, BATCH, tested.output_size))
    ends = np.full(BATCH, STEPS) if lengths is None else lengths
    options = {"lengths": lengths, "resets": resets, "reverse": reverse}
    y, _, tape = tested.forward(params, spoilt(x, ends), **options)
    d_params, d_x, _ = tested.backward(params, tape, spoilt(dy, ends))
    expected_y, expected_x = np.zeros_like(y), np.zeros_like(x)
    expected_params = tree_map(np.zeros_like, params)
    for steps, b in runs(ends, resets, reverse):
        part, _, tape = tested.forward(params, x[steps, b : b + 1], reverse=reverse)
        grads = tested.backward(params, tape, dy[steps, b : b + 1])
        expected_y[steps, b : b + 1], expected_x[steps, b : b + 1] = part, grads.x
        expected_params = tree_map(np.add, expected_params, grads.params)
    assert close((y, d_x, d_params), (expected_y, expected_x, expected_params), 1e-11)
    behind = np.arange(STEPS)[:, None] >= ends
    assert not y[behind].any() and not d_x[behind].any()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("resets", [None, RESETS], ids=["whole", "resets"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_parts_alone(lengths: Array | None, resets: Array | None, reverse: bool) -> None:
    check_parts(nested(), lengths, resets, reverse)
    options = {} if lengths is None else {"lengths": lengths[:3].tolist()}
    check_gradients(nested(), steps=STEPS, reverse=reverse, **options, **({} if resets is None else {"resets": resets[:, :3]}))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(stacks(inputs=3, learnt=False), st.integers(0, 99), st.booleans())
def test_parts_of_any_stack(tested: AnyLayer, seed: int, reverse: bool) -> None:
    rng = generator(seed)
    check_parts(tested, rng.integers(0, STEPS + 1, BATCH), rng.random((STEPS, BATCH)) < 0.3, reverse, seed)


@pytest.mark.parametrize("reverse", [False, True])
def test_states_at_the_ends(reverse: bool) -> None:
    """Each sample's states, and their gradients, are those of the sample alone; one without steps keeps its state."""
    tested = nested()
    params, x, state = arguments(tested, steps=STEPS, batch=BATCH)
    y, final, tape = tested.forward(params, x, state, lengths=LENGTHS, reverse=reverse)
    d_state = tested.backward(params, tape, y, final).state
    for b, length in enumerate(LENGTHS):
        start, last, back = (tree_map(lambda value, b=b: value[b : b + 1], tree) for tree in (state, final, d_state))
        if not length:
            assert same_bits(last, start) and same_bits(back, last)
            continue
        alone, end, tape = tested.forward(params, x[:length, b : b + 1], start, reverse=reverse)
        assert close(end, last) and close(tested.backward(params, tape, alone, end).state, back)


def test_resets_behind_the_ends_mean_nothing() -> None:
    tested = nested()
    params, x, state = arguments(tested, steps=STEPS, batch=BATCH)
    behind = np.arange(STEPS)[:, None] >= LENGTHS
    y, final, _ = tested.forward(params, x, state, lengths=LENGTHS, resets=behind)
    expected, last, _ = tested.forward(params, x, state, lengths=LENGTHS, resets=np.zeros_like(behind))
    assert same_bits((y, final), (expected, last))


@pytest.mark.parametrize("options", [
    {}, {"lengths": [0] * BATCH}, {"resets": np.zeros((0, BATCH), bool)}, {"reverse": True},
    {"lengths": [0] * BATCH, "resets": np.zeros((0, BATCH), bool), "reverse": True},
])  # fmt: skip
def test_without_a_step_results_are_empty(options: dict[str, Any]) -> None:
    for tested in (nested(), noisy(), layers.Stack(nested(), noisy())):
        params, x, state = arguments(tested, steps=0, batch=BATCH)
        for workspace in (None, tested.workspace(params, 0, BATCH)):
            y, final, tape = tested.forward(params, x, state, rng=np.random.default_rng(1), workspace=workspace, **options)
            assert y.shape == (0, BATCH, tested.output_size) and same_bits(final, state)
            grads = tested.backward(params, tape, y, final)
            assert grads.x.shape == x.shape and same_bits(grads.state, final)
            assert not any(array.any() for array in leaves(tuple(grads.params)))
    with pytest.raises(ValueError, match=r"lengths\[0\] is 1, expected 0 to T = 0"):
        nested().forward(*arguments(nested(), steps=0, batch=1)[:2], lengths=[1])


def test_layouts_without_a_step() -> None:
    outer = layers.Layout(nested(), batch_first=True)
    params, x, _ = arguments(nested(), steps=0, batch=BATCH)
    assert outer.forward(params, x.transpose(1, 0, 2), lengths=[0] * BATCH)[0].shape == (BATCH, 0, outer.output_size)
    assert outer.forward(params, x[:, 0], lengths=0, reverse=True)[0].shape == (0, outer.output_size)


def noisy() -> AnyLayer:
    """Dropout and zoneout at every place, but for the parameters' own."""
    around = layers.Residual(layers.Bidirectional(layer("gru", 4, 2), layer("gru", 4, 2)))
    kinds = {"zoneout": 0.3, "state_dropout": 0.3, "input_dropout": 0.3}
    inner = layers.Layer(regularised("gru", ("h",), ("h",)), I=3, H=4, dtype=np.float64, **kinds)
    return layers.Stack(inner, around, dropout=0.3)


def test_noise_with_lengths() -> None:
    """Masks are drawn for the whole batch, and what is random changes nothing behind the ends."""
    tested = noisy()
    params, x, state = arguments(tested, steps=STEPS, batch=BATCH)

    def run(x: Array) -> Any:
        y, final, tape = tested.forward(params, x, state, lengths=LENGTHS, rng=np.random.default_rng(1))
        return y, final, tuple(tested.backward(params, tape, spoilt(y, LENGTHS), final))

    assert same_bits(run(spoilt(x, LENGTHS)), run(x))
    check_gradients(tested, noise=1, lengths=[2, 0, 5])


def test_layouts_turn_resets_and_lengths_too() -> None:
    inner = nested()
    outer = layers.Layout(inner, batch_first=True)
    params, x, _ = arguments(inner, steps=STEPS, batch=BATCH)
    y, _, _ = inner.forward(params, x, lengths=LENGTHS, resets=RESETS)
    turned, _, _ = outer.forward(params, x.transpose(1, 0, 2), lengths=LENGTHS, resets=RESETS.T)
    assert same_bits(turned.transpose(1, 0, 2), y)
    single, _, _ = outer.forward(params, x[:, 2], lengths=3, resets=RESETS[:, 2])
    assert close(single, y[:, 2])


def test_mistakes() -> None:
    tested = nested()
    params, x, _ = arguments(tested, steps=STEPS, batch=BATCH)
    for options, kind, message in (
        ({"lengths": LENGTHS - 1}, ValueError, "lengths[1] is -1, expected 0 to T = 6"),
        ({"lengths": LENGTHS[1:]}, ValueError, "lengths has shape (4,), expected [B] = (5,)"),
        ({"lengths": LENGTHS * 1.0}, TypeError, "lengths has dtype float64, expected integers"),
        ({"resets": RESETS.T}, ValueError, "resets has shape (5, 6), expected [T, B] = (6, 5)"),
        ({"resets": RESETS * 1}, TypeError, "resets has dtype int64, expected bool"),
        ({"reverse": 1}, TypeError, "reverse must be True or False, got int"),
        ({"reverse": "yes"}, TypeError, "reverse must be True or False, got str"),
    ):
        with pytest.raises(kind) as caught:
            tested.forward(params, x, **options)  # type: ignore[arg-type]
        assert str(caught.value) == message
    learnt = layer("gru", 3, 4, learn_state=True)
    own = learnt.init_params(np.random.default_rng(0))
    with pytest.raises(ValueError, match="resets restore the spec's initial state, not the learnt one: learn_state takes none"):
        learnt.forward(own, x, resets=RESETS)


def test_both_directions_are_the_oracles() -> None:
    """⟨dy, J v⟩ = ⟨gradients, v⟩ with J of the equations, forwards and in reverse, for samples of every length."""
    cell, rng, H = shipped("lstm"), generator(11), 4
    both = layers.Bidirectional(*(layers.Layer(module("lstm"), I=3, H=H, dtype=np.float64) for _ in range(2)))
    params = tree_map(lambda value: rng.normal(size=value.shape), both.init_params(rng))
    x, lengths = rng.normal(size=(6, 4, 3)), np.array([0, 6, 2, 5])
    y, _, tape = both.forward(params, x, lengths=lengths)
    dy = rng.normal(size=y.shape)
    found = both.backward(params, tape, dy)
    v = tree_map(lambda value: rng.normal(size=value.shape), (tuple(params), x))
    moved = 0.0
    for k, reverse in enumerate((False, True)):
        masks, own = oracle.Masks(lengths, None, reverse), slice(k * H, (k + 1) * H)
        mine, at = params[k]._asdict(), {"x": x}
        assert close(y[..., own], oracle.forward(cell, mine, at, masks=masks).outputs["h"])
        tangents = oracle.Tangents({name: value[None] for name, value in v[0][k]._asdict().items()}, {"x": v[1][None]})
        moved += float((oracle.jvp(cell, mine, at, None, tangents, masks=masks).outputs["h"][0] * dy[..., own]).sum())
    terms = [float((a * b).sum()) for a, b in zip(leaves((tuple(found.params), found.x)), leaves(v), strict=True)]
    assert abs(sum(terms) - moved) <= 1e-11 * sum(map(abs, terms))
