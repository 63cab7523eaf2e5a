"""A cell's equations for people and for SymPy: :func:`sympy_equations`, :func:`latex`, :func:`pretty`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE

from cellspec.model.equations import Equations
from cellspec.model.nodes import (
    Along,
    Apply,
    Concat,
    Const,
    DimValue,
    Eye,
    Inverse,
    Kind,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    StopGradient,
    Transpose,
    of_family,
)
from cellspec.model.primitives import PRIMITIVES
from cellspec.render.latex import latex
from cellspec.render.unicode import assignments, pretty

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


def sympy_equations(cell: Equations) -> tuple[sympy.Eq, ...]:
    """The equations of ``cell`` as SymPy equalities, in dependency order.

    Parameters are symbols. What changes from step to step carries its time: ``h[t]``, ``h[t-1]``, ``x[t]``, ``i[t]``, elements
    of an ``IndexedBase`` with an integer symbol ``t``; a member of a family carries its index before that, ``s[1, t]``.
    Products and functions act elementwise; ``A @ b`` is a :class:`Matmul`.
    """
    convert = _Converter(cell)
    return tuple(sympy.Eq(convert(e.target), convert(e.value), evaluate=False) for e in assignments(cell))


class _Converter:
    """Nodes of one cell -> SymPy."""

    def __init__(self, cell: Equations) -> None:
        self.lags = {state.name: state.lag_of for state in cell.states if state.lag_of is not None}

    def __call__(self, node: Node) -> Any:
        match node:
            case Const(value=value):
                return sympy.Rational(repr(value))
            case DimValue(value=value):
                return value
            case StopGradient(operand=Ref(name="t_now")):
                return TIME
            case Ref():
                return self.ref(node)
            case Member(family=family, index=index):
                return sympy.IndexedBase(family.name)[index]
            case MatMul(left=left, right=right):
                return Matmul(self(left), self(right))
            case Transpose(operand=operand):
                return Transposed(self(operand))
            case Eye(shape=shape):
                return sympy.Function("eye")(shape[0])
            case Concat(parts=parts):
                return Joined(*map(self, parts))
            case Roll(operand=operand, shift=shift):
                return sympy.Function("roll")(self(operand), shift)
            case Inverse(operand=operand):
                return sympy.Function("inv")(self(operand))
            case OuterProduct(left=left, right=right):
                return sympy.Function("outer")(self(left), self(right))
            case StopGradient(operand=operand):
                return sympy.Function("stop_gradient")(self(operand))
            case Along(function=function, args=args):
                return sympy.Function(function)(*map(self, args))
            case Apply(function="where", args=(condition, a, b)):
                return sympy.Piecewise((self(a), self.condition(condition)), (self(b), True))
            case Apply(function=function, args=args):
                row = PRIMITIVES[function]
                build = row.in_sympy or row.symbol
                return build(*map(self, args))

    def ref(self, ref: Ref) -> Any:
        """A symbol, or an element of an ``IndexedBase`` where there is an index or a time."""
        name, back = self.lags.get(ref.name, (ref.name, ref.steps)) if ref.steps else (ref.name, 0)
        family, index = of_family(name) or (name, None)
        subscripts = [] if index is None else [sympy.Integer(index)]
        if ref.kind not in (Kind.PARAM, Kind.DERIVED):
            subscripts.append(TIME - back)
        return sympy.IndexedBase(family)[tuple(subscripts)] if subscripts else sympy.Symbol(family)

    def condition(self, node: Node) -> Any:
        """A comparison as a relation."""
        match node:
            case Apply(function=function, args=(a, b)) if function in _RELATIONS:
                return _RELATIONS[function](self(a), self(b))
            case _:
                return sympy.Ne(self(node), 0)


_RELATIONS: dict[str, Callable[..., Any]] = {
    "lt": sympy.Lt,
    "le": sympy.Le,
    "gt": sympy.Gt,
    "ge": sympy.Ge,
    "eq": sympy.Eq,
    "ne": sympy.Ne,
}
