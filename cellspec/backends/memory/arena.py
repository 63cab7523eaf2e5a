"""Blocks of memory for arrays of one number a step and more: those that are never needed at once lie in the same place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import sympy

from cellspec.backends.memory.model import STEPS, Buffer, Owner, Place

NOMINAL = {STEPS: 1000}
"""How many steps there are when sizes are put in an order; every other size counts as :data:`NOMINAL_OTHER`."""

NOMINAL_OTHER = 64


@dataclass(frozen=True)
class Need:
    """An array of ``size`` numbers that is needed from one moment to another, both included; each has a name of its own."""

    name: str
    size: sympy.Expr
    first: int
    last: int

    def meets(self, other: Need) -> bool:
        """Whether there is a moment at which both are needed."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Blocks of memory, and the places in them of the needs, by their names; ``guests`` are those of each, in order of time."""

    blocks: tuple[Buffer, ...]
    places: Mapping[str, Place]
    guests: tuple[tuple[str, ...], ...]


def arrange(needs: Iterable[Need]) -> Arena:
    """Give every array a place: the largest first, each in the first block with room for it at its time.

    Sizes are polynomials over the dims. One fits into another if no coefficient of their difference is negative: then it does
    whatever the dims are.
    """
    needs = list(needs)
    blocks: list[Buffer] = []
    guests: list[list[tuple[Need, sympy.Expr]]] = []
    places: dict[str, Place] = {}
    for need in sorted(needs, key=lambda n: (-_nominal(n.size), n.first, n.name)):
        for number, block in enumerate(blocks):
            start = _room(need, block.size, guests[number])
            if start is not None:
                break
        else:
            number, start = len(blocks), sympy.S.Zero
            blocks.append(Buffer(f"block_{number + 1}", (need.size,), Owner.SCRATCH))
            guests.append([])
        guests[number].append((need, start))
        places[need.name] = Place(blocks[number], start)
    in_time = sorted(needs, key=lambda need: need.first)
    present = (tuple(need.name for need in in_time if places[need.name].buffer == block) for block in blocks)
    return Arena(tuple(blocks), places, tuple(present))


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
