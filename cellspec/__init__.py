"""cellspec: recurrent cells from their equations to fast, verified forward and backward code.

>>> import cellspec
>>> cell = cellspec.load("lstm")
>>> module = cellspec.build(cell)

Importing the package loads neither SymPy nor NumPy; its functions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cellspec.errors import CellspecError, Diagnostic, Location, Reporter, SpecError

if TYPE_CHECKING:
    from cellspec.cell import Cell

__version__ = "0.1.0"

__all__ = ["CellspecError", "Diagnostic", "Location", "SpecError", "build", "generate", "load"]


def load(source: str | Path, settings: Mapping[str, str] | None = None) -> Cell:
    """The cell that a spec describes.

    ``source`` is a path or the name of a shipped cell; ``settings`` replaces hyperparameters and activations by name
    (``{"phi": "relu"}``). Raises :class:`SpecError` with every mistake of the file.
    """
    from cellspec.elaborate import elaborate
    from cellspec.loader import load_spec

    report = Reporter()
    return elaborate(load_spec(source, settings, report), report)


def generate(cell: Cell, backend: str = "numpy") -> str:
    """The text of a module that runs ``cell``; raises ValueError for an unknown ``backend``."""
    from cellspec.backends import generator

    return generator(backend)(cell)


def build(cell: Cell, backend: str = "numpy") -> ModuleType:
    """A module that runs ``cell``, made in memory; raises ValueError for an unknown ``backend``.

    Tracebacks show its source.
    """
    import linecache

    text = generate(cell, backend)
    name = f"{cell.name}_{backend}"
    module = ModuleType(name)
    file = f"<cellspec {name} {cell.sha256[:12]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), vars(module))  # the text is the compiler's own, made of checked names
    return module
