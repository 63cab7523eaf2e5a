"""What an error that is small beside 1 does, told from the traits of operations and functions; and that the traits are true."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, get_args

import mpmath
import numpy as np
import pytest
import sympy
from support import cell_from

import cellspec
from cellspec import ir
from cellspec.ir import Op, Program, Value, symbol
from cellspec.model.primitive import Least, Primitive, Sign, Size, Want, divisors
from cellspec.model.primitives import PRIMITIVES
from cellspec.oracle.primitives import rule
from cellspec.passes.accuracy import MODERATE, delicate, facts
from cellspec.pipeline import compile_cell

H = sympy.Symbol("H")
a, b, c, s, y = map(symbol, ("a", "b", "c", "s", "y"))
ONE_ARGUMENT = [name for name, row in PRIMITIVES.items() if row.arity == 1 and row.derivatives]


def fn(name: str, *args: Any) -> sympy.Expr:
    return PRIMITIVES[name].symbol(*args)


# --- traits --------------------------------------------------------------------------------------------------------


def test_every_operation_and_every_function_has_its_trait() -> None:
    assert all(isinstance(op.traits.errors, ir.ErrorFlow) for op in get_args(Op))
    for name, row in PRIMITIVES.items():
        assert len(row.wants) == len(row.derivatives), name


@pytest.mark.parametrize("op", [op for op in get_args(Op) if op not in (ir.Pointwise, ir.Eye)], ids=lambda op: op.__name__)
def test_need_goes_through_every_operation(op: Any) -> None:
    """Whatever a division reads by way of an operation is delicate, and by way of nothing else."""
    fields = {"left": "a", "right": "b", "parts": ("a", "b"), "operand": "a", "operands": ("b",), "weights": (("a",),)}
    numbers = {"out": "y", "outs": ("y",), "start": 0, "stop": 1, "index": 0, "shift": 1}
    given = {**fields, **numbers}
    made = op(**{name: given[name] for name in op.__dataclass_fields__ if name in given})
    for divided in (True, False):
        result = 1 / y if divided else fn("tanh", y)
        program = _program((made, ir.Pointwise("s", result)))
        assert delicate(program).issuperset(ir.operands(made)) == (divided or op.traits.errors is ir.ErrorFlow.RATIO)


def _program(ops: tuple[Op, ...], carries: tuple[ir.Carry, ...] = ()) -> Program:
    """A program that need not be well shaped: accuracy knows no shapes."""
    values = {name: Value(name, (H,), name) for name in ("a", "b", "c", "s", "y", "z")}
    return Program(MappingProxyType(values), (), ("a", "b", "c"), carries, ops, ("s",))


def _both(name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    u = sympy.Symbol("u")
    definition = sympy.sympify(PRIMITIVES[name].definition(u))
    modules = [{"_Floor": mpmath.floor}, "mpmath"]
    return sympy.lambdify(u, definition, modules), sympy.lambdify(u, sympy.diff(definition, u), modules)


def _arguments(row: Primitive, largest: float) -> list[float]:
    sizes = [size for size in (1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.99, 1.5, 3.7, 9.3, 30.3, 1e3, 1e6) if size <= largest]
    return sizes if row.domain[0] > 0 else [*(-size for size in sizes), *sizes]


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_what_functions_want_is_true(name: str) -> None:
    """By the definitions: how much more of an error below 1 comes out than of one beside the argument."""
    row = PRIMITIVES[name]
    value, slope = _both(name)
    for x in _arguments(row, 1.0):
        with mpmath.workdps(60):
            f, slope_x = (mpmath.mpf(g(mpmath.mpf(x))) for g in (value, slope))
        match row.wants[0]:
            case Want.LITTLE:
                assert abs(slope_x) <= MODERATE * abs(f), x
            case Want.SAME:
                assert abs(slope_x) <= MODERATE and abs(x * slope_x) <= MODERATE * abs(f), x
            case Want.RATIO:
                assert abs(x * slope_x) <= MODERATE * max(1, abs(f)), x
    if row.wants[0] is Want.RATIO:
        assert abs(slope(mpmath.mpf(1e-12))) > 1e5, "needs no more than SAME"
    if row.wants[0] is Want.SIDE:
        assert value(mpmath.mpf(-1e-12)) != value(mpmath.mpf(1e-12))


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_sizes_signs_and_complements_are_true(name: str) -> None:
    row = PRIMITIVES[name]
    value, _ = _both(name)
    for x in _arguments(row, 1e6):
        with mpmath.workdps(60):
            f = mpmath.mpf(value(mpmath.mpf(x)))
        if row.size is not Size.GROWS:
            assert abs(f) <= (MODERATE if row.size is Size.BOUNDED else MODERATE * max(1, abs(x))) or name == "log"
        if row.sign is Sign.NOT_NEGATIVE:
            assert f >= 0
        if row.sign is Sign.SAME:
            assert f * x >= 0
        if row.complement is not None and abs(x) < 10:
            u = sympy.Symbol("u")
            other = sympy.sympify(row.complement(u)).replace(
                lambda e: type(e).__name__ in PRIMITIVES, lambda e: PRIMITIVES[type(e).__name__].definition(*e.args)
            )
            assert float(other.subs(u, x)) == pytest.approx(float(1 - f), rel=1e-9, abs=1e-15)
    if row.size is Size.GROWS:
        assert value(mpmath.mpf(100)) > 1e20


@pytest.mark.parametrize("name", PRIMITIVES)
def test_where_nothing_is_rounded_is_true(name: str) -> None:
    """By the definitions: other functions give numbers that are neither whole nor those that they are given."""
    row, rng = PRIMITIVES[name], np.random.default_rng(0)
    args = [rng.uniform(*row.domain, 500).astype(np.float32).astype(np.float64) for _ in range(row.arity)]
    exponent = sympy.Integer(2) if name == "pow" else None
    result = rule(name, exponent).value(args)
    known = (result == np.rint(result)) | np.any([np.abs(result) == np.abs(arg) for arg in args], axis=0)
    assert row.rounds != known.all()


@pytest.mark.parametrize("name", [name for name, row in PRIMITIVES.items() if row.least is not Least.NOTHING])
def test_how_far_results_stay_from_0_is_true(name: str) -> None:
    row, rng = PRIMITIVES[name], np.random.default_rng(0)
    args = [rng.uniform(*row.domain, 500) for _ in range(row.arity)]
    result = rule(name).value(args)
    match row.least:
        case Least.SAME:
            assert np.all(np.abs(result) >= np.abs(args[0]))
        case Least.ROOT:
            assert np.all(np.abs(result) >= np.sqrt(np.abs(args[0])))
        case Least.GREATEST:
            assert all(np.all(result[arg >= 0] >= arg[arg >= 0]) for arg in args)


# --- the analysis --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        (a + b, ""),
        (a / b, "ab"),  # what is divided is magnified too
        (a * b**2, ""),
        (a / (1 + b**2), ""),
        (a / (sympy.Rational(1, 100000) + b**2), "ab"),
        (fn("log", a) + b, "a"),
        (fn("log", 1 + fn("exp", a)), ""),
        (fn("sqrt", a * b), "ab"),
        (fn("sqrt", fn("exp", a)) + fn("tanh", b), ""),
        (1 / fn("tanh", a) + b, "a"),
        (1 / fn("sigmoid", a), ""),
        (1 / (1 - a), ""),  # where it is tiny, a is near 1
        (1 / (a - b), "ab"),
        (fn("gt", a, b), "ab"),
        (fn("gt", a, sympy.Rational(1, 2)), ""),
        (fn("where", fn("gt", a, 0), b, c), "a"),
        (a * fn("exp", b), "a"),
        (a * fn("exp", -(b**2)), ""),
        (a * fn("exp", -fn("softplus", b)), ""),
        (1000 * a, "a"),
        (4 * a, ""),
        (fn("max", a, b) / fn("max", c, 1), ""),
        (a / H, ""),
        (a ** sympy.Rational(1, 3), "a"),
        (a ** sympy.Rational(3, 2), ""),
        (fn("floor", a), "a"),
        (fn("mod", a, b), "ab"),
    ],
)
def test_what_an_expression_needs(expr: sympy.Expr, found: str) -> None:
    assert "".join(sorted(delicate(_program((ir.Pointwise("s", expr),))))) == found


def test_need_and_size_go_round_with_a_carry() -> None:
    carry = ir.Carry("z", "s")
    divides = (ir.Pointwise("y", a / symbol("z")), ir.Pointwise("s", b + c))
    assert delicate(_program(divides, (carry,))) == {"a", "b", "c", "s", "z"}
    grows = (ir.Pointwise("y", a * symbol("z")), ir.Pointwise("s", symbol("z") + fn("exp", b)))
    assert delicate(_program(grows, (carry,))) == {"a"} and facts(_program(grows, (carry,))).table["z"].huge


def test_at_a_kink_of_a_derivative_the_side_is_not_asked_for() -> None:
    program = _program((ir.Pointwise("s", b * fn("gt", a, 0)),))
    assert delicate(program) == {"a"} and not delicate(program, backwards=True)


def test_a_softmax_is_at_most_one() -> None:
    shift = (
        ir.Largest("y", "a"),
        ir.Pointwise("z", a - y),
        ir.Pointwise("c2", fn("exp", symbol("z"))),
        ir.SumTo("total", "c2"),
        ir.Pointwise("s", b * symbol("c2") / symbol("total")),
    )
    program = _program(())
    names = {name: Value(name, (H,), name) for name in (*program.values, "c2", "total")}
    known = facts(Program(MappingProxyType(names), (), ("a", "b"), (), shift, ("s",)))
    assert known.table["total"].away and not known.table["s"].huge and not known.table["c2"].huge


CELL = """
name: gated
inputs: {{x: I}}
states: {{h: H}}
params: {{W: [H, I], U: [H, H], b: H}}
equations: |
  i = sigmoid(W @ x[t] + U @ h[t-1] + b)
  {more}
"""


@pytest.mark.parametrize(
    ("more", "tanh"),
    [
        ("h[t] = i*tanh(h[t-1])", True),
        ("h[t] = i/(1 + i)", True),
        ("h[t] = i/sum(i)", False),
        ("h[t] = tanh(roll(i, 1)/norm(i))", False),
        ("h[t] = cumsum(i)/mean(i)", False),
        ("h[t] = i*tanh(log(dot(i, i)))", False),
        ("h[t] = (U @ i)/dot(b, i)", False),
        ("h[t] = i*exp(h[t-1])", False),
        ("h[t] = 0.5*i*max(abs(h[t-1]), 1)", True),
        ("h[t] = 0.5*i/max(abs(h[t-1]), 1)", True),
        ("h[t] = 0.5*i/max(abs(h[t-1]), 0.001)", False),
    ],
)
def test_the_form_of_a_gate_follows(more: str, tanh: bool) -> None:
    text = cellspec.generate(cell_from(CELL.format(more=more)))
    for part in (text[text.index("def _forward(") : text.index("def backward(")], text[text.index("    packed, x_t") :]):
        assert ("exp(i, i)" not in part and "exp(tmp, tmp)" not in part) == tanh


LOGARITHM = """
name: logarithm
inputs: {x: I}
states: {h: H}
params: {W: [H, I], U: [H, H]}
equations: |
  z = log(x[t])
  i = sigmoid(W @ z + U @ h[t-1])
  h[t] = i*tanh(h[t-1])
"""


def test_a_derivative_that_divides_wants_the_gate_too() -> None:
    """Backwards a gradient through log(x) is divided by x: what it is made of is magnified."""
    compiled = compile_cell(cell_from(LOGARITHM))
    assert "i" in compiled.delicate and "i" not in delicate(compiled.forward, facts(compiled.forward))


# --- quotients -----------------------------------------------------------------------------------------------------


def test_powers_are_divided_by_one_after_the_other() -> None:
    assert divisors(a**-1) == [a] and divisors(a**-3) == [a, a, a] and divisors(a**-20) == [a**10, a**10]
    assert divisors(a ** sympy.Rational(-1, 2)) == [sympy.sqrt(a)]


@pytest.mark.parametrize("name", ["ln_lstm", "slstm", "deltanet", "ltc", "mlstm_xlstm", "linear_attention", "fast_weights"])
def test_no_derivative_squares_a_divisor(name: str) -> None:
    backward = compile_cell(cellspec.load(name)).backward
    powers = {p for op in backward.ops if isinstance(op, ir.Pointwise) for p in op.expr.atoms(sympy.Pow)}
    assert powers and all(p.exp > -2 for p in powers), powers
