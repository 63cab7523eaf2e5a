"""Earlier values as arrays over all steps: what a module's host code does with them, whichever backend's it is.

*Streams* are earlier inputs and the index of the step, a state each. ``x_lag1`` holds the initial state's ``x_lag1`` and behind
it ``x``, ``x_lag2`` the initial ``x_lag2`` and behind it ``x_lag1``: each has T + 1 steps, of which the cell reads the first T;
the last is the final state. Their gradients run the other way.

*Histories* hold the values of a name that is read further back. Whatever k is, a lag is read from one array: neither the text
of a module nor the time that it takes to make it grows with k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cellspec.backends.common import Common
from cellspec.backends.dims import input_texts
from cellspec.backends.plain import float_text
from cellspec.cell import Cell
from cellspec.model.equations import State
from cellspec.model.nodes import STEP_INDEX, Ref


@dataclass(frozen=True)
class Stream:
    """One of them: its state, the buffer ``[T + 1, B, n]`` that holds it, and what it follows (an input, or another stream)."""

    state: State
    buffer: str
    follows: str | None

    @property
    def value(self) -> str:
        """The value's name in the program."""
        return f"{self.state.name}[t-1]"


def streams(cell: Cell, buffers: Mapping[str, str]) -> tuple[Stream, ...]:
    """The streams of ``cell`` that hold one value, nearest lag first; ``buffers`` name theirs, by state."""
    inputs = dict(zip((item.name for item in cell.inputs), input_texts(cell), strict=True))
    found: dict[tuple[str, int], Stream] = {}
    for state in cell.streams:
        if state.rows:
            continue
        assert state.lag_of is not None
        source, lag = state.lag_of
        earlier = found.get((source, lag - 1))
        follows = None if source == STEP_INDEX else f"ws.{earlier.buffer}[:-1]" if earlier else inputs[source]
        found[source, lag] = Stream(state, buffers[state.name], follows)
    return tuple(found.values())


@dataclass(frozen=True)
class Far:
    """A state that holds several earlier values of ``source``, and which of them the equations read, the nearest first."""

    state: State
    source: str
    reach: int
    refs: tuple[Ref, ...]
    of_input: bool

    @property
    def init(self) -> str:
        return float_text(float(self.state.init))


def far(cell: Cell) -> tuple[Far, ...]:
    """All of them, those of states first."""
    inputs = {item.name for item in cell.inputs}
    found = []
    for state in cell.states:
        if state.rows and state.lag_of is not None:
            source, reach = state.lag_of
            refs = tuple(ref for ref in cell.distant if ref.name == source)
            found.append(Far(state, source, reach, refs, source in inputs))
    return tuple(found)


class FarStates:
    """The far ones of a cell, by what they are earlier values of; and how a caller's rows, ``[B, rows, *shape]``, are spelt."""

    def __init__(self, cell: Cell, common: Common) -> None:
        self.common = common
        self.of_states = {each.source: each for each in far(cell) if not each.of_input}
        self.of_inputs = {each.source: each for each in far(cell) if each.of_input}

    @property
    def any(self) -> bool:
        """Whether the cell has such a state."""
        return bool(self.of_states or self.of_inputs)

    def size(self, each: Far) -> str:
        """The elements of one value."""
        return self.common.size(each.state.shape[1:])

    def oldest_first(self, array: str, each: Far) -> str:
        """The caller's rows as ``[B, rows, n]``, the oldest first."""
        flat = array if len(each.state.shape) == 2 else f"{array}.reshape(B, {each.state.rows}, {self.size(each)})"
        return f"{flat}[:, ::-1]"

    def shaped(self, text: str, each: Far) -> str:
        """``[B, rows, n]`` in the state's shape."""
        return text if len(each.state.shape) == 2 else f"{text}.reshape{self.common.batched(each.state.shape)}"
