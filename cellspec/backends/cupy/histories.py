"""Lags that reach far back, in a CuPy module: the host's lines that prepare their memory and collect what comes back."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.backends.common import Common
from cellspec.backends.cupy.host import DTYPES, Text
from cellspec.backends.fused.lagged import Lagged, of_steps
from cellspec.backends.fused.memory import Memory
from cellspec.backends.lags import Far
from cellspec.backends.memory.model import Buffer
from cellspec.backends.plain import float_text

NUMBERED = "numbered"
"""The attribute that says whether the numbers of rows are those of a call without masks."""


class Histories:
    """Writes what a module does with far states; arrays of the caller's have their samples first, histories their steps."""

    def __init__(self, lagged: Lagged, common: Common) -> None:
        self.lagged, self.common = lagged, common

    # --- spelling ---------------------------------------------------------------------------------------------

    def size(self, each: Far) -> str:
        """The elements of one value."""
        return self.common.size(each.state.shape[1:])

    def shaped(self, text: str, each: Far) -> str:
        """``[B, rows, n]`` in the state's shape."""
        return text if len(each.state.shape) == 2 else f"{text}.reshape{self.common.batched(each.state.shape)}"

    def by_rows(self, array: str, each: Far) -> str:
        """The caller's ``[B, rows, *shape]`` as a history has it, the oldest row first."""
        flat = array if len(each.state.shape) == 2 else f"{array}.reshape(B, {each.state.rows}, {self.size(each)})"
        return f"{flat}[:, ::-1].swapaxes(0, 1)"

    def for_caller(self, rows: str, each: Far) -> str:
        """Rows of a history, the oldest first, as the caller has them."""
        return self.shaped(f"cp.ascontiguousarray({rows}[::-1].swapaxes(0, 1)).astype(dtype, copy=False)", each)

    # --- lines ------------------------------------------------------------------------------------------------

    def state_forward(self, text: Text, memory: Memory, each: Far) -> str:
        """Add the lines that prepare a state's history; what it leaves as the final state."""
        kept = memory.kept(f"{each.source}[t-1]")
        assert kept is not None
        name, whole, own = each.state.name, self.lagged.history(each), kept.state.name
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
        name, whole, n = each.state.name, self.lagged.history(each), self.size(each)
        text.buffers.append((whole, f"cp.empty((T + {each.reach}, B, {n}), dtype)"))
        text.buffers += [(self.lagged.lag(ref), f"cp.empty((T, B, {n}), dtype)") for ref in each.refs] + self.rows_read(each)
        before = self.by_rows(f"state.{name}", each)
        text.prologue += [f"ws.{whole}[:{each.reach}] = {before}", f"ws.{whole}[{each.reach}:] = {x}"]
        for r in each.refs:
            text.prologue.append(f"ws.{self.lagged.lag(r)}[...] = _arranged(ws.{self.lagged.rows(r)}, ws.{whole}, dtype)")
        return self.final(each)

    def rows_read(self, each: Far) -> list[tuple[str, str]]:
        """The arrays for the rows that steps read."""
        return [(self.lagged.rows(ref), "cp.empty((T, B), np.int64)") for ref in each.refs]

    def number(self, text: Text, forwards: bool) -> None:
        """Add the lines that number rows: for a call with masks, and once for all without."""
        lines = []
        for each in self.lagged.far:
            for ref in each.refs:
                size = f"T, B, {each.reach}, {ref.steps}"
                rows = each.state.rows if ref == each.farthest else 0
                made = f"_rows_read(masks, {size})" if forwards else f"_rows_back(masks, {size}, {rows})"
                lines.append(
                    f"ws.{self.lagged.rows(ref) if forwards else self.lagged.back_rows(ref)}[...] = cp.asarray({made})"
                )
        if lines:
            text.buffers.append((NUMBERED, "False"))
            inner = [f"    {line}" for line in [*lines, f"ws.{NUMBERED} = masks is None"]]
            text.prologue[:0] = [f"if masks is not None or not ws.{NUMBERED}:", *inner]

    def final(self, each: Far) -> str:
        """The rows that are left at the samples' ends."""
        init = "0" if each.of_input else float_text(float(each.state.init))
        rows = f"_last_rows(ws.{self.lagged.history(each)}, masks, T, {each.state.rows}, {init}, dtype)"
        return self.for_caller(rows, each)

    def state_backward(self, text: Text, each: Far, d: str) -> str:
        """Add the lines for what comes back from a state's lags; what comes back to the initial state. ``d`` is that of the
        state itself before the first step.
        """
        text.buffers += self.buffers(each, "real")
        text.prologue.append(self.ended(each))
        for ref in each.refs:
            last = (
                f"_back(ws.{self.lagged.back(ref)}, ws.{self.lagged.back_rows(ref)}[{each.state.rows}:{each.reach}], dtype)[0]"
            )
            text.after.append(f"{d} += {last}.astype({d}.dtype, copy=False)")
        return self.for_caller(self.before(each), each)

    def input_backward(self, text: Text, each: Far, made: Mapping[str, Buffer]) -> str:
        """The same of an input's."""
        text.buffers += self.buffers(each, "dtype")
        for ref in each.refs:
            source = made.get(f"d:{ref.label}")
            text.after.append(f"ws.{self.lagged.back(ref)}[:T] = {0 if source is None else f'ws.{source.name}'}")
        text.after.append(self.ended(each))
        return self.for_caller(self.before(each), each)

    def of_input(self, name: str) -> str | None:
        """What an input's lags add to its gradient, ``[T, B, n]``."""
        if (each := self.lagged.of_inputs.get(name)) is None:
            return None
        lags = (
            f"_back(ws.{self.lagged.back(ref)}, ws.{self.lagged.back_rows(ref)}[{each.reach}:], dtype)" for ref in each.refs
        )
        return " + ".join(lags)

    def before(self, each: Far) -> str:
        """What comes back to before the first step, the oldest row first."""
        parts = (
            f"_back(ws.{self.lagged.back(ref)}, ws.{self.lagged.back_rows(ref)}[:{each.state.rows}], dtype)"
            for ref in each.refs
        )
        return f"({' + '.join(parts)})"

    def buffers(self, each: Far, real: str) -> list[tuple[str, str]]:
        found = []
        for ref in each.refs:
            last = f"T + {each.state.rows}" if ref == each.farthest else "T"
            found.append((self.lagged.back(ref), f"cp.empty(({last}, B, {self.size(each)}), {real})"))
            found.append((self.lagged.back_rows(ref), f"cp.empty((T + {each.reach}, B), np.int64)"))
            if not each.of_input:
                found.append((of_steps(self.lagged.back_rows(ref)), f"self.{self.lagged.back_rows(ref)}[{each.reach}:]"))
        return found

    def ended(self, each: Far) -> str:
        """The line that puts the final state's cotangent behind what steps leave."""
        given = self.by_rows(f"dfinal.{each.state.name}", each)
        return f"ws.{self.lagged.back(each.farthest)}[T:] = 0 if dfinal is None else {given}"
