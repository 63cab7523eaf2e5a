"""Memory and kernels → the lines of Python that allocate, prepare, launch and collect: one direction of a module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.cupy.around import Texts
from cellspec.backends.cupy.chained import chain_kernel
from cellspec.backends.cupy.kernels import Kernel, kernel
from cellspec.backends.fused.axes import KERNELS, extent, kernel_of
from cellspec.backends.fused.chains import Chain, launches
from cellspec.backends.fused.flow import Flow, has_heads, origin
from cellspec.backends.fused.loop_kinds import Choice, Kind
from cellspec.backends.fused.memory import Columns, Memory
from cellspec.backends.fused.regions import Region
from cellspec.backends.memory.model import Buffer, Element, Home, Owner, Phase
from cellspec.backends.naming import Names, identifier
from cellspec.backends.plain import dim_text
from cellspec.backends.skeleton import skeleton
from cellspec.ir import Along

DTYPES = {Element.STORED: "dtype", Element.EXACT: "real"}
"""The dtypes of arrays, in the constructor of a memory."""

BY_STEP = (Home.SEQUENCE, Home.HISTORY, Home.ROLLING)
"""Of these every step has rows of its own."""

LOOPS = ("_forward_loop", "_backward_loop")
"""The functions of the loops, where what a step reads and writes has names."""

ENTRIES = frozenset(f"{kernel}{real}" for kernel in (*KERNELS, "multiply_heads") for real in ("", "_real"))
"""Kernels that do the same for every cell, by the names that loops call them."""


@dataclass(frozen=True)
class _Along:
    """The kernel of a function along an axis, and as text what it reads and how many results it has for a sample."""

    kernel: str
    source: Columns
    offset: str
    shape: str
    out: Columns
    results: str

    @property
    def entry(self) -> str:
        """The kernel for what is read."""
        return f"{self.kernel}_real" if self.source.buffer.element is Element.EXACT else self.kernel


@dataclass
class Text:
    """The lines of one direction: of the constructor of its memory, of its function, and of its loop's.

    ``packing`` are the lines of the prologue that depend on parameters alone; ``masked`` are those that a call with lengths,
    resets or reverse has besides.
    """

    buffers: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[tuple[str, str]] = field(default_factory=list)
    buffers_after: list[tuple[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    numbered: bool = False  # whether steps are told their numbers
    packing: list[str] = field(default_factory=list)
    prologue: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    locals: list[tuple[str, str]] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    loop: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    dots: bool = False
    multiplies: bool = False
    by_heads: bool = False
    along: dict[str, str] = field(default_factory=dict)  # entries, and the kernels that they are for one dtype
    chained: set[str] = field(default_factory=set)


class Host:
    """Writes one direction. ``constants`` are the texts of parameters, ``texts`` what kernels call things, ``matrices`` the
    caller's streams as matrices over all steps and samples.
    """

    def __init__(
        self, direction: str, memory: Memory, choice: Choice, texts: Texts, dims: Mapping[str, str],
        constants: Mapping[str, str], names: Names, matrices: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.direction, self.memory, self.choice, self.texts = direction, memory, choice, texts
        self.dims, self.constants, self.names, self.matrices = dims, dict(constants), names, matrices
        self.flow: Flow = memory.flow
        self.text = Text()
        self.single = choice.kind is Kind.SEQUENCE
        self.made: dict[object, str] = {}
        self.written: Counter[Phase] = Counter()  # kernels
        steps = {phase: launches(memory.plan, phase) for phase in Phase}
        self.kernels_in = {phase: sum(isinstance(step, Region | Chain) for step in found) for phase, found in steps.items()}

    # --- spelling ---------------------------------------------------------------------------------------------

    def size(self, expr: sympy.Expr) -> str:
        """A number of units as Python."""
        return dim_text(expr, self.dims)

    def factor(self, expr: sympy.Expr) -> str:
        """A number of units as Python, safe as a factor."""
        return self.size(expr) if expr.is_Atom else f"({self.size(expr)})"

    def attribute(self, buffer: Buffer, own: str = "ws", tape: str = "saved") -> str:
        """A buffer's array; ``own`` is what this direction's memory is called here, ``tape`` that of the forward direction."""
        return f"{tape if buffer.owner is Owner.TAPE else own}.{buffer.name}"

    def flat(self, place: Columns) -> str:
        """All steps' rows at ``place`` as one matrix."""
        buffer = place.buffer
        if buffer.owner is Owner.CALLER:
            return self.matrices[buffer.name]
        part = ""
        if buffer.home is Home.HISTORY:
            part = "[1:]" if self.memory.is_behind(place) else "[:T]"
        return f"{self.attribute(buffer)}{part}.reshape(T*B, {self.size(buffer.units)})"

    def at_step(self, place: Columns, own: str = "self") -> str:
        """The rows of step ``t``; the same for every step if ``t`` does not stand in it."""
        array = self.attribute(place.buffer, own)
        match place.buffer.home:
            case Home.SEQUENCE:
                return f"{array}[t]"
            case Home.HISTORY:
                return f"{array}[t + 1]" if self.memory.is_behind(place) else f"{array}[t]"
            case Home.ROLLING:
                return f"{self.halves(place.buffer, own)}[{'(t + 1)' if self.memory.is_behind(place) else 't'} % 2]"
            case _:
                return array

    def halves(self, buffer: Buffer, own: str) -> str:
        """The two halves of a buffer that steps take turns with: views, made once and not at every step."""
        name = self.names.get(("halves", buffer), f"{buffer.name}_halves")
        if name not in dict(self.text.buffers_after):
            self.text.buffers_after.append((name, f"(self.{buffer.name}[0], self.{buffer.name}[1])"))
        return f"{own}.{name}"

    def comments(self, op: ir.Operation) -> list[str]:
        """What is to be said of an operation's results, as comments."""
        found = (self.texts.remarks.about(self.flow.program.values[name], op) for name in op.defines())
        return [f"# {remark.text}" for remark in dict.fromkeys(found) if remark]

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
            axes = [*(dim_text(axis, {}) for axis in buffer.axes[:-1]), self.size(buffer.units)]
            fresh = f"cp.empty(({', '.join(axes)}), {DTYPES[buffer.element]})"
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
            self.text.packing.append(f"cp.concatenate(({arrays}), out=ws.{whole})")
        else:
            ((name, place),) = read.items()
            self.text.buffers.append((place.buffer.name, f"cp.empty(({self.size(units[0])},), dtype)"))
            self.text.packing.append(f"cp.copyto(ws.{place.buffer.name}, {self.vector(name)})")

    def vector(self, name: str) -> str:
        """A constant as an array of one axis."""
        shape = self.flow.program.shape(name)
        return self.constants[name] + ("" if len(shape) == 1 else f".reshape({self.size(ir.size(shape))})")

    def span(self, start: sympy.Expr, stop: sympy.Expr) -> str:
        return f"{'' if start == 0 else self.size(start)}:{self.size(stop)}"

    def phase(self, phase: Phase, lines: list[str]) -> None:
        """The work on all steps at once."""
        for step in launches(self.memory.plan, phase):
            match step:
                case Chain():
                    made = self.kernel(step, phase)
                    lines.append(f'_run_blocks(_kernel("{made.name}", dtype), T*B, ws.{made.name})')
                case Region():
                    made = self.kernel(step, phase)
                    lines.append(f'_run(_kernel("{made.name}", dtype), T*B*{self.factor(made.units)}, ws.{made.name})')
                case ir.Product(operands=operands) if has_heads(self.flow.program, step):
                    place, order = self.memory.stacks[frozenset(operands)]
                    self.text.by_heads = True
                    lines += self.comments(step)
                    weights = self.weights(step, order)
                    lines.append(f"_multiply_heads({self.flat(place)}, ws.{weights}, {self.flat(self.result(step))})")
                case ir.Product(operands=operands):
                    place, order = self.memory.stacks[frozenset(operands)]
                    self.text.dots = True
                    lines += self.comments(step)
                    lines.append(f"_dot({self.flat(place)}, {self.matrix(step, order)}, {self.flat(self.result(step))})")
                case Along():
                    along = self.along(step)
                    self.text.along[along.entry] = along.kernel
                    source, out = self.flat(along.source), self.flat(along.out)
                    lines += self.comments(step)
                    lines.append(f'_along("{along.entry}", {source}, {along.offset}, {along.shape}, {out}, dtype)')
                case ir.Joined():
                    pass  # its parts are written side by side
                case _:
                    raise NotImplementedError(f"the CuPy backend has no work for {step}")

    def along(self, op: Along) -> _Along:
        """What the kernel of a function along an axis is called with."""
        source, out = self.memory.reads[origin(self.flow, op.operand)], self.memory.reads[op.out]
        shape = self.flow.program.shape
        seen = extent(op, shape(op.operand), shape(op.out))
        kernel = kernel_of(op, seen)
        extents = ", ".join(map(self.size, (seen.outer, seen.length, seen.inner)))
        threads = ir.size((seen.outer, seen.inner))
        return _Along(kernel, source, self.size(source.start), f"({extents})", out, self.factor(threads))

    def result(self, op: ir.Product) -> Columns:
        """Where a product goes: from the first column of a buffer of its own."""
        return Columns(self.memory.outputs[op.outs[0]]) if op.outs[0] in self.memory.outputs else self.memory.reads[op.outs[0]]

    def kernel(self, step: Region | Chain, phase: Phase) -> Kernel:
        """The kernel of a region or a chain, and its arguments."""
        suffix = {Phase.BEFORE: "before", Phase.LOOP: "loop" if self.single else "step", Phase.AFTER: "after"}[phase]
        several = self.kernels_in[phase] > 1
        self.written[phase] += 1
        name = f"{self.direction}_{suffix}_{self.written[phase]}" if several else f"{self.direction}_{suffix}"
        if isinstance(step, Chain):
            made = chain_kernel(name, self.memory, step, phase, self.texts)
            self.text.chained |= {self.along(link).kernel for link in step.links if not isinstance(link, Region)}
        else:
            made = kernel(name, self.memory, step, self.texts, self.single)
        self.text.kernels.append(made)
        back = {cuda: self.dims[d] for d, cuda in self.texts.dims.items()}
        sizes = {"rows": "T*B", "T": "T", "B": "B"} | back
        values = [f"cp.int64({sizes[s]})" for s in made.sizes if s != "t"]
        values += [self.attribute(b, "self") for b in made.buffers]
        self.text.arguments.append((name, ", ".join(values) + ("," if len(values) == 1 else "")))
        return made

    def matrix(self, op: ir.Product, order: Sequence[str]) -> str:
        """The weights of a product as the right factor of rows times matrix: one as it is, several packed."""
        if len(op.weights) == len(op.operands) == 1:
            return self.constants[op.weights[0][0]] + ("" if op.transposed else ".T")
        return f"ws.{self.weights(op, order)}"

    def weights(self, op: ir.Product, order: Sequence[str]) -> str:
        """The buffer of a product's weights, packed as that factor."""
        heads = int(has_heads(self.flow.program, op))
        if len(op.operands) > 1:
            rows, axis = [op.weights[0][op.operands.index(name)] for name in order], heads
        else:
            rows, axis = [row[0] for row in op.weights], heads + 1
        return self.packed(rows, axis, op.transposed)

    def packed(self, rows: Sequence[str], axis: int, transposed: bool) -> str:
        """The buffer of packed weights, [inputs, results] of each head, copied once a call."""
        key = (tuple(rows), axis, transposed)
        if key not in self.made:
            wanted = self.names.together([identifier(r) for r in rows]) + ("" if transposed else "_T")
            name = self.names.get(("packed", key), wanted)
            self.made[key] = name
            shapes = [ir.turned(self.flow.program.shape(r), not transposed) for r in rows]
            turn = ".T" if len(shapes[0]) == 2 else ".transpose(0, 2, 1)"
            whole = [self.size(s) for s in shapes[0]]
            whole[axis] = self.size(sympy.expand(sympy.Add(*(s[axis] for s in shapes))))
            arrays = [self.constants[r] + ("" if transposed else turn) for r in rows]
            self.text.buffers.append((name, f"cp.empty(({', '.join(whole)}), dtype)"))
            if len(rows) == 1:
                self.text.packing.append(f"cp.copyto(ws.{name}, {arrays[0]})")
            else:
                self.text.packing.append(f"cp.concatenate(({', '.join(arrays)}), axis={axis}, out=ws.{name})")
        return self.made[key]

    # --- the loop ---------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """The body of the loop: products and launches, whose arguments are prepared for every step."""
        names = Names([*skeleton("cupy").names(LOOPS), *ENTRIES, "range", *self.dims.values()], self.names.groups)
        for step in launches(self.memory.plan, Phase.LOOP):
            match step:
                case Region() | Chain():
                    made = self.kernel(step, Phase.LOOP)
                    blocks = self.single or "t" not in made.sizes
                    self.text.locals.append((made.name, f'_kernel("{made.name}", ws.dtype)'))
                    count = f"B*{self.factor(made.units)}"
                    grid = f"{made.name}_blocks"
                    self.text.buffers_after.append((grid, "(B,)" if made.by_sample else f"_blocks({count})"))
                    self.text.locals.append((grid, f"ws.{grid}"))
                    if blocks:
                        argument = f"ws.{made.name}"
                    else:
                        argument = names.get(made.name, f"{made.name}_arguments")
                        self.step(argument, f"(now[t], *self.{made.name})")
                        self.text.numbered = True
                    threads = "ALONG_THREADS" if made.by_sample else "THREADS"
                    self.text.loop.append(f"{made.name}({grid}, {threads}, {argument})")
                case ir.Product() if has_heads(self.flow.program, step):
                    self.loop_heads(names, step)
                case ir.Product(outs=outs, operands=operands):
                    place, order = self.memory.stacks[frozenset(operands)]
                    left = self.argument(names, place, names.together([identifier(n) for n in order]))
                    packed = self.weights(step, order)
                    weights = names.get(("weights", packed), packed)
                    self.local(weights, f"ws.{packed}")
                    out = self.argument(names, self.result(step), names.together([identifier(n) for n in outs]))
                    self.text.dots = self.text.multiplies = True
                    self.text.loop += [*self.comments(step), f"dot({left}, {weights}, {out})"]
                case Along():
                    self.loop_along(names, step)
                case ir.Joined():
                    pass  # its parts are written side by side
                case _:
                    raise NotImplementedError(f"the CuPy backend has no work for {step}")

    def loop_heads(self, names: Names, op: ir.Product) -> None:
        """A product head by head: one launch of a kernel of the module's own, also where the loop is captured."""
        place, order = self.memory.stacks[frozenset(op.operands)]
        self.text.by_heads = True
        weights = self.weights(op, order)
        name = names.get(("heads", op), names.together([identifier(n) for n in op.outs]))
        arguments = f"{self.at_step(place)}, self.{weights}, {self.at_step(self.result(op))}"
        self.local("multiply_heads", '_kernel("multiply_heads", ws.dtype)')
        blocks = f"{name}_blocks"
        self.text.buffers_after.append((blocks, f"_heads_blocks(B, self.{weights})"))
        self.local(blocks, f"ws.{blocks}")
        self.step(f"{name}_arguments", f"_heads_arguments({arguments})")
        self.text.loop += [*self.comments(op), f"multiply_heads({blocks}, (32, 8), {name}_arguments)"]

    def loop_along(self, names: Names, op: Along) -> None:
        """A function along an axis."""
        along = self.along(op)
        self.text.along[along.entry] = along.kernel
        name = names.get(("along", op), f"{identifier(op.out)}_along")
        blocks = f"{name}_blocks"
        self.text.buffers_after.append((blocks, f'_along_blocks("{along.entry}", B*{along.results})'))
        self.local(along.entry, f'_kernel("{along.entry}", ws.dtype)')
        self.local(blocks, f"ws.{blocks}")
        rows, out = self.at_step(along.source), self.at_step(along.out)
        self.step(name, f"_along_arguments({rows}, {along.offset}, {along.shape}, {out})")
        self.text.loop += [*self.comments(op), f"{along.entry}({blocks}, ALONG_THREADS, {name})"]

    def local(self, name: str, text: str) -> None:
        if (name, text) not in self.text.locals:
            self.text.locals.append((name, text))

    def step(self, name: str, element: str) -> None:
        """A variable of the loop, and its element for step ``t``."""
        if name not in self.text.variables:
            self.text.variables.append(name)
            self.text.steps.append(element)

    def argument(self, names: Names, place: Columns, wanted: str) -> str:
        """The variable that holds the rows of a step: set in the loop's head, or before it where it is always the same."""
        element = self.at_step(place)
        name = names.get(element, wanted)
        if place.buffer.home not in BY_STEP:
            self.local(name, self.attribute(place.buffer, "ws", "ws.saved"))
        else:
            self.step(name, element)
        return name
