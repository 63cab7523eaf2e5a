"""The run-time functions of generated CuPy modules, and CUDA that each has, by themselves, on every machine that there is.

A file is run with the names that a module defines elsewhere put beside its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from cuda_host import import_text
from cupy_support import cupy_on
from support import ROOT

from cellspec.backends import included
from cellspec.backends.numpy.runtime import activations
from cellspec.backends.runtime import masks

RUNTIME = ROOT / "cellspec" / "backends" / "cupy" / "runtime"
TYPES = "typedef float stored; typedef float real;\n"
RNG = np.random.default_rng


@contextmanager
def loaded(machine: str, name: str, **around: Any) -> Iterator[tuple[Any, Any]]:
    """CuPy on a machine, and a file with what stands around it."""
    with cupy_on(machine) as cupy:
        module: ModuleType = import_text((RUNTIME / f"{name}.py").read_text("utf-8"), name)
        vars(module).update(around)
        yield cupy, module


def kernels(cupy: Any, file: str) -> Any:
    """The kernels of a file of CUDA in float32, by name."""
    made = cupy.RawModule(code=TYPES + included.source(("cupy",), file), options=("--std=c++17",))
    return lambda name, dtype: made.get_function(name)


def numbers(*shape: int) -> np.ndarray:
    return RNG(0).normal(size=shape).astype(np.float32)


# --- activations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["elu", "erf", "erfc", "gelu", "sigmoid", "silu", "softsign"])
def test_activations_are_numpys(name: str, machine: str) -> None:
    z = np.array([-800.0, -30.0, -1.5, -1e-300, 0.0, 1e-9, 0.7, 40.0, 800.0])
    with loaded(machine, "activations") as (cupy, module):
        found = cupy.asnumpy(getattr(module, f"_{name}")(cupy.asarray(z)))
    np.testing.assert_allclose(found, getattr(activations, f"_{name}")(z), rtol=1e-14, atol=0)


def test_largest(machine: str) -> None:
    a = np.array([[1.0, 3.0, 2.0], [-math.inf, -math.inf, -math.inf], [1.0, math.inf, 0.0]])
    with loaded(machine, "activations") as (cupy, module):
        assert cupy.asnumpy(module._largest(cupy.asarray(a), 1)).tolist() == [[3.0], [0.0], [0.0]]


# --- kernels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 33), (900, 5), (0, 4)])
def test_sums_of_columns(shape: tuple[int, int], machine: str) -> None:
    rows = numbers(*shape)
    with loaded(machine, "sums") as (cupy, module):
        module._kernel = kernels(cupy, "sums.cu")
        count = module._parts(shape[0])
        assert 1 <= count <= 128 and (shape[0] < 128 or count == shape[0] // 64)
        parts, sums = cupy.full((count, shape[1]), math.nan, "float32"), cupy.full((shape[1],), math.nan, "float32")
        module._sum_rows(cupy.asarray(rows), parts, sums)
        np.testing.assert_allclose(cupy.asnumpy(sums), rows.sum(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "heads", "inner", "columns"), [(3, 2, 5, 4), (9, 1, 3, 33), (1, 3, 17, 1)])
def test_products_by_heads(rows: int, heads: int, inner: int, columns: int, machine: str) -> None:
    left, weights, right = numbers(rows, heads, inner), numbers(heads, inner, columns), numbers(rows, heads, columns)
    with loaded(machine, "heads") as (cupy, module):
        module._kernel = kernels(cupy, "heads.cu")
        out, gradient = cupy.full(right.shape, math.nan, "float32"), cupy.full(weights.shape, math.nan, "float32")
        module._multiply_heads(cupy.asarray(left), cupy.asarray(weights), out)
        module._gradient_of_heads(cupy.asarray(left), cupy.asarray(right), gradient)
        np.testing.assert_allclose(cupy.asnumpy(out), np.einsum("rhi,hic->rhc", left, weights), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(cupy.asnumpy(gradient), np.einsum("rhi,rhc->hic", left, right), rtol=1e-4, atol=1e-5)


def test_rows_in_another_order(machine: str) -> None:
    """A row of zeros for -1."""
    given, order = numbers(4, 3), np.array([2, -1, 0, 3, 3])
    with cupy_on(machine) as cupy:
        out = cupy.full((5, 3), math.nan, "float32")
        arguments = (cupy.int64(out.size), cupy.int64(3), cupy.asarray(order), cupy.asarray(given), out)
        kernels(cupy, "arrange.cu")("arrange", None)((1,), (32,), arguments)
        np.testing.assert_array_equal(cupy.asnumpy(out), np.where(order[:, None] < 0, 0, given[order]))


def test_launches_along_an_axis(machine: str) -> None:
    """A block for each row, or a thread for each result; nothing is launched for no rows."""
    launched: list[Any] = []

    def kernel(name: str, dtype: Any) -> Any:
        return lambda *arguments: launched.append((name, dtype, *arguments))

    around = {"ALONG_THREADS": (128,), "_blocks": lambda count: (-(-count // 128),), "_kernel": kernel}
    with loaded(machine, "along", **around) as (cupy, module):
        rows, out = cupy.zeros((6, 40), "float32"), cupy.zeros((6, 4), "float32")
        module._along("sum_units", rows, 8, (4, 8, 1), out, "a dtype")
        module._along("sum_across_real", rows, 0, (1, 4, 10), out, "a dtype")
        module._along("sum_units", rows[:0], 8, (4, 8, 1), out, "a dtype")
    (name, dtype, blocks, threads, arguments), (other, _, few, *_) = launched
    assert (name, dtype, blocks, threads) == ("sum_units", "a dtype", (24,), (128,)) and (other, few) == (
        "sum_across_real",
        (1,),
    )
    assert [int(number) for number in arguments[:6]] == [6, 40, 8, 4, 8, 1] and arguments[6] is rows and arguments[7] is out


# --- launches ----------------------------------------------------------------------------------------------


def test_a_thread_for_each_element(machine: str) -> None:
    launched: list[Any] = []
    with loaded(machine, "launched", THREADS=(128,)) as (_, module):
        module._run(lambda *given: launched.append(given), 129, ("arguments",))
        assert module._blocks(0) == (1,) and module._blocks(128) == (1,)
        assert module._real(np.dtype("float16")) == np.float32 and module._real(np.dtype("float64")) == np.float64
    assert launched == [((2,), (128,), ("arguments",))]


def test_kernels_of_a_dtype_are_compiled_once(machine: str) -> None:
    around = {"_TYPES": {"float32": TYPES}, "_CUDA": included.source(("cupy",), "sums.cu"), "_MODULES": {}, "_KERNELS": {}}
    with loaded(machine, "compiled", **around) as (_, module):
        dtype = np.dtype("float32")
        assert module._kernel("sum_rows", dtype) is module._kernel("sum_rows", dtype)
        assert list(module._MODULES) == ["float32"] and list(module._KERNELS) == [("sum_rows", dtype)]
        module._kernel("sum_parts", dtype)
        assert len(module._MODULES) == 1 and len(module._KERNELS) == 2


def test_streams_take_turns(machine: str) -> None:
    """Work of another stream comes before what stands inside, and its later work behind it."""
    seen: list[Any] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def record(self) -> str:
            return self.name

        def wait_event(self, event: str) -> None:
            seen.append((self.name, event))

    with loaded(machine, "streams") as (_, module):
        here, other = Stream("here"), Stream("other")
        module.cp = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: here))
        with pytest.raises(KeyError), module._in_turn(here, other) as found:
            assert found is here and seen == [("here", "other")]
            raise KeyError
    assert seen == [("here", "other"), ("other", "here")]


# --- masks -------------------------------------------------------------------------------------------------


def test_what_the_host_reads(machine: str) -> None:
    with loaded(machine, "on_host", _array=lambda name, value: value) as (cupy, module):
        assert module._on_host("lengths", [1, 2]).tolist() == [1, 2]
        found = module._on_host("lengths", cupy.asarray(np.array([3, 4])))
        assert type(found) is np.ndarray and found.tolist() == [3, 4]
        with pytest.raises(TypeError, match="lengths must be an array or a list, got MaskedArray"):
            module._on_host("lengths", np.ma.array([1]))


def test_what_samples_hold_behind_their_last_step(machine: str) -> None:
    def run(kernel: Any, count: int, arguments: Any) -> None:
        size, columns, order, given, _ = (cupy.asnumpy(a) if hasattr(a, "ndim") and a.ndim else a for a in arguments)
        assert int(size) == count == 6 and int(columns) == 2 and kernel == "arrange"
        arguments[4][...] = cupy.asarray(given.reshape(-1, 2)[order])

    with loaded(machine, "arranged", _kernel=lambda name, dtype: name, _run=run) as (cupy, module):
        history, dtype = cupy.asarray(np.arange(18.0).reshape(3, 3, 2)), np.dtype("float64")
        ws = SimpleNamespace(rows=None, T=2, dtype=dtype)
        assert cupy.asnumpy(module._last(ws, history)).tolist() == [[12, 13], [14, 15], [16, 17]]
        ws.rows = SimpleNamespace(ends=cupy.asarray(np.array([6, 1, 5])))
        assert cupy.asnumpy(module._last(ws, history)).tolist() == [[12, 13], [2, 3], [10, 11]]
        assert module._last(ws, history, "kept apart") == "kept apart"
        assert module._arranged(None, history, dtype) is history


def test_kernels_are_told_of_cuts_until_there_are_none(machine: str) -> None:
    with loaded(machine, "told") as (cupy, module):
        ws = SimpleNamespace(rows=None, is_cut=False, cuts=cupy.full((3, 2, 1), 9.0, "float32"))
        module._cut(ws)
        assert float(cupy.asnumpy(ws.cuts).sum()) == 54 and not ws.is_cut
        ws.rows = SimpleNamespace(cuts=np.array([[0, 1], [2, 0], [3, 0]]))
        module._cut(ws)
        assert cupy.asnumpy(ws.cuts)[:, :, 0].tolist() == [[0, 1], [2, 0], [3, 0]] and ws.is_cut
        ws.rows = None
        module._cut(ws)
        assert not cupy.asnumpy(ws.cuts).any() and not ws.is_cut


def test_the_count_begins_anew(machine: str) -> None:
    """From 0 behind a reset, from its first number where a sample is run again; the last row is that of the ends."""
    with loaded(machine, "counted", _readings=masks._readings) as (cupy, module):
        count = cupy.full((5, 2, 1), 7.0, "float32")
        module._count_anew(count, masks_of(4, 2, [4, 2], [(2, 0)]))
        assert cupy.asnumpy(count)[:, :, 0].T.tolist() == [[7, 8, 0, 1, 2], [7, 8, 7, 8, 9]]


def masks_of(T: int, B: int, lengths: list[int] | None, resets: list[tuple[int, int]]) -> Any:
    """Masks of a call, with resets before these steps of these samples."""
    put_back = np.zeros((T, B), bool)
    for place in resets:
        put_back[place] = True
    given = np.full(B, T) if lengths is None else np.array(lengths)
    steps = np.arange(T)[:, None]
    return masks._Masks(given, put_back & (steps < given), None, np.flatnonzero(steps >= given), {})


RESETS = [(2, 0), (3, 0), (0, 1), (4, 1)]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_rows_that_steps_read(k: int, machine: str) -> None:
    """k steps back in a history of K values before the first step; none across a reset, of which that at the start is none."""
    T, B, K = 6, 3, 3
    with loaded(machine, "lags", _readings=masks._readings) as (_, module):
        found = module._rows_read(masks_of(T, B, None, RESETS), T, B, K, k)
        without = module._rows_read(None, T, B, K, k)
    for t in range(T):
        for b in range(B):
            begun = max((step for step, sample in RESETS if sample == b and 0 < step <= t), default=-K)
            assert found[t, b] == ((K + t - k) * B + b if t - k >= begun else -1)
            assert without[t, b] == (K + t - k) * B + b


@pytest.mark.parametrize("k", [1, 2, 3])
def test_rows_go_back_to_whom_they_were_read_from(k: int, machine: str) -> None:
    """What step t has left for k steps back belongs to the step that it has read: the other way round, where there is one."""
    T, B, K, rows = 6, 3, 3, 2
    for given in (None, masks_of(T, B, None, RESETS)):
        with loaded(machine, "lags", _readings=masks._readings) as (_, module):
            read, back = module._rows_read(given, T, B, K, k), module._rows_back(given, T, B, K, k, rows)
        for t in range(T):
            for b in range(B):
                if read[t, b] >= 0 and t - k < T - K:  # what is later belongs to the final state too
                    assert back[read[t, b] // B, b] == t * B + b
        inside = back[(back >= 0) & (back < T * B)]
        assert len(set(inside.tolist())) == len(inside) and back.max() < (T + rows) * B


def test_last_rows(machine: str) -> None:
    """The oldest values up to each sample's end; the spec's own where a reset is nearer."""
    T, B, K = 5, 3, 3
    history = np.arange((T + K) * B, dtype=np.float32).reshape(T + K, B, 1)

    def arranged(order: Any, given: Any, dtype: Any) -> Any:
        flat, at = cupy.asnumpy(given).reshape(-1, 1), cupy.asnumpy(order)
        return cupy.asarray(np.where(at[..., None] < 0, 0, flat[at]).astype(dtype))

    with loaded(machine, "lags", _readings=masks._readings, _arranged=arranged) as (cupy, module):
        there = cupy.asarray(history)
        whole = cupy.asnumpy(module._last_rows(there, None, T, 2, 0.5, np.dtype("float32")))
        given = masks_of(T, B, [5, 2, 5], [(4, 2)])
        found = cupy.asnumpy(module._last_rows(there, given, T, 2, 0.5, np.dtype("float32")))
    np.testing.assert_array_equal(whole, history[T : T + 2])
    assert found[:, :, 0].tolist() == [[15, 7, 0.5], [18, 10, 0.5]]


class State(NamedTuple):
    h: Any
    c: Any


def test_states_at_the_first_step(machine: str) -> None:
    """A reset before the first step, and a sample without one, whose state is another's; and the gradients of both."""
    around = {"State": State, "_real": lambda dtype: dtype}
    with loaded(machine, "started", **around) as (cupy, module):

        def state(value: float) -> State:
            return State(cupy.full((3, 2), value, "float32"), cupy.full((3, 2, 2), value + 0.5, "float32"))

        def h_and_c(found: State) -> list[list[float]]:
            return [cupy.asnumpy(each).reshape(3, -1)[:, 0].tolist() for each in found]

        module._arranged = lambda order, given, dtype: given + order
        dtype, rows = np.dtype("float32"), SimpleNamespace(starts=10)
        ended, reset, none = masks_of(4, 3, [4, 0, 4], []), masks_of(4, 3, None, [(0, 2)]), masks_of(4, 3, None, [(1, 2)])
        assert h_and_c(module._started(reset, rows, state(1), state(7), dtype)) == [[1, 1, 7], [1.5, 1.5, 7.5]]
        assert h_and_c(module._started(ended, rows, state(1), state(7), dtype)) == [[11, 11, 11], [11.5, 11.5, 11.5]]
        assert h_and_c(module._started(none, rows, state(1), state(7), dtype)) == [[1, 1, 1], [1.5, 1.5, 1.5]]
        assert h_and_c(module._first_gradient(reset, state(1), state(7), dtype)) == [[1, 1, 0], [1.5, 1.5, 0]]
        assert h_and_c(module._first_gradient(ended, state(1), state(7), dtype)) == [[1, 7, 1], [1.5, 7.5, 1.5]]
        assert h_and_c(module._first_gradient(ended, state(1), None, dtype)) == [[1, 0, 1], [1.5, 0, 1.5]]


# --- devices -----------------------------------------------------------------------------------------------


def test_the_device_of_arguments(machine: str) -> None:
    """That of the first array with elements, however deep it lies; None where there is none."""

    class Packed(NamedTuple):
        params: Any

    with loaded(machine, "devices", Packed=Packed) as (cupy, module):
        array, empty = cupy.zeros((2,), "float32"), cupy.zeros((0,), "float32")
        for value in (array, (None, 3, array), (empty, (np.zeros(2), array)), Packed((array,))):
            assert int(module._device_of(value)) == int(array.device)
        for value in (None, empty, np.zeros(2), (), Packed((np.zeros(2),))):
            assert module._device_of(value) is None
        doubled = module._on_its_device(lambda x, *, y: x + y)
        assert cupy.asnumpy(doubled(array, y=1)).tolist() == [1, 1] and doubled(1, y=2) == 3


# --- products ----------------------------------------------------------------------------------------------

TABLE = {"float64": "", "float32": "", "float16": ""}
ROUNDED = {dtype: 16 * float(np.finfo(dtype).eps) for dtype in TABLE}
"""What sums of five products of a few units may be off: every term and every sum is rounded, at most to eps times 4."""


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 5, 1), (1, 0, 1), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_products(rows: int, inner: int, columns: int, dtype: str, machine: str) -> None:
    """Of contiguous and of transposed matrices; a row times a column by cuBLAS as well."""
    left, right = RNG(0).normal(size=(rows, inner)).astype(dtype), RNG(1).normal(size=(columns, inner)).astype(dtype)
    with cupy_on(machine) as cupy:
        cublas = import_text((RUNTIME / "cublas.py").read_text("utf-8").replace("_FACTORS =", f"_TYPES = {TABLE}\n_FACTORS ="))
        module: Any = import_text((RUNTIME / "dot.py").read_text("utf-8"))
        module._product = vars(cublas)["_product"]
        out = cupy.full((rows, columns), math.nan, dtype)
        module._dot(cupy.asarray(left), cupy.asarray(right).T, out)
        wanted = left.astype("float64") @ right.T.astype("float64")
        np.testing.assert_allclose(cupy.asnumpy(out), wanted, rtol=0, atol=ROUNDED[dtype])


def test_how_cublas_sees_a_matrix(machine: str) -> None:
    """By columns: a matrix in C order as its transpose, whose columns lie a row apart; a view of its rows further."""
    with cupy_on(machine) as cupy:
        text = (RUNTIME / "cublas.py").read_text("utf-8").replace("_FACTORS =", f"_TYPES = {TABLE}\n_FACTORS =")
        module: Any = import_text(text)
        matrix = cupy.zeros((4, 6), "float32")
        seen = [module._by_columns(view) for view in (matrix, matrix.T, matrix[:, :2], matrix[:, :1], matrix[:, :2].T)]
    assert seen == [(0, 6), (1, 6), (0, 6), (0, 6), (1, 6)]
