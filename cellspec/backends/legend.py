"""What is said once in a module of the names in it: which values a word for several stands for, and in which order."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from cellspec.backends.naming import Groups
from cellspec.backends.skeleton import names
from cellspec.ir import Program

HALVED = ("As sigmoid(z) = 1/2 + tanh(z/2)/2, the weights and biases of logistic gates are halved before the loop.",)
"""What is said where logistic functions are hyperbolic tangents."""

COMMON = {
    "prev": "one step before",
    "pre": "the sum within an activation",
    "part": "a nameless part of an equation",
    "factor": "a factor of it",
    "base": "a term of it",
}
"""What endings of values' names mean."""

ENDINGS: Mapping[str, dict[str, str]] = {
    "numpy": {
        "all": "before the first step and after every step",
        "flat": "of all steps and samples, as the columns of a matrix",
        "2d": "of all steps and samples, as the rows of a matrix",
        "rows": "the gradients that one product makes",
        "sum": "over all steps and samples",
        "axes": "with all its axes",
        "batch": "for every sample",
        "T": "transposed",
        "out": "for the caller",
    },
    "cupy": {
        "all": "of all steps, of a state also before the first",
        "now": "of the step that is at work",
        "pair": "of two steps in turn",
        "last": "of the latest step",
        "operand": "as products read it",
        "final": "at the end of a sample",
        "sum": "over all steps and samples",
        "T": "transposed",
        "out": "for the caller",
    },
}
"""The same for names that a backend gives to memory; the others give none."""

LINE = 116
"""The longest line of a legend, without what makes it a comment."""

_TOGETHER = "\N{NO-BREAK SPACE}"


def legend(
    groups: Groups, text: str, scopes: Iterable[str], backend: str = "", program: Program | None = None
) -> Iterator[str]:
    """The lines on the words of ``groups`` that ``text`` uses, and on endings of names in its functions and classes ``scopes``.

    ``program`` is the forward one if it is in the tanh form.
    """
    found = [*names(text)]
    used = groups.used(name for _, name in found)
    if used:
        words = (f"{word} = [{', '.join(members)}]" for word, members in used.items())
        yield from textwrap.wrap(f"Side by side, in this order: {'; '.join(words)}.", LINE)
    within = set(scopes)
    last = {name.rpartition("_")[2] for scope, name in found if scope in within and not name.startswith("_") and "_" in name}
    known = COMMON | ENDINGS.get(backend, {})
    endings = [f"_{ending}{_TOGETHER}{means}" for ending, means in known.items() if ending in last]
    if endings:
        told = textwrap.wrap(f"Endings of names: {'; '.join(endings)}.", LINE)
        yield from (line.replace(_TOGETHER, " ") for line in told)
    if program is not None and any(name.endswith("/2") for name in program.values):
        yield from HALVED
