"""Runs test functions in a process of a sanitizer's own, and reads its findings.

A sanitizer must be in a process from its start (LD_PRELOAD), and it cannot be in pytest's: so a job is a function of a module,
which a fresh Python imports and calls, once for each case, with kernels compiled for the sanitizer.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .compile import cache_folder
from .scan import compiler, run

LIBRARIES = {"asan": "libasan.so", "tsan": "libtsan.so"}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=0",
    "TSAN_OPTIONS": "exitcode=0:report_thread_leaks=0:atexit_sleep_ms=0",
}
MARK = "=== cuda_host case {} ==="
NO_RANDOM_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE: ThreadSanitizer does not stand too random a layout


@dataclass(frozen=True)
class Finding:
    """One finding: its kind in the sanitizer's words, and the kernel text's line if it names one."""

    kind: str
    line: int | None

    def __str__(self) -> str:
        return self.kind if self.line is None else f"{self.kind} at line {self.line}"


@dataclass
class Report:
    """What became of a case."""

    findings: list[Finding] = field(default_factory=list)
    error: str = ""  # of the job: "LaunchError: …"
    value: Any = None  # what the job returned
    output: str = ""  # all that it printed

    @property
    def clean(self) -> bool:
        """Whether there is nothing to say."""
        return not self.findings and not self.error


@functools.cache
def sanitizer(variant: str) -> Path | None:
    """The sanitizer's library, if the compiler has it."""
    if compiler() is None:
        return None
    found = Path(run([str(compiler()), f"-print-file-name={LIBRARIES[variant]}"]).strip())
    return found.resolve() if found.is_absolute() and found.exists() else None


def sanitize(variant: str, job: Callable[..., Any], cases: Sequence[tuple[Any, ...]], seconds: float = 120.0) -> list[Report]:
    """Calls ``job(*case)`` for every case under "asan" (with UBSan) or "tsan"; ``seconds`` is what each may take.

    The job is a function of a module that can be imported, the cases and what it returns can be pickled. Each case has a
    process of its own: what one does, and how it ends, is nothing to the others.
    """
    with tempfile.TemporaryDirectory(prefix="cuda_host-") as folder:
        task, results = Path(folder, "task"), Path(folder, "results")
        task.write_bytes(pickle.dumps((sys.path, job.__module__, job.__qualname__, list(cases), seconds)))
        results.write_bytes(b"")
        text = output_of(variant, [str(task), str(results)])
        outcomes = read_results(results)
    sections = re.split("\n?" + MARK.format(r"\d+") + "\n", text)[1:]
    if not len(sections) == len(outcomes) == len(cases):
        raise RuntimeError(f"of {len(cases)} jobs {len(outcomes)} ran under {variant}:\n{text}")
    return [
        Report(findings_in(section), error, value, section) for section, (error, value) in zip(sections, outcomes, strict=True)
    ]


def output_of(variant: str, arguments: Sequence[str]) -> str:
    """What the process of the jobs prints."""
    library = sanitizer(variant)
    if library is None:
        raise RuntimeError(f"{compiler()} has no {LIBRARIES[variant]}")
    environment = {
        **os.environ,
        **OPTIONS,
        "LD_PRELOAD": str(library),
        "CUDA_HOST_VARIANT": variant,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path]),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "cuda_host.job", *arguments]
    with tempfile.TemporaryFile() as output:
        subprocess.run(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, preexec_fn=fixed_addresses, check=False
        )
        output.seek(0)
        return output.read().decode(errors="replace")


def fixed_addresses() -> None:
    """Turns address randomisation off for the process that is about to be."""
    ctypes.CDLL(None).personality(NO_RANDOM_ADDRESSES)


def read_results(path: Path) -> list[tuple[str, Any]]:
    """What the cases that ended returned."""
    results = []
    with path.open("rb") as file:
        while file.peek(1):
            results.append(pickle.load(file))
    return results


HEADS = re.compile(
    r"(?:ERROR: AddressSanitizer: (?P<asan>[\w-]+)"
    r"|WARNING: ThreadSanitizer: (?P<tsan>[^(\n]+?) \("
    r"|^kernel:(?P<line>\d+):\d+: runtime error: (?P<ubsan>[^\n]+))",
    re.MULTILINE,
)
ADDRESS = re.compile(r"([0-9a-f]{32}\.so)\+(0x[0-9a-f]+)\)")
PLACE = re.compile(r"^ *#\d+ .*?\bkernel:(\d+)", re.MULTILINE)


def findings_in(text: str) -> list[Finding]:
    """What a sanitizer's output says."""
    heads = list(HEADS.finditer(text))
    findings = []
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=False):
        section = text[head.end() : end]
        line = int(head["line"]) if head["line"] else line_in(section)
        findings.append(Finding(head["asan"] or head["tsan"] or head["ubsan"], line))
    return findings


def line_in(section: str) -> int | None:
    """The kernel text's line of the first call stack.

    A sanitizer knows by name only what was loaded before its first finding; the rest it gives by address.
    """
    if place := PLACE.search(section):
        return int(place[1])
    for library, offset in ADDRESS.findall(section):
        path = cache_folder() / library
        if path.exists() and (place := re.search(r"\bkernel(?:\.cpp)?:(\d+)", run(["addr2line", "-e", str(path), offset]))):
            return int(place[1])
    return None
