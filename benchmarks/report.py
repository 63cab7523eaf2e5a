"""What both benchmarks' reports share: statistics of rounds, numbers in tables, the JSON file."""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


def plain(value: Any) -> Any:
    """For JSON: named tuples as objects, what is not finite as a string."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write(file: Path, report: dict[str, Any]) -> None:
    """Writes the whole report beside the file, then renames: whoever reads finds the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(plain(report), stream, indent=1, allow_nan=False)
            stream.write("\n")
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
