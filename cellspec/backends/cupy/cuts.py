"""Cuts: after a step of a sample its state may be put back to the initial value, or its sequence may have ended.

``cuts`` [T + 1, B] says so, slot t for what is between step t - 1 and step t: 0 the sample goes on, 1 its state is put back, 2
step t - 1 was its last. Behind its end a sample goes on with states that nobody reads, put back at every step so that they stay
finite; no cotangent comes from there.

The host fills ``cuts``; here the programs of both directions learn to read it, by pointwise operations that join the kernels.
A state that pointwise operations alone read is put back where they read it: its history stays as the steps have made it. What
others read too, products first of all, is put back before it is stored, where the next step's products find it; the other
direction may then want what the step has made besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sympy

from cellspec import ir
from cellspec.cell import Cell
from cellspec.ir import Carry, Program, Value, symbol
from cellspec.pipeline import Compiled

CUT_BEFORE, CUT_AFTER = "cut before", "cut after"
"""The entries of ``cuts`` before and after a step."""


put_back = sympy.Function("put_back")
"""``put_back(cut, initial, value)``: what the next step reads for ``value``."""

handed_back = sympy.Function("handed_back")
"""``handed_back(cut, later, final)``: the cotangent of what a step hands on, from later steps or of the final state."""


def final(carry: Carry) -> str:
    """The final state's cotangent, of a carry of the backward program."""
    return carry.before.removesuffix("<-") + " final"


def with_cuts(compiled: Compiled) -> Compiled:
    """``compiled`` with both directions' programs reading ``cuts``."""
    kept_whole = {c.before for c in compiled.forward.carries if _is_kept_whole(compiled, c)}
    return replace(
        compiled,
        forward=_forward(compiled.forward, compiled.cell, kept_whole),
        backward=_backward(compiled.backward, compiled.cell, kept_whole),
    )


def _is_kept_whole(compiled: Compiled, carry: Carry) -> bool:
    """Whether a state's history stays as the steps have made it."""
    backward = compiled.backward
    readers = (op for program in (compiled.forward, backward) for op in program.ops if carry.before in ir.operands(op))
    pointwise = all(isinstance(op, ir.Pointwise) for op in readers)
    return pointwise and carry.before not in {total.value for total in backward.totals}


@dataclass(frozen=True)
class _Cut:
    """``out``: what is left of ``source``; ``given`` is what else is read for it."""

    out: str
    source: str
    expr: sympy.Expr
    given: tuple[str, ...]


def _forward(program: Program, cell: Cell, kept_whole: set[str]) -> Program:
    first: list[_Cut] = []
    last: list[_Cut] = []
    carries: list[Carry] = []
    for carry in program.carries:
        start = _initial(carry.before, cell)
        if carry.before in kept_whole:
            first.append(_put_back(_here(carry.before), carry.before, CUT_BEFORE, start))
            carries.append(carry)
        else:
            last.append(_put_back(f"{carry.after} next", carry.after, CUT_AFTER, start))
            carries.append(replace(carry, after=f"{carry.after} next"))
    return _joined(replace(program, carries=tuple(carries)), first, last)


def _backward(program: Program, cell: Cell, kept_whole: set[str]) -> Program:
    again = (name for name in program.sequences if name in kept_whole)
    first = [_put_back(_here(name), name, CUT_BEFORE, _initial(name, cell)) for name in again]
    for carry in program.carries:
        later, end = carry.before, final(carry)
        expr = handed_back(symbol(CUT_AFTER), symbol(later), symbol(end))
        first.append(_Cut(_here(later), later, expr, (CUT_AFTER, end)))
    return _joined(program, first, [])


def _here(name: str) -> str:
    """What a step reads for ``name``."""
    return f"{name} here"


def _put_back(out: str, source: str, cut: str, start: sympy.Expr) -> _Cut:
    return _Cut(out, source, put_back(symbol(cut), start, symbol(source)), (cut,))


def _initial(before: str, cell: Cell) -> sympy.Expr:
    """The number that a state starts from."""
    (number,) = {state.init for state in cell.states if f"{state.name}[t-1]" == before}
    return sympy.Integer(int(number)) if float(number).is_integer() else sympy.sympify(number)


def _joined(program: Program, first: Sequence[_Cut], last: Sequence[_Cut]) -> Program:
    """``program`` behind cuts whose results it reads for their sources, and before others."""
    cuts = {cut.source: cut for cut in (*first, *last)}
    sequences = dict.fromkeys(name for cut in cuts.values() for name in cut.given)
    values = {name: Value(name, (), "") for name in sequences}
    for name, value in program.values.items():
        values[name] = value
        if name in cuts:
            new = (cuts[name].out, *(g for g in cuts[name].given if g not in (CUT_BEFORE, CUT_AFTER)))
            values |= {n: replace(value, name=n) for n in new}
    names = {cut.source: cut.out for cut in first}
    before, behind = ([ir.Pointwise(cut.out, cut.expr) for cut in part] for part in (first, last))
    totals = tuple(replace(total, value=names.get(total.value, total.value)) for total in program.totals)
    whole = replace(program, values=values, sequences=(*program.sequences, *sequences), totals=totals)
    return ir.typecheck(whole.with_ops([*before, *(ir.rename(op, names) for op in program.ops), *behind]))
