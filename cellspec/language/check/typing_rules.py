"""The rules by which an expression gets its shape: one method for each form of the language.

Names are looked up in a :class:`~cellspec.language.check.scope.Scope`; that they exist has been checked before. An
expression with a mistake is reported once and has no type; whatever contains it is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

import sympy

from cellspec.language.check import product_rules
from cellspec.language.check.lags import Lags
from cellspec.language.check.scope import STRUCTURAL, Entry, Role, Scope, resolve_dim
from cellspec.language.check.shapes import Constant, decide, dim_polynomial, fold
from cellspec.language.check.subscripts import time_offset
from cellspec.language.check.typed import Clash, Typed
from cellspec.language.spec import (
    Binary,
    Call,
    Compare,
    Expr,
    Inlined,
    Listed,
    Name,
    Number,
    Subscript,
    Transposed,
    Unary,
    Unread,
    bare,
)
from cellspec.language.unparse import source
from cellspec.model.folding import folded
from cellspec.model.folding import number as constant
from cellspec.model.nodes import (
    STEP_INDEX,
    Apply,
    Const,
    DimValue,
    Eye,
    Kind,
    Member,
    Node,
    Ref,
    Shape,
    StopGradient,
    member,
    of_family,
)
from cellspec.model.primitives import COMPARISONS, OPERATORS, PRIMITIVES
from cellspec.model.shapes import broadcast

LARGEST_EXPONENT = 64

_VERBS = {
    "+": "cannot add {0} and {1}",
    "-": "cannot subtract {1} from {0}",
    "*": "cannot multiply {0} and {1}",
    "/": "cannot divide {0} by {1}",
}


class _Untyped(Exception):
    """An expression has a mistake, which has been reported."""


class Typer:
    """Types the expressions of one cell."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.lags = Lags(scope)
        self._known: dict[int, tuple[Expr, Typed | None]] = {}  # by identity: what calls of functions share is typed once
        self._calls: list[Inlined] = []  # those that what is being typed stands in

    def type(self, expr: Expr) -> Typed | None:
        """The typed form of ``expr``; None after reporting its mistakes."""
        known = self._known.get(id(expr))
        if known is None:
            try:
                known = expr, self._type(expr)
            except _Untyped:
                known = expr, None
            self._known[id(expr)] = known
        return known[1]

    def _type(self, expr: Expr) -> Typed:
        match expr:
            case Number(value=value):
                return Typed(expr, Const(value), False, constant(value))
            case Name():
                return self._name(expr)
            case Subscript():
                return self._subscript(expr)
            case Unary(operand=Number(value=value)):
                return Typed(expr, Const(-value), False, constant(-value))
            case Unary(operand=operand):
                return self._pointwise("neg", expr, (operand,))
            case Binary(op="@", left=left, right=right):
                return self._made(expr, (left, right), lambda args: product_rules.product(*args))
            case Binary(op="**"):
                return self._power(expr)
            case Binary(op=op, left=left, right=right):
                if op == "/" and (divisor := self.type(right)) is not None and divisor.number == 0:
                    self._each((left,))
                    self._fail(right, "division by zero")
                return self._pointwise(OPERATORS[op], expr, (left, right), _VERBS[op])
            case Compare(left=left, right=right):
                self._each((left, right))
                self._fail(expr, "a comparison stands only as the condition of where(condition, a, b)")
            case Call():
                return self._call(expr)
            case Transposed(operand=operand):
                return self._made(expr, (operand,), lambda args: product_rules.transposed(*args))
            case Listed(items=items):
                if not items:
                    self._fail(expr, "a list of nothing has no shape")
                return self._made(expr, items, lambda args: product_rules.concat(args, expr))
            case Unread():
                raise _Untyped
            case Inlined(body=body):
                self._calls.append(expr)
                try:
                    inner = self._one(body)
                finally:
                    self._calls.pop()
                return replace(inner, expr=expr)

    def _fail(self, expr: Expr, message: str) -> NoReturn:
        if self._calls and self._calls[-1].at == expr.at:  # what depends on the arguments has the place of the call
            message = f"{message} (in {self._calls[-1].call.function!r})"
        self.scope.reporter.error(expr.at, message)
        raise _Untyped

    def _each(self, exprs: Iterable[Expr]) -> list[Typed | None]:
        """The types of ``exprs``, where they have one; the mistakes of all are reported."""
        return [self.type(expr) for expr in exprs]

    def _one(self, expr: Expr) -> Typed:
        """The type of ``expr``, if it has one."""
        typed = self.type(expr)
        if typed is None:
            raise _Untyped
        return typed

    def _all(self, exprs: tuple[Expr, ...]) -> tuple[Typed, ...]:
        """The types of ``exprs``, if all have one; the mistakes of all are reported."""
        typed = self._each(exprs)
        known = tuple(item for item in typed if item is not None)
        if len(known) < len(typed):
            raise _Untyped
        return known

    def _made(self, expr: Expr, operands: tuple[Expr, ...], rule: Callable[[tuple[Typed, ...]], Node]) -> Typed:
        """What ``rule`` makes of the operands of ``expr``."""
        return self._ruled(expr, self._all(operands), rule)

    def _ruled(self, expr: Expr, typed: tuple[Typed, ...], rule: Callable[[tuple[Typed, ...]], Node]) -> Typed:
        try:
            return Typed(expr, rule(typed), any(item.varies for item in typed))
        except Clash as clash:
            self._fail(clash.expr or expr, str(clash))

    def _constant(self, expr: Expr) -> Constant | None:
        """The number that ``expr`` is; None where it is none for certain."""
        value = fold(expr, self.scope.constants)
        if value is None and not self.scope.is_certain(expr):
            raise _Untyped
        return value

    # --- names ---------------------------------------------------------------------------------------------

    def _name(self, name: Name) -> Typed:
        entry = self.scope.entries.get(name.id)
        if entry is None and name.id == STEP_INDEX:
            return Typed(name, self.lags.step_index(name.at), True)
        if entry is None:
            raise _Untyped
        match entry.role:
            case Role.HYPER:  # one whose value could not be read has a shape all the same
                value = self.scope.constants.get(name.id)
                if value is None:
                    return Typed(name, Const(math.nan), False)
                return Typed(name, Const(value), False, constant(value))
            case Role.DIM:
                return Typed(name, DimValue(sympy.Symbol(name.id)), False, sympy.Symbol(name.id))
            case Role.PARAM | Role.VALUE if entry.shape is not None and not entry.is_family:
                kind = Kind.PARAM if entry.role is Role.PARAM else Kind.VALUE if entry.varies else Kind.DERIVED
                return Typed(name, Ref(name.id, kind, entry.shape), entry.varies, entry.number)
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
            return self._member(expr, entry, offset[1])
        if offset is None and entry.is_family:
            self._fail(expr, f"the index of {text!r} is no constant: which member is read is known before anything is computed")
        if offset is None or offset[0] != 1 or offset[1] != int(offset[1]):
            self._fail(expr, f"the subscript of {text!r} is neither t nor a constant number of steps before it, as in t-1")
        lag = -int(offset[1])
        match entry.role:
            case Role.INPUT | Role.STATE if lag < 0:
                self._fail(expr, f"{text!r} lies in the future: an equation reads {name}[t] at the latest")
            case (Role.INPUT | Role.STATE) as role if entry.shape is not None:
                if lag == 0:
                    return Typed(expr, Ref(name, Kind.INPUT if role is Role.INPUT else Kind.STATE, entry.shape), True)
                try:
                    return Typed(expr, self.lags.read(name, role, entry.shape, lag, expr.at), True)
                except Clash as clash:
                    self._fail(expr, str(clash))
            case Role.VALUE | Role.FAMILY if lag > 0:
                self._fail(expr, f"{name!r} is {entry.kind}, which lasts one step: declare it as a state to read {text}")
            case Role.INPUT | Role.STATE:
                raise _Untyped
            case _:
                self._fail(expr, f"{name!r} is {entry.kind} and takes no [t]: write {_correct(entry)}")

    def _member(self, expr: Subscript, entry: Entry, index: float) -> Typed:
        """``R[0]``, ``s[1]``."""
        name, text = expr.id, source(expr)
        if entry.role in (Role.INPUT, Role.STATE):
            self._fail(expr, f"{name!r} is {entry.kind}: write {name}[t] or {name}[t-1], not {text}")
        if not entry.is_family:
            self._fail(expr, f"{name!r} is {entry.kind} and no family: write {_correct(entry)}, not {text}")
        if index < 0 or index != int(index):
            self._fail(expr, f"{text!r} is no member of {name!r}: members are counted 0, 1, 2 and so on")
        number = int(index)
        if entry.role is Role.PARAM:
            if entry.shape is None or entry.members is None:
                raise _Untyped
            if number >= entry.members:
                self._fail(expr, f"there is no {member(name, number)}: {name!r} has {_counted(range(entry.members), name)}")
            family = Ref(name, Kind.PARAM, entry.shape)
            return Typed(expr, Member(family, number, entry.shape[1:]), False)
        found = self.scope.entries.get(member(name, number))
        if found is not None and found.shape is not None:
            return Typed(expr, Ref(found.name, Kind.VALUE if found.varies else Kind.DERIVED, found.shape), found.varies)
        if found is None and not self.scope.gaps.may_hold(name, "equations"):
            there = [known[1] for e in self.scope.of_role(Role.VALUE) if (known := of_family(e.name)) and known[0] == name]
            self._fail(expr, f"{member(name, number)} is never assigned: {name!r} has {_counted(sorted(there), name)}")
        raise _Untyped

    # --- pointwise -----------------------------------------------------------------------------------------

    def _pointwise(self, function: str, expr: Expr, args: tuple[Expr, ...], clash: str = "") -> Typed:
        typed = self._all(args)
        shape = self._aligned(expr, typed, clash or f"{function} cannot combine {{0}} and {{1}}")
        return self._applied(expr, function, typed, shape)

    def _aligned(self, expr: Expr, typed: tuple[Typed, ...], clash: str) -> Shape:
        """The common shape of operands; reports the first two that do not align."""
        shape: Shape = ()
        for position, item in enumerate(typed):
            wider = broadcast(shape, item.shape)
            if wider is None:
                other = next((k for k in range(position) if broadcast(typed[k].shape, item.shape) is None), 0)
                self._fail(expr, clash.format(typed[other], item))
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
        if exponent < 0 and base.number == 0:
            self._fail(expr, "division by zero")
        whole = int(exponent) if exponent == int(exponent) else exponent
        power = Typed(expr.right, Const(whole), False, constant(whole))
        return self._applied(expr, "pow", (base, power), base.shape)

    def _where(self, expr: Call) -> Typed:
        condition, yes, no = bare(expr.args[0]), *expr.args[1:]
        decided = decide(condition, self.scope.constants)
        if decided is not None:
            return self._one(yes if decided else no)
        if not self.scope.is_certain(condition):
            raise _Untyped
        if not isinstance(condition, Compare):
            self._all(expr.args)
            self._fail(condition, f"the condition of where is a comparison such as 'a < b', not {source(condition)!r}")
        left, right, *branches = self._all((condition.left, condition.right, yes, no))
        sides = self._aligned(condition, (left, right), "cannot compare {0} and {1}")
        parts = (self._applied(condition, COMPARISONS[condition.op], (left, right), sides), *branches)
        shape = self._aligned(expr, parts, "where cannot combine {0} and {1}")
        return self._applied(expr, "where", parts, shape)

    def _applied(self, expr: Expr, function: str, typed: tuple[Typed, ...], shape: Shape) -> Typed:
        """A pointwise function of operands that align to ``shape``; of constants a finite real number."""
        numbers = [item.number for item in typed if item.number is not None]
        value = folded(function, numbers) if len(numbers) == len(typed) else None
        if value is None and len(numbers) == len(typed):
            self._fail(expr, f"{source(expr)!r} is a constant, but no finite real number")
        node = Apply(function, tuple(item.node for item in typed), shape)
        return Typed(expr, node, any(item.varies for item in typed), value)

    # --- calls ---------------------------------------------------------------------------------------------

    def _call(self, expr: Call) -> Typed:
        function = self.scope.activations.get(expr.function, expr.function)
        row = PRIMITIVES.get(function)
        listed = row is not None and row.listed
        arity = row.arity if row is not None and listed else STRUCTURAL.get(function) or product_rules.ALONG.get(function)
        if arity is None:  # an unknown function, which has been reported
            self._each(expr.args)
            raise _Untyped
        if len(expr.args) != arity:
            self._each(arg for arg in expr.args if not isinstance(arg, Compare))
            plural = "argument" if arity == 1 else "arguments"
            self._fail(expr, f"{expr.function!r} takes {arity} {plural}, not {len(expr.args)}")
        match function:
            case "where":
                return self._where(expr)
            case "eye":
                return self._eye(expr)
            case "roll":
                return self._roll(expr)
            case "outer":
                return self._made(expr, expr.args, lambda args: product_rules.outer(*args))
            case "inv":
                return self._made(expr, expr.args, lambda args: product_rules.inverse(*args))
            case "stop_gradient":
                return self._made(expr, expr.args, lambda args: StopGradient(args[0].node, args[0].shape))
            case _ if function in product_rules.ALONG:
                return self._made(expr, expr.args, lambda args: product_rules.along(function, args))
            case _:
                return self._pointwise(function, expr, expr.args, f"{expr.function} cannot combine {{0}} and {{1}}")

    def _eye(self, expr: Call) -> Typed:
        (size,) = expr.args
        axis = dim_polynomial(size, lambda name: resolve_dim(name, self.scope), self.scope.reporter)
        if axis is None:
            raise _Untyped
        if axis.is_Integer and axis < 1:
            self._fail(size, f"an axis has at least size 1, but {source(size)!r} is {axis}")
        return Typed(expr, Eye((axis, axis)), False)

    def _roll(self, expr: Call) -> Typed:
        vector, by = expr.args
        operand = self.type(vector)
        shift = self._constant(by)
        if shift is None or shift != int(shift):
            self._fail(by, f"roll shifts by a constant whole number, not by {source(by)!r}")
        if operand is None:
            raise _Untyped
        return self._ruled(expr, (operand,), lambda args: product_rules.rolled(args[0], int(shift)))


def _correct(entry: Entry) -> str:
    """How the name, which takes no such subscript, is written."""
    if entry.is_family:
        return member(entry.name, 0)
    return f"{entry.name}(…)" if entry.role in (Role.ACTIVATION, Role.FUNCTION) else entry.name


def _counted(indices: Sequence[int], family: str) -> str:
    """``no members``, ``R[0]``, ``R[0] to R[3]``, ``s[0], s[2] and s[5]``."""
    names = [member(family, index) for index in indices]
    if len(names) < 2:
        return "".join(names) or "no members"
    if len(indices) > 8 or indices[-1] - indices[0] == len(indices) - 1 > 1:
        return f"{names[0]} to {names[-1]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"
