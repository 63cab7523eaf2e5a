"""What generated CuPy modules define elsewhere, by templates, and run-time functions use."""

from typing import Any, NamedTuple

import cupy as cp

from cellspec.backends.cupy.runtime.arranged import _arranged as _arranged
from cellspec.backends.cupy.runtime.compiled import _kernel as _kernel
from cellspec.backends.cupy.runtime.launched import _blocks as _blocks
from cellspec.backends.cupy.runtime.launched import _real as _real
from cellspec.backends.cupy.runtime.launched import _run as _run
from cellspec.backends.runtime.masks import _Masks as _Masks
from cellspec.backends.runtime.masks import _readings as _readings

THREADS: tuple[int]
ALONG_THREADS: tuple[int]
_TYPES: dict[str, str]
_CUDA: str
_MODULES: dict[str, Any]
_KERNELS: dict[tuple[str, Any], Any]

class State(tuple[Any, ...]):
    def __new__(cls, *states: Any) -> State: ...

class Packed:
    params: Any

class _Rows(NamedTuple):
    starts: cp.ndarray

def _array(name: str, value: Any) -> cp.ndarray: ...
