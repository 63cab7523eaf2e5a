"""How CuPy spells operations: as NumPy does, whose functions it has."""

from __future__ import annotations

from dataclasses import replace

from cellspec.backends.arrays.spelling import NUMPY, Spelling


def _of_cupy(text: str) -> str:
    return text.replace("np.", "cp.")


CUPY = Spelling(
    functions={name: replace(word, text=_of_cupy(word.text)) for name, word in NUMPY.functions.items()},
    numbers={name: _of_cupy(text) for name, text in NUMPY.numbers.items()},
    operations={name: _of_cupy(text) for name, text in NUMPY.operations.items()},
)
