"""What the equations say about one call: results, J·v, exact gradients, and how far rounding may move each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np

from cellspec import oracle
from cellspec.cell import Cell
from cellspec.oracle.values import sizes
from cellspec.verification.comparison import Array
from cellspec.verification.sampling import Sample

DRAWS = 4
"""Rounded evaluations."""

FACTOR = 4.0
"""A fifth draw may go farther than four did; where numbers are no more than noise, several times as far."""

DIRECTIONS = 2
"""Random directions for each parameter, input and initial state."""


class Expected:
    """The oracle's answers about the call ``drawn``, computed when first asked for.

    *Invariant*: what a module may be off by follows from the equations, the arguments and the dtype, never from what the module
    has computed; so a right one passes however ill conditioned a quantity is, and a wrong one gains nothing where it is not.
    """

    def __init__(self, cell: Cell, drawn: Sample, masks: oracle.Masks | None = None) -> None:
        self.cell, self.drawn, self.masks = cell, drawn, masks
        self.shapes = dict(gradient_shapes(cell, drawn))
        self.fixed = frozenset(f"d {param.name}" for param in cell.params if not param.trainable)
        self.moving = [name for name in self.shapes if name not in self.fixed]

    @cached_property
    def results(self) -> oracle.Forward:
        """Every value, output and final state."""
        drawn = self.drawn
        known: tuple[Cell, oracle.Forward] | None = drawn.memory.get("results")  # computed when the arguments were drawn
        if known is not None and known[0] is self.cell and self.masks is None:
            return known[1]
        return oracle.forward(self.cell, drawn.params, drawn.x, drawn.state, dims=drawn.dims, masks=self.masks)

    @cached_property
    def results_spread(self) -> oracle.Forward:
        """How far each number of :attr:`results` moves."""
        drawn = self.drawn
        others = [
            oracle.rounded_forward(self.cell, drawn.params, drawn.x, drawn.state, rounding, dims=drawn.dims, masks=self.masks)
            for rounding in self._roundings()
        ]

        def spread(part: Callable[[oracle.Forward], dict[str, Array]]) -> dict[str, Array]:
            here, there = part(self.results), [part(other) for other in others]
            return {name: _spread(array, [other[name] for other in there]) for name, array in here.items()}

        return oracle.Forward(
            spread(lambda f: f.values), spread(lambda f: f.derived), spread(lambda f: f.outputs), spread(lambda f: f.final)
        )

    def spread(self, kind: str, name: str) -> Array:
        """How far one of the ``values``, ``derived``, ``outputs``, or states (``final``) may be off."""
        return _allowed(getattr(self.results_spread, kind)[name])

    @cached_property
    def directions(self) -> dict[str, Array]:
        """Directions ``[K, …]`` for each gradient's quantity, of which each has ``DIRECTIONS`` of the K to itself."""
        count = DIRECTIONS * len(self.moving)
        found = {}
        for k, name in enumerate(self.moving):
            found[name] = np.zeros((count, *self.shapes[name]))
            found[name][self.own(name, k)] = self.drawn.rng.normal(size=(DIRECTIONS, *self.shapes[name]))
        return found

    def own(self, name: str, k: int | None = None) -> slice:
        """Which of the directions move the quantity ``name``."""
        k = self.moving.index(name) if k is None else k
        return slice(k * DIRECTIONS, (k + 1) * DIRECTIONS)

    @cached_property
    def pairings(self) -> Array:
        """``⟨ȳ, J v⟩`` for each direction."""
        drawn, tangents = self.drawn, self._tangents(self.directions)
        moved = oracle.jvp(self.cell, drawn.params, drawn.x, drawn.state, tangents, dims=drawn.dims, masks=self.masks)
        return self._paired(moved.outputs, moved.final, DIRECTIONS * len(self.moving))

    @cached_property
    def pairings_spread(self) -> Array:
        """How far each of :attr:`pairings` moves."""
        return _spread(self.pairings, list(self._rounded_pairings(self.directions)))

    def pairing_spread(self, name: str) -> Array:
        """The same for the directions of one quantity."""
        return _allowed(self.pairings_spread[self.own(name)])

    @cached_property
    def exact(self) -> oracle.Exact:
        """Results and gradients in 50 digits, rounded once."""
        drawn = self.drawn
        return oracle.exact_gradients(self.cell, drawn.params, drawn.x, drawn.state, drawn.dy, drawn.dfinal, dims=drawn.dims)

    @cached_property
    def exact_by_name(self) -> dict[str, Array]:
        """The exact gradients by the names used in reports."""
        found = {f"d {name}": array for name, array in (self.exact.params | self.exact.x).items()}
        return found | {f"d {name}[0]": array for name, array in self.exact.state.items()}

    @cached_property
    def exact_spread(self) -> dict[str, Array]:
        """How far each element of each exact gradient moves: a direction for each."""
        ends = np.cumsum([int(np.prod(self.shapes[name])) for name in self.moving])
        every, units = np.eye(ends[-1]), {}
        for name, columns in zip(self.moving, np.split(every, ends[:-1], axis=1), strict=True):
            units[name] = columns.reshape(len(every), *self.shapes[name])
        flat = np.concatenate([self.exact_by_name[name].ravel() for name in self.moving])
        spread = np.split(_spread(flat, list(self._rounded_pairings(units))), ends[:-1])
        pairs = zip(self.moving, spread, strict=True)
        nothing = {name: np.zeros(self.shapes[name]) for name in self.fixed}
        return nothing | {name: part.reshape(self.shapes[name]) for name, part in pairs}

    def gradient_spread(self, name: str) -> Array:
        """The same for one gradient."""
        return _allowed(self.exact_spread[name])

    def _roundings(self) -> Iterator[oracle.Rounding]:
        """Always the same ones: what is allowed does not depend on when it is asked for."""
        for seed in range(DRAWS):
            yield oracle.Rounding(self.drawn.dtype, np.random.default_rng(seed))

    def _rounded_pairings(self, directions: Mapping[str, Array]) -> Iterator[Array]:
        drawn, tangents = self.drawn, self._tangents(directions)
        count = len(next(iter(directions.values())))
        for rounding in self._roundings():
            moved = oracle.rounded_jvp(
                self.cell, drawn.params, drawn.x, drawn.state, tangents, rounding, dims=drawn.dims, masks=self.masks
            )
            yield self._paired(moved.outputs, moved.final, count)

    def _tangents(self, directions: Mapping[str, Array]) -> oracle.Tangents:
        cell = self.cell
        return oracle.Tangents(
            params={p.name: directions[f"d {p.name}"] for p in cell.params if f"d {p.name}" in directions},
            x={s.name: directions[f"d {s.name}"] for s in cell.inputs},
            state={s.name: directions[f"d {s.name}[0]"] for s in cell.states},
        )

    def _paired(self, outputs: Mapping[str, Array], final: Mapping[str, Array], count: int) -> Array:
        total = np.zeros(count)
        with np.errstate(all="ignore"):
            for name, array in outputs.items():
                total += (array * self.drawn.dy[name]).reshape(count, -1).sum(axis=1)
            for name, array in final.items():
                total += (array * self.drawn.dfinal[name]).reshape(count, -1).sum(axis=1)
        return total


def expected(cell: Cell, drawn: Sample) -> Expected:
    """What is expected of a call; remembered with the call, as many modules may be tried on one."""
    found = drawn.memory.get(id(cell))
    if found is None:
        found = drawn.memory[id(cell)] = Expected(cell, drawn)
    return found


def gradient_shapes(cell: Cell, drawn: Sample) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every gradient that the cell has, by the name used in reports, with its shape."""
    for param in cell.params:
        yield f"d {param.name}", sizes(param.shape, drawn.dims)
    for stream in cell.inputs:
        yield f"d {stream.name}", (drawn.steps, drawn.batch, *sizes(stream.shape, drawn.dims))
    for state in cell.states:
        yield f"d {state.name}[0]", (drawn.batch, *sizes(state.shape, drawn.dims))


def _allowed(spread: Array) -> Array:
    """``FACTOR`` times the largest spread in an array, for each of its elements; infinite where it is infinite."""
    lost = np.isinf(spread)
    return np.where(lost, np.inf, FACTOR * np.max(spread, initial=0.0, where=~lost))


def _spread(here: Array, others: list[Array]) -> Array:
    """The largest distance from ``here``, element by element; infinite where any of ``others`` is no number."""
    with np.errstate(all="ignore"):
        distances = [np.where(other == here, 0.0, np.abs(other - here)) for other in others]
        farthest: Array = np.where(np.isnan(distances), np.inf, distances).max(axis=0)
        return farthest
