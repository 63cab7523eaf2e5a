"""Lags that reach far back, in a NumPy module.

The history of a state, or an input behind what lies before its first step, has k rows more than there are steps, k being the
farthest lag; h[t-j] is read j rows before the one that step t defines, where it lies. What comes back from h[t-j] lies in an
array of the same kind for each lag: a step leaves it in row t and finds in row t + j what the step j later has left. Behind the
last step these arrays hold the final state's cotangent, and before the first step they leave the initial state's.

With resets or short samples what a step reads may be others' rows than those: see ``_earlier`` in the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cellspec.backends.arrays.caller import DFINAL, STEPS, Caller, dfinal, if_dfinal
from cellspec.backends.arrays.caller import state as given_state
from cellspec.backends.arrays.expressions import (
    EVERYTHING,
    NONE,
    REVERSED,
    Apply,
    Attribute,
    Binary,
    Expression,
    Index,
    Items,
    Literal,
    Method,
    OfMemory,
    Stretch,
    Table,
    View,
    Word,
    reshaped,
)
from cellspec.backends.arrays.statements import Increase, Perform, Statement, Store, When
from cellspec.backends.lags import Far, far_states
from cellspec.backends.memory.model import B, Buffer, T
from cellspec.backends.naming import identifier
from cellspec.backends.numpy.direction import Boundary
from cellspec.backends.numpy.earlier import CUTS, IF_CUT, FarInput
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.views import Views
from cellspec.model.equations import State


@dataclass(frozen=True)
class Histories:
    """What a module does with such states; arrays of the caller's have their samples first, histories their steps."""

    caller: Caller
    orientation: Orientation
    of_states: Mapping[str, Far]
    of_inputs: Mapping[str, FarInput]

    @classmethod
    def of(cls, caller: Caller, orientation: Orientation, inputs: Mapping[str, FarInput]) -> Histories:
        """Those of a cell, with the memory of ``inputs``."""
        return cls(caller, orientation, far_states(caller.cell), inputs)

    @property
    def any(self) -> bool:
        """Whether the cell has such a state."""
        return bool(self.of_states or self.of_inputs)

    # --- the caller's rows ------------------------------------------------------------------------------------

    def by_rows(self, array: Expression, each: Far) -> Expression:
        """The caller's ``[B, rows, *shape]`` as a history has it, the oldest row first."""
        shape = each.state.shape
        flat = array if len(shape) == 2 else reshaped(array, B, each.state.rows, self.caller.size(shape[1:]))
        backwards = Index(flat, (EVERYTHING, REVERSED))
        return Method(backwards, *(("transpose", (1, 2, 0)) if self._turns(each) else ("swapaxes", (0, 1))))

    def for_caller(self, rows: Expression, each: Far) -> Expression:
        """Rows of a history, the oldest first, as the caller has them."""
        turned = Method(Index(rows, (REVERSED,)), *(("transpose", (2, 0, 1)) if self._turns(each) else ("swapaxes", (0, 1))))
        return self.shaped(Method(turned, "copy"), each)

    def shaped(self, rows: Expression, each: Far) -> Expression:
        """``[B, rows, n]`` in the state's shape."""
        shape = each.state.shape
        return rows if len(shape) == 2 else reshaped(rows, B, *self.caller.axes(shape))

    def kept(self, history: Expression, each: Far) -> Expression:
        """The rows of a history, ``[T + k, B, n]``, that are left in the end."""
        args = (history, each.state.rows, T, CUTS, Literal(float(each.state.init)))
        return self.shaped(Apply(Word("_kept"), args), each)

    def _turns(self, each: Far) -> bool:
        return self.orientation.features_first and not each.of_input

    # --- states -----------------------------------------------------------------------------------------------

    def before(self, views: Views, state: State) -> Table:
        """Where the values of a state before a step stand apart, by how far they lie back."""
        labels = {1: f"{state.name}[t-1]"}
        if (each := self.of_states.get(state.name)) is not None:
            labels |= {ref.steps: ref.label for ref in each.refs}
        block = views.storage.block([f"{state.name}[t]"])
        assert block is not None
        return Table(tuple((steps, views.view(block, [label], ())) for steps, label in labels.items()))

    def state_forward(self, history: Buffer, each: Far) -> Boundary:
        """How the oldest rows of a state's history are filled, and what is left of it in the end."""
        name, rows = each.state.name, each.state.rows
        samples_first = Method(history, "transpose", (0, 2, 1)) if self._turns(each) else history
        start = Store(Index(history, (Stretch(stop=rows),)), self.by_rows(given_state(name), each))
        return Boundary((name, self.kept(samples_first, each)), (start,))

    def state_backward(self, views: Views, each: Far, first: Buffer | View) -> Boundary:
        """The same of what comes back from a state's history; ``first`` is the cotangent of the state before the first step."""
        buffers = {}
        for delay in views.program.delays:
            if delay.before == f"d:{each.source}[t]<-{delay.steps}":
                block = views.storage.block([delay.after])
                assert block is not None
                buffers[delay.steps] = views.buffer(block.buffer)
        name, whole = each.state.name, buffers[each.reach]
        final = self.by_rows(dfinal(name), each)
        starts: list[Statement] = [Store(Index(buffer, (Stretch(T),)), 0) for buffer in buffers.values()]
        starts.append(When(Binary("is not", DFINAL, NONE), (Store(Index(whole, (Stretch(T, -1),)), final),)))
        views.text.after += [Increase(first, Index(buffer, (steps - 1,))) for steps, buffer in buffers.items()]
        views.text.after += self.together(buffers, each)
        return Boundary(
            (name, self.for_caller(Index(whole, (Stretch(stop=each.state.rows),)), each)),
            tuple(starts),
            tuple(Items((buffer, steps)) for steps, buffer in buffers.items()),
            tuple(final if steps == each.reach else NONE for steps in buffers),
        )

    def together(self, buffers: Mapping[int, Buffer], each: Far) -> list[Statement]:
        """What comes back to before the first step, in the first rows of the farthest lag's array."""
        rows, whole = each.state.rows, buffers[each.reach]
        others = [(each.reach - steps, buffer) for steps, buffer in buffers.items() if steps != each.reach]
        return [
            Increase(Index(whole, (Stretch(start, rows),)), Index(buffer, (Stretch(stop=rows - start),)))
            for start, buffer in others
        ]

    # --- inputs -----------------------------------------------------------------------------------------------

    def input_forward(self, views: Views, given: FarInput) -> Boundary:
        """An input behind what lies before its first step, and views of it for each lag."""
        each, buffer = given.far, given.buffer
        name, rows, init = each.state.name, each.state.rows, Literal(float(each.state.init))
        x = self.caller.flat(self.caller.input(each.source), each.state.shape[1:], STEPS)
        views.text.buffers.append(buffer)
        views.text.views += given.views.values()
        lags = ((given.views[ref.label], ref.steps) for ref in each.refs)
        calls = (Perform(Apply(Word("_earlier"), (buffer, view, steps, CUTS, init)), (view,)) for view, steps in lags)
        start = (
            Store(Index(buffer, (Stretch(stop=rows),)), self.by_rows(given_state(name), each)),
            Store(Index(buffer, (Stretch(rows),)), x),
            When(OfMemory("apart"), tuple(calls)),
        )
        return Boundary((name, self.kept(buffer, each)), start)

    def buffers(self, views: Views, given: FarInput) -> dict[int, Buffer]:
        """The arrays that hold what comes back from an input's lags."""
        size, found = self.caller.size(given.far.state.shape[1:]), {}
        for ref in given.far.refs:
            name = views.names.get(("back", ref.label), f"d_{identifier(ref.label)}_history")
            found[ref.steps] = Buffer(name, (T + ref.steps, B, size), views.around.owner)
        return found

    def of_input(self, views: Views, name: str) -> Expression:
        """What comes back to the input itself, as a sequence."""
        buffers = self.buffers(views, self.of_inputs[name])
        first, *others = (Index(buffer, (Stretch(steps),)) for steps, buffer in buffers.items())
        total: Expression = first
        for other in others:
            total = Binary("+", total, other)
        return total

    def input_backward(self, views: Views, given: FarInput, lags: Mapping[int, Expression]) -> Boundary:
        """What comes back from an input's lags: ``lags`` are what each step leaves for them, as the caller has sequences."""
        each, lines = given.far, views.text.after
        buffers = self.buffers(views, given)
        final = self.by_rows(dfinal(each.state.name), each)
        for steps, buffer in buffers.items():
            ends, behind = each.reach == steps, Index(buffer, (Stretch(T),))
            views.text.buffers.append(buffer)
            lines.append(Store(Index(buffer, (Stretch(stop=T),)), lags.get(steps, 0)))
            lines.append(Store(behind, if_dfinal(final, 0) if ends else 0))
            part = Apply(Attribute(CUTS, "part_rows"), (buffer, if_dfinal(final, NONE) if ends else NONE))
            lines.append(When(IF_CUT, (Perform(part, (buffer,)),)))
        lines += self.together(buffers, each)
        return Boundary((each.state.name, self.for_caller(Index(buffers[each.reach], (Stretch(stop=each.reach),)), each)))
