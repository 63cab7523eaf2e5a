"""The order of equations: each after those that it reads within the step, and the cycles that forbid one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from spec_support import equations, expression

from cellspec.language.check.order import Cycle, operands, sort, walk
from cellspec.language.unparse import label, source


def ordered(text: str, **constants: float) -> list[str]:
    found, cycles = sort(equations(text), constants)
    assert not cycles
    return [label(equation) for equation in found]


def cycles(text: str, **constants: float) -> list[str]:
    return [str(cycle) for cycle in sort(equations(text), constants)[1]]


def test_each_equation_comes_after_what_it_reads() -> None:
    assert ordered("y = a + h[t]\nh[t] = b\nb = a*2\na = x[t]") == ["a", "b", "h[t]", "y"]


def test_otherwise_the_order_of_the_text_is_kept() -> None:
    assert ordered("c = x[t]\na = x[t]\nb = x[t]\nd = a") == ["c", "a", "b", "d"]


def test_what_was_there_before_the_step_is_not_waited_for() -> None:
    assert ordered("a = h[t-1] + b\nb = a0\nh[t] = a") == ["b", "a", "h[t]"]
    assert ordered("h[t] = h[t-1]") == ["h[t]"]


def test_members_of_families_are_told_apart() -> None:
    """By their numbers, which constants may make: unrolled, a member's left side is its name."""
    family = [replace(equation, target="s[1]", index=None) for equation in equations("s[1] = b")]
    found, _ = sort([*equations("a = s[n - 1]\nc = s[n]"), *family, *equations("b = x[t]")], {"n": 1})
    assert [equation.target for equation in found] == ["a", "b", "s[1]", "c"], "a reads s[0], which is no equation of these"


def test_a_branch_that_constants_decide_against_is_not_read() -> None:
    text = "a = where(n > 1, b, c)\nb = a\nc = x[t]"
    assert ordered(text, n=1) == ["c", "a", "b"]
    assert cycles(text, n=2) == ["a -> b -> a"]
    assert cycles(text) == ["a -> b -> a"], "it is not known which"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a = a", ["a -> a"]),
        ("a = b\nb = c\nc = a", ["a -> b -> c -> a"]),
        ("a = b + c\nb = c\nc = a", ["a -> c -> a"]),
        ("h[t] = y\ny = h[t]", ["h[t] -> y -> h[t]"]),
        ("a = b\nb = a\nc = d\nd = c", ["a -> b -> a", "c -> d -> c"]),
    ],
)
def test_cycles(text: str, found: list[str]) -> None:
    """The shortest through the first of the equations, one for each knot."""
    assert cycles(text) == found


def test_what_stands_behind_a_cycle_comes_last_and_is_in_none() -> None:
    found, knots = sort(equations("e = a\na = b\nb = a\nz = x[t]"), {})
    assert label(found[0]) == "z" and len(found) == 4
    assert [knot.labels for knot in knots] == [("a", "b", "a")]


def test_a_cycle_is_told_where_its_first_equation_reads_on() -> None:
    (knot,) = sort(equations("a = x[t] + b\nb = a"), {})[1]
    assert (knot.at.line, knot.at.column) == (1, 12)


def test_a_long_cycle_is_told_in_part() -> None:
    labels = tuple(f"v{k}" for k in range(20))
    assert str(Cycle((*labels, "v0"), equations("a = 1")[0].at)) == " -> ".join((*labels[:10], "…", "v19", "v0"))


def test_thousands_of_equations_need_no_recursion() -> None:
    chain = "\n".join(f"v{k} = v{k + 1}" for k in range(900)) + "\nv900 = x[t]"
    assert ordered(chain)[:2] == ["v900", "v899"]
    assert len(sort(equations(chain.replace("x[t]", "v0")), {})[1]) == 1


def test_an_index_is_no_operand() -> None:
    assert [source(part) for part in walk(expression("R[n] @ x[t-k] + eye(H)"))] == [
        "R[n] @ x[t-k] + eye(H)",
        "R[n] @ x[t-k]",
        "R[n]",
        "x[t-k]",
        "eye(H)",
    ]
    assert operands(expression("R[n]")) == ()
