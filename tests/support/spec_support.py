"""Helpers of the tests of the language's parts: expressions and equations from text, scopes of declared names."""

from __future__ import annotations

from cellspec.errors import Location, Reporter
from cellspec.language.check.scope import Scope, declare_all
from cellspec.language.read.equation_block import parse_equations
from cellspec.language.read.expressions import parse_expression
from cellspec.language.read.loader import parse_spec
from cellspec.language.spec import Assignment, Expr, Gaps

DECLARED = """
name: cell
inputs: {x: I}
states: {h: H, c: [H, K]}
params: {W: [H, I], U: [H, H], b: H, R: {shape: [H, H], repeat: n}, E: [K, H, I]}
hyper: {n: 2, eps: 0.5}
activations: {sigma: sigmoid}
functions: {"mix(a, b)": a*b}
equations: |
  h[t] = 0
"""
"""What the scopes of tests declare."""


def expression(text: str) -> Expr:
    """The tree of an expression."""
    report = Reporter()
    tree = parse_expression(text, Location("f.yaml", 1, 1, text), report)
    assert tree is not None, [diagnostic.message for diagnostic in report.diagnostics]
    return tree


def equations(text: str, file: str = "f.yaml") -> tuple[Assignment, ...]:
    """The equations of a block, one a line, loops among them."""
    lines = text.strip("\n").split("\n")
    report = Reporter()
    found = parse_equations("\n".join(lines), [Location(file, k, 1, line) for k, line in enumerate(lines, 1)], report)
    assert not report.diagnostics, [diagnostic.message for diagnostic in report.diagnostics]
    return found


def scope(gaps: Gaps | None = None) -> Scope:
    """The scope in which the names of :data:`DECLARED` stand."""
    made = Scope(Reporter(), gaps or Gaps())
    declare_all(parse_spec(DECLARED), made)
    assert not made.reporter.diagnostics
    return made


def said(names: Scope | Reporter) -> list[str]:
    """The messages of a reporter, in the order in which they came."""
    reporter = names.reporter if isinstance(names, Scope) else names
    return [diagnostic.message for diagnostic in reporter.diagnostics]
