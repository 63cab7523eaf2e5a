"""Peak memory of forward + backward in NumPy, beside the formulas that ``cellspec show`` prints.

    python benchmarks/memory.py                                     # a few cells and shapes under every policy
    python benchmarks/memory.py --cells peephole --shape 500,16,64,64
    python benchmarks/memory.py --long                              # 100,000 steps with checkpoints, in a process of its own
    python benchmarks/memory.py --long --json benchmarks/results/memory.json

Bytes are what Python and NumPy allocate (tracemalloc), without x, dy and parameters, which are the caller's. ``--long``
measures the whole process instead: resident memory at its largest, with everything in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from cells import load_module
from machine import available_processors, machine
from options import names, shape
from process_memory import peak
from report import heading, write

SHAPES = ((200, 16, 32, 32), (1000, 32, 64, 128))
CELLS = "lstm,gru,indrnn,mlstm_xlstm"
LONG = (100_000, 8, 64, 64)
ABOUT = (
    "Bytes of forward + backward in float32, without x, dy and parameters: of the tape between the passes, at the peak with a "
    "workspace and without one ('alone'), and by cellspec's formulas; milliseconds of a call with a workspace. "
    "long: a single training step, and bytes of its whole process."
)
LIMIT = 1_000_000_000  # bytes that the long sequence may take


class Result(NamedTuple):
    """One cell at one shape under one policy; bytes, and milliseconds of a call with a workspace."""

    cell: str
    shape: tuple[int, int, int, int]
    residuals: str
    checkpoint: int | None
    tape_formula: int
    workspace_formula: int
    tape: int
    workspace: int  # the peak with a workspace, which is counted
    alone: int  # the peak without one
    milliseconds: float


class Call(NamedTuple):
    """What a module is called with."""

    module: Any
    params: Any
    x: Any
    dy: Any
    residuals: str = "speed"
    checkpoint: int | None = None

    def run(self, workspace: Any = None) -> Any:
        """The outputs, the final state and the gradients."""
        y, final, tape = self.module.forward(self.params, self.x, workspace=workspace, checkpoint=self.checkpoint)
        return y, final, self.module.backward(self.params, tape, self.dy, workspace=workspace)

    def workspace(self) -> Any:
        T, B = (self.x if isinstance(self.x, np.ndarray) else self.x[0]).shape[:2]
        return self.module.Workspace(T, B, self.params, checkpoint=self.checkpoint)


# --- against the formulas ------------------------------------------------------------------------------------


def measured(call: Call) -> dict[str, int]:
    """Bytes: of the tape between the passes, and at the peaks with and without a workspace."""
    gc.collect()
    tracemalloc.start()
    y, final, tape = call.module.forward(call.params, call.x, checkpoint=call.checkpoint)
    outputs = (y,) if isinstance(y, np.ndarray) else y
    held = tracemalloc.get_traced_memory()[0] - sum(array.nbytes for array in (*outputs, *final))
    call.module.backward(call.params, tape, call.dy)
    alone = tracemalloc.get_traced_memory()[1]
    del y, final, tape, outputs
    gc.collect()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    call.run(call.workspace())
    reused = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return {"tape": held, "workspace": reused, "alone": alone}


def milliseconds(calls: Sequence[Call], rounds: int = 9) -> list[float]:
    """The median time of each call with a workspace; they take turns, so that whatever else runs hits all alike."""
    times: list[list[float]] = [[] for _ in calls]
    workspaces = [call.workspace() for call in calls]
    for number in range(rounds + 1):
        for call, workspace, mine in zip(calls, workspaces, times, strict=True):
            start = time.perf_counter()
            call.run(workspace)
            mine += [time.perf_counter() - start] * (number > 0)
    return [1000 * statistics.median(mine) for mine in times]


def results_of(name: str, shape: tuple[int, int, int, int]) -> list[Result]:
    """One cell at one shape under every policy. A dim other than I and H counts as many units as a head may have."""
    import cellspec
    from cellspec.backends.numpy.backend import BACKEND
    from cellspec.backends.numpy.footprint import footprints
    from cellspec.pipeline import compile_cell
    from cellspec.verification.sampling import pack

    T, B, I, H = shape  # noqa: E741
    cell = cellspec.load(name)
    dims = {dim: {"I": I, "H": H}.get(dim, 8) for dim in cell.dims}
    calls, sizes = [], []
    for residuals in cellspec.RESIDUALS:
        module = cellspec.build(cell, residuals=residuals)
        whole, segments = footprints(compile_cell(cell, residuals, BACKEND))
        for k in (None, nearest_divisor(T)):
            calls.append(made(module, dims, T, B, cell, pack)._replace(residuals=residuals, checkpoint=k))
            sizes.append((whole if k is None else segments).at(4, T, B, dims, k or 1))
    bytes_, times = list(map(measured, calls)), milliseconds(calls)
    return [
        Result(name, shape, call.residuals, call.checkpoint, *formulas, **taken, milliseconds=duration)
        for call, formulas, taken, duration in zip(calls, sizes, bytes_, times, strict=True)
    ]


def made(module: ModuleType, dims: dict[str, int], T: int, B: int, cell: Any, pack: Any) -> Call:
    """Arguments in float32 from one seed."""
    rng = np.random.default_rng(0)
    params = module.init_params(rng, **dims, dtype=np.float32)

    def drawn(items: Any) -> list[Any]:
        shapes = ([int(axis.subs(dims)) for axis in item.shape] for item in items)
        return [rng.standard_normal((T, B, *shape), dtype=np.float32) for shape in shapes]

    return Call(module, params, pack(module, "Inputs", drawn(cell.inputs)), pack(module, "Outputs", drawn(cell.outputs)))


def nearest_divisor(T: int) -> int:
    """The divisor of T that is nearest to its square root."""
    return min((k for k in range(1, T + 1) if T % k == 0), key=lambda k: abs(math.log(k * k / T)))


# --- a long sequence -----------------------------------------------------------------------------------------


def long_step() -> dict[str, Any]:
    """One training step over a long sequence, by this process; its resident memory before and at its largest."""
    T, B, I, H = LONG  # noqa: E741
    lstm = load_module("lstm", "numpy")
    before = peak()
    rng = np.random.default_rng(0)
    params = lstm.init_params(rng, I=I, H=H, dtype=np.float32)
    x = rng.standard_normal((T, B, I), dtype=np.float32)
    k = math.isqrt(T)
    start = time.perf_counter()
    y, _, tape = lstm.forward(params, x, checkpoint=k)
    dy = y * np.float32(2 / y.size)  # the loss is the mean square of y
    grads = lstm.backward(params, tape, dy)
    params = lstm.Params(*(p - np.float32(0.1) * g for p, g in zip(params, grads.params, strict=True)))
    seconds = time.perf_counter() - start
    finite = all(np.isfinite(array).all() for array in (*params, grads.x))
    four = sum(array.nbytes for array in (x, y, dy, grads.x))
    return {
        "cell": "lstm", "shape": LONG, "dtype": "float32", "checkpoint": k, "seconds": seconds, "finite": finite,
        "before": before, "x_y_dy_dx": four, "peak": peak(),
    }  # fmt: skip


def long_run() -> dict[str, Any]:
    """:func:`long_step` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--long-step"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- the report ----------------------------------------------------------------------------------------------


def mega(size: float) -> str:
    return f"{size / 1e6:.2f}" if size < 1e8 else f"{size / 1e6:.0f}"


def policy(result: Result) -> str:
    return result.residuals + (f", checkpoint={result.checkpoint}" if result.checkpoint else "")


def print_table(results: Sequence[Result]) -> None:
    """Megabytes beside the formula's, in Markdown."""
    print("| cell: T, B, I, H | policy | tape, MB (formula) | peak, MB (formula) | peak without workspace | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for result in results:
        first = next(r for r in results if (r.cell, r.shape) == (result.cell, result.shape))
        cell = f"`{result.cell}`: {', '.join(map(str, result.shape))}" if result is first else ""
        tape = f"{mega(result.tape)} ({mega(result.tape_formula)})"
        peak = f"{mega(result.workspace)} ({mega(result.workspace_formula)})"
        times = f"{result.milliseconds / first.milliseconds:.2f}"
        print(f"| {cell} | {policy(result)} | {tape} | {peak} | {mega(result.alone)} | {times} |")


def print_long(long: dict[str, Any]) -> None:
    T, B, I, H = long["shape"]  # noqa: E741
    print(f"{long['cell']}: T={T}, B={B}, I={I}, H={H}, {long['dtype']}, checkpoint={long['checkpoint']}")
    print(f"  a training step takes {long['seconds']:.0f} s;")
    print(f"  peak of the process {mega(long['peak'])} MB, of which x, y, dy and dx are {mega(long['x_y_dy_dx'])} MB")
    print(f"  and Python with NumPy, before anything else, {mega(long['before'])} MB")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="memory.py", description="Peak memory of forward + backward beside the formulas.")
    add = parser.add_argument
    add("--cells", type=names, default=CELLS, help="shipped cells (default: %(default)s)")
    add("--shape", type=shape, action="append", metavar="T,B,I,H", help="a shape, may be given again (default: two)")
    add("--long", action="store_true", help=f"also {LONG[0]:,} steps with checkpoints, in a process of its own")
    add("--long-step", action="store_true", help=argparse.SUPPRESS)
    add("--json", type=Path, metavar="FILE", help="write the results there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the long sequence has taken too much."""
    options = parse(argv)
    if options.long_step:
        print(json.dumps(long_step()))
        return 0
    shapes = options.shape or SHAPES
    results = [result for cell in options.cells for sizes in shapes for result in results_of(cell, sizes)]
    print_table(results)
    long = long_run() if options.long else None
    if long is not None:
        print()
        print_long(long)
    if options.json:
        write(options.json, heading(ABOUT, machine(available_processors())) | {"results": results, "long": long})
    return int(long is not None and (long["peak"] > LIMIT or not long["finite"]))


if __name__ == "__main__":
    sys.exit(main())
