"""Earlier inputs and the index of the step, in a NumPy module: where they lie, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cellspec.backends.arrays.caller import STEPS, Caller, dfinal, if_dfinal
from cellspec.backends.arrays.caller import state as given_state
from cellspec.backends.arrays.expressions import (
    ELLIPSIS,
    EVERYTHING,
    NONE,
    Apply,
    Attribute,
    Binary,
    Expression,
    Index,
    Library,
    Literal,
    Method,
    Stretch,
    View,
    Word,
)
from cellspec.backends.arrays.statements import Copy, Increase, Perform, Statement, Store, When
from cellspec.backends.lags import Far, Stream, counts, far_inputs, follower, streams
from cellspec.backends.memory.model import B, Buffer, Home, Owner, T
from cellspec.backends.naming import Wishes, identifier
from cellspec.backends.numpy.direction import Boundary
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.text import apart
from cellspec.backends.numpy.views import Views
from cellspec.cell import Cell
from cellspec.model.nodes import Kind, Shape

CUTS = Word("cuts")
IF_CUT = Binary("is not", CUTS, NONE)
"""Whether the recurrence is cut anywhere."""


@dataclass(frozen=True)
class FarInput:
    """An input that is read far back: the buffer ``[T + k, B, n]`` with what lies before its first step, and a view a lag."""

    far: Far
    buffer: Buffer
    views: Mapping[str, View]


@dataclass(frozen=True)
class Earlier:
    """The streams of a cell, each in memory of T + 1 steps of which the last is the final state; and inputs further back.

    ``buffers`` are that memory, ``[T + 1, B, n]``, by the names of the streams' states.
    """

    caller: Caller
    known: tuple[Stream, ...]
    buffers: Mapping[str, Buffer]
    inputs: Mapping[str, FarInput]

    @classmethod
    def of(cls, cell: Cell, caller: Caller, names: Wishes) -> Earlier:
        """Those of a cell; ``names`` hands out the names of their memory."""
        called = {state.name: names.get(("stream", state.name), f"{state.name}_all") for state in cell.streams}
        known = streams(cell)
        buffers = {
            name: Buffer(called[name], (T + 1, B, caller.size(stream.state.shape)), Owner.FORWARD, Home.HISTORY)
            for name, stream in ((stream.state.name, stream) for stream in known)
        }
        labels = [ref.label for ref in cell.distant if ref.kind is Kind.INPUT]
        lagged = {label: names.get(("stream", label), identifier(label)) for label in labels}
        inputs = {source: _far_input(each, caller, names, lagged) for source, each in far_inputs(cell).items()}
        return cls(caller, known, buffers, inputs)

    @property
    def counts(self) -> bool:
        """Whether the cell reads the index of the step."""
        return counts(self.known)

    def steps(self, stream: Stream) -> Expression:
        """What all steps read of a stream."""
        return Index(self.buffers[stream.state.name], (Stretch(stop=-1),))

    def sequences(self) -> Iterator[tuple[str, Expression, Shape]]:
        """Each value, all its steps as the caller has sequences, and its shape."""
        for stream in self.known:
            yield stream.value, self.steps(stream), stream.state.shape
        for ref in self.caller.cell.distant:
            if ref.kind is Kind.INPUT:
                yield ref.label, self.inputs[ref.name].views[ref.label], ref.shape

    def forward(self, stream: Stream) -> Boundary:
        """How a stream is made before anything is computed, and what it leaves as the final state."""
        shape, name = stream.state.shape, stream.state.name
        whole, first = self.buffers[name], given_state(name)
        start: list[Statement]
        if stream.follows is None:
            steps = Apply(Library("arange"), (T + 1,))
            start, cut = (
                [Store(Index(whole, (ELLIPSIS,)), Binary("+", first, Index(steps, (EVERYTHING, None, None))))],
                "recount",
            )
        else:
            follows = self.steps(stream.follows) if isinstance(stream.follows, Stream) else self.input(stream.follows, shape)
            start = [Store(Index(whole, (0,)), self.caller.flat(first, shape)), Store(Index(whole, (Stretch(1),)), follows)]
            cut = "restart"
        start.append(_if_cut(cut, whole, Literal(float(stream.state.init))))
        final = self.caller.shaped(Method(Index(whole, (T,)), "copy"), shape)
        return Boundary((name, final), tuple(start))

    def input(self, name: str, shape: Shape) -> Expression:
        """All steps of an input."""
        return self.caller.flat(self.caller.input(name), shape, STEPS)

    def backward(self, emitter: Emitter, stream: Stream) -> Boundary:
        """The gradient of a stream's initial state; its other steps' are handed on to what it follows."""
        shape, name = stream.state.shape, stream.state.name
        if stream.follows is None:
            # No gradient flows through the count; without a step the final state is the initial one.
            idle = Apply(Word("_idle"), (CUTS, T))
            zeros = Apply(Library("zeros_like"), (given_state(name),))
            return Boundary((name, if_dfinal(Binary("*", dfinal(name), idle), zeros)))
        views, lines = emitter.views, emitter.text.after
        whole = self.gradient_buffer(views, stream)
        steps = Index(whole, (Stretch(stop=-1),))
        if (d := f"d:{stream.value}") in views.storage.place:
            lines.append(Copy(views.orientation.of_caller(steps, steps=True), views.operand([d])))
        else:
            lines.append(Store(steps, 0))
        if (later := follower(self.known, stream)) is not None:
            lines.append(Increase(steps, Index(self.gradient_buffer(views, later), (Stretch(1),))))
        given = self.caller.flat(dfinal(name), shape)
        lines.append(Store(Index(whole, (T,)), if_dfinal(given, 0)))
        lines.append(_if_cut("part", whole, if_dfinal(given, NONE)))
        final = self.caller.shaped(Method(Index(whole, (0,)), "copy"), shape)
        return Boundary((name, final))

    def of_input(self, views: Views, name: str) -> Expression | None:
        """What the stream that follows an input adds to the input's gradient, ``[T, B, n]``."""
        first = follower(self.known, name)
        return None if first is None else Index(self.gradient_buffer(views, first), (Stretch(1),))

    def gradient_buffer(self, views: Views, stream: Stream) -> Buffer:
        """The memory of a stream's gradient."""
        key = ("gradient of", stream.state.name)
        if key not in views.attributes:
            name = views.names.get(key, f"d_{self.buffers[stream.state.name].name}")
            views.attributes[key] = views.new_buffer(name, (T + 1, B, self.caller.size(stream.state.shape)))
        found = views.attributes[key]
        assert isinstance(found, Buffer)
        return found


def _far_input(each: Far, caller: Caller, names: Wishes, lagged: Mapping[str, str]) -> FarInput:
    """The memory of an input that is read far back; ``lagged`` are the names of what is read, by label."""
    size = caller.size(each.state.shape[1:])
    called = names.get(("history", each.source), f"{identifier(each.source)}_history")
    buffer = Buffer(called, (T + each.reach, B, size), Owner.FORWARD, Home.HISTORY)
    views = {}
    for ref in each.refs:
        rows = Index(buffer, (Stretch(each.reach - ref.steps or None, -ref.steps),))
        views[ref.label] = View(lagged[ref.label], buffer, apart(rows, (T, B, size)))
    return FarInput(each, buffer, views)


def _if_cut(method: str, array: Buffer, given: Expression) -> When:
    """What is done to an array where the recurrence is cut."""
    return When(IF_CUT, (Perform(Apply(Attribute(CUTS, method), (array, given)), (array,)),))
