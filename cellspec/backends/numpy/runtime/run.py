"""Which parts of a sequence are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellspec.backends.numpy.runtime.surroundings import _Masks, _Segments


def _run(memory: _Segments, masks: _Masks | None) -> list[tuple[int, int]]:
    """The segments in which a sample has a step: nothing is computed in others."""
    return [bounds for bounds in memory.bounds if masks is None or (masks.lengths > bounds[0]).any()]
