"""Small kernels with what they should give: the runtime's own tests, and a pattern for those of other kernels.

`run` is a job: it can be called here, or handed to `sanitize`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .substitute import substitute

THREADS = 64
COUNT = 150  # in three blocks of 64, the last not full
ROWS, COLUMNS = 5, 37
NUMBERS = np.random.default_rng(1).standard_normal(COUNT).astype(np.float32)
MATRIX = np.random.default_rng(2).standard_normal((ROWS, COLUMNS)).astype(np.float32)
RING = np.arange(96, dtype=np.int32) ** 2

SAXPY = r"""
extern "C" __global__ void __launch_bounds__(64) saxpy(float a, const float* __restrict__ x, float* y, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
"""

BLOCK_SUM = r"""
// The sum of each block's numbers, halves added to halves.
extern "C" __global__ void block_sum(const float* x, float* sums, int n)
{
    __shared__ float part[64];
    const int i = blockIdx.x * 64 + threadIdx.x;
    part[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    for (int span = 32; span > 0; span /= 2) {
        if (threadIdx.x < span) part[threadIdx.x] += part[threadIdx.x + span];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}
"""

WARP_SUM = r"""
// The same by shuffles; the warps' sums meet in dynamic shared memory.
extern "C" __global__ void warp_sum(const float* x, float* sums, int n)
{
    extern __shared__ float warps[];
    const int i = blockIdx.x * 64 + threadIdx.x;
    float total = i < n ? x[i] : 0.0f;
    for (int span = 16; span > 0; span /= 2) total += __shfl_down_sync(0xffffffffu, total, span);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x == 0) sums[blockIdx.x] = warps[0] + warps[1];
}
"""

TRANSPOSE = r"""
// A matrix transposed by tiles; the tile's odd width keeps columns in different banks.
extern "C" __global__ void transpose(const float* in, float* out, int rows, int columns)
{
    __shared__ float tile[8][9];
    int row = blockIdx.y * 8 + threadIdx.y, column = blockIdx.x * 8 + threadIdx.x;
    if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = in[row * columns + column];
    __syncthreads();
    row = blockIdx.x * 8 + threadIdx.y;
    column = blockIdx.y * 8 + threadIdx.x;
    if (row < columns && column < rows) out[row * rows + column] = tile[threadIdx.x][threadIdx.y];
}
"""

SHIFT = r"""
// Each number moves one place on, steps times, with a barrier of all blocks before anyone reads what others wrote.
__device__ void meet(unsigned* arrived, unsigned goal)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __nv_atomic_fetch_add(arrived, 1u, __NV_ATOMIC_RELEASE, __NV_THREAD_SCOPE_DEVICE);
        while (__nv_atomic_load_n(arrived, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE) < goal) {}
    }
    __syncthreads();
}

extern "C" __global__ void shift(unsigned* arrived, int* ring, int* other, int steps)
{
    const int n = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int step = 0; step < steps; step++) {
        other[(i + 1) % n] = ring[i];
        meet(arrived, (2 * step + 1) * gridDim.x);
        ring[i] = other[i];
        meet(arrived, (2 * step + 2) * gridDim.x);
    }
}
"""

SAME_FLAG = r"""
// Nobody waits before reading the flag, but everybody has written the same: the numbers come out right.
extern "C" __global__ void same_flag(int* out)
{
    __shared__ volatile int flag;
    flag = 7;
    out[threadIdx.x] = flag;
}
"""


@dataclass(frozen=True)
class Example:
    """A kernel text, how to launch it, and its result."""

    text: str
    launch: Callable[[Any, Any], Any]  # cupy, its RawModule -> an array of the device
    expected: np.ndarray
    cooperative: bool = False


def launch_saxpy(cp: Any, module: Any) -> Any:
    """2 x + 1."""
    y = cp.ones(COUNT, np.float32)
    module.get_function("saxpy")((3,), (THREADS,), (np.float32(2), cp.asarray(NUMBERS), y, np.int32(COUNT)))
    return y


def launch_block_sum(cp: Any, module: Any) -> Any:
    """Three sums."""
    sums = cp.empty(3, np.float32)
    module.get_function("block_sum")((3,), (THREADS,), (cp.asarray(NUMBERS), sums, np.int32(COUNT)))
    return sums


def launch_warp_sum(cp: Any, module: Any) -> Any:
    """Three sums."""
    sums = cp.empty(3, np.float32)
    module.get_function("warp_sum")((3,), (THREADS,), (cp.asarray(NUMBERS), sums, np.int32(COUNT)), shared_mem=8)
    return sums


def launch_transpose(cp: Any, module: Any) -> Any:
    """The matrix transposed."""
    out = cp.empty((COLUMNS, ROWS), np.float32)
    module.get_function("transpose")((5, 1), (8, 8), (cp.asarray(MATRIX), out, np.int32(ROWS), np.int32(COLUMNS)))
    return out


def launch_shift(cp: Any, module: Any) -> Any:
    """The ring, five places on."""
    ring = cp.asarray(RING)
    arrived = cp.zeros(1, np.uint32)
    module.get_function("shift")((3,), (32,), (arrived, ring, cp.empty_like(ring), np.int32(5)))
    return ring


def launch_same_flag(cp: Any, module: Any) -> Any:
    """Sevens."""
    out = cp.empty(32, np.int32)
    module.get_function("same_flag")((1,), (32,), (out,))
    return out


SUMS = np.add.reduceat(NUMBERS.astype(np.float64), [0, 64, 128])
EXAMPLES = {
    "saxpy": Example(SAXPY, launch_saxpy, 2 * NUMBERS + 1),
    "block_sum": Example(BLOCK_SUM, launch_block_sum, SUMS),
    "warp_sum": Example(WARP_SUM, launch_warp_sum, SUMS),
    "transpose": Example(TRANSPOSE, launch_transpose, MATRIX.T),
    "shift": Example(SHIFT, launch_shift, np.roll(RING, 5), cooperative=True),
    "same_flag": Example(SAME_FLAG, launch_same_flag, np.full(32, 7)),
}


def run(name: str, text: str | None = None, schedule: str = "forward", seed: int = 0) -> bool:
    """Whether the example, or a changed text of its, gives what it should."""
    example = EXAMPLES[name]
    with substitute(schedule, seed, seconds=5) as cp:
        module = cp.RawModule(code=text or example.text, enable_cooperative_groups=example.cooperative)
        result = example.launch(cp, module).get()
    return bool(np.allclose(result, example.expected, rtol=1e-5, atol=1e-6))


# --- one thing wrong each, for the sanitizers to find -----------------------------------------------------------------------

WRONG = r"""
__device__ __attribute__((noinline)) void put(float* where, int at) { where[at] = 1; }

extern "C" __global__ void write_behind(float* x, int n) { if (threadIdx.x <= n) x[threadIdx.x] = 1; }
extern "C" __global__ void read_before(float* x, int n) { if (threadIdx.x < n) x[threadIdx.x] = 1 + x[(int)threadIdx.x - 1]; }
extern "C" __global__ void static_shared(float* x, int n)
{
    __shared__ float first[20], second[20];
    put(first, n + 4);
    put(second, 0);
    x[0] = first[0] + second[0];
}
extern "C" __global__ void dynamic_shared(float* x, int n)
{
    extern __shared__ float room[];
    put(room, n);
    x[0] = room[0];
}
extern "C" __global__ void local_array(float* x, int n)
{
    float few[4] = {};
    put(few, n / 4);
    x[0] = few[n % 4];
}
extern "C" __global__ void overflow(float* x, int n) { x[0] = n + 2147483647; }
extern "C" __global__ void misaligned(float* x, int n) { *(float4*)(x + 1) = make_float4(n, 0, 0, 0); }
extern "C" __global__ void nowhere(float* x, int n) { *(volatile int*)(8L * n) = 0; }
extern "C" __global__ void relaxed(float* x, int n)
{
    unsigned* flag = (unsigned*)(x + 1);
    if (blockIdx.x == 0) {
        x[0] = n;
        __nv_atomic_store_n(flag, 1u, __NV_ATOMIC_RELAXED, __NV_THREAD_SCOPE_DEVICE);
    } else {
        while (__nv_atomic_load_n(flag, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE) != 1u) {}
        x[2] = x[0];
    }
}
extern "C" __global__ void between_blocks(float* x, int n) { if (threadIdx.x == 0) x[0] = n; }
extern "C" __global__ void fine(float* x, int n) { if (blockIdx.x == 0 && threadIdx.x < n) x[threadIdx.x] = n; }
"""


def run_wrong(name: str, n: int = 16) -> float:
    """Launches one of the wrong kernels over an array of n numbers; the first of them."""
    with substitute() as cp:
        x = cp.zeros(n, np.float32)
        module = cp.RawModule(code=WRONG, enable_cooperative_groups=True)
        module.get_function(name)((2,), (n + 8,), (x, np.int32(n)), shared_mem=4 * n)
        return float(x.get()[0])
