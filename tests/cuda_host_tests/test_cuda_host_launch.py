"""The substitute for CuPy: compiling kernel texts, what a launch may ask for, and arguments that do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cuda_host
import numpy as np
import pytest
from cuda_host import compile as build
from cuda_host.elf import Elf
from cuda_host.fake.machine import CUDADriverError
from cuda_host.scan import scan
from cuda_support import f32, i32, kernel_of, launch

pytestmark = pytest.mark.skipif(bool(cuda_host.unavailable()), reason=cuda_host.unavailable())


LIMITS = [
    ((0,), (1,), 0, r"grid of \(0, 1, 1\) has a zero dimension"),
    ((1,), (4, 0), 0, r"block of \(4, 0, 1\) has a zero dimension"),
    ((1, 65536), (1,), 0, r"over CUDA's limit"),
    ((1,), (1, 1, 65), 0, r"over CUDA's limit"),
    ((1,), (32, 33), 0, r"1056 threads a block are more than 1024"),
    ((1,), (65,), 0, r"65 threads a block are more than its __launch_bounds__\(64\)"),
    ((1,), (1,), 48 * 1024 - 15, r"dynamic shared memory are more than its max_dynamic_shared_size_bytes"),
    ((1,), (1,), 227 * 1024 - 15, r"bytes of shared memory a block are more than 227 KB"),
    ((1, 1, 1, 1), (1,), 0, r"one to three"),
    ((1.0,), (1,), 0, r"whole numbers"),
]


@pytest.mark.parametrize(("grid", "block", "shared", "message"), LIMITS)
def test_limits_of_a_launch(grid: tuple[int, ...], block: tuple[int, ...], shared: int, message: str) -> None:
    text = kernel_of("__shared__ int four[4]; four[threadIdx.x % 4] = 1; x[0] = four[0];")
    text = text.replace("void k(", "void __launch_bounds__(BOUND) k(")
    with cuda_host.substitute() as cp:
        kernel = cp.RawModule(code=text, options=(f"-DBOUND={64 if '__launch' in message else 1024}",)).get_function("k")
        with pytest.raises(cuda_host.LaunchError, match=message):
            kernel(grid, block, (cp.zeros(1, i32),), shared_mem=shared)


def test_more_shared_memory_is_to_be_asked_for() -> None:
    text = kernel_of("extern __shared__ int room[]; room[20000] = 3; x[0] = room[20000];")
    with cuda_host.substitute() as cp:
        kernel, x = cp.RawModule(code=text).get_function("k"), cp.zeros(1, i32)
        assert kernel.max_dynamic_shared_size_bytes == 48 * 1024
        kernel.max_dynamic_shared_size_bytes = 100_000
        kernel((1,), (1,), (x,), shared_mem=100_000)
        assert x.get()[0] == 3
        with pytest.raises(CUDADriverError, match="227 KB"):
            kernel.max_dynamic_shared_size_bytes = 233_000
        with pytest.raises(cuda_host.LaunchError, match="exceeds 264 blocks"):
            cooperative = cp.RawModule(code=text, enable_cooperative_groups=True).get_function("k")
            cooperative.max_dynamic_shared_size_bytes = 100_000
            cooperative((265,), (1,), (x,), shared_mem=100_000)


def test_too_many_threads_at_once() -> None:
    with cuda_host.substitute() as cp, pytest.raises(cuda_host.ExecutionError, match="more than this runtime holds"):
        launch(cp, kernel_of(""), (17,), (1024,), cp.zeros(1, i32), cooperative=True)


# --- arguments ---------------------------------------------------------------------------------------------------------


TYPED = kernel_of("y[0] = x[0] * a + n + big + flag;", "const float* x, float* y, float a, int n, long long big, bool flag")


def test_arguments_that_fit() -> None:
    with cuda_host.substitute() as cp:
        x, y = cp.full((3, 2), 4, f32), cp.empty(1, f32)
        fitting = ((x, np.int64(5), np.bool_(True)), (x[1], 5, True), (x[1:], np.full(1, 5), True), (x.data, 5, True))
        for arg, big, flag in fitting:
            launch(cp, TYPED, (1,), (1,), arg, y, f32(0.5), i32(7), big, flag)
            assert y.get()[0] == 4 * 0.5 + 7 + 5 + 1


MISFITS = [
    (2, 0.5, r"argument 2: a Python float, which CuPy passes as float64, is given for a parameter of type float32"),
    (2, np.float64(0.5), r"argument 2: a float64 is given for a parameter of type float32"),
    (3, 7, r"argument 3: a Python int, which CuPy passes as int64, is given for a parameter of type int32"),
    (3, np.uint32(7), r"argument 3: a uint32 is given"),
    (4, i32(7), r"argument 4: a int32 is given for a parameter of type int64"),
    (5, i32(1), r"argument 5: a int32 is given for a parameter of type bool"),
    (0, f32(1), r"argument 0: a float32 is given for a parameter of type const float32\*"),
    (0, None, r"argument 0: CuPy passes None"),
    (0, ("zeros", 4, np.float64), r"argument 0: an array of float64 is given for a parameter of type const float32\*"),
    (0, ("zeros", 4, np.int32), r"argument 0: an array of int32"),
    (2, ("zeros", 4, np.float32), r"argument 2: an array is given for a parameter of type float32"),
]


@pytest.mark.parametrize(("number", "arg", "message"), MISFITS)
def test_arguments_that_do_not_fit(number: int, arg: Any, message: str) -> None:
    with cuda_host.substitute() as cp:
        args = [cp.zeros(4, f32), cp.zeros(4, f32), f32(1), i32(1), np.int64(1), np.bool_(True)]
        args[number] = getattr(cp, arg[0])(*arg[1:]) if isinstance(arg, tuple) else arg
        with pytest.raises(cuda_host.LaunchError, match=message):
            launch(cp, TYPED, (1,), (1,), *args)


def test_other_misfits() -> None:
    with cuda_host.substitute() as cp:
        x, rest = cp.zeros((4, 4), f32), (cp.zeros(1, f32), f32(1), i32(1), np.int64(1), np.bool_(True))
        for view in (x.T, x[:, 1], x[::2], x[:, :2]):
            with pytest.raises(cuda_host.LaunchError, match="is not C-contiguous"):
                launch(cp, TYPED, (1,), (1,), view, *rest)
        with pytest.raises(cuda_host.LaunchError, match="has 6 parameters, 5 arguments are given"):
            launch(cp, TYPED, (1,), (1,), *rest)
        with pytest.raises(TypeError, match=r"numpy.ndarray of shape \(4, 4\) as a kernel parameter"):
            launch(cp, TYPED, (1,), (1,), x.get(), *rest)
        with pytest.raises(TypeError, match="Unsupported type"):
            launch(cp, TYPED, (1,), (1,), "x", *rest)
        kernel = cp.RawModule(code=TYPED).get_function("k")
        with pytest.raises(TypeError, match="expected tuple, got list"):
            kernel([1], (1,), (x, *rest))
        with pytest.raises(TypeError, match="expected tuple, got int"):
            kernel((1,), 1, (x, *rest))


def test_writing_beside_an_array_is_seen() -> None:
    with cuda_host.substitute() as cp:
        x = cp.zeros(5, i32)
        text = kernel_of("x[n] = 1;", "int* x, int n")
        launch(cp, text, (1,), (1,), x, i32(4))
        for n, where in ((5, "behind the end"), (-1, "before the start")):
            with pytest.raises(cuda_host.CudaHostError, match=f"wrote {where} of an array of 20 bytes"):
                launch(cp, text, (1,), (1,), x, i32(n))
        launch(cp, text, (1,), (1,), x, i32(0))


# --- texts ------------------------------------------------------------------------------------------------------------


TEXT = r"""
// __global__ void commented(int* x);
/* extern __shared__ int commented[]; */
#define KERNEL(T) extern "C" __global__ void __launch_bounds__(LIMIT / 2, 1) made_##T(T* x) \
    { extern __shared__ T room_##T[]; *x = 2; }
KERNEL(int)
KERNEL(float)
extern "C" {
__device__ int twice(int n) { return 2 * n; }
__global__ void
    __launch_bounds__(32) inside(int* x)
{
    extern __shared__ __align__(16) unsigned char bytes[];
    x[0] = twice(4) + (bytes[0] == 255);
}
}
template <typename T> __global__ void templated(T* x, T value) { *x = value; }
namespace apart { __global__ void unreachable(int* x) {} }
#if LIMIT > 1000
extern "C" __global__ void conditional(int* x) { const char* s = "extern \"C\" { __global__ void in_a_string("; x[0] = s[0]; }
#endif
"""


def test_what_a_text_declares() -> None:
    found = scan(TEXT, ("-DLIMIT=128",))
    assert found.kernels == (("made_int", "128 / 2"), ("made_float", "128 / 2"), ("inside", "32"))
    assert set(found.others) == {"templated", "unreachable"}
    assert found.dynamic == ("room_int", "room_float", "bytes")
    assert [name for name, _ in scan(TEXT, ("-DLIMIT=2048",)).kernels] == ["made_int", "made_float", "inside", "conditional"]


def test_kernels_are_found_as_cuda_finds_them() -> None:
    with cuda_host.substitute() as cp:
        module = cp.RawModule(code=TEXT, options=("-DLIMIT=128",), name_expressions=["templated<double>", "apart::unreachable"])
        x = cp.zeros(1, i32)
        module.get_function("inside")((1,), (1,), (x,), shared_mem=4)
        assert x.get()[0] == 9
        module.get_function("made_int")((1,), (64,), (x,))
        y = cp.zeros(1, np.float64)
        module.get_function("templated<double>")((1,), (1,), (y, 2.5))
        assert y.get()[0] == 2.5
        for name in ("templated", "unreachable", "conditional", "nothing"):
            with pytest.raises(CUDADriverError, match="CUDA_ERROR_NOT_FOUND"):
                module.get_function(name)
        kernel = cp.RawKernel(TEXT, "inside", ("-DLIMIT=128",))
        kernel((1,), (1,), (x,), shared_mem=4)
        assert x.get()[0] == 9 and kernel.name == "inside" and kernel.max_threads_per_block == 32


def test_errors_of_compilation() -> None:
    with cuda_host.substitute() as cp:
        module = cp.RawModule(code=kernel_of("x[0] = undeclared;"))  # nothing is compiled before a kernel is asked for
        with pytest.raises(cp.cuda.compiler.CompileException, match=r"kernel:4:\d+: error: .*undeclared"):
            module.get_function("k")
        with pytest.raises(TypeError, match="expected tuple, got list"):
            cp.RawModule(code="", options=["-DX"])
        with pytest.raises(TypeError, match="Exactly one"):
            cp.RawModule()


def test_libraries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    text = kernel_of("x[0] = VALUE;")
    first, names = build.kernel_library(text, ("-DVALUE=1",))
    assert names == ("k",) and [path.name for path in tmp_path.iterdir()] == [first.name]
    monkeypatch.setattr(build, "run", lambda *_: pytest.fail("compiled again"))
    assert build.kernel_library(text, ("-DVALUE=1", "--use_fast_math"))[0] == first
    monkeypatch.undo()
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    others = [build.kernel_library(*args)[0] for args in ((text, ("-DVALUE=2",)), (text + " ", ("-DVALUE=1",)))]
    others.append(build.kernel_library(text, ("-DVALUE=1",), (), "tsan")[0])
    assert len({first, *others}) == 4
    assert "k" in {symbol.name for symbol in Elf.read(first).symbols()}


def test_several_processes_want_the_same_library(tmp_path: Path) -> None:
    code = (
        "import sys, cuda_host\n"
        "from cuda_host.examples import run\n"
        "sys.exit(not all(run(name) for name in ('saxpy', 'block_sum')))"
    )
    environment = {**build.os.environ, "CUDA_HOST_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert sorted({path.suffix for path in tmp_path.iterdir()}) == [".so"] and len(list(tmp_path.iterdir())) == 3
