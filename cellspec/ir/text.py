"""Programs as text, an operation a line, which :mod:`cellspec.ir.parse` reads back.

A name that could be taken for an operation stands in backticks: ``o*`tanh(c[t])` `` multiplies by a value that there is,
``o*tanh(c[t])`` computes the function. So no reader, and no parser, needs to know which values there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from cellspec.ir import (
    Concat,
    CumSum,
    Eye,
    Index,
    Inverse,
    Largest,
    MatMul,
    Op,
    Outer,
    Pointwise,
    Product,
    Program,
    Reshape,
    Roll,
    Slice,
    Stack,
    Stop,
    SumTo,
    Transpose,
    outs,
)
from cellspec.model.folding import FLOAT_DIGITS
from cellspec.model.nodes import Shape

CALLS: Mapping[str, type[Any]] = {
    "outer": Outer,
    "inv": Inverse,
    "stack": Stack,
    "reshape": Reshape,
    "largest": Largest,
    "cumsum": CumSum,
    "roll": Roll,
    "sum_to": SumTo,
    "stop_gradient": Stop,
}
"""Operations that are written as calls, with their fields in order; a field that tells yes or no is its name, or not there."""

_SUFFIXES = (
    r"\.(?!T\b)\w+",  # i.pre, but not W.T, a transposed W
    r"(?<=\bd):[^\W\d]\w*",  # d:i
    r"[@|][^\W\d]\w*",  # Ui@h, W|x; a product has spaces around its @
    r"⊗\w+",
    r"\[t(?:-\d+)?\]",  # h[t-1], but not U[0], a member of U
    r"<-\d*|[#]\d+|[@~](?!\w)",  # d:h[t]<-3, i.pre#2, i.pre@, c[t]~
)
PLAIN = rf"[^\W\d]\w*(?:{'|'.join(_SUFFIXES)})*"
"""What a name looks like that needs no backticks: ``d:Ui@h[t-1]⊗h[t-1]``."""

_PLAIN = re.compile(PLAIN)


def program_text(program: Program) -> str:
    """The program as text, an operation a line, each value with its shape."""

    def typed(name: str) -> str:
        return f"{_name(name)}: {shape_text(program.shape(name))}"

    lines = [f"{kind:9} {', '.join(map(typed, names))}" for kind, names in _heads(program) if names]
    width = max((len(typed(outs(op)[0])) for op in program.ops), default=0)
    for op in program.ops:
        lines.append(f"  {', '.join(map(typed, outs(op))):{width}} = {_right_side(op)}")
    lines += [f"carry     {_name(c.before)} <- {_name(c.after)}" for c in program.carries]
    lines += [f"delay     {_name(d.before)} <- {_name(d.after)}, {d.steps} steps" for d in program.delays]
    lines += [f"total     {_name(t.target)} = sum of {_name(t.value)}" for t in program.totals]
    if program.outputs:
        lines.append(f"give out  {_names(program.outputs)}")
    return "\n".join(lines)


def expression_text(expr: sympy.Expr) -> str:
    """An expression over values and dims; ``x**(1/2)`` is SymPy's root, ``sqrt(x)`` the function of the language."""
    return str(_Printer().doprint(expr))


def shape_text(shape: Shape) -> str:
    """A shape: ``[H, 2*H]``."""
    return f"[{', '.join(map(expression_text, shape))}]"


def _heads(program: Program) -> tuple[tuple[str, tuple[str, ...]], ...]:
    before = program.befores
    return (("constant", program.constants), ("sequence", program.sequences), ("carried", before))


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else f"`{name}`"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(map(_name, names))


def _right_side(op: Op) -> str:
    match op:
        case Pointwise(expr=expr):
            return expression_text(expr)
        case MatMul(left=left, right=right, left_t=left_t, right_t=right_t):
            return f"{_name(left)}{'.T' * left_t} @ {_name(right)}{'.T' * right_t}"
        case Product(weights=weights, operands=vectors, transposed=transposed):
            rows = "; ".join(", ".join(_name(w) + ".T" * transposed for w in row) for row in weights)
            return f"[{rows}] @ [{'; '.join(map(_name, vectors))}]"
        case Concat(parts=parts):
            return f"[{_names(parts)}]"
        case Slice(operand=operand, start=start, stop=stop):
            return f"{_name(operand)}[..., {expression_text(start)} : {expression_text(stop)}]"
        case Transpose(operand=operand):
            return f"{_name(operand)}.T"
        case Eye():
            return "identity"
        case Index(operand=operand, index=index):
            return f"{_name(operand)}[{index}]"
    word = next(word for word, kind in CALLS.items() if kind is type(op))
    arguments = [_argument(field.name, getattr(op, field.name)) for field in fields(op) if field.name != "out"]
    return f"{word}({', '.join(filter(None, arguments))})"


def _argument(field: str, value: Any) -> str:
    match value:
        case bool():
            return field * value
        case str():
            return _name(value)
        case tuple():
            return _names(value)
    return str(value)


class _Printer(StrPrinter):  # type: ignore[misc]
    """SymPy's text, in which a number is all there and a root is a power."""

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return f"`{expr.name}`" if expr.name == str(sympy.pi) else _name(expr.name)

    def _print_Float(self, expr: sympy.Float) -> str:
        short = float(expr)
        return repr(short) if sympy.Float(short, FLOAT_DIGITS) == expr else str(sympy.N(expr, 25))

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        if expr.exp == -1:
            return f"1/{self.parenthesize(expr.base, PRECEDENCE['Pow'], strict=False)}"
        base, exponent = (self.parenthesize(part, PRECEDENCE["Pow"], strict=False) for part in (expr.base, expr.exp))
        return f"{base}**{exponent}"
