"""The forward direction of a NumPy module."""

from __future__ import annotations

from collections.abc import Iterator

from cellspec.backends.arrays.caller import STEPS
from cellspec.backends.arrays.caller import state as given_state
from cellspec.backends.arrays.expressions import SAMPLES as MERGED
from cellspec.backends.arrays.expressions import (
    Apply,
    Expression,
    Index,
    Items,
    Literal,
    Stretch,
    Word,
    reshaped,
)
from cellspec.backends.arrays.statements import Copy, Store
from cellspec.backends.memory.model import B, Buffer, Owner, T
from cellspec.backends.naming import Wishes, identifier
from cellspec.backends.numpy.direction import Boundary, Direction
from cellspec.backends.numpy.earlier import CUTS, Earlier
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.histories import Histories
from cellspec.backends.numpy.instructions import instructions
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.setting import Given, Setting
from cellspec.backends.numpy.storage import Demands
from cellspec.model.equations import State
from cellspec.passes.schedule import Schedule


def given_sequences(setting: Setting, earlier: Earlier, orientation: Orientation) -> Given:
    """The inputs and streams, as sequences in the layout and as matrices over all steps and samples."""
    arrays: dict[str, Expression] = {}
    matrices: dict[str, Expression] = {}
    caller = setting.caller
    for item, text in zip(setting.cell.inputs, setting.common.inputs, strict=True):
        whole = caller.flat(caller.input(item.name), item.shape, STEPS)
        arrays[f"{item.name}[t]"] = orientation.of_caller(whole, steps=True)
        matrices[f"{item.name}[t]"] = Word(str(text["matrix"]))
    for value, steps, shape in earlier.sequences():
        arrays[value] = orientation.of_caller(steps, steps=True)
        matrices[value] = reshaped(steps, MERGED, caller.size(shape))
    return Given(arrays, frozenset(), matrices)


def forward(
    setting: Setting, names: Wishes, schedule: Schedule, orientation: Orientation, earlier: Earlier, histories: Histories
) -> tuple[Direction, Emitter]:
    """The forward direction, and the emitter that knows where it left its values."""
    compiled, caller = setting.compiled, setting.caller
    code = instructions(schedule)
    ranks = setting.ranks_of(code.values)
    demands = Demands(frozenset(compiled.kept), frozenset(), True, orientation.features_first, ranks)
    given = given_sequences(setting, earlier, orientation)
    emitter = setting.emitter(plan(code, demands), given, names, orientation, Owner.FORWARD)
    text, views = emitter.run(), emitter.views
    results = []
    for o in setting.cell.outputs:
        called = names.get(("output", o.name), f"{identifier(o.name)}_out")
        y = views.new_buffer(called, (T, B, caller.size(o.shape)))
        text.after.append(Copy(orientation.of_caller(y, steps=True), views.operand([o.label])))
        results.append(caller.shaped(y, o.shape, STEPS))
    for name in compiled.stash:
        if name not in given.arrays:
            views.operand([name])
    boundaries = [boundary for state in carried(setting) for boundary in _state(emitter, setting, histories, state)]
    for stream in earlier.known:
        text.buffers.append(earlier.buffers[stream.state.name])
        boundaries.append(earlier.forward(stream))
    boundaries += [histories.input_forward(views, each) for each in histories.of_inputs.values()]
    return Direction(text, True, tuple(boundaries), tuple(results)), emitter


def carried(setting: Setting) -> Iterator[State]:
    """The states that each step hands to the next."""
    return (state for state in setting.cell.states if state not in setting.cell.streams and not state.rows)


def _state(emitter: Emitter, setting: Setting, histories: Histories, state: State) -> Iterator[Boundary]:
    """A state at the ends of the forward pass."""
    views, caller = emitter.views, setting.caller
    block = views.storage.block([f"{state.name}[t]"])
    assert block is not None
    buffer = views.buffer(block.buffer)
    before: Expression = views.view(block, [f"{state.name}[t-1]"], ())
    each = histories.of_states.get(state.name)
    if histories.any:
        before = histories.before(views, state)
    first = views.orientation.of_caller(caller.flat(given_state(state.name), state.shape))
    history: Buffer | Index = Index(buffer, (Stretch(each.state.rows),)) if each else buffer
    yield Boundary(
        (state.name, caller.shaped(Apply(Word("_last"), (history, CUTS)), state.shape)),
        (Store(Index(buffer, (each.state.rows if each else 0,)), first),),
        (Items((buffer, before, Literal(float(state.init)))),),
    )
    if each:
        yield histories.state_forward(buffer, each)
