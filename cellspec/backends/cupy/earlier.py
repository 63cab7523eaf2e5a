"""Earlier inputs and the index of the step: the host's lines that fill their memory and take their gradients on."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.backends.common import Common
from cellspec.backends.cupy.histories import Histories
from cellspec.backends.cupy.host import Text
from cellspec.backends.fused.lagged import Lagged
from cellspec.backends.lags import Stream, follower
from cellspec.backends.memory.model import Buffer


class Earlier:
    """Writes what a module does with the streams of a cell; ``inputs`` are the caller's texts of the inputs, by name."""

    def __init__(self, lagged: Lagged, common: Common) -> None:
        self.lagged, self.common = lagged, common
        self.inputs = {str(item["name"]): str(item["value"]) for item in common.inputs}
        self.by_state = {stream.state.name: stream for stream in lagged.streams}
        self.histories = Histories(lagged, common)

    def memory(self, stream: Stream) -> str:
        """The array of a stream; that of its gradient has the same name behind ``d_``."""
        return f"ws.{self.lagged.called[stream]}"

    def gradient_memory(self, stream: Stream) -> str:
        return f"ws.d_{self.lagged.called[stream]}"

    def size(self, stream: Stream) -> str:
        return f"(T + 1, B, {self.common.size(stream.state.shape)})"

    # --- forward ------------------------------------------------------------------------------------------------

    def forward(self, text: Text, stream: Stream) -> str:
        """Add the lines that fill a stream's memory; what it leaves as the final state."""
        shape, name, whole, called = stream.state.shape, stream.state.name, self.memory(stream), self.lagged.called[stream]
        initial = self.common.flat(f"state.{name}", shape)
        text.buffers.append((called, f"cp.empty({self.size(stream)}, {'real' if stream.follows is None else 'dtype'})"))
        match stream.follows:
            case None:
                text.prologue.append(f"{whole}[...] = {initial}")
                text.prologue.append(f"{whole} += cp.arange(T + 1, dtype={whole}.dtype)[:, None, None]")
                text.prologue += ["if masks is not None:", f"    _count_anew({whole}, masks)"]
            case follows:
                steps = self.common.flat(self.inputs[follows], shape, "T, B") if isinstance(follows, str) else (
                    f"{self.memory(follows)}[:-1]"
                )  # fmt: skip
                text.prologue += [f"{whole}[0] = {initial}", f"{whole}[1:] = {steps}", *self.put_back(whole, "ws.rows.lags")]
        return self.common.shaped(f"{whole}[T].astype(dtype)", shape)

    @staticmethod
    def put_back(whole: str, order: str) -> list[str]:
        """The lines by which a call with masks changes the memory of an input's lag, or of its gradient."""
        return ["if masks is not None:", f"    {whole}[...] = _arranged({order}, {whole}, dtype)"]

    # --- backward -----------------------------------------------------------------------------------------------

    def backward(self, text: Text, outputs: Mapping[str, Buffer]) -> dict[str, str]:
        """Add the lines that hand gradients from stream to stream, the farthest first; those of the initial states."""
        return {stream.state.name: self.gradient(text, outputs, stream) for stream in reversed(self.lagged.streams)}

    def gradient(self, text: Text, outputs: Mapping[str, Buffer], stream: Stream) -> str:
        """Add the lines of one stream's gradient; that of its initial state."""
        shape, name, whole = stream.state.shape, stream.state.name, self.gradient_memory(stream)
        if stream.follows is None:
            # No gradient flows through the count; without a step the final state is the initial one.
            return f"dfinal.{name}.copy() if T == 0 and dfinal is not None else cp.zeros_like(tape.state.{name})"
        text.buffers.append((f"d_{self.lagged.called[stream]}", f"cp.empty({self.size(stream)}, dtype)"))
        made = outputs.get(f"d:{stream.value}")
        text.after.append(f"{whole}[:T] = {0 if made is None else f'ws.{made.name}'}")
        if (later := follower(self.lagged.streams, stream)) is not None:
            text.after.append(f"{whole}[:T] += {self.gradient_memory(later)}[1:]")
        text.after.append(f"{whole}[T] = 0 if dfinal is None else {self.common.flat(f'dfinal.{name}', shape)}")
        text.after += self.put_back(whole, "saved.rows.d_lags")
        return self.common.shaped(f"{whole}[0].copy()", shape)

    def of_input(self, name: str) -> str | None:
        """What the stream that follows an input adds to the input's gradient, ``[T, B, n]``."""
        if (far := self.histories.of_input(name)) is not None:
            return far
        first = follower(self.lagged.streams, name)
        return None if first is None else f"{self.gradient_memory(first)}[1:]"
