"""The host runtime's sanitizers and mutants, and NVIDIA's compilers."""

from __future__ import annotations

import re
from pathlib import Path

import cuda_host
import pytest
from cuda_host import examples, nvrtc
from cuda_host.examples import EXAMPLES, run, run_wrong
from cuda_support import SCHEDULES, SMALL, kernel_of, needs

pytestmark = pytest.mark.skipif(bool(cuda_host.unavailable()), reason=cuda_host.unavailable())


WITH_RACES = {"same_flag"}


@pytest.mark.parametrize("variant", ["asan", "tsan"])
def test_sanitizers_have_nothing_to_say_of_what_is_right(variant: str) -> None:
    needs(variant)
    cases = [(name, None, schedule) for name in EXAMPLES if name not in WITH_RACES for schedule in ("forward", "random")]
    for case, report in zip(cases, cuda_host.sanitize(variant, run, cases), strict=True):
        assert report.clean and report.value is True, (case, report)


def line_of(text: str) -> int:
    """The line of the wrong kernels where a text is."""
    return next(number for number, line in enumerate(examples.WRONG.splitlines(), 1) if text in line)


FOUND_BY_ADDRESS_SANITIZER = {  # the kernel, what is said of it, and a text on the line where
    "write_behind": ("heap-buffer-overflow", "write_behind"),
    "read_before": ("heap-buffer-overflow", "read_before"),
    "static_shared": ("use-after-poison", "void put"),
    "dynamic_shared": ("heap-buffer-overflow", "void put"),
    "local_array": ("stack-buffer-overflow", "void put"),
    "overflow": ("signed integer overflow", "overflow"),
    "misaligned": ("store to misaligned address", "misaligned"),
    "nowhere": ("SEGV", "nowhere"),
}


def test_address_sanitizer() -> None:
    needs("asan")
    names = (*FOUND_BY_ADDRESS_SANITIZER, "fine")
    reports = dict(zip(names, cuda_host.sanitize("asan", run_wrong, [(name,) for name in names]), strict=True))
    for name, (kind, text) in FOUND_BY_ADDRESS_SANITIZER.items():
        first = reports[name].findings[0]
        assert first.kind.startswith(kind) and first.line == line_of(text), (name, reports[name])
    assert reports["fine"].clean and reports["fine"].value == 16
    assert "ended early" in reports["nowhere"].error


def test_thread_sanitizer() -> None:
    needs("tsan")
    names = ("relaxed", "between_blocks", "fine")
    relaxed, between, fine = cuda_host.sanitize("tsan", run_wrong, [(name,) for name in names])
    assert [f.kind for f in relaxed.findings] == ["data race"] * len(relaxed.findings) and relaxed.findings
    assert between.findings == [cuda_host.Finding("data race", line_of("between_blocks"))]
    assert fine.clean and (relaxed.value, between.value, fine.value) == (16, 16, 16)
    (flag,) = cuda_host.sanitize("tsan", run, [("same_flag",)])
    assert flag.value is True and flag.findings  # the numbers are right


def test_a_job_without_end() -> None:
    needs("asan")
    stuck, fine = cuda_host.sanitize("asan", wait_or_not, [(True,), (False,)], seconds=1.0)
    assert "no end within 1 seconds" in stuck.error and fine.clean and fine.value == "done"


def wait_or_not(wait: bool) -> str:
    """A job that may take for ever, or print what looks like nothing."""
    while wait:
        pass
    return "done"


# --- mutants: the tests of the tests ----------------------------------------------------------------------------------


def test_mutants_of_a_text() -> None:
    text = (
        "__syncthreads(); // __syncthreads(); i < n\n"
        "if (i >= n) return; __syncwarp(0xffu);\n"
        "for (int t = 0; t < n; t++) y[t] = x[t - 1] + *reinterpret_cast<const float*>(z + 1);\n"
        "#define LESS(a, b) (a < b)\n"
        "grid.sync(); if (i<n) y[i]=x[i-1];"
    )
    barriers = list(cuda_host.barrier_mutants(text))
    assert [(m.line, m.was) for m in barriers] == [(1, "__syncthreads()"), (2, "__syncwarp(0xffu)"), (5, "grid.sync()")]
    assert all(m.text != text and m.text.replace(m.now, m.was, 1) == text for m in barriers)
    found = [(m.line, m.was.strip(), m.now.strip()) for m in cuda_host.index_mutants(text)]
    assert sorted(found) == sorted([
        (2, ">=", ">"), (3, "<", "<="), (3, "- 1", ""), (3, "+ 1", ""), (5, "<", "<="), (5, "-1", ""),
        (2, "i >= n", "false"), (5, "i<n", "true"),
    ])  # fmt: skip
    assert str(barriers[0]) == "line 1: no barrier, '(void)0' for '__syncthreads()'"


BARRIERS = [(name, mutant) for name in EXAMPLES for mutant in cuda_host.barrier_mutants(EXAMPLES[name].text)]
INDICES = [(name, mutant) for name in EXAMPLES for mutant in cuda_host.index_mutants(EXAMPLES[name].text)]


def test_every_missing_barrier_is_a_race() -> None:
    needs("tsan")
    assert len(BARRIERS) == 6
    reports = cuda_host.sanitize("tsan", run, [(name, mutant.text) for name, mutant in BARRIERS])
    for (name, mutant), report in zip(BARRIERS, reports, strict=True):
        assert "data race" in {finding.kind for finding in report.findings}, f"{name}, {mutant}: {report}"


def right_everywhere(name: str, text: str) -> bool:
    """Whether a text gives what it should in every schedule, with no error."""
    try:
        return all(run(name, text, schedule, seed) for schedule in SCHEDULES for seed in range(2))
    except cuda_host.CudaHostError:
        return False


def test_missing_barriers_give_wrong_numbers() -> None:
    assert [f"{name}, {mutant}" for name, mutant in BARRIERS if right_everywhere(name, mutant.text)] == []


def test_every_wrong_index_is_caught() -> None:
    assert len(INDICES) > 12
    left = [(name, mutant) for name, mutant in INDICES if right_everywhere(name, mutant.text)]
    assert left  # some only a sanitizer sees
    for variant in ("asan", "tsan"):
        needs(variant)
        reports = cuda_host.sanitize(variant, run, [(name, mutant.text) for name, mutant in left])
        left = [pair for pair, report in zip(left, reports, strict=True) if report.clean and report.value is True]
    assert [f"{name}, {mutant}" for name, mutant in left] == []


# --- NVIDIA's compilers -----------------------------------------------------------------------------------------------


SPILLS = kernel_of(
    """
    float a[100];
    #pragma unroll
    for (int i = 0; i < 100; i++) a[i] = x[i * threadIdx.x];
    __syncthreads();
    for (int k = 0; k < 9; k++) {
        #pragma unroll
        for (int i = 0; i < 100; i++) a[i] = a[i * 7 % 100] * a[i] + x[i];
    }
    #pragma unroll
    for (int i = 0; i < 100; i++) x[i] = a[i];""",
    "float* x",
).replace("void k(", "void __launch_bounds__(1024) k(")


def needs_nvrtc() -> None:
    """Skips where NVRTC or its headers are missing."""
    if nvrtc.unavailable():
        pytest.skip(nvrtc.unavailable())


def test_resources_by_nvrtc() -> None:
    needs_nvrtc()
    found = nvrtc.resources(examples.BLOCK_SUM + examples.SAXPY + examples.WARP_SUM)
    assert set(found) == {"block_sum", "saxpy", "warp_sum"}
    assert found["block_sum"].shared == 256 and found["saxpy"].shared == 0
    assert all(8 <= use.registers <= 40 and not use.spills and use.stack == 0 for use in found.values())
    assert set(nvrtc.resources(SMALL)) == {"widen_half", "widen_bfloat", "narrow", "add"}  # CUDA's own headers are found
    templated = nvrtc.resources(examples.SAXPY + "template <typename T> __global__ void t(T* x) { *x = 0; }", (), ["t<double>"])
    assert len(templated) == 2
    with pytest.raises(cuda_host.CompileError, match="undeclared"):
        nvrtc.resources(kernel_of("x[0] = undeclared;"))


def test_spills_are_reported_and_registers_agree() -> None:
    needs_nvrtc()
    cubin, log = nvrtc.compile_nvrtc(SPILLS + examples.SAXPY)
    found = nvrtc.uses(log)
    assert found["k"].spills and found["k"].stack > 0 and found["k"].registers == 64
    assert nvrtc.registers_in(cubin) == {name: use.registers for name, use in found.items()}


def test_examples_compile_with_nvrtc() -> None:
    needs_nvrtc()
    for name, example in EXAMPLES.items():
        assert name in nvrtc.resources(example.text)


@pytest.mark.slow
def test_resources_by_nvcc() -> None:
    needs_nvrtc()
    if nvrtc.nvcc() is None:
        pytest.skip("nvcc is not installed")
    text = SPILLS + examples.BLOCK_SUM
    assert nvrtc.resources_by_nvcc(text) == nvrtc.resources(text)
    with pytest.raises(cuda_host.CompileError, match=r"undeclared|undefined"):
        nvrtc.resources_by_nvcc(kernel_of("x[0] = undeclared;"))


# --- the headers say what CUDA's say ----------------------------------------------------------------------------------


def test_stand_in_headers_hold_nothing_that_cuda_lacks() -> None:
    """Text that runs here for a name that CUDA does not know would fail on a GPU: NVRTC is asked for each conversion."""
    needs_nvrtc()
    folder = Path(cuda_host.__file__).parent / "include"
    for header in ("cuda_fp16.h", "cuda_bf16.h"):
        names = re.findall(r"^inline \w+ (\w+)\(", (folder / header).read_text("utf-8"), re.MULTILINE)
        assert len(names) > 10
        lines = "".join(f"using ::{name};\n" for name in names)
        nvrtc.resources(f"#include <{header}>\nnamespace here {{\n{lines}}}\n" + kernel_of("x[0] = 0;"))


# --- README.md ------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_readme() -> None:
    readme = (Path(cuda_host.__file__).parent / "README.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    exec(compile(code, "README.md", "exec"), {})
    for name in re.findall(r"^- `(\w+)\(", readme, re.MULTILINE):
        assert name in cuda_host.__all__
