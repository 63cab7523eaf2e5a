"""Pointwise expressions, and their derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import sympy

from cellspec.ir.ops.along import SumTo
from cellspec.ir.ops.row import Backward, ErrorFlow, Single, Traits, symbol
from cellspec.ir.shapes import TypecheckError, stretches
from cellspec.model.nodes import Shape
from cellspec.model.primitive import divides


@dataclass(frozen=True)
class Pointwise(Single):
    """``out = expr``: a SymPy expression over the values' symbols, with broadcasting; dims may stand in it as numbers."""

    expr: sympy.Expr

    traits = Traits(errors=ErrorFlow.EXPRESSION, cheap=True, crosses_units=False)
    """It is cheap as far as its expression is: see :mod:`cellspec.passes.residuals`."""

    def reads(self) -> tuple[str, ...]:
        """The names in the expression, sorted, dims included."""
        return tuple(sorted(s.name for s in self.expr.free_symbols))

    def reading(self, names: Mapping[str, str]) -> Pointwise:
        return replace(self, expr=self.expr.xreplace({symbol(a): symbol(b) for a, b in names.items()}))

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        if self.expr.has(sympy.zoo, sympy.nan):
            raise TypecheckError(f"{self.out!r} is not a number: {self.expr}")
        return all(stretches(shapes[name], shapes[self.out]) for name in self.reads() if name in shapes)

    def source(self) -> str | None:
        return str(self.expr.name) if self.expr.is_Symbol else None

    def transpose(self, back: Backward, d_out: str) -> None:
        """``d:name += d:out * ∂expr/∂name``, summed over the axes along which ``name`` was stretched."""
        for name in self.reads():
            if not back.wants(name):
                continue
            term = symbol(d_out) * derivative(self.expr, symbol(name), symbol(self.out))
            small, large = back.shape(name), back.shape(self.out)
            if small != large and term != 0:
                full = back.emit(Pointwise(f"{d_out}*{name}'", term), large, self.out)
                term = back.emit(SumTo(f"sum({full.name})", full.name), small, self.out)
            back.add(name, term)


def derivative(expr: sympy.Expr, by: sympy.Symbol, out: sympy.Symbol) -> sympy.Expr:
    """The derivative of ``out = expr``, in terms of ``out`` where a function's row is, and where ``expr`` is a quotient.

    ``q = a/b`` has the derivative ``-q/b`` by b: no square of b, which leaves the range where the derivative does not.
    """
    below = [factor for factor in sympy.Mul.make_args(expr) if divides(factor) and factor.has(by)]
    above = expr / sympy.Mul(*below)
    slopes = (factor.exp * differential(factor.base, by) / factor.base for factor in below)
    return sympy.Add(
        (differential(above, by) * sympy.Mul(*below)).xreplace({expr: out}),
        *(out * slope for slope in slopes),
    )


def differential(expr: sympy.Expr, by: sympy.Symbol) -> sympy.Expr:
    """``∂expr/∂by``, as :func:`sympy.diff` has it; that asks of every part whether it is zero, ten times as long."""
    if by not in expr.free_symbols:
        return sympy.Integer(0)
    match expr:
        case sympy.Symbol():
            return sympy.Integer(1)
        case sympy.Add(args=args):
            return sympy.Add(*(differential(arg, by) for arg in args))
        case sympy.Mul(args=args):
            return sympy.Add(*(sympy.Mul(*args[:k], differential(arg, by), *args[k + 1 :]) for k, arg in enumerate(args)))
        case sympy.Pow(base=base, exp=exponent) if by not in exponent.free_symbols:
            return expr * (differential(base, by) * exponent / base)
        case sympy.Function(args=args):
            return sympy.Add(*(expr.fdiff(k) * differential(a, by) for k, a in enumerate(args, 1) if by in a.free_symbols))
        case _:
            return sympy.diff(expr, by)
