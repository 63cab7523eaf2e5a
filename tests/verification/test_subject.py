"""What ``cellspec verify`` compares: the module of any backend that takes NumPy arrays."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from support import cell_from

from cellspec.backends import registry
from cellspec.cli import main
from cellspec.errors import CellspecError
from cellspec.verification.check import verify
from cellspec.verification.subject import dtypes, subject

CELL = cell_from("name: one\ninputs: {x: H}\nstates: {h: H}\nparams: {a: H}\nequations: |\n  h[t] = tanh(a*h[t-1] + x[t])\n")


class Narrow:
    """The NumPy backend under another name: with one dtype, and a module that gives twice what is right."""

    name, title, needs, dtypes = "narrow", "Narrow", ("numpy",), ("float32",)

    def __init__(self) -> None:
        self.other: Any = registry.backend("numpy")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.other, name)

    def on_host(self, module: ModuleType) -> Any:
        def forward(*arguments: Any, **options: Any) -> Any:
            y, final, tape = module.forward(*arguments, **options)
            return 2 * y, final, tape

        return SimpleNamespace(**(vars(module) | {"forward": forward}))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cellspec_narrow_backend")
    module.BACKEND = Narrow()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.BUILT_IN, "narrow", f"{module.__name__}:BACKEND")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["verify", *arguments])


def test_numpy() -> None:
    assert dtypes("numpy") == ("float64", "float32")
    assert verify(CELL, subject(CELL, "numpy"), dtypes=dtypes("numpy"), exact=False).ok


def test_the_backends_own_view_of_its_module_is_compared(narrow: None) -> None:
    assert dtypes("narrow") == ("float32",)
    report = verify(CELL, subject(CELL, "narrow"), dtypes=dtypes("narrow"), exact=False)
    assert not report.ok and {row.dtype for row in report.rows} == {"float32"}
    done = run("elman", "--backend", "narrow")
    assert done.exit_code == 1 and done.stdout.startswith("elman: FAILED\n")


def test_what_takes_no_numpy_arrays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "modules of the CuPy backend do not take NumPy arrays; 'cellspec verify' cannot run them"
    monkeypatch.setattr(registry, "lacking", lambda name: ())
    monkeypatch.setattr("cellspec.verification.subject.build", lambda *_: ModuleType("made"))
    with pytest.raises(CellspecError, match=f"^{told}$"):
        subject(CELL, "cupy")


def test_a_library_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    done = run("elman", "--backend", "cupy")
    told = "cellspec: modules of the CuPy backend need cupy, which is not installed\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", told)


def test_an_unknown_backend_is_a_mistake_of_the_command_line() -> None:
    done = run("elman", "--backend", "nunpy")
    assert (done.exit_code, done.stderr) == (2, "cellspec: unknown backend 'nunpy'; did you mean 'numpy'?\n")
