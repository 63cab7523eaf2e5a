"""Earlier inputs and the index of the step: where they lie, and the host's lines that fill them and take their gradients on."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec import ir
from cellspec.backends.common import Common
from cellspec.backends.cupy.histories import Histories
from cellspec.backends.cupy.host import Text
from cellspec.backends.fused.c_family import ascii_name
from cellspec.backends.fused.memory import Columns, buffer, is_matrix
from cellspec.backends.memory.model import Buffer, Element, Home
from cellspec.backends.naming import Names
from cellspec.backends.streams import Stream, streams
from cellspec.cell import Cell


class Earlier:
    """The streams of a cell. Each lies in memory of T + 1 steps, of which the last is the final state."""

    def __init__(self, cell: Cell, common: Common, names: Names) -> None:
        self.common = common
        buffers = {s.name: names.get(("stream", s.name), f"{ascii_name(s.name)}_all") for s in cell.streams if not s.rows}
        self.known = streams(cell, buffers)
        self.by_state = {stream.state.name: stream for stream in self.known}
        self.places = {stream.value: Columns(self.buffer(stream)) for stream in self.known}
        self.histories = Histories(cell, common, names)
        self.places |= self.histories.inputs()
        self.matrices = {name: place for name, place in self.places.items() if is_matrix(place.buffer)}

    @staticmethod
    def buffer(stream: Stream) -> Buffer:
        """The memory of a stream; counts are kept in the type of gate arithmetic, in which they are exact for longer."""
        element = Element.EXACT if stream.follows is None else Element.STORED
        return buffer(stream.buffer, Home.HISTORY, ir.size(stream.state.shape), element=element)

    def size(self, stream: Stream) -> str:
        return f"(T + 1, B, {self.common.size(stream.state.shape)})"

    # --- forward ------------------------------------------------------------------------------------------------

    def forward(self, text: Text, stream: Stream) -> str:
        """Add the lines that fill a stream's memory; what it leaves as the final state."""
        shape, name, whole = stream.state.shape, stream.state.name, f"ws.{stream.buffer}"
        initial = self.common.flat(f"state.{name}", shape)
        text.buffers.append((stream.buffer, f"cp.empty({self.size(stream)}, {'dtype' if stream.follows else 'real'})"))
        if stream.follows is None:
            text.prologue.append(f"{whole}[...] = {initial}")
            text.prologue.append(f"{whole} += cp.arange(T + 1, dtype={whole}.dtype)[:, None, None]")
            text.prologue += ["if masks is not None:", f"    _count_anew({whole}, masks)"]
        else:
            follows = stream.follows if stream.follows.startswith("ws.") else self.common.flat(stream.follows, shape, "T, B")
            text.prologue += [f"{whole}[0] = {initial}", f"{whole}[1:] = {follows}", *self.put_back(whole, "ws.rows.lags")]
        return self.common.shaped(f"{whole}[T].astype(dtype)", shape)

    @staticmethod
    def put_back(whole: str, order: str) -> list[str]:
        """The lines by which a call with masks changes the memory of an input's lag, or of its gradient."""
        return ["if masks is not None:", f"    {whole}[...] = _arranged({order}, {whole}, dtype)"]

    # --- backward -----------------------------------------------------------------------------------------------

    def backward(self, text: Text, outputs: Mapping[str, Buffer]) -> dict[str, str]:
        """Add the lines that hand gradients from stream to stream, the farthest first; those of the initial states."""
        return {stream.state.name: self.gradient(text, outputs, stream) for stream in reversed(self.known)}

    def gradient(self, text: Text, outputs: Mapping[str, Buffer], stream: Stream) -> str:
        """Add the lines of one stream's gradient; that of its initial state."""
        shape, name, whole = stream.state.shape, stream.state.name, f"ws.d_{stream.buffer}"
        if stream.follows is None:
            # No gradient flows through the count; without a step the final state is the initial one.
            return f"dfinal.{name}.copy() if T == 0 and dfinal is not None else cp.zeros_like(tape.state.{name})"
        text.buffers.append((f"d_{stream.buffer}", f"cp.empty({self.size(stream)}, dtype)"))
        made = outputs.get(f"d:{stream.value}")
        text.after.append(f"{whole}[:T] = {0 if made is None else f'ws.{made.name}'}")
        later = next((s for s in self.known if s.follows == f"ws.{stream.buffer}[:-1]"), None)
        if later is not None:
            text.after.append(f"{whole}[:T] += ws.d_{later.buffer}[1:]")
        text.after.append(f"{whole}[T] = 0 if dfinal is None else {self.common.flat(f'dfinal.{name}', shape)}")
        text.after += self.put_back(whole, "saved.rows.d_lags")
        return self.common.shaped(f"{whole}[0].copy()", shape)

    def of_input(self, name: str) -> str | None:
        """What the stream that follows an input adds to the input's gradient, ``[T, B, n]``."""
        if (far := self.histories.of_input(name)) is not None:
            return far
        follower = next((s for s in self.known if s.state.lag_of == (name, 1)), None)
        return None if follower is None else f"ws.d_{follower.buffer}[1:]"
