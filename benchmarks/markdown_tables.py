"""The CPU benchmark's results as tables in Markdown, for docs/speed.md: computed, never written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cells import BOTH, FORWARD
from cpu_report import OURS, Result, results_from, sizes, times_ours
from report import number
from targets import FIRST_FIVE, geometric_mean, verdicts
from worker import CONTENDERS, STEP

STAR = "\\*"  # as Markdown wants it
PARTS = ("targets", BOTH, FORWARD, STEP, "memory")


def markdown(report: Mapping[str, Any], parts: Iterable[str] = PARTS) -> str:
    """The parts of a report, each a paragraph that says what it is, and a table."""
    results = results_from(report)
    made = [table_of(part, results) for part in parts]
    return "\n".join([description(report, results), *(text for text in made if text)])


def table_of(part: str, results: Sequence[Result]) -> str:
    """One part; nothing where there is nothing to tell."""
    if part == "targets":
        return target_table(results)
    direction = BOTH if part == "memory" else part
    chosen = [result for result in results if result.direction == direction]
    if not chosen:
        return ""
    if part == "memory":
        title = "Peak memory of forward + backward in MiB, beyond the library and the numbers that are given:"
        return comparison(title, "", chosen, lambda result: number(result.peak), lambda result: number(result.peak))
    what = "One step, microseconds" if part == STEP else f"{part.capitalize()}, milliseconds"
    scale = 1e3 if part == STEP else 1.0
    title = f"{what}, and how many times ours the others take (quartiles of the rounds; above 1, ours is faster):"
    return comparison(
        title,
        "geometric mean",
        chosen,
        lambda result: number(result.ms.median * scale),
        lambda result: times_ours(result.ratio) + (STAR if result.note else ""),
    )


def description(report: Mapping[str, Any], results: Sequence[Result]) -> str:
    """What was measured on what, and what the stars mean."""
    machine = report["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    text = f"{machine['cpu']}, {machine['threads']} threads; {libraries} ({machine['blas']}). "
    text += f"float32, medians of {report['settings']['rounds']} rounds."
    notes = dict.fromkeys(f"{STAR} {result.contender} for `{result.cell}`: {result.note}." for result in results if result.note)
    return " ".join([text, *notes]) + "\n"


def lines(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def target_table(results: Sequence[Result]) -> str:
    """Every target, what was found, and whether that is enough."""
    rows = [("times ours, forward + backward unless it says a step", "at least", "found", "met"), ("---",) * 4]
    for verdict in verdicts(results):
        found = "" if verdict.found is None else f"{verdict.found:.2f}"
        where = f" ({verdict.where})" if verdict.where else ""
        rows.append((verdict.target.what, f"{verdict.target.least:g}", found + where, verdict.met))
    return lines(rows)


def comparison(
    title: str,
    mean: str,
    results: Sequence[Result],
    own: Callable[[Result], str],
    other: Callable[[Result], str],
) -> str:
    """A row for every cell and shape; with ``mean``, another for the cell's ratios over the first five shapes."""
    there = {result.contender for result in results}
    peers = [name for name in CONTENDERS if name in there and not name.startswith(OURS)]
    rows: list[Sequence[str]] = [("cell", "T, B, I, H", OURS, *peers), ("---",) * (3 + len(peers))]
    for cell in dict.fromkeys(result.cell for result in results):
        found = {(result.shape, result.contender): result for result in results if result.cell == cell}
        for shape in dict.fromkeys(shape for shape, _ in found):
            row = [other(found[shape, name]) if (shape, name) in found else "" for name in peers]
            rows.append((f"`{cell}`", sizes(shape), own(found[shape, OURS]), *row))
        if mean and all((shape, OURS) in found for shape in FIRST_FIVE):
            means = [mean_ratio([found.get((shape, name)) for shape in FIRST_FIVE]) for name in peers]
            rows.append((f"`{cell}`", f"{mean}, first five", "", *means))
    return f"{title}\n\n{lines(rows)}"


def mean_ratio(results: Sequence[Result | None]) -> str:
    """The geometric mean of a peer's ratios, if it has all."""
    ratios = [result.ratio.median for result in results if result is not None and not result.note]
    return f"**{geometric_mean(ratios):.2f}**" if len(ratios) == len(results) else ""
