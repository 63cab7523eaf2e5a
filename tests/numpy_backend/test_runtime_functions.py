"""The run-time functions of generated modules by themselves: activations, copies, choices, initialisers, masks, turns.

The names that a module defines elsewhere are given to the file as it would find them there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cellspec.backends.numpy.runtime import activations, arrays
from cellspec.backends.numpy.runtime import turned as turning
from cellspec.backends.runtime import initialisers, masks

RNG = np.random.default_rng
POINTS = np.array([-800.0, -30.0, -1.5, -1e-300, 0.0, 1e-300, 1e-9, 0.7, 40.0, 800.0])

# --- activations -------------------------------------------------------------------------------------------

FORMULAS: dict[str, Callable[[float], float]] = {
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "erf": math.erf,
    "erfc": math.erfc,
    "gelu": lambda z: z / 2 * math.erfc(-z / math.sqrt(2)),
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)) if z > -700 else math.exp(z),
    "silu": lambda z: z / (1 + math.exp(-z)) if z > -700 else z * math.exp(z),
    "softsign": lambda z: z / (1 + abs(z)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations(name: str) -> None:
    """To rounding, from tiny numbers to those whose exponential is no float; without a warning; numbers like arrays."""
    function = getattr(activations, f"_{name}")
    wanted = np.array([FORMULAS[name](z) for z in POINTS])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = function(POINTS)
        alone = [float(function(z)) for z in POINTS.tolist()]
    np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=0)
    np.testing.assert_array_equal(found, alone)
    assert function(POINTS.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("name", ["erf", "erfc"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_error_functions_write_where_they_are_told(name: str, shape: tuple[int, ...]) -> None:
    """Also over what they read, as in a workspace."""
    function, z = getattr(activations, f"_{name}"), RNG(0).normal(size=shape).astype(np.float32)
    wanted, out = function(z), np.empty_like(z)
    assert function(z, out) is out and wanted.dtype == np.float32
    np.testing.assert_array_equal(out, wanted)
    function(z, z)
    np.testing.assert_array_equal(z, wanted)


# --- copies and choices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples_last", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 1, 1), (3, 0, 2)])
def test_move(shape: tuple[int, int, int], samples_last: bool) -> None:
    source = RNG(0).normal(size=shape)
    target = np.full(shape if samples_last else shape[::-1], np.nan)
    target = target if samples_last else target.transpose()
    arrays._move(source, target)
    np.testing.assert_array_equal(target, source)


def test_columns() -> None:
    """[T, n, B] as a matrix of n rows and T*B columns: a copy, or a view of one sample."""
    steps, buffer = RNG(0).normal(size=(4, 3, 2)), np.empty((3, 4, 2))
    found = arrays._columns(steps, buffer)
    np.testing.assert_array_equal(found, steps.transpose(1, 0, 2).reshape(3, 8))
    assert np.shares_memory(found, buffer)
    one = steps[:, :, :1].copy()
    found = arrays._columns(one, np.empty((3, 4, 1)))
    np.testing.assert_array_equal(found, one[:, :, 0].T)
    assert np.shares_memory(found, one)


@pytest.mark.parametrize(("size", "copied"), [(2, True), (362, True), (363, False)])
def test_from_left(size: int, copied: bool) -> None:
    weights = RNG(0).normal(size=(size, size))
    found = arrays._from_left(weights)
    np.testing.assert_array_equal(found, weights.T)
    assert np.shares_memory(found, weights) != copied and (size > 362 or found.flags.c_contiguous)


@pytest.mark.parametrize(
    ("shape", "T", "B", "copied"),
    [((256, 256), 32, 2, True), ((255, 256), 32, 2, False), ((256, 256), 31, 2, False), ((256, 256), 32, 1, False),
     ((300, 250), 40, 3, True)],
)  # fmt: skip
def test_transposed(shape: tuple[int, int], T: int, B: int, copied: bool) -> None:
    """Large weights are copied, as long as enough steps and samples read the copy."""
    weights, buffer = RNG(0).normal(size=shape), np.full(shape[::-1], np.nan)
    found = arrays._transposed(weights, T, B, buffer)
    np.testing.assert_array_equal(found, weights.T)
    assert (found is buffer) == copied and np.shares_memory(found, weights) != copied


def test_largest() -> None:
    """So that nothing infinite is subtracted from itself."""
    a = np.array([[1.0, 3.0, 2.0], [-math.inf, -math.inf, -math.inf], [1.0, math.inf, 0.0], [math.nan, 1.0, 2.0]])
    assert arrays._largest(a, 1).tolist() == [[3.0], [0.0], [0.0], [0.0]]
    out = np.empty((4, 1))
    assert arrays._largest(a, 1, out) is out and out.tolist() == [[3.0], [0.0], [0.0], [0.0]]


def test_where_may_write_over_what_it_reads() -> None:
    condition, a, b = np.array([1.0, 0.0, -2.0]), np.array([1.0, 2.0, 3.0]), np.array([-1.0, -2.0, -3.0])
    arrays._where(condition, a, b, condition)
    assert condition.tolist() == [1.0, -2.0, 3.0]
    arrays._where(np.array([0.0, 1.0, 0.0]), a, b, b)
    assert b.tolist() == [-1.0, 2.0, -3.0]


# --- initialisers ------------------------------------------------------------------------------------------

SHAPE = (3, 200, 400)


@pytest.mark.parametrize(
    ("name", "numbers", "low", "high", "std"),
    [
        ("glorot_normal", (), -0.4, 0.4, math.sqrt(2 / 600)),
        ("glorot_uniform", (), -0.1, 0.1, math.sqrt(6 / 600) / math.sqrt(3)),
        ("normal", (0.5,), -3, 3, 0.5),
        ("uniform", (), -0.05, 0.05, 0.05 / math.sqrt(3)),
        ("uniform", (2.0, 5.0), 2, 5, 3 / math.sqrt(12)),
        ("chrono", (20.0,), 0, math.log(19), None),
    ],
)
def test_initialisers(name: str, numbers: tuple[float, ...], low: float, high: float, std: float | None) -> None:
    function: Any = getattr(initialisers, f"_{name}")
    found = function(RNG(0), SHAPE, np.float32, *numbers)
    assert found.shape == SHAPE and found.dtype == np.float32 and low <= found.min() < found.max() <= high
    assert std is None or found.std() == pytest.approx(std, rel=0.01)
    np.testing.assert_array_equal(found, function(RNG(0), SHAPE, np.float32, *numbers))
    assert not np.array_equal(found, function(RNG(1), SHAPE, np.float32, *numbers))


def test_chrono_is_uniform_in_time() -> None:
    found = np.exp(initialisers._chrono(RNG(0), (100_000,), np.float64, 20.0))
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.5, 0.75]), [5.5, 10, 14.5], rtol=0.02)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 6, 3), (2, 3, 6), (1, 1)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    """Orthonormal rows or columns, of each matrix, in C order; and not always of the same sign."""
    found = initialisers._orthogonal(RNG(0), shape, np.float64)
    assert found.shape == shape and found.flags.c_contiguous
    products = found @ found.swapaxes(-1, -2) if shape[-2] <= shape[-1] else found.swapaxes(-1, -2) @ found
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(min(shape[-2:])), products.shape), atol=1e-14)
    signs = {float(np.sign(initialisers._orthogonal(RNG(seed), shape, np.float64).flat[0])) for seed in range(8)}
    assert signs == {-1.0, 1.0}


def test_identity() -> None:
    found = initialisers._identity(RNG(0), (2, 2, 3), np.float32)
    assert found.dtype == np.float32 and found.tolist() == 2 * [[[1, 0, 0], [0, 1, 0]]]


# --- masks -------------------------------------------------------------------------------------------------


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a module has to bring arguments to the host."""
    monkeypatch.setattr(masks, "_on_host", lambda name, value: np.asarray(value), raising=False)


@pytest.mark.usefixtures("host")
def test_masks() -> None:
    resets = np.zeros((4, 3), bool)
    resets[1, 0] = resets[3, 1] = resets[2, 2] = True
    assert masks._masks(None, None, False, 4, 3) is None
    found = masks._masks([4, 2, 0], resets, False, 4, 3)
    assert found is not None and found.index is None and found.lengths.tolist() == [4, 2, 0]
    assert found.behind.tolist() == [2, 5, 7, 8, 10, 11]  # t*3 + b
    assert np.argwhere(found.resets).tolist() == [[1, 0]]  # none behind an end
    turned = masks._masks([4, 2, 0], resets, True, 4, 3)
    assert turned is not None and turned.index is not None
    assert turned.index.T.tolist() == [[3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 2, 3]]
    assert np.argwhere(turned.resets).tolist() == [[2, 0]]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("lengths", "resets", "reverse", "error", "message"),
    [
        (None, None, 1, TypeError, "reverse must be True or False, got int"),
        ([1.0, 2.0], None, False, TypeError, "lengths has dtype float64, expected integers"),
        ([1], None, False, ValueError, r"lengths has shape \(1,\), expected \[B\] = \(2,\)"),
        ([1, 4], None, False, ValueError, r"lengths\[1\] is 4, expected 0 to T = 3"),
        ([-1, 1], None, False, ValueError, r"lengths\[0\] is -1, expected 0 to T = 3"),
        (None, np.zeros((3, 2)), False, TypeError, "resets has dtype float64, expected bool"),
        (None, np.zeros((2, 3), bool), False, ValueError, r"resets has shape \(2, 3\), expected \[T, B\] = \(3, 2\)"),
    ],
)
def test_masks_that_do_not_fit(lengths: Any, resets: Any, reverse: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        masks._masks(lengths, resets, reverse, 3, 2)


@pytest.mark.usefixtures("host")
def test_readings() -> None:
    """Behind its end a sample is run from its beginning again, or one without a step as the longest."""
    resets = np.zeros((5, 3), bool)
    resets[1] = True
    found = masks._masks([5, 2, 0], resets, False, 5, 3)
    assert found is not None
    lengths, rows, samples, put_back, again = masks._readings(found, 0, 5, as_itself=True)
    assert lengths.tolist() == [5, 2, 0]
    assert rows.T.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 0], [0, 1, 2, 3, 4]]
    assert samples.T.tolist() == [5 * [0], 5 * [1], 5 * [0]]
    assert np.argwhere(put_back.T).tolist() == [[0, 1], [1, 1], [1, 3], [2, 1]]
    assert np.argwhere(again.T).tolist() == [[1, 2], [1, 4], [2, 0]]
    *_, samples, _, _ = masks._readings(found, 0, 5, as_itself=False)
    assert samples.T.tolist() == [5 * [0], [1, 1, 0, 0, 0], 5 * [0]]
    lengths, rows, *_ = masks._readings(found, 3, 2, as_itself=True)  # the last two steps alone
    assert lengths.tolist() == [2, 0, 0] and rows.T.tolist() == 3 * [[0, 1]]


# --- sequences in turn -------------------------------------------------------------------------------------


class Room(dict[str, Any]):
    """A workspace, as far as sequences need one."""

    @property
    def turned(self) -> dict[str, Any]:
        return self

    @property
    def owner(self) -> Any:
        return SimpleNamespace(empty=lambda shape, dtype: np.full(shape, np.nan, dtype))


def of(lengths: list[int], T: int, *, reverse: bool = False) -> Any:
    """Masks of a call."""
    return masks._masks(lengths, None, reverse, T, len(lengths))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("ws", [None, Room()], ids=["alone", "workspace"])
def test_sequences_are_turned_and_turned_back(ws: Any) -> None:
    """Each sample from its own end; what lies behind an end is 0."""
    sequence = np.arange(1.0, 13.0).reshape(4, 3, 1)
    turned = turning._turned(of([4, 2, 0], 4, reverse=True), sequence, ws, "x")
    assert turned[:, :, 0].T.tolist() == [[10, 7, 4, 1], [5, 2, 0, 0], [0, 0, 0, 0]]
    back = turning._turned(of([4, 2, 0], 4, reverse=True), turned, None, "x")
    assert back[:, :, 0].T.tolist() == [[1, 4, 7, 10], [2, 5, 0, 0], [0, 0, 0, 0]]
    assert sequence.sum() == 78 and (ws is None or turned is ws["x"])
    ended = turning._turned(of([4, 2, 0], 4), sequence, None, "x")
    np.testing.assert_array_equal(ended, back)
    whole = turning._turned(of([4, 4, 4], 4, reverse=True), sequence, None, "x")
    assert np.shares_memory(whole, sequence) and whole[:, 0, 0].tolist() == [10, 7, 4, 1]


@pytest.mark.usefixtures("host")
def test_outputs_stay_where_they_are_if_they_are_in_order() -> None:
    y = np.ones((3, 2, 1))
    assert turning._given_back(of([3, 1], 3), y, None, "y") is y and y[:, 1, 0].tolist() == [1, 0, 0]
    y = np.arange(6.0).reshape(3, 2, 1)
    assert turning._given_back(of([3, 1], 3, reverse=True), y, None, "y")[:, :, 0].T.tolist() == [[4, 2, 0], [1, 0, 0]]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("reverse", [False, True])
def test_behind_its_end_a_samples_steps_are_read_again(reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps at a time: of samples that end within them from there, of one without steps there those of the longest."""

    def cuts(given: Any, start: int, T: int) -> Any:
        _, rows, samples, *_ = masks._readings(given, start, T, as_itself=False)
        return SimpleNamespace(rows=rows, samples=samples)

    monkeypatch.setattr(turning, "_cuts", cuts, raising=False)
    sequence = np.arange(8.0).reshape(4, 2, 1)  # 0 2 4 6 and 1 3 5 7
    found = turning._read(of([4, 1], 4, reverse=reverse), sequence, 2, None, "x")
    assert found[:, :, 0].T.tolist() == ([[6, 4, 2, 0], [1, 6, 2, 0]] if reverse else [[0, 2, 4, 6], [1, 0, 4, 6]])
    whole = turning._read(of([4, 4], 4, reverse=reverse), sequence, 2, None, "x")
    assert whole.flags.c_contiguous and whole[:, 0, 0].tolist() == ([6, 4, 2, 0] if reverse else [0, 2, 4, 6])
    assert (whole is sequence) != reverse


def test_room_is_made_once() -> None:
    ws, like = Room(), np.zeros((2, 3), np.float32)
    first = turning._room(ws, "x", like)
    assert turning._room(ws, "x", like) is first and first.shape == (2, 3) and first.dtype == np.float32
    assert turning._room(None, "x", like) is not turning._room(None, "x", like)
