"""What is random in layers: where the masks act, that their gradients are right, that a seed repeats them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_support import arguments, check_gradients, layer, module, regularised
from support import Array, close, generator, leaves, same_bits

from cellspec import layers
from cellspec.layers import AnyLayer

LSTM, GRU = regularised("lstm", ("c", "h"), ("h",)), regularised("gru", ("h",), ("h",))


def noisy(**options: Any) -> layers.Layer:
    """An LSTM with everything random that a layer has."""
    noise = {
        "zoneout": {"c": 0.5, "h": 0.2},
        "state_dropout": 0.3,
        "input_dropout": 0.25,
        "drop_connect": {"U": 0.4, "bf": 0.5},
    }
    return layers.Layer(LSTM, **{"I": 3, "H": 4, "dtype": np.float64, **noise, **options})


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("seed", [1, 2])
def test_gradients(seed: int) -> None:
    check_gradients(noisy(), noise=seed)
    check_gradients(noisy(), noise=seed, reverse=True)
    both = layers.Bidirectional(noisy(I=4), noisy(I=4), "sum")
    deep = layers.Stack(layer("gru", 3, 5), noisy_gru(), layers.Residual(both), dropout=0.3)
    check_gradients(deep, noise=seed)


def noisy_gru() -> layers.Layer:
    return layers.Layer(GRU, I=5, H=4, dtype=np.float64, zoneout=0.3, state_dropout=0.2, learn_state=True)


def test_nothing_is_random_without_a_generator() -> None:
    """Masks of ones, and zoneout at rate zero, are the plain cell to the bit."""
    tested, plain = noisy(zoneout=0.0), layer("lstm", 3, 4)
    params, x, state = arguments(plain)
    y, final, tape = tested.forward(params, x, state)
    expected, last, plain_tape = plain.forward(params, x, state)
    assert close((y, final), (expected, last), 1e-15)
    assert close(tuple(tested.backward(params, tape, y, final)), tuple(plain.backward(params, plain_tape, y, final)), 1e-14)
    silent = layers.Layer(module("lstm"), I=3, H=4, dtype=np.float64)
    assert same_bits(silent.forward(params, x, state, rng=np.random.default_rng(0))[:2], (expected, last))


@pytest.mark.parametrize("tested", [noisy(), layers.Stack(layer("gru", 3, 4), layer("gru", 4, 4), dropout=0.5)])
def test_a_seed_repeats_the_masks(tested: AnyLayer) -> None:
    params, x, state = arguments(tested)

    def run(seed: int) -> Any:
        y, final, tape = tested.forward(params, x, state, rng=np.random.default_rng(seed))
        return y, final, tuple(tested.backward(params, tape, y, final))

    assert same_bits(run(1), run(1))
    assert not same_bits(run(1), run(2))
    rng = np.random.default_rng(1)
    first, second = (tested.forward(params, x, state, rng=rng)[0] for _ in range(2))
    assert same_bits(first, run(1)[0]) and not same_bits(first, second)


def test_masks_do_not_depend_on_the_dtype() -> None:
    double, single = noisy(), noisy(dtype=np.float32)
    params, x, state = arguments(double)
    small = layers.tree_map(lambda value: value.astype(np.float32), (params, x, state))
    y, _, _ = double.forward(params, x, state, rng=np.random.default_rng(1))
    other, _, _ = single.forward(*small, rng=np.random.default_rng(1))
    np.testing.assert_allclose(y, other, atol=1e-5)


# --- where each mask acts ------------------------------------------------------------------------------------------------


def test_dropout_of_the_input_is_one_mask_a_sequence() -> None:
    tested, plain = layer("lstm", 300, 4, input_dropout=0.25), layer("lstm", 300, 4)
    params, x, state = arguments(tested)
    y, _, tape = tested.forward(params, x, state, rng=generator(1))
    assert tape.x_mask.shape == (3, 300)
    assert set(np.unique(tape.x_mask)) == {0.0, 1 / 0.75}
    assert abs(np.mean(tape.x_mask == 0) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 900)
    assert len(np.unique(tape.x_mask, axis=0)) == 3
    assert same_bits(y, plain.forward(params, x * tape.x_mask, state)[0])


def test_drop_connect_is_one_mask_a_call() -> None:
    tested, plain = layer("lstm", 3, 40, drop_connect={"U": 0.5, "Wi": 0.25}), layer("lstm", 3, 40)
    params, x, state = arguments(tested)
    y, final, tape = tested.forward(params, x, state, rng=generator(1))
    assert list(tape.param_masks) == ["Wi", "Ui", "Uf", "Ug", "Uo"]
    for name, mask in tape.param_masks.items():
        rate = 0.25 if name == "Wi" else 0.5
        assert set(np.unique(mask)) == {0.0, 1 / (1 - rate)}
        assert abs(np.mean(mask == 0) - rate) < 5 * np.sqrt(rate * (1 - rate) / mask.size)
    dropped = params._replace(**{name: getattr(params, name) * mask for name, mask in tape.param_masks.items()})
    expected, last, plain_tape = plain.forward(dropped, x, state)
    assert same_bits((y, final), (expected, last))
    grads, others = tested.backward(params, tape, y).params, plain.backward(dropped, plain_tape, y).params
    for name, array in grads._asdict().items():
        assert same_bits(array, getattr(others, name) * tape.param_masks.get(name, 1.0))


def test_dropout_between_layers_is_anew_for_every_number() -> None:
    tested = layers.Stack(layer("gru", 3, 50), layer("gru", 50, 4), layer("gru", 4, 4), dropout=0.25)
    params, x, state = arguments(tested)
    y, _, tape = tested.forward(params, x, state, rng=generator(1))
    none, first, second = tape.masks
    assert none is None and first.shape == (5, 3, 50) and second.shape == (5, 3, 4)
    assert set(np.unique(first)) == {0.0, 1 / 0.75} and len(np.unique(first.reshape(15, 50), axis=0)) == 15
    assert abs(np.mean(first == 0) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 750)
    value = x
    for part, own, start, mask in zip(tested.layers, params, state, tape.masks, strict=True):
        value, _, _ = part.forward(own, value if mask is None else value * mask, start)
    assert same_bits(y, value)


def test_masks_of_the_state() -> None:
    tested = noisy(I=3, H=100)
    params, x, state = arguments(tested, steps=7)
    streams = tested.forward(params, x, state, rng=generator(1))[2].run.x
    assert streams._fields == ("x", "h_zoneout", "c_zoneout", "h_dropout")
    for mask, rate in ((streams.c_zoneout, 0.5), (streams.h_zoneout, 0.2)):
        assert set(np.unique(mask)) == {0.0, 1.0} and len(np.unique(mask.reshape(21, 100), axis=0)) == 21
        assert abs(np.mean(mask) - rate) < 5 * np.sqrt(rate * (1 - rate) / 2100)
    dropped = streams.h_dropout
    assert set(np.unique(dropped)) == {0.0, 1 / 0.7} and len(np.unique(dropped[0], axis=0)) == 3
    assert (dropped == dropped[0]).all()
    still = tested.forward(params, x, state)[2].run.x
    assert [np.unique(mask).tolist() for mask in still[1:]] == [[0.2], [0.5], [1.0]]


def test_an_lstm_as_the_papers_write_it() -> None:
    """Krueger et al., 2017: h comes from a cell that is not zoned out. Gal and Ghahramani, 2016: one mask for all the gates."""
    params, x, (h, c) = arguments(noisy())
    rng = generator(3)
    keep_h, keep_c = (rng.integers(0, 2, (5, 3, 4)).astype(float) for _ in range(2))
    mask = np.broadcast_to(rng.integers(0, 2, (3, 4)) * 2.0, (5, 3, 4))
    y, final, _ = LSTM.forward(params, LSTM.Inputs(x, keep_h, keep_c, mask), LSTM.State(h, c))
    for t in range(5):
        read = h * mask[t]
        i, f, o = (sigmoid(x[t] @ W.T + read @ U.T + b) for W, U, b in (
            (params.Wi, params.Ui, params.bi), (params.Wf, params.Uf, params.bf), (params.Wo, params.Uo, params.bo)
        ))  # fmt: skip
        g = np.tanh(x[t] @ params.Wg.T + read @ params.Ug.T + params.bg)
        new = f * c + i * g
        h = keep_h[t] * h + (1 - keep_h[t]) * o * np.tanh(new)
        c = keep_c[t] * c + (1 - keep_c[t]) * new
        assert close(y[t], h, 1e-13)
    assert close((final.h, final.c), (h, c), 1e-13)


def test_a_gru_forgets_no_more_for_dropout() -> None:
    """Only what a matrix multiplies is masked: with an open leak the state stays, however it is dropped elsewhere."""
    params, x, state = arguments(noisy_gru())
    cell = params.cell._replace(bu=np.full(4, -40.0))
    mask = np.zeros((5, 3, 4))
    _, final, _ = GRU.forward(cell, GRU.Inputs(x, np.zeros_like(mask), mask), state)
    assert close(final, state)


def test_zoneout_expects_what_evaluation_gives() -> None:
    """One step from a given state is linear in the masks: over many samples the mean is that of evaluation."""
    tested, count = noisy(state_dropout=0.0, input_dropout=0.0, drop_connect=None), 20_000
    params, x, state = arguments(tested, steps=1, batch=1)
    many = layers.tree_map(lambda value: np.repeat(value, count, axis=-2), (x, state))
    _, drawn, _ = tested.forward(params, *many, rng=generator(2))
    _, expected, _ = tested.forward(params, x, state)
    _, stepped = tested.step(params, x[0], state)
    for got, wanted, step in zip(drawn, expected, stepped, strict=True):
        spread = got.std(axis=0) / np.sqrt(count)
        assert (np.abs(got.mean(axis=0) - wanted[0]) < 5 * spread).all() and (spread > 0).all()
        assert close(step, wanted)


def test_rates_by_name() -> None:
    only = layers.Layer(LSTM, I=3, H=4, dtype=np.float64, zoneout={"c": 0.5})
    params, x, _ = arguments(only)
    streams = only.forward(params, x)[2].run.x
    assert (streams.c_zoneout == 0.5).all() and not streams.h_zoneout.any()
    exact = layer("lstm", 3, 4, drop_connect={"bi": 0.5})
    assert list(exact.forward(params, x, rng=generator(1))[2].param_masks) == ["bi"]
    assert all(a is b for a, b in zip(leaves(params), params, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zoneout": {"q": 0.1}}, "zoneout of q: the cell lstm has no input q_zoneout"),
        ({"zoneout": 1.0}, "zoneout is 1.0, expected a number from 0 to less than 1"),
        ({"state_dropout": {"c": 0.1}}, "state_dropout of c: the cell lstm has no input c_dropout"),
        ({"state_dropout": "much"}, "state_dropout is much, expected a number from 0 to less than 1"),
        ({"input_dropout": -0.1}, "input_dropout is -0.1, expected a number from 0 to less than 1"),
        ({"drop_connect": {"Q": 0.1}}, "drop_connect: no parameter of lstm begins with 'Q'; it has Wi, Wf, Wg"),
        ({"drop_connect": {"U": 2}}, "drop_connect is 2, expected a number from 0 to less than 1"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        noisy(**options)
    assert message in str(caught.value)


def test_a_rate_needs_a_cell_with_its_mask() -> None:
    with pytest.raises(ValueError, match=r"zoneout: the cell lstm has no masks for it; .* cellspec.regularise"):
        layer("lstm", 3, 4, zoneout=0.1)
