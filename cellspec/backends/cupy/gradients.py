"""The gradients of parameters: products and sums over all steps and samples, after the loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import sympy

from cellspec import ir
from cellspec.backends.cupy.host import Host
from cellspec.backends.fused.memory import Columns
from cellspec.backends.naming import identifier
from cellspec.backends.remarks import GRADIENTS
from cellspec.model.nodes import Shape
from cellspec.passes.schedule import Gradient


def add_gradients(host: Host, variable: Callable[[str], str]) -> None:
    """Add the lines that compute every total to ``host``'s; ``variable`` names what holds each."""
    _Gradients(host).run(variable)


class _Gradients:
    """One product for each right factor; sums over steps and samples; what belongs to one parameter added up."""

    def __init__(self, host: Host) -> None:
        self.host, self.text, self.names = host, host.text, host.names
        self.memory, self.flow, self.size = host.memory, host.flow, host.size
        self.parts: defaultdict[str, list[str]] = defaultdict(list)

    def run(self, variable: Callable[[str], str]) -> None:
        if self.flow.program.totals:
            self.text.after.append(f"# {GRADIENTS}")
        for gradient in self.flow.gradients:
            self.product(gradient)
        self.sums()
        given: set[str] = set()
        for target in dict.fromkeys(t.target for t in self.flow.program.totals):
            text = " + ".join(self.parts[target])
            if len(self.parts[target]) == 1 and text in given:
                text += ".copy()"
            given.add(text)
            self.text.after.append(f"{variable(target)} = {text}")

    def shape(self, name: str) -> Shape:
        return self.flow.program.shape(name)

    def product(self, gradient: Gradient) -> None:
        """The gradients that have a right factor in common; head by head where it has heads."""
        lefts = [left for _, left in gradient.rows]
        place, order = self.memory.stacks[frozenset(lefts)]
        right, _ = self.memory.stacks[frozenset((gradient.right,))]
        targets = dict.fromkeys(target for target, _ in sorted(gradient.rows, key=lambda row: order.index(row[1])))
        name = self.names.get(("gradient", gradient), self.names.together([identifier(t) for t in targets]))
        *heads, columns = self.shape(gradient.right)
        rows = sympy.expand(sympy.Add(*(self.shape(left)[-1] for left in order)))
        sizes = ", ".join(map(self.size, (*heads, rows, columns)))
        self.text.buffers.append((name, f"cp.empty(({sizes}), dtype)"))
        left_rows, right_rows = self.host.flat(place), self.host.flat(right)
        if heads:
            self.text.by_heads = True
            self.text.after.append(f"_gradient_of_heads({left_rows}, {right_rows}, ws.{name})")
        else:
            self.text.dots = True
            self.text.after.append(f"_dot({left_rows}.T, {right_rows}, ws.{name})")
        self.collect(name, gradient.rows, order)

    def collect(self, name: str, rows: Sequence[tuple[str, str]], order: Sequence[str]) -> None:
        """Note which rows of the product ``name`` are whose gradient."""
        start: sympy.Expr = sympy.Integer(0)
        starts = {}
        for left in order:
            starts[left] = start
            start = sympy.expand(start + self.shape(left)[-1])
        for target, left in rows:
            stop = sympy.expand(starts[left] + self.shape(left)[-1])
            whole = starts[left] == 0 and stop == start
            every = ":, " * (len(self.shape(left)) - 1)
            part = f"ws.{name}" if whole else f"ws.{name}[{every}{self.host.span(starts[left], stop)}]"
            self.parts[target].append(part)

    def sums(self) -> None:
        """Sums of columns, of several values at once where they lie in one buffer."""
        by_place: defaultdict[Columns, list[ir.Total]] = defaultdict(list)
        for total in self.flow.sums:
            place = self.place(total)
            by_place[Columns(place.buffer, late=place.late)].append(total)
        for place, totals in by_place.items():
            buffer = place.buffer
            side_by_side = sorted(totals, key=lambda total: _far(self.place(total).start))
            name = self.names.get(("sum", place), self.names.together([identifier(t.target) for t in side_by_side]) + "_sum")
            units = self.size(buffer.units)
            self.text.buffers.append((name, f"cp.empty(({units},), dtype)"))
            if buffer in self.memory.totals.values():
                self.text.after.append(f"_sum_parts({self.host.attribute(buffer)}, ws.{name})")
            else:
                self.text.buffers.append((f"{name}_parts", f"cp.empty((_parts(T*B), {units}), real)"))
                rows = self.host.flat(place)
                self.text.after.append(f"_sum_rows({rows}, ws.{name}_parts, ws.{name})")
            for total in totals:
                self.parts[total.target].append(self.columns(f"ws.{name}", self.place(total), self.shape(total.value)))

    def place(self, total: ir.Total) -> Columns:
        """Where the values lie that ``total`` is the sum of."""
        own = self.memory.totals.get(total.value)
        return self.memory.summed[total.value] if own is None else Columns(own)

    def columns(self, sums: str, place: Columns, shape: Shape) -> str:
        """Those of the ``sums`` of a buffer's columns that belong to the value of this shape at ``place``."""
        axes = ", ".join(map(self.size, shape))
        if place.pitch is not None:
            width, total = place.pitch
            rows = ", ".join(map(self.size, (*shape[:-1], total)))
            return f"{sums}.reshape({rows})[..., {self.host.span(place.start, sympy.expand(place.start + width))}]"
        stop = sympy.expand(place.start + ir.size(shape))
        if place.start != 0 or stop != place.buffer.units:
            sums = f"{sums}[{self.host.span(place.start, stop)}]"
        return sums if len(shape) < 2 else f"{sums}.reshape({axes})"


def _far(start: sympy.Expr) -> int:
    """A number that is larger for a place further behind, whatever the dims are."""
    return int(start.subs(dict.fromkeys(start.free_symbols, 2)))
