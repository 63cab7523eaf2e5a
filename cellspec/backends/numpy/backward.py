"""The backward direction of a NumPy module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cellspec import ir
from cellspec.backends.arrays.caller import STEPS, dfinal, if_dfinal
from cellspec.backends.arrays.expressions import (
    ELLIPSIS,
    Apply,
    Attribute,
    Expression,
    Index,
    Items,
    Library,
    Local,
    Method,
    Word,
)
from cellspec.backends.arrays.statements import Bind, Copy, Increase, Store
from cellspec.backends.memory.model import B, Home, Owner, T
from cellspec.backends.naming import Wishes, identifier
from cellspec.backends.numpy.direction import Boundary, Direction
from cellspec.backends.numpy.earlier import Earlier
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.forward import carried, given_sequences
from cellspec.backends.numpy.histories import Histories
from cellspec.backends.numpy.instructions import instructions
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.setting import Given, Setting, formula
from cellspec.backends.numpy.storage import Demands
from cellspec.backends.numpy.views import Views
from cellspec.model.equations import Input, State
from cellspec.passes.schedule import Schedule


@dataclass(frozen=True)
class Gradients:
    """What the backward pass gives out besides the states': the gradients of the parameters and of the inputs, by name."""

    params: Mapping[str, Expression]
    inputs: Mapping[str, Expression]


def backward(
    setting: Setting,
    names: Wishes,
    schedule: Schedule,
    orientation: Orientation,
    earlier: Earlier,
    histories: Histories,
    forward: Emitter,
) -> tuple[Direction, Gradients]:
    """The backward direction; ``forward`` knows where the forward pass has left its values."""
    compiled, caller = setting.compiled, setting.caller
    code = instructions(schedule)
    ranks = setting.ranks_of(code.values)
    demands = Demands(frozenset(), frozenset(compiled.stash), False, orientation.features_first, ranks)
    sequences = given_sequences(setting, earlier, orientation)
    arrays = dict(sequences.arrays)
    for ref in setting.cell.outputs:
        dy = caller.flat(caller.dy(ref.name), ref.shape, STEPS)
        arrays[f"d:{ref.label} given"] = orientation.of_caller(dy, steps=True)
    saved = frozenset(compiled.stash).difference(sequences.arrays)
    arrays |= {name: forward.views.operand([name]) for name in compiled.stash if name in saved}
    given = Given(arrays, saved, sequences.matrices)
    emitter = setting.emitter(plan(code, demands), given, names, orientation, Owner.BACKWARD)
    text, views = emitter.run(), emitter.views
    targets = dict.fromkeys(total.target for total in views.program.totals)
    variables = {target: Local(names.get(("total", target), identifier(target))) for target in targets}
    emitter.products.gradients(variables)
    params = _epilogue(setting, views, variables)
    boundaries = [boundary for state in carried(setting) for boundary in _state(views, setting, histories, state)]
    # The farthest first, as each hands on to the nearer one.
    boundaries += [earlier.backward(emitter, stream) for stream in reversed(earlier.known)][::-1]
    for each in histories.of_inputs.values():
        left = {r.steps: f"d:{r.label}" for r in each.far.refs if f"d:{r.label}" in views.storage.place}
        lags = {steps: orientation.of_caller(views.operand([name]), steps=True) for steps, name in left.items()}
        boundaries.append(histories.input_backward(views, each, lags))
    inputs = {item.name: _input(setting, views, earlier, histories, item) for item in setting.cell.inputs}
    results = (*params.values(), *inputs.values())
    return Direction(text, False, tuple(boundaries), results), Gradients(params, inputs)


def _state(views: Views, setting: Setting, histories: Histories, state: State) -> Iterator[Boundary]:
    """A state at the ends of the backward pass."""
    before, caller, of_caller = f"d:{state.name}[t]<-", setting.caller, views.orientation.of_caller
    block = views.storage.block([before])
    assert block is not None
    d = views.view(block, [before], ())
    given = of_caller(caller.flat(dfinal(state.name), state.shape))
    if (each := histories.of_states.get(state.name)) is not None:
        yield histories.state_backward(views, each, d)
    yield Boundary(
        (state.name, caller.shaped(Method(of_caller(d), "copy"), state.shape)),
        (Store(Index(d, (ELLIPSIS,)), if_dfinal(given, 0)),),
        (Items((Index(d, (None,)), 0)) if histories.any else d,),
        (Index(given, (None,)) if histories.any else given,),
    )


def _input(setting: Setting, views: Views, earlier: Earlier, histories: Histories, item: Input) -> Expression:
    """The gradient of an input, written for the caller."""
    name, caller, lines = f"d:{item.name}[t]", setting.caller, views.text.after
    later = earlier.of_input(views, item.name)
    if item.name in histories.of_inputs:
        later = histories.of_input(views, item.name)
    if name not in views.storage.place:
        if later is not None:
            return caller.shaped(later, item.shape, STEPS)
        return Apply(Library("zeros_like"), (caller.input(item.name),))
    if views.storage.home(name) is Home.USER:
        buffer = views.buffer(views.storage.place[name][0])
    else:
        called = "d_x_out" if len(setting.cell.inputs) == 1 else f"d_{item.name}_out"
        buffer = views.new_buffer(views.names.get(("gradient of", name), called), (T, B, caller.size(item.shape)))
        lines.append(Copy(views.orientation.of_caller(buffer, steps=True), views.operand([name])))
    if later is not None:
        lines.append(Increase(buffer, later))
    return caller.shaped(buffer, item.shape, STEPS)


def _epilogue(setting: Setting, views: Views, variables: Mapping[str, Local]) -> dict[str, Expression]:
    """The gradient of every parameter, through derived parameters where there are any."""
    program = setting.compiled.epilogue.program
    known: dict[str, Expression] = setting.constants | {f"{target} total": name for target, name in variables.items()}
    for op in program.ops:
        (out,) = ir.outs(op)
        name = Local(views.names.get(("epilogue", out), identifier(out)))
        views.text.after.append(Bind(name, formula(out, op, program, known)))
        known[out] = name
    grads = {}
    for param in setting.cell.params:
        target = f"d:{param.name}"
        zeros = Apply(Library("zeros_like"), (Attribute(Word("params"), param.name),))
        grads[param.name] = known[target] if target in program.outputs else variables.get(target, zeros)
    return grads
