"""Cells with masks for their states: their equations, and generated code against them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_support import shipped
from support import cell_from, draw

import cellspec
from cellspec import oracle
from cellspec.passes.regularisers import CANDIDATE_SUFFIX, regularise
from cellspec.verification.check import verify

ODD = """
name: odd
inputs: {x: I}
states: {h: H, C: [M, D], n: D}
outputs: [y, h]
params: {W: [H, I], U: [H, H], R: [H, H], q: D, k: D, v: M, M1: [H, M]}
functions: {"mix(a, b)": a @ b}
equations: |
  A = R - R.T
  p = W @ x[t] + mix(U, h[t-1] + h[t-2])
  u = sigmoid(A @ (h[t-1]/(1 + h[t-1]**2) - max(h[t-1], 0.1)))
  C[t] = 0.9*C[t-1] + outer(v, k*n[t-1])
  n[t] = 0.5*n[t-1] + k
  y = C[t] @ (q*n[t-1])
  h[t] = u*tanh(p) + (1 - u)*h[t-1] + M1 @ y
"""


def texts(cell: Any) -> dict[str, str]:
    return {e.target.label: e.text for e in cell.assignments}


def test_equations_of_an_lstm() -> None:
    cell = cellspec.regularise(shipped("lstm"), zoneout=["c", "h"], state_dropout=["h"])
    assert [item.name for item in cell.inputs] == ["x", "h_zoneout", "c_zoneout", "h_dropout"]
    found = texts(cell)
    assert found["i"] == "i = sigmoid(Wi @ x[t] + Ui @ (stop_gradient(h_dropout[t])*h[t-1]) + bi)"
    assert found["c_new"] == "c_new = f*c[t-1] + i*g"
    assert found["c[t]"] == "c[t] = stop_gradient(c_zoneout[t])*c[t-1] + (1 - stop_gradient(c_zoneout[t]))*c_new"
    assert found["h_new"] == "h_new = o*tanh(c_new)"
    assert (cell.stages, cell.recurrence, cell.name) == (1, "dense", "lstm")


def test_what_is_not_touched_is_as_it_was() -> None:
    plain, cell = shipped("gru"), cellspec.regularise(shipped("gru"), state_dropout=("h",))
    assert texts(cell)["h[t]"] == texts(plain)["h[t]"]
    assert texts(cell)["n"] == "n = tanh(Wn @ x[t] + Un @ (r*(stop_gradient(h_dropout[t])*h[t-1])) + bn)"
    again = cellspec.regularise(shipped("gru"))
    assert again.assignments == plain.assignments and again.inputs == plain.inputs


def test_masks_of_zeros_change_nothing_and_masks_of_ones_hold_the_state() -> None:
    """By the oracle: zoneout of 0 is the cell as it was, of 1 a state that never changes; dropout of 1 keeps everything."""
    plain = cell_from(ODD)
    cell = regularise(plain, zoneout=("C",), state_dropout=("h",))
    drawn = draw(plain, steps=3, batch=1)
    for mask in (0.0, 1.0):
        masks = {"C_zoneout": np.full((3, 1, *drawn.state["C"].shape[1:]), mask), "h_dropout": np.ones((3, 1, drawn.dims["H"]))}
        found = oracle.forward(cell, drawn.params, {**drawn.x, **masks}, drawn.state, dims=drawn.dims)
        expected = oracle.forward(plain, drawn.params, drawn.x, drawn.state, dims=drawn.dims)
        held = {"C": drawn.state["C"]} if mask else {"C": expected.final["C"]}
        np.testing.assert_allclose(found.final["C"], held["C"], rtol=1e-13)
        np.testing.assert_allclose(found.values[f"C{CANDIDATE_SUFFIX}"][0], expected.values["C"][0], rtol=1e-13)
        if not mask:
            np.testing.assert_allclose(found.outputs["h"], expected.outputs["h"], rtol=1e-12)


def test_a_digest_for_each_choice() -> None:
    plain = shipped("lstm")
    choices: list[dict[str, Any]] = [{"zoneout": "c"}, {"zoneout": ("h",)}, {"zoneout": ("h", "c")}, {"state_dropout": ("h",)}]
    cells = [cellspec.regularise(plain, **{key: tuple(value) for key, value in choice.items()}) for choice in choices]
    assert len({plain.sha256, *(cell.sha256 for cell in cells)}) == 5
    assert cellspec.regularise(plain, zoneout=("c", "h")).sha256 == cells[2].sha256


@pytest.mark.parametrize(
    ("name", "zoneout", "state_dropout"),
    [
        ("lstm", ("c", "h"), ("h",)),
        ("gru", ("h",), ("h",)),
        ("lstmp", ("c",), ("h",)),
        ("dilated_rnn", ("h",), ("h",)),
        ("indrnn", ("h",), ()),
    ],
)
def test_modules_are_right(name: str, zoneout: tuple[str, ...], state_dropout: tuple[str, ...]) -> None:
    cell = cellspec.regularise(shipped(name), zoneout=zoneout, state_dropout=state_dropout)
    report = verify(cell, cellspec.build(cell), dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


def test_an_odd_cell() -> None:
    """Matrix states, lags, a local function, an equation that reads a new state; masks in products alone."""
    cell = cellspec.regularise(cell_from(ODD), zoneout=("C", "h"), state_dropout=("h", "n"))
    report = verify(cell, cellspec.build(cell), exact=False)
    assert report.ok, str(report)
    found = texts(cell)
    assert found["p"] == ("p = W @ x[t] + U @ (stop_gradient(h_dropout[t])*h[t-1] + stop_gradient(h_dropout[t])*h[t-2])")
    assert found["y"] == "y = C_new @ (q*(stop_gradient(n_dropout[t])*n[t-1]))"
    assert found["n[t]"] == "n[t] = 0.5*n[t-1] + k" and found["C_new"] == "C_new = 0.9*C[t-1] + outer(v, k*n[t-1])"


def test_texts_say_what_the_nodes_say() -> None:
    """The text of a changed equation, read again, is the same equation."""
    cell = cellspec.regularise(cell_from(ODD), zoneout=("C", "h"), state_dropout=("h", "n"))
    lines = "\n".join(f"  {e.text}" for e in cell.assignments if "_lag" not in e.target.name)
    head = ODD.split("functions")[0].replace("{x: I}", "{x: I, h_zoneout: H, C_zoneout: [M, D], h_dropout: H, n_dropout: D}")
    read = cell_from(f"{head}equations: |\n{lines}\n")
    assert {e.target: e.value for e in read.assignments} == {e.target: e.value for e in cell.assignments}


def test_a_module_says_how_it_was_made() -> None:
    cell = cellspec.regularise(cellspec.load("gru", {"phi": "relu"}), zoneout=("h",))
    text = cellspec.generate(cell)
    assert "``cellspec.regularise(cellspec.load('gru', {'phi': 'relu'}), zoneout=('h',))``" in text
    made = eval(cell.made_by, {"cellspec": cellspec})
    assert cellspec.generate(made) == text
    twice = cellspec.regularise(cell, state_dropout=("h",))
    assert twice.made_by == f"cellspec.regularise({cell.made_by}, state_dropout=('h',))"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lstm", {"zoneout": ("q",)}, "zoneout of q: the cell lstm has no such state; it has h, c"),
        ("dilated_rnn", {"zoneout": ("h_lag2",)}, "zoneout of h_lag2: the cell dilated_rnn has no such state; it has h"),
        ("lstm", {"state_dropout": ("c",)}, "state_dropout of c: no matrix of lstm multiplies it"),
        ("deltanet", {"state_dropout": ("S",)}, "state_dropout of S: no matrix of deltanet multiplies it"),
        ("slstm", {"zoneout": ("m",)}, "zoneout of m: a state of slstm that starts at -inf cannot be mixed"),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        cellspec.regularise(shipped(name), **options)
    assert str(caught.value) == message


def test_names_that_are_taken() -> None:
    cell = cell_from(ODD.replace("y =", "h_new =").replace("@ y", "@ h_new").replace("[y, h]", "[h_new, h]"))
    with pytest.raises(ValueError, match="'h_new' is needed for a mask or a candidate, but the cell odd has that name already"):
        cellspec.regularise(cell, zoneout=("h",))
    once = cellspec.regularise(shipped("lstm"), zoneout=("c",))
    with pytest.raises(ValueError, match="'c_zoneout' is needed"):
        cellspec.regularise(once, zoneout=("c",))


def test_a_text_is_no_list_of_names() -> None:
    with pytest.raises(TypeError, match=r"zoneout must be names of states, such as \('hc',\), got a text"):
        cellspec.regularise(shipped("lstm"), zoneout="hc")


def test_no_gradient_by_the_masks() -> None:
    module = cellspec.build(cellspec.regularise(shipped("gru"), zoneout=("h",), state_dropout=("h",)))
    rng = np.random.default_rng(0)
    params = module.init_params(rng, I=2, H=3)
    x = module.Inputs(rng.normal(size=(4, 2, 2)), rng.random((4, 2, 3)), rng.random((4, 2, 3)))
    y, _, tape = module.forward(params, x)
    grads = module.backward(params, tape, y).x
    assert grads.x.any() and not grads.h_zoneout.any() and not grads.h_dropout.any()
