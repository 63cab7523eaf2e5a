"""One step alone, for streams: nothing is known beforehand but the parameters, and nothing is left for later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cellspec import ir
from cellspec.backends.arrays.caller import state as given_state
from cellspec.backends.arrays.expressions import (
    EVERYTHING,
    Apply,
    Binary,
    Expression,
    Index,
    Items,
    Library,
    Local,
    Method,
    Stretch,
    Word,
    dims_of,
)
from cellspec.backends.arrays.statements import Bind, Statement, read, reads, writes, written
from cellspec.backends.arrays.statements import names as names_of
from cellspec.backends.lags import Stream
from cellspec.backends.memory.model import Buffer, Owner, Phase
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.earlier import Earlier
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.instructions import instructions
from cellspec.backends.numpy.orientation import BATCH_MAJOR, FEATURE_MAJOR, has_heads
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.setting import Given, Setting
from cellspec.backends.numpy.storage import Demands
from cellspec.backends.numpy.text import Text
from cellspec.ir import Program
from cellspec.model.equations import State
from cellspec.model.nodes import Shape
from cellspec.pipeline import SINGLE_STEP


@dataclass(frozen=True)
class Alone:
    """One step alone: ``once``, what is done for all steps, of which ``constants`` are read at ``every`` step, and results.

    ``dims`` are those that a step mentions.
    """

    text: Text
    once: tuple[Statement, ...]
    constants: tuple[Word | Local, ...]
    every: tuple[Statement, ...]
    outputs: tuple[Expression, ...]
    states: tuple[tuple[str, Expression], ...]
    dims: frozenset[str]

    def buffers(self, *, parameters: bool) -> list[Buffer]:
        """The buffers that hold parameters, or the others."""
        return [buffer for buffer in self.text.buffers if (buffer in self.text.parameters) is parameters]


def one_step(program: Program) -> Program:
    """``program``, a forward step, with its states among what it is given and what it gives out."""
    outputs = dict.fromkeys((*program.outputs, *program.afters))
    given = (*program.sequences, *program.befores)
    return ir.typecheck(replace(program, sequences=given, carries=(), delays=(), outputs=tuple(outputs)))


def alone(setting: Setting, names: Wishes, earlier: Earlier) -> Alone:
    """One step alone: what packed parameters hold, and the statements of a step."""
    cell, compiled, caller = setting.cell, setting.compiled, setting.caller
    scheduled = compiled.schedules[SINGLE_STEP]
    code = instructions(scheduled)
    orientation = FEATURE_MAJOR if has_heads(scheduled) else BATCH_MAJOR
    demands = Demands(frozenset(), frozenset(), False, True, setting.ranks_of(code.values), alone=True)
    arrays = {name: orientation.of_caller(caller.flat(array, shape)) for name, array, shape in _given(setting)}
    given = Given(arrays, frozenset(arrays), {}, lead=())
    emitter = setting.emitter(plan(code, demands), given, names, orientation, Owner.ALONE)
    text = emitter.run()
    results = _Results(emitter, set(emitter.views.made.values()))
    states = tuple((state.name, _after(setting, earlier, results, state)) for state in cell.states)
    outputs = tuple(caller.shaped(*results.take(o.label, o.shape)) for o in cell.outputs)
    once, every = _parts(text)
    read_here = {name for statement in every for name in names_of(statement)}
    bound = dict.fromkeys((*map(Word, setting.common.derived.values()), *(s.name for s in once if isinstance(s, Bind))))
    mentioned = [*outputs, *(value for _, value in states), *(part for s in every for part in (*read(s), *written(s)))]
    dims = set[str]().union(*(dims_of(expression, caller.dims) for expression in mentioned))
    constants = tuple(name for name in bound if name in read_here)
    return Alone(text, once, constants, every, outputs, states, frozenset(dims))


def _given(setting: Setting) -> Iterator[tuple[str, Expression, Shape]]:
    """What a step is given: inputs, states, and earlier values of either."""
    for item in setting.cell.inputs:
        yield f"{item.name}[t]", setting.caller.input(item.name, "x_t"), item.shape
    for state in setting.cell.states:
        if not state.rows:
            yield f"{state.name}[t-1]", given_state(state.name), state.shape
    for ref in setting.cell.distant:
        row = Index(given_state(setting.cell.keeper(ref).name), (EVERYTHING, ref.back - 1))
        yield ref.label, row, ref.shape


def _after(setting: Setting, earlier: Earlier, results: _Results, state: State) -> Expression:
    """A state after the step."""
    if state.rows:
        return _shifted(setting, state)
    stream = next((stream for stream in earlier.known if stream.state == state), None)
    if stream is None:
        return setting.caller.shaped(*results.take(f"{state.name}[t]", state.shape))
    match stream.follows:
        case None:
            return Binary("+", given_state(state.name), 1)
        case Stream(state=nearer):
            return Method(given_state(nearer.name), "copy")
        case str() as name:
            return Method(setting.caller.input(name, "x_t"), "copy")


def _shifted(setting: Setting, state: State) -> Expression:
    """A state of several rows after the step: the newest in front, without the last."""
    source = state.lag_of[0] if state.lag_of else ""
    of_input = any(item.name == source for item in setting.cell.inputs)
    newest = Index(setting.caller.input(source, "x_t") if of_input else given_state(source), (EVERYTHING, None))
    rows = Index(given_state(state.name), (EVERYTHING, Stretch(stop=-1)))
    return Apply(Library("concatenate"), (Items((newest, rows)),), (("axis", 1),))


@dataclass
class _Results:
    """What a step gives out: arrays that calls have made as they are, once each, and copies of others."""

    emitter: Emitter
    made: set[Local]

    def take(self, label: str, shape: Shape) -> tuple[Expression, Shape]:
        """The array of a value, and its shape."""
        views = self.emitter.views
        views.phase = Phase.LOOP
        array = views.operand([label])
        own = views.orientation.of_caller(array)
        if isinstance(array, Local) and array in self.made:
            self.made.discard(array)
            return own, shape
        return Method(own, "copy"), shape


def _parts(text: Text) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
    """What is done once for all steps, and at every step: what mentions memory, which is another for each batch size."""
    in_memory = [bind for bind in text.locals if reads(bind) | writes(bind)]
    once = (*text.prologue, *(bind for bind in text.locals if bind not in in_memory))
    steps = (Bind(name, sequence) for name, sequence in text.steps)
    return once, (*in_memory, *text.short, *steps, *text.loop)
