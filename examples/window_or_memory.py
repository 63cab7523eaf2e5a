"""A window over the last inputs, or a memory: what each costs as the past grows longer.

    python examples/window_or_memory.py                          # a cue up to 20 steps ago, windows of 1 to 21: 20 s
    python examples/window_or_memory.py --memory 40 --window 1 21 41 --cell lstm mgu     # 25 s

Somewhere in a sequence of meaningless symbols comes a cue, L or R, and at the end the network says which it was. The cue
lies 1 to 20 steps back, each as often. A feed-forward network reads the last K symbols; cellspec compiles it like any cell
(examples/window.yaml), though there is nothing recurrent in it. A cue before the window can only be guessed: the error is
half the share of such cues, a straight line that meets 0 at K = 21. Its parameters grow with K, as each place of the window
has weights of its own. A recurrent network reads one symbol at a time; its parameters are as many however far back the cue is;
to keep one cue, a simple network does.

Source: Terrence J. Sejnowski, Charles R. Rosenberg. Parallel networks that learn to pronounce English text. Complex Systems 1,
1987 (a window slid along text); Jeffrey L. Elman. Finding structure in time. Cognitive Science 14, 1990 (what speaks against
it). The cue is that of Yoshua Bengio, Patrice Simard, Paolo Frasconi. Learning long-term dependencies with gradient descent
is difficult. IEEE Transactions on Neural Networks 5(2), 1994.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import contest
import lecture
import numpy as np
from contest import Batch, Task
from lecture import Array, Floats
from rich.console import Console

import cellspec

SPEC = Path(__file__).resolve().with_name("window.yaml")
SYMBOLS = "LRab"


class Row(NamedTuple):
    """A network's size and error."""

    name: str
    window: int | None  # None: recurrent
    parameters: int
    error: float  # the median of its runs
    least: float  # what is possible


def draw(rng: np.random.Generator, count: int, memory: int) -> Batch:
    """``count`` sequences of ``memory`` + 1 steps; the targets [count] are 0 for L and 1 for R."""
    symbols = rng.integers(2, len(SYMBOLS), size=(memory + 1, count))
    cue = rng.integers(2, size=count)
    symbols[rng.integers(memory, size=count), np.arange(count)] = cue
    return Batch(np.eye(len(SYMBOLS), dtype=np.float32)[symbols], cue)


def share_wrong(z: Floats, targets: Array) -> float:
    return float(np.mean(z[-1].argmax(axis=1) != targets))


def least_error(window: int, memory: int) -> float:
    """Half of the cues that the window does not reach."""
    return max(memory - (window - 1), 0) / memory / 2


def run(options: argparse.Namespace, console: Console) -> list[Row]:
    def batch(rng: np.random.Generator, count: int) -> Batch:
        return draw(rng, count, options.memory)

    task = Task(len(SYMBOLS), 2, batch, contest.last_step(lecture.softmax_cross_entropy), share_wrong, goal=0.0)
    cells = [(cellspec.build(cellspec.load(SPEC, {"K": str(window)})), window) for window in options.window]
    cells += [(lecture.load_cell(name), None) for name in options.cell]
    rows = []
    table = lecture.results(
        f"A cue up to {options.memory} steps ago: share wrong",
        "network",
        "window",
        "parameters",
        "median",
        "possible",
        "updates",
        "seconds",
    )
    for cell, window in cells:
        runs = [contest.train_once(cell, task, seed, options) for seed in range(options.seed, options.seed + options.seeds)]
        error = statistics.median(run.curve[-1][1] for run in runs)
        least = 0.0 if window is None else least_error(window, options.memory)
        rows.append(Row(cell.CELL, window, runs[0].parameters, error, least))
        updates, seconds = statistics.median(run.curve[-1][0] for run in runs), statistics.mean(run.seconds for run in runs)
        table.add_row(
            "feed-forward" if window else cell.CELL,
            str(window or ""),
            f"{runs[0].parameters:,}",
            f"{error:.3f}",
            f"{least:.3f}",
            f"{updates:,.0f}",
            f"{seconds:.1f}",
        )
    console.print(table)
    draw_figure(rows, options, console)
    return rows


def draw_figure(rows: list[Row], options: argparse.Namespace, console: Console) -> None:
    """Error and parameters over the window; a level for each recurrent network."""
    windows = [row for row in rows if row.window]
    with lecture.figure(options.figure, console, panels=2) as (errors, parameters):
        sizes = [row.window for row in windows]
        errors.plot(sizes, [row.least for row in windows], color="0.6", linestyle="--", label="possible with a window")
        errors.plot(sizes, [row.error for row in windows], "o-", label="window")
        parameters.plot(sizes, [row.parameters for row in windows], "o-", label="window")
        for place, row in enumerate((row for row in rows if not row.window), 1):
            errors.axhline(row.error, color=f"C{place}", label=row.name)
            parameters.axhline(row.parameters, color=f"C{place}", label=row.name)
        errors.set(xlabel="window", ylabel="share wrong", title=f"A cue up to {options.memory} steps ago")
        parameters.set(xlabel="window", ylabel="parameters", ylim=(0, None))
        errors.legend()


PARSER = contest.arguments(
    "window_or_memory", "Recall a cue, by a window or by a memory.", hidden=8, batch=32, steps=3000, rate=1e-2, seeds=3
)
PARSER.add_argument("--memory", type=lecture.at_least(1), default=20, metavar="M", help="steps that the cue may lie back")
PARSER.add_argument("--window", type=lecture.at_least(1), nargs="+", default=[1, 6, 11, 16, 21], metavar="K", help="windows")

if __name__ == "__main__":
    sys.exit(lecture.main(PARSER, run))
