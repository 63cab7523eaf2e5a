"""Index arithmetic: which unit of a value is read for unit ``j`` of a region's shape.

Units are counted in row-major order. A value that stretches to the shape is read at the unit that stands over ``j``; a move (a
slice, a rotation, another shape) sends a unit of its result to one of its operand.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy

from cellspec import ir
from cellspec.backends.fused.code import EMPTY, Code, code, in_parentheses, joined, name
from cellspec.model.nodes import Shape

Factor = Callable[[sympy.Expr], Code]
"""A size as it can be multiplied and divided by."""

UNIT = name("j")
"""The unit of a region's shape."""

ZERO = Code("0")


def groups(value: Shape, whole: Shape) -> list[tuple[bool, sympy.Expr]]:
    """The axes of ``whole``, neighbours of a kind joined: whether ``value`` extends along them, and their size."""
    value = () if ir.is_one(value) else value  # a single number stands over every unit, however many axes it has
    padded = (sympy.Integer(1),) * (len(whole) - len(value)) + value
    found: list[tuple[bool, sympy.Expr]] = []
    for small, large in zip(padded, whole, strict=True):
        kept = small == large
        if large == 1:
            continue
        if found and found[-1][0] == kept:
            found[-1] = (kept, sympy.expand(found[-1][1] * large))
        else:
            found.append((kept, large))
    return found


def stretched(value: Shape, whole: Shape, factor: Factor) -> Code:
    """The unit of a value over which unit ``j`` of ``whole`` stands: ``j``, ``j/n``, ``j%n``, ``0``."""
    if ir.is_one(value):
        return ZERO
    parts = groups(value, whole)
    terms = []
    for number, (kept, _) in enumerate(parts):
        if kept:
            behind = ir.size(tuple(size for own, size in parts[number + 1 :] if own))
            index = _index(parts, number, factor)
            terms.append(index if behind == 1 else code("{}*{}", index, factor(behind)))
    return joined(" + ", terms)


def first(value: Shape, whole: Shape, factor: Factor) -> Code:
    """The condition under which ``j`` is the first of those with the same unit of a value; empty if it is the only one."""
    parts = groups(value, whole)
    if ir.is_one(value) and parts:
        return code("{} == 0", UNIT)
    own = (_index(parts, number, factor) for number, (kept, _) in enumerate(parts) if not kept)
    return joined(" && ", (code("{} == 0", index) for index in own))


def _index(parts: list[tuple[bool, sympy.Expr]], number: int, factor: Factor) -> Code:
    """Unit ``j``'s index along one of the groups of axes."""
    behind = ir.size(tuple(size for _, size in parts[number + 1 :]))
    index = UNIT if behind == 1 else code("{}/{}", UNIT, factor(behind))
    return index if number == 0 else code("{}%{}", index, factor(parts[number][1]))


def rolled(unit: Code, shape: Shape, shift: int, factor: Factor) -> Code:
    """The unit of a value of this shape that a rotation of its last axis brings to ``unit``."""
    n, whole = factor(shape[-1]), in_parentheses(unit)
    turn = code("{0} - {1}%{0}", n, str(shift)) if shift >= 0 else Code(str(-shift))
    if len(shape) == 1:
        return code("({} + {})%{}", unit, turn, n)
    return code("{0}/{1}*{1} + ({0}%{1} + {2})%{1}", whole, n, turn)


def widened(unit: Code, narrow: sympy.Expr, wide: sympy.Expr, start: Code, factor: Factor) -> Code:
    """The unit in rows of length ``wide`` of what is ``unit`` in rows of ``narrow``, which begin at ``start``."""
    whole, width = in_parentheses(unit), factor(narrow)
    return joined(" + ", (code("{}/{}*{}", whole, width, factor(wide)), start, code("{}%{}", whole, width)))


def sum_of(*terms: Code) -> Code:
    """``terms`` added up; those that are empty or 0 left out."""
    return joined(" + ", (EMPTY if term == ZERO else term for term in terms))
