"""A product of matrices, in cuBLAS whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.cublas import _product


def _dot(left: cp.ndarray, right: cp.ndarray, out: cp.ndarray) -> None:
    """``out = left @ right``. A row times a column goes straight to cuBLAS: CuPy would round each product, and allocate."""
    if out.size != 1 or left.size == 0:
        cp.dot(left, right, out)
    else:
        cp.cuda.cublas.gemmEx(*_product(left, right, out))
