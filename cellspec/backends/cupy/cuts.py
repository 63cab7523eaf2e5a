"""Cuts: after a step of a sample its state may be put back to the initial value, or its sequence may have ended.

``cuts`` [T + 1, B] says so, slot t for what is between step t - 1 and step t: 0 the sample goes on, 1 its state is put back to
the spec's own, 2 step t - 1 was its last, 3 it begins once more behind its end. At 2 and 3 its state is put back to its first
one: padding is the sample once more, with the inputs that the host arranges, so that nothing is computed there that is not
computed of the data; no cotangent comes from there.

The host fills ``cuts``; here the programs of both directions learn to read it, by pointwise operations that join the kernels.
A state that pointwise operations alone read is put back where they read it: its history stays as the steps have made it. What
others read too, products first of all, is put back before it is stored, where the next step's products find it; a sample's last
one is then stored apart, and the other direction may want what the step has made besides.
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
"""``put_back(cut, initial, value, first)``: what the next step reads for ``value``; ``first`` is what the first step read."""

ended = sympy.Function("ended")
"""``ended(cut, value)``: ``value``, which is stored where a sample ends and nowhere else."""

handed_back = sympy.Function("handed_back")
"""``handed_back(cut, later, final)``: the cotangent of what a step hands on, from later steps or of the final state."""


def final(carry: Carry) -> str:
    """The final state's cotangent, of a carry of the backward program."""
    return carry.before.removesuffix("<-") + " final"


def first_state(before: str) -> str:
    """The state that the first step has read, of a state before a step."""
    return f"{before} first"


def last_state(carry: Carry) -> str:
    """The state after a sample's last step, of a carry of the forward program whose history is put back."""
    return carry.after.removesuffix(" next") + " last"


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
    ahead: list[_Cut] = []
    behind: list[_Cut] = []
    carries: list[Carry] = []
    for carry in program.carries:
        start = initial(carry.before, cell)
        if carry.before in kept_whole:
            ahead.append(_put_back(_here(carry.before), carry.before, CUT_BEFORE, start, carry.before))
            carries.append(carry)
        else:
            behind.append(_put_back(f"{carry.after} next", carry.after, CUT_AFTER, start, carry.before))
            behind.append(_Cut(last_state(carry), carry.after, ended(symbol(CUT_AFTER), symbol(carry.after)), (CUT_AFTER,)))
            carries.append(replace(carry, after=f"{carry.after} next"))
    names = {old.after: new.after for old, new in zip(program.carries, carries, strict=True)}
    delays = tuple(replace(delay, after=names[delay.after]) for delay in program.delays)
    return _joined(replace(program, carries=tuple(carries), delays=delays), ahead, behind)


def _backward(program: Program, cell: Cell, kept_whole: set[str]) -> Program:
    again = (name for name in program.sequences if name in kept_whole)
    ahead = [_put_back(_here(name), name, CUT_BEFORE, initial(name, cell), name) for name in again]
    for carry in program.carries:
        later, end = carry.before, final(carry)
        expr = handed_back(symbol(CUT_AFTER), symbol(later), symbol(end))
        ahead.append(_Cut(_here(later), later, expr, (CUT_AFTER, end)))
    return _joined(program, ahead, [])


def _here(name: str) -> str:
    """What a step reads for ``name``."""
    return f"{name} here"


def _put_back(out: str, source: str, cut: str, start: sympy.Expr, before: str) -> _Cut:
    own = first_state(before)
    return _Cut(out, source, put_back(symbol(cut), start, symbol(source), symbol(own)), (cut, own))


def initial(before: str, cell: Cell) -> sympy.Expr:
    """The number that a state starts from."""
    (number,) = {state.init for state in cell.states if f"{state.name}[t-1]" == before}
    return sympy.Integer(int(number)) if float(number).is_integer() else sympy.sympify(number)


def _joined(program: Program, ahead: Sequence[_Cut], behind: Sequence[_Cut]) -> Program:
    """``program`` behind cuts whose results it reads for their sources, and before others."""
    cuts = [*ahead, *behind]
    sequences = dict.fromkeys(name for cut in cuts for name in cut.given)
    values = {name: Value(name, (), "") for name in sequences}
    for name, value in program.values.items():
        values[name] = value
        for cut in cuts:
            if cut.source == name:
                new = (cut.out, *(g for g in cut.given if g not in (CUT_BEFORE, CUT_AFTER)))
                values |= {n: replace(value, name=n) for n in new}
    names = {cut.source: cut.out for cut in ahead}
    before, after = ([ir.Pointwise(cut.out, cut.expr) for cut in part] for part in (ahead, behind))
    totals = tuple(replace(total, value=names.get(total.value, total.value)) for total in program.totals)
    whole = replace(program, values=values, sequences=(*program.sequences, *sequences), totals=totals)
    return ir.typecheck(whole.with_ops([*before, *(ir.rename(op, names) for op in program.ops), *after]))
