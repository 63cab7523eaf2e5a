"""Where samples of a batch end and begin anew, and in which direction they are read: what generated code takes as arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellspec.oracle.primitives import Array


@dataclass(frozen=True)
class Masks:
    """``lengths`` [B]: how many steps each sample has. ``resets`` [T, B]: where the state is put back to the spec's initial
    value before the step. ``reverse``: whether each sample is read from its end.
    """

    lengths: npt.NDArray[np.integer] | None = None
    resets: npt.NDArray[np.bool_] | None = None
    reverse: bool = False

    def turns(self, steps: int, batch: int) -> Iterator[Turn]:
        """What happens, turn by turn, to a batch of sequences of so many steps."""
        samples = np.arange(batch)
        lengths = np.full(batch, steps) if self.lengths is None else self.lengths
        for t in range(steps):
            runs = t < lengths
            step = np.where(runs, lengths - 1 - t if self.reverse else t, t)
            anew = runs & (False if self.resets is None else self.resets[step, samples])
            yield Turn(step, samples, runs, anew)


@dataclass(frozen=True)
class Turn:
    """For each sample the step that it reads, whether it has one, and whether it begins anew before it; all ``[B]``."""

    step: npt.NDArray[np.integer]
    samples: npt.NDArray[np.integer]
    runs: npt.NDArray[np.bool_]
    anew: npt.NDArray[np.bool_]

    def before(self, state: Array, first: Array, lead: int = 0) -> Array:
        """The state before the step, ``[B, *shape]`` behind ``lead`` axes; ``first`` where the sample begins anew."""
        return np.where(_along(self.anew, state, lead), first, state)

    def after(self, state: Array, before: Array, lead: int = 0) -> Array:
        """The state after the step; ``before`` where the sample has ended."""
        return np.where(_along(self.runs, state, lead), state, before)

    def read(self, sequence: Array, lead: int = 0) -> Array:
        """What is read of a sequence ``[T, B, *shape]`` behind ``lead`` axes; where the sample has ended, no matter what."""
        read: Array = sequence[(slice(None),) * lead + (self.step, self.samples)]
        return read

    def write(self, sequence: Array, value: Array, lead: int = 0) -> None:
        """Put a value where its step belongs in a sequence; nothing where the sample has ended."""
        at = (slice(None),) * lead + (self.step[self.runs], self.samples[self.runs])
        sequence[at] = value[(slice(None),) * lead + (self.runs,)]


def _along(mask: npt.NDArray[np.bool_], value: Array, lead: int) -> npt.NDArray[np.bool_]:
    """``mask`` [B], to go with ``value``."""
    return mask.reshape(-1, *(1,) * (value.ndim - lead - 1))
