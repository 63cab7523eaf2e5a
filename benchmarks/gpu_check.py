"""``make gpu-check``: everything that wants a GPU, the most telling first, with a result file after every stage.

    python benchmarks/gpu_check.py --results benchmarks/results/gpu         # all stages; the first two end within eight minutes
    python benchmarks/gpu_check.py --stages cells,cudnn --peer-python /elsewhere/bin/python
    python benchmarks/gpu_check.py --list                                   # the stages and their commands; needs no GPU

A stage is a command of its own with a time limit. What it prints is shown as it comes and kept in ``<stage>.log``; when it
ends, ``<stage>.json`` says how: the GPU, versions, the date, the command, the status, the last lines. One that fails, hangs or
crashes stops none of those behind it. The exit status is 0 if all passed, 1 if one did not, 2 if there is no GPU: then nothing
is written.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cells import GENERATED
from gpu import driver
from options import names
from process import Failure, Worker
from report import write

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CELLS = "lstm,gru_before,mingru,indrnn,ln_lstm_ba,gla"
"""A cell for each kind of loop: a product; two in a row; a kernel for all steps, twice; sums over units; a matrix state."""
SHAPES = ((1024, 16, 768, 768), (512, 64, 1024, 1024), (512, 32, 128, 128))
KEPT = 40  # lines of output in a record


class Stage(NamedTuple):
    """A command, of ``{python}``, ``{results}``, ``{peer}`` and ``{generated}``, and the seconds that it may take.

    ``needs`` is a program without which it is left out, ``writes`` a file of its own beside its record.
    """

    name: str
    about: str
    command: tuple[str, ...]
    seconds: int
    needs: str = ""
    writes: str = ""


def gpu_py(*options: str) -> tuple[str, ...]:
    """``gpu.py`` with the folders of this run."""
    return ("{python}", str(HERE / "gpu.py"), "--generated", "{generated}", "--peer-python", "{peer}", *options)


def sanitizer(tool: str) -> tuple[str, ...]:
    """A few tests under a tool of compute-sanitizer."""
    run = ("{python}", "-m", "pytest", "-q", "-m", "gpu", "-k", "lstm", "tests/cupy_backend/test_cupy_modules.py")
    return ("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *run)


STAGES = (
    Stage(
        "cells",
        "six cells in four dtypes, step by step and as a graph, beside NumPy in float64",
        gpu_py(
            *("--cells", CELLS, "--dtypes", "float32,bfloat16,float16,float64", "--shape", "33,5,24,40"),
            *("--contenders", "ours,ours graph", "--rounds", "1", "--seconds", "0", "--calls", "1", "--patience", "60"),
            *("--json", "{results}/cells-results.json"),
        ),
        240,
        writes="cells-results.json",
    ),
    Stage(
        "cudnn",
        "three shapes beside cuDNN, where PyTorch is installed",
        gpu_py(
            *("--cells", "lstm", "--dtypes", "bfloat16,float32", "--contenders", "ours graph,ours,torch.nn"),
            *(part for shape in SHAPES for part in ("--shape", ",".join(map(str, shape)))),
            *("--rounds", "3", "--seconds", "0.1", "--minutes", "3", "--json", "{results}/cudnn-results.json"),
        ),
        240,
        writes="cudnn-results.json",
    ),
    Stage(
        "tests",
        "the tests of the CuPy modules, on the GPU",
        ("{python}", "-m", "pytest", "-m", "gpu", "-rs", "--junitxml", "{results}/tests-results.xml"),
        3600,
        writes="tests-results.xml",
    ),
    Stage("memcheck", "compute-sanitizer: accesses out of bounds", sanitizer("memcheck"), 1200, needs="compute-sanitizer"),
    Stage("racecheck", "compute-sanitizer: races in shared memory", sanitizer("racecheck"), 1200, needs="compute-sanitizer"),
    Stage(
        "benchmarks",
        "speed beside cuDNN and PyTorch loops",
        gpu_py("--quick", "--json", "{results}/benchmarks-results.json"),
        900,
        writes="benchmarks-results.json",
    ),
    Stage("generated", "the modules are those of the specs", ("{python}", "-m", "cellspec", "generate", "--check"), 600),
)


def machine(python: str) -> dict[str, Any]:
    """The GPU that CuPy sees, and versions. A Failure where it sees none."""
    worker = Worker(python, HERE / "gpu_worker.py", {}, 120)
    try:
        found = worker.ask(do="probe", library="cupy")
    finally:
        worker.close(force=True)
    return found | driver() | {"system": platform.platform(), "python": platform.python_version(), "commit": commit()}


def commit() -> str:
    """What is checked, if git knows."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def run(stage: Stage, command: list[str], log: Path) -> dict[str, Any]:
    """Runs a stage, shows and keeps what it prints, and says how it ended; it has a process group, which ends with it."""
    begin = time.monotonic()
    last: deque[str] = deque(maxlen=KEPT)
    late = threading.Event()
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return {"status": "failed", "exit": None, "seconds": 0.0, "last lines": [f"{command[0]}: {error.strerror}"]}

    def end() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(stage.seconds, end)
    timer.start()
    try:
        assert process.stdout is not None
        with log.open("w", encoding="utf-8") as kept:
            for line in process.stdout:
                print(line, end="", flush=True)
                print(line, end="", file=kept, flush=True)
                last.append(line.rstrip("\n"))
        status = process.wait()
    except BaseException:
        end()
        raise
    finally:
        timer.cancel()
    said = f"over its {stage.seconds} s" if late.is_set() else "passed" if status == 0 else "failed"
    return {"status": said, "exit": status, "seconds": round(time.monotonic() - begin, 1), "last lines": list(last)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check.py", description="All checks that want a GPU, the most telling first.")
    add = parser.add_argument
    known = [stage.name for stage in STAGES]
    add("--results", type=Path, default=HERE / "results" / "gpu", metavar="DIR", help="where result files go")
    add("--stages", type=names, default=known, help=f"of {', '.join(known)} (default: all)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has torch (default: this one)")
    add("--generated", type=Path, default=GENERATED, metavar="DIR", help="where the generated modules are")
    add("--list", action="store_true", help="print the stages and stop")
    options = parser.parse_args(argv)
    for unknown in set(options.stages) - set(known):
        parser.error(f"--stages: {unknown!r} is none of {', '.join(known)}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The stages that are asked for, in their order."""
    options = parse(argv)
    places = {
        "python": sys.executable, "peer": options.peer_python, "results": str(options.results.resolve()),
        "generated": str(options.generated.resolve()),
    }  # fmt: skip
    stages = [stage for stage in STAGES if stage.name in options.stages]
    commands = {stage.name: [part.format(**places) for part in stage.command] for stage in stages}
    if options.list:
        for stage in stages:
            print(f"{stage.name}: {stage.about}\n    {shlex.join(commands[stage.name])}")
        return 0
    try:
        found = machine(sys.executable)
    except Failure as failure:
        print(f"nothing was checked: there is no GPU to check on: {failure}")
        return 2
    versions = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
    print(f"{found.get('gpu')}, driver {found.get('driver', '?')}, {versions}", flush=True)
    ended: dict[str, str] = {}
    for number, stage in enumerate(stages, 1):
        command = commands[stage.name]
        print(f"\n== {number} of {len(stages)}, {stage.name}: {stage.about}\n{shlex.join(command)}", flush=True)
        record: dict[str, Any] = {
            "stage": stage.name,
            "about": stage.about,
            "machine": found,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(command),
        }
        options.results.mkdir(parents=True, exist_ok=True)
        if stage.writes:
            (options.results / stage.writes).unlink(missing_ok=True)  # of an earlier run
        if stage.needs and shutil.which(stage.needs) is None:
            record |= {"status": "left out", "last lines": [f"there is no {stage.needs} here"]}
        else:
            record |= run(stage, command, options.results / f"{stage.name}.log")
        if stage.writes and (options.results / stage.writes).exists():
            record["results"] = stage.writes
        elif stage.writes and record["status"] == "passed":
            record["status"] = "failed"  # as where nothing could be measured
        write(options.results / f"{stage.name}.json", record)
        ended[stage.name] = record["status"]
        print(f"== {stage.name}: {record['status']} ({record.get('seconds', 0)} s)", flush=True)
    print("\n" + "\n".join(f"{name}: {status}" for name, status in ended.items()), flush=True)
    return 0 if all(status in ("passed", "left out") for status in ended.values()) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stage that runs ends too
    sys.exit(main())
