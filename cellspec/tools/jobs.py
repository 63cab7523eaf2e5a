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
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cellspec.errors import CellspecError, Diagnostic, SpecError
from cellspec.tools import stopping

ENOUGH = 8
"""Specs for which it is worth starting a process, unless the user says how many there are to be."""


PATIENCE = 0.1
"""Seconds between two looks at whether the program is to end."""


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
    with stopping.deferred():
        # Processes start afresh: a copy of this one would have its threads' locks, but not its threads.
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _end_with_parent)
        try:
            with _interrupts_ignored():
                results = [pool.submit(each, path) for path in paths]
            for result in results:
                while not result.done():
                    stopping.check()
                    wait([result], PATIENCE)
                yield result.result()
        except BrokenProcessPool:
            raise CellspecError("a process that generated modules has been killed; --jobs 1 takes less memory") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process that works ends when the one that has started it does, even if that was killed and could not say so."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
