"""Constants and dim polynomials: what can be worked out before anything is computed."""

from __future__ import annotations

import pytest
import sympy
from spec_support import expression, said

from cellspec.errors import Reporter
from cellspec.language.check.shapes import decide, dim_polynomial, expand, fold
from cellspec.language.check.subscripts import time_offset
from cellspec.language.spec import Name

H, I = sympy.symbols("H I")  # noqa: E741
CONSTANTS = {"n": 3, "eps": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3*4", 14),
        ("n - 1", 2),
        ("-n", -3),
        ("6/3", 2.0),
        ("1/3", 1 / 3),
        ("2**n", 8),
        ("2**-1", 0.5),
        ("eps**2", 0.25),
        ("where(n > 2, 10, 20)", 10),
        ("where(n > 2, 10, h)", 10),
        ("floor(7/2)", 3.0),
        ("max(n, 5)", 5),
        ("sqrt(16)", 4),
        ("mod(7, n)", 1),
        ("2**53", 2**53),
    ],
)
def test_what_is_a_constant(text: str, value: float) -> None:
    found = fold(expression(text), CONSTANTS)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["m", "h[t]", "n @ 2", "1/0", "(-8)**0.5", "0**-1", "where(m > 2, 1, 2)", "log(0)", "n > 2"])
def test_what_is_none(text: str) -> None:
    assert fold(expression(text), CONSTANTS) is None


def test_no_integer_is_astronomically_long() -> None:
    """Beyond 2**53 they are floats, beyond the range there is no number."""
    assert fold(expression("2**53 + 1"), {}) == float(2**53 + 1)
    assert isinstance(fold(expression("2**53 * 2"), {}), float)
    assert fold(expression("10**60*10**60*10**60*10**60*10**60*10**60"), {}) is None


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("n > 2", True),
        ("n < eps", False),
        ("n == 3", True),
        ("n != 3", False),
        ("n >= 3", True),
        ("n <= 2", False),
        ("m > 2", None),
    ],
)
def test_conditions(text: str, holds: bool | None) -> None:
    assert decide(expression(text), CONSTANTS) is holds
    assert decide(expression("n"), CONSTANTS) is None, "a number is no condition"


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("t", (1, 0)),
        ("t-1", (1, -1)),
        ("t - n", (1, -3)),
        ("n - t", (-1, 3)),
        ("1 + t - 2", (1, -1)),
        ("t + t", (2, 0)),
        ("2", (0, 2)),
        ("n - 1", (0, 2)),
        ("-(t - 1)", (-1, 1)),
        ("2*t", None),
        ("m", None),
    ],
)
def test_subscripts(text: str, offset: tuple[float, float] | None) -> None:
    assert time_offset(expression(text), CONSTANTS) == offset


def polynomial(text: str, *, fractions: bool = False) -> tuple[sympy.Expr | None, list[str]]:
    """The dim polynomial of a text over H, I and n = 3, and what is reported."""
    report = Reporter()

    def resolve(name: Name) -> sympy.Expr | None:
        return {"H": H, "I": I, "n": sympy.Integer(3)}.get(name.id)

    return dim_polynomial(expression(text), resolve, report, fractions=fractions), said(report)


@pytest.mark.parametrize(
    ("text", "value"),
    [("H", H), ("2*(H + I)", 2 * H + 2 * I), ("n*H - 1", 3 * H - 1), ("(H + 1)*(H - 1)", H**2 - 1), ("-(-H)", H)],
)
def test_dim_polynomials_are_expanded(text: str, value: sympy.Expr) -> None:
    """So that equal shapes compare equal."""
    assert polynomial(text) == (value, [])


def test_division_is_for_counts_alone() -> None:
    """Where ``expect`` says how many parameters there are."""
    assert polynomial("H*(H - 1)/2", fractions=True) == (H**2 / 2 - H / 2, [])
    assert polynomial("H**2", fractions=True) == (H**2, [])
    assert polynomial("H/2") == (None, ["'H/2' cannot stand here: a dim expression is made of dims, whole numbers, +, - and *"])
    assert polynomial("2/H", fractions=True) == (None, ["'2/H' is no polynomial in the dims"])


@pytest.mark.parametrize("text", ["0.5*H", "sqrt(H)", "H @ I", "[H]"])
def test_what_is_no_polynomial(text: str) -> None:
    value, messages = polynomial(text)
    assert value is None and len(messages) == 1 and "cannot stand here" in messages[0]


def test_a_name_without_a_value_has_been_reported() -> None:
    assert polynomial("H + Q") == (None, [])


def test_polynomials_that_nobody_means_are_refused() -> None:
    product = "*".join(f"(H + {k}*I + 1)" for k in range(1, 12))
    value, messages = polynomial(product)
    assert value is None and len(messages) == 1 and messages[0].endswith("is too complicated")
    assert expand(sympy.Integer(2**53) * H) is None and expand((2**53 - 1) * H) is not None
