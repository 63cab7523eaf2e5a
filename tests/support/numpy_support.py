"""Helpers of the tests of the NumPy backend: from the text of a step to its instructions, its plan and its statements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from program_support import Arrays, scheduled, size_of, told

from cellspec.backends.arrays.expressions import Expression, Word
from cellspec.backends.arrays.printer import Printer, Seat
from cellspec.backends.arrays.statements import Statement
from cellspec.backends.memory.model import Axes, Home, Owner, Phase, T
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.instructions import Code, Contraction, Elementwise, Instruction, Scalar, instructions
from cellspec.backends.numpy.orientation import FEATURE_MAJOR, Orientation
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.runtime import activations, arrays, turned
from cellspec.backends.numpy.storage import Demands, Packed, Step, Storage, step_writes
from cellspec.backends.numpy.text import Around
from cellspec.backends.remarks import Remarks
from cellspec.ir import Program
from cellspec.passes.accuracy import Fact
from cellspec.passes.forms import mixtures
from cellspec.passes.schedule import Schedule
from cellspec.pipeline import NOTHING

SILENT = Remarks(True, NOTHING, frozenset(), {}, {}, {}, {})
"""Nothing is said of any value: it belongs to no equation."""

RUNTIME = (activations, arrays, turned)

RANKS: dict[str, tuple[int, ...]] = {}


def code_of(
    step: Schedule | str, *, known: Mapping[str, Fact] = {}, careful: Collection[str] = (), backwards: bool = False
) -> Code:
    """The instructions of a step, scheduled as the NumPy backend has it."""
    schedule = scheduled(step, blocks=True) if isinstance(step, str) else step
    return instructions(mixtures(schedule, known, careful, backwards=backwards))


def demands(
    *, keep: Iterable[str] = (), given: Iterable[str] = (), states: bool = True, neighbours: bool = True,
    rank: Mapping[str, tuple[int, ...]] = RANKS, alone: bool = False,
) -> Demands:  # fmt: skip
    """What the surroundings ask of memory: by default what a forward pass asks of a feature-major one."""
    return Demands(frozenset(keep), frozenset(given), states, neighbours, rank, alone)


def storage_of(step: Schedule | str, **options: object) -> Storage:
    """The plan of a step, under :func:`demands` with these options."""
    return plan(code_of(step), demands(**options))  # type: ignore[arg-type]


def emitter_of(
    step: Schedule | str, *, orientation: Orientation = FEATURE_MAJOR, owner: Owner = Owner.FORWARD, lead: Axes = (T,),
    fixed: Iterable[str] = (), constants: Mapping[str, Expression] | None = None, **options: object,
) -> Emitter:  # fmt: skip
    """What writes a step's statements; ``x[t]`` is the word ``x`` and a constant ``U`` the word ``U``."""
    storage = storage_of(step, states=owner is not Owner.BACKWARD, neighbours=orientation.features_first, **options)
    program = storage.code.schedule.program
    words = {name: Word(name.partition("[")[0]) for name in program.sequences}
    matrices = {name: Word(f"{word.name}_2d") for name, word in words.items()}
    prologue = [op.out for op in storage.code.schedule.prologue]  # type: ignore[union-attr]
    known = {name: Word(name) for name in (*program.constants, *prologue)} if constants is None else constants
    around = Around(Wishes(), SILENT, known, words, frozenset(fixed), matrices, {}, orientation, owner, lead)
    return Emitter.of(storage, around, forwards=owner is not Owner.BACKWARD)


# --- as text ---------------------------------------------------------------------------------------------------------


def shown(code: Code) -> dict[str, list[str]]:
    """The instructions of each phase that has any, as text; values made in between are ``%1``, ``%2``, … as they come."""
    names: dict[str, str] = {}

    def name(value: str) -> str:
        return names.setdefault(value, f"%{len(names) + 1}") if value.startswith("%") else value

    found = {}
    for phase, region in zip(Phase, code.regions, strict=True):
        if region:
            found[phase.name.lower()] = [_line(code.schedule.program, instruction, name) for instruction in region]
    return found


def _line(program: Program, instruction: Instruction, name: object) -> str:
    assert callable(name)
    match instruction:
        case Elementwise(ufunc=ufunc, out=out, args=args):
            texts = [str(arg.value) if isinstance(arg, Scalar) else name(arg) for arg in args]
            return f"{name(out)} = {ufunc}({', '.join(texts)})"
        case Contraction(out=out, left=left, right=right, shape=shape):
            return f"{name(out)} = sum({name(left)}*{name(right)}) of {list(shape)}"
        case _:
            return told(Program(program.values, (), (), (), (instruction,), ()))


def steps_of(storage: Storage) -> dict[str, list[str]]:
    """The steps of each phase that has any: ``a|b = ufunc(c|d, 2)`` for neighbours, a product by its results."""
    return {phase.name.lower(): [_step(s) for s in steps] for phase, steps in zip(Phase, storage.steps, strict=True) if steps}


def _step(step: Step) -> str:
    match step:
        case Packed(ufunc=ufunc, outs=outs, args=args):
            texts = [str(arg.value) if isinstance(arg, Scalar) else "|".join(arg) for arg in args]
            return f"{'|'.join(outs)} = {ufunc}({', '.join(texts)})"
        case Contraction(out=out):
            return f"{out} = contraction"
        case _:
            return f"{', '.join(step_writes(step))} = {type(step).__name__}"


def homes(storage: Storage) -> dict[str, Home]:
    """The kind of memory of each value that has a place."""
    return {name: storage.home(name) for name in storage.place}


def sharers(storage: Storage) -> list[tuple[str, ...]]:
    """The values that lie in one place, one after the other; of places that have several."""
    return [members for slots in storage.buffers for members in slots.members if len(members) > 1]


def printer(owner: Owner = Owner.FORWARD) -> Printer:
    """One that calls everything what it is called, and the memory ``ws``."""
    return Printer({}, Seat(owner, "ws", dict.fromkeys(Owner, "ws")))


def spelt(emitter: Emitter) -> dict[str, list[str]]:
    """What a direction consists of that it has any of, as text."""
    text, made = emitter.run(), printer(emitter.views.around.owner)
    statements: dict[str, list[Statement]] = {
        "prologue": text.prologue,
        "locals": [*text.locals],
        "before": text.before,
        "loop": text.loop,
    }
    steps = [f"{made.text(name)} in {made.text(over)}" for name, over in (*text.steps, *text.fresh)]
    found = {name: made.lines(lines) for name, lines in statements.items()}
    found |= {"over": steps, "after": made.lines(text.after)}
    return {name: lines for name, lines in found.items() if lines}


def executed(emitter: Emitter, given: Mapping[str, Arrays], steps: int, batch: int, dims: Mapping[str, int]) -> dict[str, Any]:
    """The names that a direction's statements, which have been written, have defined when they have been run.

    ``given`` are ``constants`` by name, ``sequences`` of all steps and samples, the samples last, and what ``befores`` are in
    the first step.
    """
    text, made, first = emitter.text, printer(emitter.views.around.owner), emitter.orientation.features_first
    ws = SimpleNamespace(apart=False)
    scope: dict[str, Any] = {name: it for module in RUNTIME for name, it in vars(module).items() if name.startswith("_")}
    scope |= {"np": np, "ws": ws, "dtype": np.dtype(float), "T": steps, "B": batch, **dims, **given["constants"]}
    for name, array in given["sequences"].items():
        rows = array.reshape(steps, -1, batch)
        word = name.partition("[")[0]
        scope[word] = rows if first else rows.swapaxes(1, 2)
        scope[f"{word}_2d"] = rows.swapaxes(1, 2).reshape(steps * batch, -1)
    for buffer in text.buffers:
        setattr(ws, buffer.name, np.full(size_of(buffer.axes, {**dims, "T": steps, "B": batch}), np.nan))
    for view in text.views:
        setattr(ws, view.name, eval(made.text(view.expression), scope))
    for name, array in given["befores"].items():
        emitter.views.phase = Phase.AFTER
        block = emitter.views.storage.block([name])
        assert block is not None
        place = eval(made.text(emitter.views.view(block, [name], ())), scope)
        place = place[0] if emitter.views.storage.home(name) is Home.HISTORY else place
        place[...] = array.reshape(-1, batch) if first else array.reshape(-1, batch).T

    def run(lines: list[str]) -> None:
        exec("\n".join(lines), scope)

    run(made.lines([*text.prologue, *text.locals, *text.short, *text.before]))
    over = [(made.text(name), eval(made.text(sequence), scope)) for name, sequence in (*text.steps, *text.fresh)]
    for t in range(steps):
        scope |= {name: sequence[t] for name, sequence in over}
        run(made.lines(text.loop))
    run(made.lines(text.after))
    return scope
