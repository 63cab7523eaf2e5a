"""The arguments of cuBLAS for a product, as CuPy would give them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import cupy as cp
import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _TYPES


_FACTORS = {name: np.array([1, 0], "float64" if name == "float64" else "float32") for name in _TYPES}
_CUBLAS_TYPES = {"float64": (1, 70), "float32": (0, 68), "float16": (2, 68), "bfloat16": (14, 68)}
"""cuBLAS's numbers of the type of matrices (cudaDataType_t) and of sums (cublasComputeType_t), by dtype."""


def _product(left: cp.ndarray, right: cp.ndarray, out: cp.ndarray) -> tuple[Any, ...]:
    """The arguments of ``cublasGemmEx`` for ``out = left @ right``, as CuPy would give them; TF32 where CuPy takes it.

    cuBLAS counts by columns, so that it sees the transpose of each matrix: it makes out.T = right.T @ left.T.
    """
    name = out.dtype.name
    kind, sums = _CUBLAS_TYPES[name]
    if name == "float32" and int(os.environ.get("CUPY_TF32", "0")) > 0:
        sums = 77
    one = _FACTORS[name].ctypes.data
    zero = one + _FACTORS[name].itemsize
    (turn_right, right_step), (turn_left, left_step) = _by_columns(right), _by_columns(left)
    (rows, inner), columns = left.shape, right.shape[1]
    return (
        cp.cuda.device.get_cublas_handle(), turn_right, turn_left, columns, rows, inner, one, right.data.ptr, kind, right_step,
        left.data.ptr, kind, left_step, zero, out.data.ptr, kind, columns, sums, -1,
    )  # fmt: skip


def _by_columns(matrix: cp.ndarray) -> tuple[int, int]:
    """Whether cuBLAS must turn what it sees of ``matrix`` (1) or not (0), and how far its columns lie apart."""
    down, along = (stride//matrix.itemsize for stride in matrix.strides)
    if along == 1 or matrix.shape[1] == 1:
        return 0, max(down, matrix.shape[1])
    return 1, max(along, matrix.shape[0])
