"""Where a mistake stands in a file, and how it is told: one sentence, the line, a caret."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Location:
    """A place in a file; ``line`` and ``column`` count from 1. ``text`` is the whole source line."""

    file: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, order=True)
class Diagnostic:
    """One mistake: where it stands, and one sentence that names it."""

    location: Location
    message: str

    def __str__(self) -> str:
        """``file:line:column: error: message``, then the source line with a caret under the column."""
        head = f"{self.location}: error: {self.message}"
        if not self.location.text.strip():
            return head
        text = self.location.text[:200]
        # A tab in the margin keeps the caret under its column, whatever the terminal's tab width.
        margin = "".join("\t" if char == "\t" else " " for char in text[: self.location.column - 1])
        return f"{head}\n    {text}\n    {margin}^"


class CellspecError(Exception):
    """Base of all the errors that cellspec raises on purpose."""


class CompilerError(CellspecError):
    """cellspec has failed where the spec is right: a bug. What was raised is its ``__cause__``."""


@contextlib.contextmanager
def blamed(what: str, *passing: type[Exception]) -> Iterator[None]:
    """Whatever fails here unexpectedly is a bug of cellspec, and says so in one sentence that names ``what``.

    Mistakes in specs pass, what the machine denies (files, memory), and the errors ``passing``.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (CellspecError, OSError, MemoryError, *passing)):
            raise
        kind = type(error).__name__
        said = " ".join(str(error).split())[:200]
        because = f"{kind}: {said}" if said else kind
        raise CompilerError(f"{what} has met a bug of cellspec ({because}): please report it together with the spec") from error


class SpecError(CellspecError):
    """A spec is wrong: every mistake that was found, in the order of the file."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(str(diagnostic) for diagnostic in self.diagnostics))


class Reporter:
    """Collects diagnostics, so that one pass over a file reports all its mistakes at once.

    Places in ``copied`` stand in several equations, as the body of a loop does: a mistake there is told once, even where only
    the numbers that it mentions tell the copies apart.
    """

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.copied: set[Location] = set()
        self._told: set[tuple[Location, str]] = set()

    def error(self, location: Location, message: str) -> None:
        """Note a mistake and go on."""
        if location in self.copied:
            kind = location, re.sub(r"\d+", "", message)
            if kind in self._told:
                return
            self._told.add(kind)
        self.diagnostics.append(Diagnostic(location, message))

    def raise_if_any(self) -> None:
        """Raise :class:`SpecError` with all that was noted, if anything was."""
        if self.diagnostics:
            raise SpecError(self.diagnostics)


def closest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate that is most like ``name``, if one is close."""
    options = sorted(set(candidates))
    folded = {option.casefold(): option for option in reversed(options)}
    close = difflib.get_close_matches(name, options, n=1, cutoff=cutoff)
    return close[0] if close else folded.get(name.casefold())


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``"; did you mean 'Uf'?"`` where a candidate is close to ``name``, else an empty string."""
    close = closest(name, candidates)
    return "" if close is None else f"; did you mean {close!r}?"


def shorten(text: str, limit: int = 60) -> str:
    """``text`` in quotes for a message, cut where it is long."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "\u2026")
