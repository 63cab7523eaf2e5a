"""How shapes align, and how they are written."""

from __future__ import annotations

import sympy

from cellspec.model.nodes import Shape

ONE = sympy.Integer(1)


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape of a pointwise operation, or None where the shapes do not align.

    Shapes align from the right; only an axis of size 1 stretches, and only an operand whose axes are all 1 may have fewer axes.
    """
    if len(a) < len(b):
        a, b = b, a
    if len(b) < len(a) and any(axis != ONE for axis in b):
        return None
    axes: list[sympy.Expr] = []
    for m, n in zip(a, (ONE,) * (len(a) - len(b)) + b, strict=True):
        if m != n and m != ONE and n != ONE:
            return None
        axes.append(n if m == ONE else m)
    return tuple(axes)


def show(shape: Shape) -> str:
    """``[H, H + I]``."""
    return f"[{', '.join(str(axis) for axis in shape)}]"
