"""Kernel text to a shared library of the CPU's, by g++, kept by the hash of everything that went into it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .scan import compiler, run, scan

HERE = Path(__file__).parent
DAYS_KEPT = 7
ROOM_BETWEEN = 64  # bytes

TRACEABLE = ("-fno-omit-frame-pointer", "-g1")

# The flags of each variant for kernels. The runtime itself is never sanitized, only told which sanitizer there is.
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "asan": ("-fsanitize=address,undefined", "-fsanitize-recover=address", "-fno-sanitize=vptr", *TRACEABLE),
    "tsan": ("-fsanitize=thread", *TRACEABLE),
}
RUNTIME_FLAGS = {"plain": (), "asan": ("-DCUDA_HOST_ASAN",), "tsan": ("-DCUDA_HOST_TSAN",)}
FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-fno-gnu-unique",  # the shared array of a template belongs to one library, not to all that instantiate it
    "-fno-extern-tls-init",  # an `extern __shared__` array has no initialiser to be called
    "-fno-strict-aliasing",  # nvcc lets a float* be read as a float4*
    "-fno-math-errno",
    "-w",  # nvcc warns of other things than g++ does
)


def variant() -> str:
    """Which variant this process runs: a sanitizer is the whole process's (see `sanitize`)."""
    return os.environ.get("CUDA_HOST_VARIANT", "plain")


@functools.cache
def toolchain() -> bytes:
    """A digest of the runtime's sources and the compiler's version: part of every key."""
    digest = hashlib.sha256()
    for path in sorted(path for path in HERE.rglob("*") if path.suffix in {".h", ".cpp", ".s", ""} and path.is_file()):
        digest.update(path.relative_to(HERE).as_posix().encode() + path.read_bytes())
    digest.update(run([str(compiler()), "--version"]).encode())
    return digest.digest()


@functools.cache
def cache_folder() -> Path:
    """Where libraries are kept: one folder for all processes of a user, freed of what is old."""
    named = os.environ.get("CUDA_HOST_CACHE")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"cuda_host-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="cuda_host-"))
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > DAYS_KEPT * 86400:
                path.unlink()
        except OSError:
            pass  # another process was first
    return folder


def build(key: bytes, command: Sequence[str], sources: dict[str, str], *, apart: bool = False) -> Path:
    """The library of this key, made if it is not there; ``apart``: with room between the first source's shared arrays.

    It is written under another name and renamed, so that several processes that want the same one at once do no harm.
    """
    target = cache_folder() / f"{hashlib.sha256(key).hexdigest()[:32]}.so"
    if target.exists():
        os.utime(target)
        return target
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="build-") as folder:
        for name, text in sources.items():
            Path(folder, name).write_text(text, "utf-8")
        files = [str(Path(folder, name)) for name in sources]
        if apart:
            first = Path(folder, "apart.s")
            run([*command, "-S", files[0], "-o", str(first)])
            first.write_text(set_apart(first.read_text("utf-8")), "utf-8")
            files[0] = str(first)
        made = Path(folder, "made.so")
        run([*command, "-shared", *files, "-o", str(made)])
        os.replace(made, target)
    return target


def set_apart(assembly: str) -> str:
    """The assembly with room behind each static shared array: AddressSanitizer leaves none around thread-local objects."""
    lines = []
    shared = False
    for line in assembly.splitlines():
        if re.match(r"\s*\.(section|text|data|bss)\b", line):
            shared = ".tbss" in line
        lines.append(line)
        if shared and re.match(r"\s*\.zero\b", line):
            lines.append(f"\t.zero\t{ROOM_BETWEEN}")
    return "\n".join(lines) + "\n"


def runtime_library(which: str) -> Path:
    """The runtime of a variant."""
    command = [str(compiler()), "-std=c++17", "-O2", "-fPIC", *RUNTIME_FLAGS[which], f"-I{HERE}"]
    return build(toolchain() + b"runtime" + which.encode(), [*command, str(HERE / "runtime.cpp")], {})


def kernel_library(
    text: str, options: Sequence[str] = (), expressions: Sequence[str] = (), which: str | None = None
) -> tuple[Path, tuple[str, ...]]:
    """The library of a kernel text and the names of its kernels, in the order in which it numbers them."""
    which = which or variant()
    taken = tuple(host_options(options))
    found = scan(text, taken)
    kernels = (*found.kernels, *((expression, "") for expression in expressions))
    wrapper = "".join(f"CUDA_HOST_KERNEL({i}, {bound or 1024}, {name})\n" for i, (name, bound) in enumerate(kernels))
    dynamic = "".join(f"        .globl  {name}\n        .type   {name}, @object\n{name}:\n" for name in found.dynamic)
    sources = {
        "kernel.cpp": f'#line 1 "kernel"\n{text}\n#line 1 "launch"\n{wrapper}',
        "tls.s": (HERE / "tls.s").read_text("utf-8") + dynamic + "        .zero   1\n",
    }
    command = [str(compiler()), *FLAGS, *VARIANTS[which], *taken]
    command += [f"-I{HERE}", f"-I{HERE / 'include'}", "-include", str(HERE / "runtime.h")]
    key = "\0".join([which, *command, *sources.values()])
    return build(toolchain() + key.encode(), command, sources, apart=which == "asan"), tuple(name for name, _ in kernels)


def host_options(options: Sequence[str]) -> list[str]:
    """Of the options for NVRTC those that mean something to g++: macros, and a newer standard."""
    taken = []
    for option in options:
        if match := re.fullmatch(r"(?:-D|--define-macro=)\s*(.+)", option):
            taken.append(f"-D{match[1]}")
        elif match := re.fullmatch(r"(?:-U|--undefine-macro=)\s*(.+)", option):
            taken.append(f"-U{match[1]}")
        elif match := re.fullmatch(r"(?:-std=|--std=)c\+\+(2\d)", option):
            taken.append(f"-std=c++{match[1]}")
    return taken
