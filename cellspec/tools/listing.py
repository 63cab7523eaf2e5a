"""The shipped cells as a list: facts for the terminal and for programs, a table in Markdown for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cellspec.model.recurrence import recurrence, stages
from cellspec.tools.headings import families
from cellspec.tools.show import count_of

if TYPE_CHECKING:
    from cellspec.cell import Cell
    from cellspec.language.spec import Cite

_SUFFIXES = ("II", "III", "Jr.", "Sr.")


def facts(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """A line for each cell, family after family; the values go into JSON as they are."""
    return [_line(cell, family) for family, members in families(cells).items() for cell in members]


def _line(cell: Cell, family: str) -> dict[str, Any]:
    return {
        "name": cell.name,
        "family": family,
        "title": cell.title,
        "parameters": count_of(cell),
        "stages": stages(cell),
        "recurrence": recurrence(cell),
    }


def markdown(cells: Iterable[Cell]) -> str:
    """A table in Markdown: what each cell is and where it comes from, under the names of the families."""
    lines = ["| cell | what it is | source |", "| --- | --- | --- |"]
    for family, members in families(cells).items():
        lines.append(f"| **{family}** | | |")
        lines += [f"| `{cell.name}` | {_escaped(cell.title)} | {_sources(cell)} |" for cell in members]
    return "\n".join(lines) + "\n"


def _sources(cell: Cell) -> str:
    """The sources of a cell, linked where there is an address."""
    return "; ".join(_linked(cite) for cite in cell.cite)


def _linked(cite: Cite) -> str:
    address = f"https://doi.org/{cite.doi}" if cite.doi else cite.url
    text = _escaped(_short(cite))
    return f"[{text}]({address})" if address else text


def _short(cite: Cite) -> str:
    """``Cho et al., 2014``; the title where no author is known."""
    names = surnames(cite.authors)
    match names:
        case []:
            who = cite.title or cite.key
        case [one]:
            who = one
        case [one, other]:
            who = f"{one} and {other}"
        case [one, *_]:
            who = f"{one} et al."
    return ", ".join(part for part in (who, str(cite.year or "")) if part)


def surnames(authors: str) -> list[str]:
    """The surnames in ``Jos van der Westhuizen, Joan Lasenby``; ``and others`` counts as two."""
    named, others, _ = authors.partition(" and others")
    found = [_surname(name.split()) for name in named.split(",") if name.strip()]
    return [*found, "", ""] if others else found


def _surname(words: list[str]) -> str:
    """The last word of a name, with what belongs to it: a particle in lower case before it, no suffix behind it."""
    while len(words) > 1 and words[-1] in _SUFFIXES:
        words = words[:-1]
    particles = [number for number, word in enumerate(words) if word[:1].islower()]
    return " ".join(words[particles[0] :]) if particles else words[-1]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def by_family(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of :func:`facts` under the names of their families."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return found
