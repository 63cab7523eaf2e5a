"""No backend code searches text that it has written, nor evaluates any: what there is to know, structures say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellspec

BACKENDS = Path(cellspec.__file__).parent / "backends"
FILES = [path for path in sorted(BACKENDS.rglob("*.py")) if "runtime" not in path.parts]
"""Sources in ``runtime`` are parts of modules, which write nothing."""

SEARCHES = ("startswith", "endswith", "removeprefix", "removesuffix", "find", "rfind", "partition", "rpartition", "replace")
"""What looks for a part of a text."""

OTHER_TEXTS = {
    "base.py": "names of attributes",
    "common.py": "what a spec's author has written, and a module's lines as they are broken",
    "cupy/cuda.py": "the table of functions in CUDA",
    "cupy/module.py": "names of values",
    "cupy/spelling.py": "the table of words",
    "frameworks/module.py": "names of values, and of modules to import",
    "fused/allocation.py": "names of values",
    "fused/bodies.py": "names of values",
    "legend.py": "names of values",
    "naming.py": "names of values",
    "numpy/called.py": "names of values",
    "numpy/emit.py": "names of values",
    "numpy/setting.py": "names of values",
    "plain.py": "a pair of parentheses around the whole",
    "remarks.py": "names of values",
    "skeleton.py": "templates",
    "wrap.py": "a module's lines, to be broken",
}
"""Where a text is searched that is no code that has been written, or where lines are broken."""


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


def searches(source: str) -> Iterator[str]:
    """Where a module looks for a part of a text, by a method."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if method in SEARCHES:
                yield f"line {node.lineno} calls {method}"


def name_of(path: Path) -> str:
    return path.relative_to(BACKENDS).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_text_is_matched_or_evaluated(path: Path) -> None:
    assert not list(offences(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_text_is_searched(path: Path) -> None:
    found = list(searches(path.read_text()))
    assert bool(found) == (name_of(path) in OTHER_TEXTS), found


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


@pytest.mark.parametrize("source", ["a.startswith('ws.')", "f(a).replace('ws.', 'saved.')"])
def test_the_search_for_methods_finds_them(source: str) -> None:
    assert list(searches(source))


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 80 and set(OTHER_TEXTS) <= set(map(name_of, FILES))
