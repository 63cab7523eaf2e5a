"""What generated NumPy modules define elsewhere, by templates, and run-time functions use."""

from typing import Any

import numpy as np

from cellspec.backends.numpy.runtime.expected import _is_array as _is_array
from cellspec.backends.runtime.masks import _Masks as _Masks

class Params(tuple[np.ndarray, ...]):
    _fields: tuple[str, ...]

class Tape:
    params: Params
    marks: list[float]

class _Owner:
    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray: ...

class Workspace:
    owner: _Owner
    turned: dict[str, np.ndarray]
    checkpoint: int | None

class _Cuts:
    rows: np.ndarray
    samples: np.ndarray
    lengths: np.ndarray
    steps: np.ndarray
    columns: np.ndarray
    sources: np.ndarray
    begins: dict[int, np.ndarray]
    def __init__(self, masks: _Masks, start: int, T: int) -> None: ...

class _Segments:
    bounds: list[tuple[int, int]]

def _arrays(memory: Any) -> list[np.ndarray]: ...
def _cuts(masks: _Masks | None, start: int, T: int) -> _Cuts | None: ...
def _fields(name: str, value: Any, kind: Any) -> Any: ...
