"""Helpers of the tests of passes: programs from text, their text, and what they compute, on NumPy arrays."""

from __future__ import annotations

from cellspec import ir
from cellspec.ir import Program
from cellspec.ir.parse import parse_program
from cellspec.ir.text import program_text


def program(text: str) -> Program:
    """The program that ``text`` states, which must be well formed."""
    return ir.typecheck(parse_program(text))


def told(stated: Program | str) -> str:
    """A program, or the text of one, as text with any number of spaces as one: for comparison in a test."""
    text = stated if isinstance(stated, str) else program_text(stated)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
