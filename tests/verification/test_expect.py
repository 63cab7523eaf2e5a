"""The claims of ``expect``, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellspec.errors import SpecError
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import load_spec, parse_spec
from cellspec.verification.expect import check_expect

ROOT = Path(__file__).resolve().parents[2]
SPECS = [*sorted((ROOT / "specs").glob("*.yaml")), *sorted((ROOT / "tests" / "valid").glob("*.yaml"))]
HEAD = """\
name: cell
hyper: {k: 4, eps: 0.1}
inputs: {x: I}
states: {h: H, c: H}
params: {W: [H, I], U: [H, H], b: {shape: H, trainable: false}}
equations: |
  h[t] = tanh(W @ x[t] + U @ h[t-1] + b + eps + k)
  c[t] = c[t-1] + h[t]
  d = sigmoid(c[t]*b)
outputs: [h, d]
"""


def mistakes(expect: str, head: str = HEAD) -> list[str]:
    """``line:column: message`` for each claim that does not hold."""
    made = elaborate(parse_spec(f"{head}expect: {expect}\n"))
    try:
        check_expect(made)
    except SpecError as error:
        return [f"{one.location.line}:{one.location.column}: {one.message}" for one in error.diagnostics]
    return []


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_keeps_what_it_claims(path: Path) -> None:
    made = elaborate(load_spec(path))
    assert made.expect.params is not None and made.expect.stages is not None
    check_expect(made)


@pytest.mark.parametrize(
    "expect",
    [
        "{}",
        "{params: I*H + H**2}",
        "{params: H*(H + I), stages: 1, recurrence: dense}",
        "{params: (k*H*I + 4*H*H)/4}",
        "{params: (H + I)**2/2 + (H*H - I*I)/2}",
        "{bound: {h: 1, d: 1}}",
        "{bound: {c: 201}}",
    ],
)
def test_right_claims(expect: str) -> None:
    assert mistakes(expect) == []


@pytest.mark.parametrize(
    ("expect", "expected"),
    [
        (
            "{params: 4*(H*I + H*H) + H}",
            ["11:18: expected 4*(H*I + H*H) + H trainable parameters, but the cell has H**2 + H*I"],
        ),
        ("{stages: 2}", ["11:18: expected 2 stages, but the cell has 1"]),
        ("{stages: 0}", ["11:18: expected 0 stages, but the cell has 1"]),
        ("{recurrence: linear}", ["11:22: expected recurrence 'linear', but it is 'dense'"]),
        (
            "{params: H*I, stages: 3, recurrence: elementwise}",
            [
                "11:18: expected H*I trainable parameters, but the cell has H**2 + H*I",
                "11:31: expected 3 stages, but the cell has 1",
                "11:46: expected recurrence 'elementwise', but it is 'dense'",
            ],
        ),
        ("{params: H*K + eps}", ["11:20: unknown dim 'K'", "11:24: unknown dim 'eps'"]),
        ("{params: HH*I}", ["11:18: unknown dim 'HH'; did you mean 'H'?"]),
        ("{params: H/I}", ["11:18: 'H/I' is no polynomial in the dims"]),
        ("{params: H/0}", ["11:18: 'H/0' is no polynomial in the dims"]),
        ("{params: H**I}", ["11:18: 'H**I' is no polynomial in the dims"]),
        (
            "{params: tanh(H)}",
            ["11:18: 'tanh(H)' cannot stand here: a dim expression is made of dims, whole numbers, +, -, * and /"],
        ),
        ("{bound: {x: 1}}", ["11:18: bound on 'x', which is neither a state nor an intermediate"]),
        ("{bound: {hh: 1}}", ["11:18: bound on 'hh', which is neither a state nor an intermediate; did you mean 'h'?"]),
    ],
)
def test_wrong_claims(expect: str, expected: list[str]) -> None:
    assert mistakes(expect) == expected


def test_a_bound_that_is_passed_names_the_step() -> None:
    (message,) = mistakes("{bound: {h: 1, c: 10.5}}")
    assert "expected |c| <= 10.5, but it is 1" in message and "at step 1" in message


def test_a_bound_is_missed_by_what_is_not_a_number() -> None:
    head = "name: cell\ninputs: {x: H}\nstates: {h: H}\nequations: |\n  h[t] = sqrt(x[t] - 100)*0 + h[t-1]\n"
    (message,) = mistakes("{bound: {h: 1}}", head)
    assert "but it is nan at step 0" in message


def test_a_constant_that_is_not_trained_keeps_its_value() -> None:
    head = (
        "name: cell\ninputs: {x: H}\nstates: {h: H}\nparams: {a: {shape: H, init: 0.5, trainable: false}}\n"
        "equations: |\n  h[t] = a*h[t-1] + a*tanh(x[t])\n"
    )
    assert mistakes("{bound: {h: 1}}", head) == []
