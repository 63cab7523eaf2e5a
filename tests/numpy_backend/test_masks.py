"""Lengths, resets and reverse of NumPy modules: every batch against its episodes, run one by one."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episodes import Masks, Results, alone, masked, random_masks
from support import ROOT, cell_from, cell_of, draw, generator, leaves, module_of, part, same_bits

import cellspec
from cellspec.verification.sampling import Sample

KINDS = ("lengths", "resets", "reverse", "lengths resets", "lengths reverse", "resets reverse", "lengths resets reverse")
LSTM = ROOT / "specs" / "lstm.yaml"


def agree(one: Results, other: Results, tolerance: float = 1e-11) -> None:
    """Every array is close, relative to the largest of its kind."""
    for kind, arrays in asdict(one).items():
        for name, value in arrays.items():
            expected = asdict(other)[kind][name]
            scale = max(1e-3, float(np.max(np.abs(expected), initial=0)))
            worst = float(np.max(np.abs(value - expected), initial=0))
            assert worst <= tolerance * scale, f"{kind} {name}: {worst:.2e} of {scale:.2e}"


def spoilt(drawn: Sample, masks: Masks) -> Sample:
    """The same call with NaN in what must not be read."""
    steps = len(next(iter(drawn.x.values())))
    if masks.lengths is None:
        return drawn
    behind = np.arange(steps)[:, None] >= masks.lengths
    for array in (*drawn.x.values(), *drawn.dy.values()):
        array[behind] = np.nan
    return drawn


def test_a_batch_is_its_episodes(path: Path) -> None:
    module, cell = module_of(path), cell_of(path)
    rng = generator(3)
    for steps, batch, kinds in ((7, 4, KINDS[-1]), (19, 2, "lengths resets")):
        masks = random_masks(rng, steps, batch, kinds)
        drawn = draw(cell, steps=steps, batch=batch)
        agree(masked(module, spoilt(drawn, masks), masks), alone(module, draw(cell, steps=steps, batch=batch), masks))


@pytest.mark.parametrize("kinds", KINDS)
def test_each_kind_alone_and_with_the_others(kinds: str) -> None:
    module, cell = module_of(LSTM), cell_of(LSTM)
    for seed in range(4):
        masks = random_masks(generator(seed), 6, 5, kinds)
        drawn = draw(cell, steps=6, batch=5, seed=seed)
        agree(masked(module, spoilt(drawn, masks), masks), alone(module, draw(cell, steps=6, batch=5, seed=seed), masks))


@pytest.mark.parametrize("interval", [1, 2, 3, 7, 10])
def test_checkpoints_change_nothing(interval: int) -> None:
    for name in ("lstm", "qrnn_fo", "clockwork"):
        path = ROOT / "specs" / f"{name}.yaml"
        module, drawn = module_of(path), draw(cell_of(path), steps=10, batch=4)
        masks = random_masks(generator(interval), 10, 4)
        agree(masked(module, drawn, masks, checkpoint=interval), masked(module, drawn, masks), 1e-13)


def test_a_workspace_serves_calls_of_every_kind_in_turn() -> None:
    for name in ("lstm", "qrnn_fo", "mingru"):
        path = ROOT / "specs" / f"{name}.yaml"
        module, drawn = module_of(path), draw(cell_of(path), steps=6, batch=4)
        params = drawn.module_params(module)
        for workspace in (module.Workspace(6, 4, params), module.Workspace(6, 4, params, checkpoint=4)):
            for kinds in ("", "lengths", "", "lengths resets", "", "resets reverse", "lengths"):
                masks = random_masks(generator(5), 6, 4, kinds) if kinds else Masks()
                agree(masked(module, drawn, masks, workspace=workspace), masked(module, drawn, masks), 1e-13)


def test_whole_lengths_and_no_resets_change_no_bit(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path), steps=4, batch=3)
    masks = Masks(np.array([4, 4, 4]), np.zeros((4, 3), bool))
    for kind, arrays in asdict(masked(module, drawn, masks)).items():
        for name, value in arrays.items():
            assert same_bits(value, asdict(masked(module, drawn, Masks()))[kind][name]), f"{kind} {name}"


def test_steps_before_the_end_have_the_bits_of_a_run_without_lengths(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path), steps=5, batch=4)
    masks = Masks(np.array([0, 2, 5, 3]))
    whole = masked(module, drawn, Masks())
    for name, y in masked(module, drawn, masks).y.items():
        for b, length in enumerate([0, 2, 5, 3]):
            assert same_bits(y[:length, b], whole.y[name][:length, b])
            assert not y[length:, b].any()


def test_gradients_behind_the_end_are_exactly_zero(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path), steps=5, batch=4)
    for kinds in ("lengths", "lengths resets reverse"):
        masks = random_masks(generator(2), 5, 4, kinds)
        assert masks.lengths is not None
        behind = np.arange(5)[:, None] >= masks.lengths
        assert not any(dx[behind].any() for dx in masked(module, drawn, masks).x.values())


def test_a_sample_without_steps_returns_its_state_and_its_cotangent(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path), steps=3, batch=3)
    found = masked(module, drawn, Masks(np.array([0, 3, 0]), np.ones((3, 3), bool)))
    for name, final in found.final.items():
        given = np.asarray((drawn.state or {})[name])
        assert same_bits(final[[0, 2]], given[[0, 2]])
        assert same_bits(found.state[name][[0, 2]], drawn.dfinal[name][[0, 2]])
        assert not found.state[name][1].any()  # it was reset


def test_nothing_is_read_of_samples_without_steps() -> None:
    module, cell = module_of(LSTM), cell_of(LSTM)
    masks = Masks(np.zeros(3, np.int64))
    found = masked(module, spoilt(draw(cell, steps=4, batch=3), masks), masks)
    assert not any(array.any() for arrays in (found.y, found.params, found.x) for array in arrays.values())


def test_chunks_with_masks_are_the_whole(path: Path) -> None:
    """Truncated back-propagation is that, with the final state's cotangent left out: forward passes agree bit for bit."""
    module, cell = module_of(path), cell_of(path)
    drawn = draw(cell, steps=9, batch=4)
    masks = random_masks(generator(7), 9, 4, "lengths resets")
    assert masks.lengths is not None and masks.resets is not None
    whole = masked(module, drawn, masks)
    params, state, parts = drawn.module_params(module), drawn.module_state(module), []
    for start, stop in ((0, 4), (4, 9)):
        chunk = part(drawn, slice(start, stop), 0)
        lengths = np.clip(masks.lengths - start, 0, stop - start)
        y, state, _ = module.forward(params, chunk.module_x(module), state, lengths=lengths, resets=masks.resets[start:stop])
        parts.append(leaves(y))
    for y, first, second in zip(whole.y.values(), *parts, strict=True):
        assert same_bits(y, np.concatenate([first, second]))
    for final, value in zip(whole.final.values(), state, strict=True):
        assert same_bits(final, np.asarray(value))


@pytest.mark.parametrize("lengths", [None, [0, 6, 4]])
def test_reversed_data_in_reverse_is_the_data(lengths: list[int] | None) -> None:
    module, drawn = module_of(LSTM), draw(cell_of(LSTM), steps=6, batch=3)
    turned = {name: np.array(array) for name, array in (*drawn.x.items(), *drawn.dy.items())}
    for array in turned.values():
        for b, length in enumerate(lengths or [6, 6, 6]):
            array[:length, b] = array[:length, b][::-1].copy()
    x, dy = ({name: turned[name] for name in arrays} for arrays in (drawn.x, drawn.dy))
    ends = None if lengths is None else np.array(lengths)
    found = masked(module, dataclasses.replace(drawn, x=x, dy=dy), Masks(ends, reverse=True))
    expected = masked(module, drawn, Masks(ends))
    for b, length in enumerate(lengths or [6, 6, 6]):
        assert same_bits(found.y["h"][:length, b][::-1], expected.y["h"][:length, b])
        assert same_bits(found.x["x"][:length, b][::-1], expected.x["x"][:length, b])
    for kind in ("final", "params", "state"):
        for name, array in asdict(found)[kind].items():
            assert same_bits(array, asdict(expected)[kind][name])


GROWING = """
name: growing
inputs: {x: I}
states: {h: H}
params: {W: [H, I]}
equations: |
  h[t] = 100*h[t-1] + W @ x[t]
"""


def test_what_grows_behind_the_end_does_no_harm() -> None:
    cell = cell_from(GROWING)
    module, short = cellspec.build(cell), draw(cell, steps=3, batch=2)
    masks = Masks(np.array([2, 3]))
    rest = {name: np.full((397, 2, *array.shape[2:]), np.nan) for name, array in (*short.x.items(), *short.dy.items())}
    long = dataclasses.replace(
        short,
        x={name: np.concatenate([array, rest[name]]) for name, array in short.x.items()},
        dy={name: np.concatenate([array, rest[name]]) for name, array in short.dy.items()},
    )
    found, expected = masked(module, long, masks), alone(module, short, masks)
    assert not found.y["h"][3:].any() and not found.x["x"][3:].any()
    cut = [{name: array[:3] for name, array in arrays.items()} for arrays in (found.y, found.x)]
    agree(dataclasses.replace(found, y=cut[0], x=cut[1]), expected)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lengths": [1.0, 2.0]}, TypeError, "lengths has dtype float64, expected integers"),
    ({"lengths": [True, False]}, TypeError, "lengths has dtype bool, expected integers"),
    ({"lengths": [1, 2, 3]}, ValueError, "lengths has shape (3,), expected [B] = (2,)"),
    ({"lengths": 2}, ValueError, "lengths has shape (), expected [B] = (2,)"),
    ({"lengths": [3, -1]}, ValueError, "lengths[1] is -1, expected 0 to T = 4"),
    ({"lengths": np.array([5, 1], np.uint8)}, ValueError, "lengths[0] is 5, expected 0 to T = 4"),
    ({"resets": np.zeros((4, 2))}, TypeError, "resets has dtype float64, expected bool"),
    ({"resets": np.zeros((2, 4), bool)}, ValueError, "resets has shape (2, 4), expected [T, B] = (4, 2)"),
    ({"reverse": 1}, TypeError, "reverse must be True or False, got int"),
    ({"reverse": None}, TypeError, "reverse must be True or False, got NoneType"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG, ids=[m for _, _, m in WRONG])
def test_a_wrong_mask_is_one_sentence(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    module, drawn = module_of(LSTM), draw(cell_of(LSTM), steps=4, batch=2)
    with pytest.raises(kind) as caught:
        module.forward(drawn.module_params(module), drawn.module_x(module), **options)
    assert str(caught.value) == message


NO_ENDS, NO_RESETS = np.zeros(2, np.int64), np.zeros((0, 2), bool)
NOTHING = (
    (0, 2, Masks(NO_ENDS)),
    (0, 2, Masks(resets=NO_RESETS)),
    (0, 2, Masks(reverse=True)),
    (0, 2, Masks(NO_ENDS, NO_RESETS, True)),
    (3, 2, Masks(NO_ENDS, np.ones((3, 2), bool), True)),
    (3, 0, Masks(NO_ENDS[:0], np.ones((3, 0), bool), True)),
)
"""Steps, samples and masks that leave nothing to be run."""


@pytest.mark.parametrize("options", [{}, {"checkpoint": 2}])
def test_where_there_is_no_step_nothing_is_computed(options: dict[str, int]) -> None:
    """Results are empty or zero, and the final state the given one: of parameters that would raise whatever was computed."""
    for name in ("lstm", "qrnn_fo", "clockwork", "slstm"):
        module, cell = module_of(ROOT / "specs" / f"{name}.yaml"), cell_of(ROOT / "specs" / f"{name}.yaml")
        for steps, batch, masks in NOTHING:
            drawn = draw(cell, steps=steps, batch=batch)
            for array in drawn.params.values():
                array[...] = np.inf
            with np.errstate(all="raise"):
                found = masked(module, spoilt(drawn, masks), masks, **options)
            assert all(array.shape == drawn.dy[name].shape and not array.any() for name, array in found.y.items())
            assert all(array.shape == drawn.x[name].shape and not array.any() for name, array in found.x.items())
            assert all(array.shape == drawn.params[name].shape and not array.any() for name, array in found.params.items())
            assert same_bits(tuple(found.final.values()), tuple((drawn.state or {}).values()))
            assert same_bits(tuple(found.state.values()), tuple(drawn.dfinal.values()))


def test_what_is_given_back_where_there_is_no_step_is_a_copy() -> None:
    module, drawn = module_of(LSTM), draw(cell_of(LSTM), steps=3, batch=2)
    params, state, (dy, dfinal) = drawn.module_params(module), drawn.module_state(module), drawn.upstream(module)
    workspace = module.Workspace(3, 2, params)
    _, final, tape = module.forward(params, drawn.module_x(module), state, lengths=[0, 0], workspace=workspace)
    grads = module.backward(params, tape, dy, dfinal, workspace=workspace)
    assert not any(np.shares_memory(a, b) for a, b in zip((*final, *grads.state), (*state, *dfinal), strict=True))
    assert not any(array.any() for array in module.backward(params, tape, dy).state)


def test_masks_of_no_steps_are_looked_at() -> None:
    module, drawn = module_of(LSTM), draw(cell_of(LSTM), steps=0, batch=2)
    for options, message in (
        ({"lengths": [0, 1]}, "lengths[1] is 1, expected 0 to T = 0"),
        ({"resets": np.zeros((1, 2), bool)}, "resets has shape (1, 2), expected [T, B] = (0, 2)"),
    ):
        with pytest.raises(ValueError) as caught:
            module.forward(drawn.module_params(module), drawn.module_x(module), **options)
        assert str(caught.value) == message


@pytest.mark.parametrize("steps", [1, 33])
def test_extreme_shapes(steps: int) -> None:
    for name in ("lstm", "qrnn_fo", "mingru"):
        module, cell = module_of(ROOT / "specs" / f"{name}.yaml"), cell_of(ROOT / "specs" / f"{name}.yaml")
        for batch in (0, 1, 2):
            drawn = draw(cell, steps=steps, batch=batch)
            lengths = np.zeros(batch, np.int64)
            for masks in (
                Masks(lengths),
                Masks(lengths + steps, np.ones((steps, batch), bool), True),
                Masks(lengths, reverse=True),
            ):
                agree(masked(module, drawn, masks), alone(module, drawn, masks))
