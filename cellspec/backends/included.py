"""What is the same text in every generated module that has it: Python and CUDA files in the folders ``runtime``.

They are sources like any other, which are linted, typed and tested by themselves, and a generated module gets a copy: it stands
alone. A copy leaves out what the file says of itself and what it imports; names that a generated module defines elsewhere are
imported from a stub beside the file, for the tools alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Function(NamedTuple):
    """The text of a function, and the names that stand in it."""

    text: str
    names: frozenset[str]


def source(folders: tuple[str, ...], name: str) -> str:
    """The text of a file, without what is for the file alone, from the first of the backends' folders that has it."""
    path = next(path for folder in _runtime(folders) if (path := folder / name).exists())
    text = path.read_text("utf-8")
    return (_without_head(text) if path.suffix == ".py" else text).rstrip("\n")


def sources(folders: tuple[str, ...]) -> Iterator[str]:
    """The texts of all Python files that modules of these backends may include."""
    for folder in _runtime(folders):
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                yield source(folders, path.name)


def texts_of(folders: tuple[str, ...], names: Iterable[str]) -> list[str]:
    """The texts of functions by their names without the underscore, and of those that they call, in the order of the names."""
    known, found = _functions(folders), set[str]()
    left = [f"_{name}" for name in names]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += known[name].names & known.keys()
    return [known[name].text for name in sorted(found)]


def _runtime(folders: tuple[str, ...]) -> list[Path]:
    """Where the sources of backends are, and behind them those that all share."""
    return [*(HERE / folder / "runtime" for folder in folders), HERE / "runtime"]


@cache
def _functions(folders: tuple[str, ...]) -> dict[str, Function]:
    """The functions of all Python files of these folders, by name."""
    found: dict[str, Function] = {}
    for folder in reversed(_runtime(folders)):
        for path in sorted(folder.glob("*.py")):
            text = path.read_text("utf-8")
            found |= dict(_functions_of(text))
    return found


def _functions_of(text: str) -> Iterator[tuple[str, Function]]:
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            names = frozenset(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
            yield node.name, Function("\n".join(lines[_first_line(node) - 1 : node.end_lineno]), names)


def _without_head(text: str) -> str:
    """A module from its first function, class or table on."""
    first = next(node for node in ast.parse(text).body if not _is_head(node))
    return "\n".join(text.splitlines()[_first_line(first) - 1 :])


def _is_head(node: ast.stmt) -> bool:
    """Whether a statement is for the file alone: its docstring, its imports, also those that are for the tools."""
    match node:
        case ast.Expr(ast.Constant(str())) | ast.Import() | ast.ImportFrom() | ast.If(ast.Name("TYPE_CHECKING")):
            return True
    return False


def _first_line(node: ast.stmt) -> int:
    """The line on which a statement begins, be it with a decorator."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])
