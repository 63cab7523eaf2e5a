"""Generated CuPy modules on the substitute for CuPy, driven like NumPy modules: arrays go to the device and come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from cuda_host import import_text, substitute

import cellspec
from cellspec.cell import Cell


def carried(value: Any, move: Any, array: type) -> Any:
    """``value`` with every array in its tuples moved by ``move``; a tape stays where it is."""
    if isinstance(value, array):
        return move(value)
    if isinstance(value, dict):
        return {key: carried(item, move, array) for key, item in value.items()}
    if isinstance(value, tuple) and type(value).__name__ != "Tape":
        parts = [carried(item, move, array) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class OnDevice:
    """A CuPy module that takes and gives NumPy arrays."""

    def __init__(self, module: ModuleType, cupy: Any) -> None:
        self.module, self.cupy = module, cupy

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if name not in ("forward", "backward", "step", "trace", "init_params", "init_state", "Workspace"):
            return found

        def call(*args: Any, **options: Any) -> Any:
            moved = [carried(arg, self.cupy.asarray, np.ndarray) for arg in args]
            return carried(found(*moved, **options), self.cupy.asnumpy, self.cupy.ndarray)

        return call


@contextmanager
def on_device(cell: Cell, schedule: str = "forward", **options: Any) -> Iterator[OnDevice]:
    """The CuPy module of ``cell`` while CuPy is substituted."""
    with substitute(schedule, **options) as cupy:
        yield OnDevice(import_text(cellspec.generate(cell, "cupy"), f"{cell.name}_cupy"), cupy)
