"""One direction as a whole: its statements, what is done with states at its ends, and what it gives out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cellspec.backends.arrays.expressions import Expression
from cellspec.backends.arrays.statements import Statement, simple
from cellspec.backends.numpy.text import Text


@dataclass(frozen=True)
class Boundary:
    """A state at the ends of a pass.

    ``final`` is what the state after it, or the gradient of the state before it, is called and made of; ``start`` brings the
    other end in; ``carried`` is what of it is put back where a sequence is cut, ``given`` to what.
    """

    final: tuple[str, Expression]
    start: tuple[Statement, ...] = ()
    carried: tuple[Expression, ...] = ()
    given: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Direction:
    """One direction; ``results`` are given out besides the states."""

    text: Text
    forwards: bool
    boundaries: tuple[Boundary, ...]
    results: tuple[Expression, ...]

    def moments(self) -> Iterator[Iterable[Statement | Expression]]:
        """What happens, one thing after the other; all turns of the loop are one moment."""
        text = self.text
        starts = (statement for boundary in self.boundaries for statement in boundary.start)
        for statement in simple((*text.prologue, *starts, *text.before)):
            yield [statement]
        yield [*text.locals, *simple(text.loop), *(sequence for _, sequence in (*text.steps, *text.fresh))]
        for statement in simple(text.after):
            yield [statement]
        yield [*(boundary.final[1] for boundary in self.boundaries), *self.results]
