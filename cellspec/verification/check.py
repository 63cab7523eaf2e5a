"""Generated code against the source equations: forward, step, packed step, trace, and every gradient, on random inputs.

The list of what is compared comes from the :class:`~cellspec.cell.Cell`: a gradient that the module does not give is an
error, and so is one too many.

**The bound.** An error is at most ``tolerance * scale + spread``, for each element of an array, and for each ``⟨Jᵀ ȳ, v⟩``.

*Tolerance.* float64: 1e-11. float32: ``16 * eps * (T + 1) * sqrt(K + T*B)`` with ``eps = 2**-23``. A sum of ``n`` rounded terms
is off by about ``sqrt(n) * eps`` relative to its terms; ``K`` is the longest row of a parameter or value, ``T*B`` the number of
terms in a parameter's gradient; the error of a step is passed on to each of the ``T`` later ones; 16 covers the functions and
products in a step. Inputs are drawn as float32 numbers, so both sides start from the same values.

*Scale.* The largest magnitude of the array, or for ``⟨Jᵀ ȳ, v⟩`` the sum of its terms' magnitudes. A small array among larger
ones is compared relative to a part of the largest: 1/1000 in float64, 1/10 in float32. It is made of the larger ones, with
their rounding errors: a gate's slope ``y*(1 - y)`` is off by ``eps`` however small it is. The largest is taken over the values
of the step and 1, for gradients over the gradients and the upstream cotangents. Where gates saturate, slopes vanish: there
all gradients are compared relative to the largest.

*Spread.* ``4 * max |Q(r) - Q|`` over four evaluations ``Q(r)`` of the same array of quantities by the oracle, in which every
argument, result of an operation and tangent is multiplied by ``1 + 16*eps*u`` with random ``u`` between -1 and 1
(:mod:`cellspec.oracle.rounding`). It follows the conditioning: next to nothing for ordinary cells, where the tolerance decides,
and as much as the equations themselves make of rounding errors where they cancel (``u/norm(u)`` of one unit), amplify, or leave
the range of the dtype. It knows nothing of the module, so that no wrong module passes for it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from types import ModuleType
from typing import Any

import numpy as np

from cellspec import oracle
from cellspec.backends.dims import other_dims
from cellspec.cell import Cell
from cellspec.oracle.values import sizes
from cellspec.verification.comparison import FLOORS, Array, Compared, Log, Report, Row, largest
from cellspec.verification.expected import Expected, expected
from cellspec.verification.sampling import RANGES, NoFiniteSample, Sample, pack, sample

__all__ = ["PRIMES", "Report", "Row", "tolerance", "values_of", "verify", "verify_sample"]

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29)
LARGE = tuple(PRIMES[k:] + PRIMES[:k] for k in (4, 3, 2, 1, 0)) + tuple((*few, *PRIMES) for few in ((3,), (2, 3)))
MIDDLE, USUAL = LARGE[3:], LARGE[4:]
SMALL = ((2, 3, 4, 5, 6, 7, 8, 9), (2, 3, 4, 2, 3, 4, 2, 3), (2, 3, 1, 2, 3, 1, 2, 3))
"""Dims for the exact gradients, each element of which is a formula."""
ENOUGH, ENOUGH_EXACT = 4000, 60
"""The most elements of a parameter or value. Where dims are multiplied by others, later dims of those above are taken."""

FLOAT64_TOLERANCE = 1e-11
LONG = {"float64": 53, "float32": 20}
"""Steps of the samples with lengths alone: more than any period within a module."""
SEGMENT, LONG_ATTEMPTS = 7, 8


class _Raised(Exception):
    """A module has raised something: one sentence."""


class _Watched:
    """A module whose functions raise :class:`_Raised` in place of whatever they raise, as do those that it lacks."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __dir__(self) -> list[str]:
        return dir(self._module)

    def __getattr__(self, name: str) -> Any:
        try:
            found = getattr(self._module, name)
        except AttributeError:
            raise _Raised(f"the module has no {name}") from None
        if not callable(found) or (isinstance(found, type) and issubclass(found, tuple)):
            return found

        @wraps(found)
        def call(*args: Any, **options: Any) -> Any:
            try:
                return found(*args, **options)
            except Exception as error:
                said = str(error).split("\n")[0]
                raise _Raised(f"{name} raises {type(error).__name__}{': ' * bool(said)}{said}") from error

        return call


@contextmanager
def _setting(log: Log, setting: str) -> Iterator[None]:
    """What a module raises becomes a sentence, told once for all settings."""
    try:
        with np.errstate(all="ignore"):
            yield
    except (_Raised, oracle.NoValue) as error:
        if not any(fault.startswith(str(error)) for fault in log.faults):
            log.faults.append(f"{error} ({setting})")


def verify(
    cell: Cell, module: ModuleType, *, seed: int = 0, dtypes: Sequence[Any] = (np.float64, np.float32), exact: bool = True
) -> Report:
    """Compare ``module``, generated from ``cell``, with the equations of ``cell``.

    Settings: all dims distinct (T=3, B=2, dims 5, 7, 11, …) and larger (T=9, B=4, dims 17, 19, …); T=1; B=1; all dims 1; T=0;
    the spec's own initial state; gains and biases from ±0.1 to ±40; lengths and resets, forwards and in reverse; resets alone;
    lengths alone for many steps, whole, in segments, and in a workspace. Every step and the final state have upstream
    gradients. ``exact`` adds the exact gradients at dims 2, 3, …. Where dims are multiplied, smaller ones are taken.

    Nothing is raised or printed: where the module raises, or no arguments are found at which all values are finite, the report
    has a fault that says so.
    """
    log = Log()
    _check_fields(cell, module, log)
    if not log.faults:
        watched: Any = _Watched(module)
        try:
            for dtype in map(np.dtype, dtypes):
                _check_dtype(cell, watched, np.random.default_rng(seed), dtype, exact, log)
        except NoFiniteSample as error:  # to go on would take long and say the same
            log.faults.append(str(error))
    return Report(cell.name, seed, tuple(log.rows), tuple(log.faults))


def verify_sample(cell: Cell, module: ModuleType, drawn: Sample, setting: str = "given") -> Report:
    """The comparisons of :func:`verify` for one given call."""
    log = Log()
    with _setting(log, setting):
        _check(cell, _Watched(module), drawn, setting, log)
    return Report(cell.name, -1, tuple(log.rows), tuple(log.faults))


def _check_dtype(cell: Cell, module: Any, rng: np.random.Generator, dtype: np.dtype[Any], exact: bool, log: Log) -> None:
    """Every setting of :func:`verify`."""
    usual = fitting(cell, USUAL)
    settings: tuple[tuple[str, dict[str, int], int, int, dict[str, Any]], ...] = (
        ("T=3 B=2", usual, 3, 2, {}),
        ("T=9 B=4", fitting(cell, LARGE), 9, 4, {}),
        ("T=1", fitting(cell, MIDDLE), 1, 3, {}),
        ("B=1", fitting(cell, MIDDLE), 4, 1, {}),
        ("dims 1", dict.fromkeys(cell.dims, 1), 3, 2, {}),
        ("T=0", usual, 0, 2, {}),
        ("default state", usual, 3, 2, {"default_state": True}),
    )
    for setting, dims, steps, batch, options in settings:
        with _setting(log, setting):
            _check(cell, module, sample(cell, dims, steps, batch, rng, dtype, **options), setting, log)
    for range_ in RANGES:
        with _setting(log, f"{range_} range"), suppress(NoFiniteSample):  # a cell need not be finite there
            _check(cell, module, sample(cell, usual, 3, 2, rng, dtype, gains=range_), f"{range_} range", log, 1.0)
    every = (("lengths, resets", True, False), ("lengths, resets, reverse", True, True), ("resets", False, False))
    for setting, lengths, reverse in every if dtype == np.float64 else every[1:2]:
        with _setting(log, setting):
            drawn = sample(cell, usual, 4, 4, rng, dtype)
            _check_masked(cell, module, drawn, _masks(drawn, lengths, True, reverse), setting, log)
    with _setting(log, "lengths"):
        _check_long(cell, module, usual, rng, dtype, log)
    if exact:
        with _setting(log, "exact"):
            _check_exact(cell, module, sample(cell, fitting(cell, SMALL, ENOUGH_EXACT), 3, 1, rng, dtype), log)


def fitting(cell: Cell, windows: Sequence[Sequence[int]], enough: int = ENOUGH) -> dict[str, int]:
    """The first of several choices of dims at which no parameter or value has more elements than ``enough``, or the last."""
    shapes = [p.shape for p in cell.params] + [e.target.shape for e in cell.assignments]
    choices = [dict(zip(cell.dims, numbers, strict=False)) for numbers in windows]
    fit = (dims for dims in choices if all(math.prod(sizes(shape, dims)) <= enough for shape in shapes))
    return next(fit, choices[-1])


def _check_fields(cell: Cell, module: Any, log: Log) -> None:
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


def _check(cell: Cell, module: Any, drawn: Sample, setting: str, log: Log, floor: float | None = None) -> None:
    """Everything about one call: results, and each gradient against J·v along random directions."""
    _check_results(cell, module, drawn, setting, log)
    expectation = expected(cell, drawn)
    _check_directions(expectation, _gradients(expectation, module, setting, log), setting, log, floor)


def _check_results(cell: Cell, module: Any, drawn: Sample, setting: str, log: Log) -> None:
    """Trace, and step with plain and packed parameters."""
    expectation = expected(cell, drawn)
    results, allowed = expectation.results, tolerance(cell, drawn)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    trace = dict(module.trace(params, x, state) if state is not None else module.trace(params, x))
    known = {name: (array, "values") for name, array in results.values.items()}
    known |= {name: (array, "derived") for name, array in results.derived.items() if name in trace}
    log.faults += [f"trace gives no {name!r}" for name in known if name not in trace]
    log.faults += [f"trace gives an unknown {name!r}" for name in trace if name not in known]
    group = {
        f"trace {name}": Compared(trace[name], array, partial(expectation.spread, kind, name))
        for name, (array, kind) in known.items()
        if name in trace
    }
    log.compare(group, setting, drawn.dtype, allowed)

    initial = module.init_state(params, batch=drawn.batch) if state is None else state
    ways = {"step": params}
    if cell.params and "pack" in dir(module):  # whose parameters tell the dtype
        ways["packed step"] = module.pack(params, **{dim: drawn.dims[dim] for dim in other_dims(cell)})
    for way, given in ways.items() if drawn.steps else ():
        streamed: list[list[Array]] = [[] for _ in cell.outputs]
        now = initial
        for t in range(drawn.steps):
            y, now = module.step(given, pack(module, "Inputs", [stream[t] for stream in drawn.x.values()]), now)
            for column, value in zip(streamed, values_of(y, len(cell.outputs)), strict=True):
                column.append(np.array(value))
        stacked = [np.stack(column) for column in streamed]
        group = _outcome(expectation, stacked[0] if len(stacked) == 1 else stacked, now, results)
        log.compare({f"{way} {name.removeprefix('y ')}": one for name, one in group.items()}, setting, drawn.dtype, allowed)


def _outcome(expectation: Expected, y: Any, last: Any, results: oracle.Forward | oracle.Exact) -> dict[str, Compared]:
    """Outputs and final states beside what they should be."""
    cell, spread = expectation.cell, expectation.spread
    outputs = {o.name: array for o, array in zip(cell.outputs, values_of(y, len(cell.outputs)), strict=True)}
    final = {s.name: array for s, array in zip(cell.states, last, strict=True)}
    group = {f"y {n}": Compared(array, results.outputs[n], partial(spread, "outputs", n)) for n, array in outputs.items()}
    return group | {f"final {n}": Compared(array, results.final[n], partial(spread, "final", n)) for n, array in final.items()}


def _masks(drawn: Sample, lengths: bool, resets: bool, reverse: bool) -> oracle.Masks:
    """Samples of every length, the first of none, the second of all steps; resets at a quarter of the steps."""
    rng, steps, batch = drawn.rng, drawn.steps, drawn.batch
    ends = np.array([0, steps, *rng.integers(1, steps, batch - 2)]) if lengths else None
    return oracle.Masks(ends, rng.random((steps, batch)) < 0.25 if resets else None, reverse)


def _check_masked(cell: Cell, module: Any, drawn: Sample, masks: oracle.Masks, setting: str, log: Log, **options: Any) -> None:
    """Forward and each gradient for samples that end or begin anew."""
    expectation = Expected(cell, drawn, masks)
    _check_directions(expectation, _gradients(expectation, module, setting, log, **options), setting, log)


def _check_long(
    cell: Cell, module: Any, dims: dict[str, int], rng: np.random.Generator, dtype: np.dtype[Any], log: Log
) -> None:
    """Lengths alone over many steps, or as many as the cell stays finite for: whole, in segments, in a workspace."""
    steps = LONG[dtype.name]
    while True:
        try:
            drawn = sample(cell, dims, steps, 3, rng, dtype, attempts=LONG_ATTEMPTS)
            break
        except NoFiniteSample:
            if steps < 8:
                return
            steps //= 2
    reverse = dtype == np.float32
    setting = f"lengths, T={steps}" + ", reverse" * reverse
    expectation = Expected(cell, drawn, _masks(drawn, lengths=True, resets=False, reverse=reverse))
    options = inspect.signature(module.forward).parameters
    ways: dict[str, dict[str, Any]] = {"": {}}
    if "checkpoint" in options:
        ways[f", checkpoint={SEGMENT}"] = {"checkpoint": SEGMENT}
    if "workspace" in options and not reverse:
        others = {dim: drawn.dims[dim] for dim in other_dims(cell)}
        ways[", workspace"] = {"workspace": module.Workspace(steps, drawn.batch, drawn.module_params(module), **others)}
    for way, given in ways.items():
        _check_directions(expectation, _gradients(expectation, module, setting + way, log, **given), setting + way, log)


def _gradients(
    expectation: Expected, module: Any, setting: str, log: Log, true: oracle.Exact | None = None, **options: Any
) -> dict[str, Array]:
    """Compare ``forward``; give every gradient of ``backward`` by its quantity's name."""
    cell, drawn, masks = expectation.cell, expectation.drawn, expectation.masks
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, last, tape = module.forward(params, x, state, **({} if masks is None else vars(masks)), **options)
    group = _outcome(expectation, y, last, true or expectation.results)
    log.compare(group, setting, drawn.dtype, tolerance(cell, drawn))
    options.pop("checkpoint", None)  # the tape knows of it
    grads = module.backward(params, tape, *drawn.upstream(module), **options)
    found = {f"d {name}": array for name, array in zip(grads.params._fields, grads.params, strict=True)}
    found |= {f"d {s.name}": a for s, a in zip(cell.inputs, values_of(grads.x, len(cell.inputs)), strict=True)}
    found |= {f"d {name}[0]": array for name, array in zip(grads.state._fields, grads.state, strict=True)}
    wanted = expectation.shapes
    log.faults += [f"backward gives no {name!r} ({setting})" for name in wanted if name not in found]
    log.faults += [f"backward gives an unknown {name!r} ({setting})" for name in found if name not in wanted]
    return {name: np.asarray(found[name]) for name in wanted if name in found}


def _check_directions(
    expectation: Expected, grads: Mapping[str, Array], setting: str, log: Log, floor: float | None = None
) -> None:
    """⟨ȳ, J v⟩ = ⟨Jᵀ ȳ, v⟩ for random directions v in one parameter, input or initial state at a time.

    The error is relative to the sum of the magnitudes in ⟨Jᵀ ȳ, v⟩, or to the part ``floor`` of the largest of these sums.
    """
    drawn, shapes = expectation.drawn, expectation.shapes
    allowed = tolerance(expectation.cell, drawn)
    wrong = [name for name, array in grads.items() if array.shape != shapes[name] or array.dtype != drawn.dtype]
    for name in wrong:
        wanted = f"{drawn.dtype.name}{shapes[name]}"
        log.faults.append(f"{name} ({setting}) is {grads[name].dtype}{grads[name].shape}, not {wanted}")
    checked = [name for name in grads if grads[name].shape == shapes[name]]
    for name in expectation.fixed.intersection(checked):
        log.rows.append(Row(name, setting, drawn.dtype.name, float(np.max(np.abs(grads[name]), initial=0.0)), 0.0))
    moving = [name for name in expectation.moving if name in checked]
    terms = {}
    for name in moving:
        directions = expectation.directions[name][expectation.own(name)]
        terms[name] = (directions * grads[name].astype(np.float64)).reshape(len(directions), -1)
    scales = {name: np.nan_to_num(np.abs(terms[name]).sum(axis=1), posinf=0.0) for name in moving}
    most = max((float(np.max(scale, initial=0.0)) for scale in scales.values()), default=0.0)
    least = max(1e-300, (floor or FLOORS[drawn.dtype.name]) * max(most, upstream(drawn)))
    for name in moving:
        own = expectation.own(name)
        difference = np.abs(terms[name].sum(axis=1) - expectation.pairings[own])
        scale = np.maximum(scales[name], least)
        spread = partial(expectation.pairing_spread, name)
        log.judge(name, setting, drawn.dtype, difference, scale, allowed, spread)


def _check_exact(cell: Cell, module: Any, drawn: Sample, log: Log) -> None:
    """Forward and every element of every gradient against the exact ones."""
    expectation = Expected(cell, drawn)
    grads = _gradients(expectation, module, "exact", log, expectation.exact)
    group = {
        name: Compared(grads[name], array, partial(expectation.gradient_spread, name))
        for name, array in expectation.exact_by_name.items()
        if name in grads
    }
    log.compare(group, "exact", drawn.dtype, tolerance(cell, drawn), upstream(drawn))


def upstream(drawn: Sample) -> float:
    """The largest magnitude among the upstream cotangents."""
    return max((largest(array) for array in (*drawn.dy.values(), *drawn.dfinal.values())), default=0.0)


def values_of(result: Any, count: int) -> Sequence[Array]:
    """The arrays of an output or input: the array itself where there is one, else the fields of the tuple."""
    return (result,) if count == 1 else tuple(result)
