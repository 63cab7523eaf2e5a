"""Random specs over the whole language, verified against the oracle like any other."""

from __future__ import annotations

import numpy as np
import pytest
from random_language import RandomLanguage

import cellspec
from cellspec.elaborate import elaborate
from cellspec.loader import parse_spec
from cellspec.verify import verify


def check(seed: int) -> None:
    text = RandomLanguage(seed).text()
    print(f"seed {seed}\n{text}")
    cell = elaborate(parse_spec(text, f"language_{seed}.yaml"))
    report = verify(cell, cellspec.build(cell), seed=seed, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("seed", range(8))
def test_random_cells_are_right(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 300))
def test_many_random_cells_are_right(seed: int) -> None:
    check(seed)
