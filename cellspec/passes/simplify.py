"""Simplification: what a Program computes stays the same, its operations become fewer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import sympy

from cellspec import ir
from cellspec.ir import Op, Program, symbol
from cellspec.model.folding import is_finite
from cellspec.model.nodes import Shape


def simplify(program: Program) -> Program:
    """``program`` with values of a single use fused into it, equal values computed once, and nothing dead."""
    return live(merge(fuse(live(program))))


def merge(program: Program) -> Program:
    """Where two pointwise operations compute the same, let the second copy the first (value numbering)."""
    first: dict[tuple[sympy.Expr, Shape], str] = {}
    ops: list[Op] = []
    for op in program.ops:
        match op:
            case ir.Pointwise(out=out, expr=expr):
                known = first.setdefault((expr, program.shape(out)), out)
                ops.append(op if known == out else ir.Pointwise(out, symbol(known)))
            case _:
                ops.append(op)
    return program.with_ops(ops)


def live(program: Program, *, keep_stops: bool = False) -> Program:
    """``program`` without operations whose results nothing needs, and with copies read at their source.

    Where cotangents flow is settled once a program has been differentiated: from then on a stopped gradient is a copy too.
    """
    program = _name_results(_resolve_copies(program, keep_stops))
    needed = set(program.roots())
    kept: list[Op] = []
    for op in reversed(program.ops):
        if needed.intersection(ir.outs(op)):
            kept.append(op)
            needed.update(ir.operands(op))
    return program.with_ops(reversed(kept))


def _resolve_copies(program: Program, keep_stops: bool) -> Program:
    source: dict[str, str] = {}
    ops = []
    for op in program.ops:
        new = ir.rename(op, {name: source[name] for name in ir.operands(op) if name in source})
        if isinstance(new, ir.Pointwise) and not is_finite(new.expr):
            new = op  # a value and its copy: SymPy sees that their difference, which this divides by, is 0
        (out,), name = ir.outs(new), new.source()
        copies = name in program.values and not (new.traits.stops and keep_stops)
        if name is not None and copies and program.shape(name) == program.shape(out):
            source[out] = name
            new = ir.Pointwise(out, symbol(name))
        ops.append(new)
    totals = tuple(replace(total, value=source.get(total.value, total.value)) for total in program.totals)
    return replace(program, totals=totals).with_ops(ops)


def _name_results(program: Program) -> Program:
    """Where a result is a copy of an operation's value that is no result itself, let the operation define the result."""
    roots = set(program.roots())
    defined = {out for op in program.ops for out in ir.outs(op)}
    names: dict[str, str] = {}
    for op in program.ops:
        match op:
            case ir.Pointwise(out=out, expr=sympy.Symbol(name=name)) if out in roots and name in defined - roots:
                if name not in names and program.shape(name) == program.shape(out):
                    names[name] = out
    ops = []
    for op in program.ops:
        (out,) = ir.outs(op)
        match op:
            case ir.Pointwise(expr=sympy.Symbol(name=name)) if names.get(name) == out:
                continue
        ops.append(ir.with_out(ir.rename(op, names), names.get(out, out)))
    return program.with_ops(ops)


def fuse(program: Program) -> Program:
    """Substitute every pointwise value that is read exactly once, by a pointwise operation of its own shape.

    ``d_i = d_c*g`` and ``d_i.pre = d_i*i*(1 - i)`` become ``d_i.pre = d_c*g*i*(1 - i)``, whose cotangent-free part can be
    computed for many steps at once.
    """
    uses: defaultdict[str, int] = defaultdict(int)
    for op in program.ops:
        for name in program.args(op):
            match op:
                case ir.Pointwise(expr=expr):
                    uses[name] += sum(1 for node in sympy.preorder_traversal(expr) if node == symbol(name))
                case _:
                    uses[name] += 2  # must stay a value
    for name in program.roots():
        uses[name] += 2
    pending: dict[sympy.Symbol, sympy.Expr] = {}
    ops: list[Op] = []
    for op in program.ops:
        match op:
            case ir.Pointwise(out=out, expr=expr):
                symbols = sorted(expr.free_symbols, key=lambda s: s.name)
                inlined = {s: pending[s] for s in symbols if s in pending and program.shape(s.name) == program.shape(out)}
                for s in (s for s in symbols if s not in inlined):
                    if s in pending:
                        ops.append(ir.Pointwise(s.name, pending.pop(s)))
                whole = expr.xreplace(inlined)
                if inlined and not is_finite(whole):  # SymPy divides by what it sees to be 0
                    ops += (ir.Pointwise(s.name, pending.pop(s)) for s in inlined)
                else:
                    expr = whole
                if uses[out] == 1 and not expr.is_Symbol:
                    pending[symbol(out)] = expr
                else:
                    ops.append(ir.Pointwise(out, expr))
            case _:
                ops.append(op)
    return program.with_ops(ops)
