"""What is said once in a module of the names in it: which values a word for several stands for, and in which order."""

from __future__ import annotations

from collections.abc import Iterator

from cellspec.backends.naming import Groups
from cellspec.backends.skeleton import names
from cellspec.ir import Program

HALVED = ("As sigmoid(z) = 1/2 + tanh(z/2)/2, the weights and biases of logistic gates are halved before the loop.",)
"""What is said where logistic functions are hyperbolic tangents."""


def legend(groups: Groups, text: str, program: Program | None = None) -> Iterator[str]:
    """The lines on the words of ``groups`` that ``text`` uses; ``program`` is the forward one if it is in the tanh form."""
    used = groups.used(name for _, name in names(text)) if groups.words else {}
    if used:
        words = (f"{word} = [{', '.join(members)}]" for word, members in used.items())
        yield f"Side by side, in this order: {'; '.join(words)}."
    if program is not None and any(name.endswith("/2") for name in program.values):
        yield from HALVED
