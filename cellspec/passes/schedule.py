"""Scheduling: a step Program → what happens before, in and after the loop over time.

- Loop fission: what depends on no carry is computed for all steps before the loop (where the loop needs it) or after it;
  what depends on a carry but feeds none, after it.
- Products whose results are only summed become one product with stacked operands; products with a common operand, one product
  with stacked weights. The loop's products fall into levels: a level's products need the results of the level before.
- A matrix's gradient is one product over all steps and samples after the loop.

Nothing here knows which way the loop runs: forward and backward steps go through the same passes. Whoever runs them typechecks
after each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product

import sympy

from cellspec import ir
from cellspec.ir import Op, Program, symbol
from cellspec.passes.hoist import Reach, hoist, reaches
from cellspec.passes.policy import PLAIN, SchedulePolicy
from cellspec.passes.simplify import live


@dataclass(frozen=True)
class Gradient:
    """``target = sum over all steps of left rightᵀ`` for each (target, left) of ``rows``: one product, after the loop."""

    rows: tuple[tuple[str, str], ...]
    right: str


@dataclass(frozen=True)
class Schedule:
    """Where every operation of ``program`` happens. ``levels[0]`` holds what the loop does before its first product."""

    program: Program
    prologue: tuple[Op, ...]
    before: tuple[Op, ...]
    levels: tuple[tuple[Op, ...], ...]
    after: tuple[Op, ...]
    gradients: tuple[Gradient, ...]
    sums: tuple[ir.Total, ...]

    @property
    def loop(self) -> tuple[Op, ...]:
        """The loop's operations, level after level."""
        return tuple(op for level in self.levels for op in level)

    @property
    def listing(self) -> Program:
        """All that happens, in the order in which it does, as one program."""
        outer = (op for op in self.program.ops if isinstance(op, ir.Outer))
        return self.program.with_ops((*self.prologue, *self.before, *self.loop, *self.after, *outer))


def schedule(step: Program, policy: SchedulePolicy = PLAIN) -> Schedule:
    """Schedule one direction of a recurrence, with a typecheck after each of :data:`REWRITES`."""
    for _, rewrite in REWRITES:
        step = ir.typecheck(rewrite(step, policy))
    result = place(step, policy)
    ir.typecheck(result.listing)
    return result


def place(program: Program, policy: SchedulePolicy = PLAIN) -> Schedule:
    """Decide where every operation of ``program``, which :data:`REWRITES` have prepared, happens."""
    reach = reaches(program, policy)
    carried = set(program.afters)
    in_loop = (_feeding(program, carried) & _at(program, reach, Reach.CARRIED)) | carried
    if policy.single_step:
        in_loop = _at(program, reach, Reach.CARRIED) | set(program.outputs)
    loop_reads = {name for op in program.ops if in_loop.issuperset(ir.outs(op)) for name in program.args(op)}
    early = _feeding(program, loop_reads) - _at(program, reach, Reach.CARRIED)

    prologue: list[Op] = []
    before: list[Op] = []
    loop: list[Op] = []
    after: list[Op] = []
    outer: dict[str, ir.Outer] = {}
    for op in program.ops:
        (out, *_) = ir.outs(op)
        if isinstance(op, ir.Outer):
            outer[op.out] = op
        elif out in in_loop:
            loop.append(op)
        elif reach[out] is Reach.CONSTANT and out not in program.outputs:
            prologue.append(op)
        elif out in early:
            before.append(op)
        else:
            after.append(op)

    gradients: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for total in program.totals:
        if total.value in outer:
            gradients[outer[total.value].right].append((total.target, outer[total.value].left))
    result = Schedule(
        program=program,
        prologue=tuple(prologue),
        before=pack_rows(before),
        levels=_levels(pack_rows(loop, policy.block_products)),
        after=pack_rows(after),
        gradients=tuple(Gradient(tuple(rows), right) for right, rows in gradients.items()),
        sums=tuple(total for total in program.totals if total.value not in outer),
    )
    stacked = (*result.prologue, *result.before, *result.loop, *result.after, *outer.values())
    return replace(result, program=program.with_ops(stacked))


def detach_results(program: Program) -> Program:
    """Where a carry's new value depends on no carry, let the loop copy a value that is computed for all steps at once.

    Likewise an output that is the same at every step is a copy of a constant.
    """
    reach = reaches(program)
    free = {name: f"{name}~" for name in program.afters if reach[name] is not Reach.CARRIED}
    free |= {name: f"{name}~" for name in program.outputs if reach[name] is Reach.CONSTANT}
    ops: list[Op] = []
    values = {}
    for op in program.ops:
        (out,) = ir.outs(op)
        op = ir.rename(op, free)
        if out in free:
            ops.append(ir.with_out(op, free[out]))
            values[free[out]] = replace(program.values[out], name=free[out])
            ops.append(ir.Pointwise(out, symbol(free[out])))
        else:
            ops.append(op)
    return program.with_ops(ops, values)


def copy_operands(program: Program) -> Program:
    """``program``, a single step, with copies of what products read of its sequences, so that they can be stacked."""
    sums = {t.name for op in program.ops if isinstance(op, ir.Pointwise) for t in sympy.Add.make_args(op.expr) if t.is_Symbol}
    products = [op for op in program.ops if isinstance(op, ir.MatMul) and op.out in sums and op.right in program.sequences]
    copies = {op.right: f"{op.right} here" for op in products}
    ops: list[Op] = [ir.Pointwise(copy, symbol(name)) for name, copy in copies.items()]
    ops += (replace(op, right=copies[op.right]) if op in products else op for op in program.ops)
    return program.with_ops(ops, {c: replace(program.values[n], name=c, origin="") for n, c in copies.items()})


def _at(program: Program, reach: dict[str, Reach], wanted: Reach) -> set[str]:
    return {name for name in program.values if reach.get(name) is wanted}


def _feeding(program: Program, names: Iterable[str]) -> set[str]:
    """``names`` and everything that they are computed from within a step."""
    found = set(names)
    for op in reversed(program.ops):
        if found.intersection(ir.outs(op)):
            found.update(program.args(op))
    return found


def stack_operands(program: Program, policy: SchedulePolicy = PLAIN) -> Program:
    """Where a sum has several products of values that the step itself computes, make them one product of stacked operands.

    ``Ui.T@d_i + Uf.T@d_f`` becomes ``[Ui; Uf].T @ [d_i; d_f]``. A product that becomes a part of another is read by that sum
    alone, and as one term of it alone: not in ``a*b + a + b``.
    """
    made = {op.out: op for op in program.ops if isinstance(op, ir.MatMul)}
    reach = reaches(program)
    computed = {out for op in program.ops for out in ir.outs(op) if reach[out] is not Reach.CONSTANT}
    readers: defaultdict[str, int] = defaultdict(int)
    for op in program.ops:
        for name in program.args(op):
            readers[name] += op.expr.count(symbol(name)) if isinstance(op, ir.Pointwise) else 1
    for name in program.roots():
        readers[name] += 1
    replaced: set[str] = set()
    ops: list[Op] = []
    values = {}
    for op in program.ops:
        if isinstance(op, ir.Pointwise):
            terms = [made[t.name] for t in sympy.Add.make_args(op.expr) if t.is_Symbol and t.name in made]
            terms = [m for m in terms if program.shape(m.out) == program.shape(op.out)]  # others are stretched
            for transposed, axes in product((False, True), (2, 3) if policy.stack_heads else (2,)):
                group = [m for m in terms if m.left_t is transposed and m.right in computed and readers[m.out] == 1]
                group = [m for m in group if len(program.shape(m.left)) == axes]
                group.sort(key=lambda m: list(made).index(m.out))
                if len(group) < 2:
                    continue
                replaced.update(m.out for m in group)
                rest = op.expr - sympy.Add(*(symbol(m.out) for m in group))
                out = op.out if rest == 0 else f"{op.out}@"
                values[out] = replace(program.values[op.out], name=out)
                weights, vectors = tuple(m.left for m in group), tuple(m.right for m in group)
                ops.append(ir.Product((out,), (weights,), vectors, transposed))
                op = ir.Pointwise(op.out, rest + symbol(out))
            if op.expr == symbol(op.out):
                continue
        ops.append(op)
    kept = [op for op in ops if not replaced.intersection(ir.outs(op))]
    return program.with_ops(kept, values)


def pack_rows(ops: Iterable[Op], blocks: bool = False) -> tuple[Op, ...]:
    """Make the products of a common operand (or of several, for ``blocks``) one of stacked weights, where the first stands."""
    packed: list[Op] = []
    places: dict[object, int] = {}  # where the products of these operands stand
    for op in ops:
        if isinstance(op, ir.MatMul):
            op = ir.Product((op.out,), ((op.left,),), (op.right,), op.left_t)
        if isinstance(op, ir.Product) and (blocks or len(op.operands) == 1):
            place = places.setdefault((op.operands, op.transposed), len(packed))
            if place < len(packed):
                first = packed[place]
                assert isinstance(first, ir.Product)
                packed[place] = replace(first, outs=first.outs + op.outs, weights=first.weights + op.weights)
                continue
        packed.append(op)
    return tuple(packed)


def _levels(ops: tuple[Op, ...]) -> tuple[tuple[Op, ...], ...]:
    """The loop's operations by the number of products on the longest way to them, products first within a level."""
    level: dict[str, int] = {}
    by_level: defaultdict[int, list[Op]] = defaultdict(list)
    for op in ops:
        depth = max((level.get(name, 0) for name in ir.operands(op)), default=0) + isinstance(op, ir.Product)
        level |= dict.fromkeys(ir.outs(op), depth)
        by_level[depth].append(op)
    depths = range(max(by_level, default=0) + 1)
    return tuple(tuple(sorted(by_level[d], key=lambda op: not isinstance(op, ir.Product))) for d in depths)


REWRITES: tuple[tuple[str, Callable[[Program, SchedulePolicy], Program]], ...] = (
    ("live", lambda program, _: live(program)),
    ("detach results", lambda program, _: detach_results(program)),
    ("hoist", hoist),
    ("copy operands", lambda program, policy: copy_operands(program) if policy.single_step else program),
    ("stack operands", stack_operands),
)
"""What prepares a step for :func:`place`, in order, by name."""
