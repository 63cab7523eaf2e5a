"""Stages, kind of recurrence and number of parameters."""

from __future__ import annotations

import pytest
import sympy

from cellspec.cell import Cell
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import parse_spec
from cellspec.model.recurrence import parameter_count, recurrence, stages

H, IN = sympy.symbols("H I")


def cell(equations: str, params: str = "W: [H, I]", states: str = "h: H", outputs: str = "h") -> Cell:
    """A cell of a few equations."""
    block = "\n".join(f"  {line.strip()}" for line in equations.strip().splitlines())
    head = f"name: cell\ndims: [I, H]\ninputs: {{x: I}}\nstates: {{{states}}}\noutputs: [{outputs}]\nparams: {{{params}}}\n"
    return elaborate(parse_spec(f"{head}equations: |\n{block}\n"))


@pytest.mark.parametrize(
    ("equations", "params", "expected"),
    [
        ("h[t] = W @ x[t]", "W: [H, I]", 0),
        ("h[t] = W @ x[t] + U @ h[t-1]", "W: [H, I], U: [H, H]", 1),
        ("r = U @ h[t-1]\nh[t] = W @ x[t] + r*(U @ h[t-1])", "W: [H, I], U: [H, H]", 1),
        ("r = U @ h[t-1]\nh[t] = W @ x[t] + U @ (r*h[t-1])", "W: [H, I], U: [H, H]", 2),
        ("a = W @ x[t] + U @ h[t-1]\nc = U @ a\nd = U @ c + U @ h[t-1]\nh[t] = d*a", "W: [H, I], U: [H, H]", 3),
        # A product before the state is reached, but not of it; and one that reaches the output alone.
        ("a = U @ (W @ x[t])\nh[t] = a + h[t-1]", "W: [H, I], U: [H, H]", 0),
        ("h[t] = W @ x[t] + U @ h[t-1]\ny = U @ (U @ h[t])", "W: [H, I], U: [H, H]", 1),
        # Products of parameters are made once a sequence.
        ("A = U @ U\nh[t] = W @ x[t] + (A @ U) @ h[t-1]", "W: [H, I], U: [H, H]", 1),
        ("h[t] = W @ x[t] + U.T @ [h[t-1]]", "W: [H, I], U: [H, H]", 1),
        ("h[t] = W @ x[t] + where(U @ h[t-1] > 0, 1, 2) + stop_gradient(U @ h[t-1])", "W: [H, I], U: [H, H]", 1),
    ],
)
def test_stages(equations: str, params: str, expected: int) -> None:
    made = cell(equations, params, outputs="h, y" if "y =" in equations else "h")
    assert stages(made) == expected
    assert (recurrence(made) == "dense") == (expected > 0)


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("0.5", "linear"),
        ("h[t-1]*f + f/2", "linear"),
        ("-(h[t-1] - f)/(1 + f)", "linear"),
        ("h[t-1]**1", "linear"),
        ("identity(2*h[t-1] + stop_gradient(h[t-1]))", "linear"),
        ("where(f > 0, h[t-1], 2*h[t-1])", "linear"),
        ("f*c[t-1] + h[t-1]", "linear"),
        ("c[t]*f", "linear"),
        ("h[t-1]*h[t-1]", "elementwise"),
        ("h[t-1]*c[t]", "elementwise"),
        ("h[t-1]**2", "elementwise"),
        ("f/h[t-1]", "elementwise"),
        ("tanh(h[t-1])", "elementwise"),
        ("abs(h[t-1]) + max(f, h[t-1])", "elementwise"),
        ("where(h[t-1] > f, f, 2)", "elementwise"),
        ("h[t-1] + s[t-1]", "elementwise"),
        ("h[t-1] + roll(c[t-1], 1)", "elementwise"),
        ("s[t-1]", "elementwise"),
    ],
)
def test_recurrence(right: str, expected: str) -> None:
    equations = f"f = sigmoid(W @ x[t])\nc[t] = 0.5*c[t-1]\ns[t] = s[t-1] + 1\nh[t] = {right} + 0*f"
    assert recurrence(cell(equations, states="h: H, c: H, s: 1", outputs="h, c, s")) == expected


def test_what_reaches_no_state_does_not_matter() -> None:
    made = cell("h[t] = 0.5*h[t-1] + W @ x[t]\ny = tanh(U @ h[t])**2", "W: [H, I], U: [H, H]", outputs="y")
    assert (stages(made), recurrence(made)) == (0, "linear")


def test_only_trainable_parameters_count() -> None:
    made = cell(
        "h[t] = W @ x[t] + k + b*(V @ [h[t-1], x[t]])",
        "W: [H, I], V: {shape: [H, H + I], trainable: false}, k: 1, b: 3*H - 2*H",
    )
    assert parameter_count(made) == H * IN + H + 1


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        # What was some steps ago counts as what was before the step; inputs are free, however old.
        ("f*h[t-3] + 0.5*h[t-2]", (0, "linear")),
        ("h[t-2]*h[t-3]", (0, "elementwise")),
        ("U @ h[t-2]", (1, "dense")),
        ("tanh(W @ x[t-2])*h[t-1] + W @ x[t-1]", (0, "linear")),
        # A function along the units couples them, as the product with a row of ones does.
        ("h[t-1]*sum(f)", (0, "linear")),
        ("h[t-1] + sum(h[t-1])", (0, "dense")),
        ("softmax(h[t-1])", (0, "dense")),
        ("f*(h[t-1] - mean(h[t-1]))/sqrt(var(h[t-1]) + 1)", (0, "dense")),
        ("tanh(cumsum(f*h[t-2]))", (0, "dense")),
        ("dot(h[t-1], f)*stop_gradient(f)", (0, "dense")),
        ("f*t_now + h[t-1]*t_now", (0, "linear")),
        # A matrix state: written in place it is linear, read with a vector it is a product.
        ("h[t-1] + f + 0*(C[t] @ f)", (1, "dense")),
    ],
)
def test_what_couples_the_units(right: str, expected: tuple[int, str]) -> None:
    equations = f"f = sigmoid(W @ x[t])\nC[t] = sum(f)*C[t-1] + outer(f, f)\nh[t] = {right} + 0*f"
    made = cell(equations, "W: [H, I], U: [H, H]" if "U" in right else "W: [H, I]", states="h: H, C: [H, H]", outputs="h, C")
    assert (stages(made), recurrence(made)) == expected


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("0.5*C[t-1] + outer(f, f)", "linear"),
        ("outer(f, f)*C[t-1] + C[t-2]*mean(f)", "linear"),
        ("C[t-1] + outer(h[t-1], f)", "elementwise"),
        ("C[t-1] - outer(C[t-1] @ f, f)", "dense"),
        ("C[t-1]/(1 + norm(C[t-1]))", "dense"),
        ("roll(C[t-1], 1)", "elementwise"),
        ("C[t-1]*(U @ U)", "linear"),
        ("C[t-1]*inv(U)", "linear"),
    ],
)
def test_matrix_states(right: str, expected: str) -> None:
    equations = f"f = W @ x[t]\nC[t] = {right}\ny = C[t] @ f\nh[t] = h[t-1] + f"
    made = cell(equations, "W: [H, I], U: [H, H]" if "U" in right else "W: [H, I]", states="C: [H, H], h: H", outputs="y, h")
    assert recurrence(made) == expected
    assert stages(made) == ("@ f" in right)
