"""What ``show`` and ``verify`` print: programs that can be read back, tables of errors, verdicts as JSON takes them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from textwrap import dedent

import pytest
from support import cell_from

from cellspec.errors import CellspecError, CompilerError
from cellspec.ir import Program
from cellspec.ir.parse import parse_program
from cellspec.pipeline import compile_cell
from cellspec.tools.show import error_table, text_of, verdict
from cellspec.verification.comparison import Report, Row

CELL = """
name: small
title: A small cell
inputs: {x: I}
states: {h: H}
params: {W: [H, I], M: [H, H]}
equations: |
  A = M - M.T
  h[t] = tanh(W @ x[t] + A @ h[t-1])
"""


def section(text: str, title: str) -> str:
    """The lines below a title, up to the next one."""
    lines = text.split("\n")
    first = lines.index(title) + 1
    last = next((k for k in range(first, len(lines)) if not lines[k].startswith(" ")), len(lines))
    return dedent("\n".join(lines[first:last]))


def silent(step: Program) -> Program:
    return replace(step, values={name: replace(value, origin="") for name, value in step.values.items()})


def test_programs_are_printed_so_that_they_can_be_read_back() -> None:
    cell = cell_from(CELL)
    compiled = compile_cell(cell)
    shown = text_of(cell, "ir")
    assert parse_program(section(shown, "one step")) == silent(compiled.equations)
    assert parse_program(section(shown, "derived parameters, once a sequence")) == silent(compiled.prologue)
    shown = text_of(cell, "adjoint")
    assert parse_program(section(shown, "one step, backwards")) == silent(compiled.backward)
    title = "through the derived parameters, once a sequence"
    assert parse_program(section(shown, title)) == silent(compiled.epilogue.program)


def test_a_stage_that_there_is_not() -> None:
    with pytest.raises(CellspecError, match="unknown stage 'soup'") as error:
        text_of(cell_from(CELL), "soup")
    assert not isinstance(error.value, CompilerError)


REPORT = Report(
    "small",
    3,
    (
        Row("y", "T=3", "float64", 1e-13, 1e-10),
        Row("y", "T=5", "float64", 2e-13, 1e-10),
        Row("y", "T=3", "float32", 1e-2, 1e-4),
        Row("d W", "T=3", "float64", math.nan, 1e-10),
    ),
    ("h is missing",),
)


def test_the_worst_errors_as_a_table() -> None:
    heads, rows = error_table(REPORT)
    assert heads == ("quantity", "float64: error of allowed", "float32: error of allowed")
    assert rows == [
        [("y", True), ("2.0e-13 of 1.0e-10", True), ("1.0e-02 of 1.0e-04 FAILED at T=3", False)],
        [("d W", True), ("nan of 1.0e-10 FAILED at T=3", False), ("", True)],
    ]


def test_a_verdict_is_json() -> None:
    """In which there is no number that is none."""
    found = json.loads(json.dumps(verdict(REPORT), allow_nan=False))
    assert (found["cell"], found["ok"], found["seed"], found["faults"]) == ("small", False, 3, ["h is missing"])
    assert [(row["quantity"], row["dtype"], row["error"], row["ok"]) for row in found["worst"]] == [
        ("y", "float64", 2e-13, True),
        ("y", "float32", 1e-2, False),
        ("d W", "float64", None, False),
    ]
