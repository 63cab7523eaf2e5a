"""Gradient 1: exact. The equations unrolled over scalars, every scalar equation differentiated by ``sympy.diff``, 50 digits.

:mod:`cellspec.oracle.scalars` writes each element of each equation as one expression, and SymPy differentiates it as a whole;
only from one equation to the next does the chain rule ``dL/du = sum over readers v of u of dL/dv * dv/du`` do the work, on
numbers with 50 digits. So nothing is shared with the dual numbers but the equations themselves. Meant for small dims: the work
grows with elements times operands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from cellspec.cell import Cell
from cellspec.model.nodes import Kind, Ref
from cellspec.oracle.primitives import Array
from cellspec.oracle.scalars import Block, Elements, Scalar, Writer, each, filled
from cellspec.oracle.values import Inputs, Numbers, earlier, infer_dims, initial_state, moved_on, previous, sizes, streams

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
        return filled(array.shape, lambda place: self.push(mpmath.mpf(float(array[place])), []))

    def read(self, positions: Elements) -> Array:
        """The values at ``positions``."""
        return np.array([float(self.values[p]) for p in positions.ravel()]).reshape(positions.shape)

    def compute(self, block: Block, env: dict[str, Elements]) -> None:
        """Evaluate an equation for one sample on the positions in ``env``, and enter its elements there."""

        def one(scalar: Scalar) -> int:
            reads = [env[label][element] for label, element in scalar.reads]
            value, *slopes = scalar.formula.evaluate([self.values[position] for position in reads])
            return self.push(mpmath.mpf(value), list(zip(reads, slopes, strict=True)))

        for label, scalars in block:
            env[label] = each(one, scalars)

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


def part(positions: Elements, *index: int) -> Elements:
    """``positions[index]``, an array also where that is a single element."""
    return np.asarray(positions[index], dtype=object)


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
    write = Writer(dims)
    derived = [write.block(e) for e in cell.assignments if e.target.kind is Kind.DERIVED]
    by_step = [write.block(e) for e in cell.assignments if e.target.kind is not Kind.DERIVED]
    with mpmath.workdps(DIGITS):
        tape = _Tape()
        shared = {p.name: tape.leaves(np.asarray(params[p.name], dtype=np.float64)) for p in cell.params}
        at_params = dict(shared)
        for block in derived:
            tape.compute(block, shared)
        at_x = {name: tape.leaves(stream) for name, stream in inputs.items()}
        at_start = {name: tape.leaves(value) for name, value in initial_state(cell, dims, batch, state).items()}
        at_final = {name: positions.copy() for name, positions in at_start.items()}
        at_outputs = {o.name: np.empty((steps, batch, *sizes(o.shape, dims)), dtype=object) for o in cell.outputs}
        for b in range(batch):
            now = {name: part(positions, b) for name, positions in at_start.items()}
            for t in range(steps):
                env = shared | {Ref(name, Kind.INPUT, ()).label: part(at_x[name], t, b) for name in inputs}
                env |= {previous(name): positions for name, positions in now.items()}
                env |= {ref.label: part(now[name], row) for ref, name, row in earlier(cell)}
                for block in by_step:
                    tape.compute(block, env)
                for output in cell.outputs:
                    at_outputs[output.name][t, b] = env[output.label][()]
                now = moved_on(cell, env, lambda value, rows: np.concatenate((value[None], rows[:-1])))
            for name, positions in now.items():
                at_final[name][b] = positions[()]
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
