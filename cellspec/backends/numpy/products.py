"""Products: weights side by side, products over all steps and samples at once, and the gradients that these make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import sympy

from cellspec import ir
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.naming import identifier, together
from cellspec.backends.numpy.storage import step_writes
from cellspec.backends.numpy.views import Split, Views
from cellspec.passes.schedule import Gradient


class Products(Views):
    """Writes the products of one direction, but for those in the loop."""

    def own(self, name: str, of: str | None = None) -> Split:
        """The axes of a value with several, of one with a single axis none; or the axes of ``of``, as many as ``name`` has."""
        shape = self.values[name].shape
        return self.axes(self.values[of or name].shape, len(shape)) if len(shape) > 1 else ()

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same for all steps and samples."""
        return name in self.around.constants or (self.in_buffer(name) and self.storage.home(name) is Home.CONSTANT)

    def ordered(self, names: Iterable[str]) -> list[str]:
        """``names`` in the order in which they lie in memory."""
        names = list(names)
        if any(n not in self.storage.place for n in names):
            return names
        return sorted(names, key=lambda n: self.storage.place[n])

    # --- weights and matrices -------------------------------------------------------------------------------

    def weights(self, step: ir.Product) -> str:
        """The packed weights of a product, stacked in the order of its results and operands."""
        table = dict(zip(step.outs, step.weights, strict=True))
        rows = [table[out] for out in self.ordered(step.outs)]
        columns = self.ordered(step.operands)
        index = [step.operands.index(c) for c in columns]
        matrix = [[row[k] for k in index] for row in rows]
        if len(rows) == len(columns) == 1:
            return self.matrix(matrix[0][0])
        blocks = matrix if self.heads(step) or not step.transposed else list(zip(*matrix, strict=True))
        return self.stack(tuple(tuple(row) for row in blocks))

    def heads(self, product: ir.Product) -> bool:
        """Whether a product has a matrix for each head."""
        return len(self.values[product.weights[0][0]].shape) == 3

    def head_weights(self, step: ir.Product) -> str:
        """The matrices of a product's heads, ``[n, m, k]``, behind one axis for several results."""
        text = self.weights(step)
        shape = self.values[step.weights[0][0]].shape
        if len(step.outs) > 1:
            text = f"{text}.reshape({', '.join([str(len(step.outs)), *map(self.dim, shape)])})"
        return f"{text}.swapaxes(-1, -2)" if step.transposed else text

    def stack(self, blocks: tuple[tuple[str, ...], ...]) -> str:
        """Matrices side by side in one buffer, rows of blocks, filled once per call."""
        key = ("stack", blocks)
        if key not in self.bound:
            heights = [self.values[row[0]].shape[0] for row in blocks]
            widths = [self.values[name].shape[1] for name in blocks[0]]
            whole = [sympy.expand(sum(heights)), sympy.expand(sum(widths)), *self.values[blocks[0][0]].shape[2:]]
            name = self.names.get(key, together([identifier(n) for row in blocks for n in row]))
            self.bound[key] = name
            self.text.buffers.append((name, f"({', '.join(map(self.dim, whole))})"))
            self.text.parameters.add(name)
            self.text.prologue.append(f"{name} = ws.{name}")
            for row, rows in zip(blocks, self.stretches(heights), strict=True):
                for n, columns in zip(row, self.stretches(widths), strict=True):
                    place = rows if len(row) == 1 else f":, {columns}" if len(blocks) == 1 else f"{rows}, {columns}"
                    self.text.prologue.append(self.fill(n, f"{name}[{place}]", stacked=True))
        return self.bound[key]

    def stretches(self, lengths: Iterable[sympy.Expr]) -> list[str]:
        """The index of each of several stretches that follow one another."""
        found, start = [], sympy.Integer(0)
        for length in lengths:
            stop = sympy.expand(start + length)
            found.append(f"{self.dim(start)}:{self.dim(stop)}")
            start = stop
        return found

    def columns(self, names: Sequence[str], lines: list[str]) -> str:
        """``names``, neighbours, as one matrix ``[n, T*B]``, copied into that layout once if they are not."""
        names = list(map(self.alias, names))
        if len(names) == 1 and names[0] in self.around.matrix:
            return f"{self.around.matrix[names[0]]}.T"
        key = tuple(names)
        for known, text in self.flats.items():
            if key == known:
                return text
        rows = self.rows([self.values[n].shape for n in names])
        block = self.storage.block(names) if names[0] in self.storage.place else None
        if wider := self.wider(names):
            first = wider.index(names[0])
            parts = (self.rows(self.values[n].shape for n in wider[:stop]) for stop in (first, first + len(names)))
            text = f"{self.columns(wider, lines)}[{':'.join(parts)}]"
        elif not self.orientation.features_first:
            text = self.names.get(("flat", key), together([identifier(n) for n in names]) + "_2d")
            matrix = f"{self.operand(names)}.reshape(T*B, {rows})"
            constant = block is None or self.storage.buffers[block.buffer].home is Home.CONSTANT
            if constant and names[0] not in self.around.given:
                matrix = f"np.broadcast_to({self.operand(names)}, (T, B, {rows})).reshape(T*B, {rows})"
            lines.append(f"{text} = {matrix}")
            text = f"{text}.T"
        elif block is not None and self.storage.buffers[block.buffer].home is Home.FLAT:
            attribute = self.buffer_attribute(block.buffer)
            whole = len(self.storage.buffers[block.buffer].shapes) == len(names)
            part = "" if whole else f"[{self.slicing(block, ()).split('[')[1].split(']')[0]}]"
            text = f"ws.{attribute}{part}.reshape({rows}, -1)"
        else:
            wanted = together([identifier(n) for n in names]) + "_flat"
            name = self.names.get(("flat", key), wanted)
            self.text.buffers.append((name, f"({rows}, T, B)"))
            self.text.helpers.add("columns")
            steps = self.operand(names)
            if self.is_constant(names[0]):
                steps = f"np.broadcast_to({steps}, (T, {rows}, B))"  # it is the same at every step
            lines.append(f"{name} = _columns({steps}, ws.{name})")
            text = name
        self.flats[key] = text
        return text

    def whole_product(self, step: ir.Product, lines: list[str]) -> None:
        """A product over all steps and samples at once."""
        weights = self.head_weights(step) if self.heads(step) else self.weights(step)
        columns = self.columns(self.ordered(step.operands), lines)
        outs = self.storage.block(self.ordered(step.outs))
        assert outs is not None
        buffer = self.storage.buffers[outs.buffer]
        attribute = self.buffer_attribute(outs.buffer)
        rows = self.rows(buffer.shapes)
        if self.heads(step):
            blocks = [str(len(step.outs))] * (len(step.outs) > 1)
            rows = ", ".join([*blocks, *self.own(step.outs[0])])
            columns = f"{columns}.reshape({', '.join(self.own(step.operands[0]))}, T*B)"
            lines.append(f"np.matmul({weights}, {columns}, out=ws.{attribute}.reshape({rows}, T*B))")
        elif buffer.home is Home.USER or not self.orientation.features_first:
            left = columns.removesuffix(".T") if columns.endswith(".T") else f"{columns}.T"
            right = weights if step.transposed else f"{weights}.T"
            target = f"ws.{attribute}" if self.orientation.features_first else self.operand(step.outs)
            lines.append(f"np.matmul({left}, {right}, out={target}.reshape(T*B, {rows}))")
        else:
            left = f"{weights}.T" if step.transposed else weights
            lines.append(f"np.matmul({left}, {columns}, out=ws.{attribute}.reshape({rows}, T*B))")

    # --- gradients ------------------------------------------------------------------------------------------

    def gradients(self, variable: Callable[[str], str]) -> None:
        """The totals: matrices by one product each stack, vectors by one sum; ``variable`` names each target's array."""
        lines = self.text.after
        written: set[str] = set()

        def finish(target: str, expression: str) -> None:
            if target in written:
                lines.append(f"{variable(target)} = {variable(target)} + {expression}")
            else:
                lines.append(f"{variable(target)} = {expression}")
            written.add(target)

        schedule = self.storage.code.schedule
        for gradient in schedule.gradients:
            table: dict[str, list[str]] = {}
            for target, left in gradient.rows:
                table.setdefault(left, []).append(target)
            for stack in self.stacks(gradient):
                columns = self.columns(stack, lines)
                right = self.columns([gradient.right], lines)
                name = self.names.get(
                    ("gradient", gradient.right, tuple(stack)), together([identifier(table[s][0]) for s in stack]) + "_rows"
                )
                heads, n = self.own(stack[0]), self.values[gradient.right].shape[-1]
                if heads:
                    columns = f"{columns}.reshape({len(stack)}, {', '.join(heads)}, T*B)"
                    right = f"{right}.reshape({', '.join(self.own(gradient.right))}, T*B).swapaxes(-1, -2)"
                    self.text.buffers.append((name, f"({len(stack)}, {', '.join(heads)}, {self.dim(n)})"))
                else:
                    right = right.removesuffix(".T") if right.endswith(".T") else f"{right}.T"
                    self.text.buffers.append((name, f"({self.rows(self.values[n].shape for n in stack)}, {self.dim(n)})"))
                lines.append(f"np.matmul({columns}, {right}, out=ws.{name})")
                if heads:
                    for k, left in enumerate(stack):
                        for target in table[left]:
                            finish(target, f"ws.{name}[{k}]")
                else:
                    self.slices(stack, table, f"ws.{name}", finish)
        sums: dict[str, list[str]] = {}
        for total in schedule.sums:
            sums.setdefault(total.value, []).append(total.target)
        for summed, wanted in self.sum_stacks(list(sums)):
            name = self.names.get(("sum", summed), together([identifier(sums[s][0]) for s in wanted]) + "_sum")
            self.text.buffers.append((name, f"({self.rows([self.values[n].shape for n in summed])},)"))
            if summed in self.flats:
                lines.append(f"np.matmul({self.flats[summed]}, np.ones(T*B, dtype), out=ws.{name})")
            else:
                lines.append(f"np.sum({self.operand(summed)}, axis={self.orientation.all_steps}, out=ws.{name})")
            self.slices(summed, {n: sums[n] for n in wanted}, f"ws.{name}", finish)

    def stacks(self, gradient: Gradient) -> list[list[str]]:
        """The cotangents whose products with one vector are the gradient's rows, in runs for which one product is enough."""
        runs: list[list[str]] = []
        for left in self.ordered(dict.fromkeys(left for _, left in gradient.rows)):
            if runs and self.side_by_side([*runs[-1], left]):
                runs[-1].append(left)
            else:
                runs.append([left])
        return runs

    def side_by_side(self, names: Sequence[str]) -> bool:
        """Whether one product can make the rows of all ``names``."""
        even = len({self.values[n].shape for n in names}) == 1 or not self.own(names[0])
        return even and all(map(self.in_buffer, names)) and self.storage.block(names) is not None

    def wider(self, names: Sequence[str]) -> list[str]:
        """A gradient's stack with ``names`` and others in it, if all are there when the loop is over: one copy for both."""
        if self.region is not Phase.AFTER or not self.orientation.features_first or not all(map(self.in_buffer, names)):
            return []
        late = {name for step in self.storage.steps[Phase.AFTER] for name in step_writes(step)}
        stacks = [stack for gradient in self.storage.code.schedule.gradients for stack in self.stacks(gradient)]
        able = [s for s in stacks if len(s) > len(names) and set(names) < set(s) and not late.intersection(s)]
        return max(able, key=len, default=[])

    def sum_stacks(self, names: list[str]) -> list[tuple[tuple[str, ...], list[str]]]:
        """Stacks that one sum each can serve, and those of ``names`` that it serves; the largest stacks first."""
        groups: list[tuple[tuple[str, ...], list[str]]] = []
        for stack in sorted(self.flats, key=lambda s: -len(s)):
            inside = [n for n in stack if n in names]
            if inside:
                groups.append((stack, inside))
                names = [n for n in names if n not in inside]
        return groups + [((n,), [n]) for n in names]

    def slices(
        self, stack: Sequence[str], table: Mapping[str, Sequence[str]], source: str, finish: Callable[[str, str], None]
    ) -> None:
        start = sympy.Integer(0)
        for name in stack:
            shape = self.values[name].shape
            stop = sympy.expand(start + ir.size(shape))
            part = source if len(stack) == 1 else f"{source}[{self.dim(start)}:{self.dim(stop)}]"
            for target in table.get(name, ()):
                finish(target, f"{part}.reshape({', '.join(map(self.dim, shape))})" if len(shape) > 1 else part)
            start = stop
