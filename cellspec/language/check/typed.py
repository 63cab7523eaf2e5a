"""What the typing rules work on: an expression with its node, and the complaint that operands do not fit together."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from cellspec.language.spec import Expr
from cellspec.language.unparse import source
from cellspec.model.nodes import Node, Shape
from cellspec.model.shapes import show


@dataclass(frozen=True)
class Typed:
    """A node, the expression that it stands for, and whether it changes from step to step.

    What does not change is made of params and constants alone. ``number`` is what it is if it is made of numbers and dims.
    """

    expr: Expr
    node: Node
    varies: bool
    number: sympy.Expr | None = None

    @property
    def shape(self) -> Shape:
        """The node's shape."""
        return self.node.shape

    def __str__(self) -> str:
        """``'Wi @ x[t]' of shape [H]``."""
        return f"{source(self.expr)!r} of shape {show(self.shape)}"


class Clash(Exception):
    """Operands do not fit together; ``expr`` is the one to blame, None where it is the operation as a whole."""

    def __init__(self, message: str, expr: Expr | None = None) -> None:
        super().__init__(message)
        self.expr = expr
