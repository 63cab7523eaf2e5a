"""Parts of the layers: masks, noise, what a module tells of itself, and how nested arguments are taken apart."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from layer_support import layer, module

from cellspec.layers.around import Around
from cellspec.layers.masks import turned, within
from cellspec.layers.modules import Held, array_library, check_dims, checked, shapes_of, untold_dims
from cellspec.layers.noise import Stream, check_rate, check_rng, dropout, streams
from cellspec.layers.protocol import expect_shape, parts

# --- masks ----------------------------------------------------------------------------------------------------------------


def test_which_steps_come_before_the_ends() -> None:
    np.testing.assert_array_equal(within([2, 0, 3], 3, np), [[1, 0, 1], [1, 0, 1], [0, 0, 1]])


def cuts(*steps: int, reverse: bool = False, lengths: Any = None) -> list[int]:
    """Where the resets of one sample of 4 steps are for a run in the other direction."""
    resets = np.zeros((4, 1), bool)
    resets[list(steps)] = True
    return np.flatnonzero(turned(resets, lengths, reverse, np)).tolist()


def test_what_was_reset_apart_stays_apart() -> None:
    """A cut between t - 1 and t is before t read forwards, and before t - 1 read backwards."""
    assert cuts(2) == [1] and cuts(2, reverse=True) == [3]
    assert cuts(0) == [] and cuts(3, reverse=True) == [], "nothing lies beyond"
    assert cuts(1, 3) == [0, 2]
    assert cuts(3, lengths=[3]) == [], "behind the end there is no cut"


# --- noise ----------------------------------------------------------------------------------------------------------------


def test_dropout_has_mean_one() -> None:
    mask = dropout(np.random.default_rng(0), (100, 100), 0.25, np.float32, np)
    assert mask.dtype == np.float32 and set(np.unique(mask)) == {0.0, np.float32(1 / 0.75)}
    assert abs(mask.mean() - 1) < 0.02 and abs((mask == 0).mean() - 0.25) < 0.02


def test_the_masks_of_a_state() -> None:
    zoneout, dropped = Stream("h_zoneout", (3,), 0.5), Stream("h_dropout", (3,), 0.5)
    assert (zoneout.values(4, 2, np.float64, np, None) == 0.5).all(), "the expectation, for evaluation"
    assert (dropped.values(4, 2, np.float64, np, None) == 1.0).all()
    drawn = zoneout.values(4, 200, np.float64, np, np.random.default_rng(0))
    assert drawn.shape == (4, 200, 3) and set(np.unique(drawn)) == {0.0, 1.0} and (drawn[0] != drawn[1]).any()
    held = dropped.values(4, 200, np.float64, np, np.random.default_rng(0))
    assert (held == held[0]).all() and set(np.unique(held)) == {0.0, 2.0}, "one mask for all steps"


def test_which_masks_a_cell_asks_for() -> None:
    shapes = {"h_dropout": (3,), "c_zoneout": (2,), "h_zoneout": (3,)}
    found = streams(shapes, {"c": 0.1}, 0.3, "small")
    assert found == (Stream("h_dropout", (3,), 0.3), Stream("c_zoneout", (2,), 0.1), Stream("h_zoneout", (3,), 0.0))
    assert streams({}, 0.0, 0.0, "small") == ()


@pytest.mark.parametrize(
    ("shapes", "zoneout", "message"),
    [
        ({}, 0.1, "zoneout: the cell small has no masks for it; make one by cellspec.regularise"),
        ({"h_zoneout": (3,)}, {"c": 0.1}, "zoneout of c: the cell small has no input c_zoneout"),
        ({"h_zoneout": (3,)}, 1.0, "zoneout is 1.0, expected a number from 0 to less than 1"),
        ({"y": (3,)}, 0.0, "Layer takes a cell with one input; small also reads y"),
    ],
)
def test_masks_that_do_not_fit(shapes: dict[str, tuple[int, ...]], zoneout: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        streams(shapes, zoneout, 0.0, "small")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), "0.5", None])
def test_what_is_no_rate(rate: Any) -> None:
    with pytest.raises(ValueError, match="dropout is"):
        check_rate("dropout", rate)


def test_what_is_no_generator() -> None:
    check_rng(None)
    check_rng(np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator or None, got int"):
        check_rng(0)


# --- modules --------------------------------------------------------------------------------------------------------------


def test_what_a_module_tells_of_itself() -> None:
    lstm = module("lstm")
    assert checked(lstm) is lstm
    dims = check_dims(lstm, {"H": np.int64(4), "I": 3})
    assert dims == {"H": 4, "I": 3} and all(type(value) is int for value in dims.values())
    assert shapes_of(lstm.PARAM_SHAPES, dims)["Wi"] == (4, 3) and shapes_of(lstm.INPUT_SHAPES, dims) == {"x": (3,)}
    assert array_library(lstm) is np
    assert untold_dims(lambda params, I: None, dims) == {"I": 3}  # noqa: E741


@pytest.mark.parametrize(
    ("dims", "error", "message"),
    [
        ({"H": 4}, TypeError, "the dims of lstm are H, I; got H"),
        ({}, TypeError, "got none"),
        ({"H": 4, "I": 3, "K": 2}, TypeError, "got H, I, K"),
        ({"H": 0, "I": 3}, ValueError, "H is 0, expected an integer, 1 or more"),
        ({"H": True, "I": 3}, ValueError, "H is True, expected an integer"),
        ({"H": 4.0, "I": 3}, ValueError, "H is 4.0, expected an integer"),
    ],
)
def test_dims_that_do_not_fit(dims: dict[str, Any], error: type[Exception], message: str) -> None:
    lstm = module("lstm")
    expected = message.replace("H, I;", f"{', '.join(lstm.DIMS)};")
    with pytest.raises(error) as caught:
        check_dims(lstm, dims)
    assert expected in str(caught.value)


def test_copies_hold_the_same_module() -> None:
    held = Held(module("lstm"))
    assert copy.copy(held) is held and copy.deepcopy(held) is held
    assert pickle.loads(pickle.dumps(held)).module is held.module


# --- nested arguments -----------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "first second")
Turned = namedtuple("Turned", "second first")
Other = namedtuple("Other", "one two")


def test_parts_of_nested_layers() -> None:
    assert parts("state", None, 2) == (None, None) and parts("state", (1, 2), 2) == (1, 2)
    assert parts("state", Turned(2, 1), 2, Pair) == (1, 2), "by the names of the fields"
    with pytest.raises(TypeError, match=r"state must be Pair\(first, second\), got Other\(one, two\)"):
        parts("state", Other(1, 2), 2, Pair)
    with pytest.raises(TypeError, match="state must be a tuple of 2 parts, one for each layer, got 3 parts"):
        parts("state", (1, 2, 3), 2)
    with pytest.raises(TypeError, match="got ndarray"):
        parts("state", np.zeros(2), 2)


def test_shapes_of_arguments() -> None:
    expect_shape("x", np.zeros((2, 3)), (2, 3), "[B, I]")
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), expected \[B, I\] = \(2, 4\)"):
        expect_shape("x", np.zeros((2, 3)), (2, 4), "[B, I]")
    with pytest.raises(TypeError, match=r"x must be an array \[B, I\], got list"):
        expect_shape("x", [[0.0]], (1, 1), "[B, I]")
    with pytest.raises(TypeError, match="got MaskedArray"):
        expect_shape("x", np.ma.zeros((2, 3)), (2, 3), "[B, I]")


def test_a_layer_around_another_has_what_that_has() -> None:
    inside = layer("lstm", 3, 4)
    around = Around(inside)
    assert (around.input_size, around.output_size, around.causal) == (3, 4, True)
    assert around.facts() == inside.facts() and around.flops(5, 2) == inside.flops(5, 2) and around.xp is np
    assert around.parameter_count == inside.parameter_count
    params = around.init_params(np.random.default_rng(0))
    assert type(params) is type(inside.template) is type(around.template)
    assert around.init_state(params, 2).h.shape == (2, 4)
    assert type(around.pack(params)) is type(inside.pack(params))
    assert type(around.workspace(params, 3, 2)) is type(inside.workspace(params, 3, 2))
