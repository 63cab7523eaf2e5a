"""Blocks of memory for arrays of one number a step and more: those that are never needed at once lie in the same place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import sympy

from cellspec.backends.numpy.statements import STEPS

NOMINAL = {STEPS: 1000}
"""How many steps there are when sizes are put in an order; every other size counts as :data:`NOMINAL_OTHER`."""

NOMINAL_OTHER = 64


@dataclass(frozen=True)
class Need:
    """An array of ``size`` numbers that is needed from one moment to another, both included."""

    name: str
    size: sympy.Expr
    first: int
    last: int

    def meets(self, other: Need) -> bool:
        """Whether there is a moment at which both are needed."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Place:
    """Where an array lies: in which block, and behind how many numbers."""

    block: int
    start: sympy.Expr


@dataclass(frozen=True)
class Blocks:
    """Blocks of memory, by their sizes, and the arrays' places in them."""

    sizes: tuple[sympy.Expr, ...]
    places: Mapping[str, Place]


def arrange(needs: Iterable[Need]) -> Blocks:
    """Give every array a place: the largest first, each in the first block with room for it at its time.

    Sizes are polynomials over the dims. One fits into another if no coefficient of their difference is negative: then it does
    whatever the dims are.
    """
    sizes: list[sympy.Expr] = []
    guests: list[list[tuple[Need, sympy.Expr]]] = []
    places: dict[str, Place] = {}
    for need in sorted(needs, key=lambda n: (-_nominal(n.size), n.first, n.name)):
        for block, size in enumerate(sizes):
            start = _room(need, size, guests[block])
            if start is not None:
                break
        else:
            block, start = len(sizes), sympy.Integer(0)
            sizes.append(need.size)
            guests.append([])
        guests[block].append((need, start))
        places[need.name] = Place(block, start)
    return Blocks(tuple(sizes), places)


def _room(need: Need, size: sympy.Expr, guests: Sequence[tuple[Need, sympy.Expr]]) -> sympy.Expr | None:
    """The first place in a block at which ``need`` overlaps none of the ``guests`` that it meets."""
    meeting = [(guest, start) for guest, start in guests if guest.meets(need)]
    if any(guest.size == size for guest, _ in meeting):
        return None  # one of them takes all of it
    present = [(start, start + guest.size) for guest, start in meeting]
    for start in (sympy.Integer(0), *(stop for _, stop in present)):
        stop = start + need.size
        if _fits(stop, size) and all(_fits(stop, a) or _fits(b, start) for a, b in present):
            return sympy.expand(start)
    return None


@cache
def _fits(small: sympy.Expr, large: sympy.Expr) -> bool:
    return all(coefficient >= 0 for coefficient in sympy.expand(large - small).as_coefficients_dict().values())


def _nominal(size: sympy.Expr) -> int:
    return int(size.subs({s: NOMINAL.get(s.name, NOMINAL_OTHER) for s in size.free_symbols}))
