"""What a machine with a driver and no toolkit needs: libraries by extras, kernels that NVRTC compiles with pip's headers."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
from cuda_host import CompileError, nvrtc
from support import ROOT, SHIPPED, cell_of
from test_cupy_resources import text_of_kernels

import cellspec

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TEMPLATES = sorted((ROOT / "cellspec" / "backends").rglob("*.jinja"))
CUDA = sorted((ROOT / "cellspec" / "backends").rglob("*.cu"))
SOURCES = [*TEMPLATES, *CUDA, *sorted((ROOT / "cellspec" / "backends" / "cupy").glob("*.py"))]
HEADERS = {"cuda_fp16.h", "cuda_bf16.h"}
"""Headers that pip's wheels of CUDA bring and NVRTC takes. Not among them: ``mma.h``, in 12.9 ``cooperative_groups.h``."""
INCLUDE = re.compile(r"#\s*include\s*[<\"]([^>\"\\]+)")


@pytest.mark.parametrize("cuda", ["12", "13"])
def test_the_extras_bring_cudas_libraries(cuda: str) -> None:
    """By CuPy's own extra, which it has since version 14."""
    assert PROJECT["optional-dependencies"][f"cuda{cuda}x"] == [f"cupy-cuda{cuda}x[ctk]>=14.0"]


def test_cupy_has_the_extra_and_it_brings_cublas_and_nvrtc() -> None:
    try:
        found = metadata.metadata("cupy-cuda13x")
    except metadata.PackageNotFoundError:
        pytest.skip("cupy-cuda13x, whose metadata is looked at, is not installed")
    assert "ctk" in (found.get_all("Provides-Extra") or [])
    (toolkit,) = (text for text in found.get_all("Requires-Dist") or [] if 'extra == "ctk"' in text)
    parts = re.search(r"\[(.*)\]", toolkit)
    assert parts and {"cublas", "cudart", "nvrtc"} <= set(parts[1].split(","))


def test_no_kernel_includes_a_header_that_nvrtc_does_not_take() -> None:
    for path in SOURCES:
        assert set(INCLUDE.findall(path.read_text("utf-8"))) <= HEADERS, path.name
    assert set(INCLUDE.findall(text_of_kernels(cellspec.generate(cell_of(SHIPPED[0]), "cupy"), "float16"))) == {"cuda_fp16.h"}


def test_no_launch_is_cooperative() -> None:
    """CuPy shrinks a cooperative grid that does not fit, with a warning only: who writes one asks for the occupancy first."""
    for path in SOURCES:
        text = path.read_text("utf-8")
        asks = "occupancyMaxActiveBlocksPerMultiprocessor" in text
        assert asks or not re.search(r"enable_cooperative_groups|cooperative_groups\.h|\bgrid\.sync\b|this_grid", text), (
            path.name
        )


needs_nvrtc = pytest.mark.skipif(bool(nvrtc.unavailable()), reason=nvrtc.unavailable())

INLINE = r"""
extern "C" __global__ void inline_ptx(unsigned* words, float* sums, const unsigned* a, const unsigned* b)
{
    unsigned first, second, third, fourth;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(first), "=r"(second), "=r"(third), "=r"(fourth) : "l"(words) : "memory");
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" :: "l"(words + 4), "r"(first + fourth) : "memory");
    float c[4] = {0, 0, 0, 0};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    for (int i = 0; i < 4; i++) sums[threadIdx.x*4 + i] = c[i] + float(second + third);
}
"""


@needs_nvrtc
def test_what_persistent_kernels_need_is_inline_ptx_and_compiles() -> None:
    """Relaxed loads and stores for the whole GPU, tensor cores and barriers of a cluster, without a header."""
    (use,) = nvrtc.resources(INLINE).values()
    assert not use.spills


@needs_nvrtc
def test_the_header_for_tensor_cores_does_not_compile() -> None:
    """Should this fail one day, ``mma.h`` may be used."""
    with pytest.raises(CompileError):
        nvrtc.resources('#include <mma.h>\nextern "C" __global__ void k(int* x) { *x = 1; }')
