"""What is verified: the module of a cell for any backend, as one that takes and gives NumPy arrays."""

from __future__ import annotations

from typing import Any

from cellspec import build
from cellspec.backends import registry
from cellspec.cell import Cell
from cellspec.errors import CellspecError

DTYPES = ("float64", "float32")
"""The dtypes for which there are bounds."""


def subject(cell: Cell, backend: str, residuals: str = "speed") -> Any:
    """The module of ``cell`` for ``backend``, over NumPy arrays; CellspecError where it cannot run."""
    chosen = registry.backend(backend)
    if lacking := registry.lacking(backend):
        what = f"{', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not installed"
        raise CellspecError(f"modules of the {chosen.title} backend need {what}")
    module = chosen.on_host(build(cell, backend, residuals))
    if module is None:
        raise CellspecError(
            f"modules of the {chosen.title} backend do not take NumPy arrays; 'cellspec verify' cannot run them"
        )
    return module


def dtypes(backend: str) -> tuple[str, ...]:
    """Those of :data:`DTYPES` that modules for ``backend`` know."""
    known = registry.backend(backend).dtypes
    return tuple(dtype for dtype in DTYPES if dtype in known)
