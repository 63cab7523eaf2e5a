"""Buffers: their sizes, whether they grow, and the axes that their homes give them."""

from __future__ import annotations

import pytest
import sympy

from cellspec.backends.memory.model import B, Buffer, Home, Owner, Phase, Place, T, samples_first, size

D, H = sympy.symbols("D H")


def test_phases_are_in_the_order_of_time() -> None:
    assert [phase.name for phase in sorted(Phase)] == ["BEFORE", "LOOP", "AFTER"]


def test_a_size_is_a_polynomial_in_full() -> None:
    assert size((T + 1, H, B)) == T * H * B + H * B
    assert Buffer("flat", (4 * H, T, B), Owner.FORWARD, Home.FLAT).size == 4 * H * T * B


@pytest.mark.parametrize(("axes", "grows"), [((T + 1, B, H), True), ((H, B), False), ((), False)])
def test_what_has_steps_grows_with_them(axes: tuple[sympy.Expr, ...], grows: bool) -> None:
    assert Buffer("a", axes, Owner.FORWARD).grows is grows


def test_one_name_of_two_owners_is_two_buffers() -> None:
    assert Buffer("tmp", (H, B), Owner.FORWARD) != Buffer("tmp", (H, B), Owner.BACKWARD)


@pytest.mark.parametrize(
    ("home", "axes"),
    [
        (Home.STEP, (B, H)),
        (Home.SEQUENCE, (T, B, H)),
        (Home.HISTORY, (T + 1, B, H)),
        (Home.ROLLING, (2, B, H)),
        (Home.CONSTANT, (H,)),
    ],
)
def test_samples_first(home: Home, axes: tuple[sympy.Expr, ...]) -> None:
    assert samples_first(home, H) == axes
    assert Buffer("a", samples_first(home, H), Owner.TAPE, home).units == H


def test_what_lies_nowhere_has_no_axes() -> None:
    with pytest.raises(KeyError):
        samples_first(Home.GIVEN, H)


def test_a_place_begins_at_the_start_of_its_buffer() -> None:
    assert Place(Buffer("a", (D,), Owner.SCRATCH)).start == 0
