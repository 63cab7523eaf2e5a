"""What generated NumPy modules define elsewhere, by templates, and run-time functions use."""

from typing import Any

import numpy as np

from cellspec.backends.runtime.masks import _Masks as _Masks

class _Owner:
    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray: ...

class Workspace:
    owner: _Owner
    turned: dict[str, np.ndarray]

class _Cuts:
    rows: np.ndarray
    samples: np.ndarray

def _cuts(masks: _Masks | None, start: int, T: int) -> _Cuts | None: ...
