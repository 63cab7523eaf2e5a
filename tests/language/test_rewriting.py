"""Expressions rewritten: loops unrolled, functions inlined, constants worked out; equations in, equations out."""

from __future__ import annotations

import pytest
from spec_support import equations, expression, said, scope

from cellspec.language.check.inlining import inline
from cellspec.language.check.left_sides import declare_targets
from cellspec.language.check.loops import unroll
from cellspec.language.check.scope import Role
from cellspec.language.check.substitute import mapped, rebuilt, settled, with_numbers
from cellspec.language.read.loader import parse_spec
from cellspec.language.spec import Expr, Inlined, Name, parts, walk
from cellspec.language.unparse import label, source, written

# --- names replaced -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a + b*c", "-a", "f(a, b)", "[a, a]", "a.T", "R[a]", "a < b", "where(a > b, a, b)**2"])
def test_what_does_not_change_is_the_same_object(text: str) -> None:
    expr = expression(text)
    assert rebuilt(expr, parts(expr)) is expr
    assert mapped(expr, lambda _: None) is expr


@pytest.mark.parametrize("text", ["a + b*c", "-a", "f(a, b)", "[a, a]", "a.T", "R[a]", "a < b", "where(a > b, a, b)**2"])
def test_names_are_replaced_wherever_they_stand(text: str) -> None:
    def change(part: Expr) -> Expr | None:
        return Name("q", part.at) if isinstance(part, Name) and part.id == "a" else None

    assert written(mapped(expression(text), change)) == text.replace("a", "q")


def test_what_holds_no_change_keeps_its_identity_within_what_does() -> None:
    expr = expression("f(b, c) + a")
    made = with_numbers(expr, {"a": 2})
    assert parts(made)[0] is parts(expr)[0] and written(made) == "f(b, c) + 2"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("h[t - n]", "h[t-2]"),
        ("h[t - n + 2]", "h[t]"),
        ("R[n - 1]", "R[1]"),
        ("R[n - 3]", "R[-1]"),
        ("R[0.5]", "R[0.5]"),
        ("where(n > 1, a, b)", "a"),
        ("where(n > 1, where(n > 2, a, b), c)", "b"),
        ("where(a > 1, n, b)", "where(a > 1, n, b)"),
        ("(2*3 - 7)*a", "-1*a"),
        ("n*a", "n*a"),
    ],
)
def test_indices_and_branches_are_settled(text: str, result: str) -> None:
    assert written(settled(expression(text), {"n": 2})) == result


# --- loops ------------------------------------------------------------------------------------------------------------


def unrolled(text: str) -> tuple[list[str], list[str]]:
    """The single equations of a block, and what is said of it."""
    names = scope()
    found = unroll(equations(text), names)
    return [copy.text for copy, _ in found.singles], said(names)


def test_every_turn_has_equations_of_its_own() -> None:
    text = "for k in range(0, n):\n  s[k] = R[k] @ h[t-1] + k*b\na = s[n - 1]"
    assert unrolled(text) == (["s[0] = R[0] @ h[t-1] + 0*b", "s[1] = R[1] @ h[t-1] + 1*b", "a = s[n - 1]"], [])


def test_loops_in_loops() -> None:
    text = "for k in range(0, 2):\n  for l in range(k, 2):\n    s[k + 2*l] = h[t-1]**(k + l)"
    assert unrolled(text)[0] == ["s[0] = h[t-1]**0", "s[2] = h[t-1]**1", "s[3] = h[t-1]**2"]


def test_a_loop_may_turn_not_once() -> None:
    assert unrolled("for k in range(2, n):\n  s[k] = b") == ([], [])


def test_equations_of_one_turn_stand_together() -> None:
    text = "for k in range(0, 2):\n  s[k] = b\n  r[k] = s[k]"
    assert unrolled(text)[0] == ["s[0] = b", "r[0] = s[0]", "s[1] = b", "r[1] = s[1]"]


def test_an_heir_replaces_single_members() -> None:
    family = equations("for k in range(0, 3):\n  s[k] = b", "parent.yaml")
    names = scope()
    found = unroll((*family, *equations("s[1] = h[t-1]", "child.yaml")), names)
    assert [copy.text for copy, _ in found.singles] == ["s[0] = b", "s[1] = h[t-1]", "s[2] = b"]
    assert found.replaced == (), "the loop of the parent is still there for others"
    one = unroll((*equations("s[1] = b", "parent.yaml"), *equations("s[1] = h[t-1]", "child.yaml")), scope())
    assert [label(equation) for equation in one.replaced] == ["s[1]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "for k in range(0, eps):\n  s[k] = b",
            "the bounds of a loop are whole numbers, made of hyperparameters and constants",
        ),
        ("for k in range(0, H):\n  s[k] = b", "the bounds of a loop are whole numbers, made of hyperparameters and constants"),
        ("s[-1] = b", "there can be no 's[-1]': the members of a family are counted from 0 to 1000000 at most"),
        ("s[eps] = b", "there can be no 's[0.5]': the members of a family are counted from 0"),
        ("s[H] = b", "the index of 's[H]' is no constant: it is made of numbers, loop variables and hyperparameters"),
        ("for k in range(0, 20000):\n  s[k] = b", "there are more than 1000 equations, with the loops unrolled"),
        (
            "for k in range(0, 20000):\n  for l in range(1, 1):\n    s[k] = b",
            "the loops take more than 10000 turns in all",
        ),
    ],
)
def test_what_cannot_be_unrolled(text: str, message: str) -> None:
    _, messages = unrolled(text)
    assert len(messages) == 1 and messages[0].startswith(message)


def test_nothing_is_concluded_from_what_is_lost() -> None:
    names = scope()
    unroll(equations("s[H] = b"), names)
    assert names.gaps.may_hold("s", "equations")


# --- functions --------------------------------------------------------------------------------------------------------


def inlined(equation: str, **functions: str) -> tuple[str, list[str]]:
    """The right side of an equation with these functions inlined, and what is said; ``mix_a_b`` stands for ``mix(a, b)``."""
    heads = {name: f"{name.split('_')[0]}({', '.join(name.split('_')[1:])})" for name in functions}
    lines = "".join(f'  "{heads[name]}": {body}\n' for name, body in functions.items())
    text = f"name: cell\ninputs: {{x: H}}\nstates: {{h: H}}\nparams: {{b: H}}\nfunctions:\n{lines}equations: |\n  {equation}\n"
    spec = parse_spec(text)
    names = scope()
    names.entries.pop("mix")
    for macro in spec.functions:
        entry = names.declare(macro.name, Role.FUNCTION, macro.at)
        assert entry is not None
        entry.used = True
    (found,) = inline(spec.equations, spec, names)
    return written(bare_deep(found.value)), said(names)


def bare_deep(expr: Expr) -> Expr:
    """``expr`` with the bodies of calls in their place."""
    while isinstance(expr, Inlined):
        expr = expr.body
    return rebuilt(expr, [bare_deep(part) for part in parts(expr)])


def test_a_call_becomes_the_body() -> None:
    assert inlined("h[t] = mix(x[t], 2)", mix_a_b="a*b + a") == ("x[t]*2 + x[t]", [])


def test_a_function_may_call_another() -> None:
    assert inlined("h[t] = f(x[t])", f_a="g(a, a)", g_a_b="a + b")[0] == "x[t] + x[t]"


def test_arguments_are_hygienic() -> None:
    """``b`` in the body is the parameter, ``b`` in the call of a function with an argument ``b`` is what is given."""
    assert inlined("h[t] = f(x[t], b)", f_b_a="a*b")[0] == "b*x[t]"
    assert inlined("h[t] = f(x[t])", f_a="a + b")[0] == "x[t] + b"
    assert inlined("h[t] = f(x[t])", f_b="g(b)", g_c="c + b")[0] == "x[t] + b", "g means the parameter, whoever calls it"
    assert inlined("h[t] = f(x[t], h[t-1])", f_a_c="g(c, a)", g_a_c="a - c")[0] == "h[t-1] - x[t]"


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"f_a": "f(a)"}, "functions call one another in a circle: f -> f"),
        ({"f_a": "g(a)", "g_a": "f(a)"}, "functions call one another in a circle: f -> g -> f"),
        ({"f_a_c": "a*c"}, "'f' takes 2 arguments, not 1"),
    ],
)
def test_calls_that_cannot_be_inlined(functions: dict[str, str], message: str) -> None:
    assert inlined("h[t] = f(x[t])", **functions) == ("f(x[t])", [message])


def test_functions_that_double_are_bounded() -> None:
    doubling = {f"f{k}_a": f"f{k + 1}(a) + f{k + 1}(a)" for k in range(20)} | {"f20_a": "a + a"}
    spec = "h[t] = f0(x[t])"
    with pytest.raises(ValueError, match="not enough values"):  # inline gives up: there is no equation
        inlined(spec, **doubling)


def test_places_are_those_of_the_call() -> None:
    """But for what holds no argument: a mistake in it is told once, in the function."""
    text = "name: cell\ninputs: {x: H}\nstates: {h: H}\nfunctions: {'f(a)': a + tanh(2)}\nequations: |\n  h[t] = f(x[t])\n"
    spec = parse_spec(text)
    names = scope()
    names.entries.pop("mix")
    entry = names.declare("f", Role.FUNCTION, spec.functions[0].at)
    assert entry is not None
    entry.used = True
    (found,) = inline(spec.equations, spec, names)
    places = {source(part): part.at.line for part in walk(found.value)}
    assert places["x[t]"] == 6 and places["tanh(2)"] == 4


def test_left_sides_that_are_wrong_are_given_back() -> None:
    names = scope()
    strays = declare_targets(equations("h = b\nq[t] = b\nW = b\ntanh = b\ngood = b\nh[t] = b\nc[t] = b"), names)
    assert [label(equation) for equation in strays] == ["h", "q[t]", "W", "tanh"]
    assert said(names) == [
        "'h' is a state: write h[t] = …",
        "'q[t]' is assigned, but 'q' is not a state: write q = … or declare it under states",
        "'W' is a param and cannot be assigned",
        "'tanh' is a name of the language and cannot be assigned",
    ]
    assert "good" in names.entries
