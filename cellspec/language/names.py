"""Names that a spec may declare, and the braces that write several at once."""

from __future__ import annotations

import itertools
import keyword
import re
import unicodedata
from collections.abc import Iterator

from cellspec.errors import Location, Reporter, shorten
from cellspec.model.primitives import CALLABLE

REDUCTIONS = ("sum", "mean", "var", "norm", "softmax", "logsumexp", "cumsum", "dot")
STRUCTURAL = ("outer", "roll", "stop_gradient", "eye", "inv")

RESERVED = frozenset((*CALLABLE, *REDUCTIONS, *STRUCTURAL, "t", "t_now"))
"""Names with a meaning of their own, which a spec cannot declare."""

RESERVED_DIMS = frozenset(("T", "B", "dtype"))
"""Names that a dim, which becomes a keyword argument of the generated code, cannot have."""

ZONEOUT_SUFFIX, DROPOUT_SUFFIX = "_zoneout", "_dropout"
"""What is added to a state's name for the inputs of a regularised cell: masks for this state."""

MAX_EXPANSION = 1000

MAX_NAME = 100

_GROUP = re.compile(r"\{([^{}]*)\}")
_WORD = re.compile(r"[^\W\d]\w*")


def words(text: str) -> tuple[str, ...]:
    """The names that stand in ``text``, whatever else it is."""
    return tuple(dict.fromkeys(_WORD.findall(unicodedata.normalize("NFKC", text))))


def check_name(name: str, at: Location, report: Reporter, kind: str, *, field: bool = False) -> str | None:
    """``name`` as Python normalises it (NFKC); None after reporting why a ``kind`` cannot be called so.

    A ``field`` becomes a field of a NamedTuple in the generated code, which must not begin with an underscore.
    """
    name = unicodedata.normalize("NFKC", name)
    if not name.isidentifier():
        report.error(at, f"{shorten(name)} cannot name {kind}; a name is made of letters, digits and '_'")
    elif len(name) > MAX_NAME:
        report.error(at, f"the name {shorten(name)} is longer than {MAX_NAME} characters")
    elif keyword.iskeyword(name):
        report.error(at, f"{name!r} is a Python keyword and cannot name {kind}")
    elif name.startswith("__") and name.endswith("__"):
        report.error(at, f"{name!r} belongs to Python and cannot name {kind}")
    elif name in RESERVED:
        what = "a function" if name not in ("t", "t_now") else "the time index"
        report.error(at, f"{name!r} is {what} of the language and cannot name {kind}")
    elif kind == "a dim" and name in RESERVED_DIMS:
        report.error(at, f"a dim cannot be called {name!r}, which is an argument of the generated code")
    elif field and name.startswith("_"):
        report.error(at, f"{name!r} cannot name {kind}: it becomes a field of a NamedTuple, which must not begin with '_'")
    else:
        return name
    return None


def expand_braces(text: str, at: Location, report: Reporter) -> tuple[str, ...]:
    """``W{i,f}`` -> ``("Wi", "Wf")``; several groups give every combination. Empty after reporting a mistake."""
    if "{" not in text and "}" not in text:
        return (text,)
    if "{" in _GROUP.sub("", text) or "}" in _GROUP.sub("", text):
        report.error(at, f"the braces of {shorten(text)} do not pair up; names expand like W{{i,f,g,o}}")
        return ()
    parts = [part.split(",") if odd else [part] for odd, part in _alternate(_GROUP.split(text))]
    parts = [[choice.strip() for choice in part] for part in parts]
    if any(choice == "" for part, odd in zip(parts, itertools.cycle((False, True))) if odd for choice in part):
        report.error(at, f"a choice within the braces of {shorten(text)} is empty")
        return ()
    size = 1
    for part in parts:
        size *= len(part)
        if size > MAX_EXPANSION:
            report.error(at, f"{shorten(text)} expands to more than {MAX_EXPANSION} names")
            return ()
    names = ["".join(combination) for combination in itertools.product(*parts)]
    for index, name in enumerate(names):
        if name in names[:index]:
            report.error(at, f"{shorten(text)} gives {shorten(name)} twice")
            return ()
    return tuple(names)


def _alternate(parts: list[str]) -> Iterator[tuple[bool, str]]:
    """Pairs (is within braces, text) of what splitting at the groups gave."""
    return ((index % 2 == 1, part) for index, part in enumerate(parts))
