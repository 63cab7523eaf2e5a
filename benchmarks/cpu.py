"""Speed on a CPU beside what one would use instead: forward + backward, float32.

    python benchmarks/cpu.py                                        # LSTM and GRU, five shapes, every peer
    python benchmarks/cpu.py --peer-python ~/torch/bin/python --json benchmarks/results/laptop.json
    python benchmarks/cpu.py --cells peephole --shape 100,32,64,128 --peers none

Each contender runs in a process of its own (``worker.py``); they take turns, round after round. README.md has the rules.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS, Case
from process import Failure, Missing, Worker
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from worker import CONTENDERS, KNOWN

OURS = "ours"
PEERS = {"torch": ("torch.nn", "torch loop"), "jax": ("jax.lax.scan",)}
SHAPES = ((200, 16, 32, 32), (100, 32, 64, 128), (100, 1, 64, 128), (50, 20, 650, 650), (100, 64, 256, 512))
DISTURBED = 1.3  # a third quartile so many times the first: something else was running
TOLERANCE = 1e-4  # of a gradient, relative to its largest element


class Result(NamedTuple):
    """One contender at one shape. Times are milliseconds: quartiles over the rounds, each the median of a turn's calls."""

    cell: str
    shape: tuple[int, int, int, int]
    contender: str
    median: float
    q1: float
    q3: float
    ratio: float  # median over ours: above 1, ours is faster
    rounds: list[float]
    calls: int
    error: float | None  # worst difference of a gradient to ours, relative to its largest element; None: not compared
    note: str
    versions: dict[str, str]


def worst_difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """max |found - expected| / max |expected|, the worst of all gradients."""
    if set(found) != set(expected):
        return float("inf")
    return max(
        float(np.max(np.abs(found[name] - value), initial=0.0) / max(np.max(np.abs(value), initial=0.0), 1e-30))
        for name, value in expected.items()
    )


class Benchmark:
    """Cells, shapes and contenders, taken one case at a time."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options, self.console = options, console
        self.skipped: dict[str, str] = {}  # a contender and why

    def contenders(self, cell: str) -> list[str]:
        """Who takes part for a cell: ourselves, and the peers asked for that know the cell."""
        peers = [name for library in self.options.peers for name in PEERS[library] if cell in KNOWN[name]]
        return [name for name in CONTENDERS if name not in self.skipped and (name.startswith(OURS) or name in peers)]

    def prepared(self, case: Case) -> dict[str, tuple[Worker, dict[str, Any]]]:
        """A warm process for every contender, with its answer. Who is not installed is left out from then on, and said so."""
        workers: dict[str, tuple[Worker, dict[str, Any]]] = {}
        for name in self.contenders(case.cell):
            python = sys.executable if name.startswith(OURS) else self.options.peer_python
            limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(case.threads))
            worker = Worker(python, Path(__file__).with_name("worker.py"), limits)
            try:
                workers[name] = worker, worker.ask(do="prepare", contender=name, **case._asdict())
            except Failure as failure:
                worker.close()
                if name.startswith(OURS):
                    for other, _ in workers.values():
                        other.close()
                    raise
                self.skip(name, f"{failure} in {python}" if isinstance(failure, Missing) else str(failure))
        return workers

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why
        self.console.print(f"skipped: {name}: {why}", style="yellow", soft_wrap=True)

    def differences(self, workers: dict[str, tuple[Worker, dict[str, Any]]]) -> dict[str, float]:
        """How far the gradients of those with the same formula are from ours."""
        gradients = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, (worker, prepared) in workers.items():
                if not prepared["note"]:
                    file = str(Path(folder, "gradients.npz"))
                    worker.ask(do="gradients", file=file)
                    with np.load(file) as arrays:
                        gradients[name] = dict(arrays)
        return {name: worst_difference(found, gradients[OURS]) for name, found in gradients.items() if name != OURS}

    def run(self, case: Case) -> list[Result]:
        """All contenders in turn, round after round, each round beginning with another one."""
        workers = self.prepared(case)
        try:
            errors = self.differences(workers)
            times: dict[str, list[list[float]]] = {name: [] for name in workers}
            for turn in range(self.options.rounds):
                names = list(workers)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    time.sleep(self.options.pause)  # the threads of whoever went before stop spinning
                    reply = workers[name][0].ask(do="time", seconds=self.options.seconds, most=self.options.calls)
                    times[name].append(reply["seconds"])
        finally:
            for worker, _ in workers.values():
                worker.close()
        ours = statistics.median(map(statistics.median, times[OURS])) * 1e3
        results = []
        for name, turns in times.items():
            rounds = [statistics.median(seconds) * 1e3 for seconds in turns]
            q1, median, q3 = statistics.quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
            result = Result(
                cell=case.cell,
                shape=(case.T, case.B, case.I, case.H),
                contender=name,
                median=median,
                q1=q1,
                q3=q3,
                ratio=median / ours,
                rounds=rounds,
                calls=sum(map(len, turns)),
                error=errors.get(name),
                note=workers[name][1]["note"],
                versions=workers[name][1]["versions"],
            )
            results.append(result)
        return results


def table(cell: str, results: Sequence[Result]) -> Table:
    """Milliseconds with quartiles, and how many times ours the peer takes."""
    names = list(dict.fromkeys(result.contender for result in results))
    found = Table(title=f"{cell}: forward + backward, milliseconds, median (quartiles) and times ours", title_justify="left")
    found.add_column("T, B, I, H")
    for name in names:
        found.add_column(name, justify="right")
    for shape in dict.fromkeys(result.shape for result in results):
        row = {result.contender: result for result in results if result.shape == shape}
        found.add_row(", ".join(map(str, shape)), *(entry(row[name]) if name in row else "skipped" for name in names))
    return found


def entry(result: Result) -> str:
    digits = 2 if result.median < 10 else 1 if result.median < 100 else 0
    text = f"{result.median:.{digits}f} ({result.q1:.{digits}f}-{result.q3:.{digits}f})"
    if result.q3 > DISTURBED * result.q1:
        text = f"[dim]~{text}[/]"
    if result.contender == OURS:
        return text
    colour = "green" if result.ratio >= 1 else "red"
    return f"{text} [{colour}]x{result.ratio:.2f}[/]"


def machine(threads: int) -> dict[str, Any]:
    """What the times were taken on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if key.strip() == "model name"), model)
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', '?')} {blas.get('version', '')}".strip(),
    }


def available_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_processors(threads: int) -> None:
    """Lets this process and all that it starts use ``threads`` processors: XLA takes the size of its pool from that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not four sizes T,B,I,H")
    return tuple(map(int, sizes))


def names(text: str) -> list[str]:
    return [] if text == "none" else [name.strip() for name in text.split(",")]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cpu.py",
        description="Speed on a CPU beside PyTorch and JAX: forward + backward, float32.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--cells", type=names, default="lstm,gru_after", help=f"generated cells; peers know {', '.join(CELLS)}")
    add("--shape", type=shape, action="append", metavar="T,B,I,H", help="a shape, may be given again (default: the usual five)")
    add("--peers", type=names, default="torch,jax", help="of torch, jax; or none")
    add("--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has them")
    add("--threads", type=int, default=available_processors(), help="for every contender")
    add("--rounds", type=int, default=7, help="turns of each contender")
    add("--seconds", type=float, default=0.4, help="of timed calls in a turn")
    add("--calls", type=int, default=200, help="at most so many calls in a turn")
    add("--pause", type=float, default=0.25, help="seconds between turns")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args(argv)
    for unknown in set(options.peers) - set(PEERS):
        parser.error(f"--peers: {unknown!r} is none of {', '.join(PEERS)}")
    for cell in options.cells:
        if not cell.isidentifier():
            parser.error(f"--cells: {cell!r} is not a cell's name")
    if min(options.threads, options.rounds, options.calls) < 1 or min(options.seconds, options.pause) < 0:
        parser.error("--threads, --rounds and --calls start at 1, --seconds and --pause at 0")
    if options.threads > available_processors():
        parser.error(f"--threads: there are {available_processors()} processors")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a peer's gradients differ from ours, 2 nothing could be measured."""
    options = parse(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    host = machine(options.threads)
    console.print(f"{host['cpu']}, {options.threads} threads of {host['cores']}, numpy {host['numpy']} ({host['blas']})")
    if host["load"] is not None and host["load"] > 0.5:
        console.print(f"something else is running here (load {host['load']:.1f}): expect times to be off", style="yellow")
    limit_processors(options.threads)
    shapes: Sequence[tuple[int, int, int, int]] = options.shape or SHAPES
    cases = [Case(cell, *sizes, threads=options.threads) for cell in options.cells for sizes in shapes]
    benchmark = Benchmark(options, console)
    results: list[Result] = []
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=len(cases))
            for case in cases:
                bar.update(task, description=f"{case.cell} {case.T}, {case.B}, {case.I}, {case.H}")
                results += benchmark.run(case)
                bar.advance(task)
    except Failure as failure:
        print(f"cpu: {failure}", file=sys.stderr)
        return 2
    for cell in options.cells:
        console.print(table(cell, [result for result in results if result.cell == cell]))
        if cell not in CELLS:
            console.print(f"no peer knows {cell}", style="yellow")
    if any(result.q3 > DISTURBED * result.q1 for result in results):
        console.print("~ the turns differ much: something else was running, or the calls are too short", style="yellow")
    wrong = report_differences(console, results)
    if options.json:
        report = {
            "what": "forward + backward, float32, milliseconds",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            "machine": host,
            "rounds": options.rounds,
            "results": [result._asdict() for result in results],
            "skipped": benchmark.skipped,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def report_differences(console: Console, results: Sequence[Result]) -> bool:
    """Says how far the peers' gradients are from ours; whether any is too far."""
    compared = [result for result in results if result.error is not None]
    wrong = [result for result in compared if not (result.error is not None and result.error <= TOLERANCE)]
    for cell, name, note in dict.fromkeys((result.cell, result.contender, result.note) for result in results if result.note):
        console.print(f"not compared: {name} for {cell}: {note}", style="yellow")
    for result in wrong:
        console.print(
            f"{result.contender} differs: {result.cell} {result.shape}, a gradient by {result.error:.1e}", style="red"
        )
    if compared and not wrong:
        worst = max(result.error for result in compared if result.error is not None)
        console.print(f"all gradients agree with ours to {worst:.0e} of their largest element")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
