"""Forms of expressions that take fewer calls, for targets that pay for each: programs and schedules rewritten.

``sigmoid(z) = 1/2 + tanh(z/2)/2``, with the half folded into the weights, lets one ``tanh`` serve gates of both kinds. The form
is exact to rounding in absolute terms, but not relative to a tiny result; so it is used only where that is enough in both
passes (:mod:`cellspec.passes.accuracy`), and where the result itself is neither a state nor an output.

``p*x + (1 - p)*y = y + p*(x - y)`` takes three calls and not four, and is y to the bit where p is 0. Where p is 1 it is x to
rounding beside the larger of both. So x must not be a state, which a gate that is closed keeps as it is, neither may be huge,
and again the result may be no value of which more is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations

import sympy

from cellspec import ir
from cellspec.ir import Op, Program, Value, symbol
from cellspec.ir.forms import MIXTURE
from cellspec.model.primitives import PRIMITIVES
from cellspec.passes.accuracy import Fact, delicate, facts
from cellspec.passes.schedule import Schedule

_SIGMOID, _TANH = PRIMITIVES["sigmoid"].symbol, PRIMITIVES["tanh"].symbol
_HALF = sympy.Rational(1, 2)


def tanh_form(program: Program, stash: Collection[str], delicate: Collection[str]) -> Program:
    """``program`` with logistic functions of single-use sums of products written as hyperbolic tangents of half the sum.

    Values in ``stash`` are read by the backward pass; they keep their meaning. Those in ``delicate`` must be accurate beside
    themselves.
    """
    rewriting = _Halving(program, frozenset(stash), frozenset((*delicate, *program.roots())))
    replaced: dict[str, tuple[Op, ...]] = {}
    for op in program.ops:
        if isinstance(op, ir.Pointwise):
            replaced |= rewriting.rewrite(op)
    ops = [new for op in program.ops for new in replaced.get(ir.outs(op)[0], (op,))]
    return ir.typecheck(program.with_ops(ops, rewriting.values))


@dataclass
class _Halving:
    """Finds what can be halved; ``exact`` must be what they are to rounding beside themselves. ``values`` are the new ones."""

    program: Program
    stash: frozenset[str]
    exact: frozenset[str]
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.defining = {out: op for op in self.program.ops for out in ir.outs(op)}
        self.readers = Counter(name for op in self.program.ops for name in self.program.args(op))
        self.readers.update(self.program.roots())

    def rewrite(self, op: ir.Pointwise) -> dict[str, tuple[Op, ...]]:
        """What takes the place of which values' operations, so that ``op``, a logistic function, is a hyperbolic tangent."""
        if not (isinstance(op.expr, _SIGMOID) and op.expr.args[0].is_Symbol) or op.out in self.exact:
            return {}
        pre = self.defining.get(op.expr.args[0].name)
        if not isinstance(pre, ir.Pointwise) or not self.is_free(pre.out):
            return {}
        terms = sorted(t.name for t in sympy.Add.make_args(pre.expr) if t.is_Symbol)
        products = [made for t in terms if isinstance(made := self.defining.get(t), ir.MatMul) and self.is_free(t)]
        if not products:
            return {}
        found = {product.out: self.halved(product) for product in products}
        halves = {symbol(product.out): 2 * symbol(f"{product.out}/2") for product in products}
        bent = self.value(f"tanh({pre.out})", op.out)
        found[pre.out] = (ir.Pointwise(pre.out, sympy.expand_mul(pre.expr.xreplace(halves) / 2, deep=False)),)
        found[op.out] = (
            ir.Pointwise(bent, _TANH(symbol(pre.out))),
            ir.Pointwise(op.out, _HALF + symbol(bent) / 2),
        )
        return found

    def is_free(self, name: str) -> bool:
        """Whether ``name`` may become another number: it is read once, and not by the backward pass."""
        return self.readers[name] == 1 and name not in self.stash

    def halved(self, product: ir.MatMul) -> tuple[Op, ...]:
        """The product with half the matrix, which is computed where it is first needed."""
        weight = f"{product.left}/2"
        again = weight in self.values
        made = ir.MatMul(self.value(f"{product.out}/2", product.out), self.value(weight, product.left), product.right)
        return (made,) if again else (ir.Pointwise(weight, symbol(product.left) / 2), made)

    def value(self, name: str, like: str) -> str:
        """A new value with the shape and the origin of another."""
        self.values[name] = replace(self.program.values[like], name=name)
        return name


def mixtures(
    schedule: Schedule, known: Mapping[str, Fact], careful: Collection[str] = (), *, backwards: bool = False
) -> Schedule:
    """``schedule`` with mixtures in three calls, where its loop and what stands around it compute one.

    ``known`` is what is known of values that are given; those in ``careful`` must be accurate beside themselves. It is a
    schedule that is rewritten: a term that is known before the loop is none of a mixture there.
    """
    program = schedule.program
    told = facts(program, known)
    exact = delicate(program, told, backwards=backwards).union(careful)
    huge = {name for name, fact in told.table.items() if fact.huge}
    once = {out for op in schedule.prologue for out in ir.outs(op)}

    def rewritten(ops: tuple[Op, ...]) -> tuple[Op, ...]:
        return tuple(_with_mixtures(op) if is_free(op) else op for op in ops)

    def is_free(op: Op) -> bool:
        """Whether an error that is small beside the largest value in ``op`` is small enough."""
        return once.isdisjoint(ir.outs(op)) and exact.isdisjoint(ir.outs(op)) and huge.isdisjoint(program.args(op))

    return replace(
        schedule,
        program=replace(program, ops=rewritten(program.ops)),
        before=rewritten(schedule.before),
        levels=tuple(map(rewritten, schedule.levels)),
        after=rewritten(schedule.after),
    )


def _with_mixtures(op: Op) -> Op:
    if not isinstance(op, ir.Pointwise) or (expr := _mixed(op.expr)) == op.expr:
        return op
    return replace(op, expr=expr)


def _mixed(expr: sympy.Expr) -> sympy.Expr:
    """``expr`` with the mixtures in it in their own form, the outermost first."""
    if isinstance(expr, sympy.Add) and (found := mixture(expr)):
        return MIXTURE(*map(_mixed, found))
    args = [_mixed(arg) for arg in expr.args]
    return expr if args == list(expr.args) else expr.func(*args)


def mixture(expr: sympy.Add) -> tuple[sympy.Symbol, sympy.Expr, sympy.Expr] | None:
    """``p``, ``x`` and ``y`` if ``expr`` is p*x + (1 - p)*y, neither of them a number, and x not a state before the step."""
    if len(expr.args) != 2 or any(term.could_extract_minus_sign() for term in expr.args):
        return None
    for this, other in permutations(expr.args):
        for factor in sympy.Mul.make_args(other):
            weight = 1 - factor
            if weight.is_Symbol and weight in sympy.Mul.make_args(this):
                x, y = this / weight, other / factor
                kept = x.is_Symbol and x.name.endswith("[t-1]")
                if weight in x.free_symbols | y.free_symbols:  # in a slope: p*(1 - p)*z is small where p*z is not
                    continue
                return None if kept or x.is_number or y.is_number else (weight, x, y)
    return None
