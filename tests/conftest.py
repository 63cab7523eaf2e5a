"""Fixtures: ``path`` is every shipped spec and every spec of ``tests/valid``; most shipped ones only in slow runs."""

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
