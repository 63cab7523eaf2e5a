"""Memory and kernels → the lines of Python that allocate, prepare, launch and collect: one direction of a module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.cupy.classes import Choice, Kind
from cellspec.backends.cupy.flow import Flow, Phase
from cellspec.backends.cupy.kernels import Kernel, Texts, kernel
from cellspec.backends.cupy.memory import Buffer, Home, Memory, Place
from cellspec.backends.cupy.regions import Region
from cellspec.backends.naming import Names, identifier, together
from cellspec.backends.plain import dim_text

SHAPES = {
    Home.STEP: "(B, {n})",
    Home.SEQUENCE: "(T, B, {n})",
    Home.HISTORY: "(T + 1, B, {n})",
    Home.ROLLING: "(2, B, {n})",
    Home.LATEST: "(B, {n})",
}


LOOP_NAMES = ("t", "ws", "dot", "self", "T", "B", "cp", "THREADS", "SUM_THREADS", "rows", "max")
"""Names with a meaning in the loops' functions and where their arguments are prepared."""


@dataclass
class Text:
    """The lines of one direction: of the constructor of its memory, of its function, and of its loop's."""

    buffers: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[tuple[str, str]] = field(default_factory=list)
    buffers_after: list[tuple[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    prologue: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    locals: list[tuple[str, str]] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    loop: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    multiplies: bool = False
    adds_units: bool = False


class Host:
    """Writes one direction. ``constants`` are the texts of parameters, ``texts`` what kernels call things."""

    def __init__(
        self, direction: str, memory: Memory, choice: Choice, texts: Texts, dims: Mapping[str, str],
        constants: Mapping[str, str], names: Names, spell: Callable[[str], str],
    ) -> None:  # fmt: skip
        self.direction, self.memory, self.choice, self.texts = direction, memory, choice, texts
        self.dims, self.constants, self.names, self.spell = dims, dict(constants), names, spell
        self.flow: Flow = memory.flow
        self.text = Text()
        self.single = choice.kind is Kind.SEQUENCE
        self.made: dict[object, str] = {}

    # --- spelling ---------------------------------------------------------------------------------------------

    def size(self, expr: sympy.Expr) -> str:
        """A number of units as Python."""
        return dim_text(expr, self.dims)

    def factor(self, expr: sympy.Expr) -> str:
        """A number of units as Python, safe as a factor."""
        return self.size(expr) if expr.is_Atom else f"({self.size(expr)})"

    def attribute(self, buffer: Buffer, own: str = "ws") -> str:
        """A buffer's array; ``own`` is what this direction's memory is called here."""
        return f"{'saved' if buffer.saved else own}.{buffer.name}"

    def slot(self, place: Place) -> bool:
        """Whether ``place`` is that of step t + 1 in the memory of a carry."""
        return place.late if self.flow.forwards or place.buffer.saved else not place.late

    def flat(self, place: Place) -> str:
        """All steps' rows at ``place`` as one matrix."""
        buffer = place.buffer
        if buffer.name == "x" and buffer.saved:
            return "x_2d"
        part = ""
        if buffer.home is Home.HISTORY:
            part = "[1:]" if self.slot(place) else "[:T]"
        return f"{self.attribute(buffer)}{part}.reshape(T*B, {self.size(buffer.units)})"

    def at_step(self, place: Place, own: str = "self") -> str:
        """The rows of step ``t``; the same for every step if ``t`` does not stand in it."""
        array = self.attribute(place.buffer, own)
        match place.buffer.home:
            case Home.SEQUENCE:
                return f"{array}[t]"
            case Home.HISTORY:
                return f"{array}[t + 1]" if self.slot(place) else f"{array}[t]"
            case Home.ROLLING:
                return f"{array}[(t + 1) % 2]" if self.slot(place) else f"{array}[t % 2]"
            case _:
                return array

    def comments(self, outs: Sequence[str]) -> list[str]:
        """The equations that values belong to, as comments."""
        found = (self.texts.comments.get(self.flow.program.values[n].origin, "") for n in outs)
        return [f"# {text.removeprefix('// ')}" for text in dict.fromkeys(found) if text]

    # --- the direction ----------------------------------------------------------------------------------------

    def run(self) -> Text:
        """Write everything but the gradients."""
        self.allocate()
        self.vectors()
        self.phase(Phase.BEFORE, self.text.before)
        self.loop()
        self.phase(Phase.AFTER, self.text.after)
        return self.text

    def allocate(self) -> None:
        operands = {k.operand: k.state for k in self.memory.carries if k.operand is not None and k.operand != k.state}
        for buffer in self.memory.buffers:
            if buffer.home is Home.CONSTANT:
                continue
            shape = SHAPES[buffer.home].format(n=self.size(buffer.units))
            fresh = f"cp.empty({shape}, {'real' if buffer.real else 'dtype'})"
            if buffer in operands:
                fresh = f"self.{operands[buffer].name} if real == dtype else {fresh}"
            self.text.buffers.append((buffer.name, fresh))

    def vectors(self) -> None:
        """Copies of the constants that kernels read, side by side in one array."""
        read = {n: p for n, p in self.memory.reads.items() if p.buffer.home is Home.CONSTANT}
        if not read:
            return
        units = [self.flow.width(n) for n in read]
        if len(read) > 1:
            whole = self.names.get(("vectors", self.direction), "vectors")
            self.text.buffers.append((whole, f"cp.empty(({self.size(sympy.expand(sympy.Add(*units)))},), dtype)"))
            start: sympy.Expr = sympy.Integer(0)
            for (_, place), width in zip(read.items(), units, strict=True):
                stop = sympy.expand(start + width)
                self.text.buffers.append((place.buffer.name, f"self.{whole}[{self.span(start, stop)}]"))
                start = stop
            arrays = ", ".join(self.vector(n) for n in read)
            self.text.prologue.append(f"cp.concatenate(({arrays}), out=ws.{whole})")
        else:
            ((name, place),) = read.items()
            self.text.buffers.append((place.buffer.name, f"cp.empty(({self.size(units[0])},), dtype)"))
            self.text.prologue.append(f"cp.copyto(ws.{place.buffer.name}, {self.vector(name)})")

    def vector(self, name: str) -> str:
        """A constant as an array of one axis."""
        return self.constants[name] + ("" if self.flow.program.shape(name) else ".reshape(1)")

    def span(self, start: sympy.Expr, stop: sympy.Expr) -> str:
        return f"{'' if start == 0 else self.size(start)}:{self.size(stop)}"

    def phase(self, phase: Phase, lines: list[str]) -> None:
        """The work on all steps at once."""
        for step in self.memory.plan.steps[phase]:
            match step:
                case Region():
                    made = self.kernel(step)
                    lines.append(f'_run(_kernel("{made.name}", dtype), T*B*{self.factor(made.units)}, ws.{made.name})')
                case ir.Product(outs=outs, operands=operands):
                    place, order = self.memory.stacks[frozenset(operands)]
                    lines += self.comments(outs)
                    lines.append(
                        f"cp.dot({self.flat(place)}, {self.matrix(step, order, False)}, out={self.flat(self.result(step))})"
                    )
                case ir.SumTo():
                    self.text.adds_units = True
                    lines.append(f"_sum_units({self.flat_sum(step)})")

    def flat_sum(self, op: ir.SumTo) -> str:
        source, out = self.memory.reads[op.operand], self.memory.reads[op.out]
        width = self.flow.width(op.operand)
        return f"{self.flat(source)}, {self.size(source.offset)}, {self.size(width)}, {self.flat(out)}, dtype"

    def result(self, op: ir.Product) -> Place:
        """Where a product goes: from the first column of a buffer of its own."""
        return Place(self.memory.outputs[op.outs[0]]) if op.outs[0] in self.memory.outputs else self.memory.reads[op.outs[0]]

    def kernel(self, region: Region) -> Kernel:
        """The kernel of a region, and its arguments."""
        number = len([k for k in self.text.kernels if k.name.startswith(f"{self.direction}_")]) + 1
        suffix = {Phase.BEFORE: "before", Phase.LOOP: "loop" if self.single else "step", Phase.AFTER: "after"}[region.phase]
        several = len(self.memory.plan.in_phase(region.phase)) > 1
        number = len([k for k in self.text.kernels if k.name.startswith(f"{self.direction}_{suffix}")]) + 1
        name = f"{self.direction}_{suffix}_{number}" if several else f"{self.direction}_{suffix}"
        made = kernel(name, self.memory, region, self.texts, self.single)
        self.text.kernels.append(made)
        back = {cuda: self.dims[d] for d, cuda in self.texts.dims.items()}
        sizes = {"rows": "T*B", "T": "T", "B": "B"} | back
        values = [f"cp.int64({sizes[s]})" for s in made.sizes if s != "t"]
        values += [self.attribute(b, "self") for b in made.buffers]
        self.text.arguments.append((name, ", ".join(values) + ("," if len(values) == 1 else "")))
        return made

    def matrix(self, op: ir.Product, order: Sequence[str], in_loop: bool) -> str:
        """The weights of a product as the right factor of rows times matrix, packed if there are several."""
        if len(op.operands) > 1:
            rows, axis = [op.weights[0][op.operands.index(name)] for name in order], 0
        else:
            rows, axis = [row[0] for row in op.weights], 1
        if len(rows) == 1 and not in_loop:
            return self.constants[rows[0]] + ("" if op.transposed else ".T")
        return f"ws.{self.packed(rows, axis, op.transposed)}"

    def packed(self, rows: Sequence[str], axis: int, transposed: bool) -> str:
        """The buffer of packed weights, [inputs, results], copied once a call."""
        key = (tuple(rows), axis, transposed)
        if key not in self.made:
            name = self.names.get(("packed", key), together([identifier(r) for r in rows]) + ("" if transposed else "_T"))
            self.made[key] = name
            turn = 1 if transposed else -1
            shapes = [self.flow.program.shape(r)[::turn] for r in rows]
            whole = [self.size(s) for s in shapes[0]]
            whole[axis] = self.size(sympy.expand(sympy.Add(*(s[axis] for s in shapes))))
            arrays = [self.constants[r] + ("" if transposed else ".T") for r in rows]
            self.text.buffers.append((name, f"cp.empty(({', '.join(whole)}), dtype)"))
            if len(rows) == 1:
                self.text.prologue.append(f"cp.copyto(ws.{name}, {arrays[0]})")
            else:
                self.text.prologue.append(f"cp.concatenate(({', '.join(arrays)}), axis={axis}, out=ws.{name})")
        return self.made[key]

    # --- the loop ---------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """The body of the loop: products and launches, whose arguments are prepared for every step."""
        names = Names([*LOOP_NAMES, *self.dims.values()])
        for step in self.memory.plan.steps[Phase.LOOP]:
            match step:
                case Region():
                    made = self.kernel(step)
                    blocks = self.single or "t" not in made.sizes
                    self.text.locals.append((made.name, f'_kernel("{made.name}", ws.dtype)'))
                    count = f"B*{self.factor(made.units)}"
                    grid = f"{made.name}_blocks"
                    self.text.buffers_after.append((grid, f"_blocks({count})"))
                    self.text.locals.append((grid, f"ws.{grid}"))
                    if blocks:
                        argument = f"ws.{made.name}"
                    else:
                        argument = names.get(made.name, f"{made.name}_arguments")
                        self.step(argument, f"(cp.int64(t), *self.{made.name})")
                    self.text.loop.append(f"{made.name}({grid}, THREADS, {argument})")
                case ir.Product(outs=outs, operands=operands):
                    place, order = self.memory.stacks[frozenset(operands)]
                    left = self.argument(names, place, together([identifier(n) for n in order]))
                    matrix = self.matrix(step, order, True)
                    weights = names.get(matrix, matrix.removeprefix("ws.").replace(".", "_"))
                    self.local(weights, matrix)
                    out = self.argument(names, self.result(step), together([identifier(n) for n in outs]))
                    self.text.multiplies = True
                    self.text.loop += [*self.comments(outs), f"dot({left}, {weights}, {out})"]
                case ir.SumTo(out=out_name, operand=operand):
                    self.text.adds_units = True
                    source, out_place = self.memory.reads[operand], self.memory.reads[out_name]
                    units = f"{self.size(source.offset)}, {self.size(self.flow.width(operand))}"
                    name = names.get(("sum", out_name), f"sum_{identifier(out_name)}")
                    rows = self.at_step(source)
                    self.step(name, f"_sum_arguments({rows}, {units}, {self.at_step(out_place)})")
                    real = "_real" if source.buffer.real else ""
                    self.local(f"sum_units{real}", f'_kernel("sum_units{real}", ws.dtype)')
                    self.local("rows", "(ws.B,)")
                    self.text.loop.append(f"sum_units{real}(rows, SUM_THREADS, {name})")

    def local(self, name: str, text: str) -> None:
        if (name, text) not in self.text.locals:
            self.text.locals.append((name, text))

    def step(self, name: str, element: str) -> None:
        """A variable of the loop, and its element for step ``t``."""
        if name not in self.text.variables:
            self.text.variables.append(name)
            self.text.steps.append(element)

    def argument(self, names: Names, place: Place, wanted: str) -> str:
        """The variable that holds the rows of a step: set in the loop's head, or before it where it is always the same."""
        element = self.at_step(place)
        name = names.get(element, wanted)
        if element == self.attribute(place.buffer, "self"):
            self.local(name, self.attribute(place.buffer, "ws").replace("saved.", "ws.saved."))
        else:
            self.step(name, element)
        return name

    # --- gradients --------------------------------------------------------------------------------------------

    def gradients(self, variable: Callable[[str], str]) -> None:
        """One product for each right factor; sums over steps and samples; what belongs to one parameter added up."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for gradient in self.flow.gradients:
            place, order = self.memory.stacks[frozenset(left for _, left in gradient.rows)]
            right, _ = self.memory.stacks[frozenset((gradient.right,))]
            name = self.names.get(
                ("gradient", gradient), together([identifier(t) for t in dict.fromkeys(t for t, _ in gradient.rows)])
            )
            columns = self.size(self.flow.width(gradient.right))
            self.text.buffers.append((name, f"cp.empty(({self.size(place.buffer.units)}, {columns}), dtype)"))
            self.text.after.append(f"cp.dot({self.flat(place)}.T, {self.flat(right)}, out=ws.{name})")
            self.collect(found, name, [(t, left) for t, left in gradient.rows], order)
        by_place: defaultdict[Place, list[ir.Total]] = defaultdict(list)
        for total in self.flow.sums:
            own = self.memory.totals.get(total.value)
            place = self.memory.summed[total.value] if own is None else Place(own)
            by_place[Place(place.buffer, late=place.late)].append(total)
        for place, totals in by_place.items():
            buffer = place.buffer
            name = self.names.get(("sum", place), together([identifier(t.target) for t in totals]) + "_sum")
            units = self.size(buffer.units)
            self.text.buffers.append((name, f"cp.empty(({units},), dtype)"))
            if buffer in self.memory.totals.values():
                self.text.after.append(f"_sum_parts({self.attribute(buffer)}, ws.{name})")
            else:
                self.text.buffers.append((f"{name}_parts", f"cp.empty((_parts(T*B), {units}), real)"))
                rows = self.flat(place)
                self.text.after.append(f"_sum_rows({rows}, ws.{name}_parts, ws.{name})")
            for total in totals:
                offset = sympy.Integer(0) if total.value in self.memory.totals else self.memory.summed[total.value].offset
                stop = sympy.expand(offset + self.flow.width(total.value))
                part = f"ws.{name}" if stop == buffer.units and offset == 0 else f"ws.{name}[{self.span(offset, stop)}]"
                found[total.target].append(part)
        given: set[str] = set()
        for target in dict.fromkeys(t.target for t in self.flow.program.totals):
            parts = found[target]
            text = " + ".join(parts)
            if len(parts) == 1 and text in given:
                text += ".copy()"
            given.add(text)
            self.text.after.append(f"{variable(target)} = {text}")

    def collect(
        self, found: defaultdict[str, list[str]], name: str, rows: Sequence[tuple[str, str]], order: Sequence[str]
    ) -> None:
        """Note which rows of the product ``name`` are whose gradient."""
        start: sympy.Expr = sympy.Integer(0)
        starts = {}
        for left in order:
            starts[left] = start
            start = sympy.expand(start + self.flow.width(left))
        for target, left in rows:
            stop = sympy.expand(starts[left] + self.flow.width(left))
            whole = starts[left] == 0 and stop == start
            found[target].append(f"ws.{name}" if whole else f"ws.{name}[{self.span(starts[left], stop)}]")
