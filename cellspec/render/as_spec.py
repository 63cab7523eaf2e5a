"""The nodes of a cell as the language writes them, for equations that no file states."""

from __future__ import annotations

from typing import ClassVar

import sympy

from cellspec.model.equations import Equations
from cellspec.model.nodes import STEP_INDEX, Eye, Inverse, MatMul, Node, OuterProduct, Ref, StopGradient
from cellspec.render.unicode import ATOM, FACTOR, PRODUCT, TERM, Writer, Written, digits


def equation_text(cell: Equations, target: Ref, value: Node) -> str:
    """``target = value`` as a spec would say it, lags as in ``h[t-2]``."""
    writer = _Source(cell)
    return f"{writer.ref(target)} = {writer.text(value)}"


class _Source(Writer):
    """The language of specs."""

    comparisons: ClassVar = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}

    def write(self, node: Node) -> Written:
        match node:
            case MatMul(left=left, right=right):
                return Written(f"{self.text(left, PRODUCT)} @ {self.text(right, FACTOR)}", PRODUCT)
            case OuterProduct(left=left, right=right):
                return Written(f"outer({self.text(left)}, {self.text(right)})", ATOM)
            case Inverse(operand=operand):
                return Written(f"inv({self.text(operand)})", ATOM)
            case Eye(shape=shape):
                return Written(f"eye({self.dim(shape[0])})", ATOM)
            case StopGradient(operand=Ref(name=name)) if name == STEP_INDEX:
                return Written(name, ATOM)
            case _:
                return super().write(node)

    def product(self, a: Node, b: Node) -> Written:
        return Written(f"{self.text(a, FACTOR if isinstance(a, MatMul) else TERM)}*{self.text(b, FACTOR)}", TERM)

    def quotient(self, a: Node, b: Node) -> Written:
        return Written(f"{self.text(a, TERM)}/{self.text(b, FACTOR)}", TERM)

    def power(self, a: Node, b: Node) -> Written:
        return Written(f"{self.text(a, ATOM)}**{self.text(b, ATOM)}", FACTOR)

    def where(self, condition: str, a: str, b: str) -> Written:
        return Written(f"where({condition}, {a}, {b})", ATOM)

    def ref(self, ref: Ref) -> str:
        name, back = self.moment(ref) if ref.steps else (ref.name, 0)
        return f"{name}[t-{back}]" if back else ref.label

    def number(self, value: int | float) -> str:
        return digits(value)

    def dim(self, value: sympy.Expr) -> str:
        return str(value)

    def parentheses(self, text: str) -> str:
        return f"({text})"

    def brackets(self, text: str) -> str:
        return f"[{text.replace('; ', ', ')}]"

    def transposed(self, text: str) -> str:
        return f"{text}.T"

    def call(self, name: str, args: list[str]) -> str:
        return f"{name}({', '.join(args)})"
