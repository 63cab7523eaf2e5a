"""Gradient 2: dual numbers. A value and its tangents along several directions at once, carried through the equations.

A tangent is an array ``[K, B, *shape]`` for K directions, or None where it is zero. Values are evaluated as in
:mod:`cellspec.oracle.values`; partial derivatives are ``sympy.diff`` of the primitives' definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cellspec.cell import Cell
from cellspec.model.equations import Equation
from cellspec.model.nodes import Along, Apply, Concat, Inverse, Kind, MatMul, Member, Node, OuterProduct, Ref, Roll, Transpose
from cellspec.oracle import along
from cellspec.oracle.masks import Masks
from cellspec.oracle.primitives import Array
from cellspec.oracle.values import (
    Evaluator,
    Inputs,
    Numbers,
    earlier,
    infer_dims,
    initial_state,
    join,
    lift,
    moved_on,
    multiply,
    outer,
    previous,
    sizes,
    streams,
)


@dataclass(frozen=True)
class Tangents:
    """Directions ``[K, …]`` for each part of a cell's arguments, by name; what is left out has tangent zero.

    ``params``: ``[K, *shape]``. ``x``: by stream, ``[K, T, B, *shape]``. ``state``: ``[K, B, *shape]``.
    """

    params: Mapping[str, Array] = field(default_factory=dict)
    x: Mapping[str, Array] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)


class Duals(Evaluator):
    """An evaluator that can also differentiate a node, given tangents by label."""

    def __init__(self, cell: Cell, dims: Mapping[str, int]) -> None:
        super().__init__(cell, dims)
        self.tangents: dict[str, Array | None] = {}
        self._known: dict[int, Array] = {}  # of the equation at work, by the node's identity: tangents ask for values again

    def __call__(self, node: Node) -> Array:
        if id(node) not in self._known:
            self._known[id(node)] = super().__call__(node)
        return self._known[id(node)]

    def tangent(self, node: Node) -> Array | None:
        """The tangents of ``node``, ``[K, B, *shape]``, any of these axes 1 where it does not matter; None for zero."""
        match node:
            case Ref():
                return self.tangents.get(node.label)
            case Apply():
                return self._apply(node)
            case Member(family=family, index=index):
                inner = self.tangent(family)
                return None if inner is None else inner[:, :, index]
            case Along(function=function, args=args):
                rank = len(node.shape)
                moved = [None if d is None else lift(d, 2, rank) for d in map(self.tangent, args)]
                return along.tangent(function, [value[None] for value in self.aligned(args, rank)], moved)
            case MatMul(left=left, right=right):
                ranks = len(left.shape), len(right.shape)
                return self._bilinear(left, right, lambda a, b: multiply(a, b, *ranks))
            case OuterProduct(left=left, right=right):
                return self._bilinear(left, right, outer)
            case Transpose(operand=operand):
                inner = self.tangent(operand)
                return None if inner is None else np.swapaxes(inner, -1, -2)
            case Inverse(operand=operand):
                inner = self.tangent(operand)
                inverse = self(node)[None]
                return None if inner is None else -inverse @ inner @ inverse
            case Concat(parts=parts):
                inners = [self.tangent(part) for part in parts]
                if all(inner is None for inner in inners):
                    return None
                rank = len(node.shape)
                pairs = zip(self.aligned(parts, rank), inners, strict=True)
                return join([np.zeros_like(part)[None] if inner is None else lift(inner, 2, rank) for part, inner in pairs])
            case Roll(operand=operand, shift=shift):
                inner = self.tangent(operand)
                return None if inner is None else np.roll(inner, shift, axis=-1)
            case _:  # constants, and StopGradient by its meaning
                return None

    def _bilinear(self, left: Node, right: Node, product: Callable[[Array, Array], Array]) -> Array | None:
        """The product rule."""
        d_left, d_right = self.tangent(left), self.tangent(right)
        first = None if d_left is None else product(d_left, self(right)[None])
        second = None if d_right is None else product(self(left)[None], d_right)
        return second if first is None else first if second is None else first + second

    def _apply(self, node: Apply) -> Array | None:
        """The chain rule for a primitive: the sum over its arguments of partial derivative times tangent."""
        rank = len(node.shape)
        function = self.rule_of(node)
        args = [lift(self(arg), 1, rank) for arg in node.args]
        total: Array | None = None
        for partial, arg in zip(function.partials, node.args, strict=True):
            inner = None if partial.expression == 0 else self.tangent(arg)
            if inner is not None:
                term = self.slope(node, partial(args))[None] * lift(inner, 2, rank)
                total = term if total is None else total + term
        return total

    def slope(self, node: Apply, value: Array) -> Array:
        """A partial derivative of ``node``, whose value is ``value``."""
        return value

    def assign(self, equation: Equation, batch: int) -> None:
        """Evaluate ``equation`` and its tangents, and enter both for its target."""
        self._known.clear()
        inner = self.tangent(equation.value)
        if inner is not None:
            shape = self.sizes(equation.target.shape)
            inner = np.broadcast_to(lift(inner, 2, len(shape)), (inner.shape[0], batch, *shape))
        self.tangents[equation.target.label] = inner
        super().assign(equation, batch)


def _in_front(value: Array | None, rows: Array) -> Array:
    """Tangents of rows, [K, B, R, *shape], with those of ``value`` in front and without the last."""
    new = np.zeros_like(rows[:, :, :1]) if value is None else value[:, :, None]
    return np.concatenate((new, rows[:, :, :-1]), axis=2)


@dataclass(frozen=True)
class Moved:
    """Tangents of the results: ``outputs`` by name ``[K, T, B, *shape]``, ``final`` by state ``[K, B, *shape]``."""

    outputs: dict[str, Array]
    final: dict[str, Array]


def jvp(
    cell: Cell,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None,
    tangents: Tangents,
    *,
    dims: Mapping[str, int] | None = None,
    masks: Masks | None = None,
) -> Moved:
    """J·v for K directions v at once: how outputs and final states move with parameters, inputs and initial states.

    Arguments as for :func:`cellspec.oracle.forward`. Parameters move in the directions given also where a spec calls them
    not trainable: that is a convention about gradients, not a fact about derivatives.
    """
    return carry(Duals(cell, dims or infer_dims(cell, params, x, state)), params, x, state, tangents, masks)


def carry(
    evaluator: Duals,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None,
    tangents: Tangents,
    masks: Masks | None = None,
) -> Moved:
    """The whole sequence with ``evaluator``: see :func:`jvp`."""
    cell, dims, env = evaluator.cell, evaluator.dims, evaluator.env
    count = next(len(v) for part in (tangents.params, tangents.x, tangents.state) for v in part.values())
    inputs = streams(cell, x)
    steps, batch = next(iter(inputs.values())).shape[:2]
    for param in cell.params:
        env[param.name] = np.asarray(params[param.name], dtype=np.float64)[None]
        evaluator.tangents[param.name] = tangents.params[param.name][:, None] if param.name in tangents.params else None
    for equation in cell.assignments:
        if equation.target.kind is Kind.DERIVED:
            evaluator.assign(equation, 1)
    states = initial_state(cell, dims, batch, state)
    d_states = {one.name: tangents.state.get(one.name) for one in cell.states}
    for one in cell.states:
        if one.rows and d_states[one.name] is None:
            d_states[one.name] = np.zeros((count, *states[one.name].shape))
    outputs = {output.name: np.zeros((count, steps, batch, *sizes(output.shape, dims))) for output in cell.outputs}
    first = initial_state(cell, dims, batch, None)
    for turn in (masks or Masks()).turns(steps, batch):
        for name, stream in inputs.items():
            label = Ref(name, Kind.INPUT, ()).label
            env[label] = turn.read(stream)
            evaluator.tangents[label] = turn.read(tangents.x[name], 1) if name in tangents.x else None
        for name, value in states.items():
            moved = d_states[name]
            env[previous(name)] = turn.before(value, first[name])
            evaluator.tangents[previous(name)] = None if moved is None else turn.before(moved, np.zeros(()), 1)
        for ref, name, row in earlier(cell):
            moved = evaluator.tangents[previous(name)]
            env[ref.label] = env[previous(name)][:, row]
            evaluator.tangents[ref.label] = None if moved is None else moved[:, :, row]
        for equation in cell.assignments:
            if equation.target.kind is not Kind.DERIVED:
                evaluator.assign(equation, batch)
        after = moved_on(cell, env, lambda value, rows: np.concatenate((value[:, None], rows[:, :-1]), axis=1))
        d_after = moved_on(cell, evaluator.tangents, _in_front)
        for output in cell.outputs:
            moved = evaluator.tangents[output.label]
            if moved is not None:
                turn.write(outputs[output.name], moved, 1)
        for one in cell.states:
            moved, held = d_after[one.name], d_states[one.name]
            if moved is not None or held is not None:
                zero = np.zeros((count, *states[one.name].shape))
                moved, held = zero if moved is None else moved + zero, zero if held is None else held
                d_states[one.name] = turn.after(moved, held, 1)
            states[one.name] = turn.after(after[one.name], states[one.name])
    final = {}
    for name, value in states.items():
        moved = d_states[name]
        final[name] = np.zeros((count, *value.shape)) + (0.0 if moved is None else moved)
    return Moved(outputs, final)
