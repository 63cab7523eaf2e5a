"""Storage plan → the statements of one direction, before, in and after the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import sympy

from cellspec import ir
from cellspec.backends.naming import identifier, together
from cellspec.backends.numpy.instructions import Contraction, Region, Scalar
from cellspec.backends.numpy.storage import Block, Home, Packed, Step, is_mixed, step_writes
from cellspec.backends.numpy.views import Split, Text, Views

HELPERS = ("erf", "where")
"""Elementwise functions without a NumPy ufunc of their own: the module defines them where it needs them."""


KEYWORD_OUT = ("maximum", "minimum")
"""Ufuncs of which NumPy deprecates the call with the result's place as a positional argument."""


class Emitter(Views):
    """Writes one direction."""

    def comment(self, origins: Iterable[str], lines: list[str]) -> None:
        """Say which equations the next statements compute: in full the first time, by name afterwards."""
        now = tuple(dict.fromkeys(o for o in origins if o in self.around.comments))
        if not now or set(now) <= set(self.last_said):
            return
        self.last_said = now
        if any((self.region, o) in self.said for o in now):
            lines.append(f"# {', '.join(now)}")
        else:
            lines.extend(self.around.comments[o] for o in now)
        self.said |= {(self.region, o) for o in now}

    def run(self) -> Text:
        """Write everything but the gradients."""
        self.pack_constants()
        for region, lines in zip(Region, (self.text.before, self.text.loop, self.text.after), strict=True):
            self.region = region
            self.last_said = ()
            for step in self.storage.steps[region]:
                self.comment((self.values[n].origin for n in step_writes(step)), lines)
                self.statement(step, lines)
        self.region = Region.LOOP
        for carry in self.storage.copied_carries:
            self.text.loop.append(f"np.copyto({self.operand([carry.before])}, {self.operand([carry.after])})")
        self.region = Region.AFTER
        return self.text

    def statement(self, step: Step, lines: list[str]) -> None:
        match step:
            case Packed():
                lines.append(self.elementwise(step))
            case ir.Product() if self.region is not Region.LOOP:
                self.whole_product(step, lines)
            case ir.Product() if self.heads(step):
                self.head_product(step, lines)
            case ir.Product():
                weights, outs = self.weights(step), self.ordered(step.outs)
                if step.transposed is self.orientation.features_first:
                    weights = self.bind(("transposed", weights), f"{weights}_T", f"{weights}.T")
                factors = [weights, self.operand(self.ordered(step.operands))]
                if self.orientation.features_first:
                    lines.append(self.call("dot", factors, self.operand(outs)))
                else:  # of matrices side by side, one is no array in C order, which dot demands
                    block = self.storage.block(outs)
                    assert block is not None
                    whole = len(outs) == len(self.storage.buffers[block.buffer].shapes)
                    lines.append(self.call("dot" if whole else "matmul", factors[::-1], self.operand(outs)))
            case ir.Concat(out=out, parts=parts):
                target, start = self.operand([out], self.own(out)), sympy.Integer(0)
                for part in parts:
                    stop = sympy.expand(start + self.values[part].shape[-1])
                    source = self.operand([part], self.own(part))
                    lines.append(f"np.copyto({target}[{self.along(out, start, stop)}], {source})")
                    start = stop
            case ir.Slice(out=out, operand=operand, start=start, stop=stop):
                source = f"{self.operand([operand], self.own(operand))}[{self.along(operand, start, stop)}]"
                lines.append(f"np.copyto({self.operand([out], self.own(out))}, {source})")
            case ir.Roll(out=out, operand=operand, shift=shift):
                source = f"np.roll({self.operand([operand], self.own(operand))}, {shift}, axis={self.last(out)})"
                lines.append(f"np.copyto({self.operand([out], self.own(out))}, {source})")
            case ir.Reshape(out=out, operand=operand):
                if self.alias(out) == out and self.storage.place.get(out) != self.storage.place.get(operand, ()):
                    lines.append(f"np.copyto({self.operand([out])}, {self.operand([operand])})")
            case ir.SumTo(out=out, operand=operand):
                lines.append(self.sum_to(out, operand))
            case Contraction():
                lines.append(self.contraction(step))
            case ir.CumSum(out=out, operand=operand, reverse=reverse):
                flip = f"[{self.along(out, '', '', '-1')}]" if reverse else ""
                target, source = self.operand([out], self.own(out)), self.operand([operand], self.own(operand))
                lines.append(f"np.cumsum({source}{flip}, axis={self.last(out)}, out={target}{flip})")
            case ir.Largest(out=out, operand=operand):
                self.text.helpers.add("largest")
                target = self.operand([out], self.own(operand, out))
                lines.append(f"_largest({self.operand([operand], self.own(operand))}, axis={self.last(operand)}, out={target})")

    def own(self, name: str, of: str | None = None) -> Split:
        """The axes of a value with several, of one with a single axis none; or the axes of ``of``, as many as ``name`` has."""
        shape = self.values[name].shape
        return self.axes(self.values[of or name].shape, len(shape)) if len(shape) > 1 else ()

    def last(self, name: str) -> int:
        """The position of a value's last axis in its array."""
        apart = len(self.values[name].shape) > 1
        return self.orientation.last_axis(apart=apart, steps=self.region is not Region.LOOP)

    def along(self, name: str, start: sympy.Expr | str, stop: sympy.Expr | str, step: str = "") -> str:
        """The index of a stretch of a value's last axis."""
        stretch = ":".join([*(p if isinstance(p, str) else self.dim(p) for p in (start, stop)), *([step] if step else [])])
        return {-1: f"..., {stretch}", -2: f"..., {stretch}, :", 0: stretch, 1: f":, {stretch}"}[self.last(name)]

    def sum_to(self, out: str, operand: str) -> str:
        """A sum over the axes of ``operand`` along which ``out`` has size 1."""
        large, target = self.values[operand].shape, self.operand([out], self.own(operand, out))
        small = (sympy.Integer(1),) * (len(large) - len(self.values[out].shape)) + self.values[out].shape
        first = (self.region is not Region.LOOP) + (not self.orientation.features_first)
        axes = [k + first for k, (m, n) in enumerate(zip(large, small, strict=True)) if m != n]
        axis = str(axes[0]) if len(axes) == 1 else str(tuple(axes))
        source = self.operand([operand], self.own(operand))
        if self.region is not Region.LOOP:
            return f"np.sum({source}, axis={axis}, keepdims=True, out={target})"
        return f"{self.function('total', 'np.add.reduce')}({source}, axis={axis}, out={target}, keepdims=True)"

    def contraction(self, step: Contraction) -> str:
        """A sum of products, by the letters of its axes; ``t`` and ``b`` are those of time and batch."""
        time = "" if self.region is Region.LOOP else "t"
        arrays, letters = [], []
        for name in (step.left, step.right, step.out):
            shape = self.values[name].shape
            padded = (sympy.Integer(1),) * (len(step.shape) - len(shape)) + shape
            axes = {letter: axis for letter, axis in zip("ijk", padded, strict=False) if axis != 1}
            sizes = tuple(map(self.dim, axes.values()))
            if name in self.around.constants:
                arrays.append(self.matrix(name) + (f".reshape({', '.join(sizes)})" if len(axes) < len(shape) else ""))
                letters.append("".join(axes))
            else:
                arrays.append(self.operand([name], sizes))
                own = "".join(axes or "n")  # n: the axis of a single number
                letters.append(f"{time}{own}b" if self.orientation.features_first else f"{time}b{own}")
        left, right, out = letters
        function = "np.einsum" if time else self.function("einsum", "np.einsum")
        return f'{function}("{left},{right}->{out}", {arrays[0]}, {arrays[1]}, out={arrays[2]})'

    def elementwise(self, step: Packed) -> str:
        count = len(step.outs)
        shape = self.values[step.outs[0]].shape
        columns = [c for c in step.args if not isinstance(c, Scalar)]
        shared = count > 1 and any(len(c) == 1 and not ir.is_one(self.values[c[0]].shape) for c in columns)
        mixed = count == 1 and is_mixed(shape, (self.values[c[0]].shape for c in columns))
        split: Split = (str(count), self.dim(ir.size(shape))) if shared else ()
        args = []
        for column in step.args:
            if isinstance(column, Scalar):
                args.append(self.number(column.value))
            elif len(column) == 1 and shared:
                args.append(self.shared(column[0]))
            else:
                args.append(self.operand(column, self.axes(self.values[column[0]].shape, len(shape)) if mixed else split))
        out = self.operand(step.outs, self.axes(shape, len(shape)) if mixed else split)
        if step.ufunc == "copyto":
            return f"np.copyto({out}, {args[0]})"
        if step.ufunc in HELPERS:
            self.text.helpers.add(step.ufunc)
            return f"_{step.ufunc}({', '.join(args)}, out={out})"
        if step.ufunc == "negative":  # NumPy 2.4's is wrong in place where the stride is 16 (float32) or 64 bytes (float64)
            return self.call("multiply", [*args, self.number(sympy.Integer(-1))], out)
        return self.call(step.ufunc, args, out)

    def call(self, function: str, args: Sequence[str], out: str) -> str:
        """A call of a NumPy function; in the loop under a local name and with the result's place last, which is faster."""
        if self.region is not Region.LOOP:
            return f"np.{function}({', '.join(args)}, out={out})"
        keyword = "out=" if function in KEYWORD_OUT else ""
        return f"{self.function(function, f'np.{function}')}({', '.join(args)}, {keyword}{out})"

    def function(self, name: str, meaning: str) -> str:
        """The local name of a function that the loop calls."""
        key = ("function", name)
        if key not in self.bound:
            self.bound[key] = self.names.get(key, name)
            self.text.functions.append((self.bound[key], meaning))
        return self.bound[key]

    def number(self, value: sympy.Expr) -> str:
        """A number: a literal, in the loop an array without axes, which a ufunc takes up faster."""
        text = self.plain.scalar(value)
        if self.region is not Region.LOOP:
            return text
        known = {"0": "zero", "0.5": "half", "1": "one", "-1": "minus_one", "2": "two", "3": "three"}
        key = ("number", text)
        if key not in self.bound:
            self.bound[key] = self.names.get(key, known.get(text, "number"))
            self.text.locals.append(f"{self.bound[key]} = np.array({text}, dtype)")
        return self.bound[key]

    def shared(self, name: str) -> str:
        """An argument that all blocks of a grouped call share."""
        text = self.operand([name])
        constant = name in self.around.constants or (self.in_buffer(name) and self.storage.home(name) is Home.CONSTANT)
        if not self.orientation.features_first:
            return text if constant else self.operand([name], ("1", self.rows([self.values[name].shape])))
        if self.alias(name) in self.around.given:
            return text if self.region is Region.LOOP else f"{text}[:, None]"
        sequence = self.region is not Region.LOOP and self.in_buffer(name) and not constant
        return f"{text}[:, None]" if sequence else text

    def ordered(self, names: Sequence[str]) -> list[str]:
        """``names`` in the order in which they lie in memory."""
        if any(n not in self.storage.place for n in names):
            return list(names)
        return sorted(names, key=lambda n: self.storage.place[n])

    # --- products -------------------------------------------------------------------------------------------

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

    def head_product(self, step: ir.Product, lines: list[str]) -> None:
        """A product head by head, in the loop."""
        weights, outs = self.head_weights(step), self.ordered(step.outs)
        if not weights.isidentifier():
            weights = self.bind(("weights", weights), f"{weights.split('.')[0]}_{'T' if step.transposed else 'heads'}", weights)
        operand = self.operand(step.operands, self.own(step.operands[0]))
        blocks = (str(len(outs)),) * (len(outs) > 1)
        lines.append(self.call("matmul", [weights, operand], self.operand(outs, (*blocks, *self.own(outs[0])))))

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

    def fill(self, constant: str, target: str, *, stacked: bool = False) -> str:
        """A statement that puts a constant into its place: a matrix as it is if ``stacked``, otherwise as a column."""
        axes = len(self.values[constant].shape)
        column = "[:, None]" if axes == 1 else ".reshape(-1, 1)" if axes and not stacked else ""
        if not self.orientation.features_first:
            column = ".reshape(-1)" if axes > 1 and not stacked else ""
        expression = self.around.constants.get(constant)
        definition = next((op for op in self.storage.code.schedule.prologue if constant in ir.outs(op)), None)
        if isinstance(definition, ir.Pointwise):
            number, rest = definition.expr.as_coeff_Mul()
            if rest.is_Symbol and rest.name in self.around.constants:
                source = self.around.constants[rest.name]
                return f"np.multiply({source}{column}, {self.plain.scalar(number)}, out={target})"
        return f"np.copyto({target}, {expression}{column})"

    def pack_constants(self) -> None:
        """Fill the buffers that hold several constants side by side."""
        for index, buffer in enumerate(self.storage.buffers):
            if buffer.home is Home.CONSTANT:
                name = self.buffer_attribute(index)
                self.text.prologue.append(f"{name} = ws.{name}")
                self.bound["constant", Block(index, 0, len(buffer.shapes)), ()] = name
                start = sympy.Integer(0)
                for (member, *_), shape in zip(buffer.members, buffer.shapes, strict=True):
                    stop = sympy.expand(start + ir.size(shape))
                    place = self.orientation.part(f"{self.dim(start)}:{self.dim(stop)}", steps=False)
                    self.text.prologue.append(self.fill(member, f"{name}{place}"))
                    start = stop

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
        if not self.orientation.features_first:
            text = self.names.get(("flat", key), together([identifier(n) for n in names]) + "_2d")
            matrix = f"{self.operand(names)}.reshape(T*B, {rows})"
            constant = block is None or self.storage.buffers[block.buffer].home is Home.CONSTANT
            if constant and names[0] not in self.around.given:
                matrix = f"np.broadcast_to({self.operand(names)}, (T*B, {rows}))"  # it is the same for all
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
            lines.append(f"{name} = _columns({self.operand(names)}, ws.{name})")
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
            lefts = self.ordered(list(table))
            even = len({self.values[n].shape for n in lefts}) == 1 or not self.own(lefts[0])
            side_by_side = even and lefts[0] in self.storage.place and self.storage.block(lefts) is not None
            stacks = [lefts] if side_by_side else [[n] for n in lefts]
            for stack in stacks:
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
