"""Modules of many specs, made in several processes; what comes of it does not depend on how many there are.

A process gets a path and gives text back: cells themselves, which are large, stay where they were read.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cellspec.errors import CellspecError, Diagnostic, SpecError

ENOUGH = 8
"""Specs for which it is worth starting a process, unless the user says how many there are to be."""


@dataclass(frozen=True)
class Made:
    """What came of a spec: its cell's modules, text by backend, or the mistakes in its file."""

    path: str
    cell: str = ""
    texts: Mapping[str, str] | None = None
    mistakes: tuple[Diagnostic, ...] = ()


def make(path: Path, settings: Mapping[str, str], backends: Sequence[str], residuals: str) -> Made:
    """The modules of the spec at ``path``."""
    from cellspec import generate, load

    try:
        cell = load(path, settings)
        return Made(cell.path, cell.name, {backend: generate(cell, backend, residuals) for backend in backends})
    except SpecError as error:
        return Made(str(path), mistakes=error.diagnostics)


def made(
    paths: Sequence[Path], settings: Mapping[str, str], backends: Sequence[str], jobs: int | None, residuals: str = "speed"
) -> Iterator[Made]:
    """:func:`make` for each of ``paths``, in their order, in ``jobs`` processes; without a number, in as many as are useful."""
    each = partial(make, settings=settings, backends=backends, residuals=residuals)
    count = min(jobs, len(paths)) if jobs else min(cores(), len(paths) // ENOUGH)
    if count <= 1:
        yield from map(each, paths)
        return
    # Processes start afresh: a copy of this one would have its threads' locks, but not its threads.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
    try:
        with _interrupts_ignored():
            results = pool.map(each, paths)
        yield from results
    except BrokenProcessPool:
        raise CellspecError("a process that generated modules has been killed; --jobs 1 takes less memory") from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started now ignore Ctrl-C, which reaches all processes of a terminal: one message is enough."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
