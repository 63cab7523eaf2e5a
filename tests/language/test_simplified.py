"""Specs of which SymPy leaves less than is written: what ``check`` calls right compiles for each backend, imports and runs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support import cell_from

import cellspec
from cellspec import cli, ir, oracle, pipeline
from cellspec.cell import Cell
from cellspec.errors import CellspecError, CompilerError, SpecError
from cellspec.verification.check import verify

HEAD = "inputs: {x: I}\nstates: {h: H}\nparams: {W: [H, I], U: [H, H], b: H}\n"
SAME = "inputs: {x: H}\nstates: {h: H, g: H}\n"

FINITE = {
    "stretched reduction": ("h[t] = sum(a)",),
    "constant": ("h[t] = 0*a + 2",),
    "parameter": ("h[t] = b + 0*a",),
    "equal right sides": ("f = 2*a", "g = 2*a", "h[t] = f*h[t-1] + g"),
    "equal products": ("f = U @ a", "g = U @ a", "h[t] = tanh(U @ a) + f*g"),
    "multiplicative integration": ("h[t] = tanh(a + (W @ x[t])*(U @ h[t-1]) + U @ h[t-1] + W @ x[t])",),
    "branches": ("v = 0.5*tanh(a)", "h[t] = where(v > 0.2, v - 1, v) + where(a < b, v + 8, v)"),
    "cancelling": ("f = sigmoid(a)", "h[t] = f*h[t-1] + (1 - f)*h[t-1]"),
    "nothing left": ("h[t] = (a - a) + h[t-1]**0 + U @ (0*a) + roll(0*a, 1) + softmax(0*a) + cumsum(a - a)",),
    "nothing left of a list": ("h[t] = tanh(a)*dot([0*a, b], [b, a - a]) + b",),
    "of a derived parameter": ("A = U - U", "B = U.T", "C = 2*B", "D = 2*B", "h[t] = tanh(A @ a + (C - D + B.T) @ a)"),
    "of equal names": ("A = U.T", "B = A - A.T", "C = U @ U", "D = C @ U.T + 0*C", "h[t] = tanh(A @ a + B @ a + D @ a)"),
    "of parameters after all": (
        "z = 0*a + b",
        "h[t] = U @ z + sum(z)*roll(z, 1) + outer(z, z) @ a + softmax(z) + dot([z, a], [z, b])",
    ),
    "of names that read alike": ("c = norm(silu(b)) + norm(tanh(b))", "h[t] = tanh(c*a)*norm(b*c)"),
    "of constants alone": ("c = sqrt(H)/I", "d = max(c, 1)", "h[t] = d*tanh(a)*c**2/d"),
    "of large constants": ("h[t] = tanh(a)*1e-200*1e-200 + tanh(a*12345678901234567890123)",),
    "mixture of itself": ("h[t] = where(a < a, a, tanh(b)) + max(a, a)*stop_gradient(0*a) + stop_gradient(2)",),
    "of fractional powers": ("v = 2 + sigmoid(a)", "h[t] = tanh(v**(1/3) + v**-0.7 + 2**0.5)"),
    "step": (
        "f = t_now + 1",
        "h[t] = tanh(a)/(t_now + 1) + tanh(f*a)",
    ),
}
"""The equations of a cell, after ``a = W @ x[t] + U @ h[t-1] + b``."""

INFINITE = {
    "1/(a - a)": np.inf,
    "tanh(b)**2/(a - a)": np.inf,
    "(a - a)**(-2)": np.inf,
    "log(a - a)": -np.inf,
    "sqrt(a - a - 2)": np.nan,
    "(a - a - 2)**0.5": np.nan,
    "b**2*1e300*1e300": np.inf,
    "b**2/(a - stop_gradient(a))": np.inf,
    "b**2/(f - g)": np.inf,
}
"""What is no finite number whatever the arguments are, and its value in IEEE arithmetic."""

DIMS = {
    "product": ("[N, D]", "N*D", "N*D", "[N*D, N*D]", "x[t]/sqrt(N*D)/N/D"),
    "product of three": ("[N, D, K]", "N*D*K", "N*D*K", "[1, N*D*K]", "x[t]"),
    "sum": ("[N, D]", "N + D", "N + D", "[N + D, N + D]", "x[t]/(N + D)"),
    "square": ("[N]", "N*N", "N*N", "[N*N, N*N]", "x[t]/N"),
    "in a head of its own": ("[N, D, K]", "[K, N*D]", "[K, N*D]", "[K, 1, N*D]", "x[t]/K"),
    "state alone": ("[N, D]", "1", "N*D", "[1, 1]", "x[t]"),
    "multiple and product": ("[N, D, K]", "1", "2*N + D*K", "[2*N + D*K, 1]", "x[t]"),
}
"""Dims, the shapes of the input, the state and the weights, and what is added to the weights' product."""


def cell_with(*lines: str) -> Cell:
    lines = ("a = W @ x[t] + U @ h[t-1] + b", *lines)
    return cell_from(f"name: odd\n{HEAD}equations: |\n" + "".join(f"  {line}\n" for line in lines))


def built(cell: Cell) -> ModuleType:
    """The NumPy module; the others are made, too."""
    assert "__global__" in cellspec.generate(cell, "cupy")
    cellspec.build(cell, residuals="memory")
    return cellspec.build(cell)


@pytest.mark.parametrize("lines", FINITE.values(), ids=FINITE)
def test_cells_of_which_little_is_left_are_right(lines: tuple[str, ...]) -> None:
    cell = cell_with(*lines)
    report = verify(cell, built(cell), seed=1, dtypes=(np.float64,))
    assert report.ok, str(report)


@pytest.mark.parametrize("form", INFINITE)
def test_what_is_no_number_is_so_when_it_runs(form: str) -> None:
    cell = cell_with("f = 2*a", "g = 2*a", f"h[t] = tanh(a)**2*b**2 + 0*f + 0*g + {form}")
    module = built(cell)
    rng = np.random.default_rng(1)
    params = module.init_params(rng, I=2, H=3)._replace(b=np.ones(3))
    x, state = rng.normal(size=(1, 2, 2)), module.init_state(params, batch=2)
    with np.errstate(all="ignore"):
        y, _, tape = module.forward(params, x, state)
        module.backward(params, tape, np.ones_like(y))
        results = [y, module.trace(params, x, state)["h"], module.step(module.pack(params), x[0], state)[0][None]]
        results += [oracle.forward(cell, params._asdict(), {"x": x}, state._asdict()).outputs["h"]]
    for result in results:
        np.testing.assert_array_equal(result, np.full((1, 2, 3), INFINITE[form]))


@pytest.mark.parametrize("form", ["1/(a - a)", "0*a/(a - a)"])
def test_verify_says_in_a_sentence_what_has_no_value(form: str) -> None:
    cell = cell_with(f"h[t] = tanh({form})")
    report = verify(cell, built(cell), seed=1, dtypes=(np.float64,))
    assert report.faults and all(fault.startswith("h[t] ") for fault in report.faults)


@pytest.mark.parametrize("case", DIMS.values(), ids=DIMS)
def test_dims_that_nothing_tells_apart_are_one(case: tuple[str, ...]) -> None:
    dims, given, state, weights, more = case
    text = f"name: odd\ndims: {dims}\ninputs: {{x: {given}}}\nstates: {{h: {state}}}\nparams: {{W: {weights}}}\n"
    cell = cell_from(f"{text}equations: |\n  h[t] = tanh(W @ x[t] + {more}) + 0.5*h[t-1]\n")
    module = built(cell)
    report = verify(cell, module, seed=1, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)
    sizes = dict(zip(cell.dims, (2, 3, 4), strict=False))
    params = module.init_params(np.random.default_rng(0), **sizes)
    others = {} if "N" in weights else sizes
    workspace = module.Workspace(2, 3, params, **others)
    x = np.ones((2, 3, *(eval(axis, {}, sizes) for axis in module.INPUT_SHAPES["x"])))
    y = module.forward(params, x, module.init_state(params, batch=3, **others), workspace=workspace)[0]
    assert y.shape[2:] == tuple(eval(axis, {}, sizes) for axis in module.OUTPUT_SHAPES["h"])


def test_a_matrix_state_may_be_a_stretched_parameter() -> None:
    text = "name: odd\ninputs: {x: H}\nstates: {h: H, k: [N, H]}\noutputs: [h, k]\nparams: {w: H, v: [N, 1]}\nequations: |\n"
    cell = cell_from(text + "  k[t] = v\n  h[t] = w*x[t] + 0.1*h[t-1]\n")
    report = verify(cell, built(cell), seed=1, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


def test_dims_called_like_variables_of_a_module_may_be_told_by_the_state_alone() -> None:
    text = "name: odd\ndims: [x, state]\ninputs: {u: 2}\nstates: {h: [x, state]}\nparams: {w: 1}\nequations: |\n"
    cell = cell_from(text + "  h[t] = w*sum(u[t]) + 0.5*h[t-1]\n")
    module = built(cell)
    assert module.init_state(module.init_params(np.random.default_rng(0), x=3, state=4), 2, x=3, state=4).h.shape == (2, 3, 4)
    report = verify(cell, module, seed=1, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


def test_conditions_and_members_of_a_loop_may_be_functions_of_its_index() -> None:
    text = "name: odd\ninputs: {x: H}\nstates: {h: H}\nparams: {R: {shape: [H, H], repeat: 2}}\nequations: |\n  s[0] = x[t]\n"
    text += "  for l in range(0, 4):\n    s[l+1] = where(mod(l, 2) == 0, R[mod(l, 2)] @ s[l], tanh(s[l]))\n"
    cell = cell_from(text + "  h[t] = s[4] + R[max(1, 0)] @ h[t-1]\n")
    assert "np.where" not in cellspec.generate(cell).split("def _equations")[1].split("\n\n\n")[0], "both branches are computed"
    report = verify(cell, built(cell), seed=1, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


def test_an_output_with_an_underscore_is_refused_where_it_would_be_a_field() -> None:
    text = SAME + "params: {w: H}\nequations: |\n  _z = sigmoid(w*x[t])\n  h[t] = _z*h[t-1] + g[t-1]\n  g[t] = 1 - _z\n"
    built(cell_from(f"name: odd\noutputs: [_z]\n{text}"))
    with pytest.raises(SpecError, match="'_z' cannot name one of several outputs"):
        cell_from(f"name: odd\noutputs: [h, _z]\n{text}")


# --- bugs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raised", [ir.TypecheckError("'f' is read\nbefore it is defined"), KeyError("f"), RecursionError("deep")]
)
@pytest.mark.parametrize("command", [["generate", "lstm"], ["show", "lstm", "--stage", "ir"], ["verify", "lstm"]])
def test_a_bug_of_the_compiler_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, raised: Exception, command: list[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(pipeline, "lower", fails)
    with pytest.raises(CompilerError) as caught:
        cellspec.generate(cellspec.load("lstm"), "cupy")
    assert caught.value.__cause__ is raised and isinstance(caught.value, CellspecError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cellspec.tools.show.lower", fails, raising=False)
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("cellspec: cell 'lstm' has met a bug of cellspec (") and result.stderr.count("\n") == 1
    assert "please report it" in result.stderr and type(raised).__name__ in result.stderr


def test_a_bug_of_a_command_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellspec.verification.expect.check_expect", lambda cell: 1 // 0)
    result = CliRunner().invoke(cli.main, ["check", "lstm"])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("cellspec: this command has met a bug of cellspec (ZeroDivisionError: ")


def test_a_pass_that_loses_a_value_is_stopped() -> None:
    shape = (ir.symbol("H"),)
    values = {name: ir.Value(name, shape, "") for name in ("x[t]", "h[t]")}
    lost = ir.Pointwise("h[t]", ir.symbol("x[t]") + ir.symbol("W@x[t]"))
    program = ir.Program(values, (), ("x[t]",), (), (lost,), ("h[t]",))
    with pytest.raises(ir.TypecheckError, match="'W@x\\[t\\]' is read before it is defined"):
        ir.typecheck(program)
