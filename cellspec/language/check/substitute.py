"""Expressions with other expressions in the place of names, or with what constants make of them.

What does not change is the same object in the result, so that whoever remembers it by its identity looks at it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cellspec.errors import Location
from cellspec.language.check.shapes import Constants, decide, fold
from cellspec.language.check.subscripts import time_offset
from cellspec.language.spec import (
    Binary,
    Call,
    Compare,
    Expr,
    Inlined,
    Listed,
    Name,
    Number,
    Subscript,
    Transposed,
    Unary,
    parts,
)


def rebuilt(expr: Expr, new: Sequence[Expr], at: Location | None = None) -> Expr:
    """``expr`` made of ``new`` parts, and at another place if one is given; itself if the parts are the same objects."""
    if all(one is other for one, other in zip(parts(expr), new, strict=True)):
        return expr
    place = at or expr.at
    match expr:
        case Inlined():
            return new[0]  # the call does not say any more what stands in the body
        case Subscript():
            return replace(expr, index=new[0], at=place)
        case Unary() | Transposed():
            return replace(expr, operand=new[0], at=place)
        case Binary() | Compare():
            return replace(expr, left=new[0], right=new[1], at=place)
        case Call():
            return replace(expr, args=tuple(new), at=place)
        case Listed():
            return replace(expr, items=tuple(new), at=place)
        case _:
            return expr


def mapped(expr: Expr, change: Callable[[Expr], Expr | None], at: Location | None = None) -> Expr:
    """``expr`` with each part for which ``change`` gives another replaced by that; what holds one goes to ``at``."""
    other = change(expr)
    if other is not None:
        return other
    return rebuilt(expr, [mapped(part, change, at) for part in parts(expr)], at)


def with_numbers(expr: Expr, values: Mapping[str, int]) -> Expr:
    """``expr`` with names replaced by numbers."""

    def change(part: Expr) -> Expr | None:
        match part:
            case Name(id=name) if name in values:
                return Number(values[name], part.at)
            case _:
                return None

    return mapped(expr, change) if values else expr


def settled(expr: Expr, constants: Constants) -> Expr:
    """``expr`` with indices and whole numbers worked out, and in the place of a ``where`` that constants decide its branch."""

    def change(part: Expr) -> Expr | None:
        match part:
            case Call(function="where", args=(condition, yes, no)) if (decided := decide(condition, constants)) is not None:
                return settled(yes if decided else no, constants)
            case Binary() | Unary() if isinstance(whole := fold(part, {}), int):
                return Number(whole, part.at) if whole >= 0 else Unary("-", Number(-whole, part.at), part.at)
            case Subscript(index=Number() | Name() | Binary(left=Name(id="t"), right=Number())):
                return part
            case Subscript(index=index):
                settled_index = _index(time_offset(index, constants), index.at)
                return None if settled_index is None else replace(part, index=settled_index)
            case _:
                return None

    return mapped(expr, change)


def _index(found: tuple[float, float] | None, at: Location) -> Expr | None:
    """``t``, ``t-2`` or ``2``; None for what is neither a step nor a whole number."""
    if found is None or found[0] not in (0, 1) or found[1] != int(found[1]):
        return None
    steps, offset = found
    number = Number(abs(int(offset)), at)
    if not steps:
        return Unary("-", number, at) if offset < 0 else number
    return Binary("-" if offset < 0 else "+", Name("t", at), number, at) if offset else Name("t", at)
