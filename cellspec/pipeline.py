"""The compiler as a list of passes: Cell → everything that a backend needs. No logic of its own.

:data:`FRONT` is the same for every backend; behind it come the backend's own rewrites, scheduling by its policy, and what it
changes in the schedules (:func:`passes`). A pass takes the state of a compilation and gives the next; every program that it has
changed is typechecked at once, so that a mistake of a pass has its name. ``cellspec show SPEC --passes`` prints what each does.

The work of every pass, and of a backend behind them, grows with the number of equations, not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from cellspec import ir
from cellspec.cell import Cell
from cellspec.ir import Program
from cellspec.model.nodes import STEP_INDEX, Kind
from cellspec.passes.accuracy import Fact, delicate, facts, without_cancellation
from cellspec.passes.adjoint import Adjoint, adjoint_prologue, adjoint_step
from cellspec.passes.lower import lower
from cellspec.passes.policy import SchedulePolicy
from cellspec.passes.residuals import select
from cellspec.passes.schedule import REWRITES, Schedule, place
from cellspec.passes.simplify import live

FORWARD, BACKWARD, SINGLE_STEP = "forward", "backward", "single step"
"""The directions that are scheduled, by name."""

NOTHING = Program(values=MappingProxyType({}), constants=(), sequences=(), carries=(), ops=(), outputs=())
"""What stands for a program that no pass has made."""

NO_ADJOINT = Adjoint(NOTHING, ())


@dataclass(frozen=True)
class Compiled:
    """The state of a compilation: a cell as programs; what no pass has made yet is empty.

    ``prologue`` computes derived parameters; ``equations`` is the step with every equation; ``forward`` and ``backward`` are
    the two directions' steps, ``stash`` what the first leaves for the second under the policy ``residuals``, ``again`` what
    the second repeats of the first; ``epilogue`` is the adjoint of the prologue. ``delicate`` are the values of the forward
    step that either direction needs accurate beside themselves; ``facts`` is what is known of the magnitudes of its values.

    ``single`` is one step alone, for backends that have a module's ``step`` compiled for itself. ``wanted`` are forward values
    that the adjoint reads, before it is settled which of them are stashed. ``working`` are the directions while they are made
    ready for scheduling, ``schedules`` what has come of them, both by name.
    """

    cell: Cell
    residuals: str = "speed"
    prologue: Program = NOTHING
    equations: Program = NOTHING
    forward: Program = NOTHING
    backward: Program = NOTHING
    single: Program = NOTHING
    wanted: tuple[str, ...] = ()
    stash: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    epilogue: Adjoint = NO_ADJOINT
    delicate: frozenset[str] = frozenset()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    working: Mapping[str, Program] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[str, ...]:
        """What the forward pass stashes besides the histories of states, and what it is given."""
        befores = {carry.before for carry in self.forward.carries}
        return tuple(name for name in self.stash if name not in befores and name not in self.forward.sequences)

    @property
    def directions(self) -> dict[str, Program]:
        """The steps that are scheduled, by name, as far as they have come."""
        made = {FORWARD: self.forward, BACKWARD: self.backward, SINGLE_STEP: self.single, **self.working}
        made |= {name: schedule.listing for name, schedule in self.schedules.items()}
        return {name: program for name, program in made.items() if program is not NOTHING}

    @property
    def programs(self) -> dict[str, Program]:
        """All programs that there are, by what they are called for people."""
        whole = {"derived parameters": self.prologue, "equations": self.equations, **self.directions}
        whole["derived parameters, backwards"] = self.epilogue.program
        return {name: program for name, program in whole.items() if program is not NOTHING}


@dataclass(frozen=True)
class Pass:
    """A step of the road, by name: a function from one state to the next."""

    name: str
    run: Callable[[Compiled], Compiled]


class Target(Protocol):
    """What the driver asks of a backend: wishes for scheduling, and passes of its own before and behind it."""

    @property
    def policy(self) -> SchedulePolicy: ...
    @property
    def rewrites(self) -> tuple[Pass, ...]: ...
    @property
    def finish(self) -> tuple[Pass, ...]: ...


def passes(target: Target | None = None) -> tuple[Pass, ...]:
    """Every pass from the cell to the schedules of ``target``; without one, to what all backends have in common."""
    return FRONT if target is None else (*FRONT, *_behind_front(target))


def compile_cell(cell: Cell, residuals: str = "speed", target: Target | None = None) -> Compiled:
    """All :func:`passes` for ``target`` over ``cell``; ``residuals`` is one of :data:`cellspec.RESIDUALS`."""
    return _last(Compiled(cell, residuals), passes(target))


def scheduled(compiled: Compiled, target: Target) -> Compiled:
    """``compiled``, which :data:`FRONT` has made, for ``target``."""
    return _last(compiled, _behind_front(target))


def states(compiled: Compiled, passes: Sequence[Pass]) -> Iterator[tuple[Pass, Compiled]]:
    """Each of ``passes`` with the state behind it, which has been typechecked."""
    for each in passes:
        before, compiled = compiled, each.run(compiled)
        _typecheck(each, before, compiled)
        yield each, compiled


def _last(compiled: Compiled, passes: Sequence[Pass]) -> Compiled:
    found = compiled
    for _, state in states(compiled, passes):
        found = state
    return found


def _typecheck(each: Pass, before: Compiled, after: Compiled) -> None:
    """Check what a pass has changed."""
    known = before.programs
    for name, program in after.programs.items():
        if program is not known.get(name):
            try:
                ir.typecheck(program)
            except ir.TypecheckError as error:
                raise ir.TypecheckError(f"{name}, after the pass {each.name!r}: {error}") from error


# --- for every backend ---------------------------------------------------------------------------------------


def _lower(state: Compiled) -> Compiled:
    lowered = lower(state.cell)
    return replace(state, prologue=lowered.prologue, equations=lowered.step)


def _without_cancellation(state: Compiled) -> Compiled:
    """The step says which derived parameters are delicate."""
    labels = {equation.target.label for equation in state.cell.assignments}
    known = facts(state.equations, facts(state.prologue).table)
    prologue = without_cancellation(state.prologue, labels, seeds=delicate(state.equations, known))
    return replace(state, prologue=prologue, equations=without_cancellation(state.equations, labels, known))


def _give_streams(state: Compiled) -> Compiled:
    """Carried values that are known for all steps at once are given, as sequences."""
    known = _known(state.cell)
    step = state.equations
    carries = tuple(carry for carry in step.carries if carry.before not in known)
    return replace(state, forward=replace(step, sequences=(*step.sequences, *known), carries=carries))


def _live(state: Compiled) -> Compiled:
    return replace(state, forward=live(state.forward, keep_stops=True))


def _differentiate(state: Compiled) -> Compiled:
    cell = state.cell
    earlier = [name for name in _known(cell) if name != f"{STEP_INDEX}[t-1]"]
    earlier += [ref.label for ref in cell.distant if ref.kind is Kind.INPUT]
    inputs = [*(f"{item.name}[t]" for item in cell.inputs), *earlier]
    adjoint = adjoint_step(state.forward, inputs, _dependent(state.prologue, _trainable(cell)))
    return replace(state, backward=adjoint.program, wanted=adjoint.residuals)


def _choose_residuals(state: Compiled) -> Compiled:
    chosen = select(state.forward, Adjoint(state.backward, state.wanted), state.residuals)
    return replace(state, backward=chosen.backward, stash=chosen.stash, again=chosen.again)


def _give_out_stash(state: Compiled) -> Compiled:
    """The forward step gives out what it computes of the stash; a stopped gradient is a copy from here on."""
    step = state.forward
    made = {name for op in step.ops for name in ir.outs(op)}
    outputs = dict.fromkeys((*step.outputs, *(name for name in state.stash if name in made)))
    return replace(state, forward=live(replace(step, outputs=tuple(outputs))))


def _differentiate_prologue(state: Compiled) -> Compiled:
    prologue = state.prologue
    feeding = {name for op in prologue.ops for name in prologue.args(op)} | set(prologue.outputs)
    totals = dict.fromkeys(total.target.removeprefix("d:") for total in state.backward.totals)
    known = [name for name in totals if name in feeding]
    return replace(state, epilogue=adjoint_prologue(prologue, _trainable(state.cell), known))


def _collect_facts(state: Compiled) -> Compiled:
    told = facts(state.forward, facts(state.prologue).table)
    careful = delicate(state.forward, told) | delicate(state.backward, facts(state.backward, told.table), backwards=True)
    return replace(state, delicate=frozenset(careful.intersection(state.forward.values)), facts=told.table)


FRONT = (
    Pass("lower", _lower),
    Pass("without cancellation", _without_cancellation),
    Pass("give streams", _give_streams),
    Pass("live", _live),
    Pass("differentiate", _differentiate),
    Pass("choose residuals", _choose_residuals),
    Pass("give out the stash", _give_out_stash),
    Pass("differentiate derived parameters", _differentiate_prologue),
    Pass("collect facts", _collect_facts),
)
"""What all backends have in common."""


def _known(cell: Cell) -> tuple[str, ...]:
    """The carried values that are known for all steps at once."""
    return tuple(f"{state.name}[t-1]" for state in cell.streams if not state.rows)


def _trainable(cell: Cell) -> list[str]:
    return [param.name for param in cell.params if param.trainable]


def _dependent(prologue: Program, trainable: list[str]) -> list[str]:
    """The trainable parameters and every derived parameter that depends on one."""
    found = list(trainable)
    for op in prologue.ops:
        if not op.traits.stops and set(found).intersection(prologue.args(op)):
            found.extend(ir.outs(op))
    return found


# --- for one backend -----------------------------------------------------------------------------------------


def _behind_front(target: Target) -> tuple[Pass, ...]:
    return (*target.rewrites, *scheduling(target.policy), *target.finish)


def scheduling(policy: SchedulePolicy) -> tuple[Pass, ...]:
    """The passes from steps to schedules, of every direction by ``policy``."""
    prepared = (Pass(name, _of_each_direction(rewrite, policy)) for name, rewrite in REWRITES)

    def placed(state: Compiled) -> Compiled:
        return replace(state, schedules={name: place(step, _of(policy, name)) for name, step in state.directions.items()})

    return (*prepared, Pass("schedule", placed))


def _of_each_direction(
    rewrite: Callable[[Program, SchedulePolicy], Program], policy: SchedulePolicy
) -> Callable[[Compiled], Compiled]:
    """A pass over programs as one over states."""

    def run(state: Compiled) -> Compiled:
        return replace(state, working={name: rewrite(step, _of(policy, name)) for name, step in state.directions.items()})

    return run


def _of(policy: SchedulePolicy, direction: str) -> SchedulePolicy:
    return replace(policy, single_step=direction == SINGLE_STEP)
