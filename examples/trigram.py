"""Real prose to learn from, and the yardstick: a character trigram model with Kneser-Ney smoothing."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]

HELD_OUT = 0.1  # the share of the text, at its end, that training never sees


class Corpus(NamedTuple):
    """A text as indices into its alphabet, in two parts."""

    alphabet: str
    train: Indices  # [n]
    held_out: Indices  # [m]


def encode(text: str, alphabet: str) -> Indices:
    """The place of each character in ``alphabet``; a character that is not there is a KeyError."""
    places = {char: place for place, char in enumerate(alphabet)}
    return np.array([places[char] for char in text], dtype=np.intp)


def load_corpus() -> Corpus:
    """The Python reference, topic after topic.

    Topics quote one another at length. Each paragraph is kept once, so that no held-out paragraph was seen in training.
    """
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    text = "\n\n".join(dict.fromkeys(paragraphs))
    alphabet = "".join(sorted(set(text)))
    indices = encode(text, alphabet)
    cut = round(len(indices) * (1 - HELD_OUT))
    return Corpus(alphabet, indices[:cut], indices[cut:])


class Trigram:
    """p(c | a, b): a character trigram model with interpolated Kneser-Ney smoothing.

    From every count of a context a discount is taken (one for counts of 1, one for 2, one for more), and what was taken is
    spread by the distribution of the next shorter context. Below the trigrams, a character counts by the number of
    different contexts that it was seen in. At the bottom all characters are equally likely.
    """

    def __init__(self, text: Indices, size: int, discounts: tuple[float, float, float]) -> None:
        first, second, third = text[:-2], text[1:-1], text[2:]
        counts = np.bincount((first * size + second) * size + third, minlength=size**3).reshape(size, size, size)
        pairs = (counts > 0).sum(axis=0)  # [b, c]: how many a precede "bc"
        singles = (pairs > 0).sum(axis=0)  # [c]: how many b precede "c"
        p = np.full(size, 1 / size)
        for order in (singles, pairs, counts):
            p = self._smooth(order, discounts, p)
        self.p = p  # [a, b, c]

    @staticmethod
    def _smooth(counts: NDArray[Any], discounts: tuple[float, float, float], shorter: NDArray[Any]) -> NDArray[Any]:
        """(counts - discount + sum of discounts * shorter) / total, along the last axis; ``shorter`` where the total is 0."""
        discount = np.array([0.0, *discounts])[np.minimum(counts, 3)]
        total = counts.sum(axis=-1, keepdims=True)
        p = (counts - discount + discount.sum(axis=-1, keepdims=True) * shorter) / np.maximum(total, 1)
        return np.where(total > 0, p, shorter)

    def bits(self, text: Indices) -> float:
        """Bits per character over ``text[2:]``."""
        return float(-np.log2(self.p[text[:-2], text[1:-1], text[2:]]).mean())

    @classmethod
    def tuned(cls, text: Indices, size: int) -> Trigram:
        """The discounts that do best on the last tenth of ``text`` when counting the rest; then counts of all of it."""
        cut = round(len(text) * 0.9)
        grid = itertools.product((0.6, 0.7, 0.8, 0.9), (0.8, 1.0, 1.2), (0.9, 1.2, 1.5))
        best = min(grid, key=lambda discounts: cls(text[:cut], size, discounts).bits(text[cut:]))
        return cls(text, size, best)
