"""How the time grows with T, B and H: what ``cpu.py --sweep`` measured, drawn by Matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import BOTH
from cpu_cases import SWEEP
from cpu_report import Result, results_from
from worker import CONTENDERS

COLOURS = {name: f"C{index}" for index, name in enumerate(CONTENDERS)}


def points(results: Sequence[Result], axis: str) -> dict[str, list[tuple[int, float]]]:
    """By contender, the sizes along an axis and the milliseconds there, in order."""
    place = "TB.H".index(axis)
    shapes = SWEEP[axis].shapes(axis)
    found: dict[str, list[tuple[int, float]]] = {}
    for result in sorted((result for result in results if result.shape in shapes), key=lambda result: result.shape[place]):
        found.setdefault(result.contender, []).append((result.shape[place], result.ms.median))
    return found


def draw(report: Mapping[str, Any], file: Path) -> None:
    """A row of panels for each cell, one panel for each axis, both axes logarithmic. A ValueError if there is no sweep."""
    swept = {shape for name, axis in SWEEP.items() for shape in axis.shapes(name)}
    results = [result for result in results_from(report) if result.direction == BOTH and result.shape in swept]
    cells = list(dict.fromkeys(result.cell for result in results))
    if not cells:
        raise ValueError("there is nothing of a sweep to draw: measure with --sweep")
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cellspec"  # the same file for the same results
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, rows = pyplot.subplots(len(cells), len(SWEEP), figsize=(12, 3.6 * len(cells)), squeeze=False, layout="constrained")
    handles: dict[str, Any] = {}
    for cell, panels in zip(cells, rows, strict=True):
        for name, panel in zip(SWEEP, panels, strict=True):
            ours = [result for result in results if result.cell == cell]
            for contender, line in points(ours, name).items():
                (handles[contender],) = panel.plot(*zip(*line, strict=True), "o-", markersize=3, color=COLOURS[contender])
            fixed = ", ".join(f"{other} = {getattr(SWEEP[name], other)}" for other in SWEEP if other != name)
            panel.set(xscale="log", yscale="log", xlabel=name, title=f"{cell}: {fixed}, I = H")
            panel.set_xticks(SWEEP[name].sizes, labels=map(str, SWEEP[name].sizes), fontsize="small")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("forward + backward, ms")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, **({"metadata": {"Date": None}} if file.suffix == ".svg" else {}))
    pyplot.close(figure)
