"""Generated CuPy modules driven like NumPy modules: arrays go to the machine and come back.

A machine is the substitute for CuPy, which runs the kernels' text on the CPU and looks at everything, or a CUDA device with
CuPy itself. A test that takes the fixture ``machine`` runs on both; what is missing skips it, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda_host import Seen, import_text, substitute
from cuda_host import unavailable as substitute_unavailable
from support import SPECS, cell_of, spec_id

import cellspec
from cellspec.cell import Cell
from cellspec.verification.sampling import Sample

SUBSTITUTE, DEVICE = "substitute", "device"
BY_ID = {spec_id(path): path for path in SPECS}

needs_substitute = pytest.mark.skipif(bool(substitute_unavailable()), reason=substitute_unavailable())


@cache
def device_unavailable() -> str:
    """Why no CUDA device can be used, or nothing."""
    try:
        import cupy
    except ImportError as error:
        return f"no CuPy: {error}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"
    try:
        import cupy_backends.cuda.libs.cublas  # noqa: F401
    except ImportError as error:
        return f"no cuBLAS, which 'cellspec[cuda13x]' brings: {error}"
    return "" if count else "no CUDA device"


def unavailable(machine: str) -> str:
    """Why ``machine`` cannot be used, or nothing."""
    return device_unavailable() if machine == DEVICE else substitute_unavailable()


@contextmanager
def cupy_on(machine: str, schedule: str = "forward", **options: Any) -> Iterator[Any]:
    """CuPy on ``machine``, with a current stream of its own if that is a device; the rest is for the substitute."""
    if machine == SUBSTITUTE:
        with substitute(schedule, **options) as stand_in:
            yield stand_in
        return
    import cupy

    with cupy.cuda.Stream(non_blocking=True):
        yield cupy


@contextmanager
def watch(cupy: Any) -> Iterator[Seen]:
    """What happens on a machine; of a device the allocations alone."""
    if hasattr(cupy, "machine"):
        with cupy.machine.watch() as seen:
            yield seen
        return
    seen = Seen()

    class Hook(cupy.cuda.MemoryHook):  # type: ignore[misc]
        """Lists what is asked of the memory pool."""

        name = "Hook"

        def malloc_preprocess(self, **what: Any) -> None:
            seen.allocations.append(f"{what['size']} bytes")

    with Hook():
        yield seen


def cells(*names: str) -> pytest.MarkDecorator:
    """Parametrizes a test by the cells of these names."""
    return pytest.mark.parametrize("cell", [cell_of(BY_ID[name]) for name in names], ids=names)


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

    def there(self, value: Any) -> Any:
        """``value`` with its NumPy arrays on the machine."""
        return carried(value, self.cupy.asarray, np.ndarray)

    def here(self, value: Any) -> Any:
        """``value`` with its CuPy arrays as NumPy arrays."""
        return carried(value, self.cupy.asnumpy, self.cupy.ndarray)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if name not in ("forward", "backward", "pack", "step", "trace", "init_params", "init_state", "Workspace"):
            return found

        @wraps(found)
        def call(*args: Any, **options: Any) -> Any:
            return self.here(found(*(self.there(arg) for arg in args), **options))

        return call


@cache
def text_of(cell: Cell) -> str:
    """The CuPy module of ``cell``."""
    return cellspec.generate(cell, "cupy")


@contextmanager
def on_device(cell: Cell, schedule: str = "forward", *, machine: str = SUBSTITUTE, **options: Any) -> Iterator[OnDevice]:
    """The CuPy module of ``cell`` on ``machine``; what it does can be watched on the substitute alone."""
    with cupy_on(machine, schedule, **options) as cupy:
        yield OnDevice(import_text(text_of(cell), f"{cell.name}_cupy"), cupy)


def every_second(cupy: Any, array: Any) -> Any:
    """The same numbers as a view of every second element of a larger array."""
    wide = cupy.full(tuple(2 * n for n in array.shape), float("nan"), array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def fortran(cupy: Any, array: Any) -> Any:
    """The same numbers in Fortran order."""
    return cupy.ascontiguousarray(array.transpose()).transpose()


def there(module: OnDevice, drawn: Sample) -> tuple[Any, ...]:
    """A call's arguments on the machine: parameters, x, state, dy, dfinal."""
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    found: tuple[Any, ...] = module.there((params, x, state, *drawn.upstream(module)))
    return found


def run(module: OnDevice, arguments: tuple[Any, ...], **options: Any) -> Any:
    """Both passes with arguments on the machine, where the results stay."""
    params, x, state, dy, dfinal = arguments
    y, final, tape = module.module.forward(params, x, state, **options)
    return y, final, module.module.backward(params, tape, dy, dfinal, **options)
