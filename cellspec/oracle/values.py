"""The equations of a cell evaluated in float64, one step after the other.

Inside the oracle every value is an array with a leading batch axis, ``[B, *shape]``; parameters and constants have 1 there.
The inverse of a singular matrix is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy

from cellspec.cell import Cell
from cellspec.model.equations import Equation
from cellspec.model.nodes import (
    STEP_INDEX,
    Along,
    Apply,
    Concat,
    Const,
    DimValue,
    Eye,
    Inverse,
    Kind,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    Shape,
    StopGradient,
    Transpose,
    refs,
)
from cellspec.model.primitives import PRIMITIVES
from cellspec.oracle import along
from cellspec.oracle.masks import Masks
from cellspec.oracle.primitives import Array, Rule, rule

Numbers = npt.ArrayLike
Inputs = Mapping[str, Numbers]
"""The input streams by name, ``[T, B, *shape]``: a mapping also where there is one."""


@dataclass(frozen=True)
class Forward:
    """What the equations give.

    ``values``: every equation but the derived parameters', by the name on its left, ``[T, B, *shape]``.
    ``derived``: the derived parameters, with their own shapes. ``outputs``: the cell's outputs, ``[T, B, *shape]``.
    ``final``: the states after the last step, ``[B, *shape]``; the initial ones where ``T = 0``.
    """

    values: dict[str, Array]
    derived: dict[str, Array]
    outputs: dict[str, Array]
    final: dict[str, Array]


def size(extent: sympy.Expr, dims: Mapping[str, int]) -> int:
    """A dim expression as a number."""
    return _size(sympy.sympify(extent), tuple(dims.items()))


@cache  # SymPy takes long to substitute, and every step of every setting asks for the same few
def _size(extent: sympy.Expr, dims: tuple[tuple[str, int], ...]) -> int:
    numbers = dict(dims)
    return int(extent.subs({symbol: numbers[symbol.name] for symbol in extent.free_symbols}))


def sizes(shape: Shape, dims: Mapping[str, int]) -> tuple[int, ...]:
    """A shape as numbers."""
    return tuple(size(extent, dims) for extent in shape)


def streams(cell: Cell, x: Inputs) -> dict[str, Array]:
    """The input streams by name, in float64."""
    return {stream.name: np.asarray(x[stream.name], dtype=np.float64) for stream in cell.inputs}


def infer_dims(
    cell: Cell, params: Mapping[str, Numbers], x: Inputs, state: Mapping[str, Numbers] | None = None
) -> dict[str, int]:
    """The dims for which the given arrays have the declared shapes; ``ValueError`` where there are none."""
    pairs: list[tuple[sympy.Expr, int]] = []
    for param in cell.params:
        pairs += zip(param.shape, np.shape(params[param.name]), strict=True)
    for stream in cell.inputs:
        pairs += zip(stream.shape, np.shape(x[stream.name])[2:], strict=True)
    for one in cell.states if state is not None else ():
        pairs += zip(one.shape, np.shape((state or {})[one.name])[1:], strict=True)
    symbols = sorted({s for extent, _ in pairs for s in sympy.sympify(extent).free_symbols}, key=lambda s: str(s.name))
    equations = sorted({sympy.sympify(extent) - number for extent, number in pairs} - {sympy.Integer(0)}, key=str)
    solutions = sympy.solve(equations, symbols, dict=True) if symbols else [] if equations else [{}]
    for solution in solutions:
        found = {symbol.name: int(value) for symbol, value in solution.items() if value.is_Integer and value >= 0}
        if all(name in found for name in cell.dims if name in {s.name for s in symbols}):
            return found
    raise ValueError(f"no dims give the arrays of cell {cell.name!r} their declared shapes")


def lift(array: npt.NDArray[np.float64], lead: int, rank: int) -> Array:
    """Add axes of size 1 behind the ``lead`` first ones, so that ``rank`` axes follow these: shapes align from the right."""
    missing = rank - (array.ndim - lead)
    return array.reshape(array.shape[:lead] + (1,) * missing + array.shape[lead:])


def constant(node: Node, dims: Mapping[str, int]) -> sympy.Expr | None:
    """The exact value of a number that reads no variable, or None."""
    match node:
        case Const(value=value):
            return sympy.Rational(value) if np.isfinite(value) else None
        case DimValue(value=value):
            return sympy.Integer(size(value, dims))
        case Apply(function=function, args=args, shape=()):
            numbers = [constant(arg, dims) for arg in args]
            return None if any(n is None for n in numbers) else PRIMITIVES[function].definition(*numbers)
        case _:
            return None


class Evaluator:
    """Evaluates nodes on the values of ``env``, a mapping from labels (``h[t-1]``, ``Wi``) to arrays ``[B, *shape]``."""

    def __init__(self, cell: Cell, dims: Mapping[str, int]) -> None:
        self.cell = cell
        self.dims = dims
        self.env: dict[str, Array] = {}
        self._sizes: dict[Shape, tuple[int, ...]] = {}
        self._rules: dict[int, Rule] = {}  # by the node's identity: the cell holds the nodes

    def __call__(self, node: Node) -> Array:
        """The value of ``node``, ``[B, *shape]``, with 1 for B where the node depends on no sample."""
        match node:
            case Const(value=value):
                return np.full((1,), value, dtype=np.float64)
            case DimValue(value=value):
                return np.full((1,), size(value, self.dims), dtype=np.float64)
            case Ref():
                return self.env[node.label]
            case Member(family=family, index=index):
                return self(family)[:, index]
            case Apply(args=args):
                return self.apply(node, self.aligned(args, len(node.shape)))
            case Along(function=function, args=args):
                return self.along(function, self.aligned(args, len(node.shape)))
            case MatMul(left=left, right=right):
                return multiply(self(left), self(right), len(left.shape), len(right.shape))
            case OuterProduct(left=left, right=right):
                return outer(self(left), self(right))
            case Transpose(operand=operand):
                return np.swapaxes(self(operand), -1, -2)
            case Inverse(operand=operand):
                return self.invert(self(operand))
            case Eye(shape=shape):
                return np.eye(sizes(shape, self.dims)[0])[None]
            case Concat(parts=parts):
                return join(self.aligned(parts, len(node.shape)))
            case Roll(operand=operand, shift=shift):
                return np.roll(self(operand), shift, axis=-1)
            case StopGradient(operand=operand):
                return self(operand)

    def aligned(self, nodes: Sequence[Node], rank: int) -> list[Array]:
        """The values of ``nodes``, each with ``rank`` axes after the batch."""
        return [lift(self(node), 1, rank) for node in nodes]

    # A subclass may look on at these.

    def apply(self, node: Apply, args: Sequence[Array]) -> Array:
        """A primitive's value."""
        return self.rule_of(node).value(args)

    def along(self, function: str, args: Sequence[Array]) -> Array:
        """The value of a function along the last axis."""
        return along.value(function, args)

    def invert(self, matrix: Array) -> Array:
        """The inverse of a matrix, NaN where there is none."""
        try:
            return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
        except np.linalg.LinAlgError:
            return np.full_like(matrix, np.nan)

    def rule_of(self, node: Apply) -> Rule:
        """The rule of the function that ``node`` applies."""
        if id(node) not in self._rules:
            exponent = constant(node.args[1], self.dims) if node.function == "pow" else None
            self._rules[id(node)] = rule(node.function, exponent)
        return self._rules[id(node)]

    def sizes(self, shape: Shape) -> tuple[int, ...]:
        """A shape as numbers; remembered, as every step asks again."""
        if shape not in self._sizes:
            self._sizes[shape] = sizes(shape, self.dims)
        return self._sizes[shape]

    def assign(self, equation: Equation, batch: int) -> None:
        """Evaluate ``equation`` and enter its target into ``env``, with the target's full shape."""
        shape = (batch, *self.sizes(equation.target.shape))
        value = lift(self(equation.value), 1, len(shape) - 1)
        self.env[equation.target.label] = value if value.shape == shape else np.broadcast_to(value, shape)


def multiply(left: Array, right: Array, left_rank: int, right_rank: int) -> Array:
    """``left @ right`` contracted over the last axis of ``left``; what stands before the ranks' axes broadcasts.

    ``[m, k] @ [k]``; ``[n, m, k] @ [k]``; ``[n, m, k] @ [n, k]``, head by head; ``[m, k] @ [k, p]`` and stacks of these.
    """
    if right_rank >= left_rank:
        product: Array = np.matmul(left, right)
        return product
    heads = right if right_rank + 1 == left_rank else right[..., None, :]
    product = np.matmul(left, heads[..., None])
    return product[..., 0]


def outer(left: Array, right: Array) -> Array:
    """``left[…, m]`` and ``right[…, n]`` give ``[…, m, n]``."""
    return left[..., :, None] * right[..., None, :]


def join(parts: Sequence[Array]) -> Array:
    """Concatenation along the last axis; the leading axes broadcast."""
    lead = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return np.concatenate([np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], axis=-1)


def initial_state(cell: Cell, dims: Mapping[str, int], batch: int, state: Mapping[str, Numbers] | None) -> dict[str, Array]:
    """The states before the first step, ``[B, *shape]``: those given, else the spec's initial values."""
    if state is not None:
        return {one.name: np.asarray(state[one.name], dtype=np.float64) for one in cell.states}
    return {one.name: np.full((batch, *sizes(one.shape, dims)), one.init, dtype=np.float64) for one in cell.states}


def previous(name: str) -> str:
    """The label of the state ``name`` before the step."""
    return Ref(name, Kind.PREVIOUS, ()).label


def earlier(cell: Cell) -> list[tuple[Ref, str, int]]:
    """What the equations read of states that hold several earlier values, with the state's name and the row of it."""
    return [(ref, cell.keeper(ref).name, ref.back - 1) for ref in cell.distant]


def moved_on(cell: Cell, now: Mapping[str, Any], join: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """The states after the step, of values by label; ``join(value, rows)`` puts a value in front of rows and drops the last."""
    after = {}
    for one in cell.states:
        if one.lag_of is None or not one.rows:
            after[one.name] = now[Ref(one.name, Kind.STATE, ()).label]
            continue
        kind = Kind.INPUT if any(one.lag_of[0] == stream.name for stream in cell.inputs) else Kind.PREVIOUS
        after[one.name] = join(now[Ref(one.lag_of[0], kind, ()).label], now[previous(one.name)])
    return after


def run(
    evaluator: Evaluator,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None,
    masks: Masks | None = None,
) -> Forward:
    """The whole sequence with ``evaluator``: see :func:`forward`."""
    cell, dims, env = evaluator.cell, evaluator.dims, evaluator.env
    inputs = streams(cell, x)
    steps, batch = next(iter(inputs.values())).shape[:2]
    for param in cell.params:
        env[param.name] = np.asarray(params[param.name], dtype=np.float64)[None]
    for equation in cell.assignments:
        if equation.target.kind is Kind.DERIVED:
            evaluator.assign(equation, 1)
    states = initial_state(cell, dims, batch, state)
    by_step = [equation for equation in cell.assignments if equation.target.kind is not Kind.DERIVED]
    values = {e.target.name: np.zeros((steps, batch, *sizes(e.target.shape, dims))) for e in by_step}
    first = initial_state(cell, dims, batch, None)
    for turn in (masks or Masks()).turns(steps, batch):
        for name, stream in inputs.items():
            env[Ref(name, Kind.INPUT, ()).label] = turn.read(stream)
        for name, value in states.items():
            env[previous(name)] = turn.before(value, first[name])
        for ref, name, row in earlier(cell):
            env[ref.label] = env[previous(name)][:, row]
        for equation in by_step:
            evaluator.assign(equation, batch)
            turn.write(values[equation.target.name], env[equation.target.label])
        after = moved_on(cell, env, lambda value, rows: np.concatenate((value[:, None], rows[:, :-1]), axis=1))
        states = {name: turn.after(value, states[name]) for name, value in after.items()}
    return Forward(
        values=values,
        derived={e.target.name: np.array(env[e.target.label][0]) for e in cell.assignments if e.target.kind is Kind.DERIVED},
        outputs={output.name: values[output.name] for output in cell.outputs},
        final={name: np.array(value) for name, value in states.items()},
    )


def forward(
    cell: Cell,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    masks: Masks | None = None,
) -> Forward:
    """Evaluate the equations over a sequence, in float64.

    ``params``: by name, with the declared shapes, families with their length in front. ``x``: by stream, ``[T, B, *shape]``.
    ``state``: by name, ``[B, *shape]``; None for the spec's initial values. ``dims`` are read off the arrays where they are not
    given. ``masks``: where samples end and begin anew; behind its end a sample's values are 0, and its state holds.
    ``ValueError`` if the shapes contradict.
    """
    return run(Evaluator(cell, dims or infer_dims(cell, params, x, state)), params, x, state, masks)


@dataclass(frozen=True)
class Probe:
    """An evaluation that looks out for arguments at which derivatives mean little.

    ``nearest``: how near any function comes to a kink, and 1/100 of how near it comes to a point where its derivative grows
    without bound, such as the 0 of a logarithm. ``condition``: the largest condition number of an inverted matrix.
    """

    forward: Forward
    nearest: float
    condition: float


class _Watch(Evaluator):
    """Notes what a :class:`Probe` tells."""

    def __init__(self, cell: Cell, dims: Mapping[str, int]) -> None:
        super().__init__(cell, dims)
        self.nearest = float("inf")
        self.condition = 1.0
        self.still = {previous(STEP_INDEX)}  # labels of what depends on the step's index at most: at a kink it stays there
        for equation in cell.assignments:
            if equation.target.kind is Kind.VALUE and not self.moves(equation.value):
                self.still.add(equation.target.label)

    def moves(self, node: Node) -> bool:
        """Whether ``node`` depends on anything that could be given another value."""
        return any(ref.label not in self.still for ref in refs(node))

    def apply(self, node: Apply, args: Sequence[Array]) -> Array:
        distance = self.rule_of(node).distance_to_kink(args)
        if distance < self.nearest and self.moves(node):
            self.nearest = distance
        return super().apply(node, args)

    def along(self, function: str, args: Sequence[Array]) -> Array:
        result = super().along(function, args)
        if function == "norm" and result.size:
            self.nearest = min(self.nearest, float(np.min(result)) / 100)
        return result

    def invert(self, matrix: Array) -> Array:
        result = super().invert(matrix)
        sizes = [np.linalg.norm(m, 2, axis=(-2, -1)).max() if np.isfinite(m).all() else np.inf for m in (matrix, result)]
        self.condition = max(self.condition, float(sizes[0] * sizes[1]))
        return result


def probe(
    cell: Cell,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None = None,
    *,
    dims: Mapping[str, int] | None = None,
) -> Probe:
    """:func:`forward`, and how near it comes to where derivatives jump or grow without bound."""
    watch = _Watch(cell, dims or infer_dims(cell, params, x, state))
    values = run(watch, params, x, state)
    return Probe(values, watch.nearest, watch.condition)
