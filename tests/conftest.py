"""Fixtures: ``path`` is every shipped spec, most of them only in slow runs, and every spec of ``tests/valid``;
``machine`` is what CuPy modules run on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import COMMON, SHIPPED, SPECS, spec_id

PATHS = [
    pytest.param(path, id=spec_id(path), marks=[pytest.mark.slow] if path in SHIPPED and path.stem not in COMMON else [])
    for path in SPECS
]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> Path:
    """A spec file."""
    found: Path = request.param
    return found


@pytest.fixture(params=["substitute", pytest.param("device", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> str:
    """The substitute for CuPy; and a CUDA device, where there is one."""
    from cupy_support import unavailable

    found: str = request.param
    if reason := unavailable(found):
        pytest.skip(reason)
    return found
