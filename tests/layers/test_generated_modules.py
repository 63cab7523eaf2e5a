"""Generated modules offer what the protocol says, names and signatures: at run time, and to mypy, which reads this file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cuda_host import import_text
from cupy_support import BY_ID, SUBSTITUTE, cupy_on, unavailable
from support import ROOT, cell_from, cell_of

import cellspec
from cellspec.model.generated import CONSTANTS, FUNCTIONS, TYPES, GeneratedModule, Gradients

if TYPE_CHECKING:
    from generated import fast_weights_numpy, gru_cupy, gru_d_cupy, gru_d_numpy, gru_numpy

    TO_MYPY: tuple[GeneratedModule, ...] = (fast_weights_numpy, gru_cupy, gru_d_cupy, gru_d_numpy, gru_numpy)
    AND_GRADIENTS: type[Gradients] = gru_numpy.Grads

MEMBERS = {name for name in vars(GeneratedModule) if not name.startswith("_")}
OPTIONS = {"numpy": {"checkpoint"}, "cupy": {"graph"}}
"""What the functions of a backend take besides."""
DTYPE = {"dtype"}
FREE = "name: free\ninputs: {x: H}\nstates: {h: H}\nequations: |\n  h[t] = tanh(x[t] + h[t-1])\n"
"""A cell whose dim no parameter tells."""
CELLS = {name: cell_of(BY_ID[name]) for name in ("gru", "gru_d", "mlstm_xlstm", "clockwork")} | {"free": cell_from(FREE)}


@pytest.fixture(params=["numpy", "cupy"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend, with the stand-in for CuPy in its place."""
    if request.param == "numpy":
        yield "numpy"
        return
    if reason := unavailable(SUBSTITUTE):  # no Linux on x86-64, or no g++: the reason is what is lacking
        pytest.skip(reason)
    with cupy_on(SUBSTITUTE):
        yield "cupy"


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A function's parameters, but for those that stand for any others."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "self"}


def misfits(module: Any, backend: str) -> list[str]:
    """What keeps a module from being what the protocol says."""
    found = [f"no {name}" for name in sorted(MEMBERS - set(dir(module)))]
    found += [f"{name} is not public" for name in sorted(MEMBERS - set(module.__all__))]
    for name in sorted({*FUNCTIONS, "Workspace"} & set(dir(module))):
        asked, there = parameters(getattr(GeneratedModule, name)), parameters(getattr(module, name))
        if [one for one in there if one in asked] != list(asked):
            found.append(f"{name} takes {', '.join(there)}")
        for one in there.values():
            if (wanted := asked.get(one.name)) is not None:
                fits = (one.kind, one.default) == (wanted.kind, wanted.default)
            elif one.default is one.empty:
                fits = one.kind is one.KEYWORD_ONLY and one.name in module.DIMS
            else:
                fits = one.kind is one.KEYWORD_ONLY and one.name in (DTYPE if name == "init_params" else OPTIONS[backend])
            if not fits:
                found.append(f"{name}: {one}")
    return found


def test_the_lists_are_the_protocols() -> None:
    assert {*CONSTANTS, *TYPES, *FUNCTIONS} == MEMBERS
    assert len(CONSTANTS) + len(TYPES) + len(FUNCTIONS) == len(MEMBERS)


@pytest.mark.parametrize("name", CELLS)
def test_modules_conform(name: str, backend: str) -> None:
    module: Any = cellspec.build(CELLS[name], backend)
    assert misfits(module, backend) == []
    assert module.Grads._fields == ("params", "x", "state")
    for table, kind in ((module.PARAM_SHAPES, module.Params), (module.STATE_SHAPES, module.State)):
        assert tuple(table) == kind._fields and all(isinstance(axis, str) for axes in table.values() for axis in axes)
    assert hasattr(module, "Inputs") == (len(module.INPUT_SHAPES) > 1)
    assert (module.CELL, len(module.SPEC_SHA256), type(module.DIMS)) == (name, 64, tuple)


def test_dims_that_no_array_tells_are_required(backend: str) -> None:
    module: Any = cellspec.build(CELLS["free"], backend)
    for function in ("init_state", "pack", "Workspace"):
        assert parameters(getattr(module, function))["H"].default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("old", "new", "misfit"),
    [
        ("def trace(", "def traced(", ["no trace"]),
        ("def pack(params: Params)", "def pack(parameters: Params)", ["pack takes parameters", "pack: parameters: 'Params'"]),
        ("(params: Params, batch: int)", "(params: Params, batch: int = 1)", ["init_state: batch: 'int' = 1"]),
        ("reverse: bool = False,", "reverse: bool = False, backwards: bool = False,", ["forward: backwards: 'bool' = False"]),
        ("x_t: np.ndarray, state: State)", "x_t: np.ndarray, state: State, *, seed: int)", ["step: seed: 'int'"]),
        ('"State", "Tape",', '"State",', ["Tape is not public"]),
    ],
)  # fmt: skip
def test_misfits_are_found(old: str, new: str, misfit: list[str]) -> None:
    text = cellspec.generate(CELLS["gru"])
    assert text.count(old) == 1
    assert misfits(import_text(text.replace(old, new)), "numpy") == misfit


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "generated").glob("*_numpy.py")), ids=lambda path: path.stem)
def test_all_modules_conform(path: Path) -> None:
    assert misfits(import_text(path.read_text("utf-8"), path.stem), "numpy") == []
