"""The run-time functions of generated NumPy modules that look at arguments and find cuts, by themselves.

The names that a module defines elsewhere are given to the file as it would find them there.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from cellspec.backends.numpy.runtime import arguments, begun, cuts, expected, lags, run, within


class Params(NamedTuple):
    """The parameters of a cell."""

    W: Any
    b: Any


@pytest.fixture(autouse=True)
def around(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a module has besides."""
    monkeypatch.setattr(arguments, "_is_array", expected._is_array, raising=False)
    monkeypatch.setattr(arguments, "_fields", lambda name, value, kind: value, raising=False)
    monkeypatch.setattr(arguments, "Params", Params, raising=False)


# --- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1.0], TypeError, r"x must be a NumPy array of shape \[B\], got list"),
        (np.ma.array([1.0]), TypeError, "got MaskedArray"),
        (np.zeros(2, np.float32), TypeError, "x has dtype float32, expected float64"),
        (np.zeros(3), ValueError, r"x has shape \(3,\), expected \[B\] = \(2,\)"),
    ],
)
def test_an_array_that_is_not_what_is_expected(value: Any, error: type[Exception], message: str) -> None:
    expected._expect("x", np.zeros(2), np.dtype(np.float64), (2,), "[B]")
    with pytest.raises(error, match=message):
        expected._expect("x", value, np.dtype(np.float64), (2,), "[B]")


def test_a_dim_is_read_off_an_axis() -> None:
    assert expected._axis("x", np.zeros((2, 3)), 2, 1, "[B, I]") == 3
    with pytest.raises(ValueError, match=r"x has shape \(2,\), expected \[B, I\]"):
        expected._axis("x", np.zeros(2), 2, 1, "[B, I]")
    with pytest.raises(TypeError, match="got int"):
        expected._axis("x", 3, 2, 1, "[B, I]")


def test_what_the_host_reads() -> None:
    assert arguments._on_host("lengths", [1, 2]).tolist() == [1, 2]
    with pytest.raises(TypeError, match="lengths must be a NumPy array or a list, got MaskedArray"):
        arguments._on_host("lengths", np.ma.array([1]))


def test_parameters_are_those_of_the_tape() -> None:
    """Equal numbers will do, nan among them; a change in place is found at the first and the last number."""
    params = Params(np.array([1.0, np.nan]), np.zeros(0))
    tape: Any = SimpleNamespace(params=params, marks=arguments._marks(params))
    assert tape.marks[0] == 1 and len(tape.marks) == 2
    arguments._check_same(params, tape)
    arguments._check_same(Params(params.W.copy(), params.b.copy()), tape)
    with pytest.raises(ValueError, match=r"params\.W has other values than in forward"):
        arguments._check_same(Params(np.ones(2), params.b), tape)
    params.W[0] = 2
    with pytest.raises(ValueError, match="params have been changed since forward"):
        arguments._check_same(params, tape)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1.0, TypeError, "k must be an integer, got float"),
        (True, TypeError, "got bool"),
        (0, ValueError, "k is 0, expected 1 or more"),
    ],
)
def test_a_length(value: Any, error: type[Exception], message: str) -> None:
    arguments._size("k", np.int64(1), 1)
    with pytest.raises(error, match=message):
        arguments._size("k", value, 1)


def test_the_interval_is_that_of_the_workspace() -> None:
    workspace: Any = SimpleNamespace(checkpoint=4)
    assert arguments._interval(None) is None and arguments._interval(3) == 3
    assert arguments._interval(None, workspace) == arguments._interval(4, workspace) == 4
    with pytest.raises(ValueError, match="checkpoint is 3, but workspace was made with checkpoint=4"):
        arguments._interval(3, workspace)


def test_dtypes() -> None:
    assert arguments._float_dtype("float32") == np.float32
    assert arguments._params_dtype(Params(np.zeros(1, np.float32), None)) == np.float32
    with pytest.raises(TypeError, match="dtype is float16"):
        arguments._float_dtype(np.float16)
    with pytest.raises(TypeError, match=r"params\.W has dtype int64"):
        arguments._params_dtype(Params(np.zeros(1, np.int64), None))
    with pytest.raises(TypeError, match=r"params\.W must be a NumPy array, got list"):
        arguments._params_dtype(Params([1.0], None))


# --- cuts and segments -------------------------------------------------------------------------------------------------


def test_samples_by_the_step_at_which_they_begin() -> None:
    found = begun._by_step(np.array([1, 1, 4]), np.array([0, 2, 1]))
    assert {t: columns.tolist() for t, columns in found.items()} == {1: [0, 2], 4: [1]}
    assert begun._by_step(np.zeros(0, int), np.zeros(0, int)) == {}


@pytest.mark.parametrize("axis", [0, 1])
def test_the_spec_s_own_state_lies_behind_the_samples(axis: int) -> None:
    first = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found = begun._firsts(first, 7.0, axis)
    assert found.take(range(first.shape[axis]), axis).tolist() == first.tolist()
    assert set(found.take([-1], axis).ravel()) == {7.0} and found.shape[axis] == first.shape[axis] + 1


def test_cuts_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(cuts, "_Cuts", lambda masks, start, T: made.append((start, T)) or SimpleNamespace(), raising=False)
    whole: Any = SimpleNamespace(resets=None, lengths=np.array([4, 4]), cuts={})
    short: Any = SimpleNamespace(resets=None, lengths=np.array([4, 3]), cuts={})
    assert cuts._cuts(None, 0, 4) is None and cuts._cuts(whole, 0, 4) is None and cuts._cuts(short, 0, 3) is None
    assert cuts._cuts(short, 2, 2) is cuts._cuts(short, 2, 2) and made == [(2, 2)]
    put_back: Any = SimpleNamespace(resets=np.zeros((4, 2), bool), lengths=np.array([4, 4]), cuts={})
    assert cuts._cuts(put_back, 0, 4) is not None


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """``[T + K, B, 1]`` of T = 4 steps, K = 2 rows before them, and two samples: row i of sample b is 10*b + i."""
    monkeypatch.setattr(lags, "_by_step", begun._by_step, raising=False)
    monkeypatch.setattr(lags, "_firsts", begun._firsts, raising=False)
    return np.arange(6.0)[:, None, None] + np.array([0.0, 10.0])[None, :, None]


def cut_at(steps: list[int], columns: list[int], sources: list[int], lengths: list[int]) -> Any:
    """Samples that begin anew before steps, from what other samples were given or (-1) from the spec's own."""
    given = [np.array(each, int) for each in (steps, columns, sources)]
    begins = begun._by_step(given[0], given[1])
    return SimpleNamespace(steps=given[0], columns=given[1], sources=given[2], begins=begins, lengths=np.array(lengths))


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [[1, 2, 7, 4], [11, 12, 13, 1]]), (2, [[0, 1, 7, 7], [10, 11, 12, 0]])],
)
def test_what_is_read_far_back(k: int, expected: list[list[float]], history: np.ndarray) -> None:
    """Behind a beginning, what was given before it: the spec's number, or the first rows of another sample."""
    whole, before = np.empty((4, 2, 1)), np.empty((4, 2, 1))
    lags._earlier(history, whole, k, None, 7.0)
    np.testing.assert_array_equal(whole, history[2 - k : 6 - k])
    lags._earlier(history, before, k, cut_at([2, 3], [0, 1], [-1, 0], [4, 4]), 7.0)
    assert before[:, :, 0].T.tolist() == expected


def test_what_is_left_far_back(history: np.ndarray) -> None:
    """The newest first, of each sample up to its own end."""
    whole = lags._kept(history, 2, 4, None, 7.0)
    assert whole[:, :, 0].tolist() == [[5, 4], [15, 14]]
    found = lags._kept(history, 2, 4, cut_at([3], [0], [-1], [4, 2]), 7.0)
    assert found[:, :, 0].tolist() == [[5, 7], [13, 12]]


def test_what_steps_have_left(history: np.ndarray) -> None:
    assert lags._window(history, 2, 3).tolist() == history[3:5].tolist()
    assert lags._window(history, 0, 3) is history


def test_segments_in_which_there_is_a_step() -> None:
    memory: Any = SimpleNamespace(bounds=[(0, 2), (2, 4), (4, 5)])
    masks: Any = SimpleNamespace(lengths=np.array([1, 3]))
    assert run._run(memory, None) == memory.bounds
    assert run._run(memory, masks) == [(0, 2), (2, 4)]


def test_memory_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    larger = [np.zeros((3, 2)), np.zeros(4)]
    monkeypatch.setattr(within, "_arrays", lambda memory: list(memory), raising=False)
    empty = within._within(larger)
    first, second = empty((2, 2), np.float64), empty((3,), np.float64)
    first[...], second[...] = 1, 2
    assert larger[0].tolist() == [[1, 1], [1, 1], [0, 0]] and larger[1].tolist() == [2, 2, 2, 0]
