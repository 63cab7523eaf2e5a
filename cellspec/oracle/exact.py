"""Gradient 1: exact. The equations unrolled over scalars, every scalar equation differentiated by ``sympy.diff``, 50 digits.

Each element of each equation is one scalar expression over the elements that it reads, with the definitions of all its
functions written out. SymPy differentiates it as a whole; only from one equation to the next does the chain rule
``dL/du = sum over readers v of u of dL/dv * dv/du`` do the work, on numbers with 50 digits. So nothing is shared with the dual
numbers but the equations themselves. Meant for small dims: the work grows with elements times operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import sympy

from cellspec.cell import (
    Apply,
    Cell,
    Concat,
    Const,
    DimValue,
    Equation,
    Eye,
    Kind,
    MatMul,
    Node,
    Ref,
    Roll,
    StopGradient,
    Transpose,
)
from cellspec.functions import PRIMITIVES
from cellspec.oracle.primitives import Array
from cellspec.oracle.values import Inputs, Numbers, constant, infer_dims, initial_state, previous, size, sizes, streams

Elements = npt.NDArray[np.object_]  # SymPy expressions, mpmath numbers, or positions on the tape

DIGITS = 50


@dataclass(frozen=True)
class Exact:
    """Results and gradients, rounded to float64 at the very end.

    ``outputs`` and ``final`` as in :class:`cellspec.oracle.Forward`; ``params``, ``x`` and ``state``: the gradients of
    ``<dy, y> + <dfinal, final>`` by name, each with the shape of what it belongs to.
    """

    outputs: dict[str, Array]
    final: dict[str, Array]
    params: dict[str, Array]
    x: dict[str, Array]
    state: dict[str, Array]


class Frozen(sympy.Function):  # type: ignore[misc]
    """The identity with derivative zero: ``stop_gradient``."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Zero, by its meaning."""
        return sympy.Integer(0)


@dataclass(frozen=True)
class _Scalar:
    """One element of an equation: the elements it reads, and a function from their values to value and derivatives."""

    reads: tuple[tuple[str, tuple[int, ...]], ...]
    evaluate: Callable[..., Sequence[Any]]


class _Symbolic:
    """Writes equations as scalar SymPy expressions, one symbol for each element of each name."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        self.dims = dims
        self.symbols: dict[tuple[str, tuple[int, ...]], sympy.Symbol] = {}

    def __call__(self, node: Node) -> Elements:
        """The elements of ``node`` as expressions, an object array of its shape."""
        match node:
            case Const(value=value):
                number = sympy.Rational(value) if np.isfinite(value) else sympy.oo if value > 0 else -sympy.oo
                return _filled((), lambda _: number)
            case DimValue(value=value):
                return _filled((), lambda _: sympy.Integer(size(value, self.dims)))
            case Ref():
                return _filled(sizes(node.shape, self.dims), lambda place: self._symbol(node.label, place))
            case Apply(function=function, args=args):
                folded = constant(args[1], self.dims) if function == "pow" else None
                operands = [self(arg) for arg in args] if folded is None else [self(args[0]), _filled((), lambda _: folded)]
                arrays = np.broadcast_arrays(*operands)
                build = PRIMITIVES[function].definition
                return _filled(arrays[0].shape, lambda place: build(*(array[place] for array in arrays)))
            case MatMul(left=left, right=right):
                return np.asarray(np.dot(self(left), self(right)), dtype=object)
            case Transpose(operand=operand):
                return self(operand).T
            case Eye(shape=shape):
                return _filled(sizes(shape, self.dims), lambda place: sympy.Integer(int(place[0] == place[1])))
            case Concat(parts=parts):
                return np.concatenate([self(part) for part in parts])
            case Roll(operand=operand, shift=shift):
                return np.roll(self(operand), shift)
            case StopGradient(operand=operand):
                inner = self(operand)
                return _filled(inner.shape, lambda place: Frozen(inner[place]))

    def _symbol(self, label: str, place: tuple[int, ...]) -> sympy.Symbol:
        return self.symbols.setdefault((label, place), sympy.Symbol(f"v{len(self.symbols)}"))

    def scalars(self, equation: Equation) -> Elements:
        """The equation's elements, differentiated by all that they read: an object array of :class:`_Scalar`."""
        shape = sizes(equation.target.shape, self.dims)
        right = np.broadcast_to(self(equation.value), shape)
        keys = {symbol: key for key, symbol in self.symbols.items()}

        def one(place: tuple[int, ...]) -> _Scalar:
            expression = sympy.sympify(right[place])
            reads = sorted(expression.free_symbols, key=lambda symbol: int(symbol.name[1:]))
            row = [expression, *(sympy.diff(expression, symbol) for symbol in reads)]
            modules = [{"_Floor": mpmath.floor, "Frozen": lambda value: value}, "mpmath"]
            return _Scalar(tuple(keys[s] for s in reads), sympy.lambdify(reads, row, modules=modules, cse=True))

        return _filled(shape, one)


def _filled(shape: tuple[int, ...], element: Callable[[tuple[int, ...]], Any]) -> Elements:
    """An object array made of ``element(place)``."""
    array = np.empty(shape, dtype=object)
    for place in np.ndindex(*shape):
        array[place] = element(place)
    return array


class _Tape:
    """Numbers in the order in which they were computed, each with the local derivatives by those it was computed from."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.locals: list[list[tuple[int, Any]]] = []

    def push(self, value: Any, local: list[tuple[int, Any]]) -> int:
        self.values.append(value)
        self.locals.append(local)
        return len(self.values) - 1

    def leaves(self, array: Array) -> Elements:
        """Positions of the elements of ``array``, entered as independent variables."""
        return _filled(array.shape, lambda place: self.push(mpmath.mpf(float(array[place])), []))

    def read(self, positions: Elements) -> Array:
        """The values at ``positions``."""
        return np.array([float(self.values[p]) for p in positions.ravel()]).reshape(positions.shape)

    def compute(self, scalars: Elements, env: Mapping[str, Elements]) -> Elements:
        """Evaluate an equation for one sample on the positions in ``env``, and enter its elements."""

        def one(place: tuple[int, ...]) -> int:
            scalar = scalars[place]
            reads = [env[label][element] for label, element in scalar.reads]
            value, *slopes = scalar.evaluate(*(self.values[position] for position in reads))
            return self.push(mpmath.mpf(value), list(zip(reads, slopes, strict=True)))

        return _filled(scalars.shape, one)

    def sweep(self, seeds: Sequence[tuple[Elements, Array]]) -> list[Any]:
        """The gradient of ``sum <seed, value>`` by every number on the tape."""
        gradient: list[Any] = [mpmath.mpf(0)] * len(self.values)
        for positions, cotangent in seeds:
            for place in np.ndindex(*positions.shape):
                gradient[positions[place]] += mpmath.mpf(float(cotangent[place]))
        for position in reversed(range(len(self.values))):
            for read, slope in self.locals[position]:
                gradient[read] += gradient[position] * slope
        return gradient


def exact_gradients(
    cell: Cell,
    params: Mapping[str, Numbers],
    x: Inputs,
    state: Mapping[str, Numbers] | None,
    dy: Mapping[str, Numbers],
    dfinal: Mapping[str, Numbers],
    *,
    dims: Mapping[str, int] | None = None,
) -> Exact:
    """The exact gradients of ``<dy, y> + <dfinal, final>``, by every parameter, input and initial state.

    Arguments as for :func:`cellspec.oracle.forward`; ``dy``: by output, ``[T, B, *shape]``; ``dfinal``: by state,
    ``[B, *shape]``. Parameters that are not trainable have gradient zero by convention.
    """
    dims = dims or infer_dims(cell, params, x, state)
    inputs = streams(cell, x)
    steps, batch = next(iter(inputs.values())).shape[:2]
    write = _Symbolic(dims)
    derived = [(e.target, write.scalars(e)) for e in cell.assignments if e.target.kind is Kind.DERIVED]
    by_step = [(e.target, write.scalars(e)) for e in cell.assignments if e.target.kind is not Kind.DERIVED]
    with mpmath.workdps(DIGITS):
        tape = _Tape()
        shared = {p.name: tape.leaves(np.asarray(params[p.name], dtype=np.float64)) for p in cell.params}
        at_params = dict(shared)
        for target, scalars in derived:
            shared[target.label] = tape.compute(scalars, shared)
        at_x = {name: tape.leaves(stream) for name, stream in inputs.items()}
        at_start = {name: tape.leaves(value) for name, value in initial_state(cell, dims, batch, state).items()}
        at_final = {name: positions.copy() for name, positions in at_start.items()}
        at_outputs = {o.name: np.empty((steps, batch, *sizes(o.shape, dims)), dtype=object) for o in cell.outputs}
        for b in range(batch):
            now = {name: positions[b] for name, positions in at_start.items()}
            for t in range(steps):
                env = shared | {Ref(name, Kind.INPUT, ()).label: at_x[name][t, b] for name in inputs}
                env |= {previous(name): positions for name, positions in now.items()}
                for target, scalars in by_step:
                    env[target.label] = tape.compute(scalars, env)
                for output in cell.outputs:
                    at_outputs[output.name][t, b] = env[output.label]
                now = {one.name: env[Ref(one.name, Kind.STATE, ()).label] for one in cell.states}
            for name, positions in now.items():
                at_final[name][b] = positions
        seeds = [(at, np.asarray(dy[name], dtype=np.float64)) for name, at in at_outputs.items()]
        seeds += [(at, np.asarray(dfinal[name], dtype=np.float64)) for name, at in at_final.items()]
        gradient = tape.sweep(seeds)

    def collect(positions: Elements) -> Array:
        return np.array([float(gradient[p]) for p in positions.ravel()]).reshape(positions.shape)

    trainable = {param.name: param.trainable for param in cell.params}
    return Exact(
        outputs={name: tape.read(at) for name, at in at_outputs.items()},
        final={name: tape.read(at) for name, at in at_final.items()},
        params={name: collect(at) if trainable[name] else np.zeros(at.shape) for name, at in at_params.items()},
        x={name: collect(at) for name, at in at_x.items()},
        state={name: collect(at) for name, at in at_start.items()},
    )
