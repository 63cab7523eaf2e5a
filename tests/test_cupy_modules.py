"""Generated CuPy modules, run on a CPU by the substitute for CuPy, against the equations; and what else they promise."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import Foreign, import_text, substitute, unavailable
from cupy_support import OnDevice, on_device
from random_cells import RandomCell
from support import ROOT, SPECS, call, cell_from, cell_of, copied, draw, generator, leaves, module_of, same_bits, spec_id

import cellspec
from cellspec.backends.cupy import classes
from cellspec.backends.cupy.module import plans
from cellspec.cell import Cell
from cellspec.exchanges import exchanges
from cellspec.pipeline import compile_cell
from cellspec.sampling import Sample, sample
from cellspec.schedule import schedule
from cellspec.verify import verify, verify_sample

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())

QUICK = ("lstm", "gru_before", "peephole", "indrnn", "mingru", "valid-stretch", "valid-joined", "valid-scan", "valid-parallel",
         "valid-derived", "valid-favourites")  # fmt: skip
SMOOTH = ("lstm", "gru_before", "indrnn", "mingru", "valid-derived", "valid-joined", "valid-projection")
BY_ID = {spec_id(path): path for path in SPECS}


def cells(*names: str) -> pytest.MarkDecorator:
    """Parametrizes a test by the cells of these names."""
    return pytest.mark.parametrize("cell", [cell_of(BY_ID[name]) for name in names], ids=names)


every_cell = pytest.mark.parametrize(
    "cell",
    [pytest.param(cell_of(path), marks=[] if name in QUICK else pytest.mark.slow, id=name) for name, path in BY_ID.items()],
)
some_cells = cells("lstm", "gru_before", "mingru", "valid-stretch")


def drawn_with(cell: Cell, sizes: tuple[int, ...], steps: int, batch: int, dtype: Any = np.float64) -> Sample:
    """Random arguments with these dims, the rest 5, 7, …"""
    dims = dict(zip(cell.dims, (*sizes, 5, 7, 11, 13), strict=False))
    return sample(cell, dims, steps, batch, generator(4), dtype)


# --- the equations -------------------------------------------------------------------------------------------


@every_cell
def test_forward_and_every_gradient_are_those_of_the_equations(cell: Cell) -> None:
    with on_device(cell) as module:
        report = verify(cell, module, seed=3, exact=False)
    assert report.ok, str(report)


@cells("lstm", "indrnn", "valid-stretch", "valid-joined")
@pytest.mark.parametrize(("steps", "batch"), [(7, 3), (2, 11), (1, 1)])
def test_ragged_shapes(cell: Cell, steps: int, batch: int) -> None:
    with on_device(cell) as module:
        report = verify_sample(cell, module, drawn_with(cell, (5, 33), steps, batch))
    assert report.ok, str(report)


@some_cells
def test_many_steps_and_samples(cell: Cell) -> None:
    """More rows than one part of a sum, more threads than a block has."""
    with on_device(cell) as module:
        report = verify_sample(cell, module, drawn_with(cell, (2, 3), 21, 13))
    assert report.ok, str(report)


def small(drawn: Sample, dtype: Any) -> Sample:
    """The same call with all arrays rounded to ``dtype``."""

    def cast(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: array.astype(dtype) for name, array in arrays.items()}

    assert drawn.state is not None
    parts = {name: cast(getattr(drawn, name)) for name in ("params", "x", "state", "dy", "dfinal")}
    return dataclasses.replace(drawn, dtype=np.dtype(dtype), **parts)


@cells(*SMOOTH)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_floats(cell: Cell, dtype: str) -> None:
    """Within 4 eps (T + 1) of the same call in float64, relative to the largest element: each step rounds a few times."""
    kind = np.float16 if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    few = small(draw(cell, steps=7, batch=3), kind)
    allowed = 4 * (7 + 1) * {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    with on_device(cell) as module:
        got = leaves(call(module, few))
        expected = leaves(call(module, small(few, np.float64)))
        params, x, state = few.module_params(module), few.module_x(module), few.module_state(module)
        got += leaves((tuple(module.trace(params, x, state).values()), module.step(params, x[0], state)))
    assert all(array.dtype == kind for array in got)
    for one, other in zip(got, expected, strict=False):
        assert np.abs(one.astype(np.float64) - other).max() <= allowed * max(np.abs(other).max(), 0.1)


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 150) if s != 79)])
def test_random_cells(seed: int) -> None:
    cell = cell_from(RandomCell(seed).text())
    with on_device(cell) as module:
        report = verify(cell, module, seed=seed, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


# --- the same bits, whatever the order -----------------------------------------------------------------------


@some_cells
@pytest.mark.parametrize("order", ["reverse", "random", "starve"])
def test_the_order_of_threads_does_not_matter(cell: Cell, order: str) -> None:
    drawn = drawn_with(cell, (5, 33), 3, 5, np.float32)
    with on_device(cell) as module:
        expected = call(module, drawn)
    with on_device(cell, order, seed=7) as module:
        assert same_bits(call(module, drawn), expected)


@some_cells
def test_inputs_are_only_read_and_results_repeat_bit_by_bit(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        cp = module.cupy
        arguments = tuple(map(cp.asarray, (*drawn.params.values(), *drawn.x.values(), *(drawn.state or {}).values())))
        before = [array.get() for array in arguments]
        params = module.Params(*arguments[: len(drawn.params)])
        x, state = arguments[len(drawn.params)], module.State(*arguments[len(drawn.params) + 1 :])
        dy, dfinal = (tuple_on(cp, part) for part in drawn.upstream(module))
        results = []
        for _ in range(2):
            y, final, tape = module.module.forward(params, x, state)
            results.append(numpy_of(cp, (y, final, module.module.backward(params, tape, dy, dfinal))))
        assert same_bits(results[0], results[1])
        assert same_bits(tuple(before), tuple(array.get() for array in arguments))


def tuple_on(cp: Any, value: Any) -> Any:
    """Nested tuples of NumPy arrays on the device."""
    return type(value)(*map(cp.asarray, value)) if isinstance(value, tuple) else cp.asarray(value)


def numpy_of(cp: Any, value: Any) -> Any:
    """Nested tuples of arrays, from the device."""
    return tuple(numpy_of(cp, item) for item in value) if isinstance(value, tuple) else cp.asnumpy(value)


@some_cells
def test_a_tape_can_be_used_twice_and_owns_what_it_needs(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        cp, params = module.cupy, tuple_on(module.cupy, drawn.module_params(module))
        y, _, tape = module.module.forward(params, cp.asarray(drawn.module_x(module)), tuple_on(cp, drawn.module_state(module)))
        upstream = [tuple_on(cp, part) for part in drawn.upstream(module)]
        first = numpy_of(cp, module.module.backward(params, tape, *upstream))
        for array in y if isinstance(y, tuple) else (y,):
            array.fill(7)
        assert same_bits(numpy_of(cp, module.module.backward(params, tape, *upstream)), first)


# --- workspaces and graphs -----------------------------------------------------------------------------------


def workspace(module: OnDevice, drawn: Sample) -> Any:
    return module.Workspace(drawn.steps, drawn.batch, drawn.module_params(module))


@some_cells
def test_a_workspace_changes_no_bit(cell: Cell) -> None:
    drawn = draw(cell, dtype=np.float32)
    with on_device(cell) as module:
        expected = call(module, drawn)
        ws = workspace(module, drawn)
        for _ in range(3):
            assert same_bits(call(module, drawn, workspace=ws), expected)


@some_cells
def test_a_graph_is_captured_once_and_replayed(cell: Cell) -> None:
    drawn, other = draw(cell), draw(cell, seed=5)
    with on_device(cell) as module:
        products = "multiply(" in module.module._CUDA
        ws = workspace(module, drawn)
        first = copied(call(module, drawn, workspace=ws, graph=True))
        with module.cupy.machine.watch() as seen:
            assert same_bits(call(module, drawn, workspace=ws, graph=True), first)
        assert seen.graphs == 2
        assert all("get" in what or "asnumpy" in what or "host" in what for what in seen.synchronisations), "the test's own"
        for arguments in (drawn, other):
            expected = call(module, arguments)
            got = call(module, arguments, workspace=ws, graph=True)
            if products:  # by kernels of the module's own in a graph, by cuBLAS otherwise
                assert all(np.allclose(a, b, 1e-12, 1e-13) for a, b in zip(leaves(got), leaves(expected), strict=True))
            else:
                assert same_bits(got, expected)


@some_cells
def test_the_loop_allocates_nothing_and_never_waits(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        ws = workspace(module, drawn)
        call(module, drawn, workspace=ws)
        for loop, memory in ((module._forward_loop, ws.forward), (module._backward_loop, ws.backward)):
            with module.cupy.machine.watch() as seen:
                loop(memory, module.cupy.dot)
            assert (seen.allocations, seen.synchronisations) == ([], [])
        with module.cupy.machine.watch() as seen:
            params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
            module.module.forward(*(tuple_on(module.cupy, a) for a in (params, x, state)))
        assert seen.synchronisations == []


def test_stale_tapes_and_strange_workspaces() -> None:
    cell = cell_of(BY_ID["lstm"])
    drawn, longer = draw(cell), draw(cell, steps=4)
    with on_device(cell) as module:
        ws, params = workspace(module, drawn), drawn.module_params(module)
        _, _, tape = module.forward(params, drawn.module_x(module), workspace=ws)
        module.forward(params, drawn.module_x(module), workspace=ws)
        with pytest.raises(ValueError, match="tape is stale: a later call of forward used its workspace"):
            module.backward(params, tape, *drawn.upstream(module))
        with pytest.raises(ValueError, match=r"workspace was made for \(3, 2, .*expected \(T, B, dtype, \*dims\) = \(4, 2"):
            module.forward(params, longer.module_x(module), workspace=ws)
        with pytest.raises(TypeError, match="workspace must be a Workspace, got dict"):
            module.forward(params, drawn.module_x(module), workspace={})
        with pytest.raises(ValueError, match="graph=True needs a workspace"):
            module.forward(params, drawn.module_x(module), graph=True)


# --- arguments -----------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named_before_anything_is_allocated() -> None:
    cell = cell_of(BY_ID["lstm"])
    drawn = draw(cell)
    with on_device(cell) as module:
        cp, real = module.cupy, module.module
        params, x = tuple_on(cp, drawn.module_params(module)), cp.asarray(drawn.module_x(module))
        state = tuple_on(cp, drawn.module_state(module))
        wrong: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
            (TypeError, r"x must be a CuPy array .*, got numpy\.ndarray", (params, drawn.module_x(module), state)),
            (TypeError, r"params\.Wf must be a CuPy array .*, got list", (params._replace(Wf=[1.0]), x, state)),
            (TypeError, "params must be Params", ({}, x, state)),
            (TypeError, "x has dtype float32, expected float64", (params, x.astype(np.float32), state)),
            (ValueError, r"x has shape \(3, 2, 4\), expected \[T, B, I\] = \(3, 2, 5\)", (params, x[:, :, :4], state)),
            (ValueError, r"params\.bo has shape \(5,\), expected \[H\] = ", (params._replace(bo=params.bo[:5]), x, state)),
            (ValueError, r"state\.c has shape \(1, 7\)", (params, x, state._replace(c=state.c[:1]))),
            (TypeError, r"has dtype int64, expected float32, float64, float16 or bfloat16",
             (type(params)(*(p.astype(np.int64) for p in params)), x, state)),
        ]  # fmt: skip
        for error, message, arguments in wrong:
            with cp.machine.watch() as seen, pytest.raises(error, match=message):
                real.forward(*arguments)
            assert seen.allocations == [], message
        with pytest.raises(TypeError, match="tape must be what forward returned"):
            real.backward(params, None, x)


def test_other_libraries_arrays_and_any_strides() -> None:
    cell = cell_of(BY_ID["gru_before"])
    drawn = draw(cell)
    with on_device(cell) as module:
        cp, real = module.cupy, module.module
        expected = copied(call(module, drawn))
        params = real.Params(*(Foreign(cp.asarray(p)) for p in drawn.params.values()))
        turned = cp.asarray(np.ascontiguousarray(drawn.module_x(module).transpose(2, 0, 1))).transpose(1, 2, 0)
        assert not turned.flags.c_contiguous
        dy, dfinal = drawn.upstream(module)
        dy = cp.asarray(np.ascontiguousarray(dy.transpose(1, 0, 2))).transpose(1, 0, 2)
        y, final, tape = real.forward(params, turned, tuple_on(cp, drawn.module_state(module)))
        grads = real.backward(params, tape, Foreign(dy), tuple_on(cp, dfinal))
        assert same_bits(numpy_of(cp, (y, final, grads)), expected)


@some_cells
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)])
def test_no_steps_or_no_samples(cell: Cell, steps: int, batch: int) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        params = drawn.module_params(module)
        x = np.zeros((steps, batch, *drawn.module_x(module).shape[2:]))
        y, final, tape = module.forward(params, x)
        dy = type(y)(*(np.zeros_like(a) for a in y)) if isinstance(y, tuple) else np.zeros_like(y)
        grads = module.backward(params, tape, dy, final)
    assert all(a.shape[:2] == (steps, batch) for a in (y if isinstance(y, tuple) else (y,)))
    assert grads.x.shape == x.shape and all(not a.any() for a in grads.params)
    assert all(np.array_equal(a, b) for a, b in zip(grads.state, final, strict=True))


def test_parameters_start_as_in_numpy() -> None:
    path = BY_ID["lstm"]
    with on_device(cell_of(path)) as module:
        ours = module.init_params(np.random.default_rng(2), I=3, H=4, dtype=np.float32)
        state = module.init_state(ours, batch=2)
    theirs = module_of(path).init_params(np.random.default_rng(2), I=3, H=4, dtype=np.float32)
    assert same_bits(ours, theirs) and same_bits(state, module_of(path).init_state(theirs, batch=2))


# --- the text ------------------------------------------------------------------------------------------------


def test_importing_compiles_nothing_and_needs_no_device() -> None:
    with substitute() as cp, cp.machine.watch() as seen:
        module = import_text(cellspec.generate(cell_of(BY_ID["lstm"]), "cupy"))
    assert module._MODULES == {} and seen.allocations == []


DIGEST = "import cellspec, hashlib; print(hashlib.sha256(cellspec.generate(cellspec.load('{}'), 'cupy').encode()).hexdigest())"


@pytest.mark.parametrize("name", ["valid-joined", "peephole"])
def test_same_bytes_under_every_hash_seed(name: str) -> None:
    command = [sys.executable, "-c", DIGEST.format(BY_ID[name])]
    found = set()
    for seed in ("0", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        found.add(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment).stdout)
    assert len(found) == 1


# --- classes -------------------------------------------------------------------------------------------------


def kinds(cell: Cell) -> tuple[str, str]:
    """The classes of both directions."""
    (_, forward), (_, backward) = plans(compile_cell(cell))
    return forward.kind.value, backward.kind.value


@pytest.mark.parametrize(
    ("name", "expected", "count"),
    [
        ("lstm", ("step", "step"), (1, 1)),
        ("gru_before", ("step", "step"), (2, 2)),
        ("indrnn", ("sequence", "sequence"), (0, 0)),
        ("mingru", ("sequence", "sequence"), (0, 0)),
        ("valid-scan", ("sequence", "sequence"), (0, 0)),
        ("valid-parallel", ("parallel", "parallel"), (0, 0)),
        ("valid-elementwise", ("sequence", "sequence"), (0, 0)),
    ],
)
def test_classes_and_exchanges(name: str, expected: tuple[str, str], count: tuple[int, int]) -> None:
    compiled = compile_cell(cell_of(BY_ID[name]))
    assert kinds(compiled.cell) == expected
    assert (len(exchanges(schedule(compiled.forward))), len(exchanges(schedule(compiled.backward)))) == count


def test_a_cell_that_asks_too_much_of_a_thread_goes_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(BY_ID["mingru"])
    monkeypatch.setattr(classes, "BUDGET", 3)
    assert kinds(cell) == ("step", "step")
    with on_device(cell) as module:
        report = verify(cell, module, seed=3, exact=False)
    assert report.ok, str(report)


def test_the_generated_tree_is_importable_without_a_gpu() -> None:
    with substitute():
        for path in sorted(Path(ROOT, "generated").glob("*_cupy.py")):
            module = import_text(path.read_text("utf-8"), path.stem)
            assert path.stem == f"{module.CELL}_cupy"
