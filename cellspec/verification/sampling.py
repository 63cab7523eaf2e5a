"""Random parameters, inputs, states and cotangents for a cell: asymmetric, away from kinks, where every value is finite.

Matrices that go into an inverse are drawn near the identity or, as for ``inv(eye(H) - A)``, near zero, so that they are well
conditioned. What a state that starts at minus infinity passes on in the first step may be infinite too, but is never NaN.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cellspec import oracle
from cellspec.cell import Cell
from cellspec.model.equations import Param
from cellspec.model.nodes import STEP_INDEX, Inverse, Kind, MatMul, Node, children, refs
from cellspec.oracle.values import sizes

Array = npt.NDArray[Any]

MARGIN = 1e-4
"""Nearest approach to a kink: far enough for float32 to fall on the same side of it."""

LARGEST = 1e3
"""Largest magnitude of any value: an unstable recurrence, once it has blown up, multiplies rounding errors as well."""

CONDITION = 20.0
"""Largest condition number of a matrix that is inverted."""

SENSITIVITY = 1e2
"""How many times larger a relative change of the arguments may come out: in a chaotic recurrence rounding errors grow too."""

ATTEMPTS = 24

WIDE_ATTEMPTS = 16

RANGES = {"wide": (0.1, 40.0, (-1.0, 1.0)), "low": (20.0, 40.0, (-1.0,)), "high": (20.0, 40.0, (1.0,))}
"""Gains and biases at which gates saturate and normalisers are tiny: least and largest magnitude, and signs. Low and high ones
are alike throughout an array, wide ones half of the time.
"""


FAR = 4.0
"""How much larger inputs are beside such gains."""


class NoFiniteSample(ValueError):
    """No arguments were found at which every equation is finite: one sentence, with the equation and the step."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One call's arguments, by name, all of ``dtype``.

    ``params``: ``[*shape]``; ``x``: by stream, ``[T, B, *shape]``; ``state``: ``[B, *shape]``, or None for the spec's own;
    ``dy``: by output, ``[T, B, *shape]``; ``dfinal``: by state, ``[B, *shape]``. ``rng`` goes on where the drawing stopped;
    ``memory`` is for what is computed from these arguments.
    """

    dims: dict[str, int]
    steps: int
    batch: int
    dtype: np.dtype[Any]
    rng: np.random.Generator
    params: dict[str, Array]
    x: dict[str, Array]
    state: dict[str, Array] | None
    dy: dict[str, Array]
    dfinal: dict[str, Array]
    memory: dict[Any, Any] = field(init=False, repr=False, default_factory=dict)

    def module_params(self, module: Any) -> Any:
        """``Params`` of a generated module."""
        return module.Params(*self.params.values())

    def module_x(self, module: Any) -> Any:
        """The input: the array, or ``Inputs`` where there are several streams."""
        return pack(module, "Inputs", list(self.x.values()))

    def module_state(self, module: Any) -> Any:
        """``State`` of a generated module; None for the spec's own, if the module can tell all dims without it."""
        if self.state is not None:
            return module.State(*self.state.values())
        asked = inspect.signature(module.init_state).parameters.values()
        others = {p.name: self.dims[p.name] for p in asked if p.name in self.dims}
        if not others:
            return None
        state = module.init_state(self.module_params(module), batch=self.batch, **others)
        return type(state)(*(array.astype(self.dtype) for array in state))  # without params it has no dtype of its own

    def upstream(self, module: Any) -> tuple[Any, Any]:
        """``dy`` and ``dfinal`` as ``backward`` takes them."""
        return pack(module, "Outputs", list(self.dy.values())), module.State(*self.dfinal.values())


def pack(module: Any, kind: str, arrays: Sequence[Array]) -> Any:
    """One array as it is; several as the module's named tuple ``kind``."""
    return arrays[0] if len(arrays) == 1 else getattr(module, kind)(*arrays)


def sample(
    cell: Cell,
    dims: Mapping[str, int],
    steps: int,
    batch: int,
    rng: np.random.Generator,
    dtype: Any,
    *,
    default_state: bool = False,
    gains: str = "usual",
    attempts: int = ATTEMPTS,
) -> Sample:
    """Draw until every value is finite and no function comes near a kink; later attempts stay positive, then small.

    Where kinks, or else values that are large or change wildly, cannot be avoided a finite draw is good enough. ``gains``
    other than the usual are a key of :data:`RANGES`: then values may change as wildly as they like, be near kinks and nearly
    divide by zero, and later attempts shrink the range. :class:`NoFiniteSample` if no draw is finite in ``dtype``.
    """
    dims = dict(dims)
    inverted = _inverted(cell)
    driven, wide = [] if gains == "usual" else _gains(cell), gains != "usual"
    may_be_infinite = default_state and any(math.isinf(one.init) for one in cell.states)
    found: Sample | None = None
    best: tuple[bool, bool] | None = None
    attempts, left = WIDE_ATTEMPTS if wide else attempts, ""
    for attempt in range(attempts):
        positive, scale = attempt >= attempts // 2, 0.3 if attempt >= 3 * attempts // 4 else 1.0

        def draw(values: Array, positive: bool = positive, scale: float = scale) -> Array:
            return (scale * (0.2 + np.abs(values) if positive else values)).astype(dtype)

        params = {p.name: draw(_param(p, sizes(p.shape, dims), rng)) for p in cell.params}
        for name in driven:
            params[name] = _gain(params[name].shape, gains, 2.0 ** -(attempt // 4), rng).astype(dtype)
        for name in inverted:
            matrix = np.asarray(0.3 * params[name])
            params[name] = (matrix + np.eye(matrix.shape[-1]) * (attempt % 2 == 0)).astype(dtype)
        far = FAR if wide else 1.0
        x = {i.name: draw(far * rng.normal(size=(steps, batch, *sizes(i.shape, dims)))) for i in cell.inputs}
        state: dict[str, Array] | None = None
        if not default_state:
            state = {s.name: draw(0.7 * rng.normal(size=(batch, *sizes(s.shape, dims)))) for s in cell.states}
            if STEP_INDEX in state:  # a count
                state[STEP_INDEX] = rng.integers(0, 4, (batch, 1)).astype(dtype)
        probe = oracle.probe(cell, params, x, state, dims=dims)
        values = probe.forward
        reached = [*values.derived.values(), *values.values.values()]
        largest = float(np.finfo(dtype).max)
        if any(np.isnan(a).any() or (not may_be_infinite and (np.abs(a) > largest).any()) for a in reached):
            left = _where_left(cell, values, largest, may_be_infinite)
            continue
        largest = max((np.max(np.abs(a), initial=0.0, where=np.isfinite(a)) for a in reached), default=0.0)
        calm = probe.condition <= CONDITION and bool(largest <= LARGEST)
        calm = calm and (wide or _sensitivity(cell, dims, params, x, state, values) <= SENSITIVITY)
        quality = (calm, wide or probe.nearest >= MARGIN)
        if best is None or quality >= best:
            best = quality
            dy = {o.name: rng.normal(size=values.outputs[o.name].shape).astype(dtype) for o in cell.outputs}
            dfinal = {s.name: rng.normal(size=values.final[s.name].shape).astype(dtype) for s in cell.states}
            found = Sample(dims, steps, batch, np.dtype(dtype), rng, params, x, state, dy, dfinal)
            found.memory["results"] = cell, values
        if best == (True, True):
            break
    if found is None:
        name = np.dtype(dtype).name
        raise NoFiniteSample(f"{left} leaves the range of {name} with every set of random arguments that was tried")
    return found


def _where_left(cell: Cell, values: oracle.Forward, largest: float, may_be_infinite: bool) -> str:
    """The first equation whose value is not finite, and the first step at which it is not: ``h[t] at step 2``."""

    def lost(array: Array) -> npt.NDArray[np.bool_]:
        return np.isnan(array) if may_be_infinite else ~(np.abs(array) <= largest)

    for name, array in values.derived.items():
        if lost(array).any():
            return f"the derived parameter {name}"
    equations = [equation for equation in cell.assignments if equation.target.name in values.values]
    gone = {e.target.label: lost(values.values[e.target.name]) for e in equations}
    first = {label: int(np.argmax(one.any(axis=tuple(range(1, one.ndim))))) for label, one in gone.items() if one.any()}
    label = min(first, key=lambda one: first[one])  # of several at one step the one that is computed first
    return f"{label} at step {first[label]}"


def _sensitivity(
    cell: Cell,
    dims: Mapping[str, int],
    params: Mapping[str, Array],
    x: Mapping[str, Array],
    state: Mapping[str, Array] | None,
    values: oracle.Forward,
) -> float:
    """The largest change of any value, relative to the values of its name and 1, over a relative change of all arguments."""
    rng, change = np.random.default_rng(0), 1e-8

    def nudged(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array * (1.0 + change * rng.choice([-1.0, 1.0], size=array.shape)) for name, array in arrays.items()}

    start = None if state is None else nudged(state) | {name: state[name] for name in state if name == STEP_INDEX}
    other = oracle.forward(cell, nudged(params), nudged(x), start, dims=dims)
    worst = 0.0
    for name, array in values.values.items():
        finite = np.isfinite(array)
        moved = np.abs(np.subtract(other.values[name], array, where=finite, out=np.zeros_like(array)))
        worst = max(worst, float(np.max(moved, initial=0.0)) / float(np.max(np.abs(array), initial=1.0, where=finite)))
    return worst / change


def _gains(cell: Cell) -> list[str]:
    """Gains and biases: trainable parameters that are vectors, or that no product of matrices reads."""
    multiplied = {ref.name for e in cell.assignments for part in _parts(e.value, MatMul | Inverse) for ref in refs(part)}
    rank = {p.name: len(p.shape) - (p.repeat is not None) for p in cell.params}
    return [p.name for p in cell.params if p.trainable and (rank[p.name] <= 1 or p.name not in multiplied)]


def _gain(shape: tuple[int, ...], range_: str, scale: float, rng: np.random.Generator) -> Array:
    """Random signs and magnitudes, the logarithms of which are even, of one of :data:`RANGES`, times ``scale``."""
    least, largest, signs = RANGES[range_]
    alike = rng.random() < 0.5 or len(signs) == 1
    size = (1,) * len(shape) if alike else shape
    sizes = np.exp(rng.uniform(math.log(least), math.log(largest), size)) * rng.choice(signs, size)
    drawn: Array = scale * sizes * (1.0 + 0.05 * rng.uniform(-1.0, 1.0, shape))
    return drawn


def _inverted(cell: Cell) -> list[str]:
    """The square matrices among the parameters, or families of these, that an inverse depends on."""
    definitions = {e.target.name: e.value for e in cell.assignments if e.target.kind is Kind.DERIVED}
    names: set[str] = set()
    reached = {ref.name for e in cell.assignments for part in _parts(e.value, Inverse) for ref in refs(part)}
    while reached - names:
        names |= reached
        reached = {ref.name for name in names if name in definitions for ref in refs(definitions[name])}
    return [p.name for p in cell.params if p.name in names and len(p.shape) > 1 and p.shape[-1] == p.shape[-2]]


def _parts(node: Node, kind: Any) -> Iterator[Node]:
    """All parts of ``node`` that are of a kind."""
    if isinstance(node, kind):
        yield node
    for child in children(node):
        yield from _parts(child, kind)


def _param(param: Param, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A parameter of magnitude about one (matrices: one over the root of a row's length), near where the spec starts it."""
    member = shape if param.repeat is None else shape[1:]
    spread = 2.0 / math.sqrt(member[-1]) if len(member) > 1 and member[-1] else 1.0
    noise = rng.uniform(-1.0, 1.0, size=shape)
    match param.init.kind, param.init.numbers:
        case "constant", (value,) if value:
            return value * (1.0 + 0.5 * noise)
        case "uniform", (low, high):
            return low + (high - low) * (noise + 1.0) / 2.0
        case "chrono", (longest,):
            return np.log(1.0 + (noise + 1.0) * max(longest - 2.0, 1.0) / 2.0)
        case _:
            return spread * noise
