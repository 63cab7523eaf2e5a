"""What a row of the table of pointwise functions holds, and what products of powers are divided by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import sympy

from cellspec.model.spelling import Spelling

Expr = Any  # a SymPy expression; SymPy's operators are untyped


class Want(Enum):
    """What a function needs of an argument: how an error of the argument that is small beside 1 comes out."""

    RATIO = "magnified without bound near 0, so it must be small beside the argument itself"
    SAME = "as large: the result is as accurate beside itself as the argument"
    LITTLE = "small beside the result too"
    SIDE = "not at all, but for the side of a jump on which the argument lies"


class Size(Enum):
    """How large a result can be."""

    BOUNDED = "moderate, whatever the argument"
    KEEPS = "about as large as an argument, or moderate"
    GROWS = "huge for a moderate argument"


class Sign(Enum):
    """The sign of a result."""

    ANY = "unknown"
    NOT_NEGATIVE = "never negative"
    SAME = "that of the argument"


class Least(Enum):
    """How far a result stays away from 0."""

    NOTHING = "nothing is known"
    SAME = "as far as the argument"
    ROOT = "as far as the root of the argument"
    GREATEST = "as far as any argument that is not negative; if there is one, the result is not negative either"


@dataclass(frozen=True)
class Primitive:
    """A pointwise function of the spec language.

    ``definition(*args)`` is an ordinary SymPy expression, exact but not always stable: the oracle's reading of the function.
    ``derivatives[k](*args, y)`` is the partial derivative by argument ``k``, with ``y`` the result.
    ``numpy(*args)`` makes it of NumPy ufuncs, stable for any finite argument; so do targets without a word of their own for it.
    ``spellings`` are those words, by target; one that begins with ``_`` is a function whose source a backend's modules bring
    along.
    ``in_sympy`` is SymPy's own function of that meaning, if it has one, for people to go on with.
    ``domain`` is where tests sample the arguments; ``kinks`` are points at which a derivative jumps.
    ``listed`` tells whether a spec may call it by name (``add`` is written ``+``).
    ``rounds`` is False where every result is a whole number, or one of the arguments up to its sign.
    ``slope_beside_one`` tells that the derivative is made of the result, ``1 - y*y``: it is rounded beside 1, however small.
    ``in_place`` is False where what computes the function cannot write its result over an argument.

    What :mod:`cellspec.passes.accuracy` asks: ``wants`` says, for each argument, what the result needs of it; ``size`` how
    large the result can be, and ``least`` how small; ``sign`` which sign it has; ``complement(x)``, if not None, is 1 - f(x)
    without cancellation.
    """

    name: str
    arity: int
    definition: Callable[..., Expr]
    derivatives: tuple[Callable[..., Expr], ...]
    numpy: Callable[..., Expr]
    symbol: Any
    domain: tuple[float, float] = (-3.0, 3.0)
    kinks: tuple[float, ...] = ()
    listed: bool = True
    spellings: Mapping[str, Spelling] = field(default_factory=dict)
    wants: tuple[Want, ...] = ()
    size: Size = Size.KEEPS
    sign: Sign = Sign.ANY
    least: Least = Least.NOTHING
    rounds: bool = True
    slope_beside_one: bool = False
    in_place: bool = True
    complement: Callable[..., Expr] | None = None
    in_sympy: Callable[..., Expr] | None = None


def ufunc(name: str) -> Callable[..., Expr]:
    """An inert SymPy function that stands for the NumPy ufunc ``name``."""
    made: Callable[..., Expr] = sympy.Function(name)
    return made


def divides(factor: Expr) -> bool:
    """Whether a factor of a product is a negative power, by which the product is divided."""
    return isinstance(factor, sympy.Pow) and bool(factor.exp.could_extract_minus_sign())


def divisors(power: Expr) -> list[Expr]:
    """What to divide by, one after the other, for the factor ``power``: ``[b, b]`` for b**-2.

    ``a/b/b`` lies between ``a/b`` and its result, so no step leaves the range, while b**2 may.
    """
    over = 1 / power
    if isinstance(over, sympy.Pow) and over.exp.is_Integer and over.exp > 1:
        half = over.exp // 2
        return [over.base] * int(over.exp) if over.exp <= 8 else [over.base**half, over.base ** (over.exp - half)]
    return [over]
