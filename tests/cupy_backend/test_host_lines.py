"""The host's lines of a CuPy module: gradients of parameters, earlier inputs, histories; and what people are told of a cell."""

from __future__ import annotations

import re
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sympy
from fused_support import memory_of
from numpy_support import SILENT
from support import ROOT, cell_from, cell_of

from cellspec.backends.common import Common
from cellspec.backends.cupy.around import Texts
from cellspec.backends.cupy.backend import BACKEND
from cellspec.backends.cupy.describe import describe
from cellspec.backends.cupy.earlier import Earlier
from cellspec.backends.cupy.gradients import add_gradients
from cellspec.backends.cupy.histories import NUMBERED, Histories
from cellspec.backends.cupy.host import Host, Text
from cellspec.backends.fused.directions import Directions
from cellspec.backends.fused.lagged import Lagged
from cellspec.backends.fused.loop_kinds import choose
from cellspec.backends.fused.memory import Memory
from cellspec.backends.memory.model import Buffer, Home, Owner
from cellspec.backends.naming import Names
from cellspec.pipeline import compile_cell

SIZES = {"H": 3, "I": 2, "N": 2, "D": 4, "T": 5, "B": 3}

MATRICES = """
    constant  U: [H, H]
    sequence  dy[t]: [H], s[t]: [H], x[t]: [I], z[t]: [H]
    carried   p: [H]
      d: [H]    = dy[t] + p
      e: [H]    = d*s[t]*(1 - s[t])
      f: [H]    = d*z[t]
      m: [H]    = e + f
      n: [H]    = U.T @ m
      O: [H, I] = outer(e, x[t])
      Q: [H, I] = outer(f, x[t])
    carry     p <- n
    total     db = sum of e
    total     dc = sum of f
    total     dV = sum of O
    total     dW = sum of Q
    give out  m
"""
TWICE = MATRICES.replace("total     dW", "total     dV").replace("total     dc = sum of f", "total     dc = sum of e")
HEADS = """
    constant  U: [N, H, D]
    sequence  dy[t]: [N, H], s[t]: [N, D]
    carried   p: [N, D]
      d: [N, H]    = dy[t]*2
      c: [N, D]    = U.T @ d
      n: [N, D]    = c*s[t] + p
      O: [N, H, D] = outer(d, s[t])
    carry     p <- n
    total     dU = sum of O
    total     dm = sum of c
    give out  n
"""
TOTALS = """
    constant  b: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      f: [H]    = sigmoid(x[t])
      g: [H]    = f*h[t-1]
      h[t]: [H] = g + b
    carry     h[t-1] <- h[t]
    total     db = sum of g
    give out  f
"""


# --- gradients of parameters -----------------------------------------------------------------------------------------


def number(expr: Any) -> int:
    return int(sympy.sympify(expr).subs(SIZES))


def host(memory: Memory) -> Host:
    matrices = {name.removesuffix("[t]"): f"{name.removesuffix('[t]')}_2d" for name in memory.flow.program.sequences}
    return Host("backward", memory, choose(memory.plan), Texts({}, SILENT), {}, {}, Names(()), matrices)


def computed(text: str, *, single: bool = False) -> tuple[dict[str, Any], dict[str, Any], Host]:
    """What the lines make of every target, the arrays of memory, and who has written the lines."""
    memory, rng = memory_of(text, forwards=False, single=single), np.random.default_rng(2)
    made = host(memory)
    add_gradients(made, lambda target: f"g_{target}")
    ws, real = SimpleNamespace(), np.float64
    for buffer in memory.buffers:
        setattr(ws, buffer.name, rng.normal(size=tuple(map(number, buffer.axes))))
    arrays = dict(vars(ws))
    scope: dict[str, Any] = {**SIZES, "ws": ws, "cp": np, "dtype": np.float64, "real": real, "_parts": lambda rows: 2}
    for name in memory.flow.program.sequences:
        width = number(sympy.Mul(*memory.flow.program.shape(name)))
        scope[f"{name.removesuffix('[t]')}_2d"] = rng.normal(size=(SIZES["T"] * SIZES["B"], width))

    def heads(left: Any, right: Any, out: Any) -> None:
        n, m, k = out.shape
        out[...] = np.einsum("rnm,rnk->nmk", left.reshape(-1, n, m), right.reshape(-1, n, k))

    scope |= {"_dot": lambda left, right, out: np.matmul(left, right, out=out), "_gradient_of_heads": heads}
    scope |= {"_sum_rows": lambda rows, _, out: np.sum(rows, 0, out=out), "_sum_parts": lambda p, out: np.sum(p, 0, out=out)}
    for name, allocation in made.text.buffers:
        setattr(ws, name, eval(allocation, scope))
    exec("\n".join(made.text.after), scope)
    return {name[2:]: value for name, value in scope.items() if name.startswith("g_")}, arrays | scope, made


def rows(arrays: dict[str, Any], memory: Memory, name: str) -> Any:
    """All steps and samples of a value, in some place where it is stored."""
    place = next(p for p in memory.stores[name] if p.buffer.home is Home.SEQUENCE)
    width = number(memory.flow.width(name))
    start = number(place.start)
    return arrays[place.buffer.name].reshape(SIZES["T"] * SIZES["B"], -1)[:, start : start + width]


def test_gradients_of_matrices_and_vectors() -> None:
    """Cotangents side by side share a product and a sum, of which each target has its rows."""
    found, arrays, made = computed(MATRICES)
    e, f = (rows(arrays, made.memory, name) for name in "ef")
    np.testing.assert_allclose(found["dV"], e.T @ arrays["x_2d"])
    np.testing.assert_allclose(found["dW"], f.T @ arrays["x_2d"])
    np.testing.assert_allclose(found["db"], e.sum(0))
    np.testing.assert_allclose(found["dc"], f.sum(0))
    assert sum(line.startswith("_dot(") for line in made.text.after) == 1
    assert sum(line.startswith("_sum_rows(") for line in made.text.after) == 1
    assert made.text.dots and not made.text.by_heads


def test_parts_of_one_parameter_are_added_and_no_two_have_one_array() -> None:
    found, arrays, made = computed(TWICE)
    e, f = (rows(arrays, made.memory, name) for name in "ef")
    np.testing.assert_allclose(found["dV"], (e + f).T @ arrays["x_2d"])
    np.testing.assert_allclose(found["dc"], found["db"])
    assert not np.shares_memory(found["dc"], found["db"])


def test_gradients_head_by_head() -> None:
    found, arrays, made = computed(HEADS)
    d = rows(arrays, made.memory, "d").reshape(-1, SIZES["N"], SIZES["H"])
    s = arrays["s_2d"].reshape(-1, SIZES["N"], SIZES["D"])
    np.testing.assert_allclose(found["dU"], np.einsum("rnm,rnk->nmk", d, s))
    assert found["dm"].shape == (SIZES["N"], SIZES["D"]) and made.text.by_heads and not made.text.dots
    c = made.memory.reads["c"].buffer.name
    np.testing.assert_allclose(found["dm"].ravel(), arrays[c].reshape(-1, SIZES["N"] * SIZES["D"]).sum(0))


def test_shares_of_threads_are_summed_over_samples_alone() -> None:
    found, arrays, made = computed(TOTALS, single=True)
    np.testing.assert_allclose(found["db"], arrays["g_totals"].sum(0))
    assert [line for line in made.text.after if line.startswith("_sum_")] == ["_sum_parts(ws.g_totals, ws.db_sum)"]


# --- earlier inputs ------------------------------------------------------------------------------------------------------

NEAR = """name: near
inputs: {x: I, u: H}
states: {h: H}
params: {W: [H, I], U: [H, H]}
equations: |
  h[t] = tanh(W @ x[t] + W @ x[t-2] + u[t-1] + U @ h[t-1])/t_now
"""
FAR = """name: far
inputs: {x: H}
states: {h: {shape: H, init: 0.25}, g: [N, H]}
outputs: [h, g]
params: {U: [H, H], a: H, n: N}
equations: |
  h[t] = tanh(U @ h[t-5] + x[t] + a*x[t-6] + a*x[t-9] + a*h[t-2]) + 0.5*h[t-1]
  g[t] = 0.5*g[t-7] + outer(n, U @ h[t-1])
"""


@cache
def common(text: str) -> Common:
    return Common(compile_cell(cell_from(text), "speed", BACKEND), ())


def earlier(text: str) -> Earlier:
    return Earlier(Lagged(common(text).cell, Names(())), common(text))


def test_streams_are_filled_from_what_they_follow() -> None:
    made = earlier(NEAR)
    one, two, _, index = made.lagged.streams
    text = Text()
    assert made.forward(text, one) == "ws.x_lag1_all[T].astype(dtype)"
    assert text.prologue[:2] == ["ws.x_lag1_all[0] = state.x_lag1", "ws.x_lag1_all[1:] = x.x"]
    assert text.buffers == [("x_lag1_all", "cp.empty((T + 1, B, I), dtype)")]
    text = Text()
    made.forward(text, two)
    assert text.prologue[1] == "ws.x_lag2_all[1:] = ws.x_lag1_all[:-1]"
    assert text.prologue[2] == "if masks is not None:" and text.prologue[3].strip().startswith("ws.x_lag2_all[...] = ")
    text = Text()
    made.forward(text, index)
    assert text.buffers[0][1].endswith(", real)"), "counts are exact for longer"
    assert any("cp.arange(T + 1" in line for line in text.prologue) and any("_count_anew" in line for line in text.prologue)


def test_gradients_of_streams_are_handed_on_the_farthest_first() -> None:
    made, text = earlier(NEAR), Text()
    outputs = {"d:x_lag1[t-1]": Buffer("d_x_lag1_out", (), Owner.BACKWARD)}
    found = made.backward(text, outputs)
    assert set(found) == {"x_lag1", "x_lag2", "u_lag1", "t_now"} and found["x_lag1"] == "ws.d_x_lag1_all[0].copy()"
    lines = text.after
    added = lines.index("ws.d_x_lag1_all[:T] += ws.d_x_lag2_all[1:]")
    assert lines.index("ws.d_x_lag1_all[:T] = ws.d_x_lag1_out") < added
    assert "ws.d_x_lag2_all[:T] = 0" in lines[:added], "nothing is left for it by steps"
    assert "ws.d_x_lag2_all[T] = 0 if dfinal is None else dfinal.x_lag2" in lines[:added]
    assert found["t_now"].startswith("dfinal.t_now.copy() if T == 0"), "no gradient flows through the count"


def test_what_an_input_gets_of_its_lags() -> None:
    made = earlier(NEAR)
    assert made.of_input("x") == "ws.d_x_lag1_all[1:]" and made.of_input("u") == "ws.d_u_lag1_all[1:]"
    plain = earlier("name: p\ninputs: {x: H}\nstates: {h: H}\nequations: h[t] = 0.5*h[t-1] + x[t]\n")
    assert plain.of_input("x") is None
    far = earlier(FAR).of_input("x")
    assert far is not None and far.count("_back(") == 2


# --- histories -------------------------------------------------------------------------------------------------------------


def histories() -> Histories:
    return earlier(FAR).histories


@pytest.mark.parametrize("name", ["h", "g", "x"])
def test_rows_go_to_a_history_and_back(name: str) -> None:
    """The caller has the nearest value first, a history the oldest."""
    made = histories()
    each = (made.lagged.of_states | made.lagged.of_inputs)[name]
    shape = tuple(map(number, each.state.shape))
    given = np.arange(SIZES["B"] * np.prod(shape), dtype=float).reshape(SIZES["B"], *shape)
    scope = {**SIZES, "given": given, "cp": np, "dtype": np.float64}
    history = eval(made.by_rows("given", each), scope)
    np.testing.assert_array_equal(history[0], given[:, -1].reshape(SIZES["B"], -1))
    assert len(history) == each.state.rows
    np.testing.assert_array_equal(eval(made.for_caller("history", each), {**scope, "history": history}), given)


def test_a_states_history_has_rows_before_those_of_its_steps() -> None:
    """What steps leave is a part of it: the state itself lies behind its older values."""
    made = Directions(common(FAR).compiled, {"x[t]": "x"}, [], [])
    memory, _ = made.forward_memory()
    kept, each, text = memory.kept("h[t-1]"), made.lagged.of_states["h"], Text(buffers=[("h_all", "to be replaced")])
    assert kept is not None and kept.state.name == "h_all"
    final = Histories(made.lagged, common(FAR)).state_forward(text, memory, each)
    assert text.buffers[:2] == [("h_history", "cp.empty((T + 5, B, H), real)"), ("h_all", "self.h_history[4:]")]
    assert [size for _, size in text.buffers[2:]] == ["cp.empty((T, B), np.int64)"] * 2, "rows that steps read, of each lag"
    assert text.prologue == ["ws.h_history[:4] = state.h_lags[:, ::-1].swapaxes(0, 1)"]
    assert "_last_rows(ws.h_history, masks, T, 4, 0.25, dtype)" in final


def test_an_inputs_history_has_what_lies_before_its_first_step() -> None:
    made, text = histories(), Text()
    each = made.lagged.of_inputs["x"]
    made.input_forward(text, each, "x")
    assert dict(text.buffers)["x_history"] == "cp.empty((T + 9, B, H), dtype)"
    assert text.prologue[:2] == ["ws.x_history[:9] = state.x_lags[:, ::-1].swapaxes(0, 1)", "ws.x_history[9:] = x"]
    assert sum("_arranged(" in line for line in text.prologue) == len(each.refs) == 2


def test_rows_are_numbered_once_for_calls_without_masks() -> None:
    made = histories()
    for forwards, function in ((True, "_rows_read"), (False, "_rows_back")):
        text = Text(prologue=["later"])
        made.number(text, forwards)
        assert text.buffers == [(NUMBERED, "False")]
        assert text.prologue[0] == f"if masks is not None or not ws.{NUMBERED}:" and text.prologue[-1] == "later"
        calls = [line for line in text.prologue if f"{function}(masks" in line]
        assert len(calls) == 5, "of each lag"
        assert text.prologue[-2] == f"    ws.{NUMBERED} = masks is None"
    assert any(", 5, 2)" in line or ", 5, 2, 0)" in line for line in calls)
    none = Text()
    earlier(NEAR).histories.number(none, True)
    assert none.prologue == [] and none.buffers == []


def test_what_comes_back_behind_the_steps_is_the_final_states() -> None:
    """It stands behind the rows of the farthest lag; no other has any."""
    made = histories()
    each = made.lagged.of_states["h"]
    line = made.ended(each)
    assert line == "ws.d_h_lag5_history[T:] = 0 if dfinal is None else dfinal.h_lags[:, ::-1].swapaxes(0, 1)"
    sizes = {name: size for name, size in made.buffers(each, "real") if name.endswith("_history")}
    assert sizes == {"d_h_lag2_history": "cp.empty((T, B, H), real)", "d_h_lag5_history": "cp.empty((T + 4, B, H), real)"}


def test_what_comes_back_to_a_state_before_the_first_step() -> None:
    made, text = histories(), Text()
    each = made.lagged.of_states["h"]
    before = made.state_backward(text, each, "ws.d_h_pair[0]")
    assert before.count("_back(") == len(each.refs) == 2 and "[:4]" in before, "four older values"
    own = [line for line in text.after if line.startswith("ws.d_h_pair[0] += ")]
    assert len(own) == 2 and all("[4:5]" in line for line in own), "the fifth row is the state itself"


def test_an_input_that_no_step_leaves_anything_for() -> None:
    made, text = histories(), Text()
    each = made.lagged.of_inputs["x"]
    made.input_backward(text, each, {"d:x[t-6]": Buffer("d_x_lag6_out", (), Owner.BACKWARD)})
    assert text.after[:2] == ["ws.d_x_lag6_history[:T] = ws.d_x_lag6_out", "ws.d_x_lag9_history[:T] = 0"]


# --- what people are told -----------------------------------------------------------------------------------------------------


def test_a_description_of_each_direction() -> None:
    forward, backward = describe(compile_cell(cell_of(ROOT / "specs" / "lstm.yaml"), "speed", BACKEND))
    assert forward.startswith("class step: ") and "\n  not parallel: " in forward and "\n  not sequence: " in forward
    assert "exchanges per step: 1\n  1 carries h[t-1]: [H]" in forward
    assert "before the loop: product: " in forward
    assert re.search(r"in the loop: kernel over H units, \d+ of \d+ values a thread: .*h\[t\]", forward)
    assert "in the loop: product: " in backward and "1 carries d:" in backward


def test_a_faster_class_has_nothing_against_it() -> None:
    forward, _ = describe(compile_cell(cell_of(ROOT / "specs" / "indrnn.yaml"), "speed", BACKEND))
    assert forward.startswith("class sequence: ") and "not step" not in forward and "exchanges per step: 0" in forward


def test_links_of_a_chain_are_listed_under_it() -> None:
    text = """name: normed
inputs: {x: H}
states: {h: H}
params: {a: H}
equations: |
  n = softmax(a*x[t])
  h[t] = 0.5*h[t-1] + cumsum(n)
"""
    forward, _ = describe(compile_cell(cell_from(text), "speed", BACKEND))
    lines = forward.split("\n")
    head = lines.index("before the loop: kernel of a block for each sample:")
    links = [line for line in lines[head + 1 :] if line.startswith("  ")]
    assert any(line.startswith("  across units: ") for line in links) and any(
        line.startswith("  kernel over H") for line in links
    )
