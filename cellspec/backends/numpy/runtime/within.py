"""Memory that lies in other memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.numpy.runtime.surroundings import _arrays


def _within(larger: Any) -> Any:
    """A stand-in for ``np.empty``: one after the other, arrays in the memory of those that ``larger`` has made with it."""
    arrays = _arrays(larger)
    return lambda shape, dtype: np.ndarray(shape, dtype, arrays.pop(0))
