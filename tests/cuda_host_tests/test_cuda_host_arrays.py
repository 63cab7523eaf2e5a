"""The substitute for CuPy: arrays, streams and graphs, and that it is like the real one."""

from __future__ import annotations

import inspect
import sys

import cuda_host
import numpy as np
import pytest
from cuda_host.fake.functions import PUBLIC
from cuda_host.fake.machine import CUDARuntimeError
from cuda_host.fake.ufuncs import NAMED
from cuda_support import bfloat16, f32, i32, kernel_of, launch

pytestmark = pytest.mark.skipif(bool(cuda_host.unavailable()), reason=cuda_host.unavailable())


def test_capture_and_replay() -> None:
    with cuda_host.substitute(capture_products=True) as cp:
        x, y = cp.arange(4, dtype=f32), cp.zeros(4, f32)
        a, b, c = cp.ones((2, 3), f32), cp.ones((3, 2), f32), cp.zeros((2, 2), f32)
        add = cp.RawModule(code=kernel_of("y[threadIdx.x] += x[threadIdx.x];", "const float* x, float* y")).get_function("k")
        stream = cp.cuda.Stream(non_blocking=True)
        with cp.machine.watch() as seen:
            with stream:
                stream.begin_capture()
                assert stream.is_capturing() and cp.cuda.get_current_stream() == stream
                add((1,), (4,), (x, y))
                cp.matmul(a, b, out=c)
                cp.multiply(y, f32(2), out=y)
                y[1:2] = 7
                graph = stream.end_capture()
            assert not stream.is_capturing() and seen.launches == [] and seen.products == 0
        assert (y.get() == 0).all() and (c.get() == 0).all()
        a.fill(2)
        with cp.machine.watch() as seen:
            graph.launch()
            graph.launch(stream)
        assert (seen.launches, seen.products, seen.graphs, seen.allocations) == (["k", "k"], 2, 2, [])
        assert y.get().tolist() == [0, 7, 12, 18]  # 2 (y + x), twice, but for the second
        assert (c.get() == 6).all()


def test_what_capturing_forbids() -> None:
    with cuda_host.substitute() as cp:
        x, c = cp.zeros((2, 2), f32), cp.zeros((2, 2), f32)
        with pytest.raises(RuntimeError, match="cannot capture on the default"):
            cp.cuda.Stream.null.begin_capture()
        stream = cp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            for forbidden in (
                lambda: cp.empty(3), lambda: x + 1, lambda: x.copy(), stream.begin_capture, stream.synchronize,
                cp.cuda.Device().synchronize, cp.cuda.runtime.deviceSynchronize,
            ):  # fmt: skip
                with pytest.raises(CUDARuntimeError):
                    forbidden()
            for forbidden in (x.get, lambda: float(x[0, 0]), lambda: x.set(np.zeros((2, 2), f32)), lambda: cp.asnumpy(x)):
                with pytest.raises(RuntimeError, match="capturing"):
                    forbidden()
            with pytest.raises(NotImplementedError, match="calling cuBLAS API during stream capture is currently unsupported"):
                cp.matmul(x, x, out=c)
            stream.end_capture()
            with pytest.raises(CUDARuntimeError):
                stream.end_capture()
        blocking = cp.cuda.Stream()
        blocking.begin_capture()
        with pytest.raises(CUDARuntimeError, match="default stream"):
            x.fill(1)
        blocking.end_capture()
        x.fill(1)


def test_a_graph_keeps_no_memory_alive() -> None:
    with cuda_host.substitute() as cp:
        x = cp.zeros(4, i32)
        stream = cp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            launch(cp, kernel_of("x[0]++;"), (1,), (1,), x)
            x[1:] = 3
            graph = stream.end_capture()
        graph.launch()
        assert x.get().tolist() == [1, 3, 3, 3]
        del x
        with pytest.raises(cuda_host.CudaHostError, match="memory that has been freed"):
            graph.launch()


def test_watching() -> None:
    with cuda_host.substitute() as cp:
        a, b, c = cp.ones((3, 4), f32), cp.ones((4, 2), f32), cp.empty((3, 2), f32)
        wide, turned = cp.empty((3, 5), f32), cp.ones((2, 4), f32).T
        quiet = [
            lambda: cp.matmul(a, b, out=c), lambda: cp.matmul(b.T, a.T, out=c.reshape(2, 3)), lambda: cp.add(a, a, out=a),
            lambda: cp.tanh(a, out=wide[:, :4]), lambda: a[1:].reshape(-1), lambda: a.T, lambda: cp.copyto(c, wide[:, :2]),
            lambda: a.sum(axis=0, out=wide[0, :4]), lambda: c.fill(0), lambda: cp.asarray(a), lambda: cp.from_dlpack(a),
        ]  # fmt: skip
        for act in quiet:
            with cp.machine.watch() as seen:
                act()
            assert seen.allocations == seen.synchronisations == seen.copies == [], inspect.getsource(act)
        allocating = [
            lambda: a + 1, lambda: cp.matmul(a, b), lambda: a.copy(), lambda: a.T.reshape(-1), lambda: cp.zeros_like(a),
            lambda: cp.matmul(wide[:, :4], b, out=c), lambda: cp.matmul(a, b, out=wide[:, :2]),
            lambda: cp.matmul(c.T[:2], c[:, :2], out=c[:2]),
            lambda: cp.add(a[1:], a[:-1], out=a[1:]), lambda: cp.add(a[:], a, out=a), lambda: a.sum(axis=1, out=c[:, 0]),
            lambda: cp.matmul(a[None], turned[None], out=c[None]), lambda: cp.ascontiguousarray(a.T),
            lambda: a.__setitem__(slice(1, None), a[:-1]),
        ]  # fmt: skip
        for act in allocating:
            with cp.machine.watch() as seen:
                act()
            assert seen.allocations and not seen.synchronisations, inspect.getsource(act)
        waiting = [a.get, a[0, 0].item, lambda: bool(a[0, 0]), lambda: cp.asnumpy(a), cp.cuda.get_current_stream().synchronize]
        for act in waiting:
            with cp.machine.watch() as seen:
                act()
            assert seen.synchronisations and not seen.allocations
        with cp.machine.watch() as seen:
            cp.asarray(np.zeros(3))
        assert seen.copies and seen.allocations


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_arrays_are_no_numpy_arrays() -> None:
    with cuda_host.substitute() as cp:
        a, n = cp.ones(3, f32), np.ones(3, f32)
        assert not isinstance(a, np.ndarray)
        for mix in (
            lambda: np.asarray(a), lambda: a + n, lambda: n + a, lambda: cp.add(a, n), lambda: cp.matmul(a, n),
            lambda: np.tanh(a),
            lambda: cp.tanh(n), lambda: n.__setitem__(slice(None), a), lambda: a.__setitem__(slice(1, None), n[1:]),
            lambda: cp.concatenate([n, n]), lambda: cp.copyto(a, n), lambda: cp.sum(n), lambda: cp.where(a > 0, n, a),
            lambda: np.concatenate([a, a]), lambda: cp.add(a, a, out=n), lambda: cp.matmul(a, a, out=n), lambda: n.__iadd__(a),
        ):  # fmt: skip
            with pytest.raises(TypeError):
                mix()
        a[...] = n
        assert (np.float32(2) * a).get().tolist() == [2, 2, 2]
        with pytest.raises(NotImplementedError):
            a[np.bool_([True, False, True]).tolist()]
        with pytest.raises(AttributeError):
            cp.fft  # noqa: B018


def test_arrays_like_numpy() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((2, 4, 5, 6)).astype(f32)
    with cuda_host.substitute() as cp:
        a, b = cp.asarray(x), cp.asarray(y)
        pairs = [
            (a + b * 2 - 1, x + y * 2 - 1), (-a / b, -x / y), (abs(a) ** 2, abs(x) ** 2), (1 - a, 1 - x),
            (a @ b.transpose(0, 2, 1), x @ y.transpose(0, 2, 1)),
            (a.sum(axis=(0, 2)), x.sum(axis=(0, 2))), (a.sum(), x.sum()), (a.max(axis=1), x.max(axis=1)), (a.T, x.T),
            (a > b, x > y),
            (a[1, ..., ::2], x[1, ..., ::2]), (a[:, None, 2], x[:, None, 2]), (a[-1], x[-1]),
            (cp.concatenate([a, b], 1), np.concatenate([x, y], 1)),
            (cp.stack([a, b]), np.stack([x, y])), (cp.where(a > 0, a, b), np.where(x > 0, x, y)),
            (cp.clip(a, -1, 1), np.clip(x, -1, 1)),
            (cp.broadcast_to(a[0], (3, 5, 6)), np.broadcast_to(x[0], (3, 5, 6))),
            (cp.roll(a, 1, axis=0), np.roll(x, 1, axis=0)),
            (cp.maximum(a, 0), np.maximum(x, 0)), (cp.logaddexp(a, b), np.logaddexp(x, y)), (cp.isnan(a), np.isnan(x)),
            (cp.eye(3, dtype=f32), np.eye(3, dtype=f32)),
            (cp.arange(2, 9, 3), np.arange(2, 9, 3)), (cp.dot(a[0], b[0].T), x[0] @ y[0].T),
            (a.astype(np.float64), x.astype(np.float64)), (a.reshape(20, -1), x.reshape(20, -1)),
            (cp.full((2, 2), 7), np.full((2, 2), 7)), (cp.empty((0, 3), f32), np.empty((0, 3), f32)),
            (a[:0].sum(axis=0), x[:0].sum(axis=0)), (a.squeeze(), x.squeeze()),
        ]  # fmt: skip
        for got, wanted in pairs:
            assert isinstance(got, cp.ndarray) and got.shape == wanted.shape and got.dtype == wanted.dtype
            assert np.allclose(got.get(), wanted, rtol=1e-5, atol=1e-6)
            if got.ndim > 1 and got.size and np.shares_memory(wanted, x):
                assert got.flags.c_contiguous == wanted.flags.c_contiguous
        a[1:, :, 0] = b[0, 0, 0]
        x[1:, :, 0] = y[0, 0, 0]
        a[0] += b[0]
        x[0] += y[0]
        a[2, 3] = 5
        x[2, 3] = 5
        assert (a.get() == x).all()
        assert (a.shape, a.ndim, a.size, a.nbytes) == (x.shape, x.ndim, x.size, x.nbytes)
        assert (a.itemsize, a.strides, len(a)) == (4, x.strides, 4)
        assert a[2].data.ptr == a.data.ptr + 2 * x.strides[0] and a[:0].data.ptr == 0 and a.data.ptr % 512 == 0
        assert a.T.flags.f_contiguous and not a.T.flags.c_contiguous
        with pytest.raises(ValueError, match=r"broadcast|shape"):
            a + b[:, :2]
        with pytest.raises(ValueError, match="shape"):
            cp.matmul(a[0], b[0].T, out=cp.empty((5, 4), f32))
        with pytest.raises(TypeError, match="cast"):
            cp.add(a, b, out=cp.empty(a.shape, i32))
        with pytest.raises(ValueError, match="Not supported dtype"):
            cp.dot(a[0], b[0].T, out=cp.empty((5, 5)))


def test_empty_is_nan_and_never_another_buffer() -> None:
    with cuda_host.substitute() as cp:
        for dtype in (np.float16, f32, float):
            assert np.isnan(cp.empty((3, 3), dtype).get()).all()
        assert (cp.empty(3, i32).get() == -1).all() and cp.empty(3, bool).get().all()
        assert np.isnan(cp.empty_like(cp.zeros(3)).get()).all()


def test_small_floats_are_multiplied_in_float32() -> None:
    rng = np.random.default_rng(8)
    for dtype in (np.dtype(np.float16), bfloat16()):
        x, y = rng.standard_normal((2, 40, 40)).astype(dtype)
        with cuda_host.substitute() as cp:
            out = cp.empty((40, 40), dtype)
            assert cp.matmul(cp.asarray(x), cp.asarray(y), out=out) is out
            assert (out.get() == (x.astype(f32) @ y.astype(f32)).astype(dtype)).all()
            total = cp.asarray(x).sum(axis=0)
            assert total.dtype == dtype and (total.get() == x.astype(f32).sum(axis=0).astype(dtype)).all()
            assert cp.tanh(out).dtype == dtype


def test_arrays_of_other_libraries() -> None:
    with cuda_host.substitute() as cp:
        a = cp.arange(12, dtype=f32).reshape(3, 4)
        for view in (a, a.T, a[1:, ::2], a[:0]):
            for other, take in (
                (cuda_host.Foreign(view, interface=False), cp.from_dlpack),
                (cuda_host.Foreign(view, dlpack=False), cp.asarray),
            ):
                with cp.machine.watch() as seen:
                    taken = take(other)
                places = [(array.data.ptr, array.shape, array.strides) for array in (taken, view)]
                assert places[0] == places[1] or not view.size
                assert (taken.get() == view.get()).all() and not seen.allocations
        with pytest.raises(TypeError, match="CPU arrays cannot be directly imported"):
            cp.from_dlpack(np.zeros(3))
        assert not hasattr(cuda_host.Foreign(a, dlpack=False), "__dlpack__")
        assert not hasattr(cuda_host.Foreign(a, interface=False), "__cuda_array_interface__")


def test_the_substitute_goes_as_it_came() -> None:
    before = sys.modules.get("cupy")
    with cuda_host.substitute() as outer:
        module = cuda_host.import_text("import cupy as cp\nfrom cupy.cuda import Stream\ndef f(): return cp.zeros(3)\n")
        assert module.cp is outer and isinstance(module.f(), outer.ndarray)
        with cuda_host.substitute() as inner:
            assert sys.modules["cupy"] is inner is not outer
        assert sys.modules["cupy"] is outer
    assert sys.modules.get("cupy") is before


# --- like the real CuPy -----------------------------------------------------------------------------------------------


def test_signatures_are_cupys() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy, to compare the substitute with, is not installed")
    compared = 0
    for name, ours in PUBLIC.items():
        theirs = getattr(cupy, name)
        if name in NAMED or name in ("matmul", "from_dlpack"):
            assert isinstance(theirs, cupy.ufunc) == (name in NAMED)
            continue
        wanted = inspect.signature(theirs).parameters
        found = inspect.signature(ours).parameters
        assert list(found) == list(wanted), name
        assert [p.kind for p in found.values()] == [p.kind for p in wanted.values()], name
        compared += 1
    assert compared > 25


def test_attributes_are_cupys() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy, to compare the substitute with, is not installed")
    with cuda_host.substitute() as cp:
        cuda = ("cuda.Stream", "cuda.Graph", "cuda.Event", "cuda.Device", "cuda.runtime")
        for name in ("ndarray", "RawKernel", "RawModule", *cuda):
            ours, theirs = cp, cupy
            for part in name.split("."):
                ours, theirs = getattr(ours, part), getattr(theirs, part)
            public = {attribute for attribute in dir(ours) if not attribute.startswith("_")}
            assert public - set(dir(theirs)) <= {"work"}, name
        missing = {name for name in dir(cp) if not name.startswith("_") and not hasattr(cupy, name)}
        assert missing == {"machine"}
        for name, ours in NAMED.items():
            theirs = getattr(cupy, name)
            assert ours.nin == theirs.nin, name
