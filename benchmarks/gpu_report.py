"""The GPU benchmark's results, and their tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from cells import Case
from report import Spread, divided, number, spread
from report import write as write  # for gpu.py, which takes all of its report from here
from rich.table import Table

OURS = ("ours graph", "ours")  # what the tables divide by: the first of them that was measured
# What the norm of an error may be of the reference's: wide of what rounding does, narrow of what a wrong formula does.
TOLERANCES = {"float64": 1e-10, "float32": 1e-3, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 1e-1}
ABOUT = (
    "Milliseconds of one call, by CUDA events: median and quartiles over the rounds, each of which is the median of a turn's "
    "calls, and the least. ratios: times those of 'ours graph' and 'ours' of the same round; above 1, ours is faster. "
    "error: relative to the float64 reference, by the norm, of the pass's worst array; error_largest: by the largest element. "
    "What failed has a reason and no numbers."
)


class Result(NamedTuple):
    """One contender, one pass, one case. Without ``ms`` it failed, and ``reason`` says why."""

    cell: str
    shape: tuple[int, int, int, int]
    dtype: str
    contender: str
    direction: str
    ms: Spread | None = None  # over the rounds, each the median of a turn's calls
    us_per_step: float | None = None
    ratios: Mapping[str, Spread] = MappingProxyType({})  # times of each of ours, round by round: above 1, ours is faster
    least: float = 0.0  # ms of the fastest round
    rounds: int = 0
    calls: int = 0  # in all rounds together
    error: float | None = None  # to the reference, by the norm, the worst of all arrays of this pass; None: not compared
    error_largest: float | None = None  # the same by the largest element
    reason: str = ""
    note: str = ""

    @property
    def wrong(self) -> bool:
        """Whether the result is further from the reference than the dtype explains."""
        return self.error is not None and not self.error <= TOLERANCES[self.dtype]


def results_of(
    case: Case,
    direction: str,
    turns: dict[str, list[list[float]]],
    reasons: dict[str, str],
    details: dict[str, dict[str, Any]],
) -> list[Result]:
    """The results of one pass, in the order of ``turns``: milliseconds of every call, by contender and round.

    ``reasons``: who failed, and why; ``details``: notes and errors.
    """
    rounds = {name: tuple(map(statistics.median, ms)) for name, ms in turns.items() if name not in reasons}
    found = []
    for name in turns:
        detail = details.get(name, {})
        result = Result(case.cell, case.shape, case.dtype, name, direction, note=detail.get("note", ""))
        if name in reasons:
            found.append(result._replace(reason=reasons[name]))
            continue
        ratios = {mine: divided(rounds[name], rounds[mine]) for mine in OURS if mine in rounds and mine != name}
        ms = spread(rounds[name])
        error = detail.get("error", {}).get("forward" if direction == "forward" else "gradients", {})
        found.append(
            result._replace(
                ms=ms,
                us_per_step=ms.median * 1e3 / case.T,
                ratios=ratios,
                least=min(rounds[name]),
                rounds=len(rounds[name]),
                calls=sum(map(len, turns[name])),
                error=error.get("norm"),
                error_largest=error.get("largest"),
            )
        )
    return found


# --- tables ------------------------------------------------------------------------------------------------


def times(result: Result) -> tuple[str, str, str, str]:
    """The cells of a table for a result: milliseconds, microseconds per step, ratio, error."""
    if result.ms is None or result.us_per_step is None:
        return "[red]failed[/]", "", "", ""
    ms = f"{number(result.ms.median)} ({number(result.ms.q1)}-{number(result.ms.q3)})"
    if result.ms.disturbed:
        ms = f"[dim]~{ms}[/]"
    baseline = next((name for name in OURS if name in result.ratios), None)
    ratio = ""
    if baseline is not None and result.contender != OURS[0]:
        median, q1, q3 = result.ratios[baseline]
        ratio = f"[{'green' if median >= 1 else 'red'}]x{median:.2f} ({q1:.2f}-{q3:.2f})[/]"
    error = "" if result.error is None else f"[red]{result.error:.0e} ![/]" if result.wrong else f"{result.error:.0e}"
    return ms, number(result.us_per_step), ratio, error


def case_table(case: Case, results: Sequence[Result]) -> Table:
    """One case: every contender, both passes."""
    baseline = next((name for name in OURS for result in results if result.contender == name and result.ms), "ours")
    sizes = f"T={case.T} B={case.B} I={case.I} H={case.H}"
    table = Table(title=f"{case.cell}, {sizes}, {case.dtype}: x is times {baseline!r}", title_justify="left")
    table.add_column("")
    directions = list(dict.fromkeys(result.direction for result in results))
    for direction in directions:
        for column in (f"{direction}, ms", "µs/step", "x", "error"):
            table.add_column(column, justify="right")
    for name in dict.fromkeys(result.contender for result in results):
        row = {result.direction: result for result in results if result.contender == name}
        table.add_row(name, *(entry for direction in directions for entry in times(row[direction])))
    return table


def summary(results: Sequence[Result], direction: str) -> Table:
    """Microseconds per step of everything measured in one pass, a line a case."""
    results = [result for result in results if result.direction == direction]
    names = list(dict.fromkeys(result.contender for result in results))
    table = Table(title=f"{direction}: microseconds per step", title_justify="left")
    for column in ("cell", "T, B, I, H", "dtype"):
        table.add_column(column)
    for name in names:
        table.add_column(name, justify="right")
    rows: dict[tuple[Any, ...], dict[str, Result]] = {}
    for result in results:
        rows.setdefault((result.cell, result.shape, result.dtype), {})[result.contender] = result
    for (cell, shape, dtype), row in rows.items():
        entries = (times(row[name])[1] or "failed" if name in row else "" for name in names)
        table.add_row(cell, ", ".join(map(str, shape)), dtype, *entries)
    return table
