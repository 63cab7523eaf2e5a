"""Nodes as the language writes them: text that means the node again."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import SPECS, cell_from, cell_of, spec_id

from cellspec.render.as_spec import equation_text
from cellspec.render.latex import latex

HEAD = """
name: small
inputs: {x: H}
states: {h: H}
params: {W: [H, H], U: [H, H], b: H, R: {shape: [H, H], repeat: 2}}
equations: |
  all = 0*(W @ U @ b + R[0] @ b + R[1] @ x[t] + h[t-1])
  h[t] = all + """


def again(right: str) -> str:
    """The right side of an equation, read and written."""
    cell = cell_from(f"{HEAD}{right}\n")
    equation = next(e for e in cell.assignments if e.target.label == "h[t]")
    return equation_text(cell, equation.target, equation.value).removeprefix("h[t] = all + ")


@pytest.mark.parametrize(
    "text",
    [
        "W @ x[t]",
        "W @ (U @ b)",
        "(W @ U) @ b",
        "W.T @ x[t]",
        "(W + U).T @ x[t]",
        "b*(x[t] + h[t-1])",
        "b*(W @ x[t])",
        "(W @ x[t])*b",
        "b*x[t]/(1 + abs(b))",
        "b/(x[t]/h[t-1])",
        "b*(x[t] - (b - h[t-1]))",
        "(-b)**2 + 2**3*b",
        "(x[t] + b)**0.5",
        "where(x[t] < b, tanh(b), max(b, 0))",
        "outer(b, x[t]) @ b",
        "inv(W) @ b",
        "eye(H) @ b",
        "roll(b, -1)",
        "stop_gradient(x[t])",
        "[b] + sum([b, x[t]])",
        "R[1] @ b",
        "h[t-3] + x[t-2]",
        "h[t-9]",
        "t_now*b",
        "0.001*b + 2.5e8*x[t]",
        "dot(b, x[t])*softmax(b)",
    ],
)
def test_what_is_written_means_the_same(text: str) -> None:
    written = again(text)
    assert again(written) == written
    first, second = (cell_from(f"{HEAD}{right}\n").assignments for right in (text, written))
    assert {e.target: e.value for e in first} == {e.target: e.value for e in second}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("(b*x[t])", "b*x[t]"),
        ("(W @ x[t])*b", "(W @ x[t])*b"),
        ("(W @ (x[t]))", "W @ x[t]"),
        ("b*(x[t])**2", "b*x[t]**2"),
        ("1.0*b", "1*b"),
        ("((b)) + -x[t]", "b - x[t]"),
    ],
)
def test_parentheses_where_they_are_needed_or_help(text: str, written: str) -> None:
    assert again(text) == written


@pytest.mark.parametrize("spec", SPECS[::6], ids=spec_id)
def test_every_equation_of_a_cell(spec: Path) -> None:
    """What the compiler writes of an equation it would read as the same; LaTeX has a line for each."""
    cell = cell_of(spec)
    for equation in cell.assignments:
        text = equation_text(cell, equation.target, equation.value)
        left, _, right = text.partition(" = ")
        assert left == equation.target.label and right and "Ref(" not in text
    assert latex(cell).count("&=") <= len(cell.assignments)
