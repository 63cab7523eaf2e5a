"""The oracle against facts that do not come from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
from support import cell_from, generator

from cellspec import oracle
from cellspec.cell import Cell
from cellspec.errors import Location
from cellspec.language.spec import Expect, Initialiser
from cellspec.model.equations import Equation, Input, Param, State
from cellspec.model.nodes import Apply, Kind, Ref
from cellspec.model.primitive import Primitive
from cellspec.model.primitives import PRIMITIVES
from cellspec.oracle.primitives import rule

TANH_RNN = """
name: plain
inputs: {x: I}
states: {h: H}
params: {W: [H, I], U: [H, H], b: H}
equations: |
  h[t] = tanh(W @ x[t] + U @ h[t-1] + b)
"""

MIXED = """
name: mixed
inputs: {x: I}
states: {h: H, s: H}
outputs: [h, r]
params:
  M: [H, H]
  W: [H, I+H]
  a: 1
  b: H
  gam: {shape: 1, trainable: false}
equations: |
  A = M - M.T - sigmoid(gam)*eye(H)
  r = relu(W @ [x[t], h[t-1]] + b)
  q = where(r > 0.25, max(A @ h[t-1], r), (A @ h[t-1])*a)
  s[t] = 0.5*s[t-1] + softsign(q)*r**2
  h[t] = gelu(q) + clip(h[t-1], -0.5, 0.5)/H + elu(s[t])
"""

GATED = """
name: gated
inputs: {x: I}
states: {h: H, c: H}
params:
  W{i,f,g,o}: [H, I]
  U{i,f,g,o}: [H, H]
  b{i,f,g,o}: H
equations: |
  i = sigmoid(Wi @ x[t] + Ui @ h[t-1] + bi)
  f = sigmoid(Wf @ x[t] + Uf @ h[t-1] + bf)
  g = tanh(Wg @ x[t] + Ug @ h[t-1] + bg)
  o = sigmoid(Wo @ x[t] + Uo @ h[t-1] + bo)
  c[t] = f*c[t-1] + i*g
  h[t] = o*tanh(c[t])
"""


def random_case(cell: Cell, dims: dict[str, int], steps: int, batch: int, seed: int) -> tuple[Any, ...]:
    """params, x, state, dy, dfinal by name, uniform in (-1, 1)."""
    rng = generator(seed)
    of = lambda shape: tuple(int(sympy.sympify(n).subs(dims)) for n in shape)  # noqa: E731
    params = {p.name: rng.uniform(-1, 1, of(p.shape)) for p in cell.params}
    x = {i.name: rng.uniform(-1, 1, (steps, batch, *of(i.shape))) for i in cell.inputs}
    state = {s.name: rng.uniform(-1, 1, (batch, *of(s.shape))) for s in cell.states}
    dy = {o.name: rng.normal(size=(steps, batch, *of(o.shape))) for o in cell.outputs}
    dfinal = {s.name: rng.normal(size=(batch, *of(s.shape))) for s in cell.states}
    return params, x, state, dy, dfinal


def test_one_step_of_a_tanh_rnn_has_its_closed_form_jacobians() -> None:
    cell = cell_from(TANH_RNN)
    params, x, state, dy, dfinal = random_case(cell, {"I": 3, "H": 4}, 1, 1, seed=11)
    W, U, b = params["W"], params["U"], params["b"]
    x0 = x["x"][0, 0]
    h = np.tanh(W @ x0 + U @ state["h"][0] + b)
    slope = np.diag(1 - h**2)
    found = oracle.forward(cell, params, x, state)
    np.testing.assert_allclose(found.values["h"][0, 0], h, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(found.final["h"][0], h, rtol=1e-15, atol=1e-15)

    every = np.eye(4)[:, None, :]
    moved = oracle.jvp(cell, params, x, state, oracle.Tangents(state={"h": every}))
    np.testing.assert_allclose(moved.final["h"][:, 0].T, slope @ U, atol=1e-14)
    moved = oracle.jvp(cell, params, x, state, oracle.Tangents(x={"x": np.eye(3)[:, None, None, :]}))
    np.testing.assert_allclose(moved.outputs["h"][:, 0, 0].T, slope @ W, atol=1e-14)

    delta = slope @ (dy["h"][0, 0] + dfinal["h"][0])
    exact = oracle.exact_gradients(cell, params, x, state, dy, dfinal)
    np.testing.assert_allclose(exact.params["W"], np.outer(delta, x0), atol=1e-14)
    np.testing.assert_allclose(exact.params["U"], np.outer(delta, state["h"][0]), atol=1e-14)
    np.testing.assert_allclose(exact.params["b"], delta, atol=1e-14)
    np.testing.assert_allclose(exact.x["x"][0, 0], W.T @ delta, atol=1e-14)
    np.testing.assert_allclose(exact.state["h"][0], U.T @ delta, atol=1e-14)


def test_the_exact_gradients_are_those_of_the_literally_unrolled_expression() -> None:
    """Three steps of a tanh RNN as one SymPy expression, differentiated as a whole."""
    cell = cell_from(TANH_RNN)
    params, x, state, dy, dfinal = random_case(cell, {"I": 1, "H": 2}, 3, 1, seed=12)
    W, U = sympy.Matrix(2, 1, sympy.symbols("W:2")), sympy.Matrix(2, 2, sympy.symbols("U:4"))
    b, h = sympy.Matrix(sympy.symbols("b:2")), sympy.Matrix(sympy.symbols("h:2"))
    variables = [*W, *U, *b, *h]
    loss: Any = 0
    for t in range(3):
        h = (W * float(x["x"][t, 0, 0]) + U * h + b).applyfunc(sympy.tanh)
        loss += sum(float(dy["h"][t, 0, k]) * h[k] for k in range(2))
    loss += sum(float(dfinal["h"][0, k]) * h[k] for k in range(2))
    numbers = [*params["W"].ravel(), *params["U"].ravel(), *params["b"], *state["h"][0]]
    gradient = sympy.lambdify(variables, [sympy.diff(loss, v) for v in variables], "mpmath", cse=True)
    with mpmath.workdps(30):
        expected = np.array([float(value) for value in gradient(*numbers)])
    exact = oracle.exact_gradients(cell, params, x, state, dy, dfinal)
    found = np.concatenate([exact.params[n].ravel() for n in "WUb"] + [exact.state["h"].ravel()])
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("text", [TANH_RNN, GATED, MIXED], ids=["plain", "gated", "mixed"])
def test_both_gradients_agree(text: str) -> None:
    cell = cell_from(text)
    params, x, state, dy, dfinal = random_case(cell, {"I": 2, "H": 3}, 3, 2, seed=13)
    exact = oracle.exact_gradients(cell, params, x, state, dy, dfinal)
    probe = oracle.probe(cell, params, x, state)
    assert probe.nearest > 1e-6
    for name in dy:
        np.testing.assert_allclose(probe.forward.outputs[name], exact.outputs[name], atol=1e-14)
    rng = generator(14)
    parts = {"params": (params, exact.params), "x": (x, exact.x), "state": (state, exact.state)}
    for part, (arrays, gradients) in parts.items():
        for name, array in arrays.items():
            if part == "params" and not next(p.trainable for p in cell.params if p.name == name):
                assert not gradients[name].any()
                continue
            v = rng.normal(size=(2, *array.shape))
            moved = oracle.jvp(cell, params, x, state, oracle.Tangents(**{part: {name: v}}))
            left = [(moved.outputs[o][k] * dy[o]).sum() for o in dy for k in range(2)]
            left += [(moved.final[s][k] * dfinal[s]).sum() for s in dfinal for k in range(2)]
            right = [(gradients[name] * v[k]).sum() for k in range(2)]
            np.testing.assert_allclose(np.sum(np.reshape(left, (-1, 2)), axis=0), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", [GATED, MIXED], ids=["gated", "mixed"])
def test_finite_differences_agree(text: str) -> None:
    cell = cell_from(text)
    params, x, state, _, _ = random_case(cell, {"I": 2, "H": 3}, 3, 2, seed=15)
    rng = generator(16)
    for name, array in params.items():
        v, step = rng.normal(size=array.shape), 1e-6
        moved = oracle.jvp(cell, params, x, state, oracle.Tangents(params={name: v[None]}))
        ahead = oracle.forward(cell, params | {name: array + step * v}, x, state)
        behind = oracle.forward(cell, params | {name: array - step * v}, x, state)
        for output, tangent in moved.outputs.items():
            slope = (ahead.outputs[output] - behind.outputs[output]) / (2 * step)
            np.testing.assert_allclose(tangent[0], slope, rtol=1e-6, atol=1e-8)


def test_the_state_is_carried_and_chunks_add_up() -> None:
    cell = cell_from(GATED)
    params, x, state, _, _ = random_case(cell, {"I": 2, "H": 3}, 5, 2, seed=17)
    whole = oracle.forward(cell, params, x, state)
    first = oracle.forward(cell, params, {"x": x["x"][:2]}, state)
    second = oracle.forward(cell, params, {"x": x["x"][2:]}, first.final)
    assert np.array_equal(np.concatenate([first.outputs["h"], second.outputs["h"]]), whole.outputs["h"])
    assert all(np.array_equal(second.final[name], whole.final[name]) for name in ("h", "c"))
    empty = oracle.forward(cell, params, {"x": x["x"][:0]}, state)
    assert empty.outputs["h"].shape == (0, 2, 3) and np.array_equal(empty.final["c"], state["c"])


def test_stop_gradient_roll_and_eye() -> None:
    """A cell made by hand, h[t] = roll(h[t-1], 1)*stop_gradient(x[t]) + eye(H) @ x[t]: these nodes have no syntax yet."""
    from cellspec.model.nodes import Eye, MatMul, Roll, StopGradient

    H = sympy.Symbol("H")
    x, h = Ref("x", Kind.INPUT, (H,)), Ref("h", Kind.PREVIOUS, (H,))
    product = Apply("mul", (Roll(h, 1, (H,)), StopGradient(x, (H,))), (H,))
    value = Apply("add", (product, MatMul(Eye((H, H)), x, (H,))), (H,))
    cell = by_hand({}, {"x": (H,)}, {"h": (H,)}, value, (H,))
    x0, h0, v = {"x": np.array([[[2.0, 3.0, 5.0]]])}, {"h": np.array([[7.0, 11.0, 13.0]])}, np.array([1.0, -2.0, 4.0])
    found = oracle.forward(cell, {}, x0, h0)
    assert found.final["h"].tolist() == [[13 * 2 + 2, 7 * 3 + 3, 11 * 5 + 5]]
    moved = oracle.jvp(cell, {}, x0, h0, oracle.Tangents(x={"x": v[None, None, None]}))
    assert moved.final["h"].tolist() == [[v.tolist()]]
    exact = oracle.exact_gradients(cell, {}, x0, h0, {"h": np.zeros((1, 1, 3))}, {"h": v[None]})
    assert exact.x["x"].tolist() == [[v.tolist()]]
    assert exact.state["h"].tolist() == [[-2.0 * 3, 4.0 * 5, 1.0 * 2]]


def by_hand(
    params: dict[str, tuple[Any, ...]],
    inputs: dict[str, tuple[Any, ...]],
    states: dict[str, tuple[Any, ...]],
    value: Any,
    shape: tuple[Any, ...],
) -> Cell:
    """A cell of one equation, ``state[t] = value``."""
    at = Location("by hand", 1, 1)
    (state,) = states
    target = Ref(state, Kind.STATE, shape)
    return Cell(
        name="by_hand", title="", doc="", cite=(), sha256="", dims=("H",), hyper=(), activations=(), settings=(),
        inputs=tuple(Input(n, s) for n, s in inputs.items()),
        states=tuple(State(n, s, 0.0) for n, s in states.items()),
        outputs=(target,),
        params=tuple(Param(n, s, Initialiser("constant", (0.0,)), True) for n, s in params.items()),
        assignments=(Equation(target, value, "", at),),
        expect=Expect(), at=at, path="",
    )  # fmt: skip


# --- primitives ----------------------------------------------------------------------------------------------

KINKS: list[tuple[str, tuple[float, ...], float, tuple[float, ...]]] = [
    # function, arguments, value, derivatives by each argument, as PyTorch gives them
    ("relu", (0.0,), 0.0, (0.0,)),
    ("leaky_relu", (0.0,), 0.0, (0.01,)),
    ("elu", (0.0,), 0.0, (1.0,)),
    ("hard_sigmoid", (-3.0,), 0.0, (0.0,)),
    ("hard_sigmoid", (3.0,), 1.0, (0.0,)),
    ("hard_tanh", (-1.0,), -1.0, (0.0,)),
    ("hard_tanh", (1.0,), 1.0, (0.0,)),
    ("abs", (0.0,), 0.0, (0.0,)),
    ("sign", (0.0,), 0.0, (0.0,)),
    ("floor", (2.0,), 2.0, (0.0,)),
    ("floor", (-2.0,), -2.0, (0.0,)),
    ("softsign", (0.0,), 0.0, (1.0,)),
    ("max", (0.5, 0.5), 0.5, (0.5, 0.5)),
    ("min", (-0.5, -0.5), -0.5, (0.5, 0.5)),
    ("clip", (-1.0, -1.0, 2.0), -1.0, (1.0, 0.0, 0.0)),
    ("clip", (2.0, -1.0, 2.0), 2.0, (1.0, 0.0, 0.0)),
    ("clip", (0.0, 2.0, -1.0), -1.0, (0.0, 0.0, 1.0)),
    ("mod", (2.0, 1.0), 0.0, (1.0, -2.0)),
    ("mod", (-2.0, 0.5), 0.0, (1.0, 4.0)),
    ("where", (0.0, 2.0, 3.0), 3.0, (0.0, 0.0, 1.0)),
    ("where", (1.0, 2.0, 3.0), 2.0, (0.0, 1.0, 0.0)),
    ("lt", (1.0, 1.0), 0.0, (0.0, 0.0)),
    ("le", (1.0, 1.0), 1.0, (0.0, 0.0)),
    ("gt", (1.0, 1.0), 0.0, (0.0, 0.0)),
    ("ge", (1.0, 1.0), 1.0, (0.0, 0.0)),
    ("eq", (1.0, 1.0), 1.0, (0.0, 0.0)),
    ("ne", (1.0, 1.0), 0.0, (0.0, 0.0)),
]


def test_every_function_with_a_kink_has_its_convention_tested() -> None:
    tested = {name for name, *_ in KINKS}
    assert {name for name, row in PRIMITIVES.items() if row.kinks} <= tested
    assert {name for name, row in PRIMITIVES.items() if "Piecewise" in str(row.definition(*letters(row)))} <= tested


def letters(row: Primitive) -> tuple[sympy.Symbol, ...]:
    return tuple(sympy.Symbol(letter) for letter in "uvw"[: row.arity])


@pytest.mark.parametrize(("name", "args", "value", "slopes"), KINKS)
def test_kinks(name: str, args: tuple[float, ...], value: float, slopes: tuple[float, ...]) -> None:
    """Values and derivatives at the kink: by both gradients of the oracle, and by the table's columns."""
    H = sympy.Symbol("H")
    names = "abc"[: len(args)]
    node = Apply(name, tuple(Ref(n, Kind.PARAM, (H,)) for n in names), (H,))
    node = Apply("add", (node, Apply("mul", (Ref("h", Kind.PREVIOUS, (H,)), Ref("x", Kind.INPUT, (H,))), (H,))), (H,))
    cell = by_hand({n: (H,) for n in names}, {"x": (H,)}, {"h": (H,)}, node, (H,))
    params = {n: np.array([a]) for n, a in zip(names, args, strict=True)}
    x, state, one = {"x": np.zeros((1, 1, 1))}, {"h": np.zeros((1, 1))}, {"h": np.ones((1, 1))}
    exact = oracle.exact_gradients(cell, params, x, state, {"h": np.zeros((1, 1, 1))}, one)
    assert exact.final["h"].item() == pytest.approx(value, abs=1e-15)
    assert oracle.forward(cell, params, x, state).final["h"].item() == pytest.approx(value, abs=1e-15)
    for n, slope in zip(names, slopes, strict=True):
        moved = oracle.jvp(cell, params, x, state, oracle.Tangents(params={n: np.ones((1, 1))}))
        assert moved.final["h"].item() == pytest.approx(slope, abs=1e-15), f"jvp by {n}"
        assert exact.params[n].item() == pytest.approx(slope, abs=1e-15), f"exact by {n}"
    columns = table_columns(name)
    assert float(columns[0](*args)) == pytest.approx(value, abs=1e-15)
    for column, slope in zip(columns[1:], slopes, strict=True):
        assert float(column(*args)) == pytest.approx(slope, abs=1e-15)


def test_powers_have_derivatives_at_zero() -> None:
    at = [np.array([0.0, -1.5]), np.array([2.0, 2.0])]
    square = rule("pow", sympy.Integer(2))
    assert square.value(at).tolist() == [0.0, 2.25]
    assert square.partials[0](at).tolist() == [0.0, -3.0]


FORMULAE: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "identity": lambda a: a,
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "sigmoid": lambda x: 0.5 + 0.5 * math.tanh(x / 2),
    "erf": math.erf,
    "erfc": math.erfc,
    "gauss": lambda x: math.exp(-x * x),
    "expm1": math.expm1,
    "softplus": lambda x: math.log1p(math.exp(-abs(x))) + max(x, 0),
    "logsigmoid": lambda x: min(x, 0) - math.log1p(math.exp(-abs(x))),
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "silu": lambda x: x * (0.5 + 0.5 * math.tanh(x / 2)),
    "softsign": lambda x: x / (1 + abs(x)),
    "hard_sigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "hard_tanh": lambda x: min(max(x, -1), 1),
    "abs": abs,
    "sign": lambda x: float(np.sign(x)),
    "floor": math.floor,
    "max": max,
    "min": min,
    "clip": lambda v, lo, hi: float(np.clip(v, lo, hi)),
    "mod": lambda a, b: a % b,
    "where": lambda c, a, b: a if c else b,
}


def points(row: Primitive) -> list[tuple[float, ...]]:
    """Arguments in the row's domain, at its kinks, at ties, and at plus and minus 100 and 1000 where the domain allows it."""
    rng = generator(18)
    low, high = row.domain
    far = [100.0, 1000.0] if low > 0 else [-1000.0, -100.0, 100.0, 1000.0]
    if row.arity == 1:
        return [(u,) for u in [*rng.uniform(low, high, 20), *row.kinks, *far]]
    drawn = [tuple(rng.uniform(low, high, row.arity)) for _ in range(20)]
    ties = [(u,) * row.arity for u in rng.uniform(low, high, 3)]
    mixed = list(itertools.product([*far, 0.7], [1.3, 100.0])) if row.arity == 2 else []
    if row.name == "pow":
        return [(abs(u), v) for u, v in drawn]
    if row.name == "where":
        return [(float(rng.integers(2)), a, b) for _, a, b in drawn]
    return [*drawn, *ties, *mixed]


@pytest.mark.parametrize("name", PRIMITIVES)
def test_definitions_are_the_well_known_functions(name: str) -> None:
    assert set(FORMULAE) == set(PRIMITIVES)
    row = PRIMITIVES[name]
    value = rule(name).value
    for args in points(row):
        try:
            expected = float(FORMULAE[name](*args))
        except OverflowError:
            expected = math.inf
        found = value([np.array([a]) for a in args])[0]
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-15), args


UFUNCS = [
    {name: np.vectorize(getattr(math, name), otypes=[np.float64]) for name in ("erf", "erfc")},
    {n: getattr(np, n) for n in ("minimum", "maximum", "abs", "expm1", "logaddexp")},
    "numpy",
]


@cache
def spelled(name: str) -> Callable[..., Any]:
    """The row's ``numpy`` column as a function of the arguments."""
    row = PRIMITIVES[name]
    compiled: Callable[..., Any] = sympy.lambdify(letters(row), row.numpy(*letters(row)), modules=UFUNCS)
    return compiled


def table_columns(name: str) -> list[Callable[..., Any]]:
    """The row's ``numpy`` spelling and its ``derivatives``, as functions of the arguments.

    Functions within derivatives are computed by their own rows' ``numpy`` spelling.
    """
    row = PRIMITIVES[name]
    table = {f"table_{n}": spelled(n) for n in PRIMITIVES}

    def slope(k: int) -> Callable[..., Any]:
        args, y = letters(row), sympy.Symbol("y")
        expression = sympy.sympify(row.derivatives[k](*args, y))
        expression = expression.replace(
            lambda e: isinstance(e, sympy.Function) and type(e).__module__ == "cellspec.model.primitives",
            lambda e: sympy.Function(f"table_{type(e).__name__}")(*e.args),
        )
        inner = sympy.lambdify((*args, y), expression, modules=[table, "numpy"])
        return lambda *at: inner(*at, spelled(name)(*at))

    return [spelled(name), *(slope(k) for k in range(len(row.derivatives)))]


@pytest.mark.parametrize("name", PRIMITIVES)
def test_the_numpy_column_is_the_definition(name: str) -> None:
    value, column = rule(name).value, spelled(name)
    for args in points(PRIMITIVES[name]):
        expected = value([np.array([a]) for a in args])[0]
        with np.errstate(all="ignore"):
            found = float(column(*(np.float64(a) for a in args)))
        assert math.isfinite(found) == math.isfinite(expected), args
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-15), args


@pytest.mark.parametrize("name", [name for name, row in PRIMITIVES.items() if row.derivatives])
def test_the_derivatives_column_is_the_derivative_of_the_definition(name: str) -> None:
    row = PRIMITIVES[name]
    assert len(row.derivatives) == row.arity
    for k, column in enumerate(table_columns(name)[1:]):
        for args in points(row):
            expected = rule(name).partials[k]([np.array([a]) for a in args])[0]
            with np.errstate(all="ignore"):
                found = float(column(*(np.float64(a) for a in args)))
            assert math.isfinite(found) == math.isfinite(expected), (k, args)
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-15), (k, args)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "logsigmoid", "silu", "gelu", "elu", "tanh", "softsign"])
def test_values_and_slopes_are_finite_far_out(name: str) -> None:
    far = [np.array([-1000.0, -100.0, -30.0, 30.0, 100.0, 1000.0])]
    assert np.isfinite(rule(name).value(far)).all()
    assert np.isfinite(rule(name).partials[0](far)).all()


def test_dims_are_read_off_the_arrays_and_contradictions_are_errors() -> None:
    cell = cell_from(MIXED)
    params, x, state, _, _ = random_case(cell, {"I": 2, "H": 3}, 1, 1, seed=19)
    assert oracle.infer_dims(cell, params, x, state) == {"I": 2, "H": 3}
    with pytest.raises(ValueError, match="mixed"):
        oracle.infer_dims(cell, params | {"b": np.zeros(4)}, x, state)
