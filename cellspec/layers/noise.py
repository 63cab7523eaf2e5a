"""Random masks, drawn on the host: the same numbers for a seed, whatever the array library and dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellspec.model.noise_inputs import DROPOUT_SUFFIX, ZONEOUT_SUFFIX

Rates = float | Mapping[str, float]
"""One rate for all states, or the rate of each by its name."""


def check_rate(name: str, value: Any) -> float:
    """``value`` as a probability less than 1."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} is {value}, expected a number from 0 to less than 1")
    return float(value)


def check_rng(rng: Any) -> None:
    """``rng`` must be a NumPy generator, or None."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator or None, got {type(rng).__name__}")


def dropout(rng: np.random.Generator, shape: tuple[int, ...], rate: float, dtype: Any, xp: Any) -> Any:
    """Zeros with probability ``rate``, elsewhere 1/(1 - rate): the mean is 1."""
    kept = (rng.random(shape, np.float32) >= rate).astype(dtype)
    return xp.asarray(kept * kept.dtype.type(1 / (1 - rate)))


@dataclass(frozen=True)
class Stream:
    """An input of a cell of :func:`cellspec.regularise`: the mask of one of its states, ``shape`` for a sample."""

    name: str
    shape: tuple[int, ...]
    rate: float

    def values(self, steps: int, batch: int, dtype: Any, xp: Any, rng: np.random.Generator | None) -> Any:
        """``[T, B, *shape]``. Zoneout: 1 at random, anew each step, else the rate. Dropout: one mask for all steps, else 1."""
        shape, zoneout = (steps, batch, *self.shape), self.name.endswith(ZONEOUT_SUFFIX)
        if rng is None:
            return xp.full(shape, self.rate if zoneout else 1.0, dtype)
        if zoneout:
            return xp.asarray((rng.random(shape, np.float32) < self.rate).astype(dtype))
        return xp.broadcast_to(dropout(rng, shape[1:], self.rate, dtype, xp), shape)


def streams(shapes: Mapping[str, tuple[int, ...]], zoneout: Rates, state_dropout: Rates, cell: str) -> tuple[Stream, ...]:
    """The masks that the inputs ``shapes`` (those behind the first) ask for, with their rates.

    Raises ValueError for an input that is no mask, and for a rate without an input that it would be for.
    """
    found = []
    for suffix, option, rates in ((ZONEOUT_SUFFIX, "zoneout", zoneout), (DROPOUT_SUFFIX, "state_dropout", state_dropout)):
        states = [name.removesuffix(suffix) for name in shapes if name.endswith(suffix)]
        if rates and not states:
            raise ValueError(
                f"{option}: the cell {cell} has no masks for it; make one by cellspec.regularise(cell, {option}=…)"
            )
        by_state = rates if isinstance(rates, Mapping) else dict.fromkeys(states, rates)
        if unknown := [state for state in by_state if state not in states]:
            raise ValueError(f"{option} of {unknown[0]}: the cell {cell} has no input {unknown[0]}{suffix}")
        found += [Stream(f"{s}{suffix}", shapes[f"{s}{suffix}"], check_rate(option, by_state.get(s, 0.0))) for s in states]
    order = {stream.name: stream for stream in found}
    if others := [name for name in shapes if name not in order]:
        raise ValueError(f"Layer takes a cell with one input; {cell} also reads {', '.join(others)}")
    return tuple(order[name] for name in shapes)
