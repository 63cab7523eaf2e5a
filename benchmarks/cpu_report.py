"""The CPU benchmark's results, and their tables on the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cells import Case
from cpu_cases import Shape
from report import Spread, divided, number, spread
from rich.table import Table
from worker import CONTENDERS, STEP

OURS = "ours"
MIB = 2**20


class Result(NamedTuple):
    """One contender in one pass of one case."""

    cell: str
    shape: Shape
    direction: str
    contender: str
    ms: Spread  # of a call, in the pass ``step`` of a step; over the rounds, each the median of a turn's calls
    ratio: Spread  # times ours, round by round: above 1, ours is faster
    least: float = 0.0  # ms of the fastest round
    rounds: int = 0
    calls: int = 0  # in all rounds together
    peak: float = 0.0  # MiB that the process grew by, at most, beyond its library and the numbers it was given
    error: float | None = None  # worst difference to ours, relative to an array's largest element; None: not compared
    note: str = ""


ABOUT = (
    "Milliseconds of a call in float32, in the pass 'step' of one step: median and quartiles over the rounds, each of which is "
    "the median of a turn's calls, and the least. ratio: times those of 'ours' of the same round; above 1, ours is faster. "
    "peak: MiB beyond the library and the numbers given. error: the worst difference to ours, by an array's largest element; "
    "where there is none, none was compared."
)
"""What the numbers in a file mean."""


def results_of(
    case: Case,
    direction: str,
    turns: Mapping[str, Sequence[Mapping[str, Any]]],
    errors: Mapping[str, float],
    details: Mapping[str, Mapping[str, Any]],
) -> list[Result]:
    """The results of one pass from the answers of every contender, one for each round: seconds of all calls, and the peak."""
    rounds = {name: tuple(statistics.median(turn["seconds"]) * 1e3 for turn in found) for name, found in turns.items()}
    return [
        Result(
            cell=case.cell,
            shape=case.shape,
            direction=direction,
            contender=name,
            ms=spread(rounds[name]),
            ratio=divided(rounds[name], rounds[OURS]),
            least=min(rounds[name]),
            rounds=len(rounds[name]),
            calls=sum(len(turn["seconds"]) for turn in found),
            peak=round(max(turn["peak"] for turn in found) / MIB, 2),
            error=errors.get(name),
            note=details[name]["note"],
        )
        for name, found in turns.items()
    ]


def results_from(report: Mapping[str, Any]) -> list[Result]:
    """The results of a report that was read from a file."""
    found = []
    for entry in report["results"]:
        ms, ratio = Spread(**entry["ms"]), Spread(**entry["ratio"])
        error = float(entry["error"]) if "error" in entry else None  # what is not finite is a word
        found.append(Result(**entry | {"shape": tuple(entry["shape"]), "ms": ms, "ratio": ratio, "error": error}))
    return found


def sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def milliseconds(result: Result) -> str:
    return f"{number(result.ms.median)} ({number(result.ms.q1)}-{number(result.ms.q3)})"


def times_ours(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.q1:.2f}-{ratio.q3:.2f})"


def case_table(case: Case, results: Sequence[Result]) -> Table:
    """One case: every contender, all passes."""
    table = Table(title=f"{case.cell}, T={case.T} B={case.B} I={case.I} H={case.H}: x is times ours", title_justify="left")
    table.add_column("")
    directions = list(dict.fromkeys(result.direction for result in results))
    for direction in directions:
        unit = "ms a step" if direction == STEP else "ms"
        for column in (f"{direction}, {unit}", "x", "MiB"):
            table.add_column(column, justify="right")
    for name in [name for name in CONTENDERS if any(result.contender == name for result in results)]:
        row = {result.direction: result for result in results if result.contender == name}
        table.add_row(
            name, *(text for direction in directions for text in (entries(row[direction]) if direction in row else [""] * 3))
        )
    return table


def entries(result: Result) -> tuple[str, str, str]:
    """Milliseconds, ratio and memory, in colours."""
    ms = milliseconds(result)
    if result.ms.disturbed:
        ms = f"[dim]~{ms}[/]"
    ratio = ""
    if result.contender != OURS:
        ratio = f"[{'green' if result.ratio.median >= 1 else 'red'}]x{times_ours(result.ratio)}[/]"
    return ms, ratio, f"{result.peak:.1f}"
