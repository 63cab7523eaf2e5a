"""Speed on a GPU beside cuDNN and PyTorch loops: forward, and forward + backward, in float32, TF32, float16 and bfloat16.

    python benchmarks/gpu.py --quick --json benchmarks/results/h200.json   # about four minutes
    python benchmarks/gpu.py --cells lstm --dtypes bfloat16 --shape 1024,16,768,768
    python benchmarks/gpu.py --list                                        # the cases; needs no GPU

Each contender runs in a process of its own (``gpu_worker.py``); they take turns, round after round. README.md has the rules.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import BOTH, CELLS, DTYPES, GENERATED, Case, module_file
from gpu_report import ABOUT, OURS, Result, case_table, results_of, summary, write
from gpu_worker import CONTENDERS, PASSES
from options import names, shape
from process import Failure, Missing, Worker
from report import heading
from rich.console import Console

LIBRARIES = {name: "cupy" if name in OURS else "torch" for name in CONTENDERS}
INSTALL = {"cupy": "pip install 'cellspec[cuda13x]' or 'cellspec[cuda12x]'", "torch": "pip install torch"}
DEFAULT_CELLS = "lstm,gru_after,peephole,indrnn,mingru"
SHAPES = (
    (1024, 16, 768, 768),
    (512, 8, 1024, 1024),
    (512, 64, 1024, 1024),
    (512, 128, 1024, 1024),
    (512, 32, 128, 128),
    (1024, 1, 512, 512),
)
QUICK = {"shape": ((256, 16, 768, 768), (256, 64, 1024, 1024), (256, 32, 128, 128), (256, 1, 512, 512))} | {
    "dtypes": ["float32", "bfloat16"],
    "rounds": 3,
    "seconds": 0.05,
    "minutes": 3.6,
}
USUAL: dict[str, Any] = {
    "shape": SHAPES,
    "dtypes": ["float32", "tf32", "float16", "bfloat16"],
    "rounds": 7,
    "seconds": 0.2,
    "minutes": None,
}


class Benchmark:
    """The processes and what they measure, one case at a time."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options, self.console = options, console
        self.workers: dict[tuple[str, bool], Worker] = {}
        self.absent: dict[str, str] = {}  # a library and why nothing runs with it
        self.probes: dict[str, dict[str, Any]] = {}  # a library and the GPU that it sees

    def worker(self, name: str, case: Case | None = None) -> Worker:
        """The process of a contender, started if there is none. CuPy reads whether TF32 is allowed once per process."""
        key = name, case is not None and case.dtype == "tf32" and name in OURS
        if key not in self.workers:
            python = sys.executable if LIBRARIES.get(name, name) == "cupy" else self.options.peer_python
            environment = {"CUPY_TF32": "1" if key[1] else "0"}
            self.workers[key] = Worker(python, Path(__file__).with_name("gpu_worker.py"), environment, self.options.patience)
        return self.workers[key]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close(force=True)
        self.workers.clear()

    def ask(self, requests: dict[str, dict[str, Any]], case: Case, reasons: dict[str, str]) -> dict[str, dict[str, Any]]:
        """The answers to requests that several processes work on at a time.

        Who fails is entered in ``reasons``, and its process ended: after an error on the device it would be of no use.
        """
        asked: dict[str, Worker] = {}
        answers = {}
        for name, request in requests.items():
            try:
                asked[name] = self.worker(name, case)
                asked[name].send(**request)
            except Failure as failure:
                reasons[name] = str(failure)
        for name, worker in asked.items():
            try:
                answers[name] = worker.receive()
            except Failure as failure:
                reasons[name] = str(failure)
                worker.close(force=True)
                self.workers = {key: other for key, other in self.workers.items() if other is not worker}
        return answers

    def probe(self) -> None:
        """Which libraries are there and see a GPU."""
        for library in dict.fromkeys(LIBRARIES[name] for name in self.options.contenders):
            try:
                self.probes[library] = self.worker(library).ask(do="probe", library=library)
            except Failure as failure:
                hint = f" ({INSTALL[library]})" if isinstance(failure, Missing) else ""
                self.absent[library] = f"{failure}{hint}"
        self.close()

    def contenders(self, case: Case) -> list[str]:
        """Who takes part in a case."""
        return [
            name
            for name in self.options.contenders
            if LIBRARIES[name] not in self.absent and knows(name, case.cell, self.options) and self.affordable(name, case)
        ]

    def affordable(self, name: str, case: Case) -> bool:
        """A quick run compiles at its first shape only: compiling takes longer than all the rest of a case."""
        return not (self.options.quick and "compiled" in name) or self.options.shape[0] == case.shape

    def run(self, case: Case) -> tuple[list[Result], str]:
        """All contenders in turn, round after round, each round beginning with another one; and the reference's name."""
        names = self.contenders(case)
        reasons: dict[str, str] = {}
        what = {**case._asdict(), "generated": str(self.options.generated)}
        sources = [source for source in ("torch", "numpy") if source in self.references(case)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "reference.npz")
            requests = {name: {"do": "prepare", "contender": name, **what} for name in names}
            for source in sources[:1]:
                requests["reference"] = {"do": "reference", "source": source, "file": str(file), **what}
            details = self.ask(requests, case, reasons)
            details.pop("reference", None)
            reference = sources[0] if sources else "none"
            if "reference" in reasons:
                self.console.print(f"no reference: {reasons.pop('reference')}", style="yellow", soft_wrap=True, markup=False)
                reference = "none"
            elif file.exists():
                compare = {name: {"do": "compare", "file": str(file)} for name in details}
                for name, answer in self.ask(compare, case, reasons).items():
                    details[name]["error"] = answer
        found = []
        for direction in PASSES:
            turns: dict[str, list[list[float]]] = {name: [] for name in names}
            for turn in range(self.options.rounds):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    if name not in reasons:
                        request = {"do": "time", "pass": direction, "seconds": self.options.seconds, "most": self.options.calls}
                        for answer in self.ask({name: request}, case, reasons).values():
                            turns[name].append(answer["ms"])
            found += results_of(case, direction, turns, reasons, details)
        ready = {name: {"do": "release"} for name in [*names, "reference"] if name not in reasons}
        self.ask(ready, case, {})
        return found, reference

    def references(self, case: Case) -> list[str]:
        """What can compute the case in float64."""
        found = ["torch"] if case.cell in CELLS and "torch" in self.probes else []
        return found + ["numpy"] * module_file(case.cell, "numpy", self.options.generated).exists()


def knows(name: str, cell: str, options: argparse.Namespace) -> bool:
    """Whether a contender has a cell."""
    if name in OURS:
        return module_file(cell, "cupy", options.generated).exists()
    return cell in (("lstm", "gru_after") if name == "torch.nn" else CELLS)


def driver() -> dict[str, str]:
    """What nvidia-smi says, if it is there: the driver, and how busy the GPU is before anything starts."""
    fields = ("driver_version", "utilization.gpu")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(("driver", "busy"), (value.strip() for value in lines[0].split(",")), strict=True)) if lines else {}


# --- the command line --------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu.py", description="Speed on a GPU beside cuDNN and PyTorch loops. Skips, and says so, where there is no GPU."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter sequences, fewer rounds and dtypes, ends within four minutes")
    add("--cells", type=names, default=DEFAULT_CELLS, help=f"generated cells (default: {DEFAULT_CELLS})")
    add("--shape", type=shape, action="append", metavar="T,B,I,H", help="a shape, may be given again (default: the usual six)")
    add("--dtypes", type=names, help=f"of {', '.join(DTYPES)} (default: {','.join(USUAL['dtypes'])})")
    add("--contenders", type=names, default=",".join(CONTENDERS), help=f"of {', '.join(CONTENDERS)} (default: all)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has torch (default: this one)")
    add("--generated", type=Path, default=GENERATED, metavar="DIR", help="where the generated modules are")
    add("--rounds", type=int, help=f"turns of each contender (default: {USUAL['rounds']})")
    add("--seconds", type=float, help=f"of timed calls in a turn (default: {USUAL['seconds']})")
    add("--calls", type=int, default=200, help="at most so many calls in a turn (default: 200)")
    add("--minutes", type=float, help="begin no case that would not end within this time")
    add("--patience", type=float, default=180, help="seconds until a contender that does not answer has failed (default: 180)")
    add("--json", type=Path, metavar="FILE", help="write the results there, after every case")
    add("--list", action="store_true", help="print the cases and stop")
    options = parser.parse_args(argv)
    for name, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for option, known in (("dtypes", DTYPES), ("contenders", CONTENDERS)):
        for unknown in set(getattr(options, option)) - set(known):
            parser.error(f"--{option}: {unknown!r} is none of {', '.join(known)}")
    for cell in options.cells:
        if not cell.isidentifier() or (cell not in CELLS and not module_file(cell, "cupy", options.generated).exists()):
            parser.error(f"--cells: there is no {cell}_cupy.py in {options.generated.name}, and no peer knows {cell!r}")
    if min(options.rounds, options.calls) < 1 or options.seconds < 0:
        parser.error("--rounds and --calls start at 1, --seconds at 0")
    return options


def cases_of(options: argparse.Namespace) -> list[Case]:
    """What is to be measured, in this order: a run that is cut short has all cells at the first shapes."""
    return [
        Case(cell, *sizes)._replace(dtype=dtype)
        for sizes in options.shape
        for dtype in options.dtypes
        for cell in options.cells
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, or skipped for want of a GPU, 1 one of ours failed or is wrong, 2 nothing could be measured."""
    options = parse(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 170)
    cases = cases_of(options)
    if options.list:
        for case in cases:
            console.print(f"{case.cell} T={case.T} B={case.B} I={case.I} H={case.H} {case.dtype}")
        return 0
    busy = driver()
    benchmark = Benchmark(options, console)
    benchmark.probe()
    skipped = {name: benchmark.absent[LIBRARIES[name]] for name in options.contenders if LIBRARIES[name] in benchmark.absent}
    if not benchmark.probes:
        why = "; ".join(f"{library}: {reason}" for library, reason in benchmark.absent.items())
        console.print(
            f"skipped: {len(cases)} cases built, none run: no GPU to run them on: {why}", soft_wrap=True, markup=False
        )
        return 0
    without = [cell for cell in options.cells if not module_file(cell, "cupy", options.generated).exists()]
    if without and "cupy" not in benchmark.absent:
        skipped["ours"] = f"no {', '.join(f'{cell}_cupy.py' for cell in without)} in {options.generated.name}"
    for name, why in skipped.items():
        console.print(f"skipped: {name}: {why}", style="yellow", soft_wrap=True, markup=False)
    machine = next(iter(benchmark.probes.values())) | busy
    machine["versions"] = {name: text for found in benchmark.probes.values() for name, text in found["versions"].items()}
    machine |= {"system": platform.platform(), "python": platform.python_version()}
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    console.print(f"{machine['gpu']}, driver {machine.get('driver', '?')}, {versions}")
    if busy.get("busy", "0 %") not in ("0 %", "[N/A]"):
        console.print(f"something else is using the GPU ({busy['busy']}): expect times to be off", style="yellow")
    settings = {key: getattr(options, key) for key in ("rounds", "seconds", "calls", "minutes", "quick")}
    report = heading(ABOUT, machine, **settings) | {
        "skipped": skipped,
        "not reached": [list(case) for case in cases],
        "references": [],
        "results": [],
    }
    try:
        results = measured(benchmark, cases, report)
    finally:
        benchmark.close()
    return verdict(console, results, report)


def measured(benchmark: Benchmark, cases: list[Case], report: dict[str, Any]) -> list[Result]:
    """The results of the cases that there is time for; the report is written after each."""
    options, console = benchmark.options, benchmark.console
    results: list[Result] = []
    begin = time.monotonic()
    longest = 0.0
    for done, case in enumerate(cases):
        start = time.monotonic()
        if options.minutes is not None and start - begin + longest > options.minutes * 60:
            break
        if benchmark.contenders(case):
            found, reference = benchmark.run(case)
            results += found
            console.print(case_table(case, found))
            for name, reason in {result.contender: result.reason for result in found if result.reason}.items():
                console.print(f"failed: {name}: {reason}", style="red", soft_wrap=True, markup=False)
            report["references"].append({"cell": case.cell, "shape": case.shape, "dtype": case.dtype, "float64 by": reference})
        report["results"] = results
        report["not reached"] = [list(case) for case in cases[done + 1 :]]
        longest = max(longest, time.monotonic() - start)
        report["seconds"] = round(time.monotonic() - begin, 1)
        if options.json:
            write(options.json, report)
    return results


def verdict(console: Console, results: list[Result], report: dict[str, Any]) -> int:
    """The closing tables and the exit status."""
    for direction in PASSES:
        console.print(summary(results, direction))
    for name, note in dict.fromkeys((result.contender, result.note) for result in results if result.note):
        console.print(f"note: {name}: {note}", style="yellow", soft_wrap=True, markup=False)
    if report["not reached"]:
        console.print(f"not reached: {len(report['not reached'])} cases, for want of time", style="yellow")
    if not any(result.ms for result in results):
        print("gpu: nothing could be measured", file=sys.stderr)
        return 2
    bad = [result for result in results if result.direction == BOTH and (result.reason or result.wrong)]
    for result in bad:
        why = result.reason or f"{result.error:.0e} from the reference"
        where = f"{result.cell} {result.shape} {result.dtype}"
        what = "failed" if result.reason else "differs"
        console.print(f"{what}: {result.contender}, {where}: {why}", style="red", soft_wrap=True, markup=False)
    return 1 if any(result.contender in OURS for result in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
