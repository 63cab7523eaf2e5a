"""Rung one: what NVIDIA's own compilers say of a kernel text, for a GPU that need not be there.

NVRTC runs without a driver, with the options that CuPy would give it; nvcc is asked too where it is installed. Both report in
ptxas's words what each kernel takes of registers, stack and shared memory.
"""

from __future__ import annotations

import functools
import re
import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .elf import Elf
from .errors import CompileError
from .scan import run

ARCH = "sm_90"
REPORT = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Use:
    """What a kernel takes of the GPU, for each thread, or for each block in the case of static shared memory."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int

    @property
    def spills(self) -> bool:
        """Whether registers go to memory and back."""
        return bool(self.spill_stores or self.spill_loads)


def uses(log: str) -> dict[str, Use]:
    """Every kernel in ptxas's report."""
    found = {}
    for match in REPORT.finditer(log):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        registers, stack, stores, loads = (int(match[name]) for name in ("registers", "stack", "stores", "loads"))
        found[match["name"]] = Use(registers, stack, stores, loads, int(shared[1]) if shared else 0)
    return found


@functools.cache
def unavailable() -> str:
    """Why NVRTC cannot be asked; nothing if it can."""
    try:
        from cupy._core import core
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
        core.assemble_cupy_compiler_options(())
    except (ImportError, RuntimeError) as error:
        return f"NVRTC with CUDA's headers is not installed: {error}"
    return ""


def cupy_options(options: Sequence[str] = (), arch: str = ARCH) -> tuple[str, ...]:
    """The options that NVRTC gets from CuPy's RawModule for a GPU of an architecture."""
    from cupy._core import core

    standard = () if any("std=" in option for option in options) else ("--std=c++17",)
    assembled: tuple[str, ...] = core.assemble_cupy_compiler_options((*standard, *options))
    return (*assembled, "-ftz=true", f"-arch={arch}", "--device-as-default-execution-space")


def compile_nvrtc(
    text: str, options: Sequence[str] = (), expressions: Sequence[str] = (), arch: str = ARCH
) -> tuple[bytes, str]:
    """The cubin of a text, and the compiler's log, which holds ptxas's report."""
    from cupy_backends.cuda.libs import nvrtc

    program: Any = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        for expression in expressions:
            nvrtc.addNameExpression(program, expression)
        try:
            nvrtc.compileProgram(program, (*cupy_options(options, arch), "--ptxas-options=-v", "--ptxas-options=-warn-spills"))
        except nvrtc.NVRTCError:
            raise CompileError(nvrtc.getProgramLog(program)) from None
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)


def resources(text: str, options: Sequence[str] = (), expressions: Sequence[str] = (), arch: str = ARCH) -> dict[str, Use]:
    """What each kernel of a text takes, by NVRTC; not to be called while `cupy` is the substitute."""
    return uses(compile_nvrtc(text, options, expressions, arch)[1])


def nvcc() -> str | None:
    """The path of nvcc, if it is installed."""
    return shutil.which("nvcc")


def resources_by_nvcc(text: str, options: Sequence[str] = (), arch: str = ARCH) -> dict[str, Use]:
    """What each kernel of a text takes, by nvcc."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.cu")
        source.write_text(text, "utf-8")
        report = ["-Xptxas", "-v,-warn-spills", "-o", str(Path(folder, "kernel.cubin"))]
        standard = () if any("std=" in option for option in options) else ("-std=c++17",)
        command = [str(nvcc()), f"-arch={arch}", "-cubin", "-ftz=true", *standard, *options, *report, str(source)]
        return uses(run(command, complaints=True))


def registers_in(cubin: bytes) -> dict[str, int]:
    """The registers of each kernel as the cubin itself has them: a check of the report."""
    register_count, four_and_four = 0x2F, 4
    elf = Elf(cubin)
    names = [symbol.name for symbol in elf.symbols()]
    found = {}
    for section in elf.sections:
        if section.name != ".nv.info":
            continue
        position = 0
        while position + 4 <= len(section.data):
            form, attribute, size = struct.unpack_from("<BBH", section.data, position)
            if form == four_and_four and attribute == register_count:
                symbol, count = struct.unpack_from("<II", section.data, position + 4)
                found[names[symbol]] = count
            position += 4 + (size if form == four_and_four else 0)
    return found
