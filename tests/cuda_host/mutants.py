"""Kernel texts with one thing wrong, for tests of tests: each must be caught, by the numbers or by a sanitizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .scan import parenthesis

BARRIER = re.compile(r"\b(?:__syncthreads|__syncwarp)\s*\([^()]*\)|\b[\w:]+(?:\(\))?\s*\.\s*sync\s*\(\s*\)")
GUARD = re.compile(r"\bif\s*\(")
WRONG = (
    ("one too many", re.compile(r"(?<=[\w)\]]) < (?=[\w(])"), " <= "),
    ("one too few", re.compile(r"(?<=[\w)\]]) >= (?=[\w(])"), " > "),
    ("the neighbour", re.compile(r"(?<=[\w)\]]) - 1(?=[\s)\],;*])"), ""),
    ("the neighbour", re.compile(r"(?<=[\w)\]]) \+ 1(?=[\s)\],;*])"), ""),
    ("one too many", re.compile(r"(?<=[\w)\]])<(?=\w+[;)\s])"), "<="),
    ("the neighbour", re.compile(r"(?<=[\w)\]])-1(?=[\s)\],;*])"), ""),
    ("the neighbour", re.compile(r"(?<=[\w)\]])\+1(?=[\s)\],;*])"), ""),
)


@dataclass(frozen=True)
class Mutant:
    """A text with one change."""

    what: str
    line: int
    was: str
    now: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}, {self.now.strip()!r} for {self.was.strip()!r}"


def changed(text: str, what: str, start: int, end: int, now: str) -> Mutant:
    """The text with one piece exchanged."""
    line = text.count("\n", 0, start) + 1
    return Mutant(what, line, text[start:end], now, text[:start] + now + text[end:])


def code_alone(text: str) -> str:
    """The text with comments, strings and directives blanked, every place where it was; template arguments too."""
    blank = re.compile(
        r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|^[ \t]*#(?:[^\\\n]|\\.)*|\b(?:template|\w+_cast)\s*<[^;(){}]*?>',
        re.DOTALL | re.MULTILINE,
    )
    return blank.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def barrier_mutants(text: str) -> Iterator[Mutant]:
    """The text without one of its barriers, for each of them."""
    for match in BARRIER.finditer(code_alone(text)):
        yield changed(text, "no barrier", match.start(), match.end(), "(void)0")


def index_mutants(text: str) -> Iterator[Mutant]:
    """The text with a comparison or an index off by one, or without a guard, for each place where there is one.

    Some of these may mean the same as the text did (`i <= n` where i never is n): a test that uses them names those.
    """
    code = code_alone(text)
    seen = set()
    for what, pattern, now in WRONG:
        for match in pattern.finditer(code):
            if match.start() not in seen:
                seen.add(match.start())
                yield changed(text, what, match.start(), match.end(), now)
    for match in GUARD.finditer(code):
        inside, end = parenthesis(code, match.end())
        if not re.search(r"<|>", inside):
            continue
        leaves = re.match(r"\s*(?:return|continue|break)\b", code[end:])
        yield changed(text, "no guard", match.end(), end - 1, "false" if leaves else "true")
