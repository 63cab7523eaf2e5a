"""Both passes of a NumPy module before they are text: states at their ends, earlier values, gradients."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import sympy
from support import cell_from

from cellspec import ir
from cellspec.backends.arrays.expressions import Attribute, Expression, Formula, Items, Table, Word
from cellspec.backends.arrays.printer import Printer, Seat
from cellspec.backends.memory.model import B, Home, Owner, T
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.backend import BACKEND
from cellspec.backends.numpy.backward import Gradients
from cellspec.backends.numpy.direction import Boundary, Direction
from cellspec.backends.numpy.earlier import Earlier
from cellspec.backends.numpy.forward import carried, given_sequences
from cellspec.backends.numpy.histories import Histories
from cellspec.backends.numpy.module import Design, design
from cellspec.backends.numpy.orientation import BATCH_MAJOR, FEATURE_MAJOR, Orientation
from cellspec.backends.numpy.origins import AGAIN
from cellspec.backends.numpy.setting import Setting, formula
from cellspec.pipeline import compile_cell

H, I, N = sympy.symbols("H I N")  # noqa: E741

HEAD = """name: earlier
inputs: {x: I, u: H}
states: {h: H}
params: {W: [H, I], U: [H, H]}
equations: |
  h[t] = """
NEAR = "tanh(W @ x[t] + W @ x[t-2] + u[t-1] + U @ h[t-1])/t_now"

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
def designed(text: str) -> Design:
    return design(compile_cell(cell_from(text), target=BACKEND))


def spell(expression: Expression) -> str:
    return printer().text(expression)


def printer() -> Printer:
    return Printer({}, Seat(Owner.FORWARD, "ws", {Owner.FORWARD: "ws", Owner.BACKWARD: "back"}))


def boundary(direction: Direction, name: str) -> Boundary:
    (found,) = [each for each in direction.boundaries if each.final[0] == name]
    return found


def start(direction: Direction, name: str) -> list[str]:
    return printer().lines(boundary(direction, name).start)


def end(direction: Direction, name: str) -> str:
    return spell(boundary(direction, name).final[1])


def after(direction: Direction) -> list[str]:
    return printer().lines(direction.text.after)


# --- states and gradients ------------------------------------------------------------------------------------------------


def test_every_state_begins_and_ends() -> None:
    """Forwards it is given and left; backwards its gradient."""
    for text in (HEAD + NEAR, FAR):
        made = designed(text)
        for direction in (made.forward, made.backward):
            names = [each.final[0] for each in direction.boundaries]
            assert sorted(names) == sorted(state.name for state in made.setting.cell.states)


def test_a_state_goes_from_the_first_row_to_the_last() -> None:
    made = designed(HEAD + NEAR)
    assert start(made.forward, "h") == ["ws.h_all[0] = state.h.T"] and end(made.forward, "h") == "_last(ws.h_all, cuts)"
    assert start(made.backward, "h") == ["back.d_h[...] = 0 if dfinal is None else dfinal.h.T"]
    assert end(made.backward, "h") == "back.d_h.T.copy()"
    assert [s.name for s in carried(made.setting)] == ["h"], "streams are not handed on by steps"


def test_what_is_put_back_where_a_sequence_is_cut() -> None:
    """A state to the number that it starts from, its gradient to the final state's."""
    made = designed(HEAD + NEAR)
    (state,) = boundary(made.forward, "h").carried
    assert isinstance(state, Items) and [spell(each) for each in state.items] == ["ws.h_all", "ws.h_prev", "0.0"]
    back = boundary(made.backward, "h")
    assert ([spell(each) for each in back.carried], [spell(each) for each in back.given]) == (["back.d_h"], ["dfinal.h.T"])


def test_gradients_are_of_every_parameter_and_input() -> None:
    made = designed(HEAD + NEAR)
    assert isinstance(made.gradients, Gradients)
    assert set(made.gradients.params) == {"W", "U"} and set(made.gradients.inputs) == {"x", "u"}
    assert made.backward.results == (*made.gradients.params.values(), *made.gradients.inputs.values())


@pytest.mark.parametrize(
    ("equation", "name", "lines"),
    [
        ("tanh(W @ x[t] + U @ h[t-1])*stop_gradient(u[t])", "u", ["np.copyto(back.d_u, 0)"]),
        ("tanh(W @ x[t-1] + U @ h[t-1])*u[t]", "x", ["np.copyto(back.d_x, 0)", "back.d_x_out += back.d_x_lag1_all[1:]"]),
    ],
    ids=["nothing", "a stream's alone"],
)
def test_an_input_that_no_step_reads_has_a_gradient(equation: str, name: str, lines: list[str]) -> None:
    made = designed(HEAD + equation)
    assert spell(made.gradients.inputs[name]) == f"back.d_{name}_out"
    found = printer().lines([*made.backward.text.before, *made.backward.text.after])
    assert [line for line in found if line in lines] == lines


def test_derived_parameters_are_differentiated_behind_the_loop() -> None:
    """A parameter that nothing flows to has zeros."""
    text = """name: derived
inputs: {x: H}
states: {h: H}
params: {b: H, s: H}
equations: |
  w = b*b
  h[t] = w*h[t-1] + x[t]*stop_gradient(s)
"""
    made = designed(text)
    params = made.gradients.params
    assert spell(params["s"]) == "np.zeros_like(params.s)"
    assert spell(params["b"]).isidentifier()
    lines = [line for line in after(made.backward) if line.startswith(f"{spell(params['b'])} = ")]
    assert len(lines) == 1 and "2" in lines[0] and "params.b" in lines[0]


# --- what all parts start from ----------------------------------------------------------------------------------------------


def test_values_stand_where_their_equations_do() -> None:
    """Also those that the backward pass computes again; what belongs to no equation, behind all."""
    setting = designed(HEAD + NEAR).setting
    (origin, place), *_ = setting.rank.items()
    values = {name: ir.Value(name, (H,), of) for name, of in (("a", origin), ("b", f"{origin}{AGAIN}"), ("c", "nowhere"))}
    assert setting.ranks_of(values) == {"a": place, "b": place, "c": (99,)}


def test_constants_are_parameters_and_what_is_derived_of_them() -> None:
    setting = designed(HEAD + NEAR).setting
    assert isinstance(setting, Setting) and setting.constants["W"] == Attribute(Word("params"), "W")
    assert set(setting.constants) >= {"W", "U"} | set(setting.common.derived)


def test_a_formula_knows_what_it_reads() -> None:
    step = ir.Program({n: ir.Value(n, (H,), "") for n in ("a", "b", "c")}, ("a", "b"), (), (), (), ())
    double = ir.Pointwise("c", 2 * ir.symbol("a"))
    assert formula("c", double, step, {"a": Word("params_a"), "b": Word("b")}) == Formula(
        "c", double, step, (("a", Word("params_a")),)
    )
    assert formula("c", ir.Stop("c", "a"), step, {"a": Word("a_")}) == Word("a_"), "it makes nothing of it"


def test_sequences_are_given_in_the_layout_and_as_matrices() -> None:
    made = designed(HEAD + NEAR)
    given = given_sequences(made.setting, made.earlier, made.orientation)
    assert {"x[t]", "u[t]", "x_lag2[t-1]"} <= set(given.arrays) == set(given.matrices)
    assert spell(given.arrays["x[t]"]) == "x.x.transpose(0, 2, 1)" and spell(given.matrices["x[t]"]).startswith("x_2d")
    assert spell(given.arrays["x_lag2[t-1]"]) == "ws.x_lag2_all[:-1].transpose(0, 2, 1)"
    assert spell(given.matrices["x_lag2[t-1]"]) == "ws.x_lag2_all[:-1].reshape(T*B, I)"


# --- streams ------------------------------------------------------------------------------------------------------------------


def test_a_stream_is_one_step_behind_what_it_follows() -> None:
    forward = designed(HEAD + NEAR).forward
    assert start(forward, "x_lag1")[:2] == ["ws.x_lag1_all[0] = state.x_lag1", "ws.x_lag1_all[1:] = x.x"]
    assert start(forward, "x_lag2")[:2] == ["ws.x_lag2_all[0] = state.x_lag2", "ws.x_lag2_all[1:] = ws.x_lag1_all[:-1]"]
    assert end(forward, "x_lag2") == "ws.x_lag2_all[T].copy()"
    assert start(forward, "t_now")[0] == "ws.t_now_all[...] = state.t_now + np.arange(T + 1)[:, None, None]"


def test_streams_know_one_another() -> None:
    made = designed(HEAD + NEAR)
    one, two, other, index = made.earlier.known
    assert (one.follows, two.follows, other.follows, index.follows) == ("x", one, "u", None)
    assert made.earlier.counts and not designed(FAR).earlier.counts
    assert made.earlier.buffers["x_lag1"].axes == (T + 1, B, I) and made.earlier.buffers["x_lag1"].home is Home.HISTORY
    assert isinstance(made.earlier, Earlier) and {value for value, _, _ in made.earlier.sequences()} == {
        "x_lag1[t-1]", "x_lag2[t-1]", "u_lag1[t-1]", "t_now[t-1]",
    }  # fmt: skip


def test_gradients_are_handed_on_from_the_farthest_stream_to_the_input() -> None:
    lines = after(designed(HEAD + NEAR).backward)
    nearer, whole = "back.d_x_lag1_all[:-1] += back.d_x_lag2_all[1:]", "back.d_x_out += back.d_x_lag1_all[1:]"
    assert lines.index(nearer) < lines.index(whole)
    filled = [k for k, line in enumerate(lines) if "d_x_lag2_all[:-1]" in line]
    assert filled and max(filled) < lines.index(nearer)


def test_no_gradient_flows_through_the_count() -> None:
    backward = designed(HEAD + NEAR).backward
    assert end(backward, "t_now") == "np.zeros_like(state.t_now) if dfinal is None else dfinal.t_now*_idle(cuts, T)"


# --- far values --------------------------------------------------------------------------------------------------------------


def test_a_history_has_rows_for_the_steps_before_the_first() -> None:
    made = designed(FAR)
    axes = {buffer.name: buffer.axes for buffer in made.forward.text.buffers}
    assert (axes["h_all"], axes["g_all"], axes["x_history"]) == ((T + 5, H, B), (T + 7, H * N, B), (T + 9, B, H))
    assert start(made.forward, "h") == ["ws.h_all[4] = state.h.T"], "the state itself stands behind its older values"
    assert start(made.forward, "h_lags")[0].startswith("ws.h_all[:4] = ")
    assert end(made.forward, "h") == "_last(ws.h_all[4:], cuts)"


def test_what_a_step_reads_by_how_far_it_lies_back() -> None:
    (items,) = boundary(designed(FAR).forward, "h").carried
    assert isinstance(items, Items)
    _, table, init = items.items
    assert isinstance(table, Table) and [steps for steps, _ in table.entries] == [1, 2, 5] and spell(init) == "0.25"


def test_what_comes_back_is_added_where_it_belongs() -> None:
    """From a lag of j steps, rows j - 1 to the state before the first step, and the rows before that to its older values."""
    lines = after(designed(FAR).backward)
    assert "back.d_h += back.d_h_lag2_all[1]" in lines and "back.d_h += back.d_h_lag5_all[4]" in lines
    assert "back.d_h_lag5_all[3:4] += back.d_h_lag2_all[:1]" in lines
    assert "back.d_x_lag9_history[3:9] += back.d_x_lag6_history[:6]" in lines
    assert "back.d_x_out += back.d_x_lag6_history[6:] + back.d_x_lag9_history[9:]" in lines


def test_a_lag_that_nothing_comes_back_to_is_cleared() -> None:
    starts = start(designed(FAR).backward, "h_lags")
    assert starts[:2] == ["back.d_h_lag2_all[T:] = 0", "back.d_h_lag5_all[T:] = 0"]
    assert starts[2] == "if dfinal is not None:" and starts[3].strip().startswith("back.d_h_lag5_all[T:-1] = ")


@pytest.mark.parametrize("orientation", [FEATURE_MAJOR, BATCH_MAJOR], ids=["feature-major", "batch-major"])
@pytest.mark.parametrize("name", ["h", "g", "x"])
def test_rows_go_to_a_history_and_back(name: str, orientation: Orientation) -> None:
    """The caller has the nearest value first, a history the oldest."""
    made = designed(FAR)
    histories = Histories.of(made.setting.caller, orientation, made.earlier.inputs)
    each = histories.of_states[name] if name != "x" else histories.of_inputs["x"].far
    sizes, rows = {"H": 3, "N": 2, "B": 4}, each.state.rows
    shape = tuple(int(axis.subs(sizes)) for axis in each.state.shape)
    given = np.arange(4 * np.prod(shape), dtype=float).reshape(4, *shape)
    history = eval(spell(histories.by_rows(Word("given"), each)), {**sizes, "given": given})
    oldest = given[:, rows - 1].reshape(4, -1)
    turned = orientation.features_first and name != "x"
    assert history.shape[0] == rows
    np.testing.assert_array_equal(history[0], oldest.T if turned else oldest)
    back = eval(spell(histories.for_caller(Word("history"), each)), {**sizes, "history": history})
    np.testing.assert_array_equal(back, given)


def test_names_of_streams_are_wishes() -> None:
    names = Wishes()
    made = designed(FAR)
    Earlier.of(made.setting.cell, made.setting.caller, names)
    assert {"x_history", "x_lag6", "x_lag9"} <= set(names.wanted.values())  # type: ignore[arg-type]
