"""Schedule → Flow: which operations run before, in and after the loop on a GPU, and what must be a value of its own.

The schedule hoists whatever it can out of the loop, as is best where every operation is a pass over memory. In a fused kernel
arithmetic is nearly free and memory is not: so pointwise work goes back into the loop's kernels, where its operands are in
registers anyway, unless something before or after the loop needs it there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import sympy

from cellspec import ir
from cellspec.backends.fused.axes import in_turn
from cellspec.backends.memory.model import Phase
from cellspec.ir import Along, Joined, Move, Op, Operation, Program, Value, symbol
from cellspec.model.nodes import Shape
from cellspec.passes.masks import cotangent_at, next_state
from cellspec.passes.schedule import Gradient, Schedule


@dataclass(frozen=True)
class Flow:
    """One direction's work by phase; only pointwise results are ever stored in several places.

    ``fixed`` runs once a sequence on the host's side; ``free`` holds pointwise constants and what boundaries decide, computed
    wherever they are read.
    ``outputs`` are given to the caller, ``kept`` to the other direction.
    """

    program: Program
    fixed: tuple[Op, ...]
    free: Mapping[str, ir.Pointwise]
    phases: tuple[tuple[Op, ...], ...]
    gradients: tuple[Gradient, ...]
    sums: tuple[ir.Total, ...]
    outputs: tuple[str, ...]
    kept: tuple[str, ...]
    forwards: bool

    @property
    def constants(self) -> frozenset[str]:
        """Values that are the same at every step and have memory."""
        return frozenset((*self.program.constants, *(name for op in self.fixed for name in ir.outs(op))))

    @cached_property
    def made(self) -> dict[str, tuple[Phase, Op]]:
        """What defines each value, and when."""
        return {name: (phase, op) for phase in Phase for op in self.phases[phase] for name in ir.outs(op)}

    def width(self, name: str) -> sympy.Expr:
        """The number of units of a value."""
        return width(self.program, name)


def width(program: Program, name: str) -> sympy.Expr:
    """The number of units of a value: 1 for a number."""
    return ir.size(program.shape(name))


def has_heads(program: Program, op: ir.Product) -> bool:
    """Whether ``op`` multiplies head by head."""
    return len(program.shape(op.weights[0][0])) == 3


def vectors(op: Operation) -> tuple[str, ...]:
    """The per-sample values that ``op`` reads."""
    return op.samples()


def origin(flow: Flow, name: str) -> str:
    """The value whose memory is read when ``name`` is: itself, or what it is a part of."""
    made = flow.made.get(name)
    return origin(flow, made[1].operand) if made and isinstance(made[1], Move) else name


def flow(schedule: Schedule, outputs: Sequence[str], kept: Sequence[str], whole: Iterable[str], forwards: bool) -> Flow:
    """The flow of one direction; ``whole`` are the sequences that lie in memory of their own, fit for a matrix product."""
    fixed, free = _constants(schedule)
    decided = {name: op for name, op in _decided(schedule).items() if name not in outputs}  # those are stored like any other
    free |= decided
    values = dict(schedule.program.values)
    phases = ([op for op in ops if ir.outs(op)[0] not in decided] for ops in _phases(schedule))
    ahead, loop, after = ([made for op in ops for made in in_turn(op, values)] for ops in phases)
    before, sunk = _sink(ahead)
    program = replace(schedule.program, values=values)
    draft = _Draft(program, fixed, free, (before, sunk + loop, after), frozenset(whole), forwards)
    draft.gradients, draft.sums = list(schedule.gradients), list(schedule.sums)
    draft.outputs, draft.kept = tuple(outputs), tuple(kept)
    draft.settle()
    if not draft.reads_carries():
        draft.phases = ([*draft.phases[Phase.BEFORE], *draft.phases[Phase.LOOP]], [], draft.phases[Phase.AFTER])
    draft.gather()
    return draft.flow()


def _phases(schedule: Schedule) -> tuple[tuple[Op, ...], ...]:
    return schedule.before, schedule.loop, schedule.after


def _constants(schedule: Schedule) -> tuple[tuple[Op, ...], dict[str, ir.Pointwise]]:
    """The constants to compute once, and those that are cheap enough to compute wherever they are read."""
    loud = {name for op in (*schedule.before, *schedule.loop, *schedule.after) for name in _beyond_pointwise(op)}
    fixed: list[Op] = []
    free: dict[str, ir.Pointwise] = {}
    for op in reversed(schedule.prologue):
        match op:
            case ir.Pointwise(out=out, expr=expr) if out not in loud and not expr.has(sympy.Function):
                free[out] = op
            case _:
                fixed.append(op)
                loud.update(ir.operands(op))
    return tuple(reversed(fixed)), dict(reversed(free.items()))


def _decided(schedule: Schedule) -> dict[str, ir.Pointwise]:
    """What the boundaries beside a step decide where it is read: states, and cotangents of what it hands on.

    Not so what the step itself computes first.
    """
    ops = [op for phase in _phases(schedule) for op in phase]
    made = {name for op in ops for name in ir.outs(op)}
    after = {carry.after for carry in schedule.program.carries}
    chosen = (op for op in ops if isinstance(op, ir.Pointwise) and op.expr.func in (cotangent_at, next_state))
    return {op.out: op for op in chosen if op.out not in after and not made.intersection(ir.operands(op))}


def _beyond_pointwise(op: Op) -> tuple[str, ...]:
    return () if isinstance(op, ir.Pointwise) else ir.operands(op)


def _sink(before: list[Op]) -> tuple[list[Op], list[Op]]:
    """``before`` without the pointwise operations that nothing before the loop needs, and these."""
    needed: set[str] = set()
    stay: list[Op] = []
    sunk: list[Op] = []
    for op in reversed(before):
        if isinstance(op, ir.Pointwise) and not needed.intersection(ir.outs(op)):
            sunk.append(op)
        else:
            stay.append(op)
            needed.update(ir.operands(op))
    return stay[::-1], sunk[::-1]


def stages(ops: Iterable[Op], program: Program) -> dict[str, int]:
    """For each value that ``ops`` define: how many rounds of kernels must be over before it can be read.

    A pointwise value is read by the kernel that computes it; whatever looks across units or samples reads memory.
    """
    stage: dict[str, int] = {}
    computed: set[str] = set()
    for op in ops:
        if isinstance(op, ir.Pointwise):
            own = max((stage.get(name, 0) for name in program.args(op)), default=0)
            computed.add(op.out)
        else:
            own = max((stage.get(name, 0) + (name in computed) for name in vectors(op)), default=0)
        stage |= dict.fromkeys(ir.outs(op), own)
    return stage


@dataclass
class _Draft:
    """A flow in the making."""

    program: Program
    fixed: tuple[Op, ...]
    free: dict[str, ir.Pointwise]
    phases: tuple[list[Op], list[Op], list[Op]]
    whole: frozenset[str]
    forwards: bool
    gradients: list[Gradient] = field(default_factory=list)
    sums: list[ir.Total] = field(default_factory=list)
    outputs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)
    copies: dict[tuple[str, Phase], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = dict(self.program.values)

    # --- values of their own ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """See to it that whatever must be stored in a particular place is the result of a pointwise operation.

        What a product or a move leaves where the next reader cannot use it is copied, by a kernel that reads it anyway if
        there is one.
        """
        for phase in Phase:
            for op in list(self.phases[phase]):
                self.operands(phase, op)
        self.results()
        self.gradients = [
            Gradient(
                tuple(zip((t for t, _ in g.rows), self.stack([left for _, left in g.rows], Phase.AFTER), strict=True)), right
            )
            for g in self.gradients
            for (right,) in [self.stack([g.right], Phase.AFTER)]
        ]
        self.sums = [replace(total, value=self.summed(total.value)) for total in self.sums]

    def results(self) -> None:
        """Detach what a kernel must store: carries, outputs, and what the other direction reads."""
        carries = tuple(c.after for c in self.program.carries)
        for name in dict.fromkeys(delay.after for delay in self.program.delays if not self.forwards):
            if not isinstance(self.maker(name), ir.Pointwise):
                self.detach(name)
        for name in dict.fromkeys((*carries, *self.outputs, *self.kept)):
            match self.maker(name):
                case None | ir.Pointwise():
                    continue
                case ir.Product(outs=outs):
                    given_out = name in self.outputs
                    at_home = not given_out if name not in carries else len(outs) == 1 and not given_out
                    in_place = at_home or (len(outs) == 1 and name not in carries and name not in self.late())
                case op:
                    in_place = isinstance(op, Along | Joined) and name not in carries and name not in self.outputs
                    in_place |= isinstance(op, Joined) and name not in carries and name not in self.late()
            if not in_place:
                self.detach(name)

    def operands(self, phase: Phase, op: Op) -> None:
        """Make the operands of ``op`` fit to be read from memory."""
        match op:
            case ir.Product(operands=names):
                self.substitute(phase, op, replace(op, operands=self.distinct(self.stack(names, phase), phase, op)))
            case Joined(parts=parts):
                names = tuple(self.copy(p, phase, at_once=True) for p in parts)  # it lies in memory of this phase
                self.substitute(phase, op, replace(op, parts=self.distinct(names, phase, op)))
            case Move(operand=name):  # no work of its own: whoever reads its value reads the operand's memory elsewhere
                if name in self.program.constants or name in self.free:
                    self.substitute(phase, op, ir.rename(op, {name: self.copy(name, phase)}))
            case Along(operand=name):
                if not self.has_rows(name):
                    self.substitute(phase, op, ir.rename(op, {name: self.copy(name, phase)}))

    def substitute(self, phase: Phase, old: Op, new: Op) -> None:
        where = next(k for k, op in enumerate(self.phases[phase]) if ir.outs(op) == ir.outs(old))
        self.phases[phase][where] = new

    def stack(self, names: Sequence[str], phase: Phase) -> tuple[str, ...]:
        """``names``, or copies of them, as the operands of one matrix product."""
        if len(names) == 1 and self.contiguous(names[0]):
            return tuple(names)
        return tuple(self.copy(name, phase) for name in names)

    def distinct(self, names: Sequence[str], phase: Phase, op: Op) -> tuple[str, ...]:
        """``names`` with a copy of its own for each repetition, made just before ``op``."""
        found: list[str] = []
        for name in names:
            if name in found:
                made = f"{name} again{len(found)}"
                self.values[made] = replace(self.values[name], name=made)
                where = next(k for k, other in enumerate(self.phases[phase]) if ir.outs(other) == ir.outs(op))
                self.phases[phase].insert(where, ir.Pointwise(made, symbol(name)))
                name = made
            found.append(name)
        return tuple(found)

    def has_rows(self, name: str) -> bool:
        """Whether the units of ``name`` are, or will be, neighbours in memory, perhaps among others."""
        match self.maker(name):
            case Move() as op:
                return op.in_order and self.has_rows(op.operand)
            case ir.Product() as op:
                return len(op.outs) == 1 or not has_heads(self.program, op)
            case None:
                apart = name in self.program.constants or name in self.free or name in {d.before for d in self.program.delays}
                return not apart and (self.contiguous(name) or len(self.values[name].shape) < 2)
            case _:
                return True

    def contiguous(self, name: str) -> bool:
        """Whether ``name`` has, or will have, rows of its own in memory."""
        ends = {end for c in self.program.carries for end in (c.before, c.after)}
        op = self.maker(name)
        if op is None:
            return name in ends or name in self.whole
        if isinstance(op, Move) and op.in_order:
            return isinstance(self.maker(self.source(name)), ir.Pointwise) or self.contiguous(self.source(name))
        return isinstance(op, Joined) or (isinstance(op, ir.Product) and len(op.outs) == 1)

    def summed(self, name: str) -> str:
        """``name``, or a copy of it, as what is summed over steps and samples."""
        op = self.maker(name)
        if isinstance(op, ir.Product) or (op is None and name in self.whole):
            return name
        return self.copy(name, Phase.AFTER)

    def copy(self, name: str, phase: Phase, *, at_once: bool = False) -> str:
        """``name`` if a pointwise operation computes it (in this phase, if ``at_once``), otherwise one that copies it."""
        elsewhere = at_once and not any(name in ir.outs(op) for op in self.phases[phase])
        op = None if elsewhere else self.maker(name)
        if isinstance(op, ir.Pointwise):
            return name
        if op is not None:
            self.detach(name)
            return name
        if (name, phase) not in self.copies:
            made = f"{name} kept" if phase is Phase.AFTER else f"{name} copied{phase.value or ''}"
            self.copies[name, phase] = made
            value = self.values[name]
            shape = value.shape or (sympy.Integer(1),)
            self.values[made] = replace(value, name=made, shape=shape)
            self.phases[phase].insert(0, ir.Pointwise(made, symbol(name)))
        return self.copies[name, phase]

    def detach(self, name: str) -> None:
        """Let a pointwise copy define ``name``; what defined it now defines a value that only the copy reads."""
        raw = f"{name}~raw"
        for ops in self.phases:
            for k, op in enumerate(ops):
                if name in ir.outs(op):
                    if isinstance(op, ir.Product):
                        ops[k] = replace(op, outs=tuple(raw if out == name else out for out in op.outs))
                    else:
                        ops[k] = ir.with_out(op, raw)
                    self.values[raw] = replace(self.values[name], name=raw)
                    ops.insert(k + 1, ir.Pointwise(name, symbol(raw)))
                    return

    def maker(self, name: str) -> Op | None:
        """The operation that defines ``name`` in some phase."""
        return next((op for ops in self.phases for op in ops if name in ir.outs(op)), None)

    def late(self) -> set[str]:
        """The values that are read after the loop or by the other direction."""
        found = {name for op in self.phases[Phase.AFTER] for name in ir.operands(op)} | set(self.kept)
        found |= {name for g in self.gradients for name in (g.right, *(left for _, left in g.rows))}
        found |= {total.value for total in self.sums}
        return found | {self.source(name) for name in found}

    def source(self, name: str) -> str:
        """The value that ``name`` has the elements of, in their order."""
        op = self.maker(name)
        return self.source(op.operand) if isinstance(op, Move) and op.in_order else name

    # --- phases -----------------------------------------------------------------------------------------------

    def reads_carries(self) -> bool:
        """Whether any step needs another: otherwise there is no loop."""
        befores = set(self.program.befores)
        befores |= {name for name, op in self.free.items() if befores.intersection(ir.operands(op))}
        return any(befores.intersection(ir.operands(op)) for op in self.phases[Phase.LOOP])

    def gather(self) -> None:
        """Move pointwise operations from after the loop into those of its kernels that have their operands."""
        loop = self.phases[Phase.LOOP]
        if not loop:
            return
        known = {name for op in (*self.phases[Phase.BEFORE], *loop) for name in ir.outs(op)}
        known |= {*self.program.constants, *self.program.sequences, *self.free, *self.program.befores}
        known |= {name for op in self.fixed for name in ir.outs(op)}
        stage = stages(loop, self.typed())
        kernels: defaultdict[int, set[Shape]] = defaultdict(set)
        for op in loop:
            if isinstance(op, ir.Pointwise):
                kernels[stage[op.out]].add(self.values[op.out].shape)
        stay: list[Op] = []
        for op in self.phases[Phase.AFTER]:
            args = [name for name in ir.operands(op) if name in self.values]
            own = max((stage.get(name, 0) for name in args), default=0)
            if (
                isinstance(op, ir.Pointwise)
                and known.issuperset(args)
                and any(ir.stretches(self.values[op.out].shape, shape) for shape in kernels[own])
            ):
                loop.append(op)
                known.add(op.out)
                stage[op.out] = own
            else:
                stay.append(op)
        self.phases = (self.phases[Phase.BEFORE], loop, stay)

    def typed(self) -> Program:
        return replace(self.program, values=self.values)

    def flow(self) -> Flow:
        return Flow(
            self.typed(), self.fixed, self.free, tuple(tuple(ops) for ops in self.phases),
            tuple(self.gradients), tuple(self.sums), self.outputs, self.kept, self.forwards,
        )  # fmt: skip


def readers(ops: Iterable[Op], name: str) -> Iterator[Op]:
    """Those of ``ops`` that read ``name``."""
    return (op for op in ops if name in ir.operands(op))
