"""Backends by name: those that come with cellspec, those of other distributions, and what is wrong with some."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from outside import BACKEND, distribution
from support import ROOT, cell_of

import cellspec
from cellspec.backends import registry
from cellspec.backends.base import MEMBERS
from cellspec.backends.registry import BackendError, backend

BACKENDS = tuple(registry.BUILT_IN)

ELMAN = ROOT / "specs" / "elman.yaml"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on ``sys.path``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    return tmp_path


def fails(message: str, name: str = "count") -> None:
    with pytest.raises(BackendError) as caught:
        backend(name)
    assert str(caught.value) == message


# --- those that come with cellspec ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_built_in(name: str) -> None:
    found = backend(name)
    assert found.name == name and all(hasattr(found, member) for member in MEMBERS)
    assert found is backend(name) and "speed" in found.residual_policies
    assert set(found.residual_policies) <= set(cellspec.RESIDUALS) and found.dtypes[0] == "float64"


def test_the_registry_is_light() -> None:
    """Neither a backend nor what it needs is loaded to say what there is."""
    code = "import sys; from cellspec.backends import registry; print(registry.names())\n"
    code += "print(sorted({'sympy', 'numpy', 'jinja2', 'cellspec.pipeline', 'cellspec.backends.numpy'} & set(sys.modules)))\n"
    code += "registry.backend('numpy'); print('cellspec.backends.cupy.backend' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.splitlines()[1:] == ["[]", "False"], done.stderr


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    message = f"^unknown backend 'nunpy'; there is {', '.join(BACKENDS)}$"
    with pytest.raises(ValueError, match=message):
        backend("nunpy")
    with pytest.raises(ValueError, match=message):
        cellspec.generate(cell_of(ELMAN), "nunpy")


def test_who_knows_a_policy_for_residuals() -> None:
    names = [one.name for one in registry.able("memory")]
    assert "numpy" in names and "cupy" not in names and len(registry.able("speed")) == len(BACKENDS)
    assert registry.told([backend("numpy")]) == "NumPy backend"
    assert registry.told([backend("numpy"), backend("cupy")]) == "NumPy and CuPy backends"


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a package is missing is no bug of cellspec; the module's own sentence says what to do."""
    assert registry.lacking("numpy") == ()
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))  # made by hand: there, though nowhere to be found
    assert registry.lacking("cupy") == ()
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert registry.lacking("cupy") == ("cupy",)
    with pytest.raises(ModuleNotFoundError, match=r"^elman_cupy needs CuPy: pip install "):
        cellspec.build(cell_of(ELMAN), "cupy")


# --- those of other distributions ----------------------------------------------------------------------------


def test_one_from_outside(outside: Path) -> None:
    assert "count" not in registry.names()
    distribution(outside)
    assert registry.names() == (*BACKENDS, "count")
    module = cellspec.build(cell_of(ELMAN), "count")
    assert module.CELL == "elman" and module.operations(3) == 3 * sum(module.COUNTS.values()) > 0
    assert "h[t]: [H]" in str(module.__doc__) and "give out  h[t]" in str(module.__doc__)
    with pytest.raises(ValueError, match=r"is for the NumPy.* backends?; the Counting backend has 'speed' alone$"):
        cellspec.generate(cell_of(ELMAN), "count", "memory")


def test_built_in_names_are_taken(outside: Path) -> None:
    distribution(outside, "numpy = counting:BACKEND")
    assert registry.names() == BACKENDS and backend("numpy").title == "NumPy"


@pytest.mark.parametrize(
    ("point", "text", "message"),
    [
        ("counting:BACKEND", "import no_such_part", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_part'"),
        ("counting:BACKEND", "raise RuntimeError('two\\nlines')", "cannot be loaded: RuntimeError: two lines"),
        ("counting:BACKEND", "raise RuntimeError", "cannot be loaded: RuntimeError"),
        ("counting:other", BACKEND, "cannot be loaded: AttributeError: module 'counting' has no attribute 'other'"),
        ("nowhere:BACKEND", BACKEND, "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("counting:Count", BACKEND, "is no backend: it is a class: name an object of it"),
        ("counting:FORWARD", BACKEND, f"is no backend: it has no {', '.join(MEMBERS[:1] + MEMBERS[2:])}"),
        ("counting:BACKEND", BACKEND.replace("    finish = ()\n", ""), "is no backend: it has no finish"),
        (
            "counting:BACKEND",
            BACKEND.replace("{name}", "other"),
            "is a backend that calls itself 'other': both names must be the same",
        ),
    ],
)
def test_one_that_cannot_be_used_is_told_in_a_sentence(outside: Path, point: str, text: str, message: str) -> None:
    text = text.format(name="count") if "class Count" in text else text
    distribution(outside, f"count = {point}", text=text)
    fails(f"the entry point 'count = {point}' of outside 1.2 {message}")


def test_two_of_one_name(outside: Path) -> None:
    distribution(outside)
    distribution(outside, "count = another:BACKEND", module="another", name="elsewhere")
    first, second = (
        "the entry point 'count = {}:BACKEND' of {} 1.2".format(*one)
        for one in (("another", "elsewhere"), ("counting", "outside"))
    )
    fails(f"the backend 'count' is what {first} and {second} both call theirs: remove one")


# --- the command line ----------------------------------------------------------------------------------------


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m cellspec`` where the distribution in ``folder`` is installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
    command = [sys.executable, "-m", "cellspec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=folder)


def test_the_commands_know_it(tmp_path: Path) -> None:
    distribution(tmp_path)
    for command, offered in (("generate", (*BACKENDS, "count", "all")), ("show", (*BACKENDS, "count"))):
        assert "|".join(offered) in program(tmp_path, command, "--help").stdout.split()
    done = program(tmp_path, "generate", "elman", "gru", "--backend", "count", "--out", "made", "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["__init__.py", "elman_count.py", "gru_count.py"]
    run = [sys.executable, "-c", "from made import gru_count; print(gru_count.CELL, gru_count.operations(2) > 0)"]
    assert subprocess.run(run, capture_output=True, text=True, timeout=60, cwd=tmp_path).stdout == "gru True\n"
    assert program(tmp_path, "generate", "elman", "gru", "--backend", "count", "--out", "made", "--check").returncode == 0
    code = program(tmp_path, "show", "gru", "--stage", "code", "--backend", "count").stdout
    assert code == (tmp_path / "made" / "gru_count.py").read_text("utf-8")


def test_show_asks_it(tmp_path: Path) -> None:
    distribution(tmp_path)
    schedule = program(tmp_path, "show", "gru", "--stage", "schedule", "--backend", "count").stdout
    assert "policy of the Counting backend\n  operands of a sum's products, head by head        stacked\n" in schedule
    assert "counted\n  7 operations in the loop" in schedule and "on a GPU" not in schedule
    assert "memory in bytes" not in program(tmp_path, "show", "gru", "--backend", "count").stdout
    passes = program(tmp_path, "show", "gru", "--passes", "--backend", "count").stdout
    assert "give out results alone: forward\n@@ " in passes and "-give out  h[t], r, u, n\n+give out  h[t]\n" in passes


def test_the_commands_say_what_is_wrong_with_it(tmp_path: Path) -> None:
    distribution(tmp_path, text="import no_such_part")
    done = program(tmp_path, "generate", "elman", "--backend", "count")
    told = "the entry point 'count = counting:BACKEND' of outside 1.2 cannot be loaded: ModuleNotFoundError: No module named"
    assert (done.returncode, done.stdout) == (1, "") and done.stderr == f"cellspec: {told} 'no_such_part'\n"
    assert program(tmp_path, "generate", "elman", "--out", "made").returncode == 0  # nobody asks for it
    done = program(tmp_path, "generate", "elman", "--backend", "cuont")
    assert (done.returncode, done.stderr) == (2, "cellspec: unknown backend 'cuont'; did you mean 'count'?\n")
