"""Products: weights side by side, products over all steps and samples at once, and the gradients that these make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.arrays.expressions import (
    EVERYTHING,
    SAMPLES,
    Apply,
    Attribute,
    Binary,
    Expression,
    Helper,
    Index,
    Items,
    Library,
    Local,
    Method,
    Stretch,
    Word,
    reshaped,
    transposed,
)
from cellspec.backends.arrays.statements import Bind, Call, Comment, Statement
from cellspec.backends.memory.model import B, Home, Phase, T
from cellspec.backends.naming import identifier
from cellspec.backends.numpy.storage import step_writes
from cellspec.backends.numpy.views import Views
from cellspec.backends.remarks import GRADIENTS
from cellspec.ir import Value
from cellspec.passes.schedule import Gradient, Schedule

Finish = Callable[[str, Expression], None]
"""What is done with a part of a target's total."""


@dataclass
class Products:
    """Writes the products of one direction, but for those in the loop; ``flats`` are the matrices that it has made so far."""

    views: Views
    flats: dict[tuple[str, ...], Expression] = field(default_factory=dict)

    @property
    def values(self) -> Mapping[str, Value]:
        return self.views.values

    @property
    def schedule(self) -> Schedule:
        return self.views.storage.code.schedule

    # --- weights and matrices -------------------------------------------------------------------------------

    def weights(self, step: ir.Product) -> Word | Local:
        """The packed weights of a product, stacked in the order of its results and operands."""
        table = dict(zip(step.outs, step.weights, strict=True))
        rows = [table[out] for out in self.views.ordered(step.outs)]
        columns = self.views.ordered(step.operands)
        index = [step.operands.index(c) for c in columns]
        matrix = [[row[k] for k in index] for row in rows]
        if len(rows) == len(columns) == 1:
            return self.views.matrix(matrix[0][0])
        blocks = matrix if self.heads(step) or not step.transposed else list(zip(*matrix, strict=True))
        return self.stack(tuple(tuple(row) for row in blocks))

    def heads(self, product: ir.Product) -> bool:
        """Whether a product has a matrix for each head."""
        return len(self.values[product.weights[0][0]].shape) == 3

    def head_weights(self, step: ir.Product) -> Expression:
        """The matrices of a product's heads, ``[n, m, k]``, behind one axis for several results."""
        weights: Expression = self.weights(step)
        shape = self.values[step.weights[0][0]].shape
        if len(step.outs) > 1:
            weights = reshaped(weights, len(step.outs), *map(self.views.dim, shape))
        return Method(weights, "swapaxes", (-1, -2)) if step.transposed else weights

    def stack(self, blocks: tuple[tuple[str, ...], ...]) -> Local:
        """Matrices side by side in one buffer, rows of blocks, filled once per call."""
        views, key = self.views, ("stack", blocks)
        if key not in views.bound:
            heights = [self.values[row[0]].shape[0] for row in blocks]
            widths = [self.values[name].shape[1] for name in blocks[0]]
            whole = [sympy.expand(sum(heights)), sympy.expand(sum(widths)), *self.values[blocks[0][0]].shape[2:]]
            wanted = views.names.together([identifier(n) for row in blocks for n in row])
            name = views.bound[key] = Local(views.names.get(key, wanted))
            buffer = views.new_buffer(name.name, tuple(map(views.dim, whole)))
            views.text.parameters.add(buffer)
            views.text.prologue.append(Bind(name, buffer))
            for row, rows in zip(blocks, self.stretches(heights), strict=True):
                for n, columns in zip(row, self.stretches(widths), strict=True):
                    place = (rows,) if len(row) == 1 else (EVERYTHING, columns) if len(blocks) == 1 else (rows, columns)
                    views.text.prologue.append(views.fill(n, Index(name, place), stacked=True))
        return views.bound[key]

    def stretches(self, lengths: Iterable[sympy.Expr]) -> list[Stretch]:
        """Several stretches that follow one another."""
        found, start = [], sympy.S.Zero
        for length in lengths:
            stop = sympy.expand(start + length)
            found.append(Stretch(self.views.dim(start), self.views.dim(stop)))
            start = stop
        return found

    def columns(self, names: Sequence[str], lines: list[Statement]) -> Expression:
        """``names``, neighbours, as one matrix ``[n, T*B]``, copied into that layout once if they are not."""
        key = tuple(map(self.views.alias, names))
        if len(key) == 1 and key[0] in self.views.around.matrix:
            return Attribute(self.views.around.matrix[key[0]], "T")
        if key not in self.flats:
            self.flats[key] = self.new_columns(key, lines)
        return self.flats[key]

    def new_columns(self, names: tuple[str, ...], lines: list[Statement]) -> Expression:
        """The same, made where nothing is there yet."""
        views = self.views
        rows = views.rows([self.values[n].shape for n in names])
        block = views.storage.block(names) if names[0] in views.storage.place else None
        home = None if block is None else views.storage.buffers[block.buffer].home
        if wider := self.wider(names):
            first = wider.index(names[0])
            start, stop = (views.rows(self.values[n].shape for n in wider[:end]) for end in (first, first + len(names)))
            return Index(self.columns(wider, lines), (Stretch(start, stop),))
        if not views.orientation.features_first:
            name = Local(views.names.get(("flat", names), views.names.together([identifier(n) for n in names]) + "_2d"))
            array = views.operand(names)
            if home in (None, Home.CONSTANT) and names[0] not in views.around.given:
                array = Apply(Library("broadcast_to"), (array, Items((T, B, rows))))
            lines.append(Bind(name, reshaped(array, SAMPLES, rows)))
            return Attribute(name, "T")
        if block is not None and home is Home.FLAT:
            buffer = views.buffer(block.buffer)
            part = buffer if views.is_whole(block) else Index(buffer, (views.stretch(block),))
            return reshaped(part, rows, -1)
        name = Local(views.names.get(("flat", names), views.names.together([identifier(n) for n in names]) + "_flat"))
        flat = views.new_buffer(name.name, (rows, T, B))
        steps = views.operand(names)
        if views.is_constant(names[0]):
            steps = Apply(Library("broadcast_to"), (steps, Items((T, rows, B))))  # it is the same at every step
        lines.append(Bind(name, Apply(Helper("columns"), (steps, flat))))
        return name

    def whole_product(self, step: ir.Product, lines: list[Statement]) -> None:
        """A product over all steps and samples at once."""
        views, features_first = self.views, self.views.orientation.features_first
        weights = self.head_weights(step) if self.heads(step) else self.weights(step)
        columns = self.columns(views.ordered(step.operands), lines)
        outs = views.storage.block(views.ordered(step.outs))
        assert outs is not None
        slots, buffer = views.storage.buffers[outs.buffer], views.buffer(outs.buffer)
        rows = views.rows(slots.shapes)
        if self.heads(step):
            blocks = (len(step.outs),) * (len(step.outs) > 1)
            columns = reshaped(columns, *views.own(step.operands[0]), SAMPLES)
            lines.append(_matmul(weights, columns, reshaped(buffer, *blocks, *views.own(step.outs[0]), SAMPLES)))
        elif slots.home is Home.USER or not features_first:
            right = weights if step.transposed else Attribute(weights, "T")
            target = buffer if features_first else views.operand(step.outs)
            lines.append(_matmul(transposed(columns), right, reshaped(target, SAMPLES, rows)))
        else:
            left = Attribute(weights, "T") if step.transposed else weights
            lines.append(_matmul(left, columns, reshaped(buffer, rows, SAMPLES)))

    # --- gradients ------------------------------------------------------------------------------------------

    def gradients(self, variables: Mapping[str, Local]) -> None:
        """The totals: matrices by one product each stack, vectors by one sum; ``variables`` name each target's array."""
        lines = self.views.text.after
        written: set[str] = set()

        def finish(target: str, part: Expression) -> None:
            name = variables[target]
            lines.append(Bind(name, Binary("+", name, part) if target in written else part))
            written.add(target)

        if self.schedule.gradients or self.schedule.sums:
            lines.append(Comment(GRADIENTS))
        for gradient in self.schedule.gradients:
            table: dict[str, list[str]] = {}
            for target, left in gradient.rows:
                table.setdefault(left, []).append(target)
            for stack in self.stacks(gradient):
                self.gradient(gradient, stack, table, finish)
        self.sums(finish)

    def gradient(self, gradient: Gradient, stack: Sequence[str], table: Mapping[str, Sequence[str]], finish: Finish) -> None:
        """The rows that one product makes, ``table`` by the cotangents that they are of."""
        views, lines = self.views, self.views.text.after
        columns = self.columns(stack, lines)
        right = self.columns([gradient.right], lines)
        wanted = views.names.together([identifier(table[s][0]) for s in stack]) + "_rows"
        name = views.names.get(("gradient", gradient.right, tuple(stack)), wanted)
        heads, n = views.own(stack[0]), views.dim(self.values[gradient.right].shape[-1])
        if heads:
            columns = reshaped(columns, len(stack), *heads, SAMPLES)
            right = Method(reshaped(right, *views.own(gradient.right), SAMPLES), "swapaxes", (-1, -2))
            buffer = views.new_buffer(name, (sympy.Integer(len(stack)), *heads, n))
        else:
            right = transposed(right)
            buffer = views.new_buffer(name, (views.rows(self.values[n].shape for n in stack), n))
        lines.append(_matmul(columns, right, buffer))
        if not heads:
            self.slices(stack, table, buffer, finish)
            return
        for k, left in enumerate(stack):
            for target in table[left]:
                finish(target, Index(buffer, (k,)))

    def sums(self, finish: Finish) -> None:
        """The totals of vectors over all steps and samples."""
        views, lines = self.views, self.views.text.after
        sums: dict[str, list[str]] = {}
        for total in self.schedule.sums:
            sums.setdefault(total.value, []).append(total.target)
        for summed, wanted in self.sum_stacks(list(sums)):
            name = views.names.get(("sum", summed), views.names.together([identifier(sums[s][0]) for s in wanted]) + "_sum")
            buffer = views.new_buffer(name, (views.rows([self.values[n].shape for n in summed]),))
            if summed in self.flats:
                ones = Apply(Library("ones"), (SAMPLES, Word("dtype")))
                lines.append(_matmul(self.flats[summed], ones, buffer))
            else:
                axes = Items(views.orientation.all_steps)
                lines.append(Call(Library("sum"), (views.operand(summed),), buffer, keywords=(("axis", axes),)))
            self.slices(summed, {n: sums[n] for n in wanted}, buffer, finish)

    def stacks(self, gradient: Gradient) -> list[list[str]]:
        """The cotangents whose products with one vector are the gradient's rows, in runs for which one product is enough."""
        runs: list[list[str]] = []
        for left in self.views.ordered(dict.fromkeys(left for _, left in gradient.rows)):
            if runs and self.side_by_side([*runs[-1], left]):
                runs[-1].append(left)
            else:
                runs.append([left])
        return runs

    def side_by_side(self, names: Sequence[str]) -> bool:
        """Whether one product can make the rows of all ``names``."""
        even = len({self.values[n].shape for n in names}) == 1 or not self.views.own(names[0])
        return even and all(map(self.views.in_buffer, names)) and self.views.storage.block(names) is not None

    def wider(self, names: Sequence[str]) -> list[str]:
        """A gradient's stack with ``names`` and others in it, if all are there when the loop is over: one copy for both."""
        views = self.views
        if views.phase is not Phase.AFTER or not views.orientation.features_first or not all(map(views.in_buffer, names)):
            return []
        late = {name for step in views.storage.steps[Phase.AFTER] for name in step_writes(step)}
        stacks = [stack for gradient in self.schedule.gradients for stack in self.stacks(gradient)]
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

    def slices(self, stack: Sequence[str], table: Mapping[str, Sequence[str]], source: Expression, finish: Finish) -> None:
        """The rows of each of ``stack`` in ``source``."""
        shapes = [self.values[name].shape for name in stack]
        for name, shape, stretch in zip(stack, shapes, self.stretches(map(ir.size, shapes)), strict=True):
            part = source if len(stack) == 1 else Index(source, (stretch,))
            for target in table.get(name, ()):
                finish(target, reshaped(part, *map(self.views.dim, shape)) if len(shape) > 1 else part)


def _matmul(left: Expression, right: Expression, out: Expression) -> Call:
    return Call(Library("matmul"), (left, right), out)
