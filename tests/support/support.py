"""Helpers of the numeric tests: cells from text, modules built once, seeded random arguments."""

from __future__ import annotations

import dataclasses
import gc
import math
import sys
import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

import cellspec
from cellspec.cell import Cell
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import load_spec, parse_spec
from cellspec.verification.check import PRIMES
from cellspec.verification.sampling import Sample, sample

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "specs").glob("*.yaml"))
VALID = sorted((ROOT / "tests" / "valid").glob("*.yaml"))
SPECS = [*SHIPPED, *VALID]

COMMON = (
    # what the lectures show
    "cifg", "cifg_input", "elman", "elman_logistic", "gru", "gru_after", "gru_before", "gru_concat", "indrnn",
    "lstm", "lstm_1997", "lstm_concat", "lstm_hard", "lstm_zse", "mingru", "peephole", "peephole_concat",
    # what has a feature that few others have
    "cfc", "clockwork", "mlstm_xlstm", "qrnn_fo", "rhn", "scornn", "skip_gru", "slstm",
)  # fmt: skip
"""Shipped cells that every test tries each time; the slow tests try the others too."""

Array = npt.NDArray[Any]


def spec_id(path: Path) -> str:
    """How a spec is called in the names of tests."""
    return path.stem if path in SHIPPED else f"{path.parent.name}-{path.stem}"


@cache
def cell_of(path: Path) -> Cell:
    """The cell of a spec file."""
    return elaborate(load_spec(path))


@cache
def module_of(path: Path) -> ModuleType:
    """The NumPy module of a spec file."""
    return cellspec.build(cell_of(path))


def cell_from(text: str) -> Cell:
    """The cell that YAML ``text`` states."""
    return elaborate(parse_spec(text))


def generator(seed: int) -> np.random.Generator:
    """A generator with a fixed seed; pytest shows the line if the test fails."""
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def draw(cell: Cell, *, steps: int = 3, batch: int = 2, seed: int = 1, dtype: Any = np.float64, **options: Any) -> Sample:
    """Random arguments for ``cell``, all dims distinct."""
    dims = dict(zip(cell.dims, PRIMES, strict=False))
    return sample(cell, dims, steps, batch, generator(seed), dtype, **options)


def leaves(result: Any) -> list[Array]:
    """All arrays in nested tuples, from left to right."""
    if isinstance(result, tuple):
        return [leaf for item in result for leaf in leaves(item)]
    return [np.asarray(result)]


def same_bits(one: Any, other: Any) -> bool:
    """Whether two results hold the same bits in arrays of the same shapes and dtypes."""
    a, b = leaves(one), leaves(other)
    return len(a) == len(b) and all(
        p.dtype == q.dtype and p.shape == q.shape and np.ascontiguousarray(p).tobytes() == np.ascontiguousarray(q).tobytes()
        for p, q in zip(a, b, strict=True)
    )


def copied(result: Any) -> Any:
    """A deep copy of nested named tuples of arrays."""
    if isinstance(result, tuple):
        parts = [copied(item) for item in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return np.array(result)


def call(module: Any, drawn: Sample, **options: Any) -> tuple[Any, Any, Any]:
    """``(y, final, grads)`` of one forward and backward call."""
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, final, tape = module.forward(params, x, state, **options)
    grads = module.backward(params, tape, *drawn.upstream(module), **options)
    return y, final, grads


def close(one: Any, other: Any, tolerance: float = 1e-12) -> bool:
    """Whether all arrays agree, relative to the largest magnitude in each."""
    a, b = leaves(one), leaves(other)
    assert [p.shape for p in a] == [q.shape for q in b]
    pairs = [(np.max(np.abs(p - q), initial=0), np.max(np.abs(q), initial=0)) for p, q in zip(a, b, strict=True)]
    return all(difference <= tolerance * max(size, 1e-3) for difference, size in pairs)


def pushed(drawn: Sample, size: float) -> Sample:
    """The same call with vectors among the parameters at ±size, a random sign each: pre-activations that saturate."""
    rng = generator(5)

    def push(array: Array) -> Array:
        signs = rng.choice([-1.0, 1.0], size=array.shape).astype(array.dtype)
        return array + array.dtype.type(size) * signs if array.ndim == 1 else array

    return dataclasses.replace(drawn, params={name: push(array) for name, array in drawn.params.items()})


def driven(drawn: Sample, size: float) -> Sample:
    """The same call with inputs at about ±size."""
    return dataclasses.replace(drawn, x={name: array.dtype.type(size) * np.sign(array) for name, array in drawn.x.items()})


def part(drawn: Sample, chosen: Any, axis: int) -> Sample:
    """Some steps (axis 0) or samples (axis 1) of a call."""
    index = (chosen,) if axis == 0 else (slice(None), chosen)
    changes: dict[str, Any] = {
        "x": {name: array[index] for name, array in drawn.x.items()},
        "dy": {name: array[index] for name, array in drawn.dy.items()},
    }
    if axis == 1:
        changes["state"] = {name: array[chosen] for name, array in (drawn.state or {}).items()}
        changes["dfinal"] = {name: array[chosen] for name, array in drawn.dfinal.items()}
    return dataclasses.replace(drawn, **changes)


def clock() -> float:
    """Processor time, for limits: what other tests have left in memory is no longer looked through for garbage.

    Where coverage traces every line there is no limit: its time is not the compiler's.
    """
    if "coverage" in sys.modules and sys.modules["coverage"].Coverage.current() is not None:
        return math.inf
    gc.collect()
    gc.freeze()
    return time.process_time()
