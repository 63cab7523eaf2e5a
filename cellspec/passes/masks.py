"""Masks as a rewriting of both directions' programs: states that are reset within a batch, sequences that end before others.

Between any two steps of a sample lies a *boundary* (a ``cut``, as the text of a module calls it). Slot t of ``[T + 1, B]`` says
what the one between step t - 1 and step t is:

- :data:`GOES_ON`: nothing happens;
- :data:`RESET`: a new segment begins, from the spec's own initial state;
- :data:`ENDED`: step t - 1 was the last of its sequence;
- :data:`RESTARTS`: the sequence begins once more, behind its end.

At the last two the state becomes what the first step has read: padding is the sample once more, with the inputs that the host
arranges, so that nothing is computed there that is not computed of the data; no cotangent comes from there.

The host fills the slots; here the programs learn to read them, by pointwise operations that join any other. A state that
pointwise operations alone read is reset where they read it: its history stays as the steps have made it. What others read too,
products first of all, is reset before it is handed on, where the next step's products find it; a sample's last one is then an
output of its own, and the backward program may want what the step has made besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy

from cellspec import ir
from cellspec.ir import Carry, Program, Value, symbol
from cellspec.model.equations import State

GOES_ON, RESET, ENDED, RESTARTS = range(4)
"""What a boundary may be."""

BOUNDARY_BEFORE, BOUNDARY_AFTER = "cut before", "cut after"
"""The values that hold the boundaries before and after a step."""

next_state = sympy.Function("next_state")
"""``next_state(boundary, initial, value, first)``: what is read for ``value``; ``first`` is what the first step has read."""

state_at_end = sympy.Function("state_at_end")
"""``state_at_end(boundary, value)``: ``value``, which is stored where a sequence ends and nowhere else."""

cotangent_at = sympy.Function("cotangent_at")
"""``cotangent_at(boundary, later, final)``: of what a step hands on, from later steps or of the final state."""


def final_cotangent(carry: Carry) -> str:
    """The final state's cotangent, of a carry of the backward program."""
    return carry.before.removesuffix("<-") + " final"


def first_state(before: str) -> str:
    """The state that the first step has read, of a state before a step."""
    return f"{before} first"


def last_state(carry: Carry) -> str:
    """The state after a sequence's last step, of a carry of the forward program that is reset before it is handed on."""
    return carry.after.removesuffix(" next") + " last"


def initial_states(states: Sequence[State]) -> dict[str, sympy.Expr]:
    """The number that each state starts from, by the value that a step reads."""
    return {
        f"{state.name}[t-1]": sympy.Integer(int(state.init)) if float(state.init).is_integer() else sympy.sympify(state.init)
        for state in states
    }


def with_masks(forward: Program, backward: Program, initial: Mapping[str, sympy.Expr]) -> tuple[Program, Program]:
    """Both directions reading boundaries; ``initial`` is the number that each carry of ``forward`` starts from."""
    totals = {total.value for total in backward.totals}
    befores = [carry.before for carry in forward.carries]
    kept = {b for b in befores if b not in totals and _is_read_pointwise(b, forward) and _is_read_pointwise(b, backward)}
    return _forward(forward, initial, kept), _backward(backward, initial, kept)


def _is_read_pointwise(name: str, program: Program) -> bool:
    """Whether nothing but pointwise operations reads ``name``."""
    return all(isinstance(op, ir.Pointwise) for op in program.ops if name in ir.operands(op))


@dataclass(frozen=True)
class _Rewrite:
    """``out = expr`` takes the place of ``source``; ``given`` is what else is read for it at every step."""

    out: str
    source: str
    expr: sympy.Expr
    given: tuple[str, ...]


def _forward(program: Program, initial: Mapping[str, sympy.Expr], kept: set[str]) -> Program:
    ahead: list[_Rewrite] = []
    behind: list[_Rewrite] = []
    carries: list[Carry] = []
    for carry in program.carries:
        start = initial[carry.before]
        if carry.before in kept:
            ahead.append(_reset(_here(carry.before), carry.before, BOUNDARY_BEFORE, start, carry.before))
            carries.append(carry)
        else:
            behind.append(_reset(f"{carry.after} next", carry.after, BOUNDARY_AFTER, start, carry.before))
            last = state_at_end(symbol(BOUNDARY_AFTER), symbol(carry.after))
            behind.append(_Rewrite(last_state(carry), carry.after, last, (BOUNDARY_AFTER,)))
            carries.append(replace(carry, after=f"{carry.after} next"))
    names = {old.after: new.after for old, new in zip(program.carries, carries, strict=True)}
    delays = tuple(replace(delay, after=names[delay.after]) for delay in program.delays)
    return _rewritten(replace(program, carries=tuple(carries), delays=delays), ahead, behind)


def _backward(program: Program, initial: Mapping[str, sympy.Expr], kept: set[str]) -> Program:
    again = (name for name in program.sequences if name in kept)
    ahead = [_reset(_here(name), name, BOUNDARY_BEFORE, initial[name], name) for name in again]
    for carry in program.carries:
        later, end = carry.before, final_cotangent(carry)
        expr = cotangent_at(symbol(BOUNDARY_AFTER), symbol(later), symbol(end))
        ahead.append(_Rewrite(_here(later), later, expr, (BOUNDARY_AFTER, end)))
    return _rewritten(program, ahead, [])


def _here(name: str) -> str:
    """What a step reads for ``name``."""
    return f"{name} here"


def _reset(out: str, source: str, boundary: str, start: sympy.Expr, before: str) -> _Rewrite:
    own = first_state(before)
    return _Rewrite(out, source, next_state(symbol(boundary), start, symbol(source), symbol(own)), (boundary, own))


def _rewritten(program: Program, ahead: Sequence[_Rewrite], behind: Sequence[_Rewrite]) -> Program:
    """``program`` behind those operations whose results it reads for their sources, and before the others."""
    rewrites = [*ahead, *behind]
    sequences = dict.fromkeys(name for rewrite in rewrites for name in rewrite.given)
    values = {name: Value(name, (), "") for name in sequences}
    for name, value in program.values.items():
        values[name] = value
        for rewrite in rewrites:
            if rewrite.source == name:
                new = (rewrite.out, *(given for given in rewrite.given if given not in (BOUNDARY_BEFORE, BOUNDARY_AFTER)))
                values |= {n: replace(value, name=n) for n in new}
    names = {rewrite.source: rewrite.out for rewrite in ahead}
    before, after = ([ir.Pointwise(rewrite.out, rewrite.expr) for rewrite in part] for part in (ahead, behind))
    totals = tuple(replace(total, value=names.get(total.value, total.value)) for total in program.totals)
    whole = replace(program, values=values, sequences=(*program.sequences, *sequences), totals=totals)
    return ir.typecheck(whole.with_ops([*before, *(ir.rename(op, names) for op in program.ops), *after]))
