"""Blocks: arrays that are never needed at once share memory, and no others do."""

from __future__ import annotations

import sympy

from cellspec.backends.memory.arena import Arena, Need, arrange
from cellspec.backends.memory.model import B, Owner, T

D, H = sympy.symbols("D H")
SEQUENCE = T * B * H


def sizes(arena: Arena) -> list[sympy.Expr]:
    return [block.size for block in arena.blocks]


def test_one_after_the_other_share_a_block() -> None:
    arena = arrange([Need("a", SEQUENCE, 0, 3), Need("b", SEQUENCE, 4, 6)])
    assert sizes(arena) == [SEQUENCE]
    assert arena.places["a"] == arena.places["b"]
    assert arena.blocks[0].owner is Owner.SCRATCH


def test_at_the_same_moment_they_do_not() -> None:
    arena = arrange([Need("a", SEQUENCE, 0, 4), Need("b", SEQUENCE, 4, 6)])
    assert sizes(arena) == [SEQUENCE, SEQUENCE]


def test_two_small_ones_lie_side_by_side_in_a_large_one() -> None:
    arena = arrange([Need("wide", 2 * SEQUENCE, 0, 1), Need("a", SEQUENCE, 2, 3), Need("b", SEQUENCE, 3, 4)])
    assert sizes(arena) == [2 * SEQUENCE]
    assert {arena.places[name].start for name in ("a", "b")} == {0, SEQUENCE}


def test_what_comes_later_takes_the_first_room_there_is() -> None:
    needs = [Need("a", 4 * H * T, 0, 2), Need("b", H * T, 3, 4), Need("c", H * T, 3, 5), Need("d", 4 * H * T, 6, 7)]
    arena = arrange(needs)
    assert sizes(arena) == [4 * H * T]
    assert [arena.places[name].start for name in "abcd"] == [0, 0, H * T, 0]


def test_one_fits_only_if_it_does_for_all_dims() -> None:
    arena = arrange([Need("a", T * B * H, 0, 1), Need("b", T * B * D, 2, 3)])
    assert len(arena.blocks) == 2


def test_guests_are_in_the_order_of_time() -> None:
    arena = arrange([Need("late", SEQUENCE, 4, 6), Need("early", SEQUENCE, 0, 3)])
    assert arena.guests == (("early", "late"),)


def test_the_order_of_needs_does_not_matter() -> None:
    needs = [Need("a", SEQUENCE, 0, 1), Need("b", 2 * SEQUENCE, 1, 2), Need("c", SEQUENCE, 2, 3)]
    assert arrange(needs).places == arrange(reversed(needs)).places
