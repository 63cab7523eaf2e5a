"""How the work of the compiler grows: with the number of equations, not with its square; not with the length of a lag."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from support import cell_from, clock
from test_lags import plain

import cellspec
from cellspec.cell import Cell

STEPS = {
    "functions": "tanh(a{0} + b)",
    "slopes": "tanh(0.9*a{0})",  # nothing is asked of what lies between: the derivative is one product
    "sums": "0.5*a{0} + b*h[t-1]",
    "gates": "sigmoid(a{0})*a{0} + b",
    "products": "tanh(U @ a{0} + b)",
}
"""How an equation reads the one before."""


def chained(kind: str, count: int) -> Cell:
    """A cell of so many equations, each of which reads the one before."""
    head = "name: chained\ninputs: {x: I}\nstates: {h: H}\nparams: {W: [H, I], U: [H, H], b: H}\nequations: |\n"
    lines = ["a0 = tanh(W @ x[t] + U @ h[t-1] + b)", *(f"a{k} = {STEPS[kind].format(k - 1)}" for k in range(1, count - 1))]
    return cell_from(head + "".join(f"  {line}\n" for line in [*lines, f"h[t] = a{count - 2}"]))


def calls(cell: Cell, backend: str) -> int:
    """The calls of functions of this project that generating a module takes."""
    count = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and "cellspec" in frame.f_code.co_filename

    sys.setprofile(watch)
    try:
        cellspec.generate(cell, backend)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    ("kind", "count", "backend"),
    [
        ("gates", 15, "numpy"),
        pytest.param("slopes", 60, "numpy", marks=pytest.mark.slow),
        ("products", 15, "numpy"),
        ("products", 15, "cupy"),
    ],
)
def test_twice_the_equations_are_not_four_times_the_work(kind: str, count: int, backend: str) -> None:
    calls(chained(kind, 4), backend)  # what is done once
    assert calls(chained(kind, 2 * count), backend) < 2.5 * calls(chained(kind, count), backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "cupy"])
@pytest.mark.parametrize("kind", STEPS)
def test_400_chained_equations_compile_in_seconds(kind: str, backend: str) -> None:
    start = clock()
    cellspec.generate(chained(kind, 400), backend)
    assert clock() - start < 10


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_the_farthest_lag_compiles_at_once(backend: str) -> None:
    start = clock()
    cellspec.generate(plain("tanh(W @ x[t] + U @ h[t-1000] + b)"), backend)
    assert clock() - start < 2
