"""Lags: what ``h[t-2]`` and ``x[t-1]`` read is kept in states that the language adds.

Up to :data:`NEAR` steps back each step is a state of its own, with an equation: ``h_lag2`` holds h[t-2] before the step, and
``h_lag2[t] = h[t-1]``; ``h_lag3[t] = h_lag2[t-1]``; ``x_lag1[t] = x[t]``. A name that is read further back has one state for
all steps up to the farthest, however many: ``h_lags``, ``[k - 1, *shape]``, holds h[t-2], h[t-3], … h[t-k], and ``x_lags``,
``[k, *shape]``, x[t-1], … x[t-k]. It has no equation; the equations read ``h[t-k]`` itself.
The index of the step, ``t_now``, is such a state too, which counts: a sequence that is run in parts goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator

import sympy

from cellspec.errors import Location
from cellspec.language.check.scope import Role, Scope
from cellspec.language.check.typed import Clash
from cellspec.model.equations import Equation, Input, State
from cellspec.model.nodes import STEP_INDEX, Apply, Const, Kind, Node, Ref, Shape, StopGradient, children, with_children
from cellspec.model.shapes import ONE

MOST_LAGS = 1000
"""The steps that the lags of one cell may keep."""

NEAR = 4
"""The steps back up to which each has a state of its own."""


class Lags:
    """The lags that the equations of one cell read; those of a name are all the steps up to the farthest."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        # name -> steps back -> how the first expression that reaches as far is written, and where it stands
        self._places: dict[str, dict[int, tuple[str, Location]]] = {}
        self._nearest: dict[str, int] = {}
        self._count = 0
        self._counted: Location | None = None

    def step_index(self, at: Location) -> Node:
        """The index of the step. It is a number that is given: no derivative is taken by it."""
        self._counted = self._counted or at
        return StopGradient(Ref(STEP_INDEX, Kind.PREVIOUS, (ONE,)), (ONE,))

    def read(self, name: str, role: Role, shape: Shape, steps: int, at: Location) -> Ref:
        """The value of the state or input ``name`` as it was ``steps`` > 0 steps ago."""
        nearest = self._nearest[name] = 1 if role is Role.INPUT else 2
        places = self._places.setdefault(name, {})
        known = nearest + len(places) - 1
        if self._count + steps - known > MOST_LAGS:
            most = f"all lags of a cell together are {MOST_LAGS} steps at most"
            raise Clash(f"'{name}[t-{steps:g}]' reaches too far back: {most}")
        for lag in range(known + 1, steps + 1):
            places[lag] = (f"{name}[t-{steps}]", at)
            self._count += 1
        kind = Kind.INPUT if role is Role.INPUT else Kind.PREVIOUS
        return Ref(name, kind, shape, back=steps - (nearest - 1))

    def check(self) -> None:
        """Report the states to be added whose names are taken."""
        for name, places in self._places.items():
            kept = {_name(name, lag): place for lag, place in places.items()}
            if max(places, default=0) > NEAR:
                kept = {_all(name): places[max(places)]}
            for own, (text, at) in kept.items():
                if (entry := self.scope.entries.get(own)) is not None:
                    taken = f"{entry.name!r} is {entry.role.value} already"
                    what = f"{text!r} is kept in a state {entry.name!r}, but {taken}: choose another name"
                    self.scope.reporter.error(at, what)

    def settled(self, node: Node) -> Node:
        """``node`` reading the states that hold near lags."""
        if isinstance(node, Ref) and node.back and max(self._places[node.name]) <= NEAR:
            return Ref(_name(node.name, node.back + self._nearest[node.name] - 1), Kind.PREVIOUS, node.shape)
        parts = children(node)
        new = [self.settled(part) for part in parts]
        return node if all(a is b for a, b in zip(parts, new, strict=True)) else with_children(node, new)

    def made(self, inputs: tuple[Input, ...], states: tuple[State, ...]) -> tuple[tuple[State, ...], tuple[Equation, ...]]:
        """The states that the lags add, in the order of those that they are lags of, states first; and their equations."""
        sources = [(Ref(state.name, Kind.PREVIOUS, state.shape), state.init) for state in states]
        sources += [(Ref(stream.name, Kind.INPUT, stream.shape), 0.0) for stream in inputs]
        added: list[State] = []
        equations: list[Equation] = []
        for source, init in sources:
            places = self._places.get(source.name, {})
            if (farthest := max(places, default=0)) > NEAR:
                shape = (sympy.Integer(len(places)), *source.shape)
                added.append(State(_all(source.name), shape, init, (source.name, farthest), rows=len(places)))
                continue
            for state, equation in self._chain(source, init):
                added.append(state)
                equations.append(equation)
        if self._counted is not None:
            now, at = self.step_index(self._counted), self._counted
            target = Ref(STEP_INDEX, Kind.STATE, (ONE,))
            text = f"{STEP_INDEX}[t] = {STEP_INDEX}[t-1] + 1"
            equations.append(Equation(target, Apply("add", (now, Const(1)), (ONE,)), text, at))
            added.append(State(STEP_INDEX, (ONE,), 0.0, (STEP_INDEX, 0)))
        return tuple(added), tuple(equations)

    def _chain(self, source: Ref, init: float) -> Iterator[tuple[State, Equation]]:
        name, shape = source.name, source.shape
        for lag, (_, at) in self._places.get(name, {}).items():
            target = Ref(_name(name, lag), Kind.STATE, shape)
            yield State(target.name, shape, init, (name, lag)), Equation(target, source, f"{target.label} = {source.label}", at)
            source = Ref(target.name, Kind.PREVIOUS, shape)


def _name(name: str, lag: int) -> str:
    """The state that holds ``name`` as it was ``lag`` steps ago."""
    return f"{name}_lag{lag}"


def _all(name: str) -> str:
    """The state that holds ``name`` as it was at every step up to the farthest."""
    return f"{name}_lags"
