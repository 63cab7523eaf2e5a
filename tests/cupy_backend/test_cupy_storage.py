"""CuPy modules in float16 and bfloat16: stored with few bits, computed with more.

The reference is the NumPy module in float64, for the same arguments; it is held to the equations itself. Rounding to storage
does at each step about what rounding the arguments anew would do. So the error allowed is twice ``spread + u*largest``: ``u``
is the unit roundoff of the storage, ``spread`` the largest change of an array when every argument moves by one ``u`` of itself,
up or down at random, in 8 draws, and ``largest`` the array's largest magnitude, for the rounding of the result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cupy_support import BY_ID, cells, on_device
from support import Array, call, copied, draw, generator, leaves, module_of

from cellspec.cell import Cell
from cellspec.verification.check import verify_sample
from cellspec.verification.sampling import Sample, sample

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has the bfloat16 of NumPy arrays, is not installed")

SMALL = {"float16": (np.float16, 2.0**-11), "bfloat16": (ml_dtypes.bfloat16, 2.0**-8)}
GROUPS = ("params", "x", "state", "dy", "dfinal")

small_floats = pytest.mark.parametrize(("dtype", "u"), SMALL.values(), ids=SMALL)


def changed(drawn: Sample, change: Callable[[Array], Array]) -> Sample:
    """The same call with every array changed."""
    parts = {group: {name: change(array) for name, array in getattr(drawn, group).items()} for group in GROUPS}
    return dataclasses.replace(drawn, dtype=next(iter(parts["params"].values())).dtype, **parts)


def cast(drawn: Sample, dtype: Any) -> Sample:
    """The same call in another dtype."""
    return changed(drawn, lambda array: array.astype(dtype))


def allowed(run: Callable[[Sample], list[Array]], wide: Sample, expected: list[Array], u: float) -> list[float]:
    """The error allowed for each array that the reference gives; see the head of this file."""
    rng = generator(8)
    spread = [0.0] * len(expected)
    for _ in range(8):
        nudged = changed(wide, lambda array: array * (1 + u * rng.choice([-1.0, 1.0], array.shape)))
        moved = zip(run(nudged), expected, strict=True)
        spread = [max(before, np.abs(a - b).max()) for before, (a, b) in zip(spread, moved, strict=True)]
    return [2 * (change + u * np.abs(array).max()) for change, array in zip(spread, expected, strict=True)]


@cells("lstm", "gru_before", "gru_after", "peephole", "indrnn", "mingru", "valid-derived", "valid-joined", "valid-stretch")
@small_floats
def test_errors_are_those_of_rounding_to_storage(cell: Cell, dtype: Any, u: float, machine: str) -> None:
    reference = module_of(BY_ID[cell.name] if cell.name in BY_ID else BY_ID[f"valid-{cell.name}"])
    few = cast(draw(cell, steps=7, batch=3), dtype)
    wide = cast(few, np.float64)
    report = verify_sample(cell, reference, wide)
    assert report.ok, str(report)

    def run(drawn: Sample) -> list[Array]:
        return leaves(copied(call(reference, drawn)))

    expected = run(wide)
    with on_device(cell, "random", machine=machine, seed=5) as module:
        got = leaves(call(module, few))
    for one, other, limit in zip(got, expected, allowed(run, wide, expected, u), strict=True):
        assert np.abs(one.astype(np.float64) - other).max() <= limit


@cells("lstm", "gru_after", "indrnn", "mingru")
@pytest.mark.parametrize("dtype", [np.float64, np.float32, *(kind for kind, _ in SMALL.values())])
def test_every_array_that_is_returned_has_the_dtype_of_the_arguments(cell: Cell, dtype: Any, machine: str) -> None:
    drawn = cast(draw(cell), dtype)
    with on_device(cell, machine=machine) as module:
        params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
        traced = module.trace(params, x, state)
        made = module.init_params(np.random.default_rng(0), **drawn.dims, dtype=dtype)
        stepped = module.step(params, x[0], state)
        results = (call(module, drawn), stepped, tuple(traced.values()), made, module.init_state(made, batch=2))
        assert {array.dtype for array in leaves((*results, module.forward(params, x)[:2]))} == {np.dtype(dtype)}


@cells("lstm", "gru_after", "indrnn", "mingru")
@small_floats
def test_a_trace_is_rounded_once(cell: Cell, dtype: Any, u: float, machine: str) -> None:
    """Carries are not rounded in between: one rounding to storage, and float32's own."""
    few = cast(draw(cell, steps=7, batch=3), dtype)
    wide = cast(few, np.float64)
    reference = module_of(BY_ID[cell.name])
    expected = reference.trace(wide.module_params(reference), wide.module_x(reference), wide.module_state(reference))
    with on_device(cell, machine=machine) as module:
        traced = module.trace(few.module_params(module), few.module_x(module), few.module_state(module))
    for name, value in expected.items():
        assert np.abs(traced[name].astype(np.float64) - value).max() <= (u + 2.0**-16) * np.abs(value).max(), name


# --- what is not rounded ---------------------------------------------------------------------------------------


def constant(cell: Cell, steps: int, batch: int, units: int = 1, **values: float) -> Sample:
    """A call in float64; every element of an array is its number in ``values``, otherwise 0."""
    drawn = sample(cell, {d: units if d == "H" else 1 for d in cell.dims}, steps, batch, generator(6), np.float64)

    def filled(group: str) -> dict[str, Array]:
        arrays: dict[str, Array] = getattr(drawn, group)
        prefix = "" if group in ("params", "x") else f"{group}_"
        return {name: np.full_like(array, values.get(prefix + name, 0.0)) for name, array in arrays.items()}

    return dataclasses.replace(drawn, **{group: filled(group) for group in GROUPS})


STEPS = 64
SLOW: dict[str, Callable[[float], dict[str, float]]] = {
    "lstm": lambda u: {"state_c": 1, "bi": 20, "bf": 20, "bo": 20, "bg": u / 4},
    "gru_after": lambda u: {"state_h": 0.5, "bn": 20, "bu": -math.log(4 / u)},
    "indrnn": lambda u: {"state_h": 1, "u": 1, "b": u / 4, "dy_h": u / 4, "dfinal_h": 1},
    "mingru": lambda u: {"state_h": 0.5, "bh": 1, "bz": -math.log(4 / u)},
}
"""Arguments with which a state moves by a quarter of a rounding error at every step."""


@cells(*SLOW)
@small_floats
def test_carries_keep_what_storage_would_round_away(cell: Cell, dtype: Any, u: float, machine: str) -> None:
    few = cast(constant(cell, STEPS, 1, **SLOW[cell.name](u)), dtype)
    wide = cast(few, np.float64)
    reference = module_of(BY_ID[cell.name])
    _, exact, grads = copied(call(reference, wide))
    with on_device(cell, machine=machine) as module:
        _, final, found = call(module, few)
    moved = [(wide.state or {})[cell.states[-1].name], final[-1], exact[-1]]
    if cell.name == "indrnn":  # its cotangents move as slowly
        moved += [wide.dfinal["h"], found.state.h, grads.state.h]
    for start, got, wanted in zip(moved[::3], moved[1::3], moved[2::3], strict=True):
        assert np.abs(wanted - start).max() > 7 * u, "the state does not move enough to tell"
        assert np.abs(got.astype(np.float64) - wanted).max() <= 1.5 * u * np.abs(wanted).max()


@cells("indrnn")
@small_floats
def test_sums_over_steps_and_samples_are_rounded_once(cell: Cell, dtype: Any, u: float, machine: str) -> None:
    """Of 4224 numbers between 1 and 2, by a kernel for the biases and by a product for the weights."""
    plain = constant(cell, 33, 128, units=16, b=1, x=1)
    few = cast(dataclasses.replace(plain, dy={"h": generator(7).uniform(1, 2, plain.dy["h"].shape)}), dtype)
    exact = few.dy["h"].astype(np.float64).sum(axis=(0, 1))
    with on_device(cell, machine=machine) as module:
        grads = call(module, few)[2].params
    for found in (grads.b, grads.W[:, 0]):
        assert np.all(np.abs(found.astype(np.float64) - exact) <= (u + 2.0**-18) * exact)
