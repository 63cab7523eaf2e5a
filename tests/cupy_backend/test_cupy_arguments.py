"""What CuPy modules take and refuse, and what they need: arrays of other libraries, errors before any work, CuPy, a device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_host import Foreign, import_text
from cupy_support import BY_ID, OnDevice, carried, cells, cupy_on, needs_substitute, on_device, text_of, watch
from support import ROOT, call, cell_of, copied, draw, same_bits

from cellspec.cell import Cell

some_cells = cells("lstm", "gru_after", "indrnn", "mingru", "valid-joined")
GENERATED = sorted((ROOT / "generated").glob("*_cupy.py"))


def good(module: OnDevice, cell: Cell) -> SimpleNamespace:
    """Good arguments on the machine, by name, and the tape of a call."""
    drawn = draw(cell)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    params, x, state, dy, dfinal = module.there((params, x, state, *drawn.upstream(module)))
    tape = module.module.forward(params, x, state)[2]
    return SimpleNamespace(params=params, x=x, state=state, dy=dy, dfinal=dfinal, tape=tape)


def first(arrays: Any, new: Any) -> Any:
    """A named tuple with another first field; for an array the new one itself."""
    return arrays._replace(**{arrays._fields[0]: new}) if isinstance(arrays, tuple) else new


def fails(module: OnDevice, kind: type[Exception], message: str, run: Callable[..., Any], *args: Any, **options: Any) -> None:
    """``run`` raises one sentence that begins as ``message``, before anything is allocated."""
    with watch(module.cupy) as seen, pytest.raises(kind, match=f"^{message}") as caught:
        run(*args, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert seen.allocations == [], f"{message}: {seen.allocations}"


# --- wrong arguments ---------------------------------------------------------------------------------------------


def calls(module: OnDevice, ok: SimpleNamespace) -> list[tuple[str, Callable[[Any], Any]]]:
    """For each argument of each function its name, and the call with another value of it."""
    m = module.module
    return [
        ("params", lambda v: m.forward(v, ok.x, ok.state)),
        ("params", lambda v: m.backward(v, ok.tape, ok.dy, ok.dfinal)),
        ("params", lambda v: m.step(v, ok.x[0], ok.state)),
        ("params", lambda v: m.trace(v, ok.x, ok.state)),
        ("x", lambda v: m.forward(ok.params, v)),
        ("x", lambda v: m.trace(ok.params, v, ok.state)),
        ("x_t", lambda v: m.step(ok.params, v, ok.state)),
        ("state", lambda v: m.forward(ok.params, ok.x, v)),
        ("state", lambda v: m.step(ok.params, ok.x[0], v)),
        ("state", lambda v: m.trace(ok.params, ok.x, v)),
        ("dy", lambda v: m.backward(ok.params, ok.tape, v)),
        ("dfinal", lambda v: m.backward(ok.params, ok.tape, ok.dy, v)),
    ]


def value(ok: SimpleNamespace, name: str) -> Any:
    """The good argument."""
    return ok.x[0] if name == "x_t" else getattr(ok, name)


def path_of(name: str, argument: Any) -> str:
    """How an error calls the first array of an argument."""
    return f"{name}.{argument._fields[0]}" if isinstance(argument, tuple) else name


@some_cells
def test_what_is_no_array_on_the_device_is_named(cell: Cell, machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        ok = good(module, cell)
        for name, run in calls(module, ok):
            there = value(ok, name)
            one = there[0] if isinstance(there, tuple) else there
            where = re.escape(path_of(name, there))
            for wrong, called in (
                (one.get(), r"numpy\.ndarray"), (one.get().tolist(), "list"), (None, "NoneType"), (3.0, "float"), ("a", "str"),
            ):  # fmt: skip
                expected = rf"{where} must be a CuPy array \(or any object on a CUDA device .*\), got {called}$"
                fails(module, TypeError, expected, run, first(there, wrong))


@some_cells
def test_wrong_dtypes_and_shapes_are_named(cell: Cell, machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        ok = good(module, cell)
        for name, run in calls(module, ok):
            there = value(ok, name)
            one = there[0] if isinstance(there, tuple) else there
            # A parameter's dtype is everyone's, and x stands for x_t: another argument may be named.
            anyone = {"params": r"(params\.\w+|x|tape)", "x_t": "(x|x_t)"}.get(name, re.escape(path_of(name, there)))
            for dtype in (np.float32, np.int64):
                fails(module, TypeError, rf"{anyone} has dtype \w+, expected ", run, first(there, one.astype(dtype)))
            for shaped in (one[None], one[:0]):
                message = rf"({anyone}|x|state\.\w+|params\.\w+) (has shape|must be a CuPy array of shape)"
                if not (name.startswith("x") and shaped.ndim == one.ndim):  # no steps, no samples: fine
                    fails(module, ValueError, message, run, first(there, shaped))


@some_cells
def test_tuples_of_the_wrong_kind_are_named(cell: Cell, machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        ok = good(module, cell)
        for name, run in calls(module, ok):
            there = value(ok, name)
            if isinstance(there, tuple):
                for wrong in (list(there), there._asdict(), tuple(there)[:-1], there[0]):
                    fails(module, TypeError, rf"{name} must be \w+\({there._fields[0]}.*\), got \w+$", run, wrong)
        for tape in (None, (), ok.dy):
            message = r"tape must be what forward returned, got \w+$"
            fails(module, TypeError, message, module.module.backward, ok.params, tape, ok.dy)


@cells("lstm", "mingru")
def test_messages_say_what_was_expected(cell: Cell, machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        ok, m = good(module, cell), module.module
        last = m.Params._fields[-1]
        short = ok.params._replace(**{last: ok.params[-1][:5]})
        fails(module, ValueError, rf"params\.{last} has shape \(5,\), expected \[H\] = \(7,\)$", m.forward, short, ok.x)
        message = r"x has shape \(3, 2, 4\), expected \[T, B, I\] = \(3, 2, 5\)$"
        fails(module, ValueError, message, m.forward, ok.params, ok.x[:, :, :4])
        message = r"state\.h has shape \(1, 7\), expected \[B, H\] = \(2, 7\)$"
        fails(module, ValueError, message, m.forward, ok.params, ok.x, first(ok.state, ok.state[0][:1]))
        whole = m.Params(*(array.astype(np.int64) for array in ok.params))
        message = r"params\.\w+ has dtype int64, expected float32, float64, float16 or bfloat16$"
        fails(module, TypeError, message, m.forward, whole, ok.x)


@some_cells
def test_wrong_sizes_dtypes_and_generators_are_named(cell: Cell, machine: str) -> None:
    rng, dims = np.random.default_rng(0), dict.fromkeys(cell.dims, 3)
    with on_device(cell, machine=machine) as module:
        ok, m = good(module, cell), module.module
        for wrong, kind in ((0.5, TypeError), (-1, ValueError), ("3", TypeError), (None, TypeError), (True, TypeError)):
            name = cell.dims[0]
            fails(module, kind, name, m.init_params, rng, **(dims | {name: wrong}))
            fails(module, kind, "batch", m.init_state, ok.params, batch=wrong)
            fails(module, kind, "T", m.Workspace, wrong, 2, ok.params)
            fails(module, kind, "B", m.Workspace, 2, wrong, ok.params)
        fails(module, TypeError, "dtype is int32, expected ", m.init_params, rng, **dims, dtype=np.int32)
        fails(module, TypeError, "rng must be a numpy", m.init_params, 0, **dims)
        missing = ok.params._asdict() | {"nothing": 0}
        with pytest.raises(TypeError, match="nothing"):
            m.Params(**missing)


@some_cells
def test_a_wrong_workspace_is_named_before_anything_is_allocated(cell: Cell, machine: str) -> None:
    """Also where the state is left out and x is not in C order, which take memory once everything is checked."""
    with on_device(cell, machine=machine) as module:
        ok, m = good(module, cell), module.module
        turned = module.cupy.ascontiguousarray(ok.x.transpose()).transpose()
        for steps, batch in ((4, 2), (3, 3), (2, 2)):
            ws = m.Workspace(steps, batch, ok.params)
            message = rf"workspace was made for \({steps}, {batch}, .*expected \(T, B, dtype, \*dims\) = "
            fails(module, ValueError, message, m.forward, ok.params, turned, workspace=ws)
            fails(module, ValueError, message, m.backward, ok.params, ok.tape, ok.dy, workspace=ws)
        small = m.Workspace(3, 2, m.Params(*(array.astype(np.float32) for array in ok.params)))
        fails(module, ValueError, "workspace was made for ", m.forward, ok.params, turned, workspace=small)
        fails(module, TypeError, "workspace must be a Workspace, got str", m.forward, ok.params, turned, workspace="ws")
        for run, args in ((m.forward, (ok.params, turned)), (m.backward, (ok.params, ok.tape, ok.dy))):
            fails(module, ValueError, "graph=True needs a workspace, in which the captured loop lies$", run, *args, graph=True)


# --- arrays of other libraries -----------------------------------------------------------------------------------


@some_cells
@pytest.mark.parametrize("protocols", [{"interface": False}, {"dlpack": False}, {}], ids=["dlpack", "interface", "both"])
def test_arrays_of_other_libraries_are_taken(cell: Cell, protocols: dict[str, bool], machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        ok, m = good(module, cell), module.module
        expected = copied(call(module, draw(cell)))

        def foreign(there: Any) -> Any:
            return carried(there, lambda array: Foreign(array, **protocols), module.cupy.ndarray)

        params, x, state, dy, dfinal = map(foreign, (ok.params, ok.x, ok.state, ok.dy, ok.dfinal))
        with watch(module.cupy) as seen:
            y, final, tape = m.forward(params, x, state)
            grads = m.backward(params, tape, dy, dfinal)
        assert (seen.copies, seen.synchronisations) == ([], [])
        assert same_bits(module.here((y, final, grads)), expected)
        steps = (m.step(params, foreign(ok.x[0]), state), m.step(ok.params, ok.x[0], ok.state))
        assert same_bits(*map(module.here, steps))
        values = (m.trace(params, x, state), m.trace(ok.params, ok.x, ok.state))
        assert same_bits(*(tuple(module.here(traced).values()) for traced in values))
        assert same_bits(module.here(m.init_state(params, batch=2)), module.here(m.init_state(ok.params, batch=2)))
        assert m.Workspace(3, 2, params).key == m.Workspace(3, 2, ok.params).key


# --- what has to be there ----------------------------------------------------------------------------------------


def test_without_cupy_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(cell_of(BY_ID["lstm"]))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        import_text(text)
    expected = "lstm_cupy needs CuPy: pip install 'cellspec[cuda13x]' or 'cupy-cuda13x[ctk]' (cuda12x for CUDA 12)"
    assert (str(caught.value), caught.value.name) == (expected, "cupy")


def test_a_broken_cupy_speaks_for_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("import no_such_part\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        import_text(text_of(cell_of(BY_ID["lstm"])))


WITHOUT_DEVICE = """\
import cupy, numpy as np
from generated import lstm_cupy as lstm
zeros = np.zeros(3)
try:
    lstm.forward(lstm.Params(*[zeros]*12), zeros)
except TypeError as error:
    print(error)
try:
    lstm.init_params(np.random.default_rng(0), I=3, H=4)
except cupy.cuda.runtime.CUDARuntimeError as error:
    print(str(error).split(":")[0])
assert lstm._MODULES == {}
"""


def test_without_a_device_modules_import_and_cupy_says_that_there_is_none() -> None:
    pytest.importorskip("cupy", reason="CuPy, whose own error is looked at, is not installed")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_DEVICE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    argument, device = done.stdout.splitlines()
    assert argument.startswith("params.Wi must be a CuPy array") and argument.endswith("got numpy.ndarray")
    assert device in ("cudaErrorNoDevice", "cudaErrorInsufficientDriver")


@pytest.mark.parametrize("path", GENERATED, ids=[path.stem for path in GENERATED])
def test_importing_compiles_and_allocates_nothing(path: Path, machine: str) -> None:
    with cupy_on(machine) as cupy, watch(cupy) as seen:
        module = import_text(path.read_text("utf-8"), path.stem)
    assert path.stem == f"{module.CELL}_cupy"
    assert (module._MODULES, seen.allocations, seen.launches) == ({}, [], [])


@needs_substitute
@cells("lstm")
def test_kernels_are_compiled_once_a_dtype(cell: Cell) -> None:
    with on_device(cell) as module:
        for dtype in (np.float64, np.float32, np.float64):
            call(module, draw(cell, dtype=dtype))
        assert sorted(module.module._MODULES) == ["float32", "float64"]
