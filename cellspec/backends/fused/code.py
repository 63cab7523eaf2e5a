"""Text of a language of the C family, and which variables stand in it: so nobody has to look for them in the text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain


@dataclass(frozen=True)
class Code:
    """A piece of text, an expression or a line, and the variables in it that somebody must define or pass, in order."""

    text: str
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text)

    @property
    def is_word(self) -> bool:
        """Whether it can stand before or behind any operator as it is: a variable or a number."""
        return self.text.isalnum()


EMPTY = Code("")


def name(word: str) -> Code:
    """A variable."""
    return Code(word, (word,))


def code(template: str, *parts: Code | str) -> Code:
    """``template`` with ``parts`` in its braces, in the manner of :meth:`str.format`."""
    texts = (part.text if isinstance(part, Code) else part for part in parts)
    return Code(template.format(*texts), names_in(part for part in parts if isinstance(part, Code)))


def joined(separator: str, parts: Iterable[Code]) -> Code:
    """``parts`` in a row, those that are empty left out."""
    kept = [part for part in parts if part]
    return Code(separator.join(part.text for part in kept), names_in(kept))


def in_parentheses(part: Code) -> Code:
    """``part`` as it can stand beside any operator."""
    return part if part.is_word else code("({})", part)


def indented(lines: Iterable[Code]) -> list[Code]:
    """``lines`` one step to the right, but for empty ones."""
    return [code("    {}", line) if line else line for line in lines]


def names_in(parts: Iterable[Code]) -> tuple[str, ...]:
    """The variables that stand in any of ``parts``, in order, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(part.names for part in parts)))


def mentions(parts: Iterable[Code], variable: Code) -> bool:
    """Whether ``variable`` stands in any of ``parts``."""
    return any(variable.text in part.names for part in parts)
