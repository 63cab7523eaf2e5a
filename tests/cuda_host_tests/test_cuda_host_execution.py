"""The host runtime for CUDA kernels: what it runs, in which orders, and what it says of kernels that go wrong."""

from __future__ import annotations

import cuda_host
import numpy as np
import pytest
from cuda_host.examples import EXAMPLES, run
from cuda_support import SCHEDULES, SMALL, bfloat16, f32, i32, kernel_of, launch

pytestmark = pytest.mark.skipif(bool(cuda_host.unavailable()), reason=cuda_host.unavailable())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, schedule: str) -> None:
    assert all(run(name, None, schedule, seed) for seed in range(3))


ORDER = kernel_of("x[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;", "int* x, int* count")


def order_of(schedule: str, seed: int) -> list[int]:
    """The order in which the threads of two blocks of eight come to an atomic counter."""
    with cuda_host.substitute(schedule, seed) as cp:
        x, count = cp.empty(16, i32), cp.zeros(1, i32)
        launch(cp, ORDER.replace("atomicAdd(count, 1)", "(*count)++"), (2,), (8,), x, count)
        return x.get().tolist()  # type: ignore[no-any-return]


def test_schedules() -> None:
    assert order_of("forward", 0) == list(range(16))
    assert order_of("reverse", 0) == list(range(15, -1, -1))
    orders = [order_of("random", seed) for seed in range(20)]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) > 15
    assert {order[0] for order in orders} & set(range(8)) and {order[0] for order in orders} & set(range(8, 16))
    assert order_of("random", 7) == orders[7]
    for seed in range(20):
        order = order_of("starve", seed)
        assert order[7] % 8 == order[15] % 8  # the last thread of each block is the same


def test_every_launch_has_an_order_of_its_own() -> None:
    with cuda_host.substitute("random", 1) as cp:
        orders = set()
        for _ in range(5):
            x, count = cp.empty(8, i32), cp.zeros(1, i32)
            launch(cp, ORDER, (1,), (8,), x, count)
            orders.add(tuple(x.get().tolist()))
    assert len(orders) > 3


def test_place_of_threads() -> None:
    text = kernel_of(
        """
        const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        x[block * blockDim.x * blockDim.y * blockDim.z + thread]++;"""
    )
    with cuda_host.substitute() as cp:
        x = cp.zeros(2 * 3 * 4 * 5 * 2 * 3, i32)
        launch(cp, text, (2, 3, 4), (5, 2, 3), x)
        assert (x.get() == 1).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warp_operations(schedule: str) -> None:
    text = kernel_of(
        """
        const int i = threadIdx.x, lane = i % 32;
        const unsigned all = 0xffffffffu;
        x[i] = __shfl_sync(all, i, 3);
        x[64 + i] = __shfl_up_sync(all, i, 2, 8);
        x[128 + i] = __shfl_xor_sync(all, i, 1);
        x[192 + i] = __ballot_sync(all, lane < 4);
        x[256 + i] = __any_sync(all, i == 40) * 2 + __all_sync(all, i < 32);
        x[320 + i] = __reduce_add_sync(all, i);
        if (lane < 8) x[384 + i] = __shfl_down_sync(0xffu, i, 1);
        x[448 + i] = __match_any_sync(all, lane / 16);
        x[512 + i] = __syncthreads_count(i % 3 == 0);"""
    )
    with cuda_host.substitute(schedule, 5) as cp:
        x = cp.zeros(576, i32)
        launch(cp, text, (1,), (64,), x)
        result = x.get().reshape(9, 64)
    i = np.arange(64)
    warp = i // 32 * 32
    assert (result[0] == warp + 3).all()
    assert (result[1] == np.where(i % 8 < 2, i, i - 2)).all()
    assert (result[2] == i ^ 1).all()
    assert (result[3] == 15).all()
    assert (result[4] == np.where(i < 32, 1, 2)).all()
    assert (result[5] == np.where(i < 32, 496, 1520)).all()
    assert (result[6][i % 32 < 7] == i[i % 32 < 7] + 1).all()
    assert result[6][7] == -1  # lane 8 takes no part
    assert (result[7].astype(np.uint32) == np.where(i % 32 < 16, 0xFFFF, 0xFFFF0000)).all()
    assert (result[8] == 22).all()


def test_shuffle_beyond_the_block_is_nan() -> None:
    with cuda_host.substitute() as cp:
        x = cp.zeros(40, f32)
        launch(cp, kernel_of("x[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 31);", "float* x"), (1,), (40,), x)
        assert (x.get()[:32] == 1).all() and np.isnan(x.get()[32:]).all()


def test_shared_memory_is_poisoned_for_each_block() -> None:
    text = kernel_of(
        """
        __shared__ float fixed[4];
        __shared__ int count;
        extern __shared__ double room[];
        x[4 * blockIdx.x] = fixed[threadIdx.x];
        x[4 * blockIdx.x + 1] = room[1];
        x[4 * blockIdx.x + 2] = count;
        fixed[threadIdx.x] = count = room[1] = 1;
        x[4 * blockIdx.x + 3] = fixed[threadIdx.x] + count + room[1];""",
        "float* x",
    )
    with cuda_host.substitute() as cp:
        x = cp.zeros((3, 4), f32)
        launch(cp, text, (3,), (1,), x, shared_mem=16)
        result = x.get()
    assert np.isnan(result[:, :2]).all() and (result[:, 2] == -1).all() and (result[:, 3] == 3).all()


def test_shared_memory_is_each_blocks_own() -> None:
    text = kernel_of(
        """
        __shared__ int mine;
        if (threadIdx.x == 0) mine = blockIdx.x;
        cooperative_groups::this_grid().sync();
        x[blockIdx.x * blockDim.x + threadIdx.x] = mine;""",
        head="#include <cooperative_groups.h>",
    )
    for schedule in SCHEDULES:
        with cuda_host.substitute(schedule) as cp:
            x = cp.zeros((5, 40), i32)
            launch(cp, text, (5,), (40,), x, cooperative=True)
            assert (x.get() == np.arange(5)[:, None]).all()


def test_atomics_of_libcudacxx() -> None:
    text = kernel_of(
        """
        cuda::atomic_ref<int, cuda::thread_scope_device> ready(x[0]);
        if (blockIdx.x == 1) { x[1] = 42; ready.store(1, cuda::memory_order_release); }
        else { while (ready.load(cuda::memory_order_acquire) == 0) {} x[2] = x[1]; }
        atomicMax(x + 3, (int)blockIdx.x + 5); atomicCAS(x + 4, 0, 9);""",
        head="#include <cuda/atomic>",
    )
    for schedule in SCHEDULES:
        with cuda_host.substitute(schedule) as cp:
            x = cp.zeros(5, i32)
            launch(cp, text, (2,), (1,), x, cooperative=True)
            assert x.get().tolist() == [1, 42, 42, 6, 9]


def test_mathematics_in_both_precisions() -> None:
    wanted = {
        "tanh": np.tanh, "exp": np.exp, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt, "rsqrt": lambda v: v**-0.5,
        "erf": lambda _: 0.6778011938374184, "fabs": np.abs, "cosh": np.cosh, "sinh": np.sinh, "atan": np.arctan,
        "exp2": np.exp2, "cbrt": np.cbrt, "floor": np.floor,
    }  # fmt: skip
    lines = [f"x[{n}] = {name}(a); y[{n}] = {name}(b);" for n, name in enumerate(wanted)]
    lines += ["x[14] = tanhf(a) + __expf(a) + fmaxf(a, 2) + rsqrtf(a); y[14] = copysign(b, -1.0) + fmax(b, 2.0) + max(b, 3.0);"]
    lines += ['static_assert(sizeof(tanh(a)) == 4 && sizeof(pow(a, 2.0f)) == 4 && sizeof(max(a, 1.0f)) == 4, "");']
    with cuda_host.substitute() as cp:
        x, y = cp.empty(15, f32), cp.empty(15, float)
        text = kernel_of("\n".join(lines), "float a, double b, float* x, double* y")
        launch(cp, text, (1,), (1,), f32(0.7), np.float64(0.7), x, y)
        single, double = x.get(), y.get()
    assert np.allclose(double[:14], [float(f(0.7)) for f in wanted.values()], rtol=1e-15)
    assert np.allclose(single[:14], [float(f(0.7)) for f in wanted.values()], rtol=3e-7)
    assert np.isclose(single[14], np.tanh(0.7) + np.exp(0.7) + 2 + 0.7**-0.5) and double[14] == -0.7 + 2 + 3


# --- small floats -----------------------------------------------------------------------------------------------------


def same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    """The same bits, a NaN being like any other."""
    with np.errstate(invalid="ignore"):
        nan = np.isnan(a.astype(np.float64))
        bits = f"u{a.itemsize}"
        return bool((nan == np.isnan(b.astype(np.float64))).all() and (a.view(bits) == b.view(bits))[~nan].all())


@pytest.mark.parametrize("kind", ["half", "bfloat"])
def test_every_small_float(kind: str) -> None:
    dtype = np.dtype(np.float16) if kind == "half" else bfloat16()
    numbers = np.arange(65536, dtype=np.uint16).view(dtype)
    with cuda_host.substitute() as cp:
        y, back = cp.empty(65536, f32), cp.empty(65536, dtype)
        cp.RawModule(code=SMALL).get_function(f"widen_{kind}")((256,), (256,), (cp.asarray(numbers), y, back))
        assert same_numbers(y.get(), numbers.astype(f32))
        assert same_numbers(back.get(), numbers)


def test_rounding_to_small_floats() -> None:
    rng = np.random.default_rng(4)
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(f32)
    between = halves.view(np.uint32) + np.uint32(0x1000)  # the ties of halves that are normal, and what is just below
    sets = [bits.view(f32) for bits in (rng.integers(0, 2**32, 65536, dtype=np.uint32), between, between - np.uint32(1))]
    sets += [(rng.standard_normal(65536) * 10.0 ** rng.integers(-9, 6, 65536)).astype(f32)]
    sets += [(np.arange(65536, dtype=np.uint32) << 16 | 0x8000).astype(np.uint32).view(f32)]  # the ties of bfloat16
    wide = bfloat16()
    with cuda_host.substitute() as cp, np.errstate(over="ignore", invalid="ignore", under="ignore"):
        kernel = cp.RawModule(code=SMALL).get_function("narrow")
        for x in sets:
            h, b = cp.empty(65536, np.float16), cp.empty(65536, wide)
            kernel((256,), (256,), (cp.asarray(x), h, b))
            assert same_numbers(h.get(), x.astype(np.float16))
            assert same_numbers(b.get(), x.astype(wide))


def test_half_arithmetic_rounds_once() -> None:
    x, y = np.random.default_rng(5).integers(0, 65536, (2, 65536), dtype=np.uint16).view(np.float16)
    with cuda_host.substitute() as cp, np.errstate(all="ignore"):
        total, fused = cp.empty(65536, np.float16), cp.empty(65536, np.float16)
        cp.RawModule(code=SMALL).get_function("add")((256,), (256,), (cp.asarray(x), cp.asarray(y), total, fused))
        assert same_numbers(total.get(), x + y)
        assert same_numbers(fused.get(), (x.astype(np.float64) * y + x).astype(np.float16))


# --- what goes wrong --------------------------------------------------------------------------------------------------


GONE_WRONG = {  # the text, how many threads run it, what is said of it
    "two barriers": (
        "if (threadIdx.x < 5) __syncthreads(); else { x[0] = 1; __syncthreads(); }",
        40, r"divergent.*different.*thread 0.*5",
    ),
    "left early": (
        "if (threadIdx.x < 5) return;\n__syncthreads();",
        40, r"divergent barrier: 35 threads wait at line 5, but 5 have exited",
    ),
    "one left": (
        "if (threadIdx.x) __syncthreads();",
        2, r"divergent barrier: 1 thread waits at line 4, but 1 has exited",
    ),
    "warp against block": (
        "if (threadIdx.x < 5) __syncwarp(0xff); else __syncthreads();",
        40, r"divergent barrier: thread 5 .* thread 0",
    ),
    "lanes that do not come": (
        "if (threadIdx.x < 4) __syncwarp(0xffu); else while (atomicAdd(x, 0) == 0) {}",
        8, r"waits at line 4.*0x000000ff",
    ),
    "not in its mask": (
        "__syncwarp(0xffu);",
        40, r"thread \d+ calls .* mask 0x000000ff, in which it is not itself",
    ),
    "nobody changes it": (
        "while (__nv_atomic_load_n(x, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE) == 0) {}",
        3, r"deadlock: 3 threads spin",
    ),
    "one spins": (
        "if (threadIdx.x == 3) while (atomicAdd(x, 0) == 0) {}\n__syncthreads();",
        8, r"deadlock: 1 thread spins",
    ),
    "trap": (
        "if (threadIdx.x == 3) __trap();",
        8, r"__trap\(\) was called at line 4, thread 3",
    ),
    "assertion": (
        "assert(threadIdx.x < 3);",
        8, r"assertion failed: threadIdx.x < 3 at line 4, thread 3",
    ),
    "endless": (
        'for (int i = 0; i >= 0;) { x[0] ^= i; asm volatile(""); }',
        2, r"more than 0.3 seconds",
    ),
    "endless with atomics": (
        "for (int i = threadIdx.x; i >= 0;) atomicExch(x, i++ % 7);",
        2, r"more than 0.3 seconds",
    ),
    "grid barrier": (
        "cooperative_groups::this_grid().sync();",
        2, r"grid barrier at line 4 in a launch that is not cooperative",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GONE_WRONG)
def test_errors_of_execution(name: str) -> None:
    body, threads, message = GONE_WRONG[name]
    schedules = ("forward",) if name in ("assertion", "endless") else SCHEDULES
    for schedule in schedules:
        with cuda_host.substitute(schedule, seconds=0.3) as cp:
            x = cp.zeros(4, i32)
            with pytest.raises(cuda_host.ExecutionError, match=message) as error:
                launch(cp, kernel_of(body, head="#include <cooperative_groups.h>"), (1,), (threads,), x)
            assert str(error.value).startswith("kernel k: ") and "\n" not in str(error.value)
            launch(cp, kernel_of("x[threadIdx.x] = 5;"), (1,), (4,), x)  # and the runtime goes on
            assert (x.get() == 5).all()


def test_grid_barrier_that_a_block_misses() -> None:
    text = kernel_of("if (blockIdx.x < 2) cooperative_groups::this_grid().sync();", head="#include <cooperative_groups.h>")
    with cuda_host.substitute() as cp, pytest.raises(cuda_host.ExecutionError, match="8 threads wait at a grid barrier that 4"):
        launch(cp, text, (3,), (4,), cp.zeros(1, i32), cooperative=True)


def test_spin_on_a_block_that_cannot_run() -> None:
    stuck = r"deadlock: 1 thread of block \(0, 0, 0\) spins"
    with cuda_host.substitute() as cp, pytest.raises(cuda_host.ExecutionError, match=stuck):
        module = cp.RawModule(code=EXAMPLES["shift"].text)  # not cooperative
        EXAMPLES["shift"].launch(cp, module)
