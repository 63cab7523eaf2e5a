"""Comparisons and reports: which error is allowed, which row is the worst, and what is said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cellspec.verification.comparison import FLOORS, Compared, Log, Report, Row, largest

F64 = np.dtype(np.float64)


def row(error: float, tolerance: float = 1e-10, quantity: str = "y", dtype: str = "float64", setting: str = "T=3") -> Row:
    return Row(quantity, setting, dtype, error, tolerance)


def compared(got: Any, expected: Any, spread: Any = 0.0) -> Compared:
    return Compared(got, np.asarray(expected, float), lambda: np.broadcast_to(spread, np.shape(expected)))


def only(log: Log) -> Row:
    (found,) = log.rows
    return found


# --- rows and reports ---------------------------------------------------------------------------------------------------


def test_a_row_is_good_within_its_tolerance() -> None:
    assert row(1e-10).ok and row(0.0, 0.0).ok
    assert not row(1.1e-10).ok and not row(math.nan).ok and not row(math.inf).ok


def test_a_report_needs_a_comparison_and_no_fault() -> None:
    assert Report("cell", 0, (row(0.0),)).ok
    assert not Report("cell", 0, ()).ok, "nothing was compared"
    assert not Report("cell", 0, (row(0.0),), ("y is missing",)).ok
    assert not Report("cell", 0, (row(0.0), row(1.0))).ok


def test_the_worst_row_is_the_one_that_comes_nearest_its_tolerance() -> None:
    near, far, wrong = row(5e-11), row(5e-11, 1.0), row(1.0)
    assert Report("cell", 0, (far, near)).worst() == (near,)
    assert Report("cell", 0, (near, wrong, far)).worst() == (wrong,)
    assert Report("cell", 0, (near, row(1e-300, 0.0))).worst() == (row(1e-300, 0.0),), "nothing was allowed"
    for none in (math.nan, math.inf):
        (found,) = Report("cell", 0, (wrong, row(none), near)).worst()
        assert not math.isfinite(found.error)


def test_each_quantity_and_dtype_has_its_worst() -> None:
    rows = (row(1e-12), row(1e-11, dtype="float32"), row(1e-13, quantity="d W"))
    assert {(r.quantity, r.dtype) for r in Report("cell", 0, rows).worst()} == {
        ("y", "float64"),
        ("y", "float32"),
        ("d W", "float64"),
    }


def test_what_a_report_says() -> None:
    good = Report("gate", 3, (row(0.0), row(0.0)))
    assert str(good) == "gate, seed 3:\n2 comparisons, all within tolerance"
    bad = Report("gate", -1, (row(0.0), row(2.0)), ("h is missing",))
    assert str(bad) == "gate:\nh is missing\ny (T=3, float64): error 2.0e+00 > 1.0e-10"


# --- comparisons --------------------------------------------------------------------------------------------------------


def test_errors_are_relative_to_the_largest_element() -> None:
    log = Log()
    log.compare({"y": compared([1.0, 100.0 + 1e-7], [1.0, 100.0])}, "T=1", F64, 1e-8)
    assert only(log).error == pytest.approx(1e-9) and only(log).ok and not log.faults


def test_a_small_array_is_compared_beside_the_large_ones_of_its_group() -> None:
    """Or beside what they were made from: its errors are theirs."""
    group = {"small": compared([1e-9 + 1e-12], [1e-9]), "large": compared([1.0], [1.0])}
    log = Log()
    log.compare(group, "T=1", F64, 1e-8, around=1e-9)
    assert log.rows[0].error == pytest.approx(1e-12 / FLOORS["float64"], rel=1e-3)
    alone = Log()
    alone.compare({"small": group["small"]}, "T=1", F64, 1e-8, around=1e-9)
    assert only(alone).error == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (np.zeros(3), "y (T=1) is float64(3,), not float64(2,)"),
        (np.zeros(2, np.float32), "y (T=1) is float32(2,), not float64(2,)"),
        (np.zeros(2, int), "y (T=1) is int64(2,), not float64(2,)"),
    ],
)
def test_shapes_and_dtypes_must_be_right(got: Any, message: str) -> None:
    log = Log()
    log.compare({"y": compared(got, [0.0, 0.0])}, "T=1", F64, 1.0)
    assert log.faults == [message] and not log.rows


def test_infinities_are_equal_to_themselves_alone() -> None:
    log = Log()
    log.compare({"y": compared([np.inf, 1.0], [np.inf, 1.0])}, "T=1", F64, 1e-10)
    assert only(log).error == 0.0
    for wrong in (-np.inf, np.nan, 1.0):
        other = Log()
        other.compare({"y": compared([wrong, 1.0], [np.inf, 1.0])}, "T=1", F64, 1e-10)
        assert not only(other).ok, wrong


def test_an_element_may_be_off_as_far_as_rounding_moves_it() -> None:
    """And no other one: the worst beside its own allowance is told."""
    log = Log()
    log.compare({"y": compared([1.0 + 1e-3, 2.0], [1.0, 2.0], spread=[1e-2, 0.0])}, "T=1", F64, 1e-10)
    assert only(log).ok
    log = Log()
    log.compare({"y": compared([1.0 + 1e-3, 2.0 + 1e-6], [1.0, 2.0], spread=[1e-2, 0.0])}, "T=1", F64, 1e-10)
    assert not only(log).ok and only(log).error == pytest.approx(0.5e-6) and only(log).tolerance == 1e-10


@pytest.mark.parametrize(("second", "ok"), [(2.0, True), (2.1, False)])
def test_what_has_no_value_in_this_dtype_is_left_out(second: float, ok: bool) -> None:
    """And hides nothing: the other elements are judged."""
    log = Log()
    log.compare({"y": compared([np.inf, second], [1.0, 2.0], spread=[np.inf, 0.0])}, "T=1", F64, 1e-10)
    assert only(log).ok is ok


def test_the_spread_is_asked_for_where_it_matters_alone() -> None:
    def never() -> Any:
        raise AssertionError

    Log().compare({"y": Compared(np.ones(2), np.ones(2), never)}, "T=1", F64, 1e-10)


def test_the_largest_finite_magnitude() -> None:
    assert largest(np.array([1.0, -3.0, np.inf, np.nan])) == 3.0 and largest(np.zeros((0,))) == 0.0
