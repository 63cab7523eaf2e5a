"""A learning curve on the terminal: a progress bar, a line for each evaluation, a plot in characters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import progress
from rich.console import Console
from rich.text import Text


class Point(NamedTuple):
    """An evaluation; both figures are bits per character."""

    seconds: float
    step: int
    train: float  # the mean since the point before
    held_out: float


class Progress(NamedTuple):
    """Where the training is, before a step."""

    spent: float  # of the budget, from 0 to 1
    step: int
    point: Point | None  # where there was an evaluation


def plot(curve: Sequence[Point], yardstick: float, width: int = 64, height: int = 12, plain: bool = False) -> str:
    """The curve as text: bits per character over seconds, beside the trigram model's level."""
    held_out, training, level, corner = "*.-+" if plain else "●·─└"
    bar, floor = "|-" if plain else "│─"
    seconds = np.array([point.seconds for point in curve])
    figures = [point.held_out for point in curve] + [point.train for point in curve if math.isfinite(point.train)] + [yardstick]
    top, bottom = max(figures) + 0.05, min(figures) - 0.05
    grid = [[" "] * width for _ in range(height)]
    columns = np.linspace(seconds[0], seconds[-1], width)

    def draw(values: Sequence[float], mark: str) -> None:
        for column, value in enumerate(np.interp(columns, seconds, values)):
            if math.isfinite(value):
                grid[round((top - value) / (top - bottom) * (height - 1))][column] = mark

    draw([yardstick] * len(curve), level)
    draw([point.train for point in curve], training)
    draw([point.held_out for point in curve], held_out)
    lines = []
    for row, cells in enumerate(grid):
        label = f"{top - (top - bottom) * row / (height - 1):5.2f}" if row % 3 == 0 or row == height - 1 else " " * 5
        lines.append(f"{label} {bar}{''.join(cells).rstrip()}")
    lines.append(" " * 6 + corner + floor * width)
    lines.append(f"{'':7}{seconds[0]:<{width - 8}.0f}{seconds[-1]:>6.0f} s")
    lines.append(f"{'':7}{held_out} held out   {training} training   {level} trigram   (bits per character)")
    return "\n".join(lines)


class Stepping(progress.ProgressColumn):
    """``step 812, held out 1.94 bits``."""

    def render(self, task: Any) -> Text:
        held_out = task.fields["held_out"]
        return Text(f"step {task.fields['step']}" + (f", held out {held_out:.2f} bits" if held_out else ""))


def show_training(console: Console, steps: Iterator[Progress], yardstick: float) -> list[Point]:
    """Runs the training to its end with a progress bar (none when piped) and a line for each point; the curve."""
    curve: list[Point] = []
    columns = (progress.BarColumn(), progress.TaskProgressColumn(), Stepping(), progress.TimeElapsedColumn())
    with progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.console.print("   seconds     step   training   held out    trigram   (bits per character)")
        task = bar.add_task("", total=1.0, step=0, held_out=None)
        for spent, step, point in steps:
            bar.update(task, completed=spent, step=step)
            if point is not None:
                curve.append(point)
                bar.update(task, held_out=point.held_out)
                row = f"{point.seconds:>10.1f} {point.step:>8} {point.train:>10.3f} {point.held_out:>10.3f} {yardstick:>10.3f}"
                bar.console.print(row + ("  beaten" if point.held_out < yardstick else ""))
    return curve
