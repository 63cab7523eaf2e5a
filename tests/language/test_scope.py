"""Names: who declared them, which are used, and what is said of those that are not there."""

from __future__ import annotations

import pytest
import sympy
from spec_support import DECLARED, equations, expression, said, scope

from cellspec.errors import Location, Reporter
from cellspec.language.check.left_sides import declare_targets, single_assignments
from cellspec.language.check.lookup import look_up, look_up_equation, look_up_loops
from cellspec.language.check.loops import unroll
from cellspec.language.check.scope import MOST_MEMBERS, Role, Scope, declare_all, resolve_dim
from cellspec.language.read.loader import parse_spec
from cellspec.language.spec import Gaps, Name
from cellspec.language.unparse import label

H, I, K = sympy.symbols("H I K")  # noqa: E741
AT = Location("f.yaml", 1, 1)


def used(names: Scope) -> set[str]:
    return {entry.name for entry in names.entries.values() if entry.used}


# --- declarations -----------------------------------------------------------------------------------------------------


def test_what_a_spec_declares() -> None:
    names = scope()
    assert {entry.name: entry.role.name for entry in names.entries.values()} == {
        **dict.fromkeys(("n", "eps"), "HYPER"),
        "x": "INPUT",
        **dict.fromkeys(("h", "c"), "STATE"),
        **dict.fromkeys(("W", "U", "b", "R", "E"), "PARAM"),
        "sigma": "ACTIVATION",
        "mix": "FUNCTION",
        **dict.fromkeys(("I", "H", "K"), "DIM"),
    }
    assert [entry.name for entry in names.of_role(Role.DIM)] == ["I", "H", "K"], "in the order in which shapes name them"
    assert names.shape_of("W") == (H, I) and names.shape_of("c") == (H, K) and names.shape_of("nothing") == ()
    assert names.shape_of("R") == (2, H, H), "a family of params has its number in front"
    assert names.entries["R"].kind == "a family of params" and names.entries["E"].kind == "a param"
    assert names.constants == {"n": 2, "eps": 0.5} and names.activations == {"sigma": "sigmoid"}
    assert names.entries["x"].varies and not names.entries["W"].varies


def declared(old: str, new: str) -> list[str]:
    """What is said of the declarations with one of them changed."""
    names = Scope(Reporter(), Gaps())
    declare_all(parse_spec(DECLARED.replace(old, new)), names)
    return said(names)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b: H,", "b: H, x: H,", "'x' is declared twice: as an input and as a param"),
        ("b: H,", "b: 0,", "an axis has at least size 1, but '0' is 0"),
        ("b: H,", "b: [H, H, H, H],", "'b': a shape has at most 3 axes, not 4"),
        ("b: H,", "b: eps,", "'eps' is no whole number, as a shape needs"),
        ("b: H,", "b: W,", "'W' is a param; a shape is made of dims"),
        ("b: H,", "b: H/2,", "'H/2' cannot stand here: a dim expression is made of dims, whole numbers, +, - and *"),
        (
            "repeat: n",
            "repeat: eps",
            "'repeat' counts the members of a family: a whole number, or a hyperparameter that is one",
        ),
        ("repeat: n", "repeat: 0", f"a family has 1 to {MOST_MEMBERS} members, but '0' is 0"),
        ("repeat: n", "repeat: H", "'repeat' counts the members of a family: a whole number"),
        ("repeat: n", "repeat: nn", "unknown name 'nn'; did you mean 'n'?"),
        ("inputs: {x: I}", "dims: [I, H]\ninputs: {x: I}", "unknown dim 'K'; add it to 'dims'"),
        ("inputs: {x: I}", "dims: [I, H, Kx]\ninputs: {x: I}", "unknown dim 'K'; did you mean 'Kx'?"),
    ],
)
def test_declarations_that_are_wrong(old: str, new: str, message: str) -> None:
    messages = declared(old, new)
    assert messages and all(found.startswith(message) for found in messages)


def test_a_dim_is_used_by_what_it_stands_in() -> None:
    names = scope()
    assert not names.entries["n"].used or "n" in used(names)
    assert resolve_dim(Name("H", AT), names) == H and resolve_dim(Name("n", AT), names) == 2
    assert {"H", "n"} <= used(names)
    assert resolve_dim(Name("W", AT), names) is None and said(names) == ["'W' is a param; a shape is made of dims"]


# --- suggestions and gaps -----------------------------------------------------------------------------------------------


def test_a_name_that_is_suggested_counts_as_used() -> None:
    """One mistake is enough: ``h`` is misspelt, not unused as well."""
    names = scope()
    names.unknown_name("sigm", AT)
    assert said(names) == ["unknown name 'sigm'"], "a function is no name that an expression reads"
    names.unknown_function("sigm", AT)
    assert said(names)[1:] == ["unknown function 'sigm'; did you mean 'sigma'?"] and "sigma" in used(names)


def test_the_same_name_in_other_letters_comes_first() -> None:
    assert scope().suggest("w", ["W", "x", "v"]) == "; did you mean 'W'?"


def test_nobody_reads_fifty_suggestions() -> None:
    names = scope()
    hints = [names.suggest("sigm", ["sigma"]) for _ in range(60)]
    assert hints.count("") == 10 and names.suggest("x" * 101, ["x" * 101]) == ""


def test_nothing_is_said_of_what_may_stand_in_a_gap() -> None:
    names = scope(Gaps(names=frozenset(("q",)), stems=frozenset(("V",)), parts=frozenset(("functions",))))
    for name in ("q", "Vx"):
        names.unknown_name(name, AT, "params")
    names.unknown_function("f", AT)
    assert said(names) == []
    names.unknown_name("zeta", AT, "params")
    assert said(names) == ["unknown name 'zeta'"]


@pytest.mark.parametrize(
    ("text", "certain"),
    [("n + 1", True), ("W @ x[t]", True), ("H", True), ("q", False), ("n + q", False), ("t_now + t", True)],
)
def test_whether_all_names_are_known(text: str, certain: bool) -> None:
    assert scope().is_certain(expression(text)) is certain


# --- names in equations -------------------------------------------------------------------------------------------------


def looked_up(text: str) -> tuple[set[str], list[str]]:
    """What the equations of a block use, and what is said of them."""
    names = scope()
    found = equations(text)
    declare_targets(found, names)
    before = used(names)
    look_up_loops(found, names)
    for equation in found:
        look_up_equation(equation, names)
    return used(names) - before, said(names)


def test_what_equations_use() -> None:
    text = "y = sigma(W @ x[t]) + mix(b, n)\nh[t] = where(eps > 1, y, U @ h[t-1]) + eye(K) @ b\nc[t] = 0"
    found, messages = looked_up(text)
    assert found >= {"sigma", "W", "x", "mix", "b", "eps", "y", "U", "h"} and messages == []
    assert "E" not in found and "c" not in found, "an assignment is no use"


def test_a_family_is_not_used_by_its_own_equations() -> None:
    found, _ = looked_up("s[0] = b\ns[1] = s[0]\nc[t] = 0\nh[t] = 0")
    assert "s" not in found
    found, _ = looked_up("s[0] = b\nh[t] = s[0]\nc[t] = 0")
    assert "s" in found


@pytest.mark.parametrize(
    ("right", "message"),
    [
        ("h", "'h' is a state: write h[t-1] for its value before the step or h[t] after it"),
        ("x", "'x' is an input: write x[t] for its value at this step"),
        ("sigma", "'sigma' is an activation: write sigma(…)"),
        ("mix", "'mix' is a function: write mix(…)"),
        ("tanh", "'tanh' is a function: write tanh(…)"),
        ("R", "'R' is a family of params: write R[0] for its first member"),
        ("t", "'t' is the time: it stands only in brackets, as in x[t]"),
        ("epss", "unknown name 'epss'; did you mean 'eps'?"),
        ("q[t]", "unknown name 'q'"),
        ("tann(b)", "unknown function 'tann'; did you mean 'tanh'?"),
        ("W(b)", "'W' is a param, not a function"),
        ("R[m]", "unknown name 'm'"),
    ],
)
def test_what_cannot_be_mentioned(right: str, message: str) -> None:
    _, messages = looked_up(f"y = {right}\nh[t] = y\nc[t] = 0")
    assert len(messages) == 1 and messages[0].startswith(message)


def test_the_variable_of_a_loop_is_a_name_within_it() -> None:
    _, messages = looked_up("for k in range(0, n):\n  s[k] = R[k] @ b + k\nh[t] = s[0]\nc[t] = 0")
    assert messages == []
    _, messages = looked_up("for k in range(0, n):\n  s[k] = k[0] + k(2)\nh[t] = s[0]\nc[t] = 0")
    what = "'k' is the variable of a loop here"
    assert messages == [f"{what} and takes no subscript", f"{what}, not a function"]
    _, messages = looked_up("for H in range(0, n):\n  s[H] = b\nh[t] = s[0]\nc[t] = 0")
    assert messages == ["'H' cannot be the variable of a loop, as it is a dim already"]


def test_an_argument_of_a_function_is_a_name_within_it() -> None:
    names = scope()
    look_up(expression("a + b[0]"), names, ("a", "b"), what="an argument of 'f'")
    assert said(names) == ["'b' is an argument of 'f' here and takes no subscript"]


# --- left sides -----------------------------------------------------------------------------------------------------------


def assigned(text: str) -> tuple[list[str], list[str]]:
    """The left sides that are good, and what is said of the others."""
    names = scope()
    found = equations(text)
    strays = declare_targets(found, names)
    good, others = single_assignments(unroll(found, names).singles, strays, names)
    assert len(good) + len(others) == len(unroll(found, scope()).singles)
    return [label(equation) for equation in good], said(names)


def test_left_sides_that_are_right() -> None:
    assert assigned("y = b\ns[0] = b\ns[1] = b\nh[t] = y\nc[t] = 0") == (["y", "s[0]", "s[1]", "h[t]", "c[t]"], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y = b\ny = 2", "'y' is assigned twice; first in line 1"),
        ("h[t] = b\nh[t] = 2", "'h[t]' is assigned twice; first in line 1"),
        ("s[1] = b\ns[n - 1] = 2", "'s[1]' is assigned twice; first in line 1"),
        ("for k in range(0, 2):\n  y = k", "'y' is assigned in more than one turn of a loop: write y[k] = …"),
        ("y = b\ny[0] = 2", "'y[0]' is assigned, but 'y' is no family: it is assigned as a whole in line 1"),
        ("y[0] = b\ny = 2", "'y' is a family, from line 1 on: write y[0] = …"),
        ("y = b\ny[t] = 2", "'y[t]' is assigned, but 'y' is an intermediate"),
        ("n = b", "'n' is a hyperparameter and cannot be assigned"),
        ("R[0] = b", "'R' is a family of params and cannot be assigned"),
        ("t_now = b", "'t_now' is a name of the language and cannot be assigned"),
        ("hh[t] = b", "'hh[t]' is assigned, but 'hh' is not a state; did you mean 'h'?"),
    ],
)
def test_left_sides_that_are_wrong(text: str, message: str) -> None:
    _, messages = assigned(f"{text}\nc[t] = 0" + ("" if "h" in text else "\nh[t] = 0"))
    assert messages == [message]


def test_a_state_must_be_assigned() -> None:
    assert assigned("h[t] = b")[1] == ["state 'c' is never assigned: write c[t] = …"]
