"""CUDA kernels on a CPU, unchanged: for tests where there is no GPU. See README.md."""

from __future__ import annotations

from .errors import CompileError, CudaHostError, ExecutionError, LaunchError
from .fake.machine import Machine, Seen
from .library import Kernel, Library, load
from .mutants import Mutant, barrier_mutants, index_mutants
from .sanitize import Finding, Report, sanitize, sanitizer
from .scan import unavailable
from .substitute import Foreign, import_text, substitute

__all__ = [
    "CompileError", "CudaHostError", "ExecutionError", "Finding", "Foreign", "Kernel", "LaunchError", "Library", "Machine",
    "Mutant", "Report", "Seen", "barrier_mutants", "import_text", "index_mutants", "load", "sanitize", "sanitizer",
    "substitute", "unavailable",
]  # fmt: skip
