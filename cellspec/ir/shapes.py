"""Shapes of operations: what is made of which, and what stretches to what."""

from __future__ import annotations

from collections.abc import Iterable

import sympy

from cellspec.model.nodes import Shape
from cellspec.model.shapes import broadcast


class TypecheckError(Exception):
    """A pass has produced a program that is not well formed: a bug in cellspec, stopped at the pass that made it."""


def size(shape: Shape) -> sympy.Expr:
    """The number of elements."""
    return sympy.expand(sympy.Mul(*shape))


def is_one(shape: Shape) -> bool:
    """Whether a value of this shape is a single number."""
    return all(axis == 1 for axis in shape)


def turned(shape: Shape, transposed: bool) -> Shape:
    """The shape of a matrix, or of each head's matrix, transposed or not."""
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def product(left: Shape, right: Shape) -> Shape | None:
    """The shape of ``left @ right``: ``[m, k] @ [k]``, ``[m, k] @ [k, n]``, by heads ``[n, m, k] @ [n, k]``; or None."""
    if len(left) == 3:
        return left[:2] if right == (left[0], left[2]) else None
    return (left[0], *right[1:]) if len(left) == 2 and left[1:] == right[:1] else None


def outer(left: Shape, right: Shape) -> Shape:
    """The shape of ``left rightᵀ``, for each head if they have heads."""
    return (*left, right[-1])


def stretched(shapes: Iterable[Shape]) -> Shape:
    """The shape to which values of these shapes stretch together."""
    result: Shape = ()
    for shape in shapes:
        wider = broadcast(result, shape)
        if wider is None:
            raise TypecheckError(f"shapes do not fit together: {result} and {shape}")
        result = wider
    return result


def stretches(small: Shape, large: Shape) -> bool:
    """Whether ``small`` broadcasts to ``large``: equal, or its axes of size 1 stretch, as the language allows."""
    if is_one(small):
        return len(small) <= len(large)
    return len(small) == len(large) and all(a in (b, 1) for a, b in zip(small, large, strict=True))
