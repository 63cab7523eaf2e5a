"""What stands in the brackets of ``h[t-1]`` and ``R[0]``."""

from __future__ import annotations

from cellspec.language.check.shapes import Constants, fold
from cellspec.language.spec import Binary, Expr, Name, Unary, bare


def time_offset(index: Expr, constants: Constants) -> tuple[float, float] | None:
    """``index`` as ``a*t + b``: ``(1, -1)`` for ``t-1``, ``(0, 2)`` for ``2``; None where it is nothing of the kind."""
    match bare(index):
        case Name(id="t"):
            return 1, 0
        case Unary(op="-", operand=operand) if (inner := time_offset(operand, constants)) is not None:
            return -inner[0], -inner[1]
        case Binary(op="+" | "-" as op, left=left, right=right):
            a, b = time_offset(left, constants), time_offset(right, constants)
            sign = 1 if op == "+" else -1
            return None if a is None or b is None else (a[0] + sign * b[0], a[1] + sign * b[1])
        case _:
            value = fold(index, constants)
            return None if value is None else (0, value)
