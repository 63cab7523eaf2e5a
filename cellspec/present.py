"""A cell's equations for people and for SymPy: :func:`sympy_equations`, :func:`latex`, :func:`pretty`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE

from cellspec.cell import Apply, Cell, Concat, Const, DimValue, Eye, Kind, MatMul, Node, Ref, Roll, StopGradient, Transpose
from cellspec.functions import PRIMITIVES
from cellspec.typeset import assignments, latex, pretty

__all__ = ["Joined", "Matmul", "Transposed", "latex", "pretty", "sympy_equations"]

TIME = sympy.Symbol("t", integer=True)


class Matmul(sympy.Function):  # type: ignore[misc]
    """``A @ b``, a product of matrices or of a matrix and a vector. It stays as it is; all other operations are elementwise."""

    nargs = 2
    precedence = PRECEDENCE["Mul"]

    def _sympystr(self, printer: Any) -> str:
        left, right = (printer.parenthesize(arg, self.precedence, strict=False) for arg in self.args)
        return f"{left} @ {right}"

    def _latex(self, printer: Any) -> str:
        left, right = (printer.parenthesize(arg, self.precedence, strict=False) for arg in self.args)
        return f"{left} {right}"


class Transposed(sympy.Function):  # type: ignore[misc]
    """``A.T`` of a matrix."""

    nargs = 1

    def _sympystr(self, printer: Any) -> str:
        return f"{printer.parenthesize(self.args[0], PRECEDENCE['Func'])}.T"

    def _latex(self, printer: Any) -> str:
        return rf"{printer.parenthesize(self.args[0], PRECEDENCE['Func'])}^{{\top}}"


class Joined(sympy.Function):  # type: ignore[misc]
    """``[a, b, …]``: vectors one after the other."""

    def _sympystr(self, printer: Any) -> str:
        return f"[{', '.join(printer._print(arg) for arg in self.args)}]"

    def _latex(self, printer: Any) -> str:
        return rf"\left[{'; '.join(printer._print(arg) for arg in self.args)}\right]"


def sympy_equations(cell: Cell) -> tuple[sympy.Eq, ...]:
    """The equations of ``cell`` as SymPy equalities, in dependency order.

    Parameters are symbols. What changes from step to step carries its time: ``h[t]``, ``h[t-1]``, ``x[t]``, ``i[t]``, elements
    of an ``IndexedBase`` with an integer symbol ``t``. Products and functions act elementwise; ``A @ b`` is a :class:`Matmul`.
    """
    return tuple(sympy.Eq(_convert(e.target), _convert(e.value), evaluate=False) for e in assignments(cell))


def _convert(node: Node) -> Any:
    match node:
        case Const(value=value):
            return sympy.Rational(repr(value))
        case DimValue(value=value):
            return value
        case Ref(name=name, kind=kind):
            if kind in (Kind.PARAM, Kind.DERIVED):
                return sympy.Symbol(name)
            return sympy.IndexedBase(name)[TIME - 1 if kind is Kind.PREVIOUS else TIME]
        case MatMul(left=left, right=right):
            return Matmul(_convert(left), _convert(right))
        case Transpose(operand=operand):
            return Transposed(_convert(operand))
        case Eye(shape=shape):
            return sympy.Function("eye")(shape[0])
        case Concat(parts=parts):
            return Joined(*map(_convert, parts))
        case Roll(operand=operand, shift=shift):
            return sympy.Function("roll")(_convert(operand), shift)
        case StopGradient(operand=operand):
            return sympy.Function("stop_gradient")(_convert(operand))
        case Apply(function="where", args=(condition, a, b)):
            return sympy.Piecewise((_convert(a), _condition(condition)), (_convert(b), True))
        case Apply(function=function, args=args):
            build = _OWN.get(function) or PRIMITIVES[function].symbol
            return build(*map(_convert, args))


def _condition(node: Node) -> Any:
    match node:
        case Apply(function=function, args=(a, b)) if function in _RELATIONS:
            return _RELATIONS[function](_convert(a), _convert(b))
        case _:
            return sympy.Ne(_convert(node), 0)


_RELATIONS: dict[str, Callable[..., Any]] = {
    "lt": sympy.Lt,
    "le": sympy.Le,
    "gt": sympy.Gt,
    "ge": sympy.Ge,
    "eq": sympy.Eq,
    "ne": sympy.Ne,
}

_OWN: dict[str, Callable[..., Any]] = {
    "exp": sympy.exp,
    "log": sympy.log,
    "sqrt": sympy.sqrt,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tanh": sympy.tanh,
    "erf": sympy.erf,
    "abs": sympy.Abs,
    "sign": sympy.sign,
    "floor": sympy.floor,
    "max": sympy.Max,
    "min": sympy.Min,
    "mod": sympy.Mod,
}
"""Functions that SymPy knows itself; the others are those of the table of primitives."""
