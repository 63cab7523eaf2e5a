"""Templates hold what differs from module to module, in pieces that can be read at a glance."""

from __future__ import annotations

from pathlib import Path

import pytest

import cellspec

BACKENDS = Path(cellspec.__file__).parent / "backends"
TEMPLATES = sorted(BACKENDS.rglob("*.jinja"))
LONGEST = 80


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.relative_to(BACKENDS).as_posix())
def test_templates_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < LONGEST


def test_there_are_templates_to_look_at() -> None:
    assert len(TEMPLATES) > 50
