"""Cells on a task: each trained with several seeds, a table with a row for each cell, a figure with a line for each run."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import lecture
import numpy as np
from lecture import Array, Floats, Net, Recipe
from numpy.random import Generator
from rich.console import Console


class Batch(NamedTuple):
    """Samples side by side."""

    x: Floats  # [T, B, I]
    targets: Any
    lengths: Array | None = None  # [B]; T everywhere if omitted


class Task(NamedTuple):
    """What a cell is asked to learn, and when it has."""

    inputs: int
    outputs: int
    draw: Callable[[Generator, int], Batch]  # so many new samples
    loss: Callable[[Floats, Any], tuple[float, Floats]]  # of z [T, B, K] and targets: the loss, and its gradient by z
    error: Callable[[Floats, Any], float]  # of the same: what is reported
    goal: float  # training ends when the error is this or less


class Run(NamedTuple):
    """A cell trained once."""

    cell: str
    seed: int
    parameters: int
    curve: list[tuple[int, float]]  # updates so far, error then
    solved: bool
    seconds: float


def last_step(loss: Callable[[Floats, Any], tuple[float, Floats]]) -> Callable[[Floats, Any], tuple[float, Floats]]:
    """``loss``, asked of the last step alone."""

    def of_all(z: Floats, targets: Any) -> tuple[float, Floats]:
        dz = np.zeros_like(z)
        value, dz[-1] = loss(z[-1], targets)
        return value, dz

    return of_all


def train_once(cell: ModuleType, task: Task, seed: int, options: argparse.Namespace) -> Run:
    """A cell from its own initial values; the test set is the same for every cell and seed."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    net = Net(lecture.one_layer(cell, task.inputs, options.hidden), rng, task.outputs)
    test = task.draw(np.random.default_rng(lecture.TEST_SEED), options.test)

    def learn(step: int) -> tuple[float, Floats]:
        batch = task.draw(rng, options.batch)
        z, context = net.forward(batch.x, batch.lengths)
        loss, dz = task.loss(z, batch.targets)
        return loss, net.backward(context, dz)

    def error() -> float:
        return task.error(net.forward(test.x, test.lengths)[0], test.targets)

    def solved(steps: int) -> bool:
        if steps % max(1, options.steps // 50) == 0 or steps == options.steps:
            curve.append((steps, error()))
        return curve[-1][1] <= task.goal

    curve = [(0, error())]
    lecture.fit(net.flat, learn, Recipe(options.steps, options.rate, options.clip), solved)
    return Run(cell.CELL, seed, net.flat.size, curve, curve[-1][1] <= task.goal, time.perf_counter() - began)


class Report(NamedTuple):
    """What the table and the figure say besides figures."""

    title: str
    error: str  # what the error is
    published: Mapping[str, str]  # that of each cell
    setting: str  # what was published was found with
    baseline: tuple[str, float]  # an error that takes no memory


def compare(task: Task, report: Report, options: argparse.Namespace, console: Console) -> list[Run]:
    """Every cell with every seed; a table with a row for each cell, and a figure with a line for each run."""
    runs = []
    table = lecture.results(
        f"{report.title}: {report.error}", "cell", "parameters", "median", "worst", "solved", "updates", "seconds", "published"
    )
    for name in options.cell:
        ours = [
            train_once(lecture.load_cell(name), task, seed, options)
            for seed in range(options.seed, options.seed + options.seeds)
        ]
        errors = [run.curve[-1][1] for run in ours]
        table.add_row(
            name,
            f"{ours[0].parameters:,}",
            f"{statistics.median(errors):.4f}",
            f"{max(errors):.4f}",
            f"{sum(run.solved for run in ours)} of {len(ours)}",
            f"{statistics.median(run.curve[-1][0] for run in ours):,.0f}",
            f"{statistics.mean(run.seconds for run in ours):.1f}",
            report.published.get(name, ""),
        )
        runs += ours
    table.caption = f"updates and seconds of one run; published: {report.setting}"
    table.add_row(report.baseline[0], "", f"{report.baseline[1]:.4f}")
    console.print(table)
    with lecture.figure(options.figure, console) as (panel,):
        for place, name in enumerate(options.cell):
            for number, run in enumerate(run for run in runs if run.cell == name):
                panel.plot(*zip(*run.curve, strict=True), color=f"C{place}", label="" if number else name, linewidth=1)
        panel.axhline(report.baseline[1], color="0.6", ls="--", label=report.baseline[0])
        panel.set(title=report.title, xlabel="updates", ylabel=report.error, ylim=(0, 1.5 * report.baseline[1]))
        panel.legend()
    return runs


def arguments(name: str, description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Those of a program that compares cells."""
    parser = lecture.arguments(name, description, **defaults)
    parser.add_argument("--cell", nargs="+", default=["lstm", "gru", "elman"], help="cells with a module in generated/")
    parser.add_argument("--seeds", type=lecture.at_least(1), metavar="N", help="runs of each")
    parser.add_argument(
        "--test", type=lecture.at_least(1), default=1000, metavar="N", help="samples that the error is measured on"
    )
    return parser
