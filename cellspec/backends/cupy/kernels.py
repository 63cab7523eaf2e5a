"""Regions → CUDA kernels: a thread per (sample, unit); loads first, then the equations, then stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import sympy

from cellspec import ir
from cellspec.backends.cupy.around import Around, Texts
from cellspec.backends.cupy.cuda import Printer, plain_name, reserved
from cellspec.backends.cupy.cuts import CUT_AFTER
from cellspec.backends.cupy.flow import Phase, origin
from cellspec.backends.cupy.memory import Buffer, Home, Memory, Place
from cellspec.backends.cupy.regions import Region
from cellspec.backends.cupy.units import rolled, widened
from cellspec.backends.naming import Names, identifier
from cellspec.ir import symbol
from cellspec.model.folding import is_finite
from cellspec.model.nodes import Shape


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


def kernel(name: str, memory: Memory, region: Region, texts: Texts, single: bool) -> Kernel:
    """The kernel that runs ``region``; with ``single`` it runs the whole loop."""
    return Writer(name, memory, region, texts, single).kernel()


class Writer:
    """Writes the kernel of one region, or the part of a larger kernel that it is."""

    def __init__(self, name: str, memory: Memory, region: Region, texts: Texts, single: bool) -> None:
        self.name, self.memory, self.region, self.texts = name, memory, region, texts
        self.flow = memory.flow
        self.single = single and region.phase is Phase.LOOP
        self.around = Around(memory, region, texts, self.single)
        self.ops = _inlined(region, self.stored())
        self.buffers: dict[Buffer, bool] = {}  # whether it is written
        mentioned = {name for op in self.ops for name in (op.out, *self.flow.program.args(op))} | {
            name for total in self.flow.sums for name in (total.value,)
        }
        self.loads = [n for n in region.loads if n in mentioned or n in self.stored()]
        self.carries = [k for k in memory.carries if self.single and self.owns(k.carry.before, k.carry.after)]
        taken = [*reserved(), *texts.dims.values(), *(b.name for b in self.all_buffers())]
        self.locals = Names(taken)
        self.variables: dict[str, str] = {}
        for value in (*self.loads, *(k.carry.before for k in self.carries), *(op.out for op in self.ops)):
            if value not in self.variables:
                self.variables[value] = self.variable(value)
        for value in self.apart():
            self.variables[value] = self.element(value, self.around.unit(self.shape(value)))
        order = {n: i for i, n in enumerate(self.flow.program.values)}
        self.printer = Printer(self.variables, texts.dims, order, self.flow.constants)

    def variable(self, value: str) -> str:
        stem = plain_name(identifier(value.removesuffix("<-") if value.startswith("d:") else value))
        if value.startswith("d:") and value.endswith("<-"):
            stem += "_next"
        return self.locals.get(value, f"{stem}_j" if value in self.flow.constants else stem)

    def apart(self) -> list[str]:
        """What is read where a sample ends or begins once more, and has no variable."""
        places = self.memory.reads
        return [n for n in self.loads if n in places and (places[n].first or places[n].buffer.home is Home.FINAL)]

    def owns(self, before: str, after: str) -> bool:
        return before in self.region.loads or after in {op.out for op in self.region.ops}

    def stored(self) -> set[str]:
        """The values that leave this region by memory."""
        found = {name for name in self.region.results if self.memory.stores.get(name)}
        if self.region.phase is Phase.LOOP:
            found |= {name for name in self.memory.totals if name in self.region.results}
            ends = {k.carry.after for k in self.memory.carries}
            found |= {op.out for op in self.region.ops if self.single and op.out in ends}
        return found

    def all_buffers(self) -> list[Buffer]:
        """The buffers that this kernel may touch."""
        found = [place.buffer for n in self.region.loads for place in [self.memory.reads.get(origin(self.flow, n))] if place]
        found += [place.buffer for n in self.region.results for place in self.memory.stores.get(n, ())]
        found += [k.state for k in self.memory.carries] + list(self.memory.totals.values())
        return found

    # --- text -------------------------------------------------------------------------------------------------

    def kernel(self) -> Kernel:
        if self.single:
            body = self.sequence()
        else:
            inner = self.lines()
            body = [*self.around.opening([*inner, *self.around.moment(inner)]), *self.around.moment(inner), "", *inner]
        sizes = self.around.sizes_used(body)
        read = [b for b, written in self.buffers.items() if not written]
        changed = [b for b, written in self.buffers.items() if written]
        parameters = [f"const long long {size}" for size in sizes]
        parameters += [f"const {pointer(b)}" for b in read] + [pointer(b) for b in changed]
        return Kernel(
            self.name, self.about(), sizes, wrapped(parameters), (*read, *changed), tuple(body), self.region.units,
            frozenset(self.printer.used),
        )  # fmt: skip

    def about(self) -> str:
        """What the kernel is for, in one line."""
        match self.region.phase:
            case Phase.LOOP if self.single:
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

    def lines(self) -> list[str]:
        """Loads, equations and stores."""
        loads = [*self.constant(), *self.varying()]
        return [*loads, *gap(self.equations()), *gap(self.stores())]

    def constant(self) -> list[str]:
        """The loads of what is the same at every step."""
        return [self.load(n) for n in self.loads if n in self.flow.constants]

    def varying(self) -> list[str]:
        """The loads of everything else but the carries that are in registers, and what is read where a sample ends."""
        apart = {k.carry.before for k in self.carries} | set(self.apart())
        return [self.load(n) for n in self.loads if n not in self.flow.constants and n not in apart]

    def sequence(self) -> list[str]:
        """A kernel that runs over the whole loop, carries in registers."""
        constant, varying = self.constant(), self.varying()
        first = [self.initial(k.state, k.carry.before) for k in self.carries]
        equations, stores = self.equations(), self.stores()
        last = [
            self.store(Place(k.state), k.carry.before, self.variables[k.carry.before])
            for k in self.carries
            if k.state.home is Home.LATEST
        ]
        totals = {n: self.memory.totals[n] for n in self.region.results if n in self.memory.totals}
        registers = {n: self.locals.get(("total", n), f"{self.variables[n]}_total") for n in totals}
        first += [f"real {register} = 0;" for register in registers.values()]
        sums = [f"{registers[n]} += {self.variables[n]};" for n in totals]
        turn = [f"{self.variables[k.carry.before]} = {self.printer.text(symbol(k.carry.after))};" for k in self.carries]
        last += [self.store(Place(buffer), n, registers[n]) for n, buffer in totals.items()]
        inner = [*varying, *gap(equations), *gap(stores), *gap([*sums, *turn])]
        inner = [*self.around.moment(inner), *inner]
        head = "for (long long t = 0; t < T; t++) {" if self.flow.forwards else "for (long long t = T - 1; t >= 0; t--) {"
        body = [*constant, *first, "", head, *(f"    {line}" if line else "" for line in inner), "}"]
        body += [*last]
        return [*self.around.opening(body), *body]

    def use(self, buffer: Buffer, written: bool = False) -> str:
        """The name of a buffer, which becomes a parameter."""
        self.buffers[buffer] = self.buffers.get(buffer, False) or written
        return buffer.name

    def shape(self, name: str) -> Shape:
        return self.flow.program.shape(name)

    def load(self, name: str) -> str:
        """The line that reads a value into a variable."""
        return f"const real {self.variables[name]} = {self.element(name, self.around.unit(self.shape(name)))};"

    def element(self, name: str, unit: str, ahead: sympy.Expr = sympy.S.Zero) -> str:
        """The element of memory that is ``name`` at ``unit``, or so many units ahead of it."""
        factor = self.around.factor
        match self.flow.made.get(name):
            case (_, ir.Reshape(operand=operand)):
                return self.element(operand, unit, ahead)
            case (_, ir.Slice(operand=operand, start=start)) if len(self.shape(name)) == 1:
                return self.element(operand, unit, sympy.expand(ahead + start))
        place = self.memory.reads.get(name)
        if ahead != 0 and (place is None or place.pitch is not None):
            unit = f"{factor(ahead)} + {unit}"
            ahead = sympy.S.Zero
        match self.flow.made.get(name):
            case (_, ir.Roll(operand=operand, shift=shift)):
                return self.element(operand, rolled(unit, self.shape(name), shift, factor))
            case (_, ir.Slice(operand=operand, start=start)):
                begin = "" if start == 0 else factor(start)
                terms = widened(unit, self.shape(name)[-1], self.shape(operand)[-1], begin, factor)
                return self.element(operand, " + ".join(terms))
        assert place is not None
        if place.rows is not None:
            return self.delayed(place, unit, ahead)
        place = replace(place, offset=sympy.expand(place.offset + ahead))
        return f"{self.use(place.buffer)}[{self.around.index(place, unit)}]"

    def delayed(self, place: Place, unit: str, ahead: sympy.Expr) -> str:
        """The element at ``unit`` in that row of ``place`` which this step reads."""
        row, buffer = f"{self.use(place.rows)}[row]" if place.rows else "", place.buffer
        width = "" if buffer.units == 1 else f"*{self.around.size(buffer.units)}"
        terms = [f"{row}{width}", *([] if ahead == 0 else [self.around.size(ahead)]), *([] if unit == "0" else [unit])]
        return f"({row} < 0 ? {self.printer.text(place.otherwise)} : real({self.use(buffer)}[{' + '.join(terms)}]))"

    def initial(self, state: Buffer, before: str) -> str:
        """The line that reads a carry before the first step."""
        unit = self.around.unit(self.shape(before))
        index = self.around.index(Place(state), unit)
        if state.home is Home.HISTORY:
            index = self.around.start(state, unit)
        return f"real {self.variables[before]} = {self.use(state)}[{index}];"

    def equations(self) -> list[str]:
        """The lines that compute, under the equations that they belong to."""
        lines: list[str] = []
        shown = ""
        for op in self.ops:
            origin = self.flow.program.values[op.out].origin
            comment = self.texts.comments.get(origin, "")
            if comment and comment != shown:
                lines.append(comment)
            shown = comment or shown
            lines.append(f"const real {self.variables[op.out]} = {self.printer.text(op.expr)};")
        return lines

    def stores(self) -> list[str]:
        """The lines that write what the kernel leaves."""
        lines = []
        operands = {k.operand for k in self.memory.carries if k.operand is not None and k.operand != k.state}
        for name in self.region.results:
            for place in self.memory.stores.get(name, ()):
                if self.single and place.buffer.home is Home.LATEST:
                    continue
                if place.buffer.home is Home.FINAL:
                    line = self.store(place, name, self.variables[name])
                    lines.append(f"if ({self.variables[CUT_AFTER]} == 2) {line}")
                elif place.buffer in operands:
                    target, index = self.target(place, name)
                    lines.append(f"{self.around.guard(self.shape(name))}keep({target}, {index}, {self.variables[name]});")
                else:
                    lines.append(self.store(place, name, self.variables[name]))
        return lines

    def target(self, place: Place, name: str) -> tuple[str, str]:
        """The buffer and the index where this thread's ``name`` is stored."""
        return self.use(place.buffer, True), self.around.index(place, self.around.unit(self.shape(name)))

    def store(self, place: Place, name: str, variable: str) -> str:
        """The line that writes ``name``, which a variable holds."""
        target, index = self.target(place, name)
        return f"{self.around.guard(self.shape(name))}{target}[{index}] = {variable};"


def _inlined(region: Region, stored: set[str]) -> tuple[ir.Pointwise, ...]:
    """The region's operations, those that are read once, by one of their own width, written where they are read."""
    uses: defaultdict[str, int] = defaultdict(int)
    for op in region.ops:
        for node in sympy.preorder_traversal(op.expr):
            if node.is_Symbol:
                uses[node.name] += 1
    pending: dict[sympy.Symbol, sympy.Expr] = {}
    kept: list[ir.Pointwise] = []
    for op in region.ops:
        inlined = {s: pending[s] for s in op.expr.free_symbols if s in pending}
        expr = op.expr.xreplace(inlined)
        if not is_finite(expr):  # SymPy divides by what it sees to be 0
            kept += (ir.Pointwise(s.name, pending.pop(s)) for s in sorted(inlined, key=str))
            expr = op.expr
        if uses[op.out] == 1 and op.out not in stored and not isinstance(expr, sympy.Function):
            pending[symbol(op.out)] = expr
        elif uses[op.out] or op.out in stored:
            kept.append(ir.Pointwise(op.out, expr))
    return tuple(kept)


def product(op: ir.Product) -> str:
    """A product as a comment writes it: ``[Ui; Uf] @ h_prev``."""
    turned = ".T" if op.transposed else ""
    rows = "; ".join(", ".join(weight + turned for weight in row) for row in op.weights)
    vectors = "; ".join(identifier(name) for name in op.operands)
    left = rows if len(op.outs) == len(op.operands) == 1 else f"[{rows}]"
    return f"{left} @ {vectors if len(op.operands) == 1 else f'[{vectors}]'}"


def pointer(buffer: Buffer) -> str:
    """A parameter that points to a buffer."""
    return f"{'long long' if buffer.of_rows else 'real' if buffer.real else 'stored'}* {buffer.name}"


def wrapped(parameters: Sequence[str]) -> tuple[str, ...]:
    """A list of parameters as lines, none broken within a parameter, with the closing parenthesis."""
    lines = [""]
    for k, parameter in enumerate(parameters):
        piece = parameter + (")" if k == len(parameters) - 1 else ",")
        if lines[-1] and len(lines[-1]) + len(piece) > 110:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{piece}"
    return tuple(lines)


def gap(lines: Sequence[str]) -> list[str]:
    """``lines`` after an empty one, if there are any."""
    return ["", *lines] if lines else []
