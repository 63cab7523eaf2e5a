"""The process that `sanitize` starts: ``python -m cuda_host.job TASK RESULTS``."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import sys
from pathlib import Path

from .sanitize import MARK


def main(task: str, results: str) -> None:
    """Calls the job for each case, with a line between them, and writes down what it returns as it goes."""
    path, module, name, cases = pickle.loads(Path(task).read_bytes())
    os.environ.pop("LD_PRELOAD", None)  # the compiler must run without
    sys.path[:] = path
    job = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    with Path(results).open("ab") as file:
        for number, case in enumerate(cases):
            print(f"\n{MARK.format(number)}", file=sys.stderr, flush=True)
            try:
                outcome = ("", job(*case))
            except Exception as error:
                outcome = (f"{type(error).__name__}: {error}", None)
            pickle.dump(outcome, file)
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
