"""What every operation says of itself: what it reads and defines, which shapes fit, its transpose rule, and its traits.

A class of operations is a row of the table :data:`cellspec.ir.ops.Op`: passes and backends ask it, rather than listing classes
themselves, so that an operation which is new to them cannot fall through. Whoever forgets a method or :class:`Traits` is
stopped when the class is used or checked; whether what the row says is true is tested by experiment (``tests/ir``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, Protocol, Self

import sympy

from cellspec.model.nodes import Shape


class ErrorFlow(Enum):
    """What an operation does to the errors of its operands."""

    EXPRESSION = "what its expression does"
    SAME = "hands them on: it moves or adds"
    PRODUCT = "multiplies those of each operand by the other"
    RATIO = "magnifies them without bound"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What passes and backends ask of an operation beyond its rules; every row answers every question.

    ``cheap``: it costs so little that a result may be computed twice rather than be kept.
    ``crosses_units``: an element depends on what other units *compute*, which units that work apart have to tell one another;
    an operation that only calls units by other numbers does not.
    ``stops``: no cotangent flows through it.
    ``view``: the result can be the operand's memory, read with another index, shape or strides.
    """

    errors: ErrorFlow
    cheap: bool
    crosses_units: bool
    stops: bool = False
    view: bool = False


class Backward(Protocol):
    """The backward program in the making, as a transpose rule sees it."""

    def shape(self, name: str) -> Shape:
        """The shape of a value of the forward program."""

    def wants(self, name: str) -> bool:
        """Whether the cotangent of ``name`` is asked for, or leads to one that is."""

    def add(self, name: str, term: sympy.Expr) -> None:
        """Add ``term`` to the cotangent of ``name``."""

    def terms_of(self, name: str) -> int:
        """How many terms the cotangent of ``name`` has so far."""

    def emit(self, op: Operation, shape: Shape, of: str) -> sympy.Symbol:
        """Add an operation; the symbol of its result, which belongs to the same equation as the forward value ``of``."""

    def collect(self, part: Part, d_out: str) -> None:
        """Note the cotangent of a part, to be put together with those of the other parts of the same value."""


def symbol(name: str) -> sympy.Symbol:
    """The SymPy symbol that stands for the value ``name`` (or the dim ``name``) in an expression."""
    return sympy.Symbol(name)


def cotangent(name: str) -> str:
    """The name of the cotangent of ``name``."""
    return f"d:{name}"


class Operation(ABC):
    """An operation of a program."""

    traits: ClassVar[Traits]

    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """The names that it reads, each as often as it stands there."""

    @abstractmethod
    def defines(self) -> tuple[str, ...]:
        """The values that it defines."""

    @abstractmethod
    def reading(self, names: Mapping[str, str]) -> Self:
        """The same operation of other values: each operand in ``names`` is replaced."""

    @abstractmethod
    def defining(self, out: str) -> Self:
        """The same operation, which defines one value, defining it under the name ``out``."""

    @abstractmethod
    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether the shapes of what it defines are what it makes of those of its operands."""

    @abstractmethod
    def transpose(self, back: Backward, d_out: str) -> None:
        """Add to ``back`` what the cotangent ``d_out`` of the result contributes to the cotangents of the operands."""

    def samples(self) -> tuple[str, ...]:
        """Those of the values it reads that may differ from sample to sample: all but the weights of a product."""
        return self.reads()

    def source(self) -> str | None:
        """The value of which the result is a copy, as far as numbers go; None if it is none."""
        return None


@dataclass(frozen=True)
class Single(Operation):
    """An operation that defines one value, ``out``."""

    out: str

    def defines(self) -> tuple[str, ...]:
        return (self.out,)

    def defining(self, out: str) -> Self:
        return replace(self, out=out)


@dataclass(frozen=True)
class Unary(Single):
    """An operation with one operand."""

    operand: str

    def reads(self) -> tuple[str, ...]:
        return (self.operand,)

    def reading(self, names: Mapping[str, str]) -> Self:
        return replace(self, operand=names.get(self.operand, self.operand))


@dataclass(frozen=True)
class Joined(Single):
    """An operation that puts its operands together."""

    parts: tuple[str, ...]

    def reads(self) -> tuple[str, ...]:
        return self.parts

    def reading(self, names: Mapping[str, str]) -> Self:
        return replace(self, parts=tuple(names.get(part, part) for part in self.parts))


@dataclass(frozen=True)
class Move(Unary):
    """An operation whose result has elements of its operand, at other places: no arithmetic.

    ``in_order`` tells that it has all of them, in their order.
    """

    in_order: ClassVar[bool] = False


@dataclass(frozen=True)
class Part(Move):
    """A move that takes a part of its operand; the cotangents of all parts make one of the whole."""

    def transpose(self, back: Backward, d_out: str) -> None:
        back.collect(self, d_out)

    @staticmethod
    @abstractmethod
    def assemble(back: Backward, whole: str, parts: list[tuple[Part, str]]) -> None:
        """Add to the cotangent of ``whole`` those of its ``parts``, all of this class, each with its cotangent."""


class Combine(Enum):
    """What a function along an axis makes of the elements."""

    SUM = "their sum"
    LARGEST = "the largest of them"


@dataclass(frozen=True)
class Along(Unary):
    """A function along an axis: it combines elements of its operand.

    With ``reduces`` it combines all that stand over the same element of ``out``, otherwise those up to it.
    """

    combines: ClassVar[Combine]
    reduces: ClassVar[bool]
