"""Helpers of the tests of the host runtime for CUDA kernels."""

from __future__ import annotations

from typing import Any

import cuda_host
import numpy as np
import pytest

SCHEDULES = ("forward", "reverse", "random", "starve")
i32, f32 = np.int32, np.float32

SMALL = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#define AT const int i = blockIdx.x * 256 + threadIdx.x
extern "C" __global__ void widen_half(const __half* x, float* y, __half* back)
{ AT; y[i] = __half2float(x[i]); back[i] = __float2half_rn(y[i]); }
extern "C" __global__ void widen_bfloat(const __nv_bfloat16* x, float* y, __nv_bfloat16* back)
{ AT; y[i] = __bfloat162float(x[i]); back[i] = __float2bfloat16_rn(y[i]); }
extern "C" __global__ void narrow(const float* x, __half* h, __nv_bfloat16* b)
{ AT; h[i] = __half(x[i]); b[i] = __float2bfloat16(x[i]); }
extern "C" __global__ void add(const __half* x, const __half* y, __half* sum, __half* fused)
{ AT; sum[i] = x[i] + y[i]; fused[i] = __hfma(x[i], y[i], x[i]); }
"""


def kernel_of(body: str, parameters: str = "int* x", head: str = "") -> str:
    """A kernel `k` of a body."""
    return f'{head}\nextern "C" __global__ void k({parameters})\n{{\n{body}\n}}\n'


def launch(
    cp: Any, text: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, cooperative: bool = False, **options: Any
) -> None:
    """Launches the kernel `k` of a text."""
    cp.RawModule(code=text, enable_cooperative_groups=cooperative).get_function("k")(grid, block, args, **options)


def bfloat16() -> np.dtype[Any]:
    """The dtype, or a skip."""
    found: np.dtype[Any] = np.dtype(pytest.importorskip("ml_dtypes", reason="ml_dtypes (bfloat16) is not installed").bfloat16)
    return found


def needs(variant: str) -> None:
    """Skips where the compiler has no such sanitizer."""
    if cuda_host.sanitizer(variant) is None:
        pytest.skip(f"the compiler has no {variant}")
