"""What generated CuPy modules define elsewhere, by templates, and run-time functions use."""

from typing import Any, NamedTuple

import cupy as cp
import numpy as np

from cellspec.backends.runtime.masks import _Masks as _Masks
from cellspec.backends.runtime.masks import _readings as _readings

ALONG_THREADS: tuple[int]
_TYPES: dict[str, str]

class State(tuple[Any, ...]):
    def __new__(cls, *states: Any) -> State: ...

class Packed:
    params: Any

class _Rows(NamedTuple):
    starts: cp.ndarray

def _arranged(order: cp.ndarray | None, given: cp.ndarray, dtype: Any) -> cp.ndarray: ...
def _blocks(count: int) -> tuple[int]: ...
def _kernel(name: str, dtype: np.dtype[Any]) -> Any: ...
def _real(dtype: np.dtype[Any]) -> np.dtype[Any]: ...
