"""A cell's equations as a paper prints them, for terminals: :func:`pretty`, and what the notations have in common.

The text follows the spec term by term; nothing is rearranged. Hyperparameters stand as the numbers that they are, activations
as the functions that they stand for.
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

import sympy

from cellspec.model.equations import Equation, Equations
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
    member,
)

NONE, SUM, TERM, PRODUCT, FACTOR, ATOM = range(6)
"""How tightly a text binds: a sum, a term ``a ⊙ b``, a matrix product ``W x``, a power, an atom."""


def assignments(cell: Equations) -> tuple[Equation, ...]:
    """The typed equations of ``cell``, in dependency order, without those that the language adds for lags."""
    lags = {state.name for state in cell.states if state.lag_of is not None}
    return tuple(equation for equation in cell.assignments if equation.target.name not in lags)


def pretty(cell: Equations) -> str:
    """The equations of ``cell`` in Unicode, one a line, their equals signs in a column."""
    writer = _Plain(cell)
    pairs = [(writer.ref(equation.target), writer.text(equation.value)) for equation in assignments(cell)]
    width = max((len(left) for left, _ in pairs), default=0)
    return "\n".join(f"{left:>{width}} = {right}" for left, right in pairs)


class Written(NamedTuple):
    text: str
    level: int


class Writer:
    """What both notations share: where parentheses stand. A subclass spells the parts."""

    times, minus = "", "-"
    comparisons: ClassVar[dict[str, str]]

    def __init__(self, cell: Equations) -> None:
        self.lags = {state.name: state.lag_of for state in cell.states if state.lag_of is not None}

    def moment(self, ref: Ref) -> tuple[str, int]:
        """The name of a value before the step, and how many steps back it lies: ``h`` and 2 for ``h_lag2[t-1]``."""
        return self.lags.get(ref.name, (ref.name, ref.steps))

    def text(self, node: Node, level: int = NONE) -> str:
        """``node``, in parentheses unless it binds at least as tightly as ``level``."""
        text, own = self.write(node)
        return self.parentheses(text) if own < level else text

    def write(self, node: Node) -> Written:
        match node:
            case Const(value=value):
                return Written(self.number(value), SUM if value < 0 else ATOM)
            case DimValue(value=value):
                return Written(self.dim(value), ATOM if value.is_Atom else NONE)
            case Ref():
                return Written(self.ref(node), ATOM)
            case MatMul(left=left, right=right):
                return Written(f"{self.text(left, PRODUCT)} {self.text(right, PRODUCT)}", PRODUCT)
            case OuterProduct(left=left, right=right):
                return Written(f"{self.text(left, PRODUCT)} {self.transposed(self.text(right, ATOM))}", PRODUCT)
            case Member(family=family, index=index):
                return Written(self.ref(Ref(member(family.name, index), family.kind, node.shape)), ATOM)
            case StopGradient(operand=Ref(name="t_now")):
                return Written("t", ATOM)
            case Inverse(operand=operand):
                return self.power(operand, Const(-1))
            case Along(function=function, args=args):
                return Written(self.call(function, [self.text(arg) for arg in args]), ATOM)
            case Transpose(operand=operand):
                return Written(self.transposed(self.text(operand, ATOM)), ATOM)
            case Eye():
                return Written(self.identity(), ATOM)
            case Concat(parts=parts):
                return Written(self.brackets("; ".join(self.text(part) for part in parts)), ATOM)
            case Roll(operand=operand, shift=shift):
                return Written(self.call("roll", [self.text(operand), self.number(shift)]), ATOM)
            case StopGradient(operand=operand):
                return Written(self.call("stop_gradient", [self.text(operand)]), ATOM)
            case Apply():
                return self.apply(node)

    def apply(self, node: Apply) -> Written:
        match node.function, node.args:
            case "add", (Const(value=0), part) | (part, Const(value=0)):  # what a decided condition leaves
                return self.write(part)
            case "add", (a, b):
                left, right = self.text(a, SUM), self.text(b, SUM)
                if right.startswith(self.minus):
                    return Written(f"{left} {self.minus} {right.removeprefix(self.minus).lstrip()}", SUM)
                return Written(f"{left} + {right}", SUM)
            case "sub", (a, b):
                return Written(f"{self.text(a, SUM)} {self.minus} {self.text(b, TERM)}", SUM)
            case "neg", (a,):
                return Written(f"{self.minus}{self.text(a, TERM)}", SUM)
            case "mul", (a, b):
                return self.product(a, b)
            case "div", (a, b):
                return self.quotient(a, b)
            case "pow", (a, b):
                return self.power(a, b)
            case "identity", (a,):
                return self.write(a)
            case "where", (condition, a, b):
                return self.where(self.condition(condition), self.text(a), self.text(b))
            case name, args if name in self.comparisons:
                return Written(self.condition(Apply(name, args, node.shape)), NONE)
            case name, args:
                return Written(self.call(name, [self.text(arg) for arg in args]), ATOM)

    def product(self, a: Node, b: Node) -> Written:
        """Elementwise; a number in front stands alone, as in ``0.5 c``."""
        if isinstance(a, Const) and not isinstance(b, Const):
            return Written(f"{self.text(a, TERM)} {self.text(b, TERM)}", TERM)
        scalar = any(all(axis == 1 for axis in part.shape) for part in (a, b))
        sign = self.dot if scalar else self.times
        # r ⊙ (U h): the parentheses tell it from (r ⊙ U) h at a glance.
        left, right = (self.text(part, FACTOR if isinstance(part, MatMul | OuterProduct) else TERM) for part in (a, b))
        return Written(f"{left} {sign} {right}", TERM)

    def condition(self, node: Node) -> str:
        if isinstance(node, Apply) and node.function in self.comparisons:
            a, b = node.args
            return f"{self.text(a, SUM)} {self.comparisons[node.function]} {self.text(b, SUM)}"
        return self.text(node)

    dot = ""

    def number(self, value: int | float) -> str:
        raise NotImplementedError

    def dim(self, value: sympy.Expr) -> str:
        raise NotImplementedError

    def ref(self, ref: Ref) -> str:
        raise NotImplementedError

    def parentheses(self, text: str) -> str:
        raise NotImplementedError

    def brackets(self, text: str) -> str:
        raise NotImplementedError

    def transposed(self, text: str) -> str:
        raise NotImplementedError

    def identity(self) -> str:
        raise NotImplementedError

    def call(self, name: str, args: list[str]) -> str:
        raise NotImplementedError

    def quotient(self, a: Node, b: Node) -> Written:
        raise NotImplementedError

    def power(self, a: Node, b: Node) -> Written:
        raise NotImplementedError

    def where(self, condition: str, a: str, b: str) -> Written:
        raise NotImplementedError


class _Plain(Writer):
    """Unicode on one line."""

    times, dot = "⊙", "·"
    comparisons: ClassVar = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    lowered = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

    def number(self, value: int | float) -> str:
        return digits(value)

    def dim(self, value: sympy.Expr) -> str:
        return str(value)

    def ref(self, ref: Ref) -> str:
        match ref.kind:
            case Kind.PREVIOUS | Kind.INPUT if ref.steps:
                name, back = self.moment(ref)
                return f"{name}ₜ₋{str(back).translate(self.lowered)}"
            case Kind.PARAM | Kind.DERIVED:
                return ref.name
            case _:
                return f"{ref.name}ₜ"

    def parentheses(self, text: str) -> str:
        return f"({text})"

    def brackets(self, text: str) -> str:
        return f"[{text}]"

    def transposed(self, text: str) -> str:
        return f"{text}ᵀ"

    def identity(self) -> str:
        return "I"

    def call(self, name: str, args: list[str]) -> str:
        spelled = {"sigmoid": "σ", "sqrt": "√"}.get(name, name)
        bars = {"abs": "|", "norm": "‖"}.get(name)
        return f"{spelled}({', '.join(args)})" if bars is None else f"{bars}{args[0]}{bars}"

    def quotient(self, a: Node, b: Node) -> Written:
        return Written(f"{self.text(a, TERM)}/{self.text(b, FACTOR)}", TERM)

    def power(self, a: Node, b: Node) -> Written:
        exponent = self.text(b)
        raised = exponent.translate(self.raised) if re.fullmatch(r"-?[0-9]+", exponent) else f"^{self.text(b, ATOM)}"
        return Written(f"{self.text(a, ATOM)}{raised}", FACTOR)

    def where(self, condition: str, a: str, b: str) -> Written:
        return Written(f"{{{a} if {condition}; else {b}}}", ATOM)


def digits(value: int | float) -> str:
    """``value`` in as few digits as tell it apart."""
    return f"{value:g}" if float(f"{value:g}") == value else str(value)
