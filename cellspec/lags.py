"""Lags: ``h[t-2]`` and ``x[t-1]`` are read from states that the language adds, one for each step on the way.

``h_lag2`` holds h[t-2] before the step, and ``h_lag2[t] = h[t-1]``; ``h_lag3[t] = h_lag2[t-1]``; ``x_lag1[t] = x[t]``.
The index of the step, ``t_now``, is such a state too, which counts: a sequence that is run in parts goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator

from cellspec.cell import STEP_INDEX, Apply, Const, Equation, Input, Kind, Node, Ref, Shape, State, StopGradient
from cellspec.errors import Location
from cellspec.operands import Clash
from cellspec.scope import Role, Scope
from cellspec.shapes import ONE

MOST_LAGS = 1000
"""The states that the lags of one cell may add."""


class Lags:
    """The lags that the equations of one cell read; those of a name are all the steps up to the farthest."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._places: dict[str, dict[int, Location]] = {}  # name -> steps back -> the first place that reaches as far
        self._count = 0
        self._counted: Location | None = None

    def step_index(self, at: Location) -> Node:
        """The index of the step. It is a number that is given: no derivative is taken by it."""
        self._counted = self._counted or at
        return StopGradient(Ref(STEP_INDEX, Kind.PREVIOUS, (ONE,)), (ONE,))

    def read(self, name: str, role: Role, shape: Shape, steps: int, at: Location) -> Ref:
        """The value of the state or input ``name`` as it was ``steps`` > 0 steps ago."""
        nearest = 1 if role is Role.INPUT else 2
        places = self._places.setdefault(name, {})
        known = nearest + len(places) - 1
        if self._count + steps - known > MOST_LAGS:
            most = f"all lags of a cell together are {MOST_LAGS} steps at most"
            raise Clash(f"'{name}[t-{steps:g}]' reaches too far back: {most}")
        for lag in range(known + 1, steps + 1):
            if (entry := self.scope.entries.get(_name(name, lag))) is not None:
                taken = f"{entry.name!r} is {entry.role.value} already"
                raise Clash(f"'{name}[t-{steps}]' is kept in a state {entry.name!r}, but {taken}: choose another name")
            places[lag] = at
            self._count += 1
        return Ref(name if steps < nearest else _name(name, steps), Kind.PREVIOUS, shape)

    def made(self, inputs: tuple[Input, ...], states: tuple[State, ...]) -> Iterator[tuple[State, Equation]]:
        """The states that the lags add, in the order of those that they are lags of, states first; and their equations."""
        for state in states:
            yield from self._chain(Ref(state.name, Kind.PREVIOUS, state.shape), state.init)
        for stream in inputs:
            yield from self._chain(Ref(stream.name, Kind.INPUT, stream.shape), 0.0)
        if self._counted is not None:
            now, at = self.step_index(self._counted), self._counted
            target = Ref(STEP_INDEX, Kind.STATE, (ONE,))
            text = f"{STEP_INDEX}[t] = {STEP_INDEX}[t-1] + 1"
            count = Equation(target, Apply("add", (now, Const(1)), (ONE,)), text, at)
            yield State(STEP_INDEX, (ONE,), 0.0, (STEP_INDEX, 0)), count

    def _chain(self, source: Ref, init: float) -> Iterator[tuple[State, Equation]]:
        name, shape = source.name, source.shape
        for lag, at in self._places.get(name, {}).items():
            target = Ref(_name(name, lag), Kind.STATE, shape)
            yield State(target.name, shape, init, (name, lag)), Equation(target, source, f"{target.label} = {source.label}", at)
            source = Ref(target.name, Kind.PREVIOUS, shape)


def _name(name: str, lag: int) -> str:
    """The state that holds ``name`` as it was ``lag`` steps ago."""
    return f"{name}_lag{lag}"
