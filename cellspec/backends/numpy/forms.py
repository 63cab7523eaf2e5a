"""The forms that NumPy evaluates fastest.

``sigmoid(z) = 1/2 + tanh(z/2)/2``, with the half folded into the weights, lets one ``tanh`` serve gates of both kinds. The form
is exact to rounding in absolute terms, but not relative to a tiny result; so it is used only where that is enough in both
passes (:mod:`cellspec.passes.accuracy`), and where the result itself is neither a state nor an output.

``p*x + (1 - p)*y = y + p*(x - y)`` takes three calls and not four, and is y to the bit where p is 0. Where p is 1 it is x to
rounding beside the larger of both. So x must not be a state, which a gate that is closed keeps as it is, neither may be huge,
and again the result may be no value of which more is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import permutations

import sympy

from cellspec import ir
from cellspec.ir import Op, Program, Value, symbol
from cellspec.model.primitives import PRIMITIVES

_SIGMOID, _TANH = PRIMITIVES["sigmoid"].symbol, PRIMITIVES["tanh"].symbol
_HALF = sympy.Rational(1, 2)


def tanh_form(program: Program, stash: Collection[str], delicate: Collection[str]) -> Program:
    """``program`` with logistic functions of single-use sums of products written as hyperbolic tangents of half the sum.

    Values in ``stash`` are read by the backward pass; they keep their meaning. Those in ``delicate`` must be accurate beside
    themselves.
    """
    defining = {out: op for op in program.ops for out in ir.outs(op)}
    readers: defaultdict[str, int] = defaultdict(int)
    for op in program.ops:
        for name in program.args(op):
            readers[name] += 1
    for name in program.roots():
        readers[name] += 1
    exact = {*delicate, *program.roots()}

    halved: dict[str, Op] = {}  # the pre-activation's operation, by its value
    rewritten: dict[str, tuple[Op, ...]] = {}
    values: dict[str, Value] = {}
    for op in program.ops:
        match op:
            case ir.Pointwise(out=out, expr=expr) if isinstance(expr, _SIGMOID) and expr.args[0].is_Symbol:
                pre = defining.get(expr.args[0].name)
                if not isinstance(pre, ir.Pointwise) or readers[pre.out] > 1 or pre.out in stash or out in exact:
                    continue
                terms = sorted(t.name for t in sympy.Add.make_args(pre.expr) if t.is_Symbol)
                products = [
                    defining[t] for t in terms if isinstance(defining.get(t), ir.MatMul) and readers[t] == 1 and t not in stash
                ]
                if not products:
                    continue
                halves = {}
                for product in products:
                    assert isinstance(product, ir.MatMul)
                    weight, name = f"{product.left}/2", f"{product.out}/2"
                    matrix = program.values[product.left]
                    made: tuple[Op, ...] = (ir.MatMul(name, weight, product.right),)
                    if weight not in values:
                        values[weight] = Value(weight, matrix.shape, matrix.origin)
                        made = (ir.Pointwise(weight, symbol(product.left) / 2), *made)
                    values[name] = Value(name, program.shape(product.out), program.values[product.out].origin)
                    rewritten[product.out] = made
                    halves[symbol(product.out)] = 2 * symbol(name)
                halved[pre.out] = ir.Pointwise(pre.out, sympy.expand_mul(pre.expr.xreplace(halves) / 2, deep=False))
                bent = f"tanh({pre.out})"
                values[bent] = Value(bent, program.shape(out), program.values[out].origin)
                rewritten[out] = (
                    ir.Pointwise(bent, _TANH(symbol(pre.out))),
                    ir.Pointwise(out, _HALF + symbol(bent) / 2),
                )
    ops: list[Op] = []
    for op in program.ops:
        (out,) = ir.outs(op)
        ops.extend(rewritten.get(out, (halved.get(out, op),)))
    return ir.typecheck(program.with_ops(ops, values))


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
