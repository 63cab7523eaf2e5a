"""Sources that generated modules include: what is taken of them, and that nothing in them is without use."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from support import ROOT, cell_from

from cellspec import generate
from cellspec.backends import included
from cellspec.backends.wrap import wrapped
from cellspec.language.keys import NUMBERED_INITIALISERS, PLAIN_INITIALISERS

BACKENDS = ROOT / "cellspec" / "backends"
FOLDERS = {folder.parent.name: folder for folder in sorted(BACKENDS.rglob("runtime"))}
SOURCES = [
    path for folder in FOLDERS.values() for path in sorted(folder.iterdir()) if path.is_file() and path.stem != "__init__"
]
PYTHON = [path for path in SOURCES if path.suffix == ".py"]


def defined(path: Path) -> list[tuple[str, str]]:
    """The functions and classes of a file, each with its keyword."""
    kinds = {ast.FunctionDef: "def", ast.ClassDef: "class"}
    return [(kinds[type(node)], node.name) for node in ast.parse(path.read_text("utf-8")).body if type(node) in kinds]


def test_a_function_brings_those_that_it_calls() -> None:
    texts = included.texts_of(("numpy",), ["silu", "elu"])
    assert [text.split("(")[0] for text in texts] == ["def _elu", "def _sigmoid", "def _silu"]
    assert included.texts_of(("numpy",), ["sigmoid", "silu"]) == texts[1:]
    assert [text.split("(")[0] for text in included.texts_of(("cupy",), ["gelu"])] == ["def _erfc", "def _gelu"]
    assert included.texts_of(("numpy",), []) == []


def test_a_backend_has_its_own_functions_and_those_of_all() -> None:
    numpy, cupy = (included.texts_of((backend,), ["sigmoid", "orthogonal"]) for backend in ("numpy", "cupy"))
    assert numpy[0] == cupy[0] and "np.exp" in numpy[1] and "cp.exp" in cupy[1]
    with pytest.raises(KeyError):
        included.texts_of(("cupy",), ["transposed"])


def test_a_file_is_included_without_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without what it imports for the tools alone; from the first folder that has it."""
    for name in ("one/runtime", "runtime"):
        (tmp_path / name).mkdir(parents=True)
    text = '"""About."""\n\nimport x\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from y import z\n\n\n'
    text += "# about f\n@x.y\ndef f() -> None:\n    import a\n\n\nTABLE = 1\n"
    (tmp_path / "one/runtime/both.py").write_text(text)
    (tmp_path / "runtime/both.py").write_text("other = 1\n")
    (tmp_path / "runtime/all.cu").write_text("// about\nint x;\n\n")
    monkeypatch.setattr(included, "HERE", tmp_path)
    assert included.source(("one",), "both.py") == "@x.y\ndef f() -> None:\n    import a\n\n\nTABLE = 1"
    assert included.source((), "both.py") == "other = 1"
    assert included.source(("one",), "all.cu") == "// about\nint x;"


def test_decorators_belong_to_functions() -> None:
    text = "@one\n@two\ndef _f(x):\n    return _g(x)\n\n\nrest = 1\n"
    ((name, function),) = included._functions_of(text)
    assert (name, function.text) == ("_f", "@one\n@two\ndef _f(x):\n    return _g(x)") and "_g" in function.names


@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_no_name_is_taken_twice(backend: str) -> None:
    names = [name for path in PYTHON if path.parents[1].name in (backend, "backends") for _, name in defined(path)]
    assert len(names) > 20 and sorted(set(names)) == sorted(names)


RARE = """\
name: rare
inputs: {x: H}
states: {h: H}
equations: |
  h[t] = gelu(x[t]) + erf(h[t-1]) + elu(h[t-9])
"""
"""What no shipped cell has."""
BACKENDS_THERE = ("numpy", "cupy")


@cache
def modules(backend: str) -> str:
    """The texts of many modules."""
    files = sorted((ROOT / "generated").glob(f"*_{backend}.py"))
    return "\n".join([*(file.read_text("utf-8") for file in files), generate(cell_from(RARE), backend)])


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(BACKENDS).as_posix() for path in SOURCES])
def test_nothing_is_without_use(path: Path) -> None:
    """Every function, and every file of CUDA, is in a module, with its long lines broken; and what a stub declares."""
    backend = path.parents[1].name if path.parents[1].name in BACKENDS_THERE else "numpy"
    match path.suffix:
        case ".cu":
            text = wrapped(f'_CUDA = r"""\n{included.source((backend,), path.name)}\n"""\n')
            wanted = ["\n".join(text.strip().split("\n")[1:-1])]
        case ".py":
            wanted = [wrapped(function.text) for _, function in included._functions_of(path.read_text("utf-8"))]
        case _:
            wanted = [f"\n{kind} {name}" for kind, name in defined(path)]
    assert wanted and [text for text in wanted if text not in modules(backend)] == []


def test_every_initialiser_has_its_function() -> None:
    kinds = {initialiser.kind for initialiser in PLAIN_INITIALISERS.values()} | set(NUMBERED_INITIALISERS)
    assert {f"_{kind}" for kind in kinds - {"constant"}} == {
        name for _, name in defined(FOLDERS["backends"] / "initialisers.py")
    }
