"""Every module has a test that names it: a new one without tests of its own fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

ELSEWHERE = {
    "cellspec.__main__": "runs in processes that tests start: tests/tools/test_cli.py and test_stopping.py",
    "cellspec.backends.cupy.runtime": "read as text, which asks for no CuPy: tests/cupy_backend/test_cupy_{runtime,hazards}.py",
}
"""Modules, or packages with all that is in them, that need no test of their own, and why."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by name."""
    found = {}
    for path in sorted((ROOT / "cellspec").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def public(module: str) -> list[str]:
    """What a module lists in ``__all__``."""
    (listed,) = (
        node.value
        for node in tree(modules()[module]).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return list(ast.literal_eval(listed))


@cache
def handed_on(module: str) -> dict[str, tuple[str, str]]:
    """The names that a module has of others: name → (module, name there). A star stands for the other's ``__all__``."""
    found: dict[str, tuple[str, str]] = {}
    for node in tree(modules()[module]).body:
        if isinstance(node, ast.ImportFrom) and node.module in modules():
            for alias in node.names:
                names = public(node.module) if alias.name == "*" else [alias.name]
                found |= {alias.asname or name: (node.module, name) for name in names}
    return found


def source(module: str, name: str) -> str | None:
    """The module that ``name`` of ``module`` is, or that defines it; None for what is not of this package."""
    while module in modules():
        if f"{module}.{name}" in modules():
            return f"{module}.{name}"
        if name not in handed_on(module):
            return module
        module, name = handed_on(module)[name]
    return None


def used(path: Path) -> Iterator[str]:
    """The modules that a test imports, or whose names it reads by way of another module."""
    aliases: dict[str, str] = {}
    nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute)]
    for node in nodes:
        match node:
            case ast.Import(names=names):
                aliases |= {(one.asname or one.name): one.name for one in names if one.name in modules()}
            case ast.ImportFrom(module=str(module), names=names) if module in modules():
                for one in names:
                    if (found := source(module, one.name)) is not None:
                        aliases[one.asname or one.name] = found
                        yield found
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in aliases:
                yield aliases[name]
                if (found := source(aliases[name], attribute)) is not None:
                    yield found


@cache
def untested() -> list[str]:
    """The modules that hold more than a docstring, and that no test uses."""
    tested = {module for path in (ROOT / "tests").rglob("test_*.py") for module in used(path)}
    return [name for name, path in modules().items() if name not in tested and len(tree(path).body) > 1]


def covers(entry: str, module: str) -> bool:
    return module == entry or module.startswith(f"{entry}.")


def test_every_module_is_tested() -> None:
    missing = [module for module in untested() if not any(covers(entry, module) for entry in ELSEWHERE)]
    assert not missing, f"no test imports {', '.join(missing)}"


@pytest.mark.parametrize("entry", ELSEWHERE)
def test_no_reason_is_out_of_date(entry: str) -> None:
    assert any(covers(entry, module) for module in untested()), f"{entry} is tested now"


def test_what_counts_as_a_test(tmp_path: Path) -> None:
    """A name counts for the module that defines it, by whatever way it is imported."""
    path = tmp_path / "test_it.py"
    path.write_text(
        "from cellspec import oracle\nfrom cellspec.layers import Stack\nimport numpy.linalg\noracle.jvp, oracle.Masks\n"
        "from cellspec import ir\nir.CumSum\n"  # by way of a star
    )
    found = {module.removeprefix("cellspec.") for module in used(path)}
    assert found == {"oracle", "layers.stack", "oracle.duals", "oracle.masks", "ir", "ir.ops.along"}
