"""What a cell is made of: inputs, states, parameters, and typed equations in dependency order."""

from __future__ import annotations

from dataclasses import dataclass

from cellspec.errors import Location
from cellspec.language.spec import Cite, Expect, Initialiser
from cellspec.model.nodes import STEP_INDEX, Node, Ref, Shape, refs


@dataclass(frozen=True)
class Param:
    """A parameter: its shape and how it starts. A family of ``repeat`` members has that many in front of its shape."""

    name: str
    shape: Shape
    init: Initialiser
    trainable: bool
    repeat: int | None = None


@dataclass(frozen=True)
class State:
    """A state: its shape and the number that it starts from.

    ``lag_of`` is set for a state that the language makes of a lag: ``h_lag2``, read as ``h[t-2]``, is a ``State`` whose
    equation is ``h_lag2[t] = h[t-1]``; ``x_lag1`` holds ``x[t-1]``; and for the step's index, whose equation is
    ``t_now[t] = t_now[t-1] + 1`` (``("t_now", 0)``). They come after the spec's own states.
    One with ``rows`` has no equation: it holds so many earlier values along its first axis, the newest first, and ``lag_of``
    says how far back the last of them lies.
    """

    name: str
    shape: Shape
    init: float
    lag_of: tuple[str, int] | None = None
    rows: int = 0


@dataclass(frozen=True)
class Input:
    """An input stream: one value a step."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Equation:
    """``target = value``. ``target.kind`` is STATE, VALUE or DERIVED; ``value`` broadcasts to ``target.shape``."""

    target: Ref
    value: Node
    text: str
    at: Location


@dataclass(frozen=True)
class Equations:
    """All that is known of a cell, right in every respect that can be told before code is generated.

    ``assignments`` are the typed equations in dependency order, derived parameters first. ``outputs`` are references to states
    or intermediates. ``dims`` are in the order of the generated keyword arguments. ``settings`` are the ``--set`` choices.
    ``made_by`` is the Python that makes this cell of what its file says, empty if it is just that.
    """

    name: str
    title: str
    doc: str
    cite: tuple[Cite, ...]
    sha256: str
    dims: tuple[str, ...]
    hyper: tuple[tuple[str, float | int], ...]
    activations: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    inputs: tuple[Input, ...]
    states: tuple[State, ...]
    outputs: tuple[Ref, ...]
    params: tuple[Param, ...]
    assignments: tuple[Equation, ...]
    expect: Expect
    at: Location
    path: str
    made_by: str = ""

    @property
    def streams(self) -> tuple[State, ...]:
        """The states that are known for all steps at once: earlier inputs, and the index of the step."""
        known = {STEP_INDEX, *(item.name for item in self.inputs)}
        return tuple(state for state in self.states if state.lag_of is not None and state.lag_of[0] in known)

    @property
    def distant(self) -> tuple[Ref, ...]:
        """What the equations read of states and inputs that have no state for each step back: each once, the nearest first."""
        found = {ref for equation in self.assignments for ref in refs(equation.value) if ref.back}
        order = [*(state.name for state in self.states), *(item.name for item in self.inputs)]
        return tuple(sorted(found, key=lambda ref: (order.index(ref.name), ref.back)))

    def keeper(self, ref: Ref) -> State:
        """The state that holds what ``ref``, one of :attr:`distant`, reads: in row ``ref.back - 1``."""
        return next(state for state in self.states if state.rows and state.lag_of is not None and state.lag_of[0] == ref.name)
