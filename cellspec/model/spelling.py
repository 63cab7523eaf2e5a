"""How targets spell a function: a call of one that they have, or of one that a module defines for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """A function of a module's own: ``name(arguments) = value``."""

    name: str
    arguments: tuple[str, ...]
    value: str

    @property
    def calls(self) -> tuple[str, ...]:
        """The functions that it calls, whoever defines them, but for what is a part of something else."""
        return tuple(dict.fromkeys(name for name in called(self.value) if "." not in name))


@dataclass(frozen=True)
class Spelling:
    """A target's words for a function: ``text``, its arguments numbered, ``{all}`` for all of them: ``np.maximum({0}, 0)``.

    ``definition`` is that of the function which is called there, where the target has none.
    """

    text: str
    definition: Definition | None = None

    def __call__(self, args: Sequence[str]) -> str:
        """The call with these arguments."""
        return self.text.format(*args, all=", ".join(args))

    @property
    def is_negation(self) -> bool:
        """Whether a minus stands in front, so that the words bind less than a call."""
        return self.text[0] == "-"

    @property
    def function(self) -> str:
        """The function that is called."""
        return self.text.split("(", 1)[0]


def called(text: str) -> list[str]:
    """The functions that a table's words call: the names before a parenthesis, ``np.maximum``, ``_erf``."""
    found = []
    for before in text.split("(")[:-1]:
        start = len(before)
        while start and (before[start - 1].isalnum() or before[start - 1] in "._"):
            start -= 1
        found.append(before[start:])
    return [name for name in found if name]


def spelling(text: str) -> Spelling:
    """The spelling that ``text`` tells: ``np.tanh``; ``np.maximum({0}, 0)``; ``silu(a) = a*sigmoid(a)``."""
    head, is_defined, value = text.partition(") = ")
    if not is_defined:
        return Spelling(text if "{" in text else f"{text}({{all}})")
    name, arguments = head.split("(")
    return Spelling(f"{name}({{all}})", Definition(name, tuple(arguments.split(", ")), value))
