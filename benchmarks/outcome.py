"""What contenders found, brought into one layout and compared. Needs NumPy and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS, Arrays, kinds


class Outcome(NamedTuple):
    """``y`` and final states, and gradients in the common layout, as NumPy arrays."""

    outputs: Arrays
    gradients: Arrays


def outcome_of(cell: str, y: Any, final: Any, grads: Any = None) -> Outcome:
    """What a generated module returned, as NumPy arrays; without ``grads``, what its forward pass did."""
    outputs = {"y": y} | {f"{name} final": value for name, value in final._asdict().items()}
    if grads is None:
        return Outcome(outputs, {})
    values = grads.params._asdict()
    parameters = kinds(cell, values) if cell in CELLS else values
    initial = {f"{name}0": value for name, value in grads.state._asdict().items()}
    return Outcome(outputs, parameters | {"x": grads.x} | initial)


def save(file: str | Path, found: Outcome) -> None:
    """Into an ``npz`` file, for another process."""
    outputs, gradients = (
        {f"{part}/{name}": value for name, value in arrays.items()} for part, arrays in found._asdict().items()
    )
    np.savez(file, **outputs, **gradients)


def load(file: str | Path) -> Outcome:
    """What ``save`` wrote."""
    found = Outcome({}, {})
    with np.load(file) as arrays:
        for key in arrays:
            part, _, name = key.partition("/")
            getattr(found, part)[name] = arrays[key]
    return found


def difference(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """The worst array's |found - expected| / |expected|, by the Euclidean norm and by the largest element.

    What is not finite, or not there, is infinitely far away.
    """
    worst = {"norm": 0.0, "largest": 0.0}
    if set(found) != set(expected):
        return dict.fromkeys(worst, float("inf"))
    for name, value in expected.items():
        other = found[name]
        if other.shape != value.shape or not np.all(np.isfinite(other)):
            return dict.fromkeys(worst, float("inf"))
        apart = (other - value).ravel()
        for key, size in (("norm", np.linalg.norm), ("largest", lambda array: np.max(np.abs(array), initial=0.0))):
            worst[key] = max(worst[key], float(size(apart) / max(size(value.ravel()), 1e-30)))
    return worst
