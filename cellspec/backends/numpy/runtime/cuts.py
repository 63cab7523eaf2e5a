"""The cuts of a part of a sequence, which are found once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellspec.backends.numpy.runtime.surroundings import _Cuts, _Masks


def _cuts(masks: _Masks | None, start: int, T: int) -> _Cuts | None:
    """The resets and ends of samples within T steps from ``start`` on, or None if there are none."""
    if masks is None or (masks.resets is None and (masks.lengths >= start + T).all()):
        return None
    if (start, T) not in masks.cuts:
        masks.cuts[start, T] = _Cuts(masks, start, T)
    return masks.cuts[start, T]
