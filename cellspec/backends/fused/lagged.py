"""Where earlier values lie: streams of T + 1 steps, and histories with rows for the k steps before the first.

Which row of a history step t of a sample reads, j steps back, stands in an array of row numbers: the host fills it for a call,
masks or none, and -1 is the spec's initial value. What comes back from a lag lies in rows by the steps that have left it, the
final state's cotangent behind them; another array says which row, if any, belongs to what the lag has read: at each step, and
before the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from cellspec import ir
from cellspec.backends.fused.c_family import ascii_name
from cellspec.backends.fused.flow import Flow
from cellspec.backends.fused.memory import Columns, buffer, is_matrix
from cellspec.backends.lags import Far, Stream, counts, far_inputs, far_states, streams
from cellspec.backends.memory.model import Buffer, Element, Home, Owner
from cellspec.backends.naming import Names, identifier
from cellspec.cell import Cell
from cellspec.model.nodes import Ref
from cellspec.passes.masks import initial_states


class Lagged:
    """The names and places of a cell's earlier values; ``names`` are those of a direction's memory."""

    def __init__(self, cell: Cell, names: Names) -> None:
        self.cell, self.names = cell, names
        self.streams = streams(cell)
        self.called = {s: names.get(("stream", s.state.name), f"{ascii_name(s.state.name)}_all") for s in self.streams}
        self.of_states, self.of_inputs = far_states(cell), far_inputs(cell)
        self.attributes = [name for called in self.called.values() for name in (called, f"d_{called}")]
        for each in self.far:
            own = [self.history(each)]
            for ref in each.refs:
                own += [self.rows(ref), self.lag(ref), self.back(ref), self.back_rows(ref)]
            self.attributes += [name for called in own for name in (called, of_steps(called))]

    @property
    def far(self) -> tuple[Far, ...]:
        """The far states, those of states first."""
        return (*self.of_states.values(), *self.of_inputs.values())

    @property
    def lags(self) -> bool:
        """Whether any stream follows an input."""
        return any(stream.follows is not None for stream in self.streams)

    @property
    def counts(self) -> bool:
        """Whether the index of the step is read."""
        return counts(self.streams)

    # --- names ------------------------------------------------------------------------------------------------

    def history(self, each: Far) -> str:
        return self.names.get(("lags", "history", each.source), f"{ascii_name(identifier(each.source))}_history")

    def lag(self, ref: Ref) -> str:
        """An earlier input at every step."""
        return self.names.get(("lags", "lag", ref.label), f"{ascii_name(identifier(ref.label))}_all")

    def rows(self, ref: Ref) -> str:
        """The rows of a history that steps read."""
        return self.names.get(("lags", "rows", ref.label), f"{ascii_name(identifier(ref.label))}_rows")

    def back(self, ref: Ref) -> str:
        """What steps leave for what they have read."""
        return self.names.get(("lags", "back", ref.label), f"d_{ascii_name(identifier(ref.label))}_history")

    def back_rows(self, ref: Ref) -> str:
        """The rows of that which belong to each step, from ``reach`` before the first on."""
        return self.names.get(("lags", "back rows", ref.label), f"d_{ascii_name(identifier(ref.label))}_rows")

    # --- places -----------------------------------------------------------------------------------------------

    def buffer(self, stream: Stream) -> Buffer:
        """The memory of a stream; counts are kept in the type of gate arithmetic, in which they are exact for longer."""
        element = Element.EXACT if stream.follows is None else Element.STORED
        return buffer(self.called[stream], Home.HISTORY, ir.size(stream.state.shape), element=element)

    @cached_property
    def places(self) -> Mapping[str, Columns]:
        """Where streams and earlier inputs lie."""
        refs = [ref for each in self.of_inputs.values() for ref in each.refs]
        known = {stream.value: Columns(self.buffer(stream)) for stream in self.streams}
        return known | {ref.label: Columns(buffer(self.lag(ref), Home.SEQUENCE, ir.size(ref.shape))) for ref in refs}

    @cached_property
    def matrices(self) -> Mapping[str, Columns]:
        """Those that products can read."""
        return {name: place for name, place in self.places.items() if is_matrix(place.buffer)}

    def forward(self, flow: Flow) -> dict[str, Columns]:
        """Where earlier states lie."""
        places = {}
        initial = initial_states(self.cell.states)
        for each in self.of_states.values():
            before = f"{each.source}[t-1]"
            (after,) = (carry.after for carry in flow.program.carries if carry.before == before)
            made = flow.made.get(after)
            element = Element.STORED if made is not None and isinstance(made[1], ir.Product) else Element.EXACT
            for ref in each.refs:
                whole = buffer(self.history(each), Home.SEQUENCE, ir.size(ref.shape), element=element)
                rows = buffer(self.rows(ref), Home.SEQUENCE, ir.size(()), element=Element.ROW)
                places[ref.label] = Columns(whole, rows=rows, otherwise=initial[before])
        return places

    def backward(self, flow: Flow) -> dict[str, Columns]:
        """Where what comes back from earlier states lies."""
        places = {}
        own = Owner.BACKWARD
        refs = {f"d:{ref.label}": ref for each in self.of_states.values() for ref in each.refs}
        for delay in flow.program.delays:
            ref = refs[delay.after]
            back = buffer(self.back(ref), Home.SEQUENCE, ir.size(ref.shape), own, Element.EXACT)
            rows = buffer(of_steps(self.back_rows(ref)), Home.SEQUENCE, ir.size(()), own, Element.ROW)
            places[delay.before] = Columns(back, rows=rows)
        return places


def of_steps(rows: str) -> str:
    """The part of an array of row numbers that belongs to the steps."""
    return f"{rows}_of_steps"
