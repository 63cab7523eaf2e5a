"""Generated CuPy modules of the language beyond vectors, against the equations, on the substitute for CuPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import nvrtc, unavailable
from cupy_support import on_device
from random_language import RandomLanguage
from support import call, cell_from, copied, draw, leaves, same_bits
from test_cupy_resources import SHARED, text_of_kernels
from test_oracle_nodes import CELLS

import cellspec
from cellspec.cell import Cell
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import load_spec
from cellspec.verification.check import verify

FOLDER = Path(__file__).parents[1] / "valid_language"
WRITTEN = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FAST = {"heads softmax", "layer_norm", "cumsum", "matrix_state", "rolled_heads", "several", "clocked"}

EARLY_AND_LATE = """
name: early_and_late
inputs: {x: I}
states: {h: H}
params: {W: [H, I], b: H}
equations: |
  n = logsumexp([W @ x[t], h[t-1], b])
  h[t] = tanh(W @ x[t] + 0.3*n*h[t-1])
"""

SMALL_MEMORIES = """
name: memories
inputs: {x: I, u: [N, D]}
states: {C: [N, D], s: [N, 2*D], h: H}
outputs: [h, s]
params:
  V: [N, D, I]
  R: [N, 2*D, D]
  S: [N, D, 2*D]
  P: [N, D, D]
  e: [N, 2*D]
  W: [H, I]
  U: [H, H]
equations: |
  both = [roll(C[t-1], 1), tanh(V @ x[t-1] + u[t])]
  p = P @ tanh(C[t-1]) + S @ roll(s[t-1], -2)
  s[t] = tanh(both*e + R @ p) + 0.3*roll(both, 3)
  C[t] = softmax(p) + logsumexp(s[t]) - 0.5*norm([p, C[t-1]])
  h[t] = tanh(W @ x[t] + U @ h[t-3] + 0.1*cumsum(h[t-1]))
"""

LINEAR_ATTENTION = """
name: attention
inputs: {x: I}
states: {C: [M, K]}
outputs: [h]
params: {Wq: [K, I], Wk: [K, I], Wv: [M, I], a: [M, 1], p: [1, K]}
equations: |
  C[t] = sigmoid(a)*C[t-1] + outer(Wv @ x[t], softmax(Wk @ x[t]))*p
  h = C[t] @ (Wq @ x[t])
"""

INFINITE_ROWS = """
name: infinite_rows
inputs: {x: I}
states: {h: H, c: {shape: H, init: -.inf}}
outputs: [n]
params: {W: [H, I]}
equations: |
  n = logsumexp(c[t-1])
  c[t] = max(c[t-1], W @ x[t])
  h[t] = tanh(W @ x[t]) + 0.5*h[t-1]
"""

ODD_NAMES = """
name: odd
inputs: {x: i, along: [j, row]}
states: {add: [j, row], tile: row, stored: 1, t_: {shape: row, init: -.inf}}
outputs: [add, joined]
params:
  sum_row: [j, row]
  larger: [j, row, row]
  k: [row, i]
  at: row
  length: [j, row]
  inner: row
  outer_: [row, row]
  sample: [1, i]
  multiply_heads: [j, row, i]
equations: |
  joined = softmax(larger @ add[t-1] + sum_row*along[t] + multiply_heads @ x[t])
  add[t] = tanh(joined - mean(joined)) + length*cumsum(joined)
  t_[t] = max(t_[t-1], k @ x[t])
  tile[t] = tanh(outer_ @ tile[t-1] + k @ x[t] + at*norm(tile[t-1])) + exp(k @ x[t] - t_[t])
  stored[t] = tanh(0.5*stored[t-1] + sample @ x[t]) + logsumexp(tile[t]*inner) + t_now
"""

needs_compiler = pytest.mark.skipif(bool(unavailable()), reason=str(unavailable()))


def fast_or_slow(names: Any, fast: set[Any]) -> list[Any]:
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


def check(cell: Cell) -> None:
    with on_device(cell, "random", seed=3) as module:
        report = verify(cell, module, seed=3, exact=False)
    assert report.ok, str(report)


@needs_compiler
@pytest.mark.parametrize("name", fast_or_slow(CELLS, FAST))
def test_every_node_of_the_language_is_right(name: str) -> None:
    check(CELLS[name])


@needs_compiler
@pytest.mark.parametrize("name", fast_or_slow(WRITTEN, {"clock"}))
def test_specs_of_the_language_are_right(name: str) -> None:
    check(elaborate(load_spec(FOLDER / f"{name}.yaml")))


@needs_compiler
def test_a_list_of_what_the_loop_knows_early_and_late_is_right() -> None:
    """The product is computed for all steps before the loop, the list at each step."""
    check(cell_from(EARLY_AND_LATE))


@needs_compiler
def test_moves_lags_and_several_inputs_are_right() -> None:
    check(cell_from(SMALL_MEMORIES))


@needs_compiler
def test_the_largest_element_of_an_infinite_row_is_not_subtracted() -> None:
    """The difference would be no number; the logarithm of no summands is minus infinity."""
    cell = cell_from(INFINITE_ROWS)
    drawn = draw(cell, default_state=True)
    with on_device(cell) as module:
        n, _, _ = module.forward(drawn.module_params(module), drawn.module_x(module))
    assert np.isneginf(n[0]).all() and np.isfinite(n[1:]).all()


@needs_compiler
def test_an_elementwise_matrix_state_runs_in_one_kernel() -> None:
    cell = cell_from(LINEAR_ATTENTION)
    text = cellspec.generate(cell, "cupy")
    assert text.count("// Every step, from the ") == 2, "a loop of steps where one kernel would do"
    check(cell)


@needs_compiler
@pytest.mark.parametrize("form", ["h[t-1]", "stop_gradient(h[t-2])"])
def test_an_output_may_be_a_state_before_the_step(form: str) -> None:
    text = "name: before\ninputs: {x: H}\nstates: {h: H}\noutputs: [h, v]\nparams: {w: H}\nequations: |\n"
    check(cell_from(f"{text}  v = {form}\n  h[t] = tanh(w*x[t] + 0.5*h[t-1])\n"))


def check_random(seed: int) -> None:
    text = RandomLanguage(seed).text()
    print(f"seed {seed}\n{text}")
    cell = cell_from(text)
    with on_device(cell, "random", seed=seed) as module:
        report = verify(cell, module, seed=seed, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@needs_compiler
@pytest.mark.parametrize("seed", fast_or_slow(range(20), {3}))
def test_random_cells_of_the_language_are_right(seed: int) -> None:
    check_random(seed)


@needs_compiler
@pytest.mark.slow
def test_names_with_a_meaning_in_kernels_are_names_like_others() -> None:
    check(cell_from(ODD_NAMES))


@needs_compiler
@pytest.mark.parametrize("name", ["matrix_state", "heads softmax"])
def test_no_step_and_no_sample(name: str) -> None:
    with on_device(CELLS[name]) as module:
        for steps, batch in ((0, 2), (2, 0)):
            drawn = draw(CELLS[name], steps=steps, batch=batch)
            y, final, grads = call(module, drawn)
            assert all(np.isfinite(array).all() for array in leaves((y, final, grads)))
            assert leaves(final)[0].shape[0] == batch


@needs_compiler
@pytest.mark.parametrize("name", ["matrix_state", "rolled_heads"])
def test_the_order_of_threads_changes_no_bit(name: str) -> None:
    drawn = draw(CELLS[name], steps=4, batch=3, dtype=np.float32)
    results = []
    for schedule in ("forward", "random", "starve"):
        with on_device(CELLS[name], schedule, seed=1) as module:
            first = copied(call(module, drawn))
            assert same_bits(call(module, drawn), first), "the second call gives other bits"
            results.append(first)
    assert all(same_bits(result, results[0]) for result in results[1:])


@needs_compiler
@pytest.mark.parametrize("name", ["matrix_state", "rolled_heads"])
def test_a_captured_loop_computes_the_same_and_no_step_allocates(name: str) -> None:
    cell = CELLS[name]
    allocations = []
    with on_device(cell) as module:
        for steps in (3, 6):
            drawn = draw(cell, steps=steps, batch=2)
            workspace = module.Workspace(steps, 2, drawn.module_params(module))
            plain = copied(call(module, drawn, workspace=workspace))
            with module.cupy.machine.watch() as seen:
                call(module, drawn, workspace=workspace)
            allocations.append(len(seen.allocations))
            for _ in range(2):
                captured = copied(call(module, drawn, workspace=workspace, graph=True))
                for array, other in zip(leaves(plain), leaves(captured), strict=True):
                    np.testing.assert_allclose(array, other, rtol=1e-12, atol=1e-13)
    assert allocations[0] == allocations[1]


@pytest.mark.skipif(bool(nvrtc.unavailable()), reason=nvrtc.unavailable())
@pytest.mark.parametrize("name", fast_or_slow(CELLS, {"matrix_state", "heads softmax", "heads cumsum"}))
def test_kernels_compile_without_spills(name: str) -> None:
    uses = nvrtc.resources(text_of_kernels(cellspec.generate(CELLS[name], "cupy"), "float64"), ("--std=c++17",))
    assert not [kernel for kernel, use in uses.items() if use.spills]
    assert all(use.shared <= SHARED for use in uses.values())
