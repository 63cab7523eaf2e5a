"""cuBLAS: `cupy.cuda.cublas`, as far as it goes here, and the library behind it, whose C functions may be called as well.

The library is a real one, made by the compiler (`cublas.cpp`), so that what a caller by ctypes gets wrong goes wrong: a
pointer cut to 32 bits, a missing argument. The numbers are NumPy's, the checks and the rules of streams cuBLAS's.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..compile import HERE, build, toolchain
from ..scan import compiler
from .machine import CUDARuntimeError, active

NO_CAPTURE = "calling cuBLAS API during stream capture is currently unsupported"  # CuPy's own words
NOT_INITIALIZED, INVALID_VALUE, INTERNAL_ERROR, NOT_SUPPORTED = 1, 7, 14, 15
ALGORITHMS = (-1, 99)
# By cudaDataType_t: the dtype, and by cublasComputeType_t the dtype of the sums and of alpha and beta.
TYPES: dict[int, tuple[str, dict[int, str]]] = {
    0: ("float32", {68: "float32", 77: "float32"}),
    1: ("float64", {70: "float64"}),
    2: ("float16", {64: "float16", 68: "float32"}),
    14: ("bfloat16", {68: "float32"}),
}
HANDLES = 0x7F5A_0000_0000  # as large as addresses are


class CUBLASError(RuntimeError):
    """What cuBLAS refuses."""


@dataclass
class Handle:
    """What cuBLAS remembers from call to call: the stream, and the caller's memory to work in, if there is any."""

    stream: int = 0
    workspace: tuple[int, int] | None = None


def get_handle() -> int:
    """`cupy.cuda.get_cublas_handle`: the current device's."""
    machine = active()
    machine.handles.setdefault(machine.device, Handle())
    return HANDLES + machine.device


def handle_of(number: int | None) -> Handle | None:
    """The handle of this number."""
    return active().handles.get((number or 0) - HANDLES)  # type: ignore[return-value]


def set_stream(number: int | None, stream: int | None) -> int:
    """Work goes to ``stream``; the caller's workspace is forgotten."""
    if (handle := handle_of(number)) is None:
        return NOT_INITIALIZED
    handle.stream, handle.workspace = stream or 0, None
    return 0


def set_workspace(number: int | None, memory: int | None, size: int) -> int:
    """cuBLAS works in this memory until the stream is set anew."""
    if (handle := handle_of(number)) is None:
        return NOT_INITIALIZED
    if not memory or memory % 256 or active().memory_at(memory, size) is None:
        return INVALID_VALUE
    handle.workspace = (memory, size)
    return 0


def gemm(
    number: int | None, turn_a: int, turn_b: int, m: int, n: int, k: int, alpha: int, a: int | None, type_a: int, lda: int,
    b: int | None, type_b: int, ldb: int, beta: int, c: int | None, type_c: int, ldc: int, compute: int, algorithm: int,
) -> int:  # fmt: skip
    """``c = alpha*op(a) @ op(b) + beta*c``, matrices by columns: `cublasGemmEx`."""
    machine = active()
    if (handle := handle_of(number)) is None:
        return NOT_INITIALIZED
    if min(m, n, k) < 0 or lda < max(1, k if turn_a else m) or ldb < max(1, n if turn_b else k) or ldc < max(1, m):
        return INVALID_VALUE
    if turn_a not in (0, 1) or turn_b not in (0, 1) or algorithm not in ALGORITHMS:
        return INVALID_VALUE
    if not type_a == type_b == type_c or compute not in TYPES.get(type_a, ("", {}))[1]:
        return NOT_SUPPORTED
    if handle.stream in machine.captures and handle.workspace is None:
        raise CUDARuntimeError("cuBLAS allocates memory to work in while a stream captures: no workspace is set")
    name, sums = TYPES[type_a][0], np.dtype(TYPES[type_a][1][compute])
    found = np.dtype(name if name != "bfloat16" else __import__("ml_dtypes").bfloat16)
    left = by_columns(a, *((k, m) if turn_a else (m, k)), lda, found)
    right = by_columns(b, *((n, k) if turn_b else (k, n)), ldb, found)
    out = by_columns(c, m, n, ldc, found)
    if left is None or right is None or out is None:
        return INVALID_VALUE
    factors = [np.ctypeslib.as_array((ctypes.c_uint8 * sums.itemsize).from_address(p)).view(sums)[0] for p in (alpha, beta)]
    memories = [machine.memory_at(p) for p in (a, b, c, handle.workspace and handle.workspace[0]) if p]

    def work() -> None:
        for seen in machine.watchers:
            seen.products += 1
        one, other = (v.T if turn else v for v, turn in ((left, turn_a), (right, turn_b)))
        with np.errstate(all="ignore"):
            result = factors[0] * np.matmul(one.astype(sums), other.astype(sums))
            np.copyto(out, result if factors[1] == 0 else result + factors[1] * out.astype(sums), casting="unsafe")

    machine.submit("cublasGemmEx", work, [memory for memory in memories if memory is not None], handle.stream)
    return 0


def by_columns(address: int | None, rows: int, columns: int, distance: int, dtype: np.dtype[Any]) -> np.ndarray | None:
    """The matrix of so many rows whose columns lie ``distance`` elements apart; None if that is not all within one memory."""
    if rows == 0 or columns == 0:
        return np.empty((rows, columns), dtype)
    size = ((columns - 1) * distance + rows) * dtype.itemsize
    if not address or active().memory_at(address, size) is None:
        return None
    flat = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8).view(dtype)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (dtype.itemsize, distance * dtype.itemsize))


# --- the library and CuPy's module -----------------------------------------------------------------------------------

POINTER, INT = ctypes.c_void_p, ctypes.c_int
SET_STREAM = ctypes.PYFUNCTYPE(INT, POINTER, POINTER)
SET_WORKSPACE = ctypes.PYFUNCTYPE(INT, POINTER, POINTER, ctypes.c_size_t)
GEMM = ctypes.PYFUNCTYPE(
    INT, POINTER, *(INT,) * 5, POINTER, POINTER, INT, INT, POINTER, INT, INT, POINTER, POINTER, *(INT,) * 4
)


def guarded(function: Any) -> Any:
    """``function``, whose exceptions become a status: they cannot pass through C. The machine keeps the last."""

    def call(*args: Any) -> int:
        try:
            return int(function(*args))
        except Exception as error:
            active().said = str(error)
            return INTERNAL_ERROR

    return call


CALLS = (SET_STREAM(guarded(set_stream)), SET_WORKSPACE(guarded(set_workspace)), GEMM(guarded(gemm)))


@functools.cache
def library() -> Path:
    """The compiled library, which knows the functions above once it has been asked for."""
    text = (HERE / "cublas.cpp").read_text("utf-8")
    command = [str(compiler()), "-std=c++17", "-O1", "-fPIC"]
    path = build(toolchain() + b"cublas", command, {"cublas.cpp": text})
    ctypes.CDLL(str(path)).cuda_host_cublas(*CALLS)
    return path


class Module(ModuleType):
    """`cupy.cuda.cublas`. CuPy's is a compiled module that the library is linked to: whoever opens its file finds cuBLAS."""

    CUBLASError = CUBLASError

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":
            return str(library())
        raise AttributeError(f"the substitute for CuPy has no cuda.cublas.{name}")

    @staticmethod
    def getVersion(handle: int) -> int:
        """As of CUDA 13.0."""
        return 130000

    @staticmethod
    def gemmEx(*args: int) -> None:
        """`cublasGemmEx` on the current stream, which must not capture."""
        if active().capturing():
            raise NotImplementedError(NO_CAPTURE)
        status = set_stream(args[0], active().current()) or gemm(*args)
        if status:
            raise CUBLASError(f"cuBLAS Error: status {status}")
