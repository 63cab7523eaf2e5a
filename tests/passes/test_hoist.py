"""Hoisting: parts of expressions that are known earlier become values, program text in, program text out."""

from __future__ import annotations

import pytest
from program_support import assert_same_numbers, program, told

from cellspec.passes.hoist import Reach, hoist, reaches
from cellspec.passes.policy import SchedulePolicy

HEAD = """
    constant  a: [H], b: [H], W: [H, H]
    sequence  x[t]: [H], s[t]: [1]
    carried   h[t-1]: [H]
"""


def step(right: str, *before: str) -> str:
    """A step whose state becomes ``right``."""
    lines = "\n".join((*before, f"h[t]: [H] = {right}"))
    return f"{HEAD}{lines}\n carry h[t-1] <- h[t]\n give out h[t]"


def test_reaches() -> None:
    found = reaches(program(step("tanh(p)*h[t-1]", "k: [H] = a*b", "p: [H] = k*x[t]", "q: [H] = W @ h[t-1]")))
    assert {name: found[name] for name in ("a", "k", "x[t]", "p", "h[t-1]", "q", "h[t]")} == {
        "a": Reach.CONSTANT,
        "k": Reach.CONSTANT,
        "x[t]": Reach.SEQUENCE,
        "p": Reach.SEQUENCE,
        "h[t-1]": Reach.CARRIED,
        "q": Reach.CARRIED,
        "h[t]": Reach.CARRIED,
    }


def test_of_a_step_alone_nothing_but_constants_is_known_earlier() -> None:
    text = step("a*b*x[t]*h[t-1]")
    assert reaches(program(text), SchedulePolicy(single_step=True))["x[t]"] is Reach.CARRIED
    assert told(hoist(program(text), SchedulePolicy(single_step=True))) == told(
        step("h[t-1]*x[t]*`h[t]*`", "`h[t]*`: [H] = a*b")
    )


@pytest.mark.parametrize(
    ("right", "hoisted", "parts"),
    [
        # what is known for all steps, and of that, what is the same at all of them
        ("a + x[t] + h[t-1]", "h[t-1] + `h[t]+`", ["`h[t]+`: [H] = a + x[t]"]),
        ("a*x[t]*h[t-1]", "h[t-1]*`h[t]*`", ["`h[t]*`: [H] = a*x[t]"]),
        (
            "a*b*x[t]*h[t-1]",
            "h[t-1]*`h[t]*`",
            ["`h[t]**`: [H] = a*b", "`h[t]*`: [H] = x[t]*`h[t]**`"],
        ),
        # within functions and sums
        ("tanh(h[t-1] + a*x[t])", "tanh(h[t-1] + `h[t]*`)", ["`h[t]*`: [H] = a*x[t]"]),
        ("h[t-1]*(1 - x[t])", "h[t-1]*`h[t]+`", ["`h[t]+`: [H] = 1 - x[t]"]),
        ("h[t-1]*x[t]*(1 - x[t])", "h[t-1]*`h[t]*`", ["`h[t]*`: [H] = x[t]*(1 - x[t])"]),
        # terms with a common factor that is known later
        ("h[t-1]*a + h[t-1]*x[t]", "h[t-1]*`h[t]+`", ["`h[t]+`: [H] = a + x[t]"]),
        # what is simple stays: a value, its negative, a number
        ("h[t-1] + x[t]", "h[t-1] + x[t]", []),
        ("h[t-1] - x[t]", "h[t-1] - x[t]", []),
        ("2*h[t-1] + 1", "2*h[t-1] + 1", []),
        # equal parts are one
        ("tanh(a*x[t]*h[t-1]) + a*x[t]", "tanh(h[t-1]*`h[t]*`) + `h[t]*`", ["`h[t]*`: [H] = a*x[t]"]),
        # a part has the shape of what stands in it
        ("h[t-1]*s[t]**2", "h[t-1]*`h[t]*`", ["`h[t]*`: [1] = s[t]**2"]),
    ],
)
def test_parts(right: str, hoisted: str, parts: list[str]) -> None:
    found = hoist(program(step(right)))
    assert told(found) == told(step(hoisted, *parts))
    assert_same_numbers(program(step(right)), found)


def test_what_is_no_expression_stays_where_it_is() -> None:
    text = step("h[t-1] + p", "p: [H] = W @ x[t]")
    assert told(hoist(program(text))) == told(text)


def test_terms_that_cancel() -> None:
    """Collecting what ``h[t-1]`` is multiplied by shows that it is nothing."""
    text = step("h[t-1]*(1 + x[t]) - h[t-1]*x[t] + tanh(x[t])")
    assert_same_numbers(program(text), hoist(program(text)))
