"""What a spec claims of itself (``expect``), checked against what the compiler finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import sympy

from cellspec.cell import Cell
from cellspec.errors import Diagnostic, Location, Reporter, SpecError, did_you_mean
from cellspec.language.check.shapes import dim_polynomial
from cellspec.language.spec import Name
from cellspec.language.unparse import source
from cellspec.model.equations import Param
from cellspec.model.recurrence import parameter_count, recurrence, stages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STEPS = 200
WEIGHTS = (0.3, 3.0, 30.0)
"""Magnitudes of the random weights under which a bound must hold."""

INPUTS = (0.1, 1.0, 10.0)
"""Magnitudes of the random inputs; each is tried around zero, and around a random value that persists."""

SLACK = 1e-12
_DIMS = (3, 5, 7, 4, 2, 6)


def check_expect(cell: Cell) -> None:
    """Raise :class:`~cellspec.errors.SpecError` with every claim of ``cell.expect`` that does not hold."""
    found = [*_params(cell), *_recurrence(cell)]
    if cell.expect.bound:
        found += _bounds(cell)
    if found:
        raise SpecError(found)


def _params(cell: Cell) -> Iterator[Diagnostic]:
    """The formula for the number of trainable parameters."""
    formula = cell.expect.params
    if formula is None:
        return
    reporter = Reporter()
    whole = {name: value for name, value in cell.hyper if isinstance(value, int)}

    def resolve(name: Name) -> sympy.Expr | None:
        if name.id in cell.dims:
            return sympy.Symbol(name.id)
        if name.id in whole:
            return sympy.Integer(whole[name.id])
        reporter.error(name.at, f"unknown dim {name.id!r}{did_you_mean(name.id, cell.dims)}")
        return None

    expected = dim_polynomial(formula, resolve, reporter, fractions=True)
    yield from reporter.diagnostics
    count = parameter_count(cell)
    if expected is not None and sympy.expand(expected - count) != 0:
        yield Diagnostic(formula.at, f"expected {source(formula)} trainable parameters, but the cell has {count}")


def _recurrence(cell: Cell) -> Iterator[Diagnostic]:
    """The number of stages and the kind of recurrence."""
    if cell.expect.stages is not None:
        wanted, at = cell.expect.stages
        if (count := stages(cell)) != wanted:
            yield Diagnostic(at, f"expected {_plural(wanted, 'stage')}, but the cell has {count}")
    if cell.expect.recurrence is not None:
        claim, at = cell.expect.recurrence
        if (kind := recurrence(cell)) != claim:
            yield Diagnostic(at, f"expected recurrence {claim!r}, but it is {kind!r}")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _bounds(cell: Cell) -> Iterator[Diagnostic]:
    """Bounds on states and intermediates, tried on random sequences with small and large weights and inputs."""
    import numpy as np  # where no bound is claimed, checking needs no NumPy

    known = {equation.target.name: equation.target for equation in cell.assignments if equation.target.kind.value in _BOUNDED}
    open_claims: dict[str, tuple[float, Location]] = {}
    for name, bound, at in cell.expect.bound:
        if name in known:
            open_claims[name] = (bound, at)
        else:
            yield Diagnostic(at, f"bound on {name!r}, which is neither a state nor an intermediate{did_you_mean(name, known)}")
    for weights in WEIGHTS:
        if not open_claims:
            return
        values = _run(cell, weights, np.random.default_rng(0))
        for name, (bound, at) in list(open_claims.items()):
            sizes = np.abs(values[name]).reshape(STEPS, -1).max(axis=1, initial=0.0)
            beyond = np.flatnonzero(~(sizes <= bound + SLACK))  # a NaN is beyond any bound
            if beyond.size:
                step = int(beyond[0])
                del open_claims[name]
                reached = f"it is {sizes[step]:.6g} at step {step} with random weights of size {weights:g}"
                yield Diagnostic(at, f"expected |{name}| <= {bound:g}, but {reached}")


_BOUNDED = ("state", "intermediate")


def _run(cell: Cell, weights: float, rng: np.random.Generator) -> Mapping[str, npt.NDArray[np.float64]]:
    """The values of every equation over random sequences, from the spec's own initial state."""
    import numpy as np

    from cellspec import oracle
    from cellspec.oracle.values import sizes

    dims = dict(zip(cell.dims, _DIMS * (1 + len(cell.dims) // len(_DIMS)), strict=False))
    params = {param.name: _param(param, sizes(param.shape, dims), weights, rng) for param in cell.params}
    x = {}
    for stream in cell.inputs:
        shape = sizes(stream.shape, dims)
        parts = [
            scale * (middle * rng.normal(size=(1, 1, *shape)) + rng.normal(size=(STEPS, 1, *shape)))
            for scale in INPUTS
            for middle in (0.0, 2.0)
        ]
        x[stream.name] = np.concatenate(parts, axis=1)
    with np.errstate(all="ignore"):
        return oracle.forward(cell, params, x, dims=dims).values


def _param(param: Param, shape: tuple[int, ...], weights: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Random weights; a constant that is not trained keeps its value."""
    import numpy as np

    if not param.trainable and param.init.kind == "constant":
        return np.full(shape, param.init.numbers[0])
    return weights * rng.normal(size=shape)
