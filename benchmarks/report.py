"""What all benchmarks' reports share: statistics of rounds, numbers in tables, the JSON file and its head."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import shlex
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DIGITS = 6  # of a number in a file: more than any clock has
DISTURBED = 1.3  # a third quartile so many times the first: something else was running


class Spread(NamedTuple):
    """Quartiles of one number for each round."""

    median: float
    q1: float
    q3: float

    @property
    def disturbed(self) -> bool:
        """Whether the rounds differ so much that something else must have been running."""
        return self.q3 > DISTURBED * self.q1


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, q1, q3)


def divided(rounds: Sequence[float], ours: Sequence[float]) -> Spread:
    """A contender's rounds divided by ours, one by one: they lie next to each other in time. Above 1, ours is faster."""
    return spread([other / own for other, own in zip(rounds, ours, strict=True)])


def number(value: float) -> str:
    """About three digits."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.1 else 4}f}"


# --- the file ----------------------------------------------------------------------------------------------


def heading(about: str, machine: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """What a file begins with: what it holds, in words, and when, how and on what that was measured."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"about": about, "date": now, "command": command(), "machine": dict(machine), "settings": settings}


def command() -> str:
    """The command, for the file: with the kernels that were asked for, without the folders of this machine."""
    chosen = [f"{name}={os.environ[name]}" for name in ("OPENBLAS_CORETYPE",) if name in os.environ]
    script, *words = sys.argv
    words = [re.sub(r"(^|=)[/~].*/", r"\1", word) for word in words]
    return shlex.join([*chosen, "python", f"benchmarks/{Path(script).name}", *words])


def plain(value: Any) -> Any:
    """For JSON: named tuples as objects without what is as usual, numbers rounded, what is not finite as a string."""
    if hasattr(value, "_asdict"):
        usual = value._field_defaults
        value = {name: item for name, item in value._asdict().items() if name not in usual or item != usual[name]}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    return value


def text_of(report: Mapping[str, Any]) -> str:
    """A report as JSON: a line for each thing that it says of itself, and for each result."""
    entries = [f" {json.dumps(key)}: {spread_out(value)}" for key, value in plain(report).items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def spread_out(value: Any) -> str:
    """What an entry of a report holds: each of its own entries on a line."""
    if not value or not isinstance(value, dict | list):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, dict):
        inside = [f"{json.dumps(key)}: {json.dumps(item, allow_nan=False)}" for key, item in value.items()]
    else:
        inside = [json.dumps(item, allow_nan=False) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "".join(f"\n  {line}," for line in inside)[:-1] + f"\n {closing}"


def write(file: Path, report: dict[str, Any]) -> None:
    """Writes the whole report beside the file, then renames: whoever reads finds the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text_of(report))
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
