"""How CuPy spells operations: as NumPy does, whose functions it has."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.backends.arrays.spelling import NUMPY, Spelling


def _of_cupy(words: Mapping[str, str]) -> dict[str, str]:
    return {name: text.replace("np.", "cp.") for name, text in words.items()}


CUPY = Spelling(_of_cupy(NUMPY.functions), _of_cupy(NUMPY.numbers), _of_cupy(NUMPY.operations))
