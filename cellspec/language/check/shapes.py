"""Constants and shapes: numbers folded from expressions, dim polynomials, and how shapes align.

Dim expressions are built node by node over ``sympy.Symbol(dim)`` and kept expanded, so that equal shapes compare equal.
Nothing here parses text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import sympy

from cellspec.errors import Reporter
from cellspec.language.spec import Binary, Call, Compare, Expr, Inlined, Name, Number, Unary, Unread, bare
from cellspec.language.unparse import source
from cellspec.model.folding import LARGEST_INTEGER, folded, number
from cellspec.model.primitives import CALLABLE, PRIMITIVES

Constant = int | float
Constants = Mapping[str, Constant]

MOST_TERMS = 32
"""A dim expression with more terms than this is refused: nobody means it, and expanding it may take for ever."""

_COMPARE: Mapping[str, Callable[[Constant, Constant], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def fold(expr: Expr, constants: Constants) -> Constant | None:
    """The number that ``expr`` is, made of numbers, ``constants`` and pointwise functions alone; None for anything else.

    Integers stay exact up to 2**53 and become floats beyond, so that no spec can ask for astronomically long ones.
    """
    match expr:
        case Number(value=value):
            return _tame(value)
        case Name(id=name):
            return constants.get(name)
        case Unary(op="-", operand=operand):
            inner = fold(operand, constants)
            return None if inner is None else -inner
        case Inlined(body=body):
            return fold(body, constants)
        case Binary(op=op, left=left, right=right) if op != "@":
            a, b = fold(left, constants), fold(right, constants)
            return None if a is None or b is None else _arithmetic(op, a, b)
        case Call(function="where", args=(condition, yes, no)):
            decided = decide(condition, constants)
            return None if decided is None else fold(yes if decided else no, constants)
        case Call(function=function, args=args) if function in CALLABLE and len(args) == PRIMITIVES[function].arity:
            values = [fold(arg, constants) for arg in args]
            known = [number(value) for value in values if value is not None]
            result = folded(function, known) if len(known) == len(values) else None
            return None if result is None else int(result) if result.is_Integer else float(result)
        case _:
            return None


def decide(condition: Expr, constants: Constants) -> bool | None:
    """Whether a comparison of constants holds; None where it is not one."""
    match bare(condition):
        case Compare(op=op, left=left, right=right):
            a, b = fold(left, constants), fold(right, constants)
            return None if a is None or b is None else _COMPARE[op](a, b)
        case _:
            return None


def _tame(value: Constant) -> Constant | None:
    """``value`` with long integers made floats; None where it is not finite."""
    try:
        tame = float(value) if isinstance(value, int) and abs(value) > LARGEST_INTEGER else value
    except OverflowError:
        return None
    return tame if math.isfinite(tame) else None


def _arithmetic(op: str, a: Constant, b: Constant) -> Constant | None:
    try:
        match op:
            case "+":
                return _tame(a + b)
            case "-":
                return _tame(a - b)
            case "*":
                return _tame(a * b)
            case "/":
                return _tame(a / b)
            case _:
                power = float(a) ** float(b)
    except (ZeroDivisionError, OverflowError):
        return None
    if isinstance(power, complex) or not math.isfinite(power):
        return None
    whole = isinstance(a, int) and isinstance(b, int) and b >= 0 and abs(power) <= LARGEST_INTEGER
    return int(power) if whole else power


def dim_polynomial(
    expr: Expr, resolve: Callable[[Name], sympy.Expr | None], reporter: Reporter, *, fractions: bool = False
) -> sympy.Expr | None:
    """``expr`` as an expanded polynomial; None after reporting why it is none.

    ``resolve`` gives the value of a name, or reports it and gives None. ``fractions`` allows division by a number.
    """
    grammar = "+, -, * and /" if fractions else "+, - and *"

    def build(part: Expr) -> sympy.Expr | None:
        match part:
            case Number(value=int(value)):
                return bounded(part, sympy.Integer(value))
            case Name():
                return resolve(part)
            case Unread():
                return None
            case Inlined(body=body):
                return build(body)
            case Unary(op="-", operand=operand):
                inner = build(operand)
                return None if inner is None else bounded(part, -inner)
            case Binary(op="+" | "-" | "*" | "/" | "**" as op, left=left, right=right) if fractions or op not in ("/", "**"):
                a, b = build(left), build(right)
                return None if a is None or b is None else combine(part, op, a, b)
            case _:
                allowed = f"a dim expression is made of dims, whole numbers, {grammar}"
                reporter.error(part.at, f"{source(part)!r} cannot stand here: {allowed}")
                return None

    def combine(part: Expr, op: str, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        match op:
            case "+":
                return bounded(part, a + b)
            case "-":
                return bounded(part, a - b)
            case "*":
                return bounded(part, a * b)
            case "/" if b.is_Number and b != 0:
                return bounded(part, a / b)
            case "**" if b.is_Integer and 0 <= int(b) <= 4:
                return bounded(part, a ** int(b))
            case _:
                reporter.error(part.at, f"{source(part)!r} is no polynomial in the dims")
                return None

    def bounded(part: Expr, value: sympy.Expr) -> sympy.Expr | None:
        expanded = expand(value)
        if expanded is None:
            reporter.error(part.at, f"the dim expression {source(part)!r} is too complicated")
        return expanded

    return build(expr)


def expand(value: sympy.Expr) -> sympy.Expr | None:
    """``value`` expanded, or None where that has too many terms or too large numbers for a dim."""
    expanded = sympy.expand(value)
    terms = sympy.Add.make_args(expanded)
    small = all(abs(term.as_coeff_Mul()[0]) < LARGEST_INTEGER for term in terms)
    return expanded if small and len(terms) <= MOST_TERMS else None
