"""What a kernel text declares that a C++ compiler would not tell: its kernels and its `extern __shared__` arrays."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import CompileError

WORD = re.compile(r"\s*([A-Za-z_]\w*|[*&<>:,])")
OPENING = re.compile(r"\s*\(")
ATTRIBUTES = {"__attribute__", "__align__", "alignas", "__cluster_dims__", "__launch_bounds__"}


@dataclass(frozen=True)
class Scan:
    """The declarations of one text."""

    kernels: tuple[tuple[str, str], ...]  # extern "C": the name, the first argument of __launch_bounds__ or ""
    others: tuple[str, ...]  # kernels with C++ names: templates, or a slip
    dynamic: tuple[str, ...]  # extern __shared__ arrays


@functools.cache
def unavailable() -> str:
    """Why kernels cannot be run here; nothing if they can."""
    if compiler() is None:
        return "there is no g++ to compile kernels with"
    here = f"{platform.system()} {platform.machine()}"
    return "" if here == "Linux x86_64" else f"the runtime is written for Linux on x86-64, not {here}"


@functools.cache
def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which(os.environ.get("CUDA_HOST_CXX", "g++"))


def run(command: Sequence[str], text: str | None = None, *, complaints: bool = False) -> str:
    """A command's output, or what it says beside it; its failure as a `CompileError`."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr.strip() or f"{command[0]} ended with status {done.returncode}")
    return done.stderr if complaints else done.stdout


@functools.lru_cache(maxsize=1024)
def scan(text: str, options: tuple[str, ...]) -> Scan:
    """The declarations of a text, with macros expanded and comments gone.

    Headers are left out: CUDA's are the stand-ins' own, and declare neither.
    """
    bare = re.sub(r"^[ \t]*#[ \t]*include\b.*$", "", text, flags=re.MULTILINE)
    plain = run([str(compiler()), "-E", "-P", "-x", "c++", *options, "-"], bare)
    kernels: dict[str, str] = {}
    others = []
    for match in re.finditer(r"\b__global__\b", plain):
        name, bound = heading(plain, match.end())
        if name and is_extern_c(plain, match.start()):
            kernels[name] = kernels.get(name) or bound
        elif name:
            others.append(name)
    statements = [part for part in re.split(r"[;{}]", plain) if re.search(r"\bextern\b", part) and "__shared__" in part]
    dynamic = [found[1] for part in statements if (found := re.search(r"(\w+)\s*\[\s*\]", part))]
    return Scan(tuple(kernels.items()), tuple(dict.fromkeys(others)), tuple(dict.fromkeys(dynamic)))


def heading(plain: str, position: int) -> tuple[str, str]:
    """The name of the kernel whose declaration goes on at ``position``, and its bound on the threads of a block."""
    bound = ""
    while match := WORD.match(plain, position):
        position = match.end()
        if opening := OPENING.match(plain, position):
            if match[1] not in ATTRIBUTES:
                return match[1], bound
            inside, position = parenthesis(plain, opening.end())
            if match[1] == "__launch_bounds__":
                bound = first_argument(inside)
    return "", bound


def parenthesis(plain: str, start: int) -> tuple[str, int]:
    """What stands up to the parenthesis that closes the one before ``start``, and where that ends."""
    depth = 1
    for position in range(start, len(plain)):
        depth += {"(": 1, ")": -1}.get(plain[position], 0)
        if depth == 0:
            return plain[start:position], position + 1
    return plain[start:], len(plain)


def first_argument(inside: str) -> str:
    """What stands before the first comma that is in no parenthesis."""
    depth = 0
    for position, letter in enumerate(inside):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            return inside[:position].strip()
    return inside.strip()


def is_extern_c(plain: str, at: int) -> bool:
    """Whether what is declared at ``at`` has a C name: by itself, or in a block of such."""
    if 'extern "C"' in re.split(r"[;{}]", plain[:at])[-1]:
        return True
    blocks = []
    for match in re.finditer(r'"(?:[^"\\\n]|\\.)*"\s*\{?|[{}]', plain[:at]):
        if match[0].endswith("{"):
            blocks.append(match[0].startswith('"C"'))
        elif match[0] == "}" and blocks:
            blocks.pop()
    return bool(blocks) and all(blocks)
