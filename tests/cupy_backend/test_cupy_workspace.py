"""CuPy modules in time: workspaces, CUDA graphs, what the loop may do, and what one step costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cupy_support import DEVICE, OnDevice, cells, needs_substitute, on_device, run, there, unavailable, watch
from support import call, close, copied, draw, leaves, same_bits

from cellspec import ir
from cellspec.backends.cupy.backend import BACKEND
from cellspec.backends.cupy.module import plans
from cellspec.backends.fused.chains import launches
from cellspec.backends.memory.model import Phase
from cellspec.cell import Cell
from cellspec.passes.exchanges import exchanges
from cellspec.passes.schedule import schedule
from cellspec.pipeline import compile_cell, scheduled
from cellspec.verification.sampling import Sample

some_cells = cells("lstm", "gru_after", "gru_before", "indrnn", "mingru", "valid-joined", "valid-stretch", "valid-derived")


def workspace(module: OnDevice, drawn: Sample) -> Any:
    """Memory for a call."""
    return module.Workspace(drawn.steps, drawn.batch, drawn.module_params(module))


def poison(module: OnDevice, ws: Any) -> None:
    """NaN everywhere in a workspace, its cuts included, as if a call with masks had left them."""
    ws.forward.is_cut = True
    for value in (*vars(ws.forward).values(), *vars(ws.backward).values()):
        if isinstance(value, module.cupy.ndarray):
            value[...] = float("nan")


# --- workspaces --------------------------------------------------------------------------------------------------


@some_cells
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_workspace_changes_no_bit_and_nothing_left_in_it_is_read(cell: Cell, dtype: Any, machine: str) -> None:
    drawn, other = draw(cell, dtype=dtype), draw(cell, seed=2, dtype=dtype)
    with on_device(cell, machine=machine) as module:
        expected, others = copied(call(module, drawn)), copied(call(module, other))
        ws = workspace(module, drawn)
        for _ in range(2):
            poison(module, ws)
            assert same_bits(call(module, drawn, workspace=ws), expected)
            assert same_bits(call(module, other, workspace=ws), others)


@some_cells
def test_results_lie_in_the_workspace(cell: Cell, machine: str) -> None:
    drawn, other = draw(cell), draw(cell, seed=2)
    with on_device(cell, machine=machine) as module:
        ws = workspace(module, drawn)
        y, _, grads = run(module, there(module, drawn), workspace=ws)
        kept = copied(module.here((y, grads.x)))
        run(module, there(module, other), workspace=ws)
        assert not same_bits(module.here((y, grads.x)), kept)


@some_cells
def test_what_a_call_allocates_does_not_depend_on_the_steps(cell: Cell, machine: str) -> None:
    """With a workspace the same arrays are allocated for many steps as for few."""
    allocated = []
    with on_device(cell, machine=machine) as module:
        for steps in (23, 46):
            drawn = draw(cell, steps=steps, dtype=np.float32)
            arguments, ws = there(module, drawn), workspace(module, drawn)
            run(module, arguments, workspace=ws)
            with watch(module.cupy) as seen:
                run(module, arguments, workspace=ws)
            allocated.append(seen.allocations)
    assert allocated[0] == allocated[1]


@some_cells
def test_the_loop_allocates_nothing_and_never_waits(cell: Cell, machine: str) -> None:
    drawn = draw(cell)
    with on_device(cell, machine=machine) as module:
        ws, arguments = workspace(module, drawn), there(module, drawn)
        run(module, arguments, workspace=ws)
        with watch(module.cupy) as seen:
            for name, memory in (("_forward_loop", ws.forward), ("_backward_loop", ws.backward)):
                if hasattr(module.module, name):
                    getattr(module.module, name)(memory, module.cupy.dot)
        assert (seen.allocations, seen.synchronisations, seen.copies) == ([], [], [])


@needs_substitute
@some_cells
def test_no_function_waits_for_the_device(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        arguments = there(module, drawn)
        with watch(module.cupy) as seen:
            run(module, arguments)
            module.module.step(arguments[0], arguments[1][0], arguments[2])
            module.module.trace(*arguments[:3])
        assert (seen.synchronisations, seen.copies) == ([], [])


SPIN = r"""
extern "C" __global__ void spin(const long long cycles)
{
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


@pytest.mark.gpu
@some_cells
@pytest.mark.parametrize("graph", [False, True])
def test_a_call_returns_while_the_device_is_busy(cell: Cell, graph: bool) -> None:
    if reason := unavailable(DEVICE):
        pytest.skip(reason)
    drawn = draw(cell)
    with on_device(cell, machine=DEVICE) as module:
        cp = module.cupy
        spin = cp.RawKernel(SPIN, "spin")
        ws, arguments = workspace(module, drawn), there(module, drawn)
        for _ in range(2):
            run(module, arguments, workspace=ws, graph=graph)
            spin((1,), (1,), (cp.int64(1),))
        stream = cp.cuda.get_current_stream()
        stream.synchronize()
        spin((1,), (1,), (cp.int64(2_000_000_000),))
        run(module, arguments, workspace=ws, graph=graph)
        assert not stream.done, "the host has waited for the device"
        stream.synchronize()


# --- graphs ------------------------------------------------------------------------------------------------------


@some_cells
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_graph_gives_the_same_numbers_and_repeats_them_bit_by_bit(cell: Cell, dtype: Any, machine: str) -> None:
    """cuBLAS may choose other algorithms in a graph: the same numbers up to rounding, and the same bits without any product."""
    drawn, other = draw(cell, dtype=dtype), draw(cell, seed=5, dtype=dtype)
    with on_device(cell, "random", machine=machine, seed=4) as module:
        expected = [copied(call(module, one)) for one in (drawn, other)]
        ws = workspace(module, drawn)
        first = [copied(call(module, one, workspace=ws, graph=True)) for one in (drawn, other)]
        for got, wanted in zip(first, expected, strict=True):
            assert close(got, wanted, 64 * float(np.finfo(dtype).eps))
            assert same_bits(got, wanted) or hasattr(module.module, "_captured_products")
        poison(module, ws)
        for one, wanted in zip((drawn, other), first, strict=True):
            assert same_bits(call(module, one, workspace=ws, graph=True), wanted)


@some_cells
def test_a_loop_is_captured_once_a_workspace_and_replayed(cell: Cell, machine: str) -> None:
    drawn, longer = draw(cell), draw(cell, steps=5)
    with on_device(cell, machine=machine) as module:
        ws, arguments = workspace(module, drawn), there(module, drawn)
        assert (ws.forward.captured, ws.backward.captured) == (None, None)
        run(module, arguments, workspace=ws)
        assert (ws.forward.captured, ws.backward.captured) == (None, None), "captured without being asked to"
        run(module, arguments, workspace=ws, graph=True)
        graphs = (ws.forward.captured, ws.backward.captured)
        loops = [hasattr(module.module, name) for name in ("_forward_loop", "_backward_loop")]
        assert [graph is not None for graph in graphs] == loops
        with watch(module.cupy) as seen:
            run(module, arguments, workspace=ws, graph=True)
        assert (ws.forward.captured, ws.backward.captured) == graphs
        if hasattr(module.cupy, "machine"):
            assert seen.graphs == sum(loops) and seen.synchronisations == []
        other = workspace(module, longer)
        run(module, there(module, longer), workspace=other, graph=True)
        assert (ws.forward.captured, ws.backward.captured) == graphs
        assert other.forward.captured not in (None, *graphs) and other.backward.captured not in (None, *graphs)


@cells("lstm", "mingru", "valid-stretch", "valid-parallel")
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0)])
def test_graphs_of_no_steps_and_no_samples(cell: Cell, steps: int, batch: int, machine: str) -> None:
    drawn = draw(cell, steps=steps, batch=batch)
    with on_device(cell, machine=machine) as module:
        ws = workspace(module, drawn)
        for _ in range(2):
            assert same_bits(call(module, drawn, workspace=ws, graph=True), call(module, drawn))


@cells("lstm")
def test_a_tape_of_another_workspace_is_used_without_its_graph(cell: Cell, machine: str) -> None:
    drawn = draw(cell)
    with on_device(cell, machine=machine) as module:
        params, x, state, dy, dfinal = there(module, drawn)
        expected = call(module, drawn)[2]
        ws = workspace(module, drawn)
        run(module, (params, x, state, dy, dfinal), workspace=ws, graph=True)
        _, _, tape = module.module.forward(params, x, state)
        grads = module.module.backward(params, tape, dy, dfinal, workspace=ws, graph=True)
        assert same_bits(module.here(grads), expected)


@cells("lstm", "mingru")
def test_stale_tapes_and_strange_workspaces(cell: Cell, machine: str) -> None:
    drawn, longer = draw(cell), draw(cell, steps=4)
    with on_device(cell, machine=machine) as module:
        ws, params, x = workspace(module, drawn), drawn.module_params(module), drawn.module_x(module)
        _, _, tape = module.forward(params, x, workspace=ws)
        module.forward(params, x, workspace=ws)
        for options in ({}, {"workspace": ws}):
            with pytest.raises(ValueError, match=r"^tape is stale: a later call of forward used its workspace$"):
                module.backward(params, tape, *drawn.upstream(module), **options)
        _, _, tape = module.forward(params, x)
        module.forward(params, x)
        module.backward(params, tape, *drawn.upstream(module))
        with pytest.raises(ValueError, match=r"^workspace was made for \(3, 2, .*expected \(T, B, dtype, \*dims\) = \(4, 2"):
            module.forward(params, longer.module_x(module), workspace=ws)


# --- what a step costs -------------------------------------------------------------------------------------------


@needs_substitute
@some_cells
def test_a_step_launches_what_the_schedule_says(cell: Cell) -> None:
    """A product for each that waits for an exchange, a kernel for each region or chain; a whole sequence is launched once."""
    compiled = compile_cell(cell)
    for direction, (plan, choice) in enumerate(plans(scheduled(compiled, BACKEND))):
        program = (compiled.forward, compiled.backward)[direction]
        found = exchanges(schedule(program))
        products = sum(isinstance(op, ir.Product) for exchange in found for op in exchange.readers)
        kernels = len(launches(plan, Phase.LOOP)) - products
        expected = (kernels, products) if choice.kind.value == "step" else (0, 0)
        with on_device(cell) as module:
            assert per_step(module, cell, direction) == expected
            assert choice.kind.value == "step" or not found


def per_step(module: OnDevice, cell: Cell, direction: int) -> tuple[int, int]:
    """The kernels and the products that a further step of one direction adds to a call."""
    seen = []
    for steps in (3, 4):
        params, x, state, dy, dfinal = there(module, draw(cell, steps=steps))
        with module.cupy.machine.watch() as forward:
            _, _, tape = module.module.forward(params, x, state)
        with module.cupy.machine.watch() as backward:
            module.module.backward(params, tape, dy, dfinal)
        found = (forward, backward)[direction]
        seen.append((len(found.launches), found.products))
    return seen[1][0] - seen[0][0], seen[1][1] - seen[0][1]


@needs_substitute
@some_cells
def test_the_loop_runs_on_the_current_stream(cell: Cell) -> None:
    """A stream that captures does nothing itself: whatever ran meanwhile went elsewhere."""
    drawn = draw(cell)
    with on_device(cell, capture_products=True) as module:
        cp, ws = module.cupy, workspace(module, drawn)
        expected = copied(call(module, drawn, workspace=ws))
        stream = cp.cuda.Stream(non_blocking=True)
        for name, memory in (("_forward_loop", ws.forward), ("_backward_loop", ws.backward)):
            with stream, cp.machine.watch() as seen:
                stream.begin_capture()
                getattr(module.module, name)(memory, cp.dot)
                graph = stream.end_capture()
            assert (seen.launches, seen.products) == ([], 0) and graph.work
        with stream:
            assert same_bits(call(module, drawn), expected)
        assert len(leaves(expected)) > 3
