"""The last thing that happens to a module's text: no line of code, comment or docstring is too long.

Python is broken within its brackets, comments and docstrings between words. Other strings of several lines hold CUDA, which may
be broken at any space.
"""

from __future__ import annotations

import io
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

COLUMNS = 120
"""No line of a generated module is longer."""

_OPENING, _CLOSING = "([{", ")]}"
_STEP = "    "
_QUOTES = '"""'
_BREAKS = ("if", "else", "and", "or", "for", "+", "-")


def wrapped(text: str) -> str:
    """The Python module ``text`` with no line of code, comment or docstring past :data:`COLUMNS`."""
    lines = text.splitlines()
    if all(len(line) <= COLUMNS for line in lines):
        return text
    on_line: defaultdict[int, list[tokenize.TokenInfo]] = defaultdict(list)
    depth, inside = 0, set()  # brackets that are open; lines that begin inside one
    within: set[int] = set()  # lines that a string reaches into, or out of
    documents: set[int] = set()  # lines of docstrings
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        numbers = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            documents.update(numbers)
        elif len(numbers) == 1:
            on_line[token.start[0]].append(token)
        elif token.type == tokenize.STRING:
            within.update(numbers)
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
        if token.type == tokenize.OP:
            depth += (token.string in _OPENING) - (token.string in _CLOSING)
        elif token.type == tokenize.NL and depth:
            inside.add(token.start[0] + 1)
    result: list[str] = []
    rest = ""  # words that the docstring's line before has no room for
    for number, line in enumerate(lines, 1):
        if number in documents:
            rest = _continued(line, rest, result)
        elif len(line) <= COLUMNS:
            result.append(line)
        elif number in within:
            result.extend(_cuda(line))
        else:
            result.extend(_broken(line, on_line[number], number in inside))
    return "\n".join(result) + "\n"


def _cuda(line: str) -> list[str]:
    """One long line of CUDA as several."""
    indent = line[: len(line) - len(line.lstrip())]
    return _words(line.strip(), indent, f"{indent}// " if line.strip().startswith("//") else f"{indent}{_STEP}")


def _words(text: str, first: str, other: str) -> list[str]:
    """``text`` in lines that begin with ``first`` and ``other``."""
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


def _continued(line: str, rest: str, result: list[str]) -> str:
    """Add one line of a docstring behind ``rest`` of the line before, and return what the next line is to begin with."""
    indent = line[: len(line) - len(line.lstrip())] if line.strip() else ""
    text = line.strip()
    if rest and (not text or text == _QUOTES):
        result.append(f"{_indent_of(result)}{rest}")
        rest = ""
    whole = f"{indent}{f'{rest} {text}'.strip()}"
    if len(whole) <= COLUMNS:
        result.append(whole)
        return ""
    ends = len(text) > len(_QUOTES) and text.endswith(_QUOTES)
    parts = _words(whole.strip().removesuffix(_QUOTES) if ends else whole.strip(), indent, indent)
    if ends:
        result.extend([*parts, f"{indent}{_QUOTES}"])
        return ""
    result.extend(parts[:-1])
    return parts[-1].strip()


def _indent_of(lines: Sequence[str]) -> str:
    return lines[-1][: len(lines[-1]) - len(lines[-1].lstrip())]


def _broken(line: str, tokens: Sequence[tokenize.TokenInfo], inside: bool) -> Iterator[str]:
    """One long line as several; a comment behind code comes before it. ``inside``: the line begins within brackets."""
    indent = line[: len(line) - len(line.lstrip())]
    code = line
    if tokens and (comments := [token for token in tokens if token.type == tokenize.COMMENT]):
        code = line[: comments[0].start[1]].rstrip()
        start = f"{indent}# "
        words = comments[0].string[1:].strip()
        yield from _words(words, start, start)
    if code.strip():
        yield from _filled(code.strip(), indent) if inside else _folded(_with_brackets(code.strip()), indent)


def _with_brackets(code: str) -> str:
    """``code`` with brackets around the variables of a ``for``, or the sides of an assignment, where they are many."""
    marks = [mark for mark in _marks(code) if mark.depth == 0]
    if marks and marks[0].text == "for":
        end = next((mark.at for mark in marks if mark.text == "in"), 0)
        names = code[len("for ") : end].strip()
        return f"for ({names}) {code[end:]}" if _is_list(names) else code
    bounds = [-1, *(mark.at for mark in marks if mark.text == "="), len(code)]
    sides = [code[a + 1 : b].strip() for a, b in pairwise(bounds)]
    return " = ".join(f"({side})" if len(sides) > 1 and _is_list(side) else side for side in sides)


def _is_list(code: str) -> bool:
    """Whether ``code`` is long and has commas outside of all brackets."""
    return len(code) > COLUMNS // 2 and any(mark.text == "," and mark.depth == 0 for mark in _marks(code))


def _folded(code: str, indent: str, end: str = "") -> list[str]:
    """``code`` and ``end`` behind it, broken within the longest pair of brackets that it has."""
    if len(indent) + len(code) + len(end) <= COLUMNS:
        return [f"{indent}{code}{end}"]
    marks = _marks(code)
    pairs = list(_pairs(marks))
    if pairs:
        start, stop = max(pairs, key=lambda pair: pair[1] - pair[0])
        head, body, tail = code[: start + 1], code[start + 1 : stop].strip(), code[stop:]
        lines = _folded(head, indent) if len(indent) + len(head) > COLUMNS else [f"{indent}{head}"]
        return [*lines, *_filled(body, indent + _STEP), *_folded(tail, indent, end)]
    if equals := [mark.at for mark in marks if mark.text == "=" and mark.depth == 0]:
        left, right = code[: equals[-1]].rstrip(), code[equals[-1] + 1 :].strip()
        if "," in right and not right.startswith("("):
            return _folded(f"{left} = ({right})" if "(" in left else f"({left}) = ({right})", indent, end)
    parts = _filled(code, indent)
    parts[-1] += end
    return parts


def _filled(code: str, indent: str) -> list[str]:
    """What stands between brackets: as much on a line as there is room for, broken behind commas or before operators."""
    if len(indent) + len(code) + 1 <= COLUMNS:
        return [f"{indent}{code}"]
    marks = _marks(code)
    least = min((mark.depth for mark in marks if mark.text == "," and mark.depth >= 0), default=None)
    if least and any(_pairs(marks)):  # nothing to break at but what stands in brackets of its own
        return _folded(code, indent)
    cuts = [mark.at + 1 for mark in marks if mark.text == "," and mark.depth == least]
    if not cuts:
        cuts = [mark.at for mark in marks if mark.text in _BREAKS and mark.depth == 0 and mark.at]
    if not cuts:
        return _folded(code, indent) if any(_pairs(marks)) else [f"{indent}{code}"]
    bounds = [0, *cuts, len(code)]
    pieces = [piece for a, b in pairwise(bounds) if (piece := code[a:b].strip())]
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + 1 + len(piece) <= COLUMNS and len(indent) + len(piece) <= COLUMNS:
            lines[-1] += f" {piece}"
        elif len(indent) + len(piece) <= COLUMNS or not any(_pairs(_marks(piece))):
            lines.append(f"{indent}{piece}")
        else:
            lines.extend(_folded(piece, indent))
    return lines


@dataclass(frozen=True)
class _Mark:
    """A token of a line: where it begins, and how many of the line's brackets are open there."""

    text: str
    at: int
    depth: int


def _marks(code: str) -> list[_Mark]:
    """The tokens of one line of code, which may be a part of a statement."""
    marks: list[_Mark] = []
    depth = 0
    for at, text in _tokens(code):
        if text in _CLOSING:
            depth -= 1
        marks.append(_Mark(text, at, depth))
        if text in _OPENING:
            depth += 1
    return marks


def _tokens(code: str) -> Iterator[tuple[int, str]]:
    """Tokens with their places; what Python's tokenizer says of brackets that are not closed on the line does not matter."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.start[0] == 1 and token.string.strip():
                yield token.start[1], token.string
    except (tokenize.TokenError, IndentationError):
        return


def _pairs(marks: Sequence[_Mark]) -> Iterator[tuple[int, int]]:
    """Where the outermost pairs of brackets open and close."""
    opened: list[_Mark] = []
    for mark in marks:
        if mark.text in _OPENING:
            opened.append(mark)
        elif mark.text in _CLOSING and opened:
            start = opened.pop()
            if not opened:
                yield start.at, mark.at
