"""The compiler as a list of passes: Cell → everything that a backend needs. No logic of its own.

The work of every pass, and of a backend behind them, grows with the number of equations, not with its square.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from cellspec import ir
from cellspec.cell import Cell
from cellspec.ir import Program
from cellspec.model.nodes import STEP_INDEX, Kind
from cellspec.passes.accuracy import Fact, delicate, facts, without_cancellation
from cellspec.passes.adjoint import Adjoint, adjoint_prologue, adjoint_step
from cellspec.passes.lower import Lowered, lower
from cellspec.passes.residuals import select
from cellspec.passes.simplify import live


@dataclass(frozen=True)
class Compiled:
    """A cell as programs, before scheduling.

    ``prologue`` computes derived parameters; ``equations`` is the step with every equation; ``forward`` and ``backward`` are
    the two directions' steps, ``stash`` what the first leaves for the second under the policy ``residuals``, ``again`` what
    the second repeats of the first; ``epilogue`` is the adjoint of the prologue. ``delicate`` are the values of the forward
    step that either direction needs accurate beside themselves; ``facts`` is what is known of the magnitudes of its values.
    """

    cell: Cell
    prologue: Program
    equations: Program
    forward: Program
    backward: Program
    residuals: str
    stash: tuple[str, ...]
    again: tuple[str, ...]
    epilogue: Adjoint
    delicate: frozenset[str]
    facts: Mapping[str, Fact]


def compile_cell(cell: Cell, policy: str = "speed") -> Compiled:
    """Lower, differentiate, and choose the residuals by ``policy``, one of :data:`cellspec.RESIDUALS`."""
    lowered = _accurate(lower(cell), {equation.target.label for equation in cell.assignments})
    trainable = [param.name for param in cell.params if param.trainable]
    wanted = _dependent(lowered.prologue, trainable)
    known = tuple(f"{state.name}[t-1]" for state in cell.streams if not state.rows)
    earlier = [name for name in known if name != f"{STEP_INDEX}[t-1]"]
    earlier += [ref.label for ref in cell.distant if ref.kind is Kind.INPUT]
    step = ir.typecheck(live(_with_streams(lowered.step, known), keep_stops=True))
    adjoint = adjoint_step(step, [*(f"{item.name}[t]" for item in cell.inputs), *earlier], wanted)
    residuals = select(step, adjoint, policy)
    given_out = dict.fromkeys((*step.outputs, *_computed(step, residuals.stash)))
    forward = ir.typecheck(live(replace(step, outputs=tuple(given_out))))
    feeding = {name for op in lowered.prologue.ops for name in lowered.prologue.args(op)} | set(lowered.prologue.outputs)
    totals = dict.fromkeys(total.target.removeprefix("d:") for total in residuals.backward.totals)
    epilogue = adjoint_prologue(lowered.prologue, trainable, [name for name in totals if name in feeding])
    backward = residuals.backward
    told = facts(forward, facts(lowered.prologue).table)
    careful = delicate(forward, told) | delicate(backward, facts(backward, told.table), backwards=True)
    return Compiled(
        cell=cell,
        prologue=lowered.prologue,
        equations=lowered.step,
        forward=forward,
        backward=backward,
        residuals=policy,
        stash=residuals.stash,
        again=residuals.again,
        epilogue=epilogue,
        delicate=frozenset(careful.intersection(forward.values)),
        facts=told.table,
    )


def _accurate(lowered: Lowered, labels: Collection[str]) -> Lowered:
    """``lowered`` without differences that cancel; the step says which derived parameters are delicate."""
    known = facts(lowered.step, facts(lowered.prologue).table)
    prologue = without_cancellation(lowered.prologue, labels, seeds=delicate(lowered.step, known))
    return Lowered(prologue, without_cancellation(lowered.step, labels, known))


def _with_streams(step: Program, known: tuple[str, ...]) -> Program:
    """``step`` with carried values that are known for all steps at once given as sequences."""
    carries = tuple(carry for carry in step.carries if carry.before not in known)
    return replace(step, sequences=(*step.sequences, *known), carries=carries)


def _computed(step: Program, stash: tuple[str, ...]) -> list[str]:
    """Those of ``stash`` that the step itself computes; simplification must not drop them from it."""
    made = {name for op in step.ops for name in ir.outs(op)}
    return [name for name in stash if name in made]


def _dependent(prologue: Program, trainable: list[str]) -> list[str]:
    """The trainable parameters and every derived parameter that depends on one."""
    found = list(trainable)
    for op in prologue.ops:
        if not op.traits.stops and set(found).intersection(prologue.args(op)):
            found.extend(ir.outs(op))
    return found
