"""Fixtures: ``path`` is every shipped spec and every spec of ``tests/valid``, ``machine`` is what CuPy modules run on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import SPECS, spec_id


@pytest.fixture(params=SPECS, ids=[spec_id(path) for path in SPECS])
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
