"""Layers around generated modules: what they compute, their gradients, and that they nest."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_support import arguments, check_gradients, layer, module
from support import cell_from, close, leaves, same_bits

import cellspec
from cellspec import layers
from cellspec.layers import AnyLayer

HEADS = """
name: heads
inputs: {x: [N, I]}
states: {h: [N, D]}
params: {W: [N, D, I], R: [N, D, D], b: [N, D]}
equations: |
  h[t] = tanh(W @ x[t] + R @ h[t-1] + b)
"""

DECAY = """
name: decay
inputs: {x: H}
states: {h: {shape: H, init: 0.5}}
outputs: [y]
hyper: {a: 0.5}
equations: |
  h[t] = a*h[t-1] + x[t]
  y = tanh(h[t])*h[t-1]
"""


def nested(**options: Any) -> AnyLayer:
    """Every kind of layer inside another."""
    both = layers.Bidirectional(layer("lstm", 3, 4), layer("gru", 3, 4), **options)
    width = both.output_size
    summed = layers.Bidirectional(
        layers.Stack(layer("elman", width, 3), layer("gru", 3, width)), layer("gru", width, width), "sum"
    )
    return layers.Stack(both, layers.Residual(summed), layer("lstm", width, 2, learn_state=True))


# --- a single layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_is_its_module(dtype: Any) -> None:
    tested, lstm = layer("lstm", 3, 4, dtype=dtype), module("lstm")
    params, x, state = arguments(tested)
    y, final, tape = tested.forward(params, x, state)
    expected_y, expected_final, expected_tape = lstm.forward(params, x, state)
    assert same_bits((y, final), (expected_y, expected_final))
    grads, expected = tested.backward(params, tape, y, final), lstm.backward(params, expected_tape, y, final)
    assert isinstance(grads, layers.Gradients) and isinstance(grads.params, lstm.Params)
    assert same_bits(tuple(grads), tuple(expected))
    assert same_bits(
        tested.init_params(np.random.default_rng(3)), lstm.init_params(np.random.default_rng(3), I=3, H=4, dtype=dtype)
    )
    assert same_bits(tested.forward(params, x)[:2], lstm.forward(params, x)[:2])


def test_float32_is_the_default() -> None:
    tested = layers.Layer(module("gru"), I=2, H=3)
    assert {array.dtype for array in leaves(tested.init_params(np.random.default_rng(0)))} == {np.dtype(np.float32)}


def test_sizes_counts_and_operations() -> None:
    tested = layers.Layer(module("lstm"), I=64, H=128)
    assert (tested.input_size, tested.output_size, tested.causal) == (64, 128, True)
    assert tested.parameter_count == 4 * (128 * 64 + 128 * 128 + 128)
    assert tested.flops(T=10, B=2) == 2 * 10 * 2 * 4 * (128 * 64 + 128 * 128)
    projected = layers.Layer(module("lstmp"), I=5, H=7, P=3)
    assert (projected.input_size, projected.output_size) == (5, 3)
    both = layers.Bidirectional(layer("lstm", 3, 4), layer("gru", 3, 5))
    assert (both.input_size, both.output_size, both.causal) == (3, 9, False)
    deep = layers.Stack(both, layer("gru", 9, 2))
    assert deep.flops(4, 3) == sum(part.flops(4, 3) for part in (layer("lstm", 3, 4), layer("gru", 3, 5), layer("gru", 9, 2)))
    assert not deep.causal and layers.Stack(layer("gru", 2, 2), layers.Residual(layer("gru", 2, 2))).causal


def test_heads_lie_side_by_side() -> None:
    heads = cellspec.build(cell_from(HEADS))
    tested = layers.Layer(heads, N=2, D=3, I=4, dtype=np.float64)
    assert (tested.input_size, tested.output_size) == (8, 6)
    params, x, state = arguments(tested)
    y, final, _ = tested.forward(params, x, state)
    expected, last, _ = heads.forward(params, x.reshape(5, 3, 2, 4), state)
    assert same_bits((y, final), (expected.reshape(5, 3, 6), last))
    assert same_bits(tested.step(params, x[0], state)[0], heads.step(params, x[0].reshape(3, 2, 4), state)[0].reshape(3, 6))
    check_gradients(tested)


def test_a_cell_without_parameters() -> None:
    tested = layers.Layer(cellspec.build(cell_from(DECAY)), H=2, dtype=np.float32)
    assert (tested.input_size, tested.parameter_count) == (2, 0)
    x = np.ones((2, 1, 2), np.float32)
    y, final, _ = tested.forward((), x)
    assert y.dtype == final.h.dtype == np.float32
    np.testing.assert_allclose(final.h, 1.625)
    np.testing.assert_allclose(y[:, 0, 0], [np.tanh(1.25) * 0.5, np.tanh(1.625) * 1.25], rtol=1e-6)


# --- a learnt initial state --------------------------------------------------------------------------------------------


def test_a_learnt_state_starts_as_the_specs() -> None:
    tested = layers.Layer(cellspec.build(cell_from(DECAY)), H=2, dtype=np.float64, learn_state=True)
    params = tested.init_params(np.random.default_rng(0))
    np.testing.assert_array_equal(params.state.h, [0.5, 0.5])
    assert tested.parameter_count == 2
    np.testing.assert_array_equal(tested.init_state(params, 3).h, np.full((3, 2), 0.5))


def test_a_learnt_state_is_that_of_every_sample() -> None:
    tested, lstm = layer("lstm", 3, 4, learn_state=True), module("lstm")
    params, x, state = arguments(tested)
    start = lstm.State(*(np.stack([value] * 3) for value in params.state))
    y, final, tape = tested.forward(params, x)
    assert same_bits((y, final), lstm.forward(params.cell, x, start)[:2])
    grads = tested.backward(params, tape, y)
    assert all(np.allclose(a, b.sum(axis=0)) for a, b in zip(grads.params.state, grads.state, strict=True))
    _, _, tape = tested.forward(params, x, state)
    grads = tested.backward(params, tape, y)
    assert not any(array.any() for array in grads.params.state) and all(array.any() for array in grads.state)
    check_gradients(tested, own_state=True)
    check_gradients(tested)


def test_a_learnt_state_is_checked_before_it_is_spread() -> None:
    tested = layer("lstm", 3, 4, learn_state=True)
    cell, learnt = tested.init_params(np.random.default_rng(0))
    for wrong, error, said in (
        (learnt._replace(c=[0.0] * 4), TypeError, r"^params\.state\.c must be an array as a state without a batch, got list$"),
        (
            learnt._replace(h=np.ma.masked_array(learnt.h)),
            TypeError,
            r"^params\.state\.h must be an array .*, got MaskedArray$",
        ),
        (learnt._replace(h=learnt.h[:3]), ValueError, r"^params\.state\.h has shape \(3,\), expected .* = \(4,\)$"),
    ):
        with pytest.raises(error, match=said):
            tested.init_state((cell, wrong), 2)


# --- layers of layers --------------------------------------------------------------------------------------------------


def test_a_stack_is_one_layer_after_the_other() -> None:
    below, above = layer("lstm", 3, 4), layer("gru", 4, 5)
    deep = layers.Stack(below, above)
    params, x, state = arguments(deep)
    middle, first, _ = below.forward(params[0], x, state[0])
    y, second, _ = above.forward(params[1], middle, state[1])
    assert same_bits(deep.forward(params, x, state)[:2], (y, (first, second)))


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_both_directions_are_two_runs(merge: Any) -> None:
    there, back = layer("lstm", 3, 4), layer("gru", 3, 4)
    both = layers.Bidirectional(there, back, merge)
    params, x, state = arguments(both)
    y, final, _ = both.forward(params, x, state)
    one, end, _ = there.forward(params.forward, x, state.forward)
    other, start, _ = back.forward(params.backward, np.ascontiguousarray(x[::-1]), state.backward)
    other = other[::-1]
    expected = np.concatenate((one, other), axis=-1) if merge == "concat" else one + other
    assert same_bits(y, expected)
    assert same_bits((final.forward, final.backward), (end, start))
    turned, final, _ = both.forward(params, np.ascontiguousarray(x[::-1]), state, reverse=True)
    other, start, _ = back.forward(params.backward, np.ascontiguousarray(x[::-1]), state.backward)
    one, end, _ = there.forward(params.forward, x, state.forward)
    assert same_bits((final.forward, final.backward), (end, start))
    assert same_bits(turned[::-1], y)


def test_a_residual_adds_x() -> None:
    inner = layer("gru", 4, 4)
    params, x, state = arguments(inner)
    y, final, _ = layers.Residual(inner).forward(params, x, state)
    expected, last, _ = inner.forward(params, x, state)
    assert same_bits((y, final), (expected + x, last))
    y_t, _ = layers.Residual(inner).step(params, x[0], state)
    assert close(y_t, y[0])


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_gradients_of_nested_layers(merge: Any) -> None:
    check_gradients(nested(merge=merge))
    check_gradients(nested(merge=merge), own_state=True)
    check_gradients(nested(merge=merge), reverse=True)


def test_a_workspace_changes_nothing() -> None:
    for tested in (layer("lstm", 3, 4, learn_state=True), nested(), layers.Residual(layer("gru", 4, 4))):
        params, x, state = arguments(tested)
        space = tested.workspace(params, 5, 3)
        for scale in (1.0, 0.5):
            y, final, tape = tested.forward(params, scale * x, state)
            grads = tested.backward(params, tape, y, final)
            again, last, tape = tested.forward(params, scale * x, state, workspace=space)
            assert same_bits((again, last), (y, final))
            assert same_bits(tuple(tested.backward(params, tape, again, last)), tuple(grads))


def test_a_workspace_is_used_again() -> None:
    tested = layer("lstm", 3, 4)
    params, x, state = arguments(tested)
    space = tested.workspace(params, 5, 3)
    one, other = (tested.forward(params, x, state, workspace=space) for _ in range(2))
    assert np.shares_memory(one[0], other[0])
    assert np.shares_memory(*(tested.backward(params, other[2], x[:, :, :1].repeat(4, 2)).x for _ in range(2)))


# --- any stack ---------------------------------------------------------------------------------------------------------


@st.composite
def stacks(draw: st.DrawFn, inputs: int, outputs: int | None = None, depth: int = 2, learnt: bool = True) -> AnyLayer:
    """A random layer of these sizes; ``learnt`` initial states among others."""
    cells = st.sampled_from(["lstm", "gru", "elman"])
    units = outputs or draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["layer", "stack", "both", "residual"])) if depth else "layer"
    if kind == "stack":
        below = draw(stacks(inputs, None, depth - 1, learnt))
        return layers.Stack(
            below, draw(stacks(below.output_size, outputs, depth - 1, learnt)), dropout=draw(st.sampled_from([0.0, 0.4]))
        )
    if kind == "both":
        merge = draw(st.sampled_from(["sum", "concat"])) if outputs is None else "sum"
        pair = [draw(stacks(inputs, units, depth - 1, learnt)) for _ in range(2)]
        return layers.Bidirectional(*pair, merge)
    if kind == "residual" and outputs in (None, inputs):
        return layers.Residual(draw(stacks(inputs, inputs, depth - 1, learnt)))
    options = {"learn_state": learnt and draw(st.booleans()), "input_dropout": draw(st.sampled_from([0.0, 0.3]))}
    return layer(draw(cells), inputs, units, **options)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(stacks(inputs=3), st.integers(0, 99))
def test_any_stack(tested: AnyLayer, seed: int) -> None:
    check_gradients(tested, seed=seed, steps=3, noise=seed)
    params, x, state = arguments(tested, seed=seed)
    assert tested.parameter_count == len(layers.flatten(params)[0])
    assert [a.shape for a in leaves(tested.template)] == [a.shape for a in leaves(params)]
    y, final, _ = tested.forward(params, x, state)
    assert y.shape == (5, 3, tested.output_size)
    assert same_bits(tested.forward(params, x, state)[:2], (y, final))  # nothing is random without a generator
    if not tested.causal:
        with pytest.raises(TypeError, match="whole sequence"):
            tested.step(params, x[0], state)
        return
    for packed in (params, tested.pack(params)):
        now, rows = state, []
        for x_t in x:
            y_t, now = tested.step(packed, x_t, now)
            rows.append(y_t)
        assert close((np.stack(rows), now), (y, final))
    first, middle, _ = tested.forward(params, x[:2], state)
    rest, last, _ = tested.forward(params, x[2:], middle)
    assert close((np.concatenate((first, rest)), last), (y, final))


# --- layouts -----------------------------------------------------------------------------------------------------------


def test_batch_first() -> None:
    inner = layers.Stack(layer("lstm", 3, 4), layer("gru", 4, 2))
    outer = layers.Layout(inner, batch_first=True)
    params, x, state = arguments(inner)
    y, final, tape = inner.forward(params, x, state)
    dy = np.random.default_rng(0).normal(size=y.shape)
    d_params, dx, dstate = inner.backward(params, tape, dy, final)
    y_first, last, tape = outer.forward(params, x.transpose(1, 0, 2), state)
    assert same_bits((y_first, last), (y.transpose(1, 0, 2), final))
    grads = outer.backward(params, tape, dy.transpose(1, 0, 2), last)
    assert same_bits(tuple(grads), (d_params, dx.transpose(1, 0, 2), dstate))
    assert same_bits(outer.step(params, x[0], state), inner.step(params, x[0], state))


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sample_by_itself(batch_first: bool) -> None:
    inner = layers.Stack(layer("lstm", 3, 4), layer("gru", 4, 2))
    outer = layers.Layout(inner, batch_first=batch_first)
    params, x, _ = arguments(inner, batch=1)
    state = inner.init_state(params, 1)
    y, final, tape = inner.forward(params, x, state)
    grads = inner.backward(params, tape, y, final)
    y_one, last, tape = outer.forward(params, x[:, 0])
    assert y_one.shape == (5, 2) and last[0].h.shape == (4,)
    assert same_bits((y_one, last), (y[:, 0], layers.tree_map(lambda value: value[0], final)))
    assert same_bits(outer.forward(params, x[:, 0], outer.init_state(params))[0], y_one)
    d_params, dx, dstate = outer.backward(params, tape, y_one, last)
    assert same_bits((d_params, dx), (grads.params, grads.x[:, 0]))
    assert same_bits(dstate, layers.tree_map(lambda value: value[0], grads.state))
    y_t, now = outer.step(params, x[0, 0], outer.init_state(params))
    assert close(y_t, y_one[0]) and now[1].h.shape == (2,)


# --- what is wrong is said ---------------------------------------------------------------------------------------------


def test_mistakes_of_construction() -> None:
    lstm, gru = module("lstm"), layer("gru", 3, 4)
    for make, kind, message in (
        (lambda: layers.Layer(lstm, I=3), TypeError, "the dims of lstm are I, H; got I"),
        (lambda: layers.Layer(lstm, I=3, H=4, P=5), TypeError, "the dims of lstm are I, H; got H, I, P"),
        (lambda: layers.Layer(lstm, I=3, H=0), ValueError, "H is 0, expected an integer, 1 or more"),
        (lambda: layers.Layer(lstm, I=3, H=True), ValueError, "H is True, expected an integer, 1 or more"),
        (lambda: layers.Layer(np, I=3, H=4), TypeError, "Layer takes a generated module, got numpy"),
        (lambda: layers.Layer("lstm", I=3, H=4), TypeError, "Layer takes a generated module, got str"),  # type: ignore[arg-type]
        (
            lambda: layers.Layer(module("gru_d"), I=3, H=4),
            ValueError,
            "Layer takes a cell with one input; gru_d also reads m, d",
        ),
        (lambda: layers.Stack(), ValueError, "Stack takes one layer or more"),
        (lambda: layers.Stack(gru, gru), ValueError, "layer 1 reads 3 numbers, but layer 0 gives 4"),
        (lambda: layers.Stack(gru, dropout=1.0), ValueError, "dropout is 1.0, expected a number from 0 to less than 1"),
        (lambda: layers.Residual(gru), ValueError, "Residual adds x to y: the layer reads 3 numbers, but gives 4"),
        (lambda: layers.Bidirectional(gru, layer("gru", 2, 4)), ValueError, "one reads 3 numbers, the other 2"),
        (lambda: layers.Bidirectional(gru, layer("gru", 3, 5), "sum"), ValueError, "gives 4 numbers, the other 5"),
        (lambda: layers.Bidirectional(gru, gru, "mean"), ValueError, "merge is 'mean', expected 'concat' or 'sum'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(kind) as caught:
            make()
        assert message in str(caught.value)


def test_a_cell_with_several_outputs() -> None:
    text = HEADS.replace("params", "outputs: [h, z]\nparams").replace("  h[t] =", "  z = 2*h[t]\n  h[t] =")
    with pytest.raises(ValueError, match="Layer takes a cell with one output; heads gives h, z"):
        layers.Layer(cellspec.build(cell_from(text)), N=1, D=1, I=1)


def test_a_module_of_an_older_version() -> None:
    old = cellspec.build(cell_from(HEADS))
    del old.OUTPUT_SHAPES
    with pytest.raises(ValueError, match="is of an older version and has no OUTPUT_SHAPES"):
        layers.Layer(old, N=1, D=1, I=1)


def test_mistakes_of_calls() -> None:
    deep = layers.Stack(layer("lstm", 3, 4), layers.Residual(layer("gru", 4, 4)))
    both = layers.Bidirectional(layer("lstm", 3, 4), layer("gru", 3, 4))
    params, x, state = arguments(deep)
    params_both, _, state_both = arguments(both)
    _, _, tape = deep.forward(params, x, state)
    _, _, tape_both = both.forward(params_both, x, state_both)
    for call, kind, message in (
        (
            lambda: deep.forward(params, x[:, :, :2]),
            ValueError,
            "x has shape (5, 3, 2), expected [T, B, input_size] = (5, 3, 3)",
        ),
        (lambda: deep.forward(params, x[0]), TypeError, "x must be an array [T, B, 3], got (3, 3)"),
        (lambda: deep.forward(params, [1.0]), TypeError, "x must be an array [T, B, 3], got list"),
        (lambda: deep.forward(params, x.astype(np.float32)), TypeError, "x has dtype float32, expected float64"),
        (lambda: deep.forward(params[:1], x), TypeError, "params must be a tuple of 2 parts, one for each layer, got 1 parts"),
        (lambda: deep.forward(list(params), x), TypeError, "params must be a tuple of 2 parts, one for each layer, got list"),
        (lambda: deep.forward(params, x, state[0].h), TypeError, "state must be a tuple of 2 parts"),
        (lambda: deep.forward(params, x, rng=1), TypeError, "rng must be a numpy.random.Generator or None, got int"),
        (lambda: deep.forward(params, x, workspace=1), TypeError, "workspace must be a tuple of 2 parts"),
        (lambda: deep.backward(params, tape_both, x), TypeError, "tape must be what forward of this stack returned, got Both"),
        (lambda: both.backward(params_both, tape, x), TypeError, "tape must be what forward of this layer returned, got Tape"),
        (
            lambda: deep.backward(params, tape, x),
            ValueError,
            "dy has shape (5, 3, 3), expected [T, B, output_size] = (5, 3, 4)",
        ),
        (lambda: both.backward(params_both, tape_both, x), ValueError, "dy has shape (5, 3, 3), expected [T, B, output_size]"),
        (lambda: deep.backward(params, tape, 1.0), TypeError, "dy must be an array [T, B, output_size], got float"),
        (
            lambda: both.step(params_both, x[0], state_both),
            TypeError,
            "step needs a causal layer; Bidirectional reads the whole",
        ),
        (lambda: both.pack(params_both), TypeError, "Bidirectional reads the whole sequence and has no steps"),
        (lambda: deep.step(params, x, state), TypeError, "x_t must be an array [B, 3], got (5, 3, 3)"),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert message in str(caught.value)


# --- imports -----------------------------------------------------------------------------------------------------------


def imported(code: str) -> list[str]:
    """The modules that are loaded after ``code``."""
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True)
    return done.stdout.split()


def test_importing_loads_no_more_than_it_must() -> None:
    assert "cellspec.layers" not in imported("import cellspec")
    assert "cellspec.layers" not in imported("from cellspec.cli import main\nmain(['--help'], standalone_mode=False)")
    loaded = imported("from cellspec import layers")
    assert "cellspec.layers.storage" in loaded
    assert not {"sympy", "yaml", "jinja2", "safetensors", "cupy", "click"} & set(loaded)
