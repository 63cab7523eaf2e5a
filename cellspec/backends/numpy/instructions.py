"""Schedule → NumPy instructions: pointwise expressions flattened to single ufunc calls, common subexpressions computed once.

Values made here are called ``%1``, ``%2``, …; they have a shape like any other and belong to the equation that they serve.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import sympy

from cellspec import ir
from cellspec.ir import Along, Combine, Op, Value
from cellspec.ir.forms import MIXTURE
from cellspec.model.nodes import Shape
from cellspec.model.primitive import divides, divisors
from cellspec.model.primitives import PRIMITIVES
from cellspec.passes.schedule import Gradient, Schedule

HELPERS = tuple(name for name, row in PRIMITIVES.items() if not row.in_place)
"""Elementwise functions without a NumPy ufunc of their own: the module defines them where it needs them.

A call of one does the work of one instruction, and writes over none of its operands.
"""


@dataclass(frozen=True)
class Scalar:
    """A number in an instruction: a literal, or an expression over the dims."""

    value: sympy.Expr


Arg = str | Scalar

_Call = tuple[str, tuple[Arg, ...]]


@dataclass(frozen=True)
class Elementwise:
    """``out = ufunc(*args)``."""

    ufunc: str
    out: str
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Contraction:
    """``out = left*right``, a product of shape ``shape``, summed over the axes along which ``out`` has size 1."""

    out: str
    left: str
    right: str
    shape: Shape


Instruction = Elementwise | Contraction | Op


@dataclass(frozen=True)
class Code:
    """The instructions of one direction, by region, and every value that they name."""

    schedule: Schedule
    regions: tuple[tuple[Instruction, ...], ...]
    values: Mapping[str, Value]


def reads(instruction: Instruction) -> tuple[str, ...]:
    """The values that an instruction reads."""
    match instruction:
        case Elementwise(args=args):
            return tuple(a for a in args if isinstance(a, str))
        case Contraction(left=left, right=right):
            return (left, right)
        case _:
            return ir.operands(instruction)


def writes(instruction: Instruction) -> tuple[str, ...]:
    """The values that an instruction defines."""
    return (instruction.out,) if isinstance(instruction, Elementwise | Contraction) else ir.outs(instruction)


def keep_carries(schedule: Schedule) -> Schedule:
    """``schedule`` with copies, at every step, of the carried values that are read after the loop.

    A backward carry lives in memory that the next step overwrites.
    """
    program = schedule.program
    ends = {name for carry in program.carries for name in (carry.before, carry.after)}
    late = {name for op in schedule.after for name in ir.operands(op)}
    late |= {name for g in schedule.gradients for name in (g.right, *(left for _, left in g.rows))} | {
        s.value for s in schedule.sums
    }
    copies = {name: f"{name} kept" for name in sorted(ends & late)}
    if not copies:
        return schedule
    new = tuple(ir.Pointwise(copy, ir.symbol(name)) for name, copy in copies.items())
    befores = {carry.before for carry in program.carries}
    first, *rest = schedule.levels
    last = rest.pop() if rest else ()
    levels = [(*(c for c, n in zip(new, copies, strict=True) if n in befores), *first), *rest, last]
    levels[-1] = (*levels[-1], *(c for c, n in zip(new, copies, strict=True) if n not in befores))

    def late_name(name: str) -> str:
        return copies.get(name, name)

    return replace(
        schedule,
        program=replace(
            program, values={**program.values, **{c: replace(program.values[n], name=c) for n, c in copies.items()}}
        ),
        levels=tuple(levels),
        after=tuple(ir.rename(op, copies) for op in schedule.after),
        gradients=tuple(
            Gradient(tuple((target, late_name(left)) for target, left in g.rows), late_name(g.right))
            for g in schedule.gradients
        ),
        sums=tuple(replace(total, value=late_name(total.value)) for total in schedule.sums),
    )


def instructions(schedule: Schedule) -> Code:
    """Flatten the pointwise operations of ``schedule``."""
    flat = _Flattener(schedule)
    regions = tuple(tuple(flat.region(ops)) for ops in (schedule.before, schedule.loop, schedule.after))
    values = {**schedule.program.values, **flat.values}
    return Code(schedule, _contracted(schedule, regions, values), values)


def _contracted(
    schedule: Schedule, regions: tuple[tuple[Instruction, ...], ...], values: Mapping[str, Value]
) -> tuple[tuple[Instruction, ...], ...]:
    """``regions`` with products of values of several axes that are only summed, ``C[t] @ q``, computed without the product."""
    needed = set(schedule.program.roots())
    needed |= {name for gradient in schedule.gradients for name in (gradient.right, *(left for _, left in gradient.rows))}
    readers = Counter(name for region in regions for instruction in region for name in reads(instruction))
    result = []
    for region in regions:
        products = {i.out: i for i in region if isinstance(i, Elementwise) and i.ufunc == "multiply" and len(reads(i)) == 2}
        sums: dict[str, Contraction] = {}
        for instruction in region:
            match instruction:
                case Along(combines=Combine.SUM, reduces=True, out=out, operand=name) if (
                    name in products and readers[name] == 1 and name not in needed
                ):
                    shape = values[name].shape
                    if len(shape) > 1 and not ir.is_one(values[out].shape):
                        left, right = reads(products[name])
                        sums[name] = Contraction(out, left, right, shape)
        made = {contraction.out: contraction for contraction in sums.values()}
        kept = (i for i in region if not sums.keys() & set(writes(i)))
        result.append(tuple(made.get(writes(i)[0], i) for i in kept))
    return tuple(result)


@dataclass
class _Flattener:
    schedule: Schedule
    values: dict[str, Value] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, Scalar] = field(default_factory=dict)
    known: dict[_Call, str] = field(default_factory=dict)
    naming: defaultdict[str, set[_Call]] = field(default_factory=lambda: defaultdict(set))  # value -> its calls
    first: dict[str, int] = field(default_factory=dict)  # where in ``out`` a value made here is defined
    out: list[Instruction] = field(default_factory=list)
    origin: str = ""

    def __post_init__(self) -> None:
        program = self.schedule.program
        names = [*program.constants, *program.sequences, *program.befores]
        ordered = (*self.schedule.prologue, *self.schedule.before, *self.schedule.loop, *self.schedule.after)
        names += [name for op in ordered for name in ir.outs(op)]
        self.order = {name: k for k, name in enumerate(names)}
        for op in self.schedule.prologue:
            if isinstance(op, ir.Pointwise) and not program.args(op):
                self.numbers[op.out] = Scalar(op.expr)

    def region(self, ops: Iterable[Op]) -> list[Instruction]:
        self.out = []
        self.known = {}
        self.naming.clear()
        for op in ops:
            match op:
                case ir.Pointwise(out=out, expr=expr):
                    self.origin = self.schedule.program.values[out].origin
                    self.assign(out, expr)
                case _:
                    self.out.append(op)
        return self.out

    def assign(self, out: str, expr: sympy.Expr) -> None:
        """Instructions for ``out = expr``; the last of them defines ``out``."""
        result = self.visit(expr)
        if isinstance(result, str) and result in self.values and self.shape(result) == self.schedule.program.shape(out):
            self.rename(result, out)
        else:
            self.out.append(Elementwise("copyto", out, (result,)))

    def rename(self, made: str, out: str) -> None:
        """Call the value ``made`` by its proper name."""
        del self.values[made]
        for k, instruction in enumerate(self.out[self.first[made] :], self.first[made]):
            if isinstance(instruction, Elementwise):
                args = tuple(out if a == made else a for a in instruction.args)
                self.out[k] = Elementwise(instruction.ufunc, out if instruction.out == made else instruction.out, args)
        for key in self.naming.pop(made):
            ufunc, args = key
            value = self.known.pop(key)
            for arg in args:
                if isinstance(arg, str) and arg != made:
                    self.naming[arg].discard(key)
            self.remember(ufunc, tuple(out if a == made else a for a in args), out if value == made else value)

    def remember(self, ufunc: str, args: tuple[Arg, ...], value: str) -> None:
        """Note what ``value`` is, so that it is computed once."""
        key = (ufunc, args)
        self.known[key] = value
        for name in (*args, value):
            if isinstance(name, str):
                self.naming[name].add(key)

    def shape(self, name: str) -> Shape:
        return self.values[name].shape if name in self.values else self.schedule.program.shape(name)

    def call(self, ufunc: str, *args: Arg) -> Arg:
        """The value of ``ufunc(*args)``, computed once."""
        key = (ufunc, args)
        if key not in self.known:
            shape = ir.stretched(self.shape(a) for a in args if isinstance(a, str))
            name = f"%{len(self.order)}"
            self.order[name] = len(self.order)
            self.values[name] = Value(name, shape, self.origin)
            self.first[name] = len(self.out)
            self.out.append(Elementwise(ufunc, name, args))
            self.remember(ufunc, args, name)
        return self.known[key]

    def visit(self, expr: sympy.Expr) -> Arg:
        """The value of an expression."""
        if not self.holds_values(expr):
            return Scalar(expr)
        match expr:
            case sympy.Symbol(name=name):
                return self.numbers.get(name, str(name))
            case sympy.Add():
                return self.sum(expr)
            case sympy.Mul():
                return self.product(expr)
            case sympy.Pow() if divides(expr):
                return self.product(expr)
            case sympy.Pow():
                return self.power(self.visit(expr.base), expr.exp)
        if isinstance(expr, MIXTURE):
            return self.mixture(*expr.args)
        name = type(expr).__name__
        if name in PRIMITIVES and isinstance(expr, PRIMITIVES[name].symbol):
            return self.visit(PRIMITIVES[name].numpy(*expr.args))
        return self.call(name, *map(self.visit, expr.args))

    def rank(self, expr: sympy.Expr) -> tuple[int, str]:
        """Operands are taken in the order in which they are defined: the same for every gate of a kind."""
        return max((self.order.get(s.name, -1) for s in expr.free_symbols), default=-1), str(expr)

    def mixture(self, weight: sympy.Expr, this: sympy.Expr, other: sympy.Expr) -> Arg:
        """``other + weight*(this - other)``."""
        start = self.visit(other)
        difference = self.call("subtract", self.visit(this), start)
        return self.call("add", start, self.call("multiply", self.visit(weight), difference))

    def sum(self, expr: sympy.Add) -> Arg:
        plus = [t for t in expr.args if not t.could_extract_minus_sign()]
        minus = [-t for t in expr.args if t.could_extract_minus_sign()]
        plus.sort(key=lambda t: (t.is_number, self.rank(t)))
        minus.sort(key=self.rank)
        if not plus and minus[0].is_number:
            plus = [-minus.pop(0)]
        if plus:
            total = self.visit(plus[0])
            rest: list[tuple[str, sympy.Expr]] = [("add", t) for t in plus[1:]] + [("subtract", t) for t in minus]
        else:
            total = self.call("negative", self.visit(minus[0]))
            rest = [("subtract", t) for t in minus[1:]]
        for ufunc, term in rest:
            total = self.call(ufunc, total, self.visit(term))
        return total

    def product(self, expr: sympy.Mul) -> Arg:
        number, rest = expr.as_coeff_Mul()
        over = [f for f in sympy.Mul.make_args(rest) if divides(f)]
        factors = [f for f in sympy.Mul.make_args(rest) if f not in over]
        scalars = [f for f in factors if not self.holds_values(f)]
        factors = sorted((f for f in factors if f not in scalars), key=self.rank)
        scale = sympy.Mul(number, *scalars)
        below = [divisor for f in over for divisor in divisors(f)]
        if not factors:
            total = self.call("divide", Scalar(scale), self.visit(below[0]))
            below, scale = below[1:], sympy.Integer(1)
        else:
            total = self.visit(factors[0])
            if scale == -1:
                total = self.call("negative", total)
            elif scale != 1:
                total = self.call("multiply", total, Scalar(scale))
        for factor in factors[1:]:
            total = self.call("multiply", total, self.visit(factor))
        for factor in below:
            total = self.call("divide", total, self.visit(factor))
        return total

    def holds_values(self, expr: sympy.Expr) -> bool:
        """Whether any value stands in ``expr``; otherwise it is a number, maybe of dims."""
        return any(s.name in self.order for s in expr.free_symbols)

    def power(self, base: Arg, exponent: sympy.Expr) -> Arg:
        if exponent == _HALF:
            return self.call("sqrt", base)
        if exponent == 2:
            return self.call("square", base)
        if exponent.is_Integer and exponent <= 8:
            half = self.power(base, exponent // 2) if exponent > 3 else self.call("square", base)
            even = self.call("square", half) if exponent > 3 else half
            return self.call("multiply", even, base) if exponent % 2 else even
        return self.call("power", base, Scalar(exponent))


_HALF = sympy.Rational(1, 2)
