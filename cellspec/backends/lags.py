"""Earlier values as arrays over all steps: what a backend's host code has to know of them, whatever it is written in.

*Streams* are earlier inputs and the index of the step, a state each. ``x_lag1`` holds the initial state's ``x_lag1`` and behind
it ``x``, ``x_lag2`` the initial ``x_lag2`` and behind it ``x_lag1``: each has T + 1 steps, of which the cell reads the first T;
the last is the final state. Their gradients run the other way.

*Far* states hold the values of a name that is read further back. Whatever k is, a lag is read from one array, its history:
neither the text of a module nor the time that it takes to make it grows with k.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cellspec.cell import Cell
from cellspec.model.equations import State
from cellspec.model.nodes import STEP_INDEX, Ref


@dataclass(frozen=True)
class Stream:
    """A state that is one step behind ``follows``: an input, by its name, or another stream; None for the index of the step."""

    state: State
    follows: str | Stream | None

    @property
    def value(self) -> str:
        """The value's name in the program."""
        return f"{self.state.name}[t-1]"


def streams(cell: Cell) -> tuple[Stream, ...]:
    """The streams of ``cell`` that hold one value, each behind the one that it follows."""
    found: dict[tuple[str, int], Stream] = {}
    for state in cell.streams:
        if state.rows:
            continue
        assert state.lag_of is not None
        source, lag = state.lag_of
        found[source, lag] = Stream(state, None if source == STEP_INDEX else found.get((source, lag - 1), source))
    return tuple(found.values())


def counts(known: Iterable[Stream]) -> bool:
    """Whether the index of the step is among them."""
    return any(stream.follows is None for stream in known)


def follower(known: tuple[Stream, ...], of: str | Stream) -> Stream | None:
    """The stream that is one step behind an input or a stream: what it is given, it hands on to that one."""
    return next((stream for stream in known if stream.follows == of), None)


@dataclass(frozen=True)
class Far:
    """A state that holds several earlier values of ``source``, and which of them the equations read, the nearest first."""

    state: State
    source: str
    reach: int
    refs: tuple[Ref, ...]
    of_input: bool

    @property
    def farthest(self) -> Ref:
        """The lag behind whose last step the final state's cotangent comes in."""
        return next(ref for ref in self.refs if ref.steps == self.reach)


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


def far_states(cell: Cell) -> dict[str, Far]:
    """Those of states, by what they are earlier values of."""
    return {each.source: each for each in far(cell) if not each.of_input}


def far_inputs(cell: Cell) -> dict[str, Far]:
    """Those of inputs, likewise."""
    return {each.source: each for each in far(cell) if each.of_input}
