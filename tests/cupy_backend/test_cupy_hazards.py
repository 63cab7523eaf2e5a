"""What only a GPU would show, held on the CPU: cuBLAS in graphs, weights packed once, devices, streams, single numbers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_host import Foreign, import_text
from cuda_host.fake.array import ndarray
from cuda_host.fake.cublas import Handle
from cupy_support import BY_ID, OnDevice, cells, cupy_on, needs_substitute, on_device, run, text_of, there
from support import call, cell_of, close, copied, draw, generator, leaves, same_bits

from cellspec.cell import Cell
from cellspec.verification.sampling import Sample, sample

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has the bfloat16 of NumPy arrays, is not installed")

pytestmark = needs_substitute
some_cells = cells("lstm", "gru_after", "gru_before", "skip_gru", "lmu", "valid-joined", "valid-stretch", "valid-derived")
DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)


def first_step(x: Any) -> Any:
    """What is given at the first step."""
    return type(x)(*(each[0] for each in x)) if isinstance(x, tuple) else x[0]


def arrays_of(module: OnDevice, value: Any) -> list[Any]:
    """The arrays of tuples of arrays."""
    return [value] if isinstance(value, module.cupy.ndarray) else [a for one in value for a in arrays_of(module, one)]


def of_ones(cell: Cell, steps: int, batch: int, dtype: Any = np.float64, seed: int = 0) -> Sample:
    """A call whose dims are all 1."""
    return sample(cell, dict.fromkeys(cell.dims, 1), steps, batch, generator(seed), dtype)


# --- products in a graph are cuBLAS's ------------------------------------------------------------------------------


@some_cells
def test_a_graph_calls_cublas_for_each_product_and_leaves_its_handle_as_it_was(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        arguments = there(module, drawn)
        ws = module.module.Workspace(drawn.steps, drawn.batch, arguments[0])
        run(module, arguments, workspace=ws)
        with module.cupy.machine.watch() as plain:
            run(module, arguments, workspace=ws)
        run(module, arguments, workspace=ws, graph=True)
        assert all(handle == Handle() for handle in module.cupy.machine.handles.values())
        with module.cupy.machine.watch() as seen:
            run(module, arguments, workspace=ws, graph=True)
        assert (seen.products, sorted(seen.launches)) == (plain.products, sorted(plain.launches))
        assert seen.graphs > 0 and not any("alloc" in what for what, _ in seen.work)


@cells("lstm", "valid-joined")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("steps", "batch", "units"), [(3, 2, 7), (2, 1, 1), (2, 3, 1), (2, 1, 6), (2, 2, 0)])
def test_graphs_of_all_sizes_and_dtypes(cell: Cell, dtype: Any, steps: int, batch: int, units: int) -> None:
    """Within the rounding of one sum of a product: graphs and plain calls differ in nothing else."""
    drawn = sample(cell, {d: units if d == "H" else 5 for d in cell.dims}, steps, batch, generator(3), np.float32)
    with on_device(cell) as module:
        arguments = there(module, drawn)
        cast = [type(a)(*(v.astype(dtype) for v in a)) if isinstance(a, tuple) else a.astype(dtype) for a in arguments]
        ws = module.module.Workspace(steps, batch, cast[0])
        expected = copied(module.here(run(module, tuple(cast), workspace=ws)))
        for _ in range(2):
            got = copied(module.here(run(module, tuple(cast), workspace=ws, graph=True)))
            for one, other in zip(leaves(got), leaves(expected), strict=True):
                eps = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[one.dtype.name]
                assert np.all(np.abs(one.astype(float) - other.astype(float)) <= 8 * eps * (1 + np.abs(other.astype(float))))


SIZES = ((3, 5, 7), (1, 5, 7), (3, 5, 1), (1, 5, 1), (3, 1, 7), (1, 1, 1), (3, 0, 7), (0, 5, 7), (3, 5, 0))
LAYOUTS = {
    "rows": lambda cp, a: a,
    "columns": lambda cp, a: cp.ascontiguousarray(a.T).T,
    "rows apart": lambda cp, a: cp.concatenate((a, a), axis=1)[:, : a.shape[1]],
    "columns apart": lambda cp, a: cp.concatenate((a.T, a.T), axis=1)[:, : a.shape[0]].T,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_products_of_all_layouts_are_right_in_a_graph_and_out_of_it(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    with on_device(cell_of(BY_ID["lstm"])) as module:
        cp, m = module.cupy, module.module
        scratch, stream = cp.empty((1 << 20,), cp.uint8), cp.cuda.Stream(non_blocking=True)
        for rows, inner, columns in SIZES:
            a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, inner), (inner, columns)))
            wide = np.float64 if dtype == np.float64 else np.float32
            expected = (a.astype(wide) @ b.astype(wide)).astype(dtype)
            for left_layout in LAYOUTS.values():
                for right_layout in LAYOUTS.values():
                    left, right = left_layout(cp, cp.asarray(a)), right_layout(cp, cp.asarray(b))
                    outs = [cp.empty((rows, columns), dtype) for _ in range(2)]
                    if rows * columns == 1:
                        m._dot(left, right, outs[0])
                    else:
                        cp.dot(left, right, outs[0])
                    with stream:
                        stream.begin_capture()
                        with m._captured_products(stream, scratch) as dot:
                            dot(left, right, outs[1])
                        graph = stream.end_capture()
                    graph.launch(stream)
                    for out in outs:
                        np.testing.assert_allclose(out.get().astype(float), expected.astype(float), rtol=4e-6)


MUTANTS = {
    "an undeclared argument": ("library.cublasGemmEx.argtypes = (", "unused = ("),
    "no stream": ("ask(cublas.cublasSetStream_v2, handle, stream.ptr)", "pass"),
    "no workspace": ("ask(cublas.cublasSetWorkspace_v2, handle,", "(lambda *given: None)(0,"),
    "a stream set after its workspace": (
        "scratch.nbytes)",
        "scratch.nbytes); ask(cublas.cublasSetStream_v2, handle, stream.ptr)",
    ),
    "turned": ("        return 0, max(down, matrix.shape[1])", "        return 1, max(down, matrix.shape[1])"),
    "operands exchanged": ("turn_right, turn_left, columns, rows", "turn_left, turn_right, rows, columns"),
    "the wrong type": ('"float64": (1, 70)', '"float64": (0, 68)'),
    "sums of fewer bits": ('"float64": (1, 70)', '"float64": (1, 68)'),
    "zero for one": ("np.array([1, 0],", "np.array([0, 1],"),
    "a status that nobody reads": ("if status := function(*arguments):", "if (status := function(*arguments)) and False:"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_every_way_to_call_cublas_wrongly_is_found(name: str) -> None:
    cell = cell_of(BY_ID["lstm"])
    drawn, (good, bad) = draw(cell), MUTANTS[name]
    text = text_of(cell)
    assert text.count(good) == 1
    if name == "a status that nobody reads":  # which it takes a refusal to see
        text = text.replace("scratch.nbytes)", "-1)")
    with cupy_on("substitute") as cupy:
        module = OnDevice(import_text(text.replace(good, bad)), cupy)
        arguments = there(module, drawn)
        expected = copied(module.here(run(module, arguments)))
        ws = module.module.Workspace(drawn.steps, drawn.batch, arguments[0])
        try:
            run(module, arguments, workspace=ws, graph=True)
            got = copied(module.here(run(module, arguments, workspace=ws, graph=True)))
        except RuntimeError as error:
            assert "cublas" in str(error).lower()
        except Exception as error:
            assert type(error).__name__ == "ArgumentError"
        else:
            assert not close(got, expected)


def test_tf32_is_asked_for_where_cupy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_device(cell_of(BY_ID["lstm"])) as module:
        cp = module.cupy
        for dtype, tf32, plain in ((np.float32, 77, 68), (np.float64, 70, 70), (np.float16, 68, 68)):
            a = cp.ones((2, 2), dtype)
            for setting, sums in (("1", tf32), ("0", plain)):
                monkeypatch.setenv("CUPY_TF32", setting)
                assert module.module._product(a, a, a)[-2] == sums


# --- a capture that fails ------------------------------------------------------------------------------------------


@cells("lstm", "mingru")
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_a_capture_that_is_interrupted_leaves_no_stream_capturing(cell: Cell, interruption: type[BaseException]) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        arguments, m, machine = there(module, drawn), module.module, module.cupy.machine
        ws = m.Workspace(drawn.steps, drawn.batch, arguments[0])
        expected = copied(module.here(run(module, arguments, workspace=ws)))
        usual = m._kernel

        def failing(name: str, dtype: Any) -> Any:
            if machine.captures:
                raise interruption
            return usual(name, dtype)

        m._kernel = failing
        with pytest.raises(interruption):
            run(module, arguments, workspace=ws, graph=True)
        m._kernel = usual
        assert machine.captures == {} and machine.streams == [] and ws.forward.captured is None
        assert all(handle == Handle() for handle in machine.handles.values())
        assert close(copied(module.here(run(module, arguments, workspace=ws, graph=True))), expected)


# --- weights are packed once ---------------------------------------------------------------------------------------


@some_cells
def test_a_packed_step_reads_packed_weights_only(cell: Cell) -> None:
    """Nothing copies or joins parameters at a step: kernels and products alone read them; derived ones are not made again."""
    drawn = draw(cell)
    with on_device(cell) as module:
        params, x, state = there(module, drawn)[:3]
        m = module.module
        x_t = first_step(x)
        packed = m.pack(params)
        m.step(packed, x_t, state)
        own = {id(value._memory) for value in packed.params}
        with module.cupy.machine.watch() as seen:
            y, after = m.step(packed, x_t, state)
        reading = {what for what, memory in seen.work if memory & own}
        assert all(re.match(r"kernel |dot|cublasGemmEx|matmul", what) for what in reading), reading
        assert not any(what in ("concatenate", "inv") for what, _ in seen.work)
        assert same_bits(module.here((y, after)), copied(module.here(m.step(params, x_t, state))))


@cells("lstm", "gru_before", "skip_gru")
def test_packing_takes_no_memory_of_the_backward_pass(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        m, params = module.module, there(module, drawn)[0]
        ws = m.Workspace(1, 1, params)
        with module.cupy.machine.watch() as forward:
            m._Forward(*ws.key)
        with module.cupy.machine.watch() as packing:
            packed = m.pack(params)
        assert len(packing.allocations) == len(params) + len(forward.allocations)
        assert not any("Backward" in type(value).__name__ for value in vars(packed).values())


@some_cells
def test_packed_parameters_serve_batches_of_all_sizes_and_do_not_change(cell: Cell) -> None:
    with on_device(cell) as module:
        m, packed = module.module, None
        for batch in (1, 3, 3, 1, 2):
            drawn = draw(cell, batch=batch)
            params, x, state = there(module, drawn)[:3]
            x_t = first_step(x)
            if packed is None:
                first = params
                packed = m.pack(m.Params(*(value.copy() for value in first)))
            expected = copied(module.here(m.step(first, x_t, state)))
            assert same_bits(module.here(m.step(packed, x_t, state)), expected)


# --- devices -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_devices(cell: Cell) -> Iterator[OnDevice]:
    """The module of a cell where there are two devices, the first of them current."""
    with on_device(cell, devices=2) as module:
        yield module


def moved(module: OnDevice, value: Any, device: int) -> Any:
    """The same numbers on another device."""
    cp = module.cupy
    if isinstance(value, cp.ndarray):
        host = value.get()
        with cp.cuda.Device(device):
            return cp.asarray(host)
    return type(value)(*(moved(module, one, device) for one in value))


def devices_of(module: OnDevice, value: Any) -> set[int]:
    """Where the arrays of a result lie."""
    if isinstance(value, module.cupy.ndarray):
        return {value.device.id}
    return set().union(*(devices_of(module, one) for one in (value.values() if isinstance(value, dict) else value)))


@cells("lstm", "mingru", "valid-joined", "valid-derived")
def test_work_is_done_on_the_device_of_the_arrays(cell: Cell) -> None:
    """Whatever device is current, before, and after."""
    drawn = draw(cell)
    with two_devices(cell) as module:
        cp, m = module.cupy, module.module
        expected = copied(call(module, drawn))
        arguments = tuple(moved(module, value, 1) for value in there(module, drawn))
        params, x, state, dy, dfinal = arguments
        x_t = first_step(x)
        ws = m.Workspace(drawn.steps, drawn.batch, params)
        for options in ({}, {"workspace": ws}, {"workspace": ws, "graph": True}, {"lengths": np.array([3, 1])}):
            y, final, tape = m.forward(params, x, state, **options)
            masks = options.pop("lengths", None)
            grads = m.backward(params, tape, dy, dfinal, **options)
            assert devices_of(module, (y, final, grads)) == {1}
            if masks is None:
                assert close(module.here((y, final, grads)), expected)
        packed = m.pack(params)
        results = (
            m.step(params, x_t, state),
            m.step(packed, x_t, state),
            m.trace(params, x, state),
            m.init_state(params, batch=2),
        )
        assert devices_of(module, results) == {1}
        assert cp.cuda.runtime.getDevice() == 0
        with pytest.raises(ValueError):
            m.forward(params, x, m.State(*(value[:1] for value in state)))
        assert cp.cuda.runtime.getDevice() == 0, "an error has left another device current"


@cells("lstm", "valid-joined")
def test_arrays_of_two_devices_are_refused_in_a_sentence(cell: Cell) -> None:
    drawn = draw(cell)
    with two_devices(cell) as module:
        m, ok = module.module, there(module, drawn)
        params, x, state, dy, dfinal = ok
        away = tuple(moved(module, value, 1) for value in ok)
        tape = m.forward(*ok[:3])[2]

        def single(here: Any, there: Any) -> Any:
            return here._replace(**{here._fields[-1]: there[-1]}) if isinstance(here, tuple) else there

        ws, packed = m.Workspace(drawn.steps, drawn.batch, away[0]), m.pack(params)
        calls = [
            ("params", lambda: m.forward(single(params, away[0]), x, state)),
            ("x", lambda: m.forward(params, single(x, away[1]), state)),
            ("state", lambda: m.forward(params, x, single(state, away[2]))),
            ("params", lambda: m.backward(single(params, away[0]), tape, dy, dfinal)),
            ("dy", lambda: m.backward(params, tape, single(dy, away[3]), dfinal)),
            ("dfinal", lambda: m.backward(params, tape, dy, single(dfinal, away[4]))),
            ("workspace", lambda: m.forward(params, x, state, workspace=ws)),
            ("workspace", lambda: m.backward(params, tape, dy, workspace=ws)),
            ("x", lambda: m.step(packed, first_step(single(x, away[1])), state)),
            ("state", lambda: m.step(packed, first_step(x), single(state, away[2]))),
            ("x", lambda: m.step(params, first_step(single(x, away[1])), state)),
            ("params", lambda: m.pack(single(params, away[0]))),
            ("x", lambda: m.trace(params, single(x, away[1]), state)),
            ("params", lambda: m.trace(away[0], x, state)),
        ]
        for name, refused in calls:
            with module.cupy.machine.watch() as seen, pytest.raises(ValueError) as caught:
                refused()
            found = re.fullmatch(
                r"([\w.]+) lies on CUDA device (\d), expected (\d), where the first array of the call lies", str(caught.value)
            )
            assert found and found[2] != found[3], str(caught.value)
            assert found[1].split(".")[0].replace("_t", "") in (name, "x"), (name, str(caught.value))
            assert seen.allocations == [] and module.cupy.cuda.runtime.getDevice() == 0


# --- a row times a column ------------------------------------------------------------------------------------------


@cells("lstm", "gru_after", "skip_gru", "lmu", "lmu_legendre", "valid-joined", "valid-derived")
def test_single_numbers_are_products_like_others(cell: Cell) -> None:
    """CuPy makes an array of the products of a row and a column, and its sum: no loop does, however few units there are."""
    drawn = of_ones(cell, 3, 1)
    with on_device(cell) as module:
        arguments = there(module, drawn)
        ws = module.module.Workspace(3, 1, arguments[0])
        run(module, arguments, workspace=ws)
        with module.cupy.machine.watch() as seen:
            for name, memory in (("_forward_loop", ws.forward), ("_backward_loop", ws.backward)):
                module.module._loop(memory, getattr(module.module, name), False)
        assert (seen.allocations, seen.copies, seen.synchronisations) == ([], [], []) and seen.products > 0
        with module.cupy.machine.watch() as seen:
            run(module, arguments, workspace=ws)
        assert not any("row and a column" in what for what in [*seen.allocations, *(what for what, _ in seen.work)])


@cells("lstm", "skip_gru", "lmu", "lmu_legendre")
def test_one_sample_of_many_units_allocates_nothing_in_the_loop(cell: Cell) -> None:
    drawn = draw(cell, batch=1)
    with on_device(cell) as module:
        arguments = there(module, drawn)
        ws = module.module.Workspace(drawn.steps, 1, arguments[0])
        run(module, arguments, workspace=ws)
        with module.cupy.machine.watch() as seen:
            for name, memory in (("_forward_loop", ws.forward), ("_backward_loop", ws.backward)):
                module.module._loop(memory, getattr(module.module, name), False)
        assert (seen.allocations, seen.copies, seen.synchronisations) == ([], [], [])


@pytest.mark.parametrize(("dtype", "u"), [(np.float16, 2.0**-11), (ml_dtypes.bfloat16, 2.0**-8)], ids=["float16", "bfloat16"])
def test_the_gradient_of_a_single_weight_is_rounded_once(dtype: Any, u: float) -> None:
    """Of 1056 products of numbers between 1 and 2, which CuPy's own dot would round one by one."""
    cell = cell_of(BY_ID["indrnn"])
    with on_device(cell) as module:
        m, cp, rng = module.module, module.cupy, np.random.default_rng(7)
        zero, one = np.zeros((1, 1)), np.ones(1)
        params = m.Params(
            **{n: cp.asarray((one if n == "b" else zero if n == "W" else 0 * one).astype(dtype)) for n in m.Params._fields}
        )
        x, dy = (rng.uniform(1, 2, (33, 32, 1)).astype(dtype) for _ in range(2))
        _, _, tape = m.forward(params, cp.asarray(x))
        found = m.backward(params, tape, cp.asarray(dy)).params.W.get().astype(float)
    exact = (x.astype(float) * dy.astype(float)).sum()
    assert abs(found.item() - exact) <= (u + 2.0**-16) * exact


# --- streams -------------------------------------------------------------------------------------------------------


def races(module: OnDevice, drawn: Sample) -> list[str]:
    """Workspaces, tapes and packed parameters used on one stream after another, and dropped: what meets without order."""
    cp, m = module.cupy, module.module
    params, x, state, dy, dfinal = arguments = there(module, drawn)
    x_t = first_step(x)
    for array in arrays_of(module, (arguments, x_t)):
        array._memory.constant = True
    streams = [cp.cuda.Stream(non_blocking=True) for _ in range(3)]
    cp.cuda.runtime.deviceSynchronize()
    with cp.machine.watch() as seen:
        with streams[0]:
            ws, packed = m.Workspace(drawn.steps, drawn.batch, params), m.pack(params)
        for graph in (False, True):
            with streams[1]:
                _, _, tape = m.forward(params, x, state, workspace=ws, graph=graph)
            with streams[2]:
                m.backward(params, tape, dy, dfinal, workspace=ws, graph=graph)
        del tape, ws
        with streams[0]:
            _, _, tape = m.forward(params, x, state, lengths=np.full(drawn.batch, 2))
        with streams[1]:
            m.backward(params, tape, dy, dfinal)
        for stream in streams:
            with stream:
                m.step(packed, x_t, state)
        del tape, packed
    assert seen.synchronisations == [] or seen.copies != []  # of lengths alone
    return seen.races


@cells("lstm", "mingru", "valid-derived")
def test_work_of_several_streams_with_the_same_memory_is_done_in_turn(cell: Cell) -> None:
    """Also when it has gone back to the pool, which gives it to whatever comes next on the stream that it was taken on."""
    drawn = draw(cell)
    with on_device(cell) as module:
        assert races(module, drawn) == []
    for mutant in (
        ("here.wait_event(stream.record())", "pass"),
        ("stream.wait_event(here.record())", "pass"),
        ("with _in_turn(saved.stream, saved.latest):", "with contextlib.nullcontext():"),
        ("with ws.owner as owner, _in_turn(ws.stream) as ws.latest:", "with ws.owner as owner:"),
        ("with _in_turn(params.memory.stream):", "with contextlib.nullcontext():"),
    ):
        text = text_of(cell)
        assert text.count(mutant[0]) == 1
        with cupy_on("substitute") as cupy:
            assert races(OnDevice(import_text(text.replace(*mutant)), cupy), drawn) != [], mutant


@cells("lstm", "mingru")
def test_an_array_that_another_librarys_stream_still_makes_is_waited_for_by_the_stream_alone(cell: Cell) -> None:
    """By DLPack. That the other library then leaves the memory alone until the work is done is the caller's part."""
    drawn = draw(cell)
    with on_device(cell) as module:
        cp, (params, x, state, _, _) = module.cupy, there(module, drawn)
        for array in arrays_of(module, (params, state)):
            array._memory.constant = True
        theirs, ours = (cp.cuda.Stream(non_blocking=True) for _ in range(2))
        cp.cuda.runtime.deviceSynchronize()
        for by_dlpack in (True, False):
            with cp.machine.watch() as seen:
                with theirs:
                    x += 1
                with ours:
                    module.module.forward(params, Foreign(x, stream=theirs) if by_dlpack else x, state)
            assert bool(seen.races) != by_dlpack and seen.synchronisations == []


@cells("lstm", "mingru")
def test_streams_change_no_number(cell: Cell) -> None:
    drawn = draw(cell)
    with on_device(cell) as module:
        cp, arguments = module.cupy, there(module, drawn)
        expected = copied(module.here(run(module, arguments)))
        with cp.cuda.Stream(non_blocking=True):
            ws = module.module.Workspace(drawn.steps, drawn.batch, arguments[0])
        for _ in range(2):
            with cp.cuda.Stream(non_blocking=True):
                assert same_bits(module.here(run(module, arguments, workspace=ws)), expected)


# --- what a call looks up and makes anew ---------------------------------------------------------------------------


@cells("lstm", "mingru", "valid-stretch")
def test_kernels_are_looked_up_once(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy makes a new kernel object, with an empty cache of its own, each time it is asked."""
    with on_device(cell) as module:
        asked: list[str] = []
        usual = module.cupy.RawModule.get_function
        monkeypatch.setattr(module.cupy.RawModule, "get_function", lambda self, name: asked.append(name) or usual(self, name))
        for dtype in (np.float64, np.float32, np.float64):
            call(module, draw(cell, dtype=dtype))
        assert asked and max(map(asked.count, asked)) == 2  # dtypes
        before = list(asked)
        call(module, draw(cell, dtype=np.float32, steps=9))
        assert asked == before


@cells("lstm")
def test_steps_share_what_does_not_depend_on_the_step(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of steps are made once, and of memory that steps take turns with there are two views, whatever their number."""
    with on_device(cell) as module:
        for steps in (5, 9, 3):
            tape = module.module.forward(*there(module, draw(cell, steps=steps))[:3])[2]
            numbers = [one[0] for step in tape.buffers.steps for one in step if isinstance(one, tuple)]
            assert numbers and {id(number) for number in numbers} <= {id(number) for number in module.module._NUMBERS}
        assert len(module.module._NUMBERS) == 9
        views, made, usual = [], [], ndarray.__getitem__
        monkeypatch.setattr(ndarray, "__getitem__", lambda self, key: made.append(key) or usual(self, key))
        for steps in (4, 8):
            saved = module.module.forward(*there(module, draw(cell, steps=steps))[:3])[2].buffers
            made.clear()
            memory = module.module._Backward(saved, *saved_key(saved, cell))
            halves = [value for name, value in vars(memory).items() if name.endswith("_halves")]
            assert halves and all(len(pair) == 2 for pair in halves)
            views.append(len(made))
        assert (views[1] - views[0]) / 4 == 1  # that of the pre-activations' gradients; not that of d:h


def saved_key(saved: Any, cell: Cell) -> tuple[Any, ...]:
    """What the memory of a backward pass is made for."""
    return saved.T, saved.B, saved.dtype, *(draw(cell).dims[d] for d in cell.dims)
