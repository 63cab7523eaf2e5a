"""Files of ``tests/invalid`` begin with ``# error: line:column: regex`` lines: exactly those mistakes must be reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cellspec
from cellspec.errors import SpecError

FILES = sorted((Path(__file__).parents[1] / "invalid").glob("*.yaml"))
HEADER = re.compile(r"# error: (\d+):(\d+): (.+)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_mistake_is_reported_where_it_stands(path: Path) -> None:
    expected = [match.groups() for match in map(HEADER.fullmatch, path.read_text("utf-8").splitlines()) if match]
    assert expected, f"{path} has no '# error: line:column: regex' line"
    with pytest.raises(SpecError) as caught:
        cellspec.load(path)
    found = list(caught.value.diagnostics)
    for line, column, pattern in expected:
        matching = [
            diagnostic
            for diagnostic in found
            if (diagnostic.location.line, diagnostic.location.column) == (int(line), int(column))
            and re.search(pattern, diagnostic.message)
        ]
        assert matching, f"nothing like {line}:{column}: {pattern} in\n{caught.value}"
        found.remove(matching[0])
    assert not found, "not expected:\n" + "\n".join(map(str, found))
    assert all(Path(diagnostic.location.file) == path for diagnostic in caught.value.diagnostics)
    assert all("\n" not in diagnostic.message for diagnostic in caught.value.diagnostics)
