"""Fixtures: ``path`` is every shipped spec and every spec of ``tests/valid``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import SPECS, spec_id


@pytest.fixture(params=SPECS, ids=[spec_id(path) for path in SPECS])
def path(request: pytest.FixtureRequest) -> Path:
    """A spec file."""
    found: Path = request.param
    return found
