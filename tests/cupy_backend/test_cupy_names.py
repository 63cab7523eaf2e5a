"""The names that a CuPy module uses itself, as its templates have them: no value is called by one where it has a meaning."""

from __future__ import annotations

import ast
import builtins
import re

import pytest
from support import ROOT, cell_of, spec_id

import cellspec
from cellspec.backends.cupy.around import TAKEN
from cellspec.backends.cupy.host import ENTRIES, LOOPS
from cellspec.backends.cupy.module import MEMORIES, VALUES, attributes, names_of_values

PATHS = [ROOT / "specs" / f"{name}.yaml" for name in ("lstm", "ln_lstm", "mlstm_xlstm", "gru_d")] + [
    ROOT / "tests" / folder / f"{name}.yaml"
    for folder, name in (
        ("valid_language", "dilated"),
        ("valid_language", "clock"),
        ("valid", "favourites"),
        ("valid", "constants"),
    )
]


def loaded(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


@pytest.mark.parametrize("path", PATHS, ids=spec_id)
def test_what_functions_read_of_the_module_is_taken(path: object) -> None:
    tree = ast.parse(cellspec.generate(cell_of(path), "cupy"))  # type: ignore[arg-type]
    outermost = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    outermost |= {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    taken = set(names_of_values())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in VALUES:
            read = loaded(node)
            assert read & outermost <= taken, node.name
            stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            stored |= {arg.arg for arg in ast.walk(node) if isinstance(arg, ast.arg)}
            assert not stored & (outermost | (read & set(dir(builtins)))), "it would hide what the function reads"


def test_the_functions_in_which_values_stand_are_there() -> None:
    tree = ast.parse(cellspec.generate(cell_of(PATHS[0]), "cupy"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert {*VALUES, *LOOPS} - {"_derived"} <= there, "which only cells with derived parameters have"


def test_attributes_of_a_memory() -> None:
    found = set(attributes())
    assert {
        "use",
        "T",
        "B",
        "dtype",
        "captured",
        "saved",
        "steps",
        "cuts",
        "rows",
        "is_cut",
        "stream",
        "latest",
        "device",
    } <= found
    assert {"scratch", "owner", "key", "numbered"} <= found and "self" not in found
    for path in PATHS:
        tree = ast.parse(cellspec.generate(cell_of(path), "cupy"))
        for node in (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name in MEMORIES):
            targets = [t for n in ast.walk(node) if isinstance(n, ast.Assign) for t in n.targets]
            flat = [t for target in targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
            set_ = [
                t.attr for t in flat if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id == "self"
            ]
            twice = {name for name in set_ if set_.count(name) > 1}
            assert twice <= found, "two arrays would have one name"


def test_names_in_kernels() -> None:
    """No variable, size or buffer of a kernel is called by a word that the text of kernels uses otherwise."""
    assert {"T", "B", "t", "k", "j", "row", "rows", "at", "sample", "real", "stored", "keep", "sum_row", "running_sums"} <= set(
        TAKEN
    )
    assert {"exp", "logistic", "square", "sigmoid", "int", "threadIdx", "INFINITY"} <= set(TAKEN)
    for path in PATHS:
        text = cellspec.generate(cell_of(path), "cupy")
        kernels = text[text.index("_CUDA = ") :]
        for name in re.findall(r"const real (\w+) =", kernels):
            assert name not in TAKEN
    assert {"sum_units", "sum_units_real", "multiply_heads"} <= ENTRIES


def test_names_of_included_sources() -> None:
    assert {"_Masks", "_multiply_heads", "_sum_rows", "_arranged"} <= set(names_of_values())
