"""What arrays that are not in the caches cost a pass, beyond what its statements pay for that when each is timed alone.

A pass touches all its memory at least once. Walking through a buffer of that size costs so much a byte, as it lies in a larger
cache or behind all of them; a statement by itself is only as far from its arrays as they are large.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1024  # bytes, the grain of the bookkeeping
HEADER = 192  # bytes of an array object with its shape and strides: the views of steps are thousands of them
PIECE = 2**16  # bytes that a call reads when the cost of walking is measured: large, so that processors can look ahead
LEAST, MOST = 2**18, 2**27  # bytes of the smallest and of the largest buffer that is walked through


class Touches(NamedTuple):
    """Bytes of a statement in all its runs."""

    own: int  # different ones
    first: int  # that nothing before it in the pass has touched


class Trace:
    """Follows which memory the statements of both passes touch."""

    def __init__(self) -> None:
        self.own: dict[tuple[str, Hashable], set[int]] = {}
        self.first: dict[tuple[str, Hashable], int] = {}
        self.seen: dict[str, set[int]] = {}

    def add(self, direction: str, statement: Hashable, arrays: list[np.ndarray]) -> None:
        key = direction, statement
        blocks = {block for array in arrays for block in blocks_of(array)}
        seen = self.seen.setdefault(direction, set())
        self.first[key] = self.first.get(key, 0) + len(blocks - seen)
        self.own.setdefault(key, set()).update(blocks)
        seen |= blocks

    def touches(self, direction: str, statement: Hashable) -> Touches:
        key = direction, statement
        return Touches(BLOCK * len(self.own.get(key, ())), BLOCK * self.first.get(key, 0))

    def size(self) -> int:
        """Bytes of both passes together."""
        return BLOCK * len(set().union(*self.seen.values()))


def blocks_of(array: np.ndarray) -> Iterator[int]:
    """The blocks of memory that an array lies in, with its object; of a slice with gaps, those of its parts."""
    yield from blocks_between(id(array), id(array) + HEADER)
    yield from blocks_of_data(array)


def blocks_of_data(array: np.ndarray) -> Iterator[int]:
    if not array.size:
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    if array.ndim < 2 or 2 * array.nbytes > high - low:
        yield from blocks_between(low, high)
    else:
        for part in np.moveaxis(array, int(np.argmax(np.abs(array.strides))), 0):
            yield from blocks_of_data(part)


def blocks_between(low: int, high: int) -> range:
    return range(low // BLOCK, -(-high // BLOCK))


class Walk:
    """Seconds a byte by which walking through memory takes longer than staying at one place, by the size of the memory."""

    def __init__(self) -> None:
        self.sizes = [LEAST]
        while self.sizes[-1] < MOST:
            self.sizes.append(2 * self.sizes[-1])
        self.costs = [np.inf] * len(self.sizes)

    def measure(self, rounds: int = 3) -> None:
        """Keeps the least that was ever found."""
        pieces = np.ones((self.sizes[-1] // PIECE, PIECE // 4), np.float32)
        for _ in range(rounds):
            self.costs = [min(cost, walked(pieces[: size // PIECE])) for cost, size in zip(self.costs, self.sizes, strict=True)]

    def seconds(self, touches: Touches, size: int) -> float:
        """What the first touches of a statement cost in passes of ``size`` bytes, beyond what they cost it alone."""
        costs = np.minimum.accumulate(self.costs[::-1])[::-1]  # at most what larger ones cost, whatever the noise
        there, alone = np.interp(np.log2([max(size, 1), max(touches.own, 1)]), np.log2(self.sizes), costs)
        return touches.first * max(0.0, float(there - alone))


def walked(pieces: np.ndarray) -> float:
    """Seconds a byte of a walk through ``pieces``, less those of one of them over and over."""
    out = np.empty_like(pieces[0])
    times = []
    for walk in (list(pieces), [pieces[0]] * len(pieces)):
        for _ in range(2):  # the first time brings it to where it stays
            start = time.perf_counter()
            for piece in walk:
                np.negative(piece, out)
            taken = time.perf_counter() - start
        times.append(taken)
    return max(0.0, times[0] - times[1]) / pieces.nbytes
