"""The rows of primitives, by kind: how one is written down, and values that anyone knows, whatever else the row says."""

from __future__ import annotations

from collections import Counter
from math import e, exp, log, pi, tau
from typing import Any

import pytest
import sympy

from cellspec.model.primitive import Primitive, Size, Want
from cellspec.model.primitives import COMPARISONS, PRIMITIVES
from cellspec.model.rows import activations, build, choices, elementary

BY_KIND = {"elementary": elementary.ROWS, "activations": activations.ROWS, "choices": choices.ROWS}
x, y, z = sympy.symbols("x y z")


def value(kind: str, name: str, *args: Any) -> float:
    """What the row of this kind defines, at numbers."""
    (row,) = (row for row in BY_KIND[kind] if row.name == name)
    return float(sympy.sympify(row.definition(*map(sympy.sympify, args))))


# --- writing a row down ------------------------------------------------------------------------------------------------


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> Primitive:
    """A row that is in no table: ``a*a + b``, of which the first derivative is made of another row."""
    monkeypatch.setattr(build, "_ROWS", dict(build._ROWS))
    return build.row(
        "twice", lambda a, b: a * a + b, lambda a, b, r: build.call("abs", r), build.one, wants=Want.SAME, size=Size.GROWS
    )


def test_what_a_row_leaves_out_follows_from_the_rest(twice: Primitive) -> None:
    assert twice.arity == 2 and twice.wants == (Want.SAME, Want.SAME)
    assert {target: word(["p", "q"]) for target, word in twice.spellings.items()} == {
        "numpy": "np.twice(p, q)",
        "cuda": "twice(p, q)",
        "torch": "torch.twice(p, q)",
        "jax": "jnp.twice(p, q)",
    }
    assert str(twice.numpy(x, y)) == "twice(x, y)"


def test_a_function_stays_as_it_is_and_differentiates_by_its_row(twice: Primitive) -> None:
    """In terms of its result, which stays in one piece; of what is inside it, by the chain rule."""
    made = twice.symbol(0, x**2)
    assert made.func is twice.symbol and made.args == (0, x**2)
    assert twice.symbol(x, y).diff(x) == PRIMITIVES["abs"].symbol(twice.symbol(x, y))
    assert made.diff(x) == 2 * x


def test_an_operator_is_sympys_own() -> None:
    made = build.arithmetic("less", 2, lambda a, b: a - b)
    assert made.symbol(x, y) == made.definition(x, y) == made.numpy(x, y) == x - y
    assert not made.listed and not made.derivatives and not made.spellings


def test_the_first_case_that_holds() -> None:
    assert build.cases((x, sympy.true), (y, sympy.true)) == x
    assert build.cases((x, sympy.false), (y, sympy.true)) == y
    assert (build.zero(x, y), build.one(x)) == (0, 1)


def test_no_name_stands_in_two_rows() -> None:
    """The second would silently be the one that counts."""
    count = Counter(row.name for rows in BY_KIND.values() for row in rows)
    assert count == Counter(PRIMITIVES.keys())


# --- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("sigmoid", log(3), 0.75),
        ("erf", 1, 0.8427007929497149),
        ("erfc", 1, 0.15729920705028513),
        ("gauss", 2, exp(-4)),
        ("expm1", 1, e - 1),
        ("softplus", log(e - 1), 1),
        ("logsigmoid", log(3), log(0.75)),
        ("relu", -2, 0),
        ("relu", 2, 2),
        ("leaky_relu", -2, -0.02),
        ("elu", log(0.25), -0.75),
        ("elu", 2, 2),
        ("gelu", 1, 0.8413447460685429),  # the normal distribution's share within one deviation above
        ("silu", log(3), 0.75 * log(3)),
        ("softsign", -3, -0.75),
        ("hard_sigmoid", -1.5, 0.25),
        ("hard_sigmoid", 4, 1),
        ("hard_tanh", -0.5, -0.5),
        ("hard_tanh", -3, -1),
    ],
)
def test_activations(name: str, at: float, expected: float) -> None:
    assert value("activations", name, at) == pytest.approx(expected, rel=1e-14)


def test_all_activations_have_a_value_here() -> None:
    (mark,) = (mark for mark in test_activations.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {name for name, *_ in mark.args[1]} == {row.name for row in activations.ROWS}


def test_the_logistic_function_of_ufuncs_exponentiates_nothing_positive() -> None:
    """So that it stays in range; all that is exponentiated is ``-|x|``."""
    made = activations.logistic(x)
    assert {power.args for power in made.atoms(sympy.Function) if power.func == build.ufunc("exp")} == {(-activations.abs_(x),)}


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("exp", 1, e),
        ("log", e, 1),
        ("sqrt", 2.25, 1.5),
        ("sin", pi / 6, 0.5),
        ("cos", tau / 6, 0.5),
        ("tanh", log(2), 0.6),
    ],
)
def test_elementary_functions(name: str, at: float, expected: float) -> None:
    assert value("elementary", name, at) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("operator", COMPARISONS)
def test_comparisons_are_pythons(operator: str) -> None:
    for left, right in ((1, 2), (2, 1), (2, 2)):
        holds = eval(f"{left} {operator} {right}")
        assert value("elementary", COMPARISONS[operator], left, right) == holds


def test_arithmetic() -> None:
    results = {"add": 7 + 2, "sub": 7 - 2, "mul": 7 * 2, "div": 7 / 2, "pow": 7**2}
    assert {name: value("elementary", name, 7, 2) for name in results} == results
    assert value("elementary", "neg", 7) == -7 and value("elementary", "identity", 7) == 7


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("abs", (-2,), 2),
        ("sign", (-2,), -1),
        ("sign", (0,), 0),
        ("floor", (-1.5,), -2),
        ("max", (-3, 2), 2),
        ("max", (2, 2), 2),
        ("min", (-3, 2), -3),
        ("clip", (5, -1, 3), 3),
        ("clip", (-5, -1, 3), -1),
        ("clip", (2, -1, 3), 2),
        ("clip", (0, 3, -1), -1),  # the upper end has the last word
        ("mod", (-1, 3), 2),
        ("mod", (1, -3), -2),
        ("where", (0, 5, 7), 7),
        ("where", (-1, 5, 7), 5),
    ],
)
def test_choices(name: str, args: tuple[float, ...], expected: float) -> None:
    assert value("choices", name, *args) == expected


def test_all_choices_have_a_value_here() -> None:
    (mark,) = (mark for mark in test_choices.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {name for name, *_ in mark.args[1]} == {row.name for row in choices.ROWS}


def test_a_quotient_of_whole_numbers_has_no_slope() -> None:
    """So the derivative of ``mod`` by its first argument is 1, as its row says."""
    (mod,) = (row for row in choices.ROWS if row.name == "mod")
    assert sympy.sympify(mod.definition(x, y)).diff(x) == mod.derivatives[0](x, y, z) == 1
