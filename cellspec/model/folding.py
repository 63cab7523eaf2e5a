"""Constants: what a pointwise function makes of numbers, by the function's own definition.

Whatever stands for a number, be it a file's text, a loop's index or what SymPy has left of an expression, is folded here: a
constant is an exact fraction or a float64, finite and real, or there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import sympy

from cellspec.model.primitives import PRIMITIVES

LARGEST_INTEGER = 2**53
LARGEST = sys.float_info.max
FLOAT_DIGITS = 17
"""Decimal digits to which SymPy computes with float64s: a few bits more than they have."""
DIGITS = 350
"""Decimal digits of an evaluation: ``log(1 + exp(-740))`` is found behind 322 zeros."""

_NUMBERS = (sympy.Number, sympy.NumberSymbol, type(sympy.I), type(sympy.zoo))


def folded(function: str, args: Sequence[sympy.Expr]) -> sympy.Expr | None:
    """``function(*args)`` of numbers, or of dims; None where that is no finite real number.

    Of dims, whose sizes are not known, a function is left as it stands: ``sqrt(H)``.
    """
    row = PRIMITIVES[function]
    if not row.derivatives:  # arithmetic: SymPy's own
        return tame(row.definition(*args))
    if function == "where" and args[0].is_number:
        return args[1] if args[0] != 0 else args[2]
    if not all(arg.is_number for arg in args):
        return row.symbol(*args)
    result = _evaluated(function, *(sympy.Rational(arg) if arg.is_Float else arg for arg in args))
    if result is not None and result.is_Rational and any(arg.is_Float for arg in args):
        return sympy.Float(float(result), FLOAT_DIGITS)
    return result


@cache
def _evaluated(function: str, *args: sympy.Expr) -> sympy.Expr | None:
    """A function of exact numbers, so that ties are ties; what stands in loops and local functions is asked for often."""
    return tame(sympy.sympify(PRIMITIVES[function].definition(*args)))


def tame(value: sympy.Expr) -> sympy.Expr | None:
    """``value``, a number as a small fraction or else as a float64; None where it is none that is finite and real."""
    if not is_finite(value):
        return None
    if not value.is_number:
        return value
    if value.is_Rational and abs(value.p) <= LARGEST_INTEGER and value.q <= LARGEST_INTEGER:
        return value
    try:
        number = float(sympy.N(value, DIGITS))
    except (OverflowError, TypeError, ValueError):
        return None
    return sympy.Float(number, FLOAT_DIGITS) if abs(number) < float("inf") else None


def number(value: int | float) -> sympy.Expr:
    """A Python number as an expression."""
    return sympy.Integer(value) if isinstance(value, int) else sympy.Float(value, FLOAT_DIGITS)


def is_finite(expr: sympy.Expr) -> bool:
    """Whether every number in ``expr`` is a float64, not infinite, complex or none at all, as SymPy makes of ``1/0``."""
    return all(atom.is_finite and atom.is_real and abs(atom) <= LARGEST for atom in expr.atoms(*_NUMBERS))
