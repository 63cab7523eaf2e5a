"""Statements of array code as data, and what they say of buffers: which they read, which they write, and when.

A variable stands for every buffer that has been mentioned where it was bound: it may be a view of any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from cellspec.backends.arrays.expressions import (
    Apply,
    Expression,
    Helper,
    Library,
    Local,
    Word,
    buffers,
    locals_of,
)
from cellspec.backends.memory.model import Buffer


class Out(Enum):
    """How a call is told where its result goes."""

    KEYWORD = "f(a, out=b)"
    LAST = "f(a, b)"


@dataclass(frozen=True)
class Comment:
    """What a reader is told."""

    text: str


@dataclass(frozen=True)
class Bind:
    """``name = expression``."""

    name: Local
    expression: Expression


@dataclass(frozen=True)
class BindAll:
    """``a, b = f, g``: short names for functions."""

    names: tuple[Local, ...]
    functions: tuple[Library, ...]


@dataclass(frozen=True)
class Call:
    """A function's result into ``out``; ``options`` are keywords that stand behind that."""

    function: Local | Library | Helper
    operands: tuple[Expression, ...]
    out: Expression
    how: Out = Out.KEYWORD
    keywords: tuple[tuple[str, Expression], ...] = ()
    options: tuple[tuple[str, Expression], ...] = ()


@dataclass(frozen=True)
class Copy:
    """``source`` into ``target``, stretched to its shape."""

    target: Expression
    source: Expression


@dataclass(frozen=True)
class Store:
    """``target = value``, of which ``target`` is a part of an array."""

    target: Expression
    value: Expression


@dataclass(frozen=True)
class Increase:
    """``target += value``, in place."""

    target: Expression
    value: Expression


@dataclass(frozen=True)
class Perform:
    """A call for what it does to ``changed``, which are among its arguments."""

    call: Apply
    changed: tuple[Expression, ...]


@dataclass(frozen=True)
class When:
    """Statements under a condition."""

    condition: Expression
    body: tuple[Statement, ...]


Statement: TypeAlias = Comment | Bind | BindAll | Call | Copy | Store | Increase | Perform | When


def simple(statements: Iterable[Statement]) -> Iterator[Statement]:
    """All statements, those under conditions for themselves; without comments."""
    for statement in statements:
        match statement:
            case When(body=body):
                yield from simple(body)
            case Comment():
                continue
            case _:
                yield statement


def read(statement: Statement) -> tuple[Expression, ...]:
    """The expressions whose values a statement reads: of ``a[i] = b`` also a, which is found before it is written to."""
    match statement:
        case Comment():
            return ()
        case BindAll(functions=functions):
            return functions
        case Bind(expression=expression):
            return (expression,)
        case Call(function=function, operands=operands, keywords=keywords, options=options):
            return (function, *operands, *(value for _, value in (*keywords, *options)))
        case Copy(source=source):
            return (source,)
        case Store(value=value):
            return (value,)
        case Increase(target=target, value=value):
            return (target, value)
        case Perform(call=call):
            return (call,)
        case When(condition=condition, body=body):
            return (condition, *(expression for inner in body for expression in read(inner)))


def written(statement: Statement) -> tuple[Expression, ...]:
    """The arrays that a statement writes to."""
    match statement:
        case Call(out=out):
            return (out,)
        case Copy(target=target) | Store(target=target) | Increase(target=target):
            return (target,)
        case Perform(changed=changed):
            return changed
        case When(body=body):
            return tuple(expression for inner in body for expression in written(inner))
    return ()


def reads(statement: Statement) -> set[Buffer]:
    """The buffers that a statement reads, other than through variables."""
    return set[Buffer]().union(*map(buffers, read(statement)))


def writes(statement: Statement) -> set[Buffer]:
    """The buffers that a statement writes, likewise."""
    return set[Buffer]().union(*map(buffers, written(statement)))


def names(item: Statement | Expression) -> set[Word | Local]:
    """The variables and functions that a statement or an expression mentions."""
    if not isinstance(item, Statement):
        return locals_of(item)
    return set[Word | Local](bound(item)).union(*map(locals_of, (*read(item), *written(item))))


def bound(statement: Statement) -> tuple[Local, ...]:
    """The variables that a statement binds."""
    match statement:
        case Bind(name=name):
            return (name,)
        case BindAll(names=several):
            return several
        case When(body=body):
            return tuple(name for inner in body for name in bound(inner))
    return ()


@dataclass
class Behind:
    """The buffers that stand behind variables, as far as the statements have been heard that bind them."""

    variables: dict[Word | Local, set[Buffer]] = field(default_factory=dict)

    def hear(self, item: Statement | Expression) -> set[Buffer]:
        """The buffers that a statement or an expression mentions."""
        found = reads(item) | writes(item) if isinstance(item, Statement) else buffers(item)
        for name in names(item):
            found |= self.variables.get(name, set())
        if isinstance(item, Bind):
            self.variables.setdefault(item.name, set()).update(found)
        return found


Moments = Iterable[Iterable[Statement | Expression]]
"""What happens, one thing after the other; what comes in turns, as in a loop, is one moment."""


def spans(moments: Moments) -> dict[Buffer, tuple[int, int]]:
    """The first and the last moment at which each buffer is mentioned."""
    behind = Behind()
    found: dict[Buffer, tuple[int, int]] = {}
    for moment, items in enumerate(moments):
        for item in items:
            for buffer in behind.hear(item):
                first, _ = found.get(buffer, (moment, moment))
                found[buffer] = first, moment
    return found


def where(results: Iterable[Expression], moments: Moments) -> set[Buffer]:
    """The buffers in which ``results`` may lie, after all that happens."""
    behind = Behind()
    for items in moments:
        for item in items:
            behind.hear(item)
    return set[Buffer]().union(*map(behind.hear, results))
