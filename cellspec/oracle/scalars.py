"""Equations as scalars: each element of each equation one SymPy expression over the elements it reads, and its derivatives.

The definitions of all functions are written out. Where that would make expressions too long (the operands of products, what
has branches, the operands and results of functions along an axis, the steps of an elimination) elements get symbols, as if the
spec had named them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import sympy

from cellspec.model.equations import Equation
from cellspec.model.nodes import (
    Along,
    Apply,
    Concat,
    Const,
    DimValue,
    Eye,
    Inverse,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    StopGradient,
    Transpose,
)
from cellspec.model.primitives import PRIMITIVES
from cellspec.oracle.values import constant, size, sizes

Elements = npt.NDArray[np.object_]  # SymPy expressions, mpmath numbers, or positions on the tape


class Frozen(sympy.Function):  # type: ignore[misc]
    """The identity with derivative zero: ``stop_gradient``."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Zero, by its meaning."""
        return sympy.Integer(0)


class Power(sympy.Function):  # type: ignore[misc]
    """``base**exponent`` with a constant exponent, about which SymPy asks no questions.

    1/3 is the float nearest to it, a fraction of two numbers of 16 digits: as an exponent of SymPy's own power it makes
    polynomials of that degree.
    """

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """The derivative by the base."""
        base, exponent = self.args
        return exponent * Power(base, exponent - 1)


class NoValue(ValueError):
    """An equation has no value whatever it reads: one sentence."""


class Formula:
    """An expression of the symbols :func:`nth` 0, 1, …, with its derivatives by each, ready to be evaluated.

    Most elements of an equation are one formula at different places: it is differentiated and compiled once.
    """

    def __init__(self, expression: sympy.Expr, count: int) -> None:
        self.symbols = tuple(nth(k) for k in range(count))
        self.row = (expression, *(sympy.diff(expression, symbol) for symbol in self.symbols))

    def evaluate(self, values: Sequence[Any]) -> Sequence[Any]:
        """Value and derivatives at ``values``.

        Common subexpressions are computed once, and so also those of branches that are not taken. Where these have no value
        every expression is evaluated by itself.
        """
        try:
            return self._together(*values)
        except (ZeroDivisionError, ValueError):
            return self._one_by_one(*values)

    @cached_property
    def _together(self) -> Callable[..., Sequence[Any]]:
        return self._compiled(cse=True)

    @cached_property
    def _one_by_one(self) -> Callable[..., Sequence[Any]]:
        return self._compiled(cse=False)

    def _compiled(self, *, cse: bool) -> Callable[..., Sequence[Any]]:
        modules = [{"_Floor": mpmath.floor, "Frozen": lambda value: value, "Power": mpmath.power}, "mpmath"]
        compiled: Callable[..., Sequence[Any]] = sympy.lambdify(self.symbols, self.row, modules=modules, cse=cse)
        return compiled


@cache
def formula(expression: sympy.Expr, count: int) -> Formula:
    """The formula of an expression in the first ``count`` places; remembered."""
    return Formula(expression, count)


def nth(number: int) -> sympy.Symbol:
    """The symbol of a number. SymPy sorts terms by names: names sort as their numbers do."""
    return sympy.Symbol(f"v{number:08}")


@dataclass(frozen=True)
class Scalar:
    """One element of an equation: the elements it reads, and the formula that takes their values in this order."""

    reads: tuple[tuple[str, tuple[int, ...]], ...]
    formula: Formula


Block = list[tuple[str, Elements]]
"""An equation: labels and their scalars, in the order of evaluation; the equation's target comes last."""


class Writer:
    """Writes equations as scalar SymPy expressions, one symbol for each element of each name."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        self.dims = dims
        self.symbols: dict[tuple[str, tuple[int, ...]], sympy.Symbol] = {}
        self.parts: list[tuple[str, Elements]] = []
        self.numbers = itertools.count()

    def block(self, equation: Equation) -> Block:
        """The equation's elements, differentiated by all that they read. Raises :class:`NoValue` for ``1/(a - a)``."""
        self.parts = []
        right = np.broadcast_to(self(equation.value), sizes(equation.target.shape, self.dims))
        written = [*self.parts, (equation.target.label, right)]
        keys = {symbol: key for key, symbol in self.symbols.items()}

        def scalar(expression: Any) -> Scalar:
            expression = sympy.sympify(expression)
            if expression.has(sympy.zoo, sympy.nan):
                raise NoValue(f"{equation.target.label} divides by what is always 0")
            reads = sorted(expression.free_symbols, key=lambda symbol: str(symbol.name))
            in_places = expression.xreplace({symbol: nth(k) for k, symbol in enumerate(reads)})
            return Scalar(tuple(keys[symbol] for symbol in reads), formula(in_places, len(reads)))

        return [(label, each(scalar, elements)) for label, elements in written]

    def __call__(self, node: Node) -> Elements:
        """The elements of ``node`` as expressions, an object array of its shape."""
        match node:
            case Const(value=value):
                number = sympy.Rational(value) if np.isfinite(value) else sympy.oo if value > 0 else -sympy.oo
                return filled((), lambda _: number)
            case DimValue(value=value):
                return filled((), lambda _: sympy.Integer(size(value, self.dims)))
            case Ref():
                return filled(sizes(node.shape, self.dims), lambda place: self._symbol(node.label, place))
            case Member(family=family, index=index):
                return filled(sizes(node.shape, self.dims), lambda place: self._symbol(family.label, (index, *place)))
            case Apply(function=function, args=args):
                folded = constant(args[1], self.dims) if function == "pow" else None
                if folded is not None and not (2 * folded).is_integer:
                    return each(lambda base: Power(base, folded), self._settled(self(args[0])))
                operands = [self(arg) for arg in args] if folded is None else [self(args[0]), filled((), lambda _: folded)]
                return each(PRIMITIVES[function].definition, *(self._settled(operand) for operand in operands))
            case Along(function=function, args=args):
                rows = np.broadcast_arrays(*(self._named(np.atleast_1d(self(arg))) for arg in args))
                kept = rows[0].shape[:-1]
                results = {place: ALONG[function](*(list(row[place]) for row in rows)) for place in np.ndindex(*kept)}
                shape = (*kept, len(next(iter(results.values()))))
                return self._named(filled(shape, lambda place: results[place[:-1]][place[-1]]))
            case MatMul(left=left, right=right):
                return _product(self._named(self(left)), self._named(self(right)))
            case OuterProduct(left=left, right=right):
                return np.asarray(self(left)[..., :, None] * self(right)[..., None, :], dtype=object)
            case Transpose(operand=operand):
                return self(operand).swapaxes(-1, -2)
            case Inverse(operand=operand):
                return self._inverse(self._named(self(operand)))
            case Eye(shape=shape):
                return filled(sizes(shape, self.dims), lambda place: sympy.Integer(int(place[0] == place[1])))
            case Concat(parts=parts):
                arrays = [np.atleast_1d(self(part)) for part in parts]
                lead = np.broadcast_shapes(*(array.shape[:-1] for array in arrays))
                return np.concatenate([np.broadcast_to(array, (*lead, array.shape[-1])) for array in arrays], axis=-1)
            case Roll(operand=operand, shift=shift):
                return np.roll(self(operand), shift, axis=-1)
            case StopGradient(operand=operand):
                return each(Frozen, self(operand))

    def _symbol(self, label: str, place: tuple[int, ...]) -> sympy.Symbol:
        return self.symbols.setdefault((label, place), nth(len(self.symbols)))

    def _named(self, elements: Elements) -> Elements:
        """``elements`` with a symbol in place of each that is neither a symbol nor a number; a part of the equation."""
        if all(sympy.sympify(element).is_Atom for element in elements.flat):
            return elements
        label = f"part {next(self.numbers)}"
        self.parts.append((label, elements))
        return filled(
            elements.shape, lambda at: elements[at] if sympy.sympify(elements[at]).is_Atom else self._symbol(label, at)
        )

    def _settled(self, elements: Elements) -> Elements:
        """``elements``, named if any has branches: SymPy would merge branches with branches, also with impossible ones."""
        branches = any(sympy.sympify(element).has(sympy.Piecewise) for element in elements.flat)
        return self._named(elements) if branches else elements

    def _inverse(self, matrix: Elements) -> Elements:
        """``inv(M)`` as ``inv(MᵀM) Mᵀ``, by elimination, which for ``MᵀM`` never meets a pivot that is zero."""
        count = len(matrix)
        rows = np.concatenate([_product(matrix.T, matrix), matrix.T], axis=1)
        for k in range(count):
            rows = self._named(rows)
            pivot = rows[k] / rows[k, k]
            rows = np.array([pivot if i == k else rows[i] - rows[i, k] * pivot for i in range(count)], dtype=object)
        return self._named(rows[:, count:])


def filled(shape: tuple[int, ...], element: Callable[[tuple[int, ...]], Any]) -> Elements:
    """An object array made of ``element(place)``."""
    array = np.empty(shape, dtype=object)
    for place in np.ndindex(*shape):
        array[place] = element(place)
    return array


def each(function: Callable[..., Any], *operands: Elements) -> Elements:
    """``function`` of the elements of ``operands``, which broadcast against each other."""
    arrays = np.broadcast_arrays(*operands)
    return filled(arrays[0].shape, lambda place: function(*(array[place] for array in arrays)))


def _product(left: Elements, right: Elements) -> Elements:
    """``left @ right`` over the last axis of ``left``; where both have heads, head by head."""
    if left.ndim == 3 and right.ndim == 2:
        return np.stack([_product(one, other) for one, other in zip(left, right, strict=True)])
    return np.asarray(np.dot(left, right), dtype=object)


# --- along the last axis, each for one row of elements -------------------------------------------------------

Row = list[Any]


def _sum(v: Iterable[Any]) -> Any:
    return sympy.Add(*v)


def _mean(v: Row) -> Any:
    return _sum(v) / len(v)


def _norm(v: Row) -> Any:
    """The derivative at zero is zero."""
    squares = _sum(a**2 for a in v)
    return sympy.Piecewise((0, sympy.Eq(squares, 0)), (sympy.sqrt(squares), True))


ALONG: dict[str, Callable[..., Row]] = {
    "sum": lambda v: [_sum(v)],
    "mean": lambda v: [_mean(v)],
    "var": lambda v: [_mean([(a - _mean(v)) ** 2 for a in v])],
    "norm": lambda v: [_norm(v)],
    "softmax": lambda v: [sympy.exp(a) / _sum(sympy.exp(b) for b in v) for a in v],
    "logsumexp": lambda v: [sympy.log(_sum(sympy.exp(a) for a in v))],
    "cumsum": lambda v: [_sum(v[: k + 1]) for k in range(len(v))],
    "dot": lambda v, w: [_sum(a * b for a, b in zip(v, w, strict=True))],
}
"""The definitions: from rows of elements to the elements of the result."""
