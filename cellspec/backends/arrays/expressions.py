"""Expressions of array code as data: views of buffers, locals, the caller's arrays, numbers, and calls for new arrays.

A buffer of the memory model is an expression, and so is a polynomial over the dims, as the axes of buffers are: with the names
that the module has for the dims. Nothing here is text but names; a printer spells all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import sympy

from cellspec.backends.memory.model import Axes, B, Buffer, T
from cellspec.ir import Op, Program
from cellspec.model.nodes import Shape


@dataclass(frozen=True)
class Word:
    """What the module itself calls something: an argument, a variable that all modules have, or a function."""

    name: str


@dataclass(frozen=True)
class Local:
    """A variable of a value's. ``name`` tells it from others; what it is called is for the printer to say."""

    name: str


@dataclass(frozen=True)
class Attribute:
    """``of.name``: an array of the caller's, ``params.W``, or ``of.T``."""

    of: Expression
    name: str


@dataclass(frozen=True)
class View:
    """A part of a buffer that the memory keeps under a name of its own."""

    name: str
    buffer: Buffer
    expression: Expression


@dataclass(frozen=True)
class Method:
    """``of.name(*args)``: another view of an array, or a copy."""

    of: Expression
    name: str
    args: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """``start:stop:step`` of an axis."""

    start: Expression | None = None
    stop: Expression | None = None
    step: int | None = None


@dataclass(frozen=True)
class Index:
    """``of[items]``; ``...`` stands for itself, None for an axis of size 1."""

    of: Expression
    items: tuple[Expression | Stretch | EllipsisType | None, ...]


class EllipsisType(Enum):
    """The axes that an index does not speak of."""

    ELLIPSIS = "..."


ELLIPSIS = EllipsisType.ELLIPSIS
EVERYTHING = Stretch()
REVERSED = Stretch(step=-1)


@dataclass(frozen=True)
class Merged:
    """The length of several axes that have been made one: ``T*B``."""

    axes: Axes


SAMPLES = Merged((T, B))
"""The samples of all steps."""


@dataclass(frozen=True)
class Literal:
    """A word, number or truth of the language."""

    value: str | float | bool | None


NONE, TRUE = Literal(None), Literal(True)


@dataclass(frozen=True)
class Number:
    """A number, or an expression over the spec's dims that is one."""

    value: sympy.Expr


@dataclass(frozen=True)
class Items:
    """A tuple."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Table:
    """A mapping from numbers."""

    entries: tuple[tuple[int, Expression], ...]


@dataclass(frozen=True)
class Library:
    """A function of the array library."""

    name: str


@dataclass(frozen=True)
class Helper:
    """A function that the module defines if it needs it."""

    name: str


@dataclass(frozen=True)
class Apply:
    """``function(*args, **keywords)``, an expression: its array is new, or one that it is given."""

    function: Word | Local | Library | Helper | Attribute
    args: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...] = ()


@dataclass(frozen=True)
class Binary:
    """``left op right``."""

    op: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Not:
    """The contrary of a condition."""

    condition: Expression


@dataclass(frozen=True)
class Choice:
    """``yes`` if ``condition``, else ``no``."""

    condition: Expression
    yes: Expression
    no: Expression


@dataclass(frozen=True)
class OfMemory:
    """What the memory that the code works in says of itself, as whether it is ``apart``."""

    name: str


@dataclass(frozen=True)
class Formula:
    """``out``, an operation of ``program`` among parameters, as plain array code; ``operands`` are what it reads."""

    out: str
    op: Op
    program: Program = field(compare=False, repr=False)
    operands: tuple[tuple[str, Expression], ...]

    @property
    def shape(self) -> Shape:
        return self.program.shape(self.out)


Expression: TypeAlias = (
    Word | Local | Attribute | Buffer | View | Method | Index | Merged | Literal | Number | Items | Table | Library | Helper
    | Apply | Binary | Not | Choice | OfMemory | Formula | sympy.Expr | int
)  # fmt: skip


def children(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that one is made of; a view, of what it is a view of."""
    match expression:
        case Attribute(of=of):
            return (of,)
        case View(buffer=buffer, expression=inner):
            return (buffer, inner)
        case Method(of=of, args=args):
            return (of, *args)
        case Index(of=of, items=items):
            return (of, *(part for item in items for part in _indices(item)))
        case Items(items=items):
            return items
        case Merged(axes=axes):
            return axes
        case Table(entries=entries):
            return tuple(entry for _, entry in entries)
        case Apply(function=function, args=args, keywords=keywords):
            return (function, *args, *(value for _, value in keywords))
        case Binary(left=left, right=right):
            return (left, right)
        case Not(condition=condition):
            return (condition,)
        case Choice(condition=condition, yes=yes, no=no):
            return (condition, yes, no)
        case Formula(operands=operands):
            return tuple(operand for _, operand in operands)
    return ()


def _indices(item: Expression | Stretch | EllipsisType | None) -> Iterator[Expression]:
    match item:
        case Stretch(start=start, stop=stop):
            yield from (end for end in (start, stop) if end is not None)
        case EllipsisType() | None:
            return
        case _:
            yield item


def walk(expression: Expression) -> Iterator[Expression]:
    """An expression and all that it is made of."""
    yield expression
    for child in children(expression):
        yield from walk(child)


def buffers(expression: Expression) -> set[Buffer]:
    """The buffers that an expression mentions."""
    return {part for part in walk(expression) if isinstance(part, Buffer)}


def locals_of(expression: Expression) -> set[Word | Local]:
    """The names that an expression mentions, where the code runs: not those inside views, which are made elsewhere."""
    if isinstance(expression, View):
        return set()
    own = {expression} if isinstance(expression, Word | Local) else set()
    return own.union(*map(locals_of, children(expression)))


def dims_of(expression: Expression, dims: Mapping[str, str]) -> set[str]:
    """The names that the module has for the dims that an expression mentions; ``dims`` are these, by the spec's names."""
    match expression:
        case View() | Buffer():
            return set()
        case Number(value=value):
            return {dims[symbol.name] for symbol in value.free_symbols if symbol.name in dims}
        case sympy.Expr():
            return {symbol.name for symbol in expression.free_symbols}.intersection(dims.values())
    return set[str]().union(*(dims_of(child, dims) for child in children(expression)))


def transposed(matrix: Expression) -> Expression:
    """The transpose, of a transpose what it is one of."""
    return matrix.of if isinstance(matrix, Attribute) and matrix.name == "T" else Attribute(matrix, "T")


def reshaped(array: Expression, *axes: Expression) -> Expression:
    """An array with other axes."""
    return Method(array, "reshape", axes)


def root(expression: Expression) -> Expression:
    """The array that an expression is a view of."""
    match expression:
        case Method(of=of) | Index(of=of) | Attribute(of=of, name="T"):
            return root(of)
    return expression


def local(expr: sympy.Expr, dims: Mapping[str, str]) -> sympy.Expr:
    """A polynomial over the spec's dims, over the module's names for them."""
    return expr.xreplace({symbol: sympy.Symbol(dims.get(symbol.name, symbol.name)) for symbol in expr.free_symbols})
