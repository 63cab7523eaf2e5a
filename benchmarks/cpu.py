"""Speed on a CPU beside what one would use instead: forward, forward + backward, and single steps, in float32.

    python benchmarks/cpu.py --quick                                 # three shapes, few rounds: half a minute a cell
    python benchmarks/cpu.py --peer-python ~/torch/bin/python --json benchmarks/results/laptop.json
    python benchmarks/cpu.py --cells peephole --shape 100,32,64,128 --peers none
    python benchmarks/cpu.py --sweep --plot sweep.svg                # how the time grows with T, B and H
    python benchmarks/cpu.py --from benchmarks/results/laptop.json --markdown targets,step

Each contender runs in a process of its own (``worker.py``); they take turns, round after round. README.md has the rules.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import BOTH, CELLS, FORWARD, Case
from cpu_cases import SHAPES, STREAMED, SWEPT_CELLS, SWEPT_SHAPES, USUAL_CELLS
from cpu_report import ABOUT, OURS, Result, case_table, results_from, results_of
from machine import available_processors, held_back, limit_processors, machine, pools
from markdown_tables import PARTS, markdown
from options import names, shape
from outcome import Outcome, difference, load
from plot import draw
from process import Failure, Missing, Worker
from report import heading, plain, write
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from targets import verdicts
from worker import CONTENDERS, PASSES, STEP, takes_part

PEERS = {
    "torch": ("torch.nn", "torch loop", "torch loop compiled"),
    "jax": ("jax.lax.scan",),
    "onnx": ("onnxruntime",),
}
TOLERANCE = 1e-4  # of an output or a gradient, relative to its array's largest element
QUICK = {"rounds": 3, "seconds": 0.05, "pause": 0.05}
USUAL = {"rounds": 7, "seconds": 0.3, "pause": 0.1}


class Benchmark:
    """Cells, shapes and contenders, taken one case at a time."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options, self.console = options, console
        self.versions: dict[str, str] = {}  # of the libraries of whoever has taken part
        self.skipped: dict[str, str] = {}  # a contender, or a contender and a cell, and why

    def contenders(self, case: Case) -> list[str]:
        """Who takes part in a case: ourselves, and the peers asked for that know the cell."""
        peers = [name for library in self.options.peers for name in PEERS[library]]
        return [
            name
            for name in CONTENDERS
            if (name.startswith(OURS) or name in peers)
            and not {name, f"{name}, {case.cell}"} & set(self.skipped)
            and not (self.options.quick and name == "torch loop compiled")  # compiling takes longer than all the rest
            and any(takes_part(name, case.cell, direction) for direction in self.passes(case))
        ]

    def passes(self, case: Case) -> list[str]:
        """The passes of a case, in the order of ``PASSES``; single steps at the usual shapes only where that says something."""
        anywhere = bool(self.options.shape) or self.options.sweep
        return [name for name in PASSES if name in self.options.passes and (name != STEP or anywhere or case.shape in STREAMED)]

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why
        self.console.print(f"skipped: {name}: {why}", style="yellow", soft_wrap=True, markup=False)

    def ask(self, workers: dict[str, Worker], requests: dict[str, dict[str, Any]], case: Case) -> dict[str, dict[str, Any]]:
        """The answers to requests, on which the processes work at the same time if there are several.

        A peer that fails is left out from then on, everywhere if it is not installed; if ours fails, so does all.
        """
        answers = {}
        for name, request in requests.items():
            workers[name].send(**request)
        for name in requests:
            try:
                answers[name] = workers[name].receive()
            except Failure as failure:
                if name.startswith(OURS):
                    raise
                workers.pop(name).close(force=True)
                missing = isinstance(failure, Missing)
                why = f"{failure} in {Path(self.options.peer_python).name}" if missing else str(failure)
                self.skip(name if missing else f"{name}, {case.cell}", why)
        return answers

    def start(self, name: str, threads: int) -> Worker:
        python = sys.executable if name.startswith(OURS) else self.options.peer_python
        environment = pools(threads) | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # no processes that stay
        return Worker(python, Path(__file__).with_name("worker.py"), environment)

    def run(self, case: Case) -> list[Result]:
        """All passes of a case."""
        results: list[Result] = []
        workers: dict[str, Worker] = {}
        try:
            for name in self.contenders(case):
                workers[name] = self.start(name, case.threads)
            prepare = {name: {"do": "prepare", "contender": name, **case._asdict()} for name in workers}
            details = self.ask(workers, prepare, case)
            for detail in details.values():
                self.versions |= detail["versions"]
            for direction in self.passes(case):
                results += self.run_pass(case, direction, workers, details)
        finally:
            for worker in workers.values():
                worker.close()
        return results

    def run_pass(
        self, case: Case, direction: str, workers: dict[str, Worker], details: dict[str, dict[str, Any]]
    ) -> list[Result]:
        """The contenders of a pass in turn, round after round, each round beginning with another one."""
        errors = self.differences(case, direction, workers, details)
        request = {"do": "time", "pass": direction, "seconds": self.options.seconds, "most": self.options.calls}
        order = [name for name in workers if takes_part(name, case.cell, direction)]
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
        for turn in range(self.options.rounds):
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                if name in workers:
                    time.sleep(self.options.pause)  # the threads of whoever went before stop spinning
                    turns[name] += self.ask(workers, {name: request}, case).values()
        return results_of(case, direction, {name: turns[name] for name in order if name in workers}, errors, details)

    def differences(
        self, case: Case, direction: str, workers: dict[str, Worker], details: dict[str, dict[str, Any]]
    ) -> dict[str, float]:
        """How far those with the same formula are from ours, in outputs or gradients. All are ready to be timed then."""
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder, f"{place}.npz")) for place, name in enumerate(workers)}
            requests = {
                name: {"do": "outcome", "pass": direction, "file": file}
                for name, file in files.items()
                if takes_part(name, case.cell, direction)
            }
            done = self.ask(workers, requests, case)
            ours = load(files[OURS])
            return {name: apart(load(files[name]), ours) for name in done if name != OURS and not details[name]["note"]}


def apart(found: Outcome, expected: Outcome) -> float:
    """The worst difference of a gradient, or without gradients of an output, relative to the array's largest element."""
    if expected.gradients:
        return difference(found.gradients, expected.gradients)["largest"]
    return difference(found.outputs, expected.outputs)["largest"]


# --- the command line --------------------------------------------------------------------------------------


def peers(text: str) -> list[str]:
    return [] if text == "none" else names(text)


def passes(text: str) -> list[str]:
    """``forward+backward`` may be written without spaces."""
    spelled = {name.replace(" ", ""): name for name in (*PASSES, *PARTS)}
    return [spelled.get(name.replace(" ", ""), name) for name in names(text)]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cpu.py", description="Speed on a CPU beside PyTorch, JAX and ONNX Runtime, in float32. Absent peers are skipped."
    )
    add = parser.add_argument
    add("--cells", type=names, help=f"generated cells (default: {','.join(USUAL_CELLS)}; of the sweep {','.join(SWEPT_CELLS)})")
    add(
        "--shape", type=shape, action="append", metavar="T,B,I,H", help="a shape, may be given again (default: the usual seven)"
    )
    add("--passes", type=passes, help="of forward, forward+backward, step (default: all; of the sweep forward+backward)")
    add("--peers", type=peers, default=",".join(PEERS), help=f"of {', '.join(PEERS)}; or none (default: all)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has them (default: this one)")
    add("--threads", type=int, default=available_processors(), help="for every contender (default: all processors)")
    add("--quick", action="store_true", help="three shapes, few rounds, nothing compiled by PyTorch: half a minute a cell")
    add("--sweep", action="store_true", help="instead of the usual shapes, T, B and H one after the other in powers of two")
    add("--rounds", type=int, help=f"turns of each contender (default: {USUAL['rounds']})")
    add("--seconds", type=float, help=f"of timed calls in a turn (default: {USUAL['seconds']})")
    add("--calls", type=int, default=200, help="at most so many calls in a turn (default: 200)")
    add("--pause", type=float, help=f"seconds between turns (default: {USUAL['pause']})")
    add("--json", type=Path, metavar="FILE", help="write the results there, after every case")
    add("--plot", type=Path, metavar="FILE", help="draw the sweep there, .svg or .png (needs matplotlib)")
    add("--markdown", type=passes, nargs="?", const=list(PARTS), metavar="PARTS", help=f"print tables: {', '.join(PARTS)}")
    add("--from", type=Path, dest="given", metavar="FILE", help="measure nothing: the results are in this file")
    options = parser.parse_args(argv)
    for name, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.cells = options.cells or list(SWEPT_CELLS if options.sweep else USUAL_CELLS)
    options.passes = options.passes or ([BOTH] if options.sweep else [FORWARD, BOTH, STEP])
    for option, known in (("peers", PEERS), ("passes", PASSES), ("markdown", PARTS)):
        for unknown in [name for name in getattr(options, option) or [] if name not in known]:
            parser.error(f"--{option}: {unknown!r} is none of {', '.join(known)}")
    for cell in options.cells:
        if not cell.isidentifier():
            parser.error(f"--cells: {cell!r} is not a cell's name")
    if min(options.threads, options.rounds, options.calls) < 1 or min(options.seconds, options.pause) < 0:
        parser.error("--threads, --rounds and --calls start at 1, --seconds and --pause at 0")
    if options.threads > available_processors():
        parser.error(f"--threads: there are {available_processors()} processors")
    if options.shape and options.sweep:
        parser.error("--shape and --sweep exclude each other")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot: no module named matplotlib (pip install matplotlib)")
    if options.plot and options.plot.suffix not in (".svg", ".png"):
        parser.error(f"--plot: {options.plot.name} ends in neither .svg nor .png")
    return options


def cases_of(options: argparse.Namespace) -> list[Case]:
    """What is to be measured, cell after cell."""
    shapes = options.shape or (SWEPT_SHAPES if options.sweep else SHAPES[:3] if options.quick else SHAPES)
    return [Case(cell, *sizes)._replace(threads=options.threads) for cell in options.cells for sizes in shapes]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a peer's numbers differ from ours, 2 wrong usage or nothing could be measured."""
    options = parse(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    try:
        report = json.loads(options.given.read_text("utf-8")) if options.given else measured(options, console)
        results = results_from(report)
        if options.plot:
            draw(report, options.plot)
        if options.markdown:
            print(markdown(report, options.markdown), end="")
            return 0
    except (Failure, OSError, ValueError) as failure:
        print(f"cpu: {failure}", file=sys.stderr)
        return 2
    if any(verdict.measured for verdict in verdicts(results)):
        console.print(target_table(results))
    if any(result.ms.disturbed for result in results):
        console.print("~ the turns differ much: something else was running, or the calls are too short", style="yellow")
    return 1 if report_differences(console, results) else 0


def measured(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The report of a whole run; with ``--json`` it is written after every case: a run that is killed keeps what it had."""
    host = machine(options.threads)
    console.print(f"{host['cpu']}, {options.threads} threads of {host['cores']}, numpy {host['numpy']} ({host['blas']})")
    if host["load"] is not None and host["load"] > 0.5:
        console.print(f"something else is running here (load {host['load']:.1f}): expect times to be off", style="yellow")
    if warning := held_back():
        console.print(warning, style="yellow")
    limit_processors(options.threads)
    benchmark, cases, results = Benchmark(options, console), cases_of(options), list[Result]()
    settings = {key: getattr(options, key) for key in ("rounds", "seconds", "calls", "pause", "quick", "sweep")}
    kept = {"versions": benchmark.versions, "skipped": benchmark.skipped, "results": results}
    report = heading(ABOUT, host, **settings) | kept
    begin = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(cases))
        for case in cases:
            bar.update(task, description=f"{case.cell} {case.T}, {case.B}, {case.I}, {case.H}")
            if benchmark.passes(case):
                found = benchmark.run(case)
                results += found
                console.print(case_table(case, found))
                if case.cell not in CELLS:
                    console.print(f"no peer knows {case.cell}", style="yellow")
            report["seconds"] = round(time.monotonic() - begin, 1)
            if options.json:
                write(options.json, report)
            bar.advance(task)
    read_again: dict[str, Any] = json.loads(json.dumps(plain(report)))
    return read_again


def target_table(results: Sequence[Result]) -> Table:
    """What was to be reached, and whether it is."""
    table = Table(title="times ours, forward + backward unless it says a step", title_justify="left")
    for column in ("", "at least", "found", "met"):
        table.add_column(column)
    for verdict in verdicts(results):
        found = "" if verdict.found is None else f"{verdict.found:.2f} {verdict.where}"
        table.add_row(verdict.target.what, f"{verdict.target.least:g}", found, verdict.met)
    return table


def report_differences(console: Console, results: Sequence[Result]) -> bool:
    """Says how far the peers are from ours; whether any is too far."""
    compared = [(result, result.error) for result in results if result.error is not None]
    wrong = [(result, error) for result, error in compared if not error <= TOLERANCE]
    for cell, name, note in dict.fromkeys((result.cell, result.contender, result.note) for result in results if result.note):
        console.print(f"not compared: {name} for {cell}: {note}", style="yellow")
    for result, error in wrong:
        where = f"{result.cell} {result.shape}, {result.direction}"
        console.print(f"{result.contender} differs: {where}: by {error:.1e}", style="red")
    if compared and not wrong:
        worst = max(error for _, error in compared)
        console.print(f"all outputs and gradients agree with ours to {worst:.0e} of their largest element")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
