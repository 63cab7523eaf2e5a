"""What each pass of the compiler does to a cell, as differences between programs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cellspec.backends import registry
from cellspec.cell import Cell
from cellspec.errors import blamed
from cellspec.ir import Program
from cellspec.ir.text import program_text
from cellspec.pipeline import FORWARD, SINGLE_STEP, Compiled, passes, states

CONTEXT = 2
"""Lines around a difference that are the same before and after."""

BEGINS_AS = {FORWARD: "equations", SINGLE_STEP: FORWARD}
"""Programs that are made from others: the first pass that makes one is compared with that."""


@dataclass(frozen=True)
class Change:
    """What the pass ``by`` has made of a program, which people call ``program``: hunks of a unified diff."""

    by: str
    program: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{self.by}: {self.program}", *self.lines))


def passes_text(cell: Cell, residuals: str, backend: str) -> str:
    """What ``cellspec show SPEC --passes`` prints."""
    with blamed(f"cell {cell.name!r}"):
        return "\n\n".join(map(str, changes(cell, residuals, backend)))


def changes(cell: Cell, residuals: str, backend: str) -> Iterator[Change]:
    """Every change of every pass, in order, from the cell to the schedules of a backend."""
    before = Compiled(cell, residuals)
    for each, after in states(before, passes(registry.backend(backend))):
        known = before.programs
        for name, program in after.programs.items():
            old = known.get(name) or known.get(BEGINS_AS.get(name, ""))
            if program.ops and (lines := _difference(old, program)):
                yield Change(each.name, name, lines)
        before = after


def _difference(old: Program | None, new: Program) -> tuple[str, ...]:
    was = [] if old is None else _lines(old)
    found = difflib.unified_diff(was, _lines(new), n=CONTEXT, lineterm="")
    return tuple(found)[2:]  # behind the names of files


def _lines(program: Program) -> list[str]:
    """The lines of a program's text without what aligns them: a longer name is no difference for its neighbours."""
    return [re.sub(" +=", " =", line, count=1) for line in program_text(program).split("\n")]
