"""The process that `sanitize` starts: ``python -m cuda_host.job TASK RESULTS``.

It imports the job once and forks for each case: so a case that dies takes no other with it, and a sanitizer, which reports one
place in the text only once in a process, reports it again for the next case.
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .sanitize import MARK

PAUSE = 0.002  # seconds between looks at a child


def main(task: str, results: str) -> None:
    """Calls the job for each case, with a line between them, and writes down what it returns as it goes."""
    path, module, name, cases, seconds = pickle.loads(Path(task).read_bytes())
    os.environ.pop("LD_PRELOAD", None)  # the compiler must run without
    sys.path[:] = path
    job: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    file = os.open(results, os.O_WRONLY | os.O_APPEND)
    for number, case in enumerate(cases):
        print(f"\n{MARK.format(number)}", file=sys.stderr, flush=True)
        child = os.fork()
        if child == 0:
            run(job, case, file)
        if ending := wait(child, seconds):
            os.write(file, pickle.dumps((f"the process ended early: {ending}", None)))


def run(job: Callable[..., Any], case: Sequence[Any], file: int) -> None:
    """One case, in a process of its own, which ends here."""
    try:
        outcome = ("", job(*case))
    except Exception as error:
        outcome = (f"{type(error).__name__}: {error}", None)
    os.write(file, pickle.dumps(outcome))
    sys.stdout.flush()
    os._exit(0)


def wait(child: int, seconds: float) -> str:
    """Waits for a case, or loses patience; how it ended if not well."""
    until = time.monotonic() + seconds
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"no end within {seconds:g} seconds"
        time.sleep(PAUSE)
    code = os.waitstatus_to_exitcode(done[1])
    return "" if code == 0 else f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


if __name__ == "__main__":
    main(*sys.argv[1:])
