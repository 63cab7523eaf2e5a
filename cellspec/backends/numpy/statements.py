"""What the statements of a pass say of its buffers: how large they are, and at which moments they are mentioned.

A buffer is an attribute of the pass's memory. It is mentioned under its own name, under that of a view of it, or under that of
a variable to which an expression that mentions it has been assigned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from cellspec.backends.numpy.views import Text

OF_MEMORY = re.compile(r"\b(?:ws|self)\.(\w+)")
OF_SAVED = re.compile(r"\bsaved\.(\w+)")
_VARIABLE = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_ASSIGNMENT = re.compile(r"(\w+) = (.*)")


@dataclass(frozen=True)
class Pass:
    """One direction: its statements, those that bring the initial state in, and the expressions of what it returns.

    ``copied`` are the results that are made at its end, ``results`` those that lie in its memory.
    """

    text: Text
    starts: tuple[str, ...]
    copied: tuple[str, ...]
    results: tuple[str, ...]

    @classmethod
    def of(cls, direction: Mapping[str, Any]) -> Pass:
        """The pass that the template gets as ``direction``."""
        grads = [grad["source"] for grad in direction.get("grads", ())]
        return cls(
            text=direction["text"],
            starts=tuple(line for state in direction["states"] for line in state["start"]),
            copied=tuple(state["final"] for state in direction["states"]),
            results=(*grads, direction.get("value", ""), direction.get("dx", "")),
        )

    def moments(self) -> Iterator[Iterable[str]]:
        """What happens, one thing after the other; all turns of the loop are one moment."""
        text = self.text
        for line in (*text.prologue, *self.starts, *text.before):
            yield [line]
        yield [*text.locals, *text.loop, *(sequence for _, sequence in (*text.steps, *text.fresh))]
        for line in text.after:
            yield [line]
        yield [*self.copied, *self.results]


def shape_of(text: str) -> tuple[sympy.Expr, ...]:
    """The shape that ``text`` writes as a Python tuple."""
    names = {name: sympy.Symbol(name) for name in _VARIABLE.findall(text)}
    return tuple(map(sympy.sympify, eval(text, {"__builtins__": {}}, names)))  # the text is the compiler's own


def size_of(text: str) -> sympy.Expr:
    """How many numbers an array of that shape holds."""
    return sympy.expand(sympy.Mul(*shape_of(text)))


def bases(views: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The buffer that each view is a view of, perhaps by way of another one before it."""
    seen: dict[str, str] = {}
    for name, expression in views:
        if found := OF_MEMORY.search(expression):
            seen[name] = seen.get(found[1], found[1])
    return seen


def mentions(direction: Pass) -> dict[str, tuple[int, int]]:
    """The first and the last moment at which each buffer is mentioned."""
    speaker = _Speaker(bases(direction.text.views))
    spans: dict[str, tuple[int, int]] = {}
    for moment, lines in enumerate(direction.moments()):
        for line in lines:
            for buffer in speaker.hear(line):
                first, _ = spans.get(buffer, (moment, moment))
                spans[buffer] = first, moment
    return spans


def returned(direction: Pass) -> set[str]:
    """The buffers in which results lie."""
    speaker = _Speaker(bases(direction.text.views))
    for lines in direction.moments():
        for line in lines:
            speaker.hear(line)
    return {buffer for result in direction.results for buffer in speaker.hear(result)}


class _Speaker:
    """Knows which buffers stand behind names: ``bases`` of views, and variables as they are assigned."""

    def __init__(self, bases: Mapping[str, str]) -> None:
        self.bases = bases
        self.variables: dict[str, set[str]] = {}

    def hear(self, line: str) -> set[str]:
        """The buffers that ``line`` mentions."""
        if line.startswith("#"):
            return set()
        found = {self.bases.get(name, name) for name in OF_MEMORY.findall(line)}
        for name in _VARIABLE.findall(line):
            found |= self.variables.get(name, set())
        if (assignment := _ASSIGNMENT.fullmatch(line)) and found:
            self.variables.setdefault(assignment[1], set()).update(found)
        return found
