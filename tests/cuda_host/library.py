"""A compiled kernel text in this process: its kernels, their parameters, and how one is launched."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import compile as build
from .elf import TLS_OBJECT, Elf, Symbol
from .errors import CompileError, ExecutionError, LaunchError

ORDERS = {"forward": 0, "reverse": 1, "random": 2, "starve": 3}
MOST_THREADS = 1024
MOST_STATIC_SHARED = 48 * 1024
MOST_SHARED = 227 * 1024
MOST_GRID = (2**31 - 1, 65535, 65535)
MOST_BLOCK = (1024, 1024, 64)


class Launch(ctypes.Structure):
    """As in runtime.cpp."""

    _fields_ = (
        ("entry", ctypes.c_void_p),
        ("args", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("gaps", ctypes.c_void_p),
        ("gap_count", ctypes.c_size_t),
        ("seed", ctypes.c_uint64),
        ("order", ctypes.c_int),
        ("cooperative", ctypes.c_int),
        ("seconds", ctypes.c_double),
    )


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter: ``type`` is a dtype's name, or "void", or "other" (a struct)."""

    type: str
    pointer: bool
    const: bool
    size: int

    def __str__(self) -> str:
        return f"{'const ' if self.const else ''}{self.type}{'*' if self.pointer else ''}"


@functools.cache
def runtime() -> ctypes.PyDLL:
    """The runtime, loaded for all kernel libraries to find.

    A PyDLL keeps the interpreter's lock: the runtime is one OS thread's.
    """
    library = ctypes.PyDLL(str(build.runtime_library(build.variant())), mode=ctypes.RTLD_GLOBAL)
    library.cuda_host_launch.argtypes = [ctypes.POINTER(Launch)]
    library.cuda_host_error.restype = ctypes.c_char_p
    return library


class Library:
    """The kernels of one text."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        runtime()
        try:
            self.library = ctypes.PyDLL(str(path))
        except OSError as error:
            raise CompileError(str(error)) from None
        shared = [symbol for symbol in Elf.read(path).symbols() if symbol.kind == TLS_OBJECT]
        self.dynamic_offset = next(symbol.value for symbol in shared if symbol.name == "cuda_host_dynamic")
        self.static = sorted(
            (symbol for symbol in shared if symbol.value < self.dynamic_offset), key=lambda symbol: symbol.value
        )
        self.gaps = gaps_between(self.static, self.dynamic_offset) if build.variant() == "asan" else ()
        self.gap_array = (ctypes.c_size_t * (2 * len(self.gaps)))(*(end for gap in self.gaps for end in gap))
        self.kernels = {name: Kernel(self, name, number) for number, name in enumerate(names)}


@functools.lru_cache(maxsize=512)
def load(text: str, options: tuple[str, ...] = (), expressions: tuple[str, ...] = ()) -> Library:
    """The library of a text, compiled if it must be."""
    return Library(*build.kernel_library(text, options, expressions))


class Kernel:
    """One kernel."""

    def __init__(self, library: Library, name: str, number: int) -> None:
        self.name = name
        self.library = library  # keeps it loaded
        self.entry = ctypes.cast(getattr(library.library, f"cuda_host_entry_{number}"), ctypes.c_void_p).value
        self.most_threads = min(getattr(library.library, f"cuda_host_bounds_{number}")(), MOST_THREADS)
        buffer = ctypes.create_string_buffer(1 << 14)
        getattr(library.library, f"cuda_host_signature_{number}")(buffer, ctypes.c_size_t(len(buffer)))
        self.parameters = [parameter(line) for line in buffer.value.decode().splitlines()]
        own = f"_ZZ{len(name)}{name}"  # a function's static: device functions' are not counted
        self.static_bytes = sum(symbol.size for symbol in library.static if symbol.name.startswith(own))
        self.pointers = (ctypes.c_void_p * max(1, len(self.parameters)))()
        self.values = (ctypes.c_uint64 * max(1, len(self.parameters)))()
        for i in range(len(self.parameters)):
            self.pointers[i] = ctypes.addressof(self.values) + 8 * i

    def check(self, grid: Sequence[int], block: Sequence[int], shared: int) -> None:
        """That CUDA would take this configuration."""
        for what, sizes, most in (("grid", grid, MOST_GRID), ("block", block, MOST_BLOCK)):
            if any(size < 1 for size in sizes):
                raise LaunchError(f"kernel {self.name}: a {what} of {tuple(sizes)} has a zero dimension (invalid value)")
            if any(size > limit for size, limit in zip(sizes, most, strict=True)):
                raise LaunchError(f"kernel {self.name}: a {what} of {tuple(sizes)} is over CUDA's limit of {most}")
        threads = block[0] * block[1] * block[2]
        if threads > MOST_THREADS:
            raise LaunchError(f"kernel {self.name}: {threads} threads a block are more than {MOST_THREADS}")
        if threads > self.most_threads:
            bound = self.most_threads
            raise LaunchError(f"kernel {self.name}: {threads} threads a block are more than its __launch_bounds__({bound})")
        if self.static_bytes > MOST_STATIC_SHARED:
            raise LaunchError(f"kernel {self.name}: {self.static_bytes} bytes of static shared memory are more than 48 KB")
        if self.static_bytes + shared > MOST_SHARED:
            total = self.static_bytes + shared
            raise LaunchError(f"kernel {self.name}: {total} bytes of shared memory a block are more than 227 KB")

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        values: Sequence[bytes],
        shared: int = 0,
        *,
        cooperative: bool = False,
        order: str = "forward",
        seed: int = 0,
        seconds: float = 60.0,
    ) -> None:
        """Runs it; ``values`` are the arguments' bytes, ``seconds`` what it may take of the process's time."""
        self.check(grid, block, shared)
        for i, value in enumerate(values):
            self.values[i] = int.from_bytes(value, "little")
        what = Launch(
            self.entry,
            ctypes.addressof(self.pointers),
            tuple(grid),
            tuple(block),
            self.library.dynamic_offset + shared,
            ctypes.addressof(self.library.gap_array),
            len(self.library.gaps),
            seed,
            ORDERS[order],
            cooperative,
            seconds,
        )
        if runtime().cuda_host_launch(ctypes.byref(what)):
            raise ExecutionError(f"kernel {self.name}: {runtime().cuda_host_error().decode()}")


def gaps_between(symbols: Sequence[Symbol], end: int) -> tuple[tuple[int, int], ...]:
    """What no static array takes of the shared memory before ``end``."""
    starts = [*(symbol.value for symbol in symbols), end]
    ends = [0, *(symbol.value + symbol.size for symbol in symbols)]
    return tuple((after, before) for after, before in zip(ends, starts, strict=True) if after < before)


def parameter(line: str) -> Parameter:
    """One line of a signature, such as "const float32* 8"."""
    text, size = line.rsplit(" ", 1)
    name = text.removeprefix("const ")
    return Parameter(name.removesuffix("*"), name.endswith("*"), text.startswith("const "), int(size))
