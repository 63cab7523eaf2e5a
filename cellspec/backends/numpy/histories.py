"""Lags that reach far back, in the text of a NumPy module.

The history of a state, or an input behind what lies before its first step, has k rows more than there are steps, k being the
farthest lag; h[t-j] is read j rows before the one that step t defines, where it lies. What comes back from h[t-j] lies in an
array of the same kind for each lag: a step leaves it in row t and finds in row t + j what the step j later has left. Behind the
last step these arrays hold the final state's cotangent, and before the first step they leave the initial state's.

With resets or short samples what a step reads may be others' rows than those: see ``_earlier`` in the template.
"""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.backends.common import Common
from cellspec.backends.naming import identifier
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.streams import Far, FarStates
from cellspec.cell import Cell
from cellspec.model.equations import State


class Histories(FarStates):
    """Writes what a module does with such states; arrays of the caller's have their samples first, histories their steps."""

    def __init__(self, cell: Cell, common: Common, orientation: Orientation) -> None:
        super().__init__(cell, common)
        self.orientation = orientation

    # --- spelling ---------------------------------------------------------------------------------------------

    def by_rows(self, array: str, each: Far) -> str:
        """The caller's ``[B, rows, *shape]`` as a history has it, the oldest row first."""
        return f"{self.oldest_first(array, each)}.{'transpose(1, 2, 0)' if self._turns(each) else 'swapaxes(0, 1)'}"

    def for_caller(self, rows: str, each: Far) -> str:
        """Rows of a history, the oldest first, as the caller has them."""
        turned = f"{rows}[::-1].{'transpose(2, 0, 1)' if self._turns(each) else 'swapaxes(0, 1)'}.copy()"
        return self.shaped(turned, each)

    def samples_first(self, history: str, each: Far) -> str:
        """A history as the module's functions take it: ``[T + k, B, n]``."""
        return f"{history}.transpose(0, 2, 1)" if self._turns(each) else history

    def _turns(self, each: Far) -> bool:
        return self.orientation.features_first and not each.of_input

    # --- states -----------------------------------------------------------------------------------------------

    def before(self, emitter: Emitter, state: State) -> str:
        """Where the values of a state before a step stand apart, by how far they lie back: Python of a mapping."""
        labels = {1: f"{state.name}[t-1]"}
        if (each := self.of_states.get(state.name)) is not None:
            labels |= {ref.steps: ref.label for ref in each.refs}
        block = emitter.storage.block([f"{state.name}[t]"])
        assert block is not None
        return "{" + ", ".join(f"{steps}: self.{emitter.view(block, [label], ())}" for steps, label in labels.items()) + "}"

    def state_forward(self, history: str, each: Far) -> dict[str, object]:
        """How the oldest rows of a state's history are filled, and what is left of it in the end."""
        kept = f"_kept({self.samples_first(f'ws.{history}', each)}, {each.state.rows}, T, cuts, {each.init})"
        name = each.state.name
        return {
            "carried": "",
            "start": [f"ws.{history}[:{each.state.rows}] = {self.by_rows(f'state.{name}', each)}"],
            "final": f"{name}={self.shaped(kept, each)}",
        }

    def state_backward(self, emitter: Emitter, each: Far, first: str) -> dict[str, object]:
        """The same of what comes back from a state's history; ``first`` is the cotangent of the state before the first step."""
        buffers = {}
        for delay in emitter.program.delays:
            if delay.before == f"d:{each.source}[t]<-{delay.steps}":
                block = emitter.storage.block([delay.after])
                assert block is not None
                buffers[delay.steps] = emitter.buffer_attribute(block.buffer)
        name = each.state.name
        final = self.by_rows(f"dfinal.{name}", each)
        starts = [f"ws.{buffer}[T:] = 0" for buffer in buffers.values()]
        starts += ["if dfinal is not None:", f"    ws.{buffers[each.reach]}[T:-1] = {final}"]
        emitter.text.after += [f"ws.{first} += ws.{buffer}[{steps - 1}]" for steps, buffer in buffers.items()]
        emitter.text.after += self.together(buffers, each)
        whole = f"ws.{buffers[each.reach]}[:{each.state.rows}]"
        return {
            "carried": ", ".join(f"(self.{buffer}, {steps})" for steps, buffer in buffers.items()),
            "given": ", ".join(final if steps == each.reach else "None" for steps in buffers),
            "start": starts,
            "final": f"{name}={self.for_caller(whole, each)}",
        }

    def together(self, buffers: Mapping[int, str], each: Far) -> list[str]:
        """What comes back to before the first step, in the first rows of the farthest lag's array."""
        rows, whole = each.state.rows, buffers[each.reach]
        others = [(steps, buffer) for steps, buffer in buffers.items() if steps != each.reach]
        parts = ((each.reach - steps, rows - (each.reach - steps), buffer) for steps, buffer in others)
        return [f"ws.{whole}[{start}:{rows}] += ws.{buffer}[:{count}]" for start, count, buffer in parts]

    # --- inputs -----------------------------------------------------------------------------------------------

    def input_forward(self, emitter: Emitter, each: Far, views: Mapping[str, str]) -> dict[str, object]:
        """An input behind what lies before its first step, and views of it for each lag, ``views`` by label."""
        (x,) = (str(item["value"]) for item in self.common.inputs if item["name"] == each.source)
        x = self.common.flat(x, each.state.shape[1:], "T, B")
        size, rows = self.size(each), each.state.rows
        buffer = emitter.names.get(("history", each.source), f"{identifier(each.source)}_history")
        emitter.text.buffers.append((buffer, f"(T + {each.reach}, B, {size})"))
        for ref in each.refs:
            there = f"self.{buffer}[{each.reach - ref.steps or ''}:-{ref.steps}]"
            emitter.text.views.append((views[ref.label], f"{there} if not self.apart else empty((T, B, {size}), dtype)"))
        name = each.state.name
        start = [f"ws.{buffer}[:{rows}] = {self.by_rows(f'state.{name}', each)}", f"ws.{buffer}[{rows}:] = {x}"]
        start += ["if ws.apart:"]
        start += [f"    _earlier(ws.{buffer}, ws.{views[r.label]}, {r.steps}, cuts, {each.init})" for r in each.refs]
        final = f"_kept(ws.{buffer}, {rows}, T, cuts, {each.init})"
        return {"carried": "", "start": start, "final": f"{name}={self.shaped(final, each)}"}

    def buffers(self, emitter: Emitter, each: Far) -> dict[int, str]:
        """The arrays that hold what comes back from an input's lags."""
        return {r.steps: emitter.names.get(("back", r.label), f"d_{identifier(r.label)}_history") for r in each.refs}

    def of_input(self, emitter: Emitter, name: str) -> str:
        """What comes back to the input itself, as a sequence."""
        buffers = self.buffers(emitter, self.of_inputs[name])
        return " + ".join(f"ws.{buffer}[{steps}:]" for steps, buffer in buffers.items())

    def input_backward(self, emitter: Emitter, each: Far, lags: Mapping[int, str]) -> dict[str, object]:
        """What comes back from an input's lags: ``lags`` are the expressions of what each step leaves for them, as the caller
        has sequences.
        """
        size, lines, name = self.size(each), emitter.text.after, each.state.name
        buffers = self.buffers(emitter, each)
        for steps, buffer in buffers.items():
            emitter.text.buffers.append((buffer, f"(T + {steps}, B, {size})"))
            lines.append(f"ws.{buffer}[:T] = {lags.get(steps, '0')}")
            given = "None"
            if steps == each.reach:
                given = self.by_rows(f"dfinal.{name}", each)
                lines.append(f"ws.{buffer}[T:] = 0 if dfinal is None else {given}")
                given = f"None if dfinal is None else {given}"
            else:
                lines.append(f"ws.{buffer}[T:] = 0")
            lines += ["if cuts is not None:", f"    cuts.part_rows(ws.{buffer}, {given})"]
        lines += self.together(buffers, each)
        first = self.for_caller(f"ws.{buffers[each.reach]}[:{each.reach}]", each)
        return {"carried": "", "start": [], "final": f"{name}={first}"}
