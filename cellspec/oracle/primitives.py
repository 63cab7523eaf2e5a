"""Primitives as numbers: values and partial derivatives in float64, compiled from the ``definition`` column alone.

Partial derivatives are ``sympy.diff`` of the definition; the Piecewise definitions are written so that the derivative of
the branch in force is the documented convention at a kink.

Definitions are exact but not always stable. ``log(1 + …)`` and ``exp(…) - 1`` are evaluated by SymPy's own rewriting as
``log1p`` and ``expm1``, and an element that comes out infinite or NaN though its arguments are finite is evaluated again
with mpmath. There 1200 bits hold ``1 + exp(-x)`` for every ``x`` whose exponential is a float64 (``exp(-745) = 2**-1074``).
So is one that comes out NaN because a single argument is infinite, as a state may start: it is the limit, where there is one.
What is left is cancellation as in ``1 - tanh(x)**2``: an absolute error of 1e-16, all that can be asked of float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import sympy
from sympy.codegen.rewriting import expm1_opt, log1p_opt, optimize
from sympy.core.relational import Eq, Ne, Relational

from cellspec.model.primitives import PRIMITIVES

Array = npt.NDArray[np.float64]

BITS = 1200
"""Working precision of the second evaluation."""

_erf, _erfc = np.frompyfunc(math.erf, 1, 1), np.frompyfunc(math.erfc, 1, 1)
_NUMPY = [
    {
        "_Floor": np.floor,
        "erf": lambda x: np.asarray(_erf(x), dtype=np.float64),
        "erfc": lambda x: np.asarray(_erfc(x), dtype=np.float64),
    },
    "numpy",
]
_MPMATH = [{"_Floor": mpmath.floor}, "mpmath"]


@dataclass(frozen=True)
class Compiled:
    """A scalar expression over the arguments ``symbols``, ready to be evaluated on arrays."""

    expression: sympy.Expr
    symbols: tuple[sympy.Symbol, ...]
    numpy: Callable[..., Any]
    mpmath: Callable[..., Any]
    branches: bool
    """Whether there are conditions, which SymPy joins in a way that takes arrays of one shape alone."""

    def __call__(self, args: Sequence[Array]) -> Array:
        """The expression at ``args``, elementwise; the arguments broadcast against each other."""
        shape = args[0].shape if len(args) == 1 else np.broadcast_shapes(*(arg.shape for arg in args))
        even = np.broadcast_arrays(*args) if self.branches and len(args) > 1 else args
        with np.errstate(all="ignore"):
            result = np.asarray(self.numpy(*even), dtype=np.float64)
        if result.shape != shape:  # a derivative that does not depend on every argument
            result = np.array(np.broadcast_to(result, shape))
        if not np.isfinite(result).all():
            result, arrays = np.array(result), np.broadcast_arrays(*args)
            infinite = np.sum([np.isinf(array) for array in arrays], axis=0)
            defined = ~np.any([np.isnan(array) for array in arrays], axis=0)
            again = np.where(infinite == 0, ~np.isfinite(result), (infinite == 1) & np.isnan(result))
            for index in np.argwhere(defined & again):
                place = tuple(index)
                at = [float(array[place]) for array in arrays]
                result[place] = self._limit(at) if infinite[place] else self._again(at, float(result[place]))
        return result

    def _limit(self, args: Sequence[float]) -> float:
        """The limit as the infinite one of ``args`` is approached: what two huge numbers in its place agree on, else NaN."""
        huge = [[math.copysign(size, arg) if math.isinf(arg) else arg for arg in args] for size in (1e290, 1e300)]
        one, other = (self._again(at, math.nan) for at in huge)
        return other if math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-280) else math.nan

    def _again(self, args: Sequence[float], otherwise: float) -> float:
        """One element with mpmath, or ``otherwise`` where the expression has no finite real value there."""
        with mpmath.workprec(BITS):
            try:
                value = self.mpmath(*(mpmath.mpf(arg) for arg in args))
            except (ZeroDivisionError, ValueError):
                return otherwise
            if isinstance(value, mpmath.mpc):
                return otherwise
            return float(value)


def compile_scalar(expression: sympy.Expr, symbols: tuple[sympy.Symbol, ...]) -> Compiled:
    """``expression`` as a function of ``symbols`` on arrays."""
    expression = sympy.sympify(expression)
    stable = optimize(expression, (log1p_opt, expm1_opt))
    return Compiled(
        expression,
        symbols,
        sympy.lambdify(symbols, stable, modules=_NUMPY),
        sympy.lambdify(symbols, expression, modules=_MPMATH),
        expression.has(sympy.Piecewise),
    )


@dataclass(frozen=True)
class Rule:
    """A primitive as the oracle knows it: its value, its partial derivatives, where these may jump and where they grow."""

    value: Compiled
    partials: tuple[Compiled, ...]
    jumps: tuple[Compiled, ...]
    steps: tuple[Compiled, ...]
    edges: tuple[Compiled, ...]

    def distance_to_kink(self, args: Sequence[Array]) -> float:
        """How near ``args`` come to a point where the function or a derivative jumps; infinity if there is none.

        Jumps are where the two sides of an inequality of the definition meet, and where the argument of a floor is an integer.
        Where a logarithm's argument, a denominator or the base of a root is zero, derivatives grow without bound already
        nearby: 1/100 of the distance counts.
        """
        with np.errstate(all="ignore"):
            gaps = [np.abs(side(args)) for side in self.jumps]
            gaps += [np.abs(value - np.rint(value)) for value in (argument(args) for argument in self.steps)]
            gaps += [np.abs(edge(args)) / 100 for edge in self.edges]
        return min((float(np.min(np.where(np.isnan(gap), np.inf, gap))) for gap in gaps if gap.size), default=float("inf"))


@cache
def rule(name: str, exponent: sympy.Expr | None = None) -> Rule:
    """The rule of the primitive ``name``.

    A constant ``exponent`` of ``pow`` becomes part of the definition, so that the derivative of ``x**2`` is ``2*x`` also at 0.
    The rule still takes two arguments then, and its derivative by the second is zero.
    """
    primitive = PRIMITIVES[name]
    symbols = tuple(sympy.Symbol(f"a{k}") for k in range(primitive.arity))
    args = symbols if exponent is None else (symbols[0], exponent)
    definition = sympy.sympify(primitive.definition(*args))
    # Equalities are left out: a condition is a comparison, which is watched where it is made.
    inequalities = [c for c in definition.atoms(Relational) if not isinstance(c, Eq | Ne)]
    floors = [atom for atom in definition.atoms(sympy.Function) if type(atom).__name__ == "_Floor"]
    logs = {atom.args[0] for atom in definition.atoms(sympy.log)}
    roots = {power.base for power in definition.atoms(sympy.Pow) if not (power.exp.is_Integer and power.exp >= 0)}
    real = {symbol: sympy.Symbol(symbol.name, real=True) for symbol in symbols}
    edges = [edge for edge in logs | roots if edge.free_symbols and not _at_least_one(edge.subs(real))]
    return Rule(
        value=compile_scalar(definition, symbols),
        partials=tuple(compile_scalar(sympy.diff(definition, symbol), symbols) for symbol in symbols),
        jumps=tuple(compile_scalar(c.lhs - c.rhs, symbols) for c in sorted(inequalities, key=str)),
        steps=tuple(compile_scalar(floor.args[0], symbols) for floor in sorted(floors, key=str)),
        edges=tuple(compile_scalar(edge, symbols) for edge in sorted(edges, key=str)),
    )


def _at_least_one(expression: sympy.Expr) -> bool:
    """Whether SymPy sees that ``expression`` is never below 1, as ``1 + exp(-x)``."""
    return bool((expression - 1).is_nonnegative)
