"""The rules by which an expression gets its shape: one method for each form of the language.

Names are looked up in a :class:`~cellspec.scope.Scope`; that they exist has been checked before. An expression with a mistake
is reported once and has no type; whatever contains it is silent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import sympy

from cellspec.cell import (
    Apply,
    Concat,
    Const,
    DimValue,
    Eye,
    Kind,
    MatMul,
    Node,
    Ref,
    Roll,
    Shape,
    StopGradient,
    Transpose,
)
from cellspec.functions import COMPARISONS, OPERATORS, PRIMITIVES
from cellspec.scope import LATER, STEP_INDEX, STRUCTURAL, Role, Scope, resolve_dim
from cellspec.shapes import Constant, Constants, broadcast, decide, dim_polynomial, expand, fold, show
from cellspec.spec import Binary, Call, Compare, Expr, Listed, Name, Number, Subscript, Transposed, Unary, Unread
from cellspec.unparse import source

LARGEST_EXPONENT = 64

_VERBS = {
    "+": "cannot add {0} and {1}",
    "-": "cannot subtract {1} from {0}",
    "*": "cannot multiply {0} and {1}",
    "/": "cannot divide {0} by {1}",
}


@dataclass(frozen=True)
class Typed:
    """A node, and whether its value changes from step to step (else it is made of params and constants alone)."""

    node: Node
    varies: bool

    @property
    def shape(self) -> Shape:
        """The node's shape."""
        return self.node.shape


def time_offset(index: Expr, constants: Constants) -> tuple[float, float] | None:
    """``index`` as ``a*t + b``: ``(1, -1)`` for ``t-1``, ``(0, 2)`` for ``2``; None where it is nothing of the kind."""
    match index:
        case Name(id="t"):
            return 1, 0
        case Unary(op="-", operand=operand) if (inner := time_offset(operand, constants)) is not None:
            return -inner[0], -inner[1]
        case Binary(op="+" | "-" as op, left=left, right=right):
            a, b = time_offset(left, constants), time_offset(right, constants)
            sign = 1 if op == "+" else -1
            return None if a is None or b is None else (a[0] + sign * b[0], a[1] + sign * b[1])
        case _:
            value = fold(index, constants)
            return None if value is None else (0, value)


class _Untyped(Exception):
    """An expression has a mistake, which has been reported."""


class Typer:
    """Types the expressions of one cell."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def type(self, expr: Expr) -> Typed | None:
        """The typed form of ``expr``; None after reporting its mistakes."""
        try:
            return self._type(expr)
        except _Untyped:
            return None

    def _type(self, expr: Expr) -> Typed:
        match expr:
            case Number(value=value):
                return Typed(Const(value), False)
            case Name():
                return self._name(expr)
            case Subscript():
                return self._subscript(expr)
            case Unary(operand=Number(value=value)):
                return Typed(Const(-value), False)
            case Unary(operand=operand):
                return self._pointwise("neg", expr, (operand,))
            case Binary(op="@"):
                return self._product(expr)
            case Binary(op="**"):
                return self._power(expr)
            case Binary(op=op, left=left, right=right):
                if op == "/" and fold(right, self.scope.constants) == 0:
                    self._fail(right, "division by zero")
                return self._pointwise(OPERATORS[op], expr, (left, right), _VERBS[op])
            case Compare(left=left, right=right):
                self._each((left, right))
                self._fail(expr, "a comparison stands only as the condition of where(condition, a, b)")
            case Call():
                return self._call(expr)
            case Transposed():
                return self._transposed(expr)
            case Listed():
                return self._concat(expr)
            case Unread():
                raise _Untyped

    def _fail(self, expr: Expr, message: str) -> NoReturn:
        self.scope.reporter.error(expr.at, message)
        raise _Untyped

    def _each(self, exprs: Iterable[Expr]) -> list[Typed | None]:
        """The types of ``exprs``, where they have one; the mistakes of all are reported."""
        return [self.type(expr) for expr in exprs]

    def _all(self, exprs: tuple[Expr, ...]) -> tuple[Typed, ...]:
        """The types of ``exprs``, if all have one; the mistakes of all are reported."""
        typed = self._each(exprs)
        known = tuple(item for item in typed if item is not None)
        if len(known) < len(typed):
            raise _Untyped
        return known

    def _constant(self, expr: Expr) -> Constant | None:
        """The number that ``expr`` is; None where it is none for certain."""
        value = fold(expr, self.scope.constants)
        if value is None and not self.scope.is_certain(expr):
            raise _Untyped
        return value

    def _made(self, expr: Expr, node: Node, varies: bool) -> Typed:
        """``node``, unless it is a matrix that changes from step to step."""
        if varies and len(node.shape) > 1:
            self._fail(expr, f"{source(expr)!r} is a matrix that changes from step to step, which is not supported yet")
        return Typed(node, varies)

    # --- names ---------------------------------------------------------------------------------------------

    def _name(self, name: Name) -> Typed:
        entry = self.scope.entries.get(name.id)
        if entry is None and name.id == STEP_INDEX:
            self._fail(name, f"{STEP_INDEX!r} is not supported yet")
        if entry is None:
            raise _Untyped
        match entry.role:
            case Role.HYPER:  # one whose value could not be read has a shape all the same
                return Typed(Const(self.scope.constants.get(name.id, math.nan)), False)
            case Role.DIM:
                return Typed(DimValue(sympy.Symbol(name.id)), False)
            case Role.PARAM | Role.VALUE if entry.shape is not None:
                kind = Kind.PARAM if entry.role is Role.PARAM else Kind.VALUE if entry.varies else Kind.DERIVED
                return Typed(Ref(name.id, kind, entry.shape), entry.varies)
            case _:
                raise _Untyped

    def _subscript(self, expr: Subscript) -> Typed:
        entry = self.scope.entries.get(expr.id)
        offset = time_offset(expr.index, self.scope.constants)
        if entry is None:
            raise _Untyped
        if not self.scope.is_certain(expr.index):
            raise _Untyped
        name, text = expr.id, source(expr)
        if offset is not None and offset[0] == 0:
            self._fail(expr, f"{text!r}: a family subscript is not supported yet")
        if offset is None or offset[0] != 1 or offset[1] != int(offset[1]):
            self._fail(expr, f"the subscript of {text!r} is neither t nor t-1")
        lag = -int(offset[1])
        match entry.role:
            case Role.INPUT | Role.STATE if lag < 0:
                self._fail(expr, f"{text!r} lies in the future: an equation reads {name}[t] at the latest")
            case Role.STATE if lag > 1:
                self._fail(expr, f"{text!r}: a lag beyond {name}[t-1] is not supported yet")
            case Role.INPUT if lag > 0:
                self._fail(expr, f"{text!r}: an earlier input is not supported yet")
            case Role.INPUT | Role.STATE if entry.shape is not None:
                kind = Kind.INPUT if entry.role is Role.INPUT else Kind.PREVIOUS if lag else Kind.STATE
                return Typed(Ref(name, kind, entry.shape), True)
            case Role.VALUE if lag > 0:
                self._fail(expr, f"{name!r} is an intermediate, which lasts one step: declare it as a state to read {text}")
            case Role.PARAM | Role.VALUE | Role.HYPER | Role.DIM | Role.ACTIVATION:
                self._fail(expr, f"{name!r} is {entry.role.value} and takes no [t]: write {name}")
            case _:
                raise _Untyped

    # --- pointwise -----------------------------------------------------------------------------------------

    def _pointwise(self, function: str, expr: Expr, args: tuple[Expr, ...], clash: str = "") -> Typed:
        typed = self._all(args)
        shape = self._aligned(expr, args, typed, clash or f"{function} cannot combine {{0}} and {{1}}")
        return self._made(expr, Apply(function, tuple(item.node for item in typed), shape), any(item.varies for item in typed))

    def _aligned(self, expr: Expr, args: tuple[Expr, ...], typed: tuple[Typed, ...], clash: str) -> Shape:
        """The common shape of operands; reports the first two that do not align."""
        shape: Shape = ()
        for position, item in enumerate(typed):
            wider = broadcast(shape, item.shape)
            if wider is None:
                other = next((k for k in range(position) if broadcast(typed[k].shape, item.shape) is None), 0)
                self._fail(expr, clash.format(_described(args[other], typed[other]), _described(args[position], item)))
            shape = wider
        return shape

    def _power(self, expr: Binary) -> Typed:
        base = self.type(expr.left)
        exponent = self._constant(expr.right)
        if exponent is None:
            self._fail(expr.right, f"the exponent {source(expr.right)!r} is not a constant")
        if abs(exponent) > LARGEST_EXPONENT:
            self._fail(expr.right, f"the exponent {source(expr.right)!r} is beyond {LARGEST_EXPONENT}")
        if base is None:
            raise _Untyped
        if exponent < 0 and fold(expr.left, self.scope.constants) == 0:
            self._fail(expr, "division by zero")
        whole = int(exponent) if exponent == int(exponent) else exponent
        return Typed(Apply("pow", (base.node, Const(whole)), base.shape), base.varies)

    def _where(self, expr: Call) -> Typed:
        condition, yes, no = expr.args
        decided = decide(condition, self.scope.constants)
        if decided is not None:
            return self._type(yes if decided else no)
        if not self.scope.is_certain(condition):
            raise _Untyped
        if not isinstance(condition, Compare):
            self._all(expr.args)
            self._fail(condition, f"the condition of where is a comparison such as 'a < b', not {source(condition)!r}")
        args = (condition.left, condition.right, yes, no)
        typed = self._all(args)
        sides = self._aligned(condition, args[:2], typed[:2], "cannot compare {0} and {1}")
        varies = typed[0].varies or typed[1].varies
        test = Typed(Apply(COMPARISONS[condition.op], (typed[0].node, typed[1].node), sides), varies)
        parts = (test, *typed[2:])
        shape = self._aligned(expr, expr.args, parts, "where cannot combine {0} and {1}")
        return self._made(expr, Apply("where", tuple(part.node for part in parts), shape), any(part.varies for part in parts))

    # --- calls ---------------------------------------------------------------------------------------------

    def _call(self, expr: Call) -> Typed:
        function = self.scope.activations.get(expr.function, expr.function)
        row = PRIMITIVES.get(function)
        listed = row is not None and row.listed
        arity = row.arity if row is not None and listed else STRUCTURAL.get(function) or LATER.get(function)
        if arity is None:  # an unknown function, which has been reported
            self._each(expr.args)
            raise _Untyped
        if len(expr.args) != arity:
            self._each(arg for arg in expr.args if not isinstance(arg, Compare))
            plural = "argument" if arity == 1 else "arguments"
            self._fail(expr, f"{expr.function!r} takes {arity} {plural}, not {len(expr.args)}")
        if function in LATER:
            self._each(expr.args)
            self._fail(expr, f"{function!r} is not supported yet")
        match function:
            case "where":
                return self._where(expr)
            case "eye":
                return self._eye(expr.args[0])
            case "roll":
                return self._roll(expr)
            case "stop_gradient":
                (operand,) = self._all(expr.args)
                return Typed(StopGradient(operand.node, operand.shape), operand.varies)
            case _:
                return self._pointwise(function, expr, expr.args, f"{expr.function} cannot combine {{0}} and {{1}}")

    def _eye(self, size: Expr) -> Typed:
        axis = dim_polynomial(size, lambda name: resolve_dim(name, self.scope), self.scope.reporter)
        if axis is None:
            raise _Untyped
        if axis.is_Integer and axis < 1:
            self._fail(size, f"an axis has at least size 1, but {source(size)!r} is {axis}")
        return Typed(Eye((axis, axis)), False)

    def _roll(self, expr: Call) -> Typed:
        vector, by = expr.args
        operand = self.type(vector)
        shift = self._constant(by)
        if shift is None or shift != int(shift):
            self._fail(by, f"roll shifts by a constant whole number, not by {source(by)!r}")
        if operand is None:
            raise _Untyped
        if len(operand.shape) != 1:
            self._fail(vector, f"roll needs a vector, but {_described(vector, operand)} is none")
        return Typed(Roll(operand.node, int(shift), operand.shape), operand.varies)

    # --- matrices and lists --------------------------------------------------------------------------------

    def _product(self, expr: Binary) -> Typed:
        typed = self._all((expr.left, expr.right))
        left, right = typed
        clash = f"cannot multiply {_described(expr.left, left)} and {_described(expr.right, right)} with '@'"
        if len(left.shape) != 2:
            self._fail(expr, f"{clash}: the left side must be a matrix{_turned(expr, left.shape, right.shape)}")
        if not right.shape:
            self._fail(expr, f"{clash}: the right side must be a vector or a matrix; write * for numbers")
        if left.shape[1] != right.shape[0]:
            self._fail(expr, f"{clash}: {left.shape[1]} is not {right.shape[0]}")
        shape = (left.shape[0], *right.shape[1:])
        return self._made(expr, MatMul(left.node, right.node, shape), left.varies or right.varies)

    def _transposed(self, expr: Transposed) -> Typed:
        (operand,) = self._all((expr.operand,))
        if len(operand.shape) != 2:
            self._fail(expr, f"'.T' needs a matrix, but {_described(expr.operand, operand)} is none")
        rows, columns = operand.shape
        return Typed(Transpose(operand.node, (columns, rows)), operand.varies)

    def _concat(self, expr: Listed) -> Typed:
        if not expr.items:
            self._fail(expr, "a list of nothing has no shape")
        typed = self._all(expr.items)
        for item, part in zip(expr.items, typed, strict=True):
            if len(part.shape) > 1:
                self._fail(item, f"a list of matrices, as of {_described(item, part)}, is not supported yet")
            if not part.shape:
                self._fail(item, f"a list is made of vectors, but {_described(item, part)} is none")
        if len(typed) == 1:
            return typed[0]
        length = expand(sympy.Add(*(part.shape[0] for part in typed)))
        if length is None:
            self._fail(expr, f"the shape of {source(expr)!r} is too complicated")
        return Typed(Concat(tuple(part.node for part in typed), (length,)), any(part.varies for part in typed))


def _turned(expr: Binary, left: Shape, right: Shape) -> str:
    """How to write a product that has a vector on its left, where there is a way."""
    match left, right:
        case [axis], [_, columns] if axis == columns:
            return f"; write {source(Binary('@', expr.right, expr.left, expr.at))!r}"
        case [axis], [rows, _] if axis == rows:
            return f"; write {source(Binary('@', Transposed(expr.right, expr.at), expr.left, expr.at))!r}"
        case [_], [_]:
            return "; products of vectors are written with *"
        case _:
            return ""


def _described(expr: Expr, typed: Typed) -> str:
    """``'Wi @ x[t]' of shape [H]``."""
    return f"{source(expr)!r} of shape {show(typed.shape)}"
