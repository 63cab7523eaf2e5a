"""Generated CuPy modules keep what the NumPy modules keep: shapes of all sizes, pure functions, tapes, streaming, traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import documents
import numpy as np
import pytest
from cupy_support import (
    BY_ID,
    SUBSTITUTE,
    OnDevice,
    carried,
    cells,
    cupy_on,
    every_second,
    fortran,
    needs_substitute,
    on_device,
)
from support import call, cell_of, close, copied, draw, driven, generator, leaves, module_of, part, pushed, same_bits

import cellspec
from cellspec.cell import Cell
from cellspec.model.nodes import Kind
from cellspec.verification.check import verify_sample
from cellspec.verification.sampling import Sample, sample

NAMES = ("lstm", "gru_after", "indrnn", "mingru")
some_cells = cells(*NAMES)
more_cells = cells(*NAMES, "gru_before", "valid-joined", "valid-stretch", "valid-derived", "valid-parallel")


def reference(cell: Cell) -> Any:
    """The NumPy module of a cell."""
    return module_of(BY_ID[cell.name] if cell.name in BY_ID else BY_ID[f"valid-{cell.name}"])


# --- shapes ------------------------------------------------------------------------------------------------------


@cells(*NAMES, "valid-stretch", "valid-joined")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("steps", "batch", "units"), [(7, 3, 33), (2, 11, 1), (70, 2, 3)])
def test_sizes_that_no_block_of_threads_has(cell: Cell, dtype: Any, steps: int, batch: int, units: int, machine: str) -> None:
    """Also more rows than one part of a sum is made of."""
    dims = {d: units if d == "H" else 5 for d in cell.dims}
    drawn = sample(cell, dims, steps, batch, generator(4), dtype)
    with on_device(cell, "random", machine=machine, seed=2) as module:
        report = verify_sample(cell, module, drawn)
    assert report.ok, str(report)


@more_cells
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
def test_no_steps_and_no_samples_give_empty_results(cell: Cell, steps: int, batch: int, machine: str) -> None:
    drawn = draw(cell, steps=steps, batch=batch, dtype=np.float32)
    with on_device(cell, machine=machine) as module:
        params, state = drawn.module_params(module), drawn.module_state(module)
        for options in ({}, {"workspace": module.Workspace(steps, batch, params)}):
            y, final, grads = call(module, drawn, **options)
            assert [a.shape for a in leaves(y)] == [a.shape for a in drawn.dy.values()]
            assert all(a.dtype == np.float32 for a in leaves((y, final, grads)))
            assert grads.x.shape == drawn.module_x(module).shape
            assert all(a.shape == p.shape and not a.any() for a, p in zip(grads.params, params, strict=True))
            if steps == 0:
                assert same_bits(final, state) and same_bits(grads.state, drawn.upstream(module)[1])
            else:
                assert [a.shape for a in final] == [a.shape for a in state]
        trace = module.trace(params, drawn.module_x(module), state)
    loops = [e.target.name for e in cell.assignments if e.target.kind is not Kind.DERIVED]
    assert all(trace[name].shape[:2] == (steps, batch) for name in loops)


@more_cells
@pytest.mark.parametrize("layout", [every_second, fortran])
def test_any_strides_are_accepted(cell: Cell, layout: Callable[..., Any], machine: str) -> None:
    drawn = draw(cell)
    with on_device(cell, machine=machine) as module:
        expected = copied(call(module, drawn))
        relaid = carried(module.there(arguments(drawn, module)), lambda a: layout(module.cupy, a), module.cupy.ndarray)
        y, final, tape = module.module.forward(*relaid[:3])
        grads = module.module.backward(relaid[0], tape, *relaid[3:])
        assert close(module.here((y, final, grads)), expected)


def arguments(drawn: Sample, module: Any) -> tuple[Any, ...]:
    """Parameters, x, state, dy and dfinal."""
    return drawn.module_params(module), drawn.module_x(module), drawn.module_state(module), *drawn.upstream(module)


# --- pure functions ----------------------------------------------------------------------------------------------


@more_cells
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arguments_are_only_read_and_results_repeat_bit_by_bit(cell: Cell, dtype: Any, machine: str) -> None:
    drawn, other = draw(cell, dtype=dtype), draw(cell, seed=2, dtype=dtype)
    with on_device(cell, machine=machine) as module:
        there = module.there(arguments(drawn, module))
        y, final, tape = module.module.forward(*there[:3])
        first = (y, final, module.module.backward(there[0], tape, *there[3:]))
        kept = copied(module.here(first))
        call(module, other)
        assert same_bits(module.here(first), kept), "a later call has changed an earlier result"
        assert same_bits(call(module, drawn), kept)
        params, x, state = there[:3]
        traced = copied(tuple(module.trace(params, x, state).values()))
        stepped = copied(module.step(params, x[0], state))
        assert same_bits(module.step(params, x[0], state), stepped)
        assert same_bits(tuple(module.trace(params, x, state).values()), traced)
        assert same_bits(module.here(there), arguments(drawn, module)), "an argument has changed"


@needs_substitute
@cells("lstm", "mingru", "valid-joined")
@pytest.mark.parametrize("order", ["reverse", "random", "starve"])
def test_the_order_of_threads_changes_no_bit_of_any_function(cell: Cell, order: str) -> None:
    drawn = sample(cell, {d: 33 if d == "H" else 5 for d in cell.dims}, 7, 3, generator(3), np.float32)

    def results(module: OnDevice) -> Any:
        ws = module.Workspace(drawn.steps, drawn.batch, drawn.module_params(module))
        params, x, state = arguments(drawn, module)[:3]
        by_graph = copied(call(module, drawn, workspace=ws, graph=True))
        return by_graph, call(module, drawn), module.step(params, x[0], state), tuple(module.trace(params, x, state).values())

    with on_device(cell) as module:
        expected = results(module)
    with on_device(cell, order, seed=7) as module:
        assert same_bits(results(module), expected)


@more_cells
def test_a_tape_serves_twice_and_owns_what_it_needs(cell: Cell, machine: str) -> None:
    drawn = draw(cell)
    with on_device(cell, machine=machine) as module:
        params, x, state, dy, dfinal = module.there(arguments(drawn, module))
        expected = copied(call(module, drawn)[2])
        y, final, tape = module.module.forward(params, x, state)
        for _ in range(2):
            assert same_bits(module.here(module.module.backward(params, tape, dy, dfinal)), expected)
        for array in (*(y if isinstance(y, tuple) else (y,)), *final):
            array[...] = float("nan")
        assert same_bits(module.here(module.module.backward(params, tape, dy, dfinal)), expected)


# --- time and batch ----------------------------------------------------------------------------------------------


@more_cells
def test_chunks_equal_one_run_also_backwards(cell: Cell, machine: str) -> None:
    drawn = draw(cell, steps=7)
    with on_device(cell, machine=machine) as module:
        params = drawn.module_params(module)
        y, final, grads = call(module, drawn)
        first, second = part(drawn, slice(0, 3), 0), part(drawn, slice(3, 7), 0)
        y1, middle, tape1 = module.forward(params, first.module_x(module), drawn.module_state(module))
        y2, last, tape2 = module.forward(params, second.module_x(module), middle)
        g2 = module.backward(params, tape2, second.upstream(module)[0], drawn.upstream(module)[1])
        g1 = module.backward(params, tape1, first.upstream(module)[0], g2.state)
    assert close(tuple(np.concatenate(pair) for pair in zip(leaves(y1), leaves(y2), strict=True)), tuple(leaves(y)))
    assert close(last, final) and close(g1.state, grads.state)
    assert close(tuple(a + b for a, b in zip(g1.params, g2.params, strict=True)), tuple(grads.params))
    assert close(np.concatenate((g1.x, g2.x)), grads.x)


@more_cells
def test_samples_of_a_batch_do_not_meet(cell: Cell, machine: str) -> None:
    drawn = draw(cell, batch=3)
    for array in (*drawn.x.values(), *(drawn.state or {}).values(), *drawn.dy.values(), *drawn.dfinal.values()):
        array[..., 0, :] = np.nan
    with on_device(cell, machine=machine) as module:
        y, final, grads = call(module, drawn)
        alone_y, alone_final, alone = call(module, part(drawn, slice(1, 2), 1))
    for array in (*leaves(y), *final, grads.x, *grads.state):
        assert np.isfinite(array[..., 1:, :]).all(), "a NaN of one sample has reached another"
    assert close((alone_y, alone.x), (tuple(a[:, 1:2] for a in leaves(y)), grads.x[:, 1:2]))
    assert close((alone_final, alone.state), tuple(a[1:2] for a in (*final, *grads.state)))


# --- NaN, large arguments ----------------------------------------------------------------------------------------


@some_cells
def test_nan_parameters_pass_through(cell: Cell, machine: str) -> None:
    drawn = draw(cell)
    with on_device(cell, machine=machine) as module:
        shapes = [a.shape for a in leaves(call(module, drawn))]
        for name in drawn.params:
            spoilt = dataclasses.replace(drawn, params=drawn.params | {name: np.full_like(drawn.params[name], np.nan)})
            result = call(module, spoilt)
            assert [a.shape for a in leaves(result)] == shapes
            assert all(np.isnan(array[-1]).any() for array in leaves(result[0])), f"NaN in {name} has vanished"


@cells("lstm", "gru_after", "mingru", "valid-functions_all")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("push", [pushed, driven])
def test_large_preactivations_are_as_in_numpy(cell: Cell, push: Callable[..., Sample], dtype: Any, machine: str) -> None:
    """Saturated, not overflown: within 16 eps (T + 1) size, as a slope is off by eps, however small, and multiplies inputs."""
    with on_device(cell, machine=machine) as module:
        for size in (100.0, 1000.0):
            drawn = push(draw(cell, steps=4, dtype=dtype), size)
            with np.errstate(all="ignore"):
                expected = call(reference(cell), drawn)
            got = call(module, drawn)
            assert all(np.isfinite(a).all() for a in leaves(expected))
            for one, other in zip(leaves(got), leaves(expected), strict=True):
                assert np.abs(one - other).max() <= 16 * 5 * np.finfo(dtype).eps * size


# --- the other functions -----------------------------------------------------------------------------------------


@more_cells
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_parameters_and_states_start_as_in_numpy(cell: Cell, dtype: Any, machine: str) -> None:
    dims = dict(zip(cell.dims, (5, 7, 11, 13), strict=False))
    theirs = reference(cell).init_params(np.random.default_rng(1), **dims, dtype=dtype)
    drawn = draw(cell, default_state=True, dtype=dtype)
    with on_device(cell, machine=machine) as module:
        assert same_bits(module.init_params(np.random.default_rng(1), **dims, dtype=dtype), theirs)
        params, x = drawn.module_params(module), drawn.module_x(module)
        initial = module.init_state(params, batch=drawn.batch)
        assert same_bits(initial, reference(cell).init_state(params, batch=drawn.batch))
        assert same_bits(module.forward(params, x)[:2], module.forward(params, x, initial)[:2])
        dy, dfinal = drawn.upstream(module)
        zeros = module.State(*(np.zeros_like(array) for array in dfinal))
        tape = module.forward(params, x)[2]
        assert same_bits(module.backward(params, tape, dy), module.backward(params, tape, dy, zeros))


@more_cells
def test_steps_and_traces_are_those_of_numpy(cell: Cell, machine: str) -> None:
    drawn = draw(cell, steps=5)
    numpy_module = reference(cell)
    expected = numpy_module.trace(*arguments(drawn, numpy_module)[:3])
    with on_device(cell, machine=machine) as module:
        params, x, state = arguments(drawn, module)[:3]
        traced = module.trace(params, x, state)
        y, final, _ = module.forward(params, x, state)
        rows = []
        for t in range(drawn.steps):
            row, state = module.step(params, x[t], state)
            rows.append(tuple(leaves(row)))
    assert list(traced) == list(expected)
    assert close(tuple(traced.values()), tuple(expected.values()))
    assert close(tuple(np.stack(column) for column in zip(*rows, strict=True)), tuple(leaves(y)))
    assert close(state, final)


@more_cells
def test_a_module_has_the_face_of_the_numpy_module(cell: Cell, machine: str) -> None:
    theirs = reference(cell)
    with on_device(cell, machine=machine) as module:
        ours = module.module
        assert ours.__all__ == theirs.__all__
        for name in ("CELL", "SPEC_SHA256", "DIMS", "INPUT_SHAPES", "OUTPUT_SHAPES", "PARAM_SHAPES", "STATE_SHAPES"):
            assert getattr(ours, name) == getattr(theirs, name)
        for kind in ("Params", "State", "Grads"):
            assert getattr(ours, kind)._fields == getattr(theirs, kind)._fields


def test_the_example_of_the_pages_runs(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [block for page in documents.pages() for block in documents.blocks(page.read_text("utf-8"))]
    (code,) = (block.text for block in shown if "needs a GPU" in block.marks)
    with cupy_on(machine) as cupy:
        if machine == SUBSTITUTE:
            normal = np.random.default_rng(1).standard_normal
            cupy.random = SimpleNamespace(standard_normal=lambda shape, dtype: cupy.asarray(normal(shape, dtype)))
        module = cellspec.build(cell_of(BY_ID["lstm"]), "cupy")
        monkeypatch.setitem(__import__("sys").modules, "generated", SimpleNamespace(lstm_cupy=module))
        scope: dict[str, Any] = {}
        exec(code, scope)
        assert scope["grads"].x.shape == (50, 32, 64) and scope["grads"].params.Wi.shape == (128, 64)
