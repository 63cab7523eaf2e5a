"""Lags that reach far back, in a CuPy module: where they lie, and the host's lines that prepare and collect them.

The history of a state, or an input behind what lies before its first step, has rows for the k steps before the first. Which
row of it step t of a sample reads, j steps back, stands in an array of row numbers: the host fills it for a call, masks or
none, and -1 is the spec's initial value. What comes back from a lag lies in rows by the steps that have left it, the final
state's cotangent behind them; another array says which row, if any, belongs to what the lag has read: at each step, and
before the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from cellspec import ir
from cellspec.backends.common import Common
from cellspec.backends.cupy.host import DTYPES, Text
from cellspec.backends.fused.c_family import ascii_name
from cellspec.backends.fused.flow import Flow
from cellspec.backends.fused.memory import Columns, Memory, buffer
from cellspec.backends.memory.model import Buffer, Element, Home, Owner
from cellspec.backends.naming import Names, identifier
from cellspec.backends.streams import Far, FarStates
from cellspec.cell import Cell
from cellspec.model.nodes import Ref
from cellspec.passes.masks import initial_states


class Histories(FarStates):
    """The names and places of all of them; ``names`` are those of a direction's memory."""

    def __init__(self, cell: Cell, common: Common, names: Names) -> None:
        super().__init__(cell, common)
        self.cell, self.names = cell, names
        for each in (*self.of_states.values(), *self.of_inputs.values()):
            self.history(each)
            for ref in each.refs:
                self.rows(ref), self.lag(ref), self.back(ref), self.back_rows(ref)

    # --- names ------------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> list[str]:
        """The attributes of either direction's memory."""
        return [name for key, name in self.names.by_key.items() if isinstance(key, tuple) and key[0] == "lags"]

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

    def inputs(self) -> dict[str, Columns]:
        """Where earlier inputs lie."""
        refs = [ref for each in self.of_inputs.values() for ref in each.refs]
        return {ref.label: Columns(buffer(self.lag(ref), Home.SEQUENCE, ir.size(ref.shape))) for ref in refs}

    def forward(self, flow: Flow) -> dict[str, Columns]:
        """Where earlier states lie."""
        places = {}
        for each in self.of_states.values():
            before = f"{each.source}[t-1]"
            (after,) = (carry.after for carry in flow.program.carries if carry.before == before)
            made = flow.made.get(after)
            product = made is not None and isinstance(made[1], ir.Product)
            for ref in each.refs:
                element = Element.STORED if product else Element.EXACT
                whole = buffer(self.history(each), Home.SEQUENCE, ir.size(ref.shape), element=element)
                rows = buffer(self.rows(ref), Home.SEQUENCE, ir.size(()), element=Element.ROW)
                places[ref.label] = Columns(whole, rows=rows, otherwise=initial_states(self.cell.states)[before])
        return places

    def backward(self, flow: Flow) -> dict[str, Columns]:
        """Where what comes back from earlier states lies."""
        places = {}
        refs = {f"d:{ref.label}": ref for each in self.of_states.values() for ref in each.refs}
        for delay in flow.program.delays:
            ref = refs[delay.after]
            own, whole = Owner.BACKWARD, f"{self.back_rows(ref)}_of_steps"
            back = buffer(self.back(ref), Home.SEQUENCE, ir.size(ref.shape), own, Element.EXACT)
            places[delay.before] = Columns(back, rows=buffer(whole, Home.SEQUENCE, ir.size(()), own, Element.ROW))
        return places

    # --- spelling ---------------------------------------------------------------------------------------------

    def by_rows(self, array: str, each: Far) -> str:
        """The caller's ``[B, rows, *shape]`` as a history has it, the oldest row first."""
        return f"{self.oldest_first(array, each)}.swapaxes(0, 1)"

    def for_caller(self, rows: str, each: Far) -> str:
        """Rows of a history, the oldest first, as the caller has them."""
        return self.shaped(f"cp.ascontiguousarray({rows}[::-1].swapaxes(0, 1)).astype(dtype, copy=False)", each)

    # --- lines ------------------------------------------------------------------------------------------------

    def state_forward(self, text: Text, memory: Memory, each: Far) -> str:
        """Add the lines that prepare a state's history; what it leaves as the final state."""
        kept = memory.kept(f"{each.source}[t-1]")
        assert kept is not None
        name, whole, own = each.state.name, self.history(each), kept.state.name
        where = next(k for k, (buffer, _) in enumerate(text.buffers) if buffer == own)
        real = DTYPES[kept.state.element]
        text.buffers[where : where + 1] = [
            (whole, f"cp.empty((T + {each.reach}, B, {self.size(each)}), {real})"),
            (own, f"self.{whole}[{each.reach - 1}:]"),
        ]
        text.buffers[where + 2 : where + 2] = self.rows_read(each)
        text.prologue.append(f"ws.{whole}[:{each.state.rows}] = {self.by_rows(f'state.{name}', each)}")
        return self.final(each)

    def input_forward(self, text: Text, each: Far, x: str) -> str:
        """Add the lines that prepare an input's lags; what is left of it as the final state."""
        name, whole, n = each.state.name, self.history(each), self.size(each)
        text.buffers.append((whole, f"cp.empty((T + {each.reach}, B, {n}), dtype)"))
        text.buffers += [(self.lag(ref), f"cp.empty((T, B, {n}), dtype)") for ref in each.refs] + self.rows_read(each)
        before = self.by_rows(f"state.{name}", each)
        text.prologue += [f"ws.{whole}[:{each.reach}] = {before}", f"ws.{whole}[{each.reach}:] = {x}"]
        for r in each.refs:
            text.prologue.append(f"ws.{self.lag(r)}[...] = _arranged(ws.{self.rows(r)}, ws.{whole}, dtype)")
        return self.final(each)

    def rows_read(self, each: Far) -> list[tuple[str, str]]:
        """The arrays for the rows that steps read."""
        return [(self.rows(ref), "cp.empty((T, B), np.int64)") for ref in each.refs]

    def number(self, text: Text, forwards: bool) -> None:
        """Add the lines that number rows: for a call with masks, and once for all without."""
        lines = []
        for each in (*self.of_states.values(), *self.of_inputs.values()):
            for ref in each.refs:
                size = f"T, B, {each.reach}, {ref.steps}"
                rows = each.state.rows if ref.steps == each.reach else 0
                made = f"_rows_read(masks, {size})" if forwards else f"_rows_back(masks, {size}, {rows})"
                lines.append(f"ws.{self.rows(ref) if forwards else self.back_rows(ref)}[...] = cp.asarray({made})")
        if lines:
            text.buffers.append(("numbered", "False"))
            inner = [f"    {line}" for line in [*lines, "ws.numbered = masks is None"]]
            text.prologue[:0] = ["if masks is not None or not ws.numbered:", *inner]

    def final(self, each: Far) -> str:
        """The rows that are left at the samples' ends."""
        init = "0" if each.of_input else each.init
        rows = f"_last_rows(ws.{self.history(each)}, masks, T, {each.state.rows}, {init}, dtype)"
        return self.for_caller(rows, each)

    def state_backward(self, text: Text, each: Far, d: str) -> str:
        """Add the lines for what comes back from a state's lags; what comes back to the initial state. ``d`` is that of the
        state itself before the first step.
        """
        text.buffers += self.buffers(each, "real")
        text.prologue.append(self.ended(each))
        for ref in each.refs:
            last = f"_back(ws.{self.back(ref)}, ws.{self.back_rows(ref)}[{each.state.rows}:{each.reach}], dtype)[0]"
            text.after.append(f"{d} += {last}.astype({d}.dtype, copy=False)")
        return self.for_caller(self.before(each), each)

    def input_backward(self, text: Text, each: Far, made: Mapping[str, Buffer]) -> str:
        """The same of an input's."""
        text.buffers += self.buffers(each, "dtype")
        for ref in each.refs:
            source = made.get(f"d:{ref.label}")
            text.after.append(f"ws.{self.back(ref)}[:T] = {0 if source is None else f'ws.{source.name}'}")
        text.after.append(self.ended(each))
        return self.for_caller(self.before(each), each)

    def of_input(self, name: str) -> str | None:
        """What an input's lags add to its gradient, ``[T, B, n]``."""
        if (each := self.of_inputs.get(name)) is None:
            return None
        lags = (f"_back(ws.{self.back(ref)}, ws.{self.back_rows(ref)}[{each.reach}:], dtype)" for ref in each.refs)
        return " + ".join(lags)

    def before(self, each: Far) -> str:
        """What comes back to before the first step, the oldest row first."""
        parts = (f"_back(ws.{self.back(ref)}, ws.{self.back_rows(ref)}[:{each.state.rows}], dtype)" for ref in each.refs)
        return f"({' + '.join(parts)})"

    def buffers(self, each: Far, real: str) -> list[tuple[str, str]]:
        found = []
        for ref in each.refs:
            last = f"T + {each.state.rows}" if ref.steps == each.reach else "T"
            found.append((self.back(ref), f"cp.empty(({last}, B, {self.size(each)}), {real})"))
            found.append((self.back_rows(ref), f"cp.empty((T + {each.reach}, B), np.int64)"))
            if not each.of_input:
                found.append((f"{self.back_rows(ref)}_of_steps", f"self.{self.back_rows(ref)}[{each.reach}:]"))
        return found

    def ended(self, each: Far) -> str:
        """The line that puts the final state's cotangent behind what steps leave."""
        farthest = next(ref for ref in each.refs if ref.steps == each.reach)
        given = self.by_rows(f"dfinal.{each.state.name}", each)
        return f"ws.{self.back(farthest)}[T:] = 0 if dfinal is None else {given}"
