"""Earlier inputs and the index of the step, in the text of a NumPy module: where they lie, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator

from cellspec.backends.common import Common
from cellspec.backends.naming import Names, identifier
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.plain import float_text
from cellspec.backends.streams import Stream, streams
from cellspec.cell import Cell
from cellspec.model.nodes import Kind, Shape


class Earlier:
    """The streams of a cell, each in memory of T + 1 steps of which the last is the final state; and inputs further back."""

    def __init__(self, cell: Cell, common: Common, names: Names) -> None:
        self.cell, self.common = cell, common
        buffers = {state.name: names.get(("stream", state.name), f"{state.name}_all") for state in cell.streams}
        self.known = streams(cell, buffers)
        labels = [ref.label for ref in cell.distant if ref.kind is Kind.INPUT]
        self.views = {label: names.get(("stream", label), identifier(label)) for label in labels}

    def sequences(self, memory: str) -> Iterator[tuple[str, str, Shape]]:
        """Each value, the expression of all its steps as the caller has sequences, and its shape."""
        for stream in self.known:
            yield stream.value, f"{memory}.{stream.buffer}[:-1]", stream.state.shape
        for ref in self.cell.distant:
            if ref.label in self.views:
                yield ref.label, f"{memory}.{self.views[ref.label]}", ref.shape

    def forward(self, stream: Stream) -> dict[str, object]:
        """How a stream is made before anything is computed, and what it leaves as the final state."""
        shape, name, whole = stream.state.shape, stream.state.name, f"ws.{stream.buffer}"
        start, cut = [f"{whole}[...] = state.{name} + np.arange(T + 1)[:, None, None]"], "recount"
        if stream.follows is not None:
            cut = "restart"
            follows = stream.follows if stream.follows.startswith("ws.") else self.common.flat(stream.follows, shape, "T, B")
            start = [f"{whole}[0] = {self.common.flat(f'state.{name}', shape)}", f"{whole}[1:] = {follows}"]
        start += ["if cuts is not None:", f"    cuts.{cut}({whole}, {float_text(float(stream.state.init))})"]
        final = f"{name}={self.common.shaped(f'{whole}[T].copy()', shape)}"
        return {"carried": "", "start": start, "final": final}

    def backward(self, emitter: Emitter, orientation: Orientation, stream: Stream) -> dict[str, object]:
        """The gradient of a stream's initial state; its other steps' are handed on to what it follows."""
        shape, name = stream.state.shape, stream.state.name
        if stream.follows is None:
            # No gradient flows through the count; without a step the final state is the initial one.
            passed = f"np.zeros_like(state.{name}) if dfinal is None else dfinal.{name}*_idle(cuts, T)"
            return {"carried": "", "start": [], "final": f"{name}={passed}"}
        whole = f"ws.{self.gradient_buffer(emitter, stream)}"
        lines = emitter.text.after
        if (d := f"d:{stream.value}") in emitter.storage.place:
            lines.append(f"np.copyto({orientation.of_caller(f'{whole}[:-1]', steps=True)}, {emitter.operand([d])})")
        else:
            lines.append(f"{whole}[:-1] = 0")
        later = next((s for s in self.known if s.follows == f"ws.{stream.buffer}[:-1]"), None)
        if later is not None:
            lines.append(f"{whole}[:-1] += ws.{self.gradient_buffer(emitter, later)}[1:]")
        dfinal = self.common.flat(f"dfinal.{name}", shape)
        lines.append(f"{whole}[T] = 0 if dfinal is None else {dfinal}")
        lines += ["if cuts is not None:", f"    cuts.part({whole}, None if dfinal is None else {dfinal})"]
        return {"carried": "", "start": [], "final": f"{name}={self.common.shaped(f'{whole}[0].copy()', shape)}"}

    def of_input(self, emitter: Emitter, name: str) -> str | None:
        """What the stream that follows an input adds to the input's gradient, ``[T, B, n]``."""
        follower = next((s for s in self.known if s.state.lag_of == (name, 1)), None)
        return None if follower is None else f"ws.{self.gradient_buffer(emitter, follower)}[1:]"

    def gradient_buffer(self, emitter: Emitter, stream: Stream) -> str:
        """The attribute that holds a stream's gradient."""
        key = ("gradient of", stream.state.name)
        if key not in emitter.names.by_key:
            buffer = emitter.names.get(key, f"d_{stream.buffer}")
            emitter.text.buffers.append((buffer, f"(T + 1, B, {self.common.size(stream.state.shape)})"))
        return emitter.names.by_key[key]
