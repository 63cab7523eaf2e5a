"""Spec: what a file says, every part with its place. The parse tree of the compiler; it decides nothing.

Expressions are trees of the small frozen classes below. A merged spec (``extends``) is a Spec too:
its parts keep the places of the files that they came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cellspec.errors import Location

# --- expressions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A literal: ``2``, ``0.5``, ``1e-3``."""

    value: int | float
    at: Location


@dataclass(frozen=True)
class Name:
    """A bare name: ``Wi``, ``i``, ``H``."""

    id: str
    at: Location


@dataclass(frozen=True)
class Subscript:
    """``h[t-1]``, ``x[t]``, ``R[0]``: a name and the expression in its brackets."""

    id: str
    index: Expr
    at: Location


@dataclass(frozen=True)
class Unary:
    """``-x`` (``op`` is ``"-"``; a unary plus leaves no trace)."""

    op: str
    operand: Expr
    at: Location


@dataclass(frozen=True)
class Binary:
    """``left op right`` with ``op`` one of ``+ - * / ** @``; ``at`` is the operator's left operand."""

    op: str
    left: Expr
    right: Expr
    at: Location


@dataclass(frozen=True)
class Compare:
    """``left op right`` with ``op`` one of ``< <= > >= == !=``."""

    op: str
    left: Expr
    right: Expr
    at: Location


@dataclass(frozen=True)
class Call:
    """``function(args…)``."""

    function: str
    args: tuple[Expr, ...]
    at: Location


@dataclass(frozen=True)
class Transposed:
    """``M.T``."""

    operand: Expr
    at: Location


@dataclass(frozen=True)
class Listed:
    """``[a, b, …]``: a concatenation along the last axis."""

    items: tuple[Expr, ...]
    at: Location


@dataclass(frozen=True)
class Unread:
    """Text that could not be parsed, as has been reported; ``names`` are those that it mentions."""

    names: tuple[str, ...]
    at: Location


@dataclass(frozen=True)
class Inlined:
    """A call of a local function as the function's body with the arguments in it; ``call`` is what the file says."""

    call: Call
    body: Expr
    at: Location


Expr = Number | Name | Subscript | Unary | Binary | Compare | Call | Transposed | Listed | Unread | Inlined


def parts(expr: Expr) -> tuple[Expr, ...]:
    """What ``expr`` is made of, from left to right, indices included."""
    match expr:
        case Subscript(index=part) | Unary(operand=part) | Transposed(operand=part):
            return (part,)
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return (left, right)
        case Call(args=items) | Listed(items=items):
            return items
        case Inlined(body=body):
            return (body,)
        case _:
            return ()


def bare(expr: Expr) -> Expr:
    """What stands for a call of a local function; any other expression is itself."""
    while isinstance(expr, Inlined):
        expr = expr.body
    return expr


def walk(expr: Expr) -> Iterator[Expr]:
    """``expr`` and everything inside it, from left to right."""
    waiting = [expr]
    while waiting:
        part = waiting.pop()
        yield part
        waiting.extend(reversed(parts(part)))


# --- parts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cite:
    """A source: the paper, lecture or page that a cell comes from."""

    key: str = ""
    title: str = ""
    authors: str = ""
    year: str = ""
    doi: str = ""
    url: str = ""
    note: str = ""


@dataclass(frozen=True)
class Initialiser:
    """How a parameter starts: ``kind`` and its numbers.

    ``constant`` (value), ``identity``, ``uniform`` (none: ±1/√fan_in, or low, high), ``glorot_uniform``, ``glorot_normal``,
    ``orthogonal``, ``normal`` (std), ``chrono`` (Tmax). ``zeros`` and ``ones`` are constants.
    """

    kind: str
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Variable:
    """A declared input, state or parameter. ``shape`` holds one dim expression per axis.

    ``init`` is None where the file names none. States take constants only, which the loader checks. ``repeat`` is the number of
    members of a family of parameters, each of that shape.
    """

    name: str
    shape: tuple[Expr, ...]
    at: Location
    init: Initialiser | None = None
    trainable: bool = True
    repeat: Expr | None = None


@dataclass(frozen=True)
class Setting:
    """``name: value`` of ``hyper`` (a number) or ``activations`` (a function's name); None where it could not be read."""

    name: str
    value: float | int | str | None
    at: Location


@dataclass(frozen=True)
class Macro:
    """``name(arguments): body`` of ``functions``: a function that is local to the file, inlined where it is called."""

    name: str
    arguments: tuple[str, ...]
    body: Expr
    at: Location


@dataclass(frozen=True)
class Mention:
    """A name that stands alone: an entry of ``dims`` or ``outputs``."""

    name: str
    at: Location


@dataclass(frozen=True)
class Loop:
    """``for variable in range(start, stop):``."""

    variable: str
    start: Expr
    stop: Expr
    at: Location


@dataclass(frozen=True)
class Assignment:
    """One equation. ``target`` is the name on the left, ``is_state`` tells ``h[t] = …`` from ``h = …``; ``text`` as written.

    ``index`` is that of a member of a family, ``s[index] = …``, else None. ``loops`` are those around it, outermost first.
    """

    target: str
    is_state: bool
    value: Expr
    text: str
    at: Location
    index: Expr | None = None
    loops: tuple[Loop, ...] = ()

    @property
    def left(self) -> tuple[object, ...]:
        """What equations share that assign the same, as far as can be told before loops are unrolled."""
        return self.target, self.is_state, None if self.index is None else self.at


@dataclass(frozen=True)
class Expect:
    """What the file claims of itself; a part is None where it claims nothing. Each ``at`` is the claim's value."""

    params: Expr | None = None
    stages: tuple[int, Location] | None = None
    recurrence: tuple[str, Location] | None = None
    bound: tuple[tuple[str, float, Location], ...] = ()


@dataclass(frozen=True)
class Gaps:
    """What could not be read, as has been reported: nothing is concluded from its absence.

    ``names`` stand in it, ``stems`` begin names that do (``W`` of ``W{i,f``), ``parts`` are keys of which nothing is left.
    """

    names: frozenset[str] = frozenset()
    stems: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()

    def __or__(self, other: Gaps) -> Gaps:
        """Both gaps."""
        return Gaps(self.names | other.names, self.stems | other.stems, self.parts | other.parts)

    def may_hold(self, name: str, *parts: str) -> bool:
        """Whether ``name`` may stand in what could not be read, if ``parts`` (or a parent) are where it would stand."""
        return (
            name in self.names
            or not self.parts.isdisjoint(("extends", *parts))
            or (bool(self.stems) and any(name[:end] in self.stems for end in range(len(name) + 1)))
        )


@dataclass(frozen=True)
class Spec:
    """A cell as its file (and those it extends) state it. Names are unique within each part; nothing else is promised.

    A file with mistakes gives what could be read of it, with ``gaps``.
    """

    name: str
    path: str
    at: Location
    sha256: str
    title: str = ""
    doc: str = ""
    cite: tuple[Cite, ...] = ()
    extends: str | None = None
    dims: tuple[Mention, ...] = ()
    hyper: tuple[Setting, ...] = ()
    inputs: tuple[Variable, ...] = ()
    states: tuple[Variable, ...] = ()
    outputs: tuple[Mention, ...] = ()
    params: tuple[Variable, ...] = ()
    activations: tuple[Setting, ...] = ()
    functions: tuple[Macro, ...] = ()
    equations: tuple[Assignment, ...] = ()
    expect: Expect = Expect()
    settings: tuple[tuple[str, str], ...] = ()  # the --set choices in force
    gaps: Gaps = Gaps()
