"""Where an error that is small beside 1 is small enough, and where it must be small beside the value itself.

A backend may compute a value in a form that is right to rounding beside 1 only, as 1/2 + tanh(z/2)/2 for a gate. That is
harmless until something magnifies the error of a tiny value: a division by it or of it, a logarithm, a root, a jump, a product
with what may be huge. :func:`delicate` finds the values of which that can happen, **through every operation of the IR and every
function of the table, by their traits**: an operation that does not say what it does to errors, or a function without
``wants``, is an error and not harmless. What cannot be told to be harmless counts as delicate.

What is known of magnitudes are :class:`Fact`s: a lower bound that is not 0, the sign, whether a value may be huge. Parameters,
inputs and states count as moderate, unless a state can grow by a factor that may itself be huge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import sympy

from cellspec import ir
from cellspec.ir import Along, Combine, ErrorFlow, Op, Program, Value, symbol
from cellspec.model.primitive import Least, Sign, Size, Want
from cellspec.model.primitives import PRIMITIVES
from cellspec.passes.simplify import live

MODERATE = 16
"""Errors magnified by up to this factor pass for rounding; a constant of at least its inverse keeps a sum away from 0."""


@dataclass(frozen=True)
class Fact:
    """What is known of a value: |v| >= ``least``, v >= 0 if ``positive``, v <= 0 if ``negative``; it may be ``huge``."""

    least: float = 0.0
    positive: bool = False
    negative: bool = False
    huge: bool = False

    @property
    def away(self) -> bool:
        """Whether it stays so far from 0 that dividing by it magnifies little."""
        return self.least * MODERATE >= 1


_DIM = Fact(least=1.0, positive=True)
_UNKNOWN = Fact()


def delicate(program: Program, known: Known | None = None, *, backwards: bool = False) -> set[str]:
    """The values of ``program`` that must be accurate beside themselves, and not only beside 1.

    ``known``: what :func:`facts` tells of the program. In a program that runs ``backwards`` comparisons choose a side at a
    kink, which is as uncertain as the value anyway; in a forward one they are jumps.
    """
    return _marked(program, known or facts(program), (), backwards).found


def _marked(program: Program, known: Known, seeds: Collection[str], backwards: bool) -> _Walk:
    walk = _Walk(known, backwards)
    after = {link.before: link.after for link in program.links}
    walk.mark(*seeds)
    for op in program.ops:
        walk.operation(op)
    while walk.fresh:
        name = walk.fresh.pop()
        if name in after:
            walk.mark(after[name])
        if name in known.defining:
            walk.operation(known.defining[name])
    return walk


def without_cancellation(
    program: Program, labels: Collection[str], known: Known | None = None, seeds: Collection[str] = ()
) -> Program:
    """``program`` with ``1 - f(z)`` written as the function that the table has for it, where the difference must be accurate.

    ``sqrt(1 - exp(z))`` becomes the root of ``-expm1(z)``. A difference that is a term of a larger sum stays as it is.
    ``labels``: values that stay, read or not. ``seeds``: results of which others ask accuracy.
    """
    known = known or facts(program)
    sums = _marked(program, known, seeds, False).sums
    table: dict[str, Value] = {}
    made: dict[sympy.Expr, sympy.Symbol] = {}
    ops: list[Op] = []

    def value(expr: sympy.Expr, like: str, kind: str) -> sympy.Symbol:
        """A value that holds ``expr``, of the shape of the value ``like`` and called after it."""
        if expr not in made:
            made[expr] = symbol(f"{like}.{kind}")
            table[f"{like}.{kind}"] = replace(program.values[like], name=f"{like}.{kind}")
            ops.append(ir.Pointwise(f"{like}.{kind}", expr))
        return made[expr]

    for op in program.ops:
        (out,) = ir.outs(op)
        differences: dict[sympy.Expr, sympy.Expr] = {}
        for expr in sorted(sums.get(out, ()), key=str):
            term, *rest = (arg for arg in expr.args if arg.free_symbols)
            function = term if term.is_Symbol else -term
            source = known.defining.get(function.name) if function.is_Symbol and not rest else None
            if expr not in (1 - function, function - 1) or not isinstance(source, ir.Pointwise):
                continue
            row = PRIMITIVES.get(type(source.expr).__name__)
            if row is None or row.complement is None or not source.expr.args[0].is_Symbol:
                continue
            sign, other = row.complement(*source.expr.args).as_coeff_Mul()
            (argument,) = other.args
            argument = argument if argument.is_Symbol else value(argument, source.out, "argument")
            result = sign * value(other.func(argument), source.out, "complement")
            differences[expr] = result if expr == 1 - function else -result
        if differences:
            assert isinstance(op, ir.Pointwise)
            op = ir.Pointwise(out, op.expr.xreplace(differences))
        ops.append(op)
    if not made:
        return program
    every = program.with_ops(ops, table)
    kept = dict.fromkeys((*every.outputs, *(name for name in every.values if name in labels)))
    pruned = live(replace(every, outputs=tuple(kept)), keep_stops=True)
    return ir.typecheck(replace(pruned, outputs=every.outputs))


def facts(program: Program, given: Mapping[str, Fact] | None = None) -> Known:
    """What is known of every value, ``given`` that of some; what one step reads of another is huge if what that makes is."""
    known = Known(program, {}, {name: _UNKNOWN for name in program.values} | dict(given or {}))
    befores: defaultdict[str, list[str]] = defaultdict(list)
    for link in program.links:
        befores[link.after].append(link.before)
    readers: defaultdict[str, list[Op]] = defaultdict(list)
    for op in program.ops:
        known.defining.update(dict.fromkeys(ir.outs(op), op))
        known.table.update(dict.fromkeys(ir.outs(op), known.operation(op)))
        for name in program.args(op):
            readers[name].append(op)
    grown = [after for after in befores if known.table[after].huge]
    while grown:
        name = grown.pop()
        for before in befores.get(name, ()):
            if known.table[name].huge and not known.table[before].huge:
                known.table[before] = Fact(huge=True)
                grown.append(before)
        for op in readers[name]:
            fact = known.operation(op)
            grown += [out for out in ir.outs(op) if known.table[out] != fact]
            known.table.update(dict.fromkeys(ir.outs(op), fact))
    return known


@dataclass
class Known:
    """What is known of a program's values, by name; facts of an expression follow from those of the values in it."""

    program: Program
    defining: dict[str, Op]
    table: dict[str, Fact]

    def operation(self, op: Op) -> Fact:
        parts = [self.table[name] for name in self.program.args(op)]
        match op.traits.errors:
            case ErrorFlow.EXPRESSION:
                assert isinstance(op, ir.Pointwise)
                return self.expression(op.expr)
            case ErrorFlow.RATIO:
                return Fact(huge=True)
            case ErrorFlow.PRODUCT:
                return Fact(positive=all(p.positive for p in parts), huge=any(p.huge for p in parts))
        if not parts:
            return _UNKNOWN
        positive, negative = all(p.positive for p in parts), all(p.negative for p in parts)
        least = min(p.least for p in parts)
        match op:
            case Along(combines=Combine.SUM, reduces=True, operand=name) if self.holds_one(name):
                least = 1.0
            case Along(combines=Combine.SUM) if not positive and not negative:
                least = 0.0
        return Fact(least, positive, negative, any(p.huge for p in parts))

    def expression(self, expr: sympy.Expr) -> Fact:
        match expr:
            case sympy.Symbol(name=name):
                return self.table.get(name, _DIM)
            case sympy.Add():
                return self.sum(expr)
            case sympy.Mul():
                parts = [self.expression(factor) for factor in expr.args]
                least = float(sympy.prod(p.least for p in parts))
                unknown = sum(not (p.positive or p.negative) for p in parts)
                minus = sum(p.negative for p in parts) % 2 == 1
                huge = any(p.huge for p in parts) and not self.is_share(expr)
                return Fact(least, not unknown and not minus, not unknown and minus, huge)
            case sympy.Pow(base=base, exp=power):
                part = self.expression(base)
                even = power.is_Integer and power % 2 == 0
                positive = bool(even or part.positive or not power.is_Integer)
                if power < 0:
                    return Fact(0.0, positive, part.negative and not positive, not part.away)
                return Fact(part.least ** float(power), positive, part.negative and not positive, part.huge)
            case sympy.Function():
                return self.function(expr)
        value = float(expr)
        return Fact(abs(value), value >= 0, value <= 0)

    def sum(self, expr: sympy.Add) -> Fact:
        parts = [self.expression(term) for term in expr.args]
        positive, negative = all(p.positive for p in parts), all(p.negative for p in parts)
        least = max(p.least for p in parts) if positive or negative else 0.0
        return Fact(least, positive, negative or self.is_below_top(expr), any(p.huge for p in parts))

    def function(self, expr: sympy.Function) -> Fact:
        name, parts = type(expr).__name__, [self.expression(arg) for arg in expr.args]
        if name not in PRIMITIVES:  # a choice between its last arguments, that a backend has made
            return Fact(huge=any(p.huge for p in parts))
        row, first = PRIMITIVES[name], parts[0]
        positive = row.sign is Sign.NOT_NEGATIVE or (row.sign is Sign.SAME and first.positive)
        negative = row.sign is Sign.SAME and first.negative
        huge = any(p.huge for p in parts) if row.size is Size.KEEPS else row.size is Size.GROWS and not first.negative
        least = 0.0
        match row.least:
            case Least.GREATEST if any(p.positive for p in parts):
                least, positive = max(p.least for p in parts if p.positive), True
            case Least.SAME:
                least = first.least
            case Least.ROOT:
                least = first.least**0.5
        return Fact(least, positive, negative, huge)

    def operand(self, name: str) -> Op | None:
        """The operation that defines ``name``, copies and stops left out."""
        op = self.defining.get(name)
        source = op.source() if op else None
        return op if source is None else self.operand(source)

    def is_below_top(self, expr: sympy.Add) -> bool:
        """Whether ``expr`` is a value less its largest element."""
        tops = ((term, self.operand((-term).name)) for term in expr.args if (-term).is_Symbol)
        return any(
            isinstance(top, Along) and top.combines is Combine.LARGEST and top.reduces and expr - term == symbol(top.operand)
            for term, top in tops
        )

    def holds_one(self, name: str) -> bool:
        """Whether ``name`` is exp(v - the largest element of v), of whose elements one is 1."""
        match self.defining.get(name):
            case ir.Pointwise(expr=expr) if isinstance(expr, PRIMITIVES["exp"].symbol) and expr.args[0].is_Symbol:
                below = self.defining.get(expr.args[0].name)
                return isinstance(below, ir.Pointwise) and isinstance(below.expr, sympy.Add) and self.is_below_top(below.expr)
        return False

    def is_share(self, expr: sympy.Mul) -> bool:
        """Whether ``expr`` is at most 1: a term that is not negative over a sum of it and of others like it."""
        below = [f for f in expr.args if isinstance(f, sympy.Pow) and f.exp == -1]
        if len(below) != 1 or len(expr.args) != 2:
            return False
        term, whole = expr * below[0].base, sympy.Add.make_args(below[0].base)
        if not term.is_Symbol or not all(self.expression(part).positive for part in (term, *whole)):
            return False
        sums = (self.operand(part.name) for part in whole if part.is_Symbol)
        return term in whole or any(
            isinstance(made, Along) and made.combines is Combine.SUM and made.reduces and made.operand == term.name
            for made in sums
        )


@dataclass
class _Walk:
    """Marks the operands of operations whose results are marked, and those of which an operation itself asks it."""

    known: Known
    backwards: bool
    found: set[str] = field(default_factory=set)
    fresh: list[str] = field(default_factory=list)  # found, and what defines them is still to be asked
    sums: dict[str, set[sympy.Add]] = field(default_factory=dict)  # of each operation, those that are delicate
    out: str = ""

    def mark(self, *names: str) -> None:
        """Add values to what must be accurate beside itself."""
        for name in names:
            if name not in self.found:
                self.found.add(name)
                self.fresh.append(name)

    def operation(self, op: Op) -> None:
        wanted = not self.found.isdisjoint(ir.outs(op))
        names = [name for name in ir.operands(op) if name in self.known.table]
        match op.traits.errors:
            case ErrorFlow.EXPRESSION:
                assert isinstance(op, ir.Pointwise)
                self.out = op.out
                self.expression(op.expr, wanted)
            case ErrorFlow.SAME:
                self.mark(*(names if wanted else ()))
            case ErrorFlow.RATIO:
                self.mark(*names)
            case ErrorFlow.PRODUCT:
                huge = [name for name in names if self.known.table[name].huge]
                self.mark(*(name for name in names if wanted or any(other != name for other in huge)))

    def expression(self, expr: sympy.Expr, wanted: bool, within: bool = False) -> None:
        """Mark the values in ``expr``, which must be accurate beside itself if ``wanted``; ``within`` a sum it has company."""
        match expr:
            case sympy.Symbol(name=name):
                if wanted and name in self.known.table:
                    self.mark(name)
            case sympy.Add():
                if wanted and not within:
                    self.sums.setdefault(self.out, set()).add(expr)
                apart = any(self.known.expression(term).away for term in expr.args if not term.free_symbols)
                for term in expr.args:
                    self.expression(term, wanted and not apart, within=True)
            case sympy.Mul():
                magnify = [self.magnifies(factor) for factor in expr.args]  # asked once: products may be long
                for factor, own in zip(expr.args, magnify, strict=True):
                    self.expression(factor, wanted or sum(magnify) > own, within)
            case sympy.Pow(base=base, exp=power):
                self.expression(base, not self.known.expression(base).away if power < 1 else wanted)
            case sympy.Function():
                row = PRIMITIVES.get(type(expr).__name__)
                wants = row.wants if row else (Want.SAME,) * len(expr.args)
                for arg, want in zip(expr.args, wants, strict=True):
                    self.expression(arg, self.asks(want, expr, arg, wanted))

    def magnifies(self, factor: sympy.Expr) -> bool:
        """Whether a factor may be huge."""
        if factor.is_number:
            return bool(abs(float(factor)) > MODERATE)
        return self.known.expression(factor).huge

    def asks(self, want: Want, expr: sympy.Function, arg: sympy.Expr, wanted: bool) -> bool:
        """Whether the argument of a function must be accurate beside itself."""
        match want:
            case Want.LITTLE:
                return False
            case Want.SAME:
                return wanted
            case Want.SIDE if self.backwards:
                return False
            case Want.SIDE:
                return not any(self.known.expression(other).away for other in expr.args if not other.free_symbols)
        return not self.known.expression(arg).away
