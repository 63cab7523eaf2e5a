"""Products within a CUDA graph, where CuPy calls no cuBLAS: by cuBLAS's own functions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from typing import TYPE_CHECKING, Any

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.cublas import _product


@contextlib.contextmanager
def _captured_products(stream: Any, scratch: cp.ndarray) -> Any:
    """A function like ``_dot`` for a stream that captures, which CuPy lets call no cuBLAS: cuBLAS's own functions.

    In between the library works in ``scratch``, which is the graph's alone, so that graphs of different streams never meet.
    """
    cublas, handle = _cublas(), cp.cuda.device.get_cublas_handle()

    def ask(function: Any, *arguments: Any) -> None:
        if status := function(*arguments):
            raise RuntimeError(f"{function.__name__} refuses to work in a graph: status {status} of cuBLAS")

    def dot(left: cp.ndarray, right: cp.ndarray, out: cp.ndarray) -> None:
        if left.size == 0 or right.size == 0:
            out.fill(0)
        else:
            ask(cublas.cublasGemmEx, *_product(left, right, out))

    ask(cublas.cublasSetStream_v2, handle, stream.ptr)
    try:
        ask(cublas.cublasSetWorkspace_v2, handle, scratch.data.ptr, scratch.nbytes)  # for this stream: once it is set
        yield dot
    finally:
        cublas.cublasSetStream_v2(handle, None)  # and memory of its own again


@functools.cache
def _cublas() -> Any:
    """cuBLAS as CuPy has loaded it: the library that CuPy's own wrapper is linked to."""
    wrapper = cp.cuda.cublas
    version = wrapper.getVersion(cp.cuda.device.get_cublas_handle())
    library = ctypes.CDLL(f"cublas64_{version//10000}" if os.name == "nt" else wrapper.__file__)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.cublasSetStream_v2.argtypes = (pointer, pointer)
    library.cublasSetWorkspace_v2.argtypes = (pointer, pointer, ctypes.c_size_t)
    library.cublasGemmEx.argtypes = (
        pointer, number, number, number, number, number, pointer, pointer, number, number,
        pointer, number, number, pointer, pointer, number, number, number, number,
    )  # fmt: skip
    return library
