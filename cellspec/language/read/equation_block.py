"""The block of equations -> assignments, each with the loops around it.

The body of a loop stands below its head, further in, or is one equation behind the colon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cellspec.errors import Location, Reporter
from cellspec.language.names import check_name, words
from cellspec.language.read.expressions import convert
from cellspec.language.read.scanner import LOOP, MAX_NESTING, Place, Scanner, Statement
from cellspec.language.spec import Assignment, Call, Expr, Loop, Name, Number, Subscript, Unread, walk

MAX_EQUATIONS = 1000

_BLOCKS = {"for", "while", "if", "def", "class", "with", "try", "async"}


def parse_equations(
    block: str, places: Sequence[Location], report: Reporter, unread: list[Assignment] | None = None
) -> tuple[Assignment, ...]:
    """The equations of ``block``; ``places[k]`` is where the first character of its line ``k`` stands in the file.

    The others go to ``unread``: their value is Unread, and the target is empty where the left side could not be read either.
    A block that is too large gives nothing at all.
    """

    def place(line: int, column: int) -> Location:
        start = places[min(line, len(places) - 1)]
        return Location(start.file, start.line, start.column + column, start.text)

    reader = _Reader(block, place, report)
    scanner = Scanner(block, place, report, equations=True)
    for count, statement in enumerate(scanner.scan()):
        if count >= MAX_EQUATIONS:
            first = statement.tokens[0]
            report.error(place(first.line, first.column), f"there are more than {MAX_EQUATIONS} equations")
            return ()
        reader.read(statement)
    reader.close(-1)
    if scanner.cut:
        return ()
    if unread is not None:
        unread.extend(reader.unread)
    return tuple(reader.found)


@dataclass
class _Block:
    """The body that follows a head which stands at ``column``; ``loop`` is None where the head could not be read."""

    head: Statement
    column: int
    loop: Loop | None
    margin: int | None = None  # where the equations of the body stand; None before the first
    inline: bool = False  # whether the body is the rest of the head's line


class _Reader:
    """Sorts statements into the loops that their indentation puts them in."""

    def __init__(self, block: str, place: Place, report: Reporter) -> None:
        self.block, self.place, self.report = block, place, report
        self.found: list[Assignment] = []
        self.unread: list[Assignment] = []
        self.blocks: list[_Block] = []
        self.margin: int | None = None

    def read(self, statement: Statement) -> None:
        """Take the next statement of the text."""
        first = statement.tokens[0]
        inner = self.blocks[-1] if self.blocks else None
        inline = inner is not None and inner.margin is None and inner.head.tokens[-1].line == first.line
        if inner is not None and inline:
            inner.margin, inner.inline = first.column, True
        else:
            self.close(first.column)
            self.check_margin(statement)
        if first.text in _BLOCKS:
            lost = statement.broken or not self.readable
            self.blocks.append(_Block(statement, first.column, None if lost else self.loop(statement, inline)))
            return
        assignment = self.assignment(statement) if self.readable and not statement.broken else None
        if assignment is None:
            self.unread.append(self.rest(statement))
        else:
            self.found.append(assignment)

    @property
    def readable(self) -> bool:
        """Whether every head around is a loop that could be read."""
        return all(block.loop is not None for block in self.blocks)

    def close(self, column: int) -> None:
        """Leave the bodies that a statement at ``column`` is not part of."""
        while self.blocks and (self.blocks[-1].inline or column <= self.blocks[-1].column):
            block = self.blocks.pop()
            if block.margin is None and block.loop is not None:
                self.report.error(block.loop.at, "this loop has no equations; they stand below it, further in")

    def check_margin(self, statement: Statement) -> None:
        """Report a statement that is not indented like the others of its body; the first one decides."""
        first = statement.tokens[0]
        body = self.blocks[-1] if self.blocks else self
        if body.margin is None:
            body.margin = first.column
        if first.column != body.margin and not statement.broken and self.readable:
            others = "the first one of its loop" if self.blocks else "the first one"
            self.report.error(self.place(first.line, first.column), f"this equation is not indented like {others}")

    def loop(self, statement: Statement, inline: bool) -> Loop | None:
        """The loop that begins here; None after reporting what is wrong with it."""
        tokens = statement.tokens
        at, variable_at = (self.place(token.line, token.column) for token in tokens[:2])
        if inline:
            self.report.error(at, "a loop within a loop stands on a line of its own")
            return None
        if len(self.blocks) >= MAX_NESTING:
            self.report.error(at, f"loops are nested deeper than {MAX_NESTING} levels")
            return None
        variable = check_name(tokens[1].text, variable_at, self.report, "the variable of a loop")
        if any(block.loop is not None and block.loop.variable == variable for block in self.blocks):
            self.report.error(variable_at, f"{variable!r} is the variable of a loop around this one already")
            variable = None
        bounds: tuple[Expr, Expr] | None = None
        match convert(self.block, tokens[3:-1], self.place, self.report):
            case Call(args=(stop,), at=place):
                bounds = (Number(0, place), stop)
            case Call(args=(_, _, step)):
                self.report.error(step.at, f"a loop counts up one by one, without a step: {LOOP}")
            case Call(args=(start, stop)):
                bounds = (start, stop)
            case Call(at=place):
                self.report.error(place, f"a loop has two bounds: {LOOP}")
        return None if variable is None or bounds is None else Loop(variable, *bounds, at)

    def assignment(self, statement: Statement) -> Assignment | None:
        """One equation: a target ``name``, ``name[t]`` or ``name[index]``, and its value; None after reporting a mistake."""
        assert statement.equals is not None
        tokens = statement.tokens
        left = convert(self.block, tokens[: statement.equals], self.place, self.report)
        value = convert(self.block, tokens[statement.equals + 1 :], self.place, self.report)
        if left is None:
            return None
        loops = tuple(block.loop for block in self.blocks if block.loop is not None)
        index: Expr | None = None
        is_state = False
        match left:
            case Name(id=name):
                pass
            case Subscript(id=name, index=Name(id="t")):
                is_state = True
            case Subscript(id=name, index=index) if any(isinstance(e, Name) and e.id == "t" for e in walk(index)):
                self.report.error(left.at, f"only '{name}[t]' can be assigned; other steps of {name!r} can only be read")
                return None
            case Subscript(id=name, index=index):
                pass
            case _:
                self.report.error(left.at, "the left side of an equation is 'name', 'name[t]' or, in a family, 'name[0]'")
                return None
        if value is None:
            return None
        lines = self.block[tokens[0].start : tokens[-1].start + len(tokens[-1].text)].split("\n")
        kept = (re.sub(r"#.*|\\\r?$", "", line).strip() for line in lines)
        return Assignment(name, is_state, value, " ".join(part for part in kept if part), left.at, index, loops)

    def rest(self, statement: Statement) -> Assignment:
        """What is known of an equation that could not be read, or that stands where it cannot be."""
        first = statement.tokens[0]
        at = self.place(first.line, first.column)
        names = words(" ".join(token.text for token in statement.tokens if token.kind == "name"))
        left = [token.text for token in statement.tokens[: statement.equals or 0]]
        is_state = left[1:] == ["[", "t", "]"]
        readable = first.kind == "name" and (is_state or len(left) == 1) and self.readable
        return Assignment(names[0] if readable else "", is_state, Unread(names, at), "", at)
