"""Hoisting: splitting pointwise expressions by what their parts depend on.

``Wi@x[t] + Ui@h[t-1] + bi`` becomes ``base + Ui@h[t-1]``, whose base is known for every step before the loop starts;
``d_c*g*i*(1 - i)`` becomes ``d_c*factor``, whose factor holds no cotangent. The pass is the same for both directions.
"""

from __future__ import annotations

from collections import defaultdict
from enum import IntEnum

import sympy

from cellspec import ir
from cellspec.ir import Op, Program, Value, symbol
from cellspec.model.nodes import Shape
from cellspec.passes.policy import PLAIN, SchedulePolicy


class Reach(IntEnum):
    """What a value depends on: how often it must be computed."""

    CONSTANT = 0  # once per sequence
    SEQUENCE = 1  # at every step, but independently of the other steps
    CARRIED = 2  # at every step, in order


def reaches(program: Program, policy: SchedulePolicy = PLAIN) -> dict[str, Reach]:
    """The reach of every value; of a single step, what is given for it is known no earlier than the states."""
    reach = dict.fromkeys(program.constants, Reach.CONSTANT)
    reach |= dict.fromkeys(program.sequences, Reach.CARRIED if policy.single_step else Reach.SEQUENCE)
    reach |= dict.fromkeys(program.befores, Reach.CARRIED)
    for op in program.ops:
        level = max((reach[name] for name in program.args(op)), default=Reach.CONSTANT)
        reach |= dict.fromkeys(ir.outs(op), level)
    return reach


def hoist(program: Program, policy: SchedulePolicy = PLAIN) -> Program:
    """Give every part of a pointwise expression that reaches less far than the whole a value of its own."""
    hoister = _Hoister(program, policy)
    for op in program.ops:
        match op:
            case ir.Pointwise(out=out, expr=expr):
                hoister.visit(out, expr)
            case _:
                hoister.ops.append(op)
                hoister.place(op)
    return program.with_ops(hoister.ops, hoister.values)


class _Hoister:
    def __init__(self, program: Program, policy: SchedulePolicy) -> None:
        self.program = program
        self.reach = reaches(program, policy)
        self.values: dict[str, Value] = {}
        self.ops: list[Op] = []
        self.made: dict[sympy.Expr, sympy.Symbol] = {}

    def place(self, op: Op) -> None:
        level = max((self.reach[name] for name in self.program.args(op)), default=Reach.CONSTANT)
        self.reach |= dict.fromkeys(ir.outs(op), level)

    def visit(self, out: str, expr: sympy.Expr) -> None:
        """Emit ``out = expr`` after its hoisted parts."""
        self.ops.append(ir.Pointwise(out, self.split(out, expr)))
        self.reach[out] = self.of(expr)

    def of(self, expr: sympy.Expr) -> Reach:
        """The reach of an expression."""
        return max((self.reach.get(s.name, Reach.CONSTANT) for s in expr.free_symbols), default=Reach.CONSTANT)

    def split(self, out: str, expr: sympy.Expr) -> sympy.Expr:
        """``expr`` with its parts of lesser reach replaced by values."""
        if expr.is_Atom:
            return expr
        whole = self.of(expr)
        if whole is Reach.CONSTANT:
            return expr
        if isinstance(expr, sympy.Add) and (collected := self.collect(expr, whole)) != expr:
            return self.split(out, collected)  # terms may have cancelled: it is whatever SymPy has made of it
        if not isinstance(expr, sympy.Add | sympy.Mul):
            return expr.func(*(self.part(out, arg, whole) for arg in expr.args))
        low = [arg for arg in expr.args if self.of(arg) < whole]
        high = [self.split(out, arg) for arg in expr.args if self.of(arg) == whole]
        if len(low) == len(expr.args):
            return expr
        group = expr.func(*low)
        return expr.func(self.part(out, group, whole), *high) if low else expr.func(*high)

    def collect(self, expr: sympy.Add, whole: Reach) -> sympy.Expr:
        """``d*a + d*b`` as ``d*(a + b)`` where ``d`` reaches as far as the whole and ``a``, ``b`` do not."""
        factors: defaultdict[sympy.Expr, list[sympy.Expr]] = defaultdict(list)
        for term in expr.args:
            args = sympy.Mul.make_args(term)
            far = sympy.Mul(*(a for a in args if self.of(a) == whole))
            factors[far].append(sympy.Mul(*(a for a in args if self.of(a) < whole)))
        if all(len(parts) == 1 for far, parts in factors.items() if far != 1):
            return expr
        return sympy.Add(*(far * sympy.Add(*parts) for far, parts in factors.items()))

    def part(self, out: str, expr: sympy.Expr, whole: Reach) -> sympy.Expr:
        """``expr`` itself where it is simple or reaches as far as the whole; otherwise the symbol of a value that holds it."""
        if self.of(expr) == whole:
            return self.split(out, expr)
        core = expr.as_coeff_Mul()[1] if expr.as_coeff_Mul()[0] == -1 else expr
        if core.is_Atom or not self.names(core):
            return expr
        if expr not in self.made:
            suffix = "+" if isinstance(expr, sympy.Add) else "*"
            name = out + suffix
            number = 2
            while name in self.values or name in self.program.values:
                name, number = f"{out}{suffix}{number}", number + 1
            owner = self.values.get(out) or self.program.values[out]
            self.values[name] = Value(name, self.shape(expr), owner.origin)
            self.visit(name, expr)
            self.made[expr] = symbol(name)
        return self.made[expr]

    def names(self, expr: sympy.Expr) -> list[str]:
        return sorted(s.name for s in expr.free_symbols if s.name in self.values or s.name in self.program.values)

    def shape(self, expr: sympy.Expr) -> Shape:
        """The shape that the values in ``expr`` stretch to."""
        return ir.stretched((self.values.get(name) or self.program.values[name]).shape for name in self.names(expr))
