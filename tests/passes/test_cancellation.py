"""Differences that cancel: ``1 - f(z)`` becomes a function of its own where it must be accurate, program text in and out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from program_support import operations, program, run, told

from cellspec.ir import Program
from cellspec.passes.accuracy import without_cancellation


def step(text: str) -> Program:
    return program(f"sequence z: [H], x[t]: [H]\n{text}\n give out y")


REWRITTEN = {
    "a logarithm": (
        "f: [H] = sigmoid(z)\n y: [H] = log(1 - f)",
        "f.argument: [H] = -z\n f.complement: [H] = sigmoid(f.argument)\n y: [H] = log(f.complement)",
    ),
    "a root, of a negative": (
        "f: [H] = exp(z)\n y: [H] = sqrt(1 - f)",
        "f.complement: [H] = expm1(z)\n y: [H] = sqrt(-f.complement)",
    ),
    "a divisor, the other way round": (
        "f: [H] = exp(z)\n d: [H] = f - 1\n y: [H] = x[t]/d",
        "f.complement: [H] = expm1(z)\n y: [H] = x[t]/f.complement",
    ),
    "both, where both are read": (
        "f: [H] = erf(z)\n y: [H] = f/(1 - f)",
        "f: [H] = erf(z)\n f.complement: [H] = erfc(z)\n y: [H] = f/f.complement",
    ),
}
"""Who wants the difference accurate, a step, and what becomes of it."""


@pytest.mark.parametrize("who", REWRITTEN)
def test_what_is_rewritten(who: str) -> None:
    text, expected = REWRITTEN[who]
    assert operations(without_cancellation(step(text), ())) == told(expected)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("an error beside 1 is small enough for a mixture", "f: [H] = sigmoid(z)\n y: [H] = f*x[t] + (1 - f)*z"),
        ("it is a term of a larger sum", "f: [H] = exp(z)\n d: [H] = x[t] + 1 - f\n y: [H] = 1/d"),
        ("the function has no complement", "f: [H] = sin(z)\n y: [H] = log(1 - f)"),
        ("there is no function", "f: [H] = z*x[t]\n y: [H] = log(1 - f)"),
    ],
)
def test_what_stays(why: str, text: str) -> None:
    assert operations(without_cancellation(step(text), ())) == told(text), why


def test_what_others_ask_of_a_result() -> None:
    """A derived parameter is as delicate as the step that reads it."""
    text = "f: [H] = sigmoid(z)\n y: [H] = 1 - f"
    assert operations(without_cancellation(step(text), ())) == told(text)
    found = without_cancellation(step(text), (), seeds={"y"})
    assert operations(found) == told("f.argument: [H] = -z\n y: [H] = sigmoid(f.argument)")


def test_the_value_of_an_equation_stays_for_a_trace() -> None:
    text, _ = REWRITTEN["a logarithm"]
    assert "f" not in without_cancellation(step(text), ()).values
    assert "f" in without_cancellation(step(text), {"f"}).values


@pytest.mark.parametrize(
    ("who", "z", "expected"),
    [("a logarithm", 50.0, -50.0), ("a root, of a negative", -1e-20, 1e-10), ("a divisor, the other way round", 1e-20, 1e20)],
)
def test_digits_that_the_difference_had_lost(who: str, z: float, expected: float) -> None:
    text, _ = REWRITTEN[who]
    given = {"z": np.full(3, z), "x[t]": np.ones(3)}
    with np.errstate(divide="ignore"):
        lost = run(step(text), given)["y"]
    assert not math.isclose(lost[0], expected, rel_tol=0.1)
    np.testing.assert_allclose(run(without_cancellation(step(text), ()), given)["y"], expected, rtol=1e-12)
