"""The kernels of a module, which are compiled when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _CUDA, _KERNELS, _MODULES, _TYPES


def _kernel(name: str, dtype: Any) -> Any:
    """The kernel ``name`` for arrays of ``dtype``; the kernels of a dtype are compiled when one of them is first run."""
    found = _KERNELS.get((name, dtype))
    if found is None:
        if dtype.name not in _MODULES:
            _MODULES[dtype.name] = cp.RawModule(code=f"{_TYPES[dtype.name]}\n{_CUDA}", options=("--std=c++17",))
        found = _KERNELS[name, dtype] = _MODULES[dtype.name].get_function(name)
    return found
