"""Generated CuPy modules against the equations: on a GPU, and everywhere over a checking substitute for CuPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cupy_support import needs_substitute, on_device
from random_cells import RandomCell
from support import SPECS, call, cell_of, copied, draw, leaves, same_bits, spec_id

from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import parse_spec
from cellspec.verification.check import verify


def test_forward_and_every_gradient_are_those_of_the_equations(path: Path, machine: str) -> None:
    with on_device(cell_of(path), "random", machine=machine, seed=3) as module:
        report = verify(cell_of(path), module, seed=3)
    assert report.ok, str(report)


@needs_substitute
@pytest.mark.parametrize("path", SPECS[:: len(SPECS) // 6], ids=spec_id)
def test_the_order_of_threads_changes_no_bit(path: Path) -> None:
    drawn = draw(cell_of(path), steps=7, batch=3, dtype=np.float32)
    results = []
    for schedule in ("forward", "reverse", "random", "starve"):
        with on_device(cell_of(path), schedule, seed=1) as module:
            first = copied(call(module, drawn))
            assert same_bits(call(module, drawn), first), "the second call gives other bits"
            results.append(first)
    assert all(same_bits(result, results[0]) for result in results[1:])


@needs_substitute
@pytest.mark.parametrize("path", SPECS, ids=spec_id)
def test_no_samples_give_zeros(path: Path) -> None:
    """A launch for nothing reads and writes nothing: its arrays have no memory."""
    with on_device(cell_of(path)) as module:
        _, _, grads = call(module, draw(cell_of(path), batch=0))
    assert not any(gradient.any() for gradient in leaves(grads))


def check_random(seed: int, machine: str) -> None:
    text = RandomCell(seed).text()
    print(f"seed {seed}\n{text}")
    cell = elaborate(parse_spec(text, f"random_{seed}.yaml"))
    with on_device(cell, "random", machine=machine, seed=seed) as module:
        report = verify(cell, module, seed=seed, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("seed", range(6))
def test_random_cells_are_right(seed: int, machine: str) -> None:
    check_random(seed, machine)


@pytest.mark.slow
@pytest.mark.parametrize("seed", (*range(6, 10), *range(25, 75)))
def test_many_random_cells_are_right(seed: int, machine: str) -> None:
    check_random(seed, machine)
