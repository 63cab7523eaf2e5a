"""Names, braces that write several at once, and expressions back to text."""

from __future__ import annotations

import pytest
from spec_support import equations, expression, said

from cellspec.errors import Location, Reporter
from cellspec.language.names import MAX_EXPANSION, check_name, expand_braces, words
from cellspec.language.unparse import LONGEST, label, source, written

AT = Location("f.yaml", 1, 1)


def checked(name: str, kind: str = "a param", *, field: bool = False) -> tuple[str | None, list[str]]:
    report = Reporter()
    return check_name(name, AT, report, kind, field=field), said(report)


def test_names_are_as_python_normalises_them() -> None:
    assert checked("Wi") == ("Wi", []) and checked("β") == ("β", []) and checked("ℌ") == ("H", [])


@pytest.mark.parametrize(
    ("name", "kind", "field", "message"),
    [
        ("2x", "a param", False, "'2x' cannot name a param; a name is made of letters, digits and '_'"),
        ("a b", "a param", False, "'a b' cannot name a param"),
        ("n" * 101, "a param", False, "the name 'nnnnnnn"),
        ("lambda", "a param", False, "'lambda' is a Python keyword and cannot name a param"),
        ("__a__", "a param", False, "'__a__' belongs to Python and cannot name a param"),
        ("tanh", "a state", False, "'tanh' is a function of the language and cannot name a state"),
        ("t", "a state", False, "'t' is the time index of the language and cannot name a state"),
        ("B", "a dim", False, "a dim cannot be called 'B', which is an argument of the generated code"),
        ("_a", "a param", True, "'_a' cannot name a param: it becomes a field of a NamedTuple"),
    ],
)
def test_names_that_cannot_be(name: str, kind: str, field: bool, message: str) -> None:
    found, messages = checked(name, kind, field=field)
    assert found is None and len(messages) == 1 and messages[0].startswith(message)


def test_what_only_a_dim_or_a_field_cannot_be_called() -> None:
    assert checked("B")[0] == "B" and checked("_a")[0] == "_a"


def expanded(text: str) -> tuple[tuple[str, ...], list[str]]:
    report = Reporter()
    return expand_braces(text, AT, report), said(report)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("W", ("W",)),
        ("W{i,f}", ("Wi", "Wf")),
        ("{W, U}{i,f}", ("Wi", "Wf", "Ui", "Uf")),
        ("W{1}_x", ("W1_x",)),
    ],
)
def test_braces(text: str, names: tuple[str, ...]) -> None:
    assert expanded(text) == (names, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("W{i,f", "the braces of 'W{i,f' do not pair up; names expand like W{i,f,g,o}"),
        ("Wi}", "the braces of 'Wi}' do not pair up"),
        ("W{{i}}", "the braces of 'W{{i}}' do not pair up"),
        ("W{i,}", "a choice within the braces of 'W{i,}' is empty"),
        ("W{i,i}", "'W{i,i}' gives 'Wi' twice"),
        ("W" + "{a,b}" * 10, f"'W{'{a,b}' * 10}' expands to more than {MAX_EXPANSION} names"),
    ],
)
def test_braces_that_give_nothing(text: str, message: str) -> None:
    names, messages = expanded(text)
    assert names == () and len(messages) == 1 and messages[0].startswith(message)


def test_the_names_in_a_text() -> None:
    assert words("Wi @ x[t] + 2*Wi - h_new") == ("Wi", "x", "t", "h_new")


# --- text ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a + b - c",
        "a - (b - c)",
        "a - (b + c)",
        "a*(b + c)",
        "a/(b*c)",
        "a/b/c",
        "(a + b)**2",
        "a**-b",
        "(-a)**2",
        "-a**2",
        "(a*b) @ c",
        "a @ (b @ c)",
        "a*(b @ c)",
        "(a + b).T",
        "f(a, [b, c])",
        "where(a < b, 1, 0.5)",
        "h[t-1]",
        "R[2*k + 1]",
    ],
)
def test_text_that_means_the_same(text: str) -> None:
    """And with no more parentheses than it needs, but for those that tell products of matrices from others."""
    bare = written(expression(text)).replace(" ", "")
    assert bare in (text.replace(" ", ""), text.replace(" ", "").replace("(a*b)@c", "a*b@c"))
    assert written(expression(written(expression(text)))) == written(expression(text))


def test_a_long_text_loses_its_middle() -> None:
    text = " + ".join(f"name{k}" for k in range(20))
    short = source(expression(text))
    assert len(short) <= LONGEST and short.startswith("name0 + name1") and short.endswith("name19") and " … " in short
    assert source(expression("a + b")) == "a + b"


def test_left_sides() -> None:
    assert [label(equation) for equation in equations("a = 1\nh[t] = 1\ns[k + 1] = 1")] == ["a", "h[t]", "s[k+1]"]
