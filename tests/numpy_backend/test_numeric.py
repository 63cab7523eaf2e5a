"""Generated modules against the oracle, and one by one the traps that numeric code falls into."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import (
    SPECS,
    Array,
    call,
    cell_of,
    close,
    copied,
    draw,
    driven,
    generator,
    leaves,
    module_of,
    part,
    pushed,
    same_bits,
    spec_id,
)  # fmt: skip

import cellspec
from cellspec import oracle
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import load_spec
from cellspec.model.nodes import Kind
from cellspec.verification.check import verify, verify_sample
from cellspec.verification.sampling import Sample, pack


@pytest.mark.parametrize("path", SPECS, ids=spec_id)
def test_forward_and_every_gradient_are_those_of_the_equations(path: Path) -> None:
    report = verify(cell_of(path), module_of(path), seed=3)
    assert report.ok, str(report)


# --- large arguments -----------------------------------------------------------------------------------------


SINGULAR = {
    "rglru": "where the decay is one, the root that scales the input has no derivative",
    "s4d_real": "a step of exp(100) is no step",
}
"""Cells with vectors that are no pre-activations and cannot be large."""


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [100.0, 1000.0])
@pytest.mark.parametrize("push", [pushed, driven])
def test_large_preactivations_stay_finite(path: Path, push: Callable[..., Sample], size: float, dtype: Any) -> None:
    cell, module = cell_of(path), module_of(path)
    if path.stem in SINGULAR and push is pushed:
        pytest.skip(SINGULAR[path.stem])
    plain = draw(cell, steps=4, dtype=dtype)
    drawn = push(plain, size)
    constants = {param.name: plain.params[param.name] for param in cell.params if not param.trainable}
    drawn = dataclasses.replace(drawn, params=drawn.params | constants)
    with np.errstate(all="ignore"):
        expected = oracle.forward(cell, drawn.params, drawn.x, drawn.state)
    if not all(np.abs(array).max() < 1e6 for array in (*expected.values.values(), *expected.derived.values())):
        assert path.parent.name == "valid" or not cell.expect.bound, "only a cell that states no bound may grow"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, final, grads = call(module, drawn)
    assert all(np.isfinite(array).all() for array in leaves((y, final, grads)))
    if dtype is np.float64 and push is pushed and size < 1000:
        report = verify_sample(cell, module, drawn)
        assert report.ok, str(report)


# --- purity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_inputs_are_only_read_and_results_repeat_bit_by_bit(path: Path, dtype: Any) -> None:
    module, drawn = module_of(path), draw(cell_of(path), dtype=dtype)
    for group in (drawn.params, drawn.x, drawn.state or {}, drawn.dy, drawn.dfinal):
        for array in group.values():
            array.flags.writeable = False
    first = call(module, drawn)
    kept = copied(first)
    other = draw(cell_of(path), seed=2, dtype=dtype)
    call(module, other)
    assert same_bits(first, kept), "a later call has changed an earlier result"
    assert same_bits(call(module, drawn), kept)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    trace = copied(tuple(module.trace(params, x, state).values()))
    first_x = pack(module, "Inputs", [stream[0] for stream in drawn.x.values()])
    steps = [copied(module.step(params, first_x, state)) for _ in range(2)]
    assert same_bits(steps[0], steps[1])
    assert same_bits(tuple(module.trace(params, x, state).values()), trace)


def test_a_tape_can_be_used_twice(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path))
    params = drawn.module_params(module)
    _, _, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module))
    first = copied(module.backward(params, tape, *drawn.upstream(module)))
    assert same_bits(module.backward(params, tape, *drawn.upstream(module)), first)


def test_changing_the_results_of_forward_does_not_change_the_gradients(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path))
    params = drawn.module_params(module)
    expected = call(module, drawn)[2]
    y, final, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module))
    for array in leaves((y, final)):
        array[...] = np.nan
    assert same_bits(module.backward(params, tape, *drawn.upstream(module)), expected)


# --- workspaces ----------------------------------------------------------------------------------------------


def buffers(owner: Any) -> Iterator[Array]:
    """Every float array that ``owner`` holds, in lists, tuples, dicts and objects at any depth."""
    seen: set[int] = set()

    def walk(item: Any) -> Iterator[Array]:
        if id(item) in seen:
            return
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            if item.dtype.kind == "f":
                yield item
        elif isinstance(item, list | tuple | set):
            for part in item:
                yield from walk(part)
        elif isinstance(item, dict):
            for part in item.values():
                yield from walk(part)
        elif not isinstance(item, type | ModuleType) and not callable(item):
            slots = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ())]
            for part in [*getattr(item, "__dict__", {}).values(), *(getattr(item, name, None) for name in slots)]:
                yield from walk(part)

    yield from walk(owner)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_poisoned_workspace_gives_the_same_bits(path: Path, dtype: Any) -> None:
    module, drawn = module_of(path), draw(cell_of(path), dtype=dtype)
    expected = copied(call(module, drawn))
    params = drawn.module_params(module)
    workspace = module.Workspace(drawn.steps, drawn.batch, params)
    found = list(buffers(workspace))
    assert found, "the workspace holds no buffer"
    for turn in range(3):
        for array in buffers(workspace):
            if array.flags.writeable:
                array[...] = np.nan
        assert same_bits(call(module, drawn, workspace=workspace), expected), f"turn {turn}"
    other = draw(cell_of(path), seed=2, dtype=dtype)
    fresh = copied(call(module, other))
    assert same_bits(call(module, other, workspace=workspace), fresh), "other arguments"
    assert same_bits(call(module, drawn, workspace=workspace), expected), "what was left behind has been read"


def test_a_workspace_avoids_large_allocations(path: Path) -> None:
    """The second call with a workspace allocates less than one sequence of states."""
    import tracemalloc

    cell, module = cell_of(path), module_of(path)
    drawn = draw(cell, steps=50, batch=256)
    params = drawn.module_params(module)
    workspace = module.Workspace(drawn.steps, drawn.batch, params)
    call(module, drawn, workspace=workspace)
    tracemalloc.start()
    try:
        call(module, drawn, workspace=workspace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ufunc_buffers = 4 * np.getbufsize() * 8  # NumPy's own, at strided operands, whatever the arrays' size
    allowed = max(ufunc_buffers, min(array.nbytes for array in drawn.dy.values()))
    assert peak < allowed, f"{peak} bytes were allocated, {allowed} would be a sequence of outputs"


# --- time and batch ------------------------------------------------------------------------------------------


def test_chunks_equal_one_run_also_backwards(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path), steps=7)
    params = drawn.module_params(module)
    y, final, grads = call(module, drawn)
    first, second = part(drawn, slice(0, 3), 0), part(drawn, slice(3, 7), 0)
    y1, middle, tape1 = module.forward(params, first.module_x(module), drawn.module_state(module))
    y2, last, tape2 = module.forward(params, second.module_x(module), middle)
    both = tuple(np.concatenate(pair) for pair in zip(leaves(y1), leaves(y2), strict=True))
    assert close(both, tuple(leaves(y))) and close(last, final)
    g2 = module.backward(params, tape2, second.upstream(module)[0], drawn.upstream(module)[1])
    g1 = module.backward(params, tape1, first.upstream(module)[0], g2.state)
    assert close(g1.state, grads.state)
    assert close(tuple(a + b for a, b in zip(g1.params, g2.params, strict=True)), tuple(grads.params))
    assert close(tuple(np.concatenate(pair) for pair in zip(leaves(g1.x), leaves(g2.x), strict=True)), tuple(leaves(grads.x)))


def test_large_weights_in_another_order_of_memory_change_nothing() -> None:
    """From 32 steps on, recurrent weights of 2^16 numbers are transposed in memory for the backward loop: not in parts."""
    module, T, H = module_of(SPECS[0].with_name("lstm.yaml")), 40, 150
    rng = np.random.default_rng(5)
    params = module.init_params(rng, I=3, H=H)
    x, dy = rng.standard_normal((T, 2, 3)), rng.standard_normal((T, 2, H))
    for workspace in (None, module.Workspace(T, 2, params)):
        *_, tape = module.forward(params, x, workspace=workspace)
        grads = module.backward(params, tape, dy, workspace=workspace)
        assert (workspace is None) or np.array_equal(workspace.backward.U_gates_T, workspace.backward.U_gates.T)
        _, _, parts = module.forward(params, x, checkpoint=20)
        assert close(module.backward(params, parts, dy), grads)


@pytest.mark.parametrize("H", [40, 400])
def test_packed_steps_with_small_and_with_large_weights(H: int) -> None:
    """Up to 2^17 numbers weights are laid out for samples from the left, beyond that they stay as they are."""
    module = module_of(SPECS[0].with_name("lstm.yaml"))
    rng = np.random.default_rng(6)
    params = module.init_params(rng, I=5, H=H)
    packed = module.pack(params)
    state = module.State(*rng.standard_normal((2, 3, H)))
    given = copied(state)
    y, after = module.step(packed, x := rng.standard_normal((3, 5)), state)
    expected, final = module.step(params, x, state)
    assert close((y, after), (expected, final)) and same_bits(state, given)
    y[...] = 0  # what is given out shares no memory
    assert close(after, final)


def test_samples_of_a_batch_do_not_meet(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path), batch=3)
    y, final, grads = call(module, drawn)
    alone_y, alone_final, alone_grads = call(module, part(drawn, slice(1, 2), 1))
    assert close(alone_y, tuple(a[:, 1:2] for a in leaves(y)))
    assert close(alone_final, tuple(a[1:2] for a in final))
    assert close((alone_grads.x, alone_grads.state), (*(a[:, 1:2] for a in leaves(grads.x)), *(a[1:2] for a in grads.state)))
    for array in (*drawn.x.values(), *drawn.dy.values()):
        array[:, 0] = np.nan
    for array in ((drawn.state or {}) | drawn.dfinal).values():
        array[0] = np.nan
    y, final, grads = call(module, drawn)
    for array in (*(a[:, 1:] for a in leaves((y, grads.x))), *(a[1:] for a in leaves((final, grads.state)))):
        assert np.isfinite(array).all(), "a NaN of one sample has reached another"


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_steps_and_no_samples_give_empty_results(path: Path, steps: int, batch: int, dtype: Any) -> None:
    module, drawn = module_of(path), draw(cell_of(path), steps=steps, batch=batch, dtype=dtype)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    for workspace in (None, module.Workspace(steps, batch, params)):
        y, final, grads = call(module, drawn, workspace=workspace)
        assert [a.shape for a in leaves(y)] == [a.shape for a in drawn.dy.values()]
        assert all(a.dtype == dtype for a in leaves((y, final, grads)))
        assert [a.shape for a in leaves(grads.x)] == [a.shape for a in drawn.x.values()]
        assert all(a.shape == p.shape and not a.any() for a, p in zip(grads.params, params, strict=True))
        if steps == 0:
            assert same_bits(final, state) and same_bits(grads.state, drawn.upstream(module)[1])
        else:
            assert [a.shape for a in final] == [a.shape for a in state]
    trace = module.trace(params, x, state)
    for equation in cell_of(path).assignments:
        if equation.target.kind is not Kind.DERIVED:
            assert trace[equation.target.name].shape[:2] == (steps, batch)


# --- strides, defaults, NaN, order ---------------------------------------------------------------------------


def strided(array: Array) -> Iterator[Array]:
    """The same numbers in other layouts: Fortran order, every second element of a larger array, reversed strides."""
    yield np.asfortranarray(array)
    wide = np.full(tuple(2 * n for n in array.shape), np.nan, dtype=array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    yield view
    yield np.ascontiguousarray(array[(slice(None, None, -1),) * array.ndim])[(slice(None, None, -1),) * array.ndim]


@pytest.mark.parametrize("layout", range(3), ids=["fortran", "every second", "reversed"])
def test_any_strides_are_accepted(path: Path, layout: int) -> None:
    module, drawn = module_of(path), draw(cell_of(path))
    expected = call(module, drawn)
    groups = {
        part: {name: list(strided(array))[layout] for name, array in (getattr(drawn, part) or {}).items()}
        for part in ("params", "x", "state", "dy", "dfinal")
    }
    relaid = dataclasses.replace(drawn, **groups)
    assert close(call(module, relaid), expected)
    workspace = module.Workspace(drawn.steps, drawn.batch, relaid.module_params(module))
    assert close(call(module, relaid, workspace=workspace), expected)


def test_what_is_left_out_is_zero_or_the_initial_state(path: Path) -> None:
    cell, module = cell_of(path), module_of(path)
    drawn = draw(cell, default_state=True)
    params, x = drawn.module_params(module), drawn.module_x(module)
    initial = module.init_state(params, batch=drawn.batch)
    for state, one in zip(cell.states, initial, strict=True):
        assert one.dtype == np.float64 and np.all(one == state.init)
    y, final, tape = module.forward(params, x)
    y_given, final_given, _ = module.forward(params, x, initial)
    assert same_bits((y, final), (y_given, final_given))
    dy, dfinal = drawn.upstream(module)
    zeros = module.State(*(np.zeros_like(array) for array in dfinal))
    assert same_bits(module.backward(params, tape, dy), module.backward(params, tape, dy, zeros))
    assert not same_bits(module.backward(params, tape, dy), module.backward(params, tape, dy, dfinal))


COMPARED = {("clockwork", "one"), ("phased_lstm", "ron")}
"""Parameters that are only compared; comparing with NaN is false."""


def test_nan_parameters_pass_through(path: Path) -> None:
    cell, module = cell_of(path), module_of(path)
    drawn = draw(cell)
    shapes = [a.shape for a in leaves(call(module, drawn))]
    for name in drawn.params:
        spoilt = dataclasses.replace(drawn, params=drawn.params | {name: np.full_like(drawn.params[name], np.nan)})
        result = call(module, spoilt)
        assert [a.shape for a in leaves(result)] == shapes
        if path.parent.name == "specs" and (path.stem, name) not in COMPARED:
            assert any(np.isnan(array[-1]).any() for array in leaves(result[0])), f"NaN in {name} has vanished"


def test_equations_in_another_order_give_the_same_results(path: Path) -> None:
    spec, module, drawn = load_spec(path), module_of(path), draw(cell_of(path))
    expected = call(module, drawn)
    rng = generator(6)
    shuffled = list(spec.equations)
    for order in (shuffled[::-1], [shuffled[k] for k in rng.permutation(len(shuffled))]):
        other = cellspec.build(elaborate(dataclasses.replace(spec, equations=tuple(order))))
        assert close(call(other, drawn), expected)


# --- the face of a module ------------------------------------------------------------------------------------


def test_a_module_has_the_same_face_for_every_cell(path: Path) -> None:
    cell, module = cell_of(path), module_of(path)
    names = ["CELL", "DIMS", "INPUT_SHAPES", "OUTPUT_SHAPES", "PARAM_SHAPES", "SPEC_SHA256", "STATE_SHAPES"]
    names += ["Grads", "Params", "State", "Workspace"]
    names += ["backward", "forward", "init_params", "init_state", "step", "trace"]
    assert set(names) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert (module.CELL, module.SPEC_SHA256, tuple(module.DIMS)) == (cell.name, cell.sha256, cell.dims)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_initial_parameters_have_their_shapes_and_repeat_with_the_seed(path: Path, dtype: Any) -> None:
    cell, module = cell_of(path), module_of(path)
    dims = dict(zip(cell.dims, (5, 7, 11, 13), strict=False))
    first = module.init_params(np.random.default_rng(1), **dims, dtype=dtype)
    drawn = draw(cell)
    assert [a.shape for a in first] == [a.shape for a in drawn.params.values()]
    assert all(a.dtype == dtype and np.isfinite(a).all() for a in first)
    assert same_bits(module.init_params(np.random.default_rng(1), **dims, dtype=dtype), first)
    other = module.init_params(np.random.default_rng(2), **dims, dtype=dtype)
    random = [p.init.kind not in ("constant", "identity") for p in cell.params]
    assert [not np.array_equal(a, b) for a, b in zip(first, other, strict=True)] == random
    for param, array in zip(cell.params, first, strict=True):
        if param.init.kind == "constant":
            assert np.all(array == dtype(param.init.numbers[0]))
        if param.init.kind == "orthogonal":
            small = array if array.shape[-2] <= array.shape[-1] else array.swapaxes(-1, -2)
            assert np.allclose(small @ small.swapaxes(-1, -2), np.eye(small.shape[-2]), atol=1e-5)
