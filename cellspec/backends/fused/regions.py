"""Flow → steps: fused regions, a kernel each with a thread per (sample, unit); between them products and sums over units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from cellspec import ir
from cellspec.backends.fused.flow import Flow, origin, stages, vectors
from cellspec.backends.memory.model import Phase
from cellspec.ir import Along, Move, Op
from cellspec.model.nodes import Shape


@dataclass(frozen=True)
class Region:
    """A fused region: a kernel over the units of a ``shape``, for every sample.

    ``ops`` in order; ``loads`` are the values that it reads from memory, ``repeats`` those of ``ops`` that are computed
    elsewhere too and never stored from here. Values that stretch to the shape are computed by every thread that reads them
    and stored by the first.
    """

    phase: Phase
    stage: int
    shape: Shape
    ops: tuple[ir.Pointwise, ...]
    loads: tuple[str, ...]
    repeats: frozenset[str]

    @property
    def units(self) -> sympy.Expr:
        """The number of units, a thread each."""
        return ir.size(self.shape)

    @property
    def results(self) -> tuple[str, ...]:
        """The values that this region may store."""
        return tuple(op.out for op in self.ops if op.out not in self.repeats)


Step = Region | Op | Along


@dataclass(frozen=True)
class Plan:
    """The steps of each phase, in order, and the stage of every value within its phase."""

    flow: Flow
    steps: tuple[tuple[Step, ...], ...]
    stage: Mapping[str, int]

    @property
    def regions(self) -> tuple[Region, ...]:
        """All fused regions."""
        return tuple(step for steps in self.steps for step in steps if isinstance(step, Region))

    def in_phase(self, phase: Phase) -> tuple[Region, ...]:
        """The fused regions of one phase."""
        return tuple(step for step in self.steps[phase] if isinstance(step, Region))


def plan(flow: Flow) -> Plan:
    """Form the regions of every phase, without what nobody reads."""
    stage: dict[str, int] = {}
    for phase in Phase:
        stage |= stages(flow.phases[phase], flow.program)
    wanted = {name for ops in flow.phases for op in ops if isinstance(op, ir.Pointwise) for name in ir.outs(op)}
    asked = _asked(flow)
    while True:
        steps = tuple(_Phase(flow, phase, stage, wanted).steps() for phase in Phase)
        result = Plan(flow, steps, stage)
        needed = asked.union(*(region.loads for region in result.regions)) & wanted
        if needed == wanted:
            return result
        wanted = needed


def _asked(flow: Flow) -> set[str]:
    """What is read by others than regions, or given out."""
    found = {*flow.outputs, *flow.kept, *flow.program.afters}
    found |= {name for ops in flow.phases for op in ops if not isinstance(op, ir.Pointwise) for name in vectors(op)}
    found |= {name for g in flow.gradients for name in (g.right, *(left for _, left in g.rows))}
    return found | {total.value for total in flow.sums}


def _whole(shape: Shape) -> Shape:
    """``shape``, all shapes of a single number being one."""
    return (sympy.Integer(1),) if ir.is_one(shape) else shape


def _narrower(small: Shape, large: Shape) -> bool:
    return small != large and ir.stretches(small, large)


class _Phase:
    """The operations of one phase, by stage."""

    def __init__(self, flow: Flow, phase: Phase, stage: Mapping[str, int], wanted: set[str]) -> None:
        self.flow, self.phase, self.stage, self.wanted = flow, phase, stage, wanted
        self.ops = flow.phases[phase]
        self.pointwise = {op.out: op for op in self.ops if isinstance(op, ir.Pointwise)}
        self.order = {name: k for k, op in enumerate(self.ops) for name in ir.outs(op)}
        self.cheap: dict[str, bool] = {}

    def steps(self) -> tuple[Step, ...]:
        last = max((self.stage[name] for op in self.ops for name in ir.outs(op)), default=-1)
        found: list[Step] = []
        for number in range(last + 1):
            here = [op for op in self.ops if self.stage[ir.outs(op)[0]] == number]
            found += self.others(here)
            found += self.regions(number, [op for op in here if isinstance(op, ir.Pointwise) and op.out in self.wanted])
        return tuple(found)

    def others(self, ops: list[Op]) -> list[Op]:
        """What fills no region: functions along axes first, as far as they wait for nothing else of this stage."""
        waiting: list[Op] = []
        early: list[Op] = []
        for op in ops:
            if isinstance(op, ir.Pointwise | Move):
                continue
            late = {name for other in waiting for name in ir.outs(other)}
            can_go = isinstance(op, Along) and origin(self.flow, op.operand) not in late
            (early if can_go else waiting).append(op)
        return [*early, *waiting]

    def regions(self, number: int, ops: list[ir.Pointwise]) -> list[Region]:
        """One region a shape; what stretches to another shape joins the first such region."""
        by_shape: defaultdict[Shape, list[ir.Pointwise]] = defaultdict(list)
        for op in ops:
            by_shape[_whole(self.flow.program.shape(op.out))].append(op)
        homes: defaultdict[Shape, list[ir.Pointwise]] = defaultdict(list)
        widest = [shape for shape in by_shape if not any(_narrower(shape, other) for other in by_shape)]
        for shape in (*widest, *(other for other in by_shape if other not in widest)):
            homes[next(other for other in widest if ir.stretches(shape, other))] += by_shape[shape]
        return [self.region(number, shape, own) for shape, own in homes.items()]

    def region(self, number: int, shape: Shape, results: list[ir.Pointwise]) -> Region:
        """The region that computes ``results``, and whatever else of this stage they need."""
        ops = {op.out: op for op in results}
        loads: set[str] = set()
        pending = list(results)
        while pending:
            for name in self.flow.program.args(pending.pop()):
                again = None if name in ops else self.again(name, number)
                if again is not None:
                    ops[name] = again
                    pending.append(again)
                elif name not in ops:
                    loads.add(name)
        order = {name: k - len(self.flow.free) for k, name in enumerate(self.flow.free)} | self.order
        known = {name: k for k, name in enumerate(self.flow.program.values)}
        return Region(
            self.phase,
            number,
            shape,
            tuple(sorted(ops.values(), key=lambda op: order[op.out])),
            tuple(sorted(loads, key=known.__getitem__)),
            frozenset(ops) - {op.out for op in results},
        )

    def again(self, name: str, number: int) -> ir.Pointwise | None:
        """The operation that computes ``name`` here too, if that is better than (or must stand for) reading it from memory."""
        if name in self.flow.free:
            return self.flow.free[name]
        op = self.pointwise.get(name)
        if op is None:
            return None
        if self.stage[name] == number or self.is_cheap(name):
            return op
        return None

    def is_cheap(self, name: str) -> bool:
        """Whether ``name`` is arithmetic on what every kernel of this phase finds in memory."""
        if name not in self.cheap:
            op = self.pointwise[name]
            args = [a for a in self.flow.program.args(op) if a not in self.flow.free]
            self.cheap[name] = len(args) <= 2 and not op.expr.has(sympy.Function) and all(a not in self.order for a in args)
        return self.cheap[name]
