"""Cells with noise in their recurrence: a cell into another one, with masks among its inputs.

The masks are inputs, so that the module stays a function of its arguments: whoever calls it draws them, as
:class:`cellspec.layers.Layer` does. No gradient is taken by them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from cellspec.cell import Cell
from cellspec.model.equations import Equation, Input, State
from cellspec.model.nodes import Apply, Const, Kind, MatMul, Node, Ref, StopGradient, children, with_children
from cellspec.model.noise_inputs import DROPOUT_SUFFIX, ZONEOUT_SUFFIX
from cellspec.render.as_spec import equation_text

CANDIDATE_SUFFIX = "_new"


def regularise(cell: Cell, *, zoneout: Collection[str] = (), state_dropout: Collection[str] = ()) -> Cell:
    """The cell with zoneout of the states ``zoneout``, and dropout of ``state_dropout`` where a matrix multiplies them.

    **Zoneout** (Krueger et al., 2017), for a state ``c``, with the input ``c_zoneout``, 1 where an element keeps its value::

        c_new = …                                        the equation for c[t], as it was
        c[t] = c_zoneout[t]*c[t-1] + (1 - c_zoneout[t])*c_new

    Within the step other equations read ``c_new``, as in the paper, whose LSTM computes its h from a cell that has not been
    zoned out; outputs that are states, and the next step, read the mixture. A mask that is drawn anew at each step trains; the
    rate in its place is the expectation, for evaluation.

    **Dropout of the state** (Gal and Ghahramani, 2016), with the input ``h_dropout``: each product of a matrix with an
    expression that reads ``h[t-k]`` reads ``h_dropout[t]*h[t-k]`` there. Elsewhere, as in ``(1 - u)*h[t-1]``, the state is not
    touched, or it would fade away. In the paper one mask serves all steps of a sequence: give it at each step.

    The inputs come after the cell's own, those of zoneout first, in the order of the states. Raises ValueError for a name that
    is no state, a state that starts at infinity or that no product reads, and an input whose name is taken.
    """
    zoned, dropped = _chosen(cell, zoneout, "zoneout"), _chosen(cell, state_dropout, "state_dropout")
    for state in zoned:
        if not math.isfinite(state.init):
            raise ValueError(f"zoneout of {state.name}: a state of {cell.name} that starts at {state.init} cannot be mixed")
    masks = {state.name: Input(f"{state.name}{ZONEOUT_SUFFIX}", state.shape) for state in zoned}
    drops = {state.name: Input(f"{state.name}{DROPOUT_SUFFIX}", state.shape) for state in dropped}
    for name in [item.name for item in (*masks.values(), *drops.values())] + [f"{name}{CANDIDATE_SUFFIX}" for name in masks]:
        if name in _names(cell):
            raise ValueError(f"{name!r} is needed for a mask or a candidate, but the cell {cell.name} has that name already")
    by_state = {s.name: drops[own] for s in cell.states if (own := s.lag_of[0] if s.lag_of else s.name) in drops}
    read: set[str] = set()
    equations = tuple(_equations(cell, masks, by_state, read))
    if unread := [name for name in drops if drops[name].name not in read]:
        raise ValueError(f"state_dropout of {', '.join(unread)}: no matrix of {cell.name} multiplies it")
    options = {"zoneout": tuple(masks), "state_dropout": tuple(drops)}
    text = ", ".join(f"{option}={names}" for option, names in options.items() if names)
    return replace(
        cell,
        sha256=hashlib.sha256(f"{cell.sha256}\n{text}".encode()).hexdigest(),
        inputs=(*cell.inputs, *masks.values(), *drops.values()),
        assignments=equations,
        made_by=f"cellspec.regularise({cell.made_by or _loaded(cell)}, {text})",
    )


def _loaded(cell: Cell) -> str:
    """The Python that loads the cell."""
    settings = f", {dict(cell.settings)}" if cell.settings else ""
    return f"cellspec.load({cell.name!r}{settings})"


def _chosen(cell: Cell, names: Collection[str], option: str) -> tuple[State, ...]:
    """The cell's own states of these names."""
    own = {state.name: state for state in cell.states if state.lag_of is None}
    if isinstance(names, str):
        raise TypeError(f"{option} must be names of states, such as ({names!r},), got a text")
    for name in names:
        if name not in own:
            raise ValueError(f"{option} of {name}: the cell {cell.name} has no such state; it has {', '.join(own)}")
    return tuple(state for name, state in own.items() if name in names)


def _names(cell: Cell) -> set[str]:
    """All names of a cell."""
    declared = {
        *(item.name for item in cell.inputs),
        *(item.name for item in cell.states),
        *(item.name for item in cell.params),
    }
    return declared | {equation.target.name for equation in cell.assignments} | set(cell.dims)


def _equations(cell: Cell, masks: Mapping[str, Input], drops: Mapping[str, Input], read: set[str]) -> Iterator[Equation]:
    """The equations with masks; ``read`` gets the masks that some product reads."""
    candidates: dict[str, Ref] = {}
    for equation in cell.assignments:
        target, value = equation.target, _reading(_dropped(equation.value, drops, read), candidates)
        if target.kind is not Kind.STATE or target.name not in masks:
            yield _written(cell, equation, target, value)
            continue
        candidate = candidates[target.name] = Ref(f"{target.name}{CANDIDATE_SUFFIX}", Kind.VALUE, value.shape)
        yield _written(cell, equation, candidate, value)
        yield _written(cell, equation, target, _mixed(target, candidate, masks[target.name]))


def _written(cell: Cell, equation: Equation, target: Ref, value: Node) -> Equation:
    """The equation, its text as it was if nothing has changed."""
    if target == equation.target and value == equation.value:
        return equation
    return replace(equation, target=target, value=value, text=equation_text(cell, target, value))


def _mask(stream: Input) -> Node:
    """What the equations read of a mask."""
    return StopGradient(Ref(stream.name, Kind.INPUT, stream.shape), stream.shape)


def _mixed(state: Ref, candidate: Ref, stream: Input) -> Node:
    """``m*c[t-1] + (1 - m)*c_new``."""
    mask, shape = _mask(stream), state.shape
    kept = Apply("mul", (mask, Ref(state.name, Kind.PREVIOUS, shape)), shape)
    fresh = Apply("mul", (Apply("sub", (Const(1), mask), shape), candidate), shape)
    return Apply("add", (kept, fresh), shape)


def _reading(node: Node, candidates: Mapping[str, Ref]) -> Node:
    """``node`` with the candidates in the place of new states."""
    if isinstance(node, Ref):
        return candidates.get(node.name, node) if node.kind is Kind.STATE else node
    return with_children(node, [_reading(child, candidates) for child in children(node)])


def _dropped(node: Node, drops: Mapping[str, Input], read: set[str], inside: bool = False) -> Node:
    """``node`` with masks on the earlier states that it reads ``inside`` the right side of a product."""
    match node:
        case Ref(name=name, kind=Kind.PREVIOUS, shape=shape) if inside and name in drops:
            read.add(drops[name].name)
            return Apply("mul", (_mask(drops[name]), node), shape)
        case MatMul(left=left, right=right):
            return replace(node, left=_dropped(left, drops, read, inside), right=_dropped(right, drops, read, True))
        case _:
            return with_children(node, [_dropped(child, drops, read, inside) for child in children(node)])
