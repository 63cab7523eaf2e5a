"""What modules of every backend are written with: numbers, dims, initialisers, texts in docstrings, and the plain step."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np
import pytest
import sympy
from support import ROOT, cell_from, cell_of

from cellspec.backends import common, initial
from cellspec.backends.arrays.spelling import NUMPY
from cellspec.backends.equations import plain_step, shifted, unpack
from cellspec.backends.plain import Mentioned, Noted, bare, dim_text, float_text, number_text
from cellspec.cell import Cell
from cellspec.pipeline import compile_cell

H, D = sympy.symbols("H D")

# --- numbers and dims --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e-300, 0.1 + 0.2, math.pi])
def test_a_number_is_all_there(value: float) -> None:
    assert ast.literal_eval(float_text(value)) == value
    assert ast.literal_eval(number_text(sympy.Float(value, 17))) == value


def test_numbers() -> None:
    assert number_text(sympy.Integer(-2)) == "-2" and number_text(sympy.Rational(1, 2)) == "0.5"
    assert float_text(math.inf) == "np.inf" and float_text(-math.inf, "jnp.inf") == "-jnp.inf"


def test_dims_have_the_modules_names() -> None:
    assert dim_text(4 * H + D, {"D": "D_"}) == "D_ + 4*H"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("(a + b)", "a + b"), ("(a)*(b)", "(a)*(b)"), ("a + (b)", "a + (b)"), ("((a)*(b))", "(a)*(b)"), ("a", "a")],
)
def test_outer_parentheses_go(text: str, expected: str) -> None:
    assert bare(text) == expected


# --- initialisers ------------------------------------------------------------------------------------------------------

STARTING = """
name: starting
inputs: {x: I}
states: {h: H}
params:
  W: {shape: [H, I], init: glorot_uniform}
  V: {shape: [H, I], init: glorot_uniform}
  U: {shape: [H, H], init: orthogonal}
  b: {shape: H, init: 1}
equations: |
  h[t] = tanh(W @ x[t] + V @ x[t] + U @ h[t-1] + b)
"""


def test_how_parameters_start() -> None:
    params = {param.name: param for param in cell_from(STARTING).params}
    assert initial.call(params["W"], "rng", "np") == "_glorot_uniform(rng, (H, I), dtype)"
    assert initial.call(params["b"], "rng", "numpy") == "numpy.full((H,), 1, dtype)"
    assert initial.needed(params.values()) == ["glorot_uniform", "orthogonal"], "each once; constants need none"


# --- text --------------------------------------------------------------------------------------------------------------


def test_text_within_a_docstring() -> None:
    assert common.quotable('a "b"\n  c\\d') == "a 'b' c\\\\d"


def test_empty_lines_and_spaces() -> None:
    assert common.tidy("a  \n\n\n\nb\n \n\n") == "a\n\n\nb\n"


def test_one_result_or_several() -> None:
    assert common.gather(["y"]) == "y" and common.gather(["y", "z"], "State") == "State(y, z)"
    assert unpack(["y"]) == "(y,)" and unpack(iter("yz")) == "y, z"


def test_where_a_cell_comes_from_is_told_in_short_lines() -> None:
    lines = common.about(cell_of(ROOT / "specs" / "clockwork.yaml"))
    assert lines[-1].endswith("https://arxiv.org/abs/1402.3511.") and "" in lines
    assert any(line.startswith("Source: Jan Koutník") for line in lines) and max(map(len, lines)) <= 116


# --- the plain step ----------------------------------------------------------------------------------------------------


def step_of(cell: Cell) -> dict[str, Any]:
    constants = {param.name: f"params.{param.name}" for param in cell.params}
    context, helpers = plain_step(compile_cell(cell), constants, {}, {dim: dim for dim in cell.dims}, ["np", "params", "x_t"])
    assert helpers == set()
    return context


def test_the_plain_step_is_the_equations() -> None:
    """A line an equation, below it; what is read once stands where it is read. Run, it is the equation."""
    context = step_of(cell_from(STARTING))
    lines = context["lines"]
    assert lines[0] == "# h[t] = tanh(W @ x[t] + V @ x[t] + U @ h[t-1] + b)" and len(lines) == 2
    assert context["previous"] == "(h_prev,)" and context["states"] == [{"name": "h", "text": "h"}]

    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=shape) for name, shape in {"W": (3, 2), "V": (3, 2), "U": (3, 3), "b": (3,)}.items()}
    x, h = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    names: dict[str, Any] = {"np": np, "params": type("Params", (), given), "x_t": x, "h_prev": h, "B": 4, "H": 3, "I": 2}
    exec("\n".join(lines), names)
    expected = np.tanh(x @ (given["W"] + given["V"]).T + h @ given["U"].T + given["b"])
    np.testing.assert_allclose(names["h"], expected, rtol=1e-12)


def test_what_is_written_into_a_text_is_noted() -> None:
    there, elsewhere = Noted("float"), Noted("int")
    assert NUMPY.operation("number", dtype=there, value=2, shape=elsewhere) == "float.type(2)"
    assert there.written and not elsewhere.written
    dims = Mentioned({"H": "H_", "I": "I"})
    assert dims.get("H") == "H_" and dims.get("x", "x") == "x" and len(dims) == 2 and list(dims) == ["H", "I"]
    assert dims.mentioned >= {"H"} and "I" not in dims.mentioned


def test_a_step_mentions_the_dims_that_its_text_does() -> None:
    assert step_of(cell_from(STARTING))["dims"] == []
    grown = STARTING.replace("tanh(W", "(1/H)*tanh(W")
    assert step_of(cell_from(grown))["dims"] == ["H"]


def test_rows_move_on() -> None:
    newest, rows = np.array([[7.0], [8.0]]), np.arange(6.0).reshape(2, 3, 1)
    moved = eval(shifted("newest", "rows"), {"np": np, "newest": newest, "rows": rows})
    np.testing.assert_array_equal(moved[..., 0], [[7, 0, 1], [8, 3, 4]])
