"""Index arithmetic: which unit of a value a thread reads, as C++ text.

A thread has unit ``j`` of its kernel's shape, in row-major order. A value that stretches to that shape is read at the unit that
stands over ``j``; a move (a slice, a rotation, another shape) sends a unit of its result to one of its operand.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy

from cellspec import ir
from cellspec.model.nodes import Shape

Factor = Callable[[sympy.Expr], str]
"""A size as text that can be multiplied and divided by."""


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


def stretched(value: Shape, whole: Shape, factor: Factor) -> str:
    """The unit of a value over which unit ``j`` of ``whole`` stands: ``j``, ``j/n``, ``j%n``, ``0``."""
    if ir.is_one(value):
        return "0"
    parts = groups(value, whole)
    terms = []
    for number, (kept, _) in enumerate(parts):
        if kept:
            behind = ir.size(tuple(size for own, size in parts[number + 1 :] if own))
            index = _index(parts, number, factor)
            terms.append(index if behind == 1 else f"{index}*{factor(behind)}")
    return " + ".join(terms)


def first(value: Shape, whole: Shape, factor: Factor) -> str:
    """The condition under which a thread is the first of those with the same unit of a value; empty if it is the only one."""
    parts = groups(value, whole)
    if ir.is_one(value) and parts:
        return "j == 0"
    return " && ".join(f"{_index(parts, number, factor)} == 0" for number, (kept, _) in enumerate(parts) if not kept)


def _index(parts: list[tuple[bool, sympy.Expr]], number: int, factor: Factor) -> str:
    """Unit ``j``'s index along one of the groups of axes."""
    behind = ir.size(tuple(size for _, size in parts[number + 1 :]))
    index = "j" if behind == 1 else f"j/{factor(behind)}"
    return index if number == 0 else f"{index}%{factor(parts[number][1])}"


def rolled(unit: str, shape: Shape, shift: int, factor: Factor) -> str:
    """The unit of a value of this shape that a rotation of its last axis brings to ``unit``."""
    n = factor(shape[-1])
    turn = f"{n} - {shift}%{n}" if shift >= 0 else str(-shift)
    if len(shape) == 1:
        return f"({unit} + {turn})%{n}"
    return f"{atom(unit)}/{n}*{n} + ({atom(unit)}%{n} + {turn})%{n}"


def widened(unit: str, narrow: sympy.Expr, wide: sympy.Expr, start: str, factor: Factor) -> list[str]:
    """Terms of the unit in rows of length ``wide`` of what is ``unit`` in rows of ``narrow``, which begin at ``start``."""
    row, column = f"{atom(unit)}/{factor(narrow)}*{factor(wide)}", f"{atom(unit)}%{factor(narrow)}"
    return [row, *([start] if start else []), column]


def atom(unit: str) -> str:
    """``unit`` as it can stand before an operator."""
    return unit if unit.isalnum() else f"({unit})"
