"""Generated code against the source equations: forward, step, trace, and every gradient, on random inputs.

The list of what is compared comes from the :class:`~cellspec.cell.Cell`: a gradient that the module does not give is an error,
and so is one too many.

**float64**: every error is at most 1e-11, relative to the largest magnitude of the array compared.

**float32**: at most ``16 * eps * (T + 1) * sqrt(K + T*B)`` with ``eps = 2**-23``. A sum of ``n`` rounded terms is off by about
``sqrt(n) * eps`` relative to its terms; ``K`` is the longest row of a parameter or value, ``T*B`` the number of terms in a
parameter's gradient; the error of a step is passed on to each of the ``T`` later ones; 16 covers the functions and products in
a step. Inputs are drawn as float32 numbers, so both sides start from the same values.

A small array among larger ones is compared relative to a part of the largest: 1/1000 in float64, 1/10 in float32. It is made of
the larger ones, with their rounding errors: a gate's slope ``y*(1 - y)`` is off by ``eps`` however small it is. The largest is
taken over the values of the step and 1, for gradients over the gradients and the upstream cotangents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from cellspec import oracle
from cellspec.backends.dims import other_dims
from cellspec.cell import Cell
from cellspec.oracle.values import sizes
from cellspec.sampling import Sample, pack, sample

Array = npt.NDArray[Any]

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)
PADDED = 50
"""Steps of a call whose samples have a few."""

FLOAT64_TOLERANCE = 1e-11
FLOORS = {"float64": 1e-3, "float32": 1e-1}


@dataclass(frozen=True)
class Row:
    """One comparison: what, in which setting, the worst relative error, and the error allowed."""

    quantity: str
    setting: str
    dtype: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; a NaN is not."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """All the comparisons of one module; ``faults`` are sentences on what is missing or misshapen.

    ``seed`` is -1 where the arguments were given.
    """

    cell: str
    seed: int
    rows: tuple[Row, ...]
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was there and within its tolerance."""
        return not self.faults and bool(self.rows) and all(row.ok for row in self.rows)

    def worst(self) -> tuple[Row, ...]:
        """For each quantity and dtype the row that comes nearest its tolerance, or exceeds it most."""
        found: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            key = (row.quantity, row.dtype)
            if key not in found or not _ratio(row) <= _ratio(found[key]):
                found[key] = row
        return tuple(found.values())

    def __str__(self) -> str:
        """The failures, one a line; or one line that says there are none."""
        bad = [f"{r.quantity} ({r.setting}, {r.dtype}): error {r.error:.1e} > {r.tolerance:.1e}" for r in self.rows if not r.ok]
        lines = [*self.faults, *bad] or [f"{len(self.rows)} comparisons, all within tolerance"]
        seed = f", seed {self.seed}" if self.seed >= 0 else ""
        return "\n".join([f"{self.cell}{seed}:", *lines])


def _ratio(row: Row) -> float:
    if not row.error <= row.tolerance:
        return row.error / row.tolerance if row.tolerance and math.isfinite(row.error) else math.inf
    return row.error / row.tolerance if row.tolerance else 0.0


@dataclass
class _Log:
    """Rows and faults as they come."""

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def compare(
        self, group: Mapping[str, tuple[Array, Array]], setting: str, dtype: Any, tolerance: float, around: float = 1.0
    ) -> None:
        """Compare ``(got, expected)`` for each quantity of a group; shapes and dtypes must be right as well.

        ``around`` is the magnitude of what the group was made from.
        """
        largest = max((_largest(expected) for _, expected in group.values()), default=0.0)
        floor = FLOORS[np.dtype(dtype).name] * max(largest, around)
        for quantity, (got, expected) in group.items():
            got = np.asarray(got)
            if got.shape != np.shape(expected) or got.dtype != dtype:
                wanted = f"{np.dtype(dtype).name}{np.shape(expected)}"
                self.faults.append(f"{quantity} ({setting}) is {got.dtype}{got.shape}, not {wanted}")
                continue
            scale = max(_largest(expected), floor, 1e-300)
            with np.errstate(invalid="ignore"):  # where both are the same infinity there is no difference
                difference = np.where(got == expected, 0.0, np.abs(got.astype(np.float64) - expected))
            error = float(np.max(difference, initial=0.0)) / scale
            self.rows.append(Row(quantity, setting, np.dtype(dtype).name, error, tolerance))


def _largest(array: Array) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(np.max(finite, initial=0.0))


def verify(
    cell: Cell, module: ModuleType, *, seed: int = 0, dtypes: Sequence[Any] = (np.float64, np.float32), exact: bool = True
) -> Report:
    """Compare ``module``, generated from ``cell``, with the equations of ``cell``.

    Settings: all dims distinct (T=3, B=2, dims 5, 7, 11, …) and larger (T=9, B=4, dims 17, 19, …); T=1; B=1; all dims 1; T=0;
    the spec's own initial state; lengths and resets, forwards and in reverse; lengths alone, with many steps of NaN behind the
    ends. Every step and the final state have upstream gradients. ``exact`` adds the exact gradients at dims 2, 3, …. What the
    module raises is passed on. Nothing is printed.
    """
    log = _Log()
    _check_fields(cell, module, log)
    if log.faults:
        return Report(cell.name, seed, (), tuple(log.faults))
    for dtype in dtypes:
        rng = np.random.default_rng(seed)
        for setting, steps, batch, primes in (
            ("T=3 B=2", 3, 2, PRIMES),
            ("T=9 B=4", 9, 4, PRIMES[4:] + PRIMES[:4]),
            ("T=1", 1, 3, PRIMES[1:]),
            ("B=1", 4, 1, PRIMES[1:]),
            ("dims 1", 3, 2, (1,) * 8),
            ("T=0", 0, 2, PRIMES),
        ):
            drawn = sample(cell, dict(zip(cell.dims, primes, strict=False)), steps, batch, rng, dtype)
            _check(cell, module, drawn, setting, log)
        drawn = sample(cell, dict(zip(cell.dims, PRIMES, strict=False)), 3, 2, rng, dtype, default_state=True)
        _check(cell, module, drawn, "default state", log)
        for reverse in (False, True) if dtype == np.float64 else (True,):
            drawn = sample(cell, dict(zip(cell.dims, PRIMES, strict=False)), 4, 4, rng, dtype)
            _check_masked(cell, module, drawn, reverse, log)
        _check_padded(cell, module, drawn, log)
        if exact:
            drawn = sample(cell, dict(zip(cell.dims, (2, 3, 4, 5, 6, 7, 8, 9), strict=False)), 3, 1, rng, dtype)
            _check_exact(cell, module, drawn, log)
    return Report(cell.name, seed, tuple(log.rows), tuple(log.faults))


def verify_sample(cell: Cell, module: ModuleType, drawn: Sample, setting: str = "given") -> Report:
    """The comparisons of :func:`verify` for one given call."""
    log = _Log()
    _check(cell, module, drawn, setting, log)
    return Report(cell.name, -1, tuple(log.rows), tuple(log.faults))


def _check_fields(cell: Cell, module: Any, log: _Log) -> None:
    """The fields of Params and State must be those of the cell, in its order; of Inputs and Outputs where there are several."""
    expected = {"Params": [p.name for p in cell.params], "State": [s.name for s in cell.states]}
    several = {"Inputs": [i.name for i in cell.inputs], "Outputs": [o.name for o in cell.outputs]}
    for kind, names in (expected | {kind: names for kind, names in several.items() if len(names) > 1}).items():
        if not hasattr(module, kind):
            log.faults.append(f"the module has no {kind}; the cell has {', '.join(names)}")
            continue
        fields = list(getattr(module, kind)._fields)
        if fields != names:
            log.faults.append(f"the fields of {kind} are {', '.join(fields)}; the cell has {', '.join(names)}")


def tolerance(cell: Cell, drawn: Sample) -> float:
    """The relative error allowed: see the module's docstring."""
    if drawn.dtype == np.float64:
        return FLOAT64_TOLERANCE
    shapes = [p.shape for p in cell.params] + [i.shape for i in cell.inputs] + [e.target.shape for e in cell.assignments]
    longest = max((sizes(shape[-1:], drawn.dims)[0] for shape in shapes if shape), default=1)
    return 16 * 2.0**-23 * (drawn.steps + 1) * math.sqrt(longest + drawn.steps * drawn.batch)


def _check(cell: Cell, module: Any, drawn: Sample, setting: str, log: _Log) -> None:
    """Forward, trace, step, and each gradient against J·v along random directions."""
    expected = oracle.forward(cell, drawn.params, drawn.x, drawn.state, dims=drawn.dims)
    allowed = tolerance(cell, drawn)
    grads = _check_forward(cell, module, drawn, expected.outputs, expected.final, setting, log)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)

    trace = dict(module.trace(params, x, state) if state is not None else module.trace(params, x))
    known = {**expected.values, **{k: v for k, v in expected.derived.items() if k in trace}}
    log.faults += [f"trace gives no {name!r}" for name in known if name not in trace]
    log.faults += [f"trace gives an unknown {name!r}" for name in trace if name not in known]
    group = {f"trace {name}": (trace[name], known[name]) for name in known if name in trace}
    log.compare(group, setting, drawn.dtype, allowed)

    initial = module.init_state(params, batch=drawn.batch) if state is None else state
    ways = {"step": params}
    if cell.params:  # which tell the dtype
        ways["packed step"] = module.pack(params, **{dim: drawn.dims[dim] for dim in other_dims(cell)})
    for way, given in ways.items() if drawn.steps else ():
        streamed: list[list[Array]] = [[] for _ in cell.outputs]
        now = initial
        for t in range(drawn.steps):
            y, now = module.step(given, pack(module, "Inputs", [stream[t] for stream in drawn.x.values()]), now)
            for column, value in zip(streamed, values_of(y, len(cell.outputs)), strict=True):
                column.append(np.array(value))
        pairs = zip(cell.outputs, streamed, strict=True)
        group = {f"{way} {o.name}": (np.stack(column), expected.outputs[o.name]) for o, column in pairs}
        group |= {f"{way} final {s.name}": (a, expected.final[s.name]) for s, a in zip(cell.states, now, strict=True)}
        log.compare(group, setting, drawn.dtype, allowed)

    _check_directions(cell, drawn, grads, setting, log)


def _check_masked(cell: Cell, module: Any, drawn: Sample, reverse: bool, log: _Log) -> None:
    """Forward and each gradient for samples of every length, one of 0, with resets."""
    rng, steps, batch = drawn.rng, drawn.steps, drawn.batch
    lengths = np.array([0, steps, *rng.integers(1, steps, batch - 2)])
    masks = oracle.Masks(lengths, rng.random((steps, batch)) < 0.25, reverse)
    setting = "lengths, resets, reverse" if reverse else "lengths, resets"
    expected = oracle.forward(cell, drawn.params, drawn.x, drawn.state, dims=drawn.dims, masks=masks)
    grads = _check_forward(cell, module, drawn, expected.outputs, expected.final, setting, log, masks)
    _check_directions(cell, drawn, grads, setting, log, masks)


def _check_padded(cell: Cell, module: Any, drawn: Sample, log: _Log) -> None:
    """The same for lengths alone: the steps of ``drawn``, and behind them many of NaN, which must not matter."""
    masks, setting = oracle.Masks(np.array([0, drawn.steps, *range(1, drawn.batch - 1)])), f"lengths, T={PADDED}"

    def longer(arrays: Mapping[str, Array], fill: float) -> dict[str, Array]:
        behind = (PADDED - drawn.steps, drawn.batch)
        return {name: np.concatenate([a, np.full((*behind, *a.shape[2:]), fill, a.dtype)]) for name, a in arrays.items()}

    expected = oracle.forward(cell, drawn.params, drawn.x, drawn.state, dims=drawn.dims, masks=masks)
    long = replace(drawn, steps=PADDED, x=longer(drawn.x, np.nan), dy=longer(drawn.dy, np.nan))
    grads = _check_forward(cell, module, long, longer(expected.outputs, 0), expected.final, setting, log, masks)
    for name in (f"d {stream.name}" for stream in cell.inputs):
        if name in grads:
            if grads[name][drawn.steps :].any():
                log.faults.append(f"{name} ({setting}) is not 0 behind the samples' ends")
            grads[name] = grads[name][: drawn.steps]
    _check_directions(cell, drawn, grads, setting, log, masks)


def _check_forward(
    cell: Cell,
    module: Any,
    drawn: Sample,
    outputs: Mapping[str, Array],
    final: Mapping[str, Array],
    setting: str,
    log: _Log,
    masks: oracle.Masks | None = None,
) -> dict[str, Array]:
    """Compare ``forward``; give every gradient of ``backward`` by its quantity's name."""
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, last, tape = module.forward(params, x, state, **({} if masks is None else vars(masks)))
    group = {f"y {o.name}": (a, outputs[o.name]) for o, a in zip(cell.outputs, values_of(y, len(cell.outputs)), strict=True)}
    group |= {f"final {s.name}": (a, final[s.name]) for s, a in zip(cell.states, last, strict=True)}
    log.compare(group, setting, drawn.dtype, tolerance(cell, drawn))
    grads = module.backward(params, tape, *drawn.upstream(module))
    found = {f"d {name}": array for name, array in zip(grads.params._fields, grads.params, strict=True)}
    found |= {f"d {s.name}": a for s, a in zip(cell.inputs, values_of(grads.x, len(cell.inputs)), strict=True)}
    found |= {f"d {name}[0]": array for name, array in zip(grads.state._fields, grads.state, strict=True)}
    wanted = dict(_gradient_shapes(cell, drawn))
    log.faults += [f"backward gives no {name!r} ({setting})" for name in wanted if name not in found]
    log.faults += [f"backward gives an unknown {name!r} ({setting})" for name in found if name not in wanted]
    return {name: np.asarray(found[name]) for name in wanted if name in found}


def _gradient_shapes(cell: Cell, drawn: Sample) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every gradient that the cell has, by the name used in reports, with its shape."""
    for param in cell.params:
        yield f"d {param.name}", sizes(param.shape, drawn.dims)
    for stream in cell.inputs:
        yield f"d {stream.name}", (drawn.steps, drawn.batch, *sizes(stream.shape, drawn.dims))
    for state in cell.states:
        yield f"d {state.name}[0]", (drawn.batch, *sizes(state.shape, drawn.dims))


def _check_directions(
    cell: Cell,
    drawn: Sample,
    grads: Mapping[str, Array],
    setting: str,
    log: _Log,
    masks: oracle.Masks | None = None,
    directions: int = 2,
) -> None:
    """⟨ȳ, J v⟩ = ⟨Jᵀ ȳ, v⟩ for random directions v in one parameter, input or initial state at a time.

    The error is relative to the sum of the magnitudes in ⟨Jᵀ ȳ, v⟩.
    """
    shapes = dict(_gradient_shapes(cell, drawn))
    allowed = tolerance(cell, drawn)
    for name, shape in shapes.items():
        if name in grads and (grads[name].shape != shape or grads[name].dtype != drawn.dtype):
            log.faults.append(f"{name} ({setting}) is {grads[name].dtype}{grads[name].shape}, not {drawn.dtype.name}{shape}")
    checked = [name for name, shape in shapes.items() if name in grads and grads[name].shape == shape]
    fixed = {f"d {param.name}" for param in cell.params if not param.trainable}
    for name in fixed & set(checked):
        log.rows.append(Row(name, setting, drawn.dtype.name, float(np.max(np.abs(grads[name]), initial=0.0)), 0.0))
    moving = [name for name in checked if name not in fixed]
    count = directions * len(moving)
    parts: dict[str, Array] = {}
    for k, name in enumerate(moving):
        parts[name] = np.zeros((count, *shapes[name]))
        parts[name][k * directions : (k + 1) * directions] = drawn.rng.normal(size=(directions, *shapes[name]))
    tangents = oracle.Tangents(
        params={p.name: parts[f"d {p.name}"] for p in cell.params if f"d {p.name}" in parts},
        x={s.name: parts[f"d {s.name}"] for s in cell.inputs if f"d {s.name}" in parts},
        state={s.name: parts[f"d {s.name}[0]"] for s in cell.states if f"d {s.name}[0]" in parts},
    )
    moved = oracle.jvp(cell, drawn.params, drawn.x, drawn.state, tangents, dims=drawn.dims, masks=masks)
    left = np.zeros(count)
    for name, array in moved.outputs.items():
        left += (array * drawn.dy[name]).reshape(count, -1).sum(axis=1)
    for name, array in moved.final.items():
        left += (array * drawn.dfinal[name]).reshape(count, -1).sum(axis=1)
    terms = {name: (parts[name] * grads[name].astype(np.float64)).reshape(count, -1) for name in moving}
    scales = {name: np.abs(terms[name]).sum(axis=1) for name in moving}
    largest = max((float(np.max(scale, initial=0.0)) for scale in scales.values()), default=0.0)
    floor = FLOORS[drawn.dtype.name] * max(largest, upstream(drawn))
    for k, name in enumerate(moving):
        own = slice(k * directions, (k + 1) * directions)
        errors = np.abs(terms[name].sum(axis=1) - left)[own]
        errors /= np.maximum(scales[name][own], max(floor, 1e-300))
        log.rows.append(Row(name, setting, drawn.dtype.name, float(np.max(errors, initial=0.0)), allowed))


def _check_exact(cell: Cell, module: Any, drawn: Sample, log: _Log) -> None:
    """Forward and every element of every gradient against the exact ones."""
    true = oracle.exact_gradients(cell, drawn.params, drawn.x, drawn.state, drawn.dy, drawn.dfinal, dims=drawn.dims)
    grads = _check_forward(cell, module, drawn, true.outputs, true.final, "exact", log)
    expected = {f"d {name}": array for name, array in (true.params | true.x).items()}
    expected |= {f"d {name}[0]": array for name, array in true.state.items()}
    group = {name: (grads[name], array) for name, array in expected.items() if name in grads}
    log.compare(group, "exact", drawn.dtype, tolerance(cell, drawn), upstream(drawn))


def upstream(drawn: Sample) -> float:
    """The largest magnitude among the upstream cotangents."""
    return max((_largest(array) for array in (*drawn.dy.values(), *drawn.dfinal.values())), default=0.0)


def values_of(result: Any, count: int) -> Sequence[Array]:
    """The arrays of an output or input: the array itself where there is one, else the fields of the tuple."""
    return (result,) if count == 1 else tuple(result)
