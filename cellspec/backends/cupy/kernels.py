"""Regions → CUDA kernels: a thread per (sample, unit); loads first, then the equations, then stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sympy

from cellspec import ir
from cellspec.backends.cupy.around import ROW, STEP, STEPS, TAKEN, Around, Texts
from cellspec.backends.cupy.cuda import CUDA
from cellspec.backends.fused.bodies import Store, body, variables
from cellspec.backends.fused.c_family import Printer
from cellspec.backends.fused.code import EMPTY, Code, code, indented, name, names_in
from cellspec.backends.fused.elements import Elements
from cellspec.backends.fused.indices import sum_of
from cellspec.backends.fused.memory import Columns, Memory
from cellspec.backends.fused.regions import Region
from cellspec.backends.memory.model import Buffer, Element, Home, Phase
from cellspec.backends.naming import identifier
from cellspec.backends.remarks import Account
from cellspec.ir import symbol
from cellspec.model.nodes import Shape
from cellspec.passes.masks import BOUNDARY_AFTER, ENDED

TYPES = {Element.STORED: "stored", Element.EXACT: "real", Element.ROW: "long long"}


@dataclass(frozen=True)
class Kernel:
    """A kernel's text in parts, and what it is called with: ``sizes`` (``t``, ``B``, dims), then ``buffers``.

    ``parameters`` are lines of text. A thread has one of ``units`` of a sample, or, with ``by_sample``, a block has a sample.
    """

    name: str
    about: str
    sizes: tuple[str, ...]
    parameters: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    body: tuple[str, ...]
    units: sympy.Expr
    functions: frozenset[str]
    by_sample: bool = False


@dataclass(frozen=True)
class Part:
    """Lines of a kernel, the buffers that they use, in order, which of those they write, and the functions that they call."""

    lines: tuple[Code, ...]
    uses: tuple[Buffer, ...]
    writes: frozenset[Buffer]
    functions: frozenset[str]


def kernel(called: str, memory: Memory, region: Region, texts: Texts, single: bool) -> Kernel:
    """The kernel that runs ``region``; with ``single`` it runs the whole loop."""
    writer = Writer(memory, region, texts, single)
    part, around = writer.part(), writer.around
    lines = [*around.opening(part.lines), *part.lines]
    return assembled(called, writer.about(), around.sizes_used(lines), lines, [part], region.units)


def assembled(
    called: str, about: str, sizes: tuple[str, ...], lines: Iterable[Code], parts: Sequence[Part], units: sympy.Expr,
    *, by_sample: bool = False,
) -> Kernel:  # fmt: skip
    """The kernel of these ``lines``, of which ``parts`` use buffers."""
    writes: frozenset[Buffer] = frozenset().union(*(part.writes for part in parts))
    used = dict.fromkeys(buffer for part in parts for buffer in part.uses)
    read, changed = ([buffer for buffer in used if (buffer in writes) is written] for written in (False, True))
    parameters = [f"const long long {size}" for size in sizes]
    parameters += [f"const {pointer(b)}" for b in read] + [pointer(b) for b in changed]
    functions = frozenset().union(*(part.functions for part in parts))
    return Kernel(
        called, about, sizes, wrapped(parameters), (*read, *changed), tuple(line.text for line in lines), units, functions,
        by_sample,
    )  # fmt: skip


class Writer:
    """Writes what a thread does for one region."""

    def __init__(self, memory: Memory, region: Region, texts: Texts, single: bool) -> None:
        self.memory, self.region, self.texts, self.flow = memory, region, texts, memory.flow
        self.body = body(memory, region, single)
        self.around = Around(memory, region, texts, self.body.whole)
        self.elements = Elements(memory, self.around.factor, self.at)
        self.buffers = {buffer.name: buffer for buffer in self.body.buffers}
        self.variables = variables(self.body, [*TAKEN, *texts.dims.values(), *self.buffers])
        known = {value: Code(variable) for value, variable in self.variables.items()}
        self.printer = Printer(
            CUDA, known, texts.dims, {n: k for k, n in enumerate(self.flow.program.values)}, self.flow.constants
        )
        self.on_demand = {value: self.element(value) for value in self.body.on_demand}
        known |= self.on_demand

    def part(self) -> Part:
        """The lines, and what they use."""
        make = self.sequence if self.body.whole else self.step
        lines, in_order_of_use = make()
        names = names_in([*self.on_demand.values(), *in_order_of_use])
        used = [self.buffers[name] for name in names if name in self.buffers]
        return Part(tuple(lines), tuple(used), self.body.written, frozenset(self.printer.used))

    def about(self) -> str:
        """What the kernel is for, in one line."""
        match self.region.phase:
            case Phase.LOOP if self.body.whole:
                return (
                    "Every step, from the first to the last."
                    if self.flow.forwards
                    else "Every step, from the last to the first."
                )
            case Phase.LOOP:
                products = [op for op in self.memory.plan.steps[Phase.LOOP] if isinstance(op, ir.Product)]
                before = [p for p in products if self.memory.plan.stage[p.outs[0]] == self.region.stage]
                if before:
                    return f"One step, after {' and '.join(map(product, before))}."
                return "One step."
            case Phase.BEFORE:
                return "All steps at once, before the loop." if self.memory.plan.steps[Phase.LOOP] else "All steps at once."
            case Phase.AFTER:
                return "All steps at once, after the loop."

    # --- one step, and the whole loop ---------------------------------------------------------------------------

    def lines(self) -> list[Code]:
        """Loads, equations and stores."""
        return [*self.loads(self.body.constants), *self.loads(self.body.varying), *gap(self.equations()), *gap(self.stores())]

    def step(self) -> tuple[list[Code], list[Code]]:
        """The lines of a kernel that does one step, or all of them at once; and those that use buffers, in order."""
        inner = self.lines()
        return [*self.around.moment(inner), EMPTY, *inner], inner

    def sequence(self) -> tuple[list[Code], list[Code]]:
        """Those of a kernel that runs over the whole loop, carries in registers."""
        constant, varying = self.loads(self.body.constants), self.loads(self.body.varying)
        first = [self.initial(k.state, k.carry.before) for k in self.body.carries]
        equations, stores = self.equations(), self.stores()
        registers = {total: self.variables[f"{total.name} total"] for total in self.body.totals}
        sums = [Code(f"{register} += {self.variables[total.name]};") for total, register in registers.items()]
        turn = [code("{} = {};", self.variables[k.carry.before], self.value(k.carry.after)) for k in self.body.carries]
        last = [self.store(store, self.variables[store.name]) for store in self.body.last_stores]
        last += [self.store(total, register) for total, register in registers.items()]
        inner = [*varying, *gap(equations), *gap(stores), *gap([*sums, *turn])]
        head = "for (long long {0} = 0; {0} < {1}; {0}++) {{" if self.flow.forwards else (
            "for (long long {0} = {1} - 1; {0} >= 0; {0}--) {{"
        )  # fmt: skip
        loop = [code(head, STEP, STEPS), *indented([*self.around.moment(inner), *inner]), Code("}")]
        zeros = [Code(f"real {register} = 0;") for register in registers.values()]
        lines = [*constant, *first, *zeros, EMPTY, *loop, *last]
        return lines, [*constant, *varying, *first, *equations, *stores, *last]

    # --- lines --------------------------------------------------------------------------------------------------

    def loads(self, names: Iterable[str]) -> list[Code]:
        """The lines that read values into variables."""
        return [code("const real {} = {};", self.variables[name], self.element(name)) for name in names]

    def initial(self, state: Buffer, before: str) -> Code:
        """The line that reads a carry before the first step."""
        unit = self.around.unit(self.shape(before))
        index = self.around.start(state, unit) if state.home is Home.HISTORY else self.around.index(Columns(state), unit)
        return code("real {} = {}[{}];", self.variables[before], name(state.name), index)

    def equations(self) -> list[Code]:
        """The lines that compute, under what is to be said of them."""
        lines: list[Code] = []
        account = Account()
        for op in self.body.ops:
            remark = self.texts.remarks.about(self.flow.program.values[op.out])
            lines += [Code(f"// {text}") for text in account.lines((remark,))]
            lines.append(code("const real {} = {};", self.variables[op.out], self.printer.code(op.expr)))
        return lines

    def stores(self) -> list[Code]:
        """The lines that write what the kernel leaves at every step."""
        operands = {k.operand for k in self.memory.carries if k.operand is not None and k.operand != k.state}
        lines = []
        for store in self.body.stores:
            variable = self.variables[store.name]
            if store.place.buffer.home is Home.FINAL:
                line = self.store(store, variable)
                lines.append(code("if ({} == {}) {}", self.variables[BOUNDARY_AFTER], str(ENDED), line))
            elif store.place.buffer in operands:
                lines.append(self.written(store, "{}keep({}, {}, {});", variable))
            else:
                lines.append(self.store(store, variable))
        return lines

    def store(self, store: Store, variable: str) -> Code:
        """The line that writes a value, which a variable holds."""
        return self.written(store, "{}{}[{}] = {};", variable)

    def written(self, store: Store, template: str, variable: str) -> Code:
        """``template`` with what must hold before a thread may store a value, the buffer, the index and the variable."""
        shape = self.shape(store.name)
        index = self.around.index(store.place, self.around.unit(shape))
        return code(template, self.around.guard(shape), name(store.place.buffer.name), index, variable)

    # --- values -------------------------------------------------------------------------------------------------

    def shape(self, value: str) -> Shape:
        return self.flow.program.shape(value)

    def value(self, value: str) -> Code:
        """What holds a value."""
        return self.printer.code(symbol(value))

    def element(self, value: str) -> Code:
        """The element of memory that holds this thread's unit of a value."""
        return self.elements.element(value, self.around.unit(self.shape(value)))

    def at(self, place: Columns, unit: Code) -> Code:
        """The element of a buffer: of the row that this step reads, where that stands in memory itself."""
        buffer = name(place.buffer.name)
        if place.rows is None:
            return code("{}[{}]", buffer, self.around.index(place, unit))
        row = code("{}[{}]", name(place.rows.name), ROW)
        ahead = EMPTY if place.start == 0 else self.around.size(place.start)
        index = sum_of(code("{}{}", row, self.around.times(place.buffer.units)), ahead, unit)
        return code("({} < 0 ? {} : real({}[{}]))", row, self.printer.code(place.otherwise), buffer, index)


def product(op: ir.Product) -> str:
    """A product as a comment writes it: ``[Ui; Uf] @ h_prev``."""
    turned = ".T" if op.transposed else ""
    rows = "; ".join(", ".join(weight + turned for weight in row) for row in op.weights)
    vectors = "; ".join(identifier(name) for name in op.operands)
    left = rows if len(op.outs) == len(op.operands) == 1 else f"[{rows}]"
    return f"{left} @ {vectors if len(op.operands) == 1 else f'[{vectors}]'}"


def pointer(buffer: Buffer) -> str:
    """A parameter that points to a buffer."""
    return f"{TYPES[buffer.element]}* {buffer.name}"


def wrapped(parameters: Sequence[str]) -> tuple[str, ...]:
    """A list of parameters as lines, none broken within a parameter, with the closing parenthesis."""
    lines = [""]
    for k, parameter in enumerate(parameters):
        piece = parameter + (")" if k == len(parameters) - 1 else ",")
        if lines[-1] and len(lines[-1]) + len(piece) > 110:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{piece}"
    return tuple(lines)


def gap(lines: Sequence[Code]) -> list[Code]:
    """``lines`` after an empty one, if there are any."""
    return [EMPTY, *lines] if lines else []
