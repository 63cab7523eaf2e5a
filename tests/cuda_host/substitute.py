"""Puts the substitute for CuPy in CuPy's place for a while."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .fake.array import ndarray
from .fake.machine import Machine, active, use
from .fake.module import build


@contextlib.contextmanager
def substitute(
    schedule: str = "forward",
    seed: int = 0,
    *,
    capture_products: bool = False,
    multiprocessors: int = 132,
    seconds: float = 60.0,
    devices: int = 1,
) -> Iterator[Any]:
    """`import cupy` means the substitute inside the `with`, which gives the module; ``cp.machine`` watches what it does.

    ``schedule`` is the order in which threads run: "forward", "reverse", "random", or "starve" (one block, or in each block
    one thread, runs only when nothing else can); ``seed`` sets the last two. ``capture_products=True`` lets a stream that
    captures record matrix products, which CuPy 14 refuses. ``seconds`` is what a launch may take of the process's time,
    ``devices`` how many devices there are.
    """
    modules = build()
    cupy = modules["cupy"]
    machine = Machine(
        schedule,
        seed,
        capture_products=capture_products,
        multiprocessors=multiprocessors,
        seconds=seconds,
        devices=devices,
    )
    cupy.machine = machine  # type: ignore[attr-defined]
    mine = re.compile(r"cupy(x|_backends)?(\..*)?")
    hidden = {name: module for name, module in sys.modules.items() if mine.fullmatch(name)}
    for name in hidden:
        del sys.modules[name]
    sys.modules.update(modules)
    try:
        with use(machine):
            yield cupy
    finally:
        for name in [name for name in sys.modules if mine.fullmatch(name)]:
            del sys.modules[name]
        sys.modules.update(hidden)


def import_text(text: str, name: str = "generated_module") -> ModuleType:
    """The module of a text, which is on no disk and in no `sys.modules`."""
    module = ModuleType(name)
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    return module


class Foreign:
    """Another library's array on the device: DLPack, `__cuda_array_interface__`, or both, and nothing else.

    ``stream`` is the one that its library works on.
    """

    def __init__(self, array: ndarray, *, dlpack: bool = True, interface: bool = True, stream: Any = None) -> None:
        self._array = array
        self._stream = stream  # its library's current one
        self._dlpack, self._interface = dlpack, interface

    def __getattr__(self, name: str) -> Any:
        if name in ("__dlpack__", "__dlpack_device__") and self._dlpack:
            return self._exported if name == "__dlpack__" else self._array.__dlpack_device__
        if name == "__cuda_array_interface__" and self._interface:
            return self._array.__cuda_array_interface__
        raise AttributeError(name)

    def _exported(self, *, stream: int | None = None, **options: Any) -> Any:
        """As the protocol asks: the consumer's stream waits for what the producer's has been given."""
        if self._stream is not None and stream is not None:
            active().order(0 if stream == 1 else stream, self._stream.record().clock)
        return self._array.__dlpack__(**options)
