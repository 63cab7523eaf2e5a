"""No backend code here searches text that it has written, nor evaluates any: what there is to know, structures say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellspec

BACKENDS = Path(cellspec.__file__).parent / "backends"
FOLDERS = ("numpy", "arrays", "memory")
FILES = (
    *(path for folder in FOLDERS for path in sorted((BACKENDS / folder).glob("*.py"))),
    BACKENDS / "common.py",
    BACKENDS / "naming.py",
)


def offences(source: str) -> Iterator[str]:
    """Where a module matches patterns, evaluates text, or parses what it has written."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"imports {name.name}" for name in names if name.name in ("re", "regex", "fnmatch"))
            case ast.ImportFrom(module="re" | "regex" | "fnmatch" as module):
                yield f"imports {module}"
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as called)):
                yield f"calls {called}"
            case ast.Call(func=ast.Attribute(attr="sympify" | "parse_expr" | "literal_eval" as called)):
                yield f"calls {called}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_text_is_searched(path: Path) -> None:
    assert not list(offences(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import re",
        "import os, re",
        "from re import sub",
        "eval('a')",
        "exec('a')",
        "sympy.sympify('a')",
        "def f():\n    import re",
    ],
)
def test_the_search_for_searches_finds_them(source: str) -> None:
    assert list(offences(source))


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 20
