"""Storage plan → buffers, views of them, and the names under which the statements of one direction read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.naming import Names, identifier, together
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.storage import Block, Storage
from cellspec.backends.plain import bare, dim_text
from cellspec.model.nodes import Shape

Split = tuple[str, ...]
"""The axes, as Python, into which rows are split: so many blocks of neighbours, or a value's own axes."""


_ARRAY = re.compile(r"\.reshape|\.transpose|\[")
"""What follows the name of an array in the expression of a view of it."""


@dataclass
class Text:
    """The statements of one direction, as lists of lines for the template."""

    buffers: list[tuple[str, str]] = field(default_factory=list)  # attribute, shape
    parameters: set[str] = field(default_factory=set)  # those of the buffers that hold parameters
    views: list[tuple[str, str]] = field(default_factory=list)  # attribute, expression
    steps: list[tuple[str, str]] = field(default_factory=list)  # loop variable, sequence that it runs over
    fresh: list[tuple[str, str]] = field(default_factory=list)  # the same for the sequences that come with the call
    locals: list[str] = field(default_factory=list)  # bound before the loop
    functions: list[tuple[str, str]] = field(default_factory=list)  # local name, NumPy function
    prologue: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    loop: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    helpers: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Around:
    """What a direction's code finds around it."""

    names: Names
    comments: Mapping[str, str]  # origin → comment line
    constants: Mapping[str, str]  # constant value → expression of its array
    given: Mapping[str, str]  # given sequence → expression of its view in the layout's order of axes
    fixed: frozenset[str]  # given sequences whose arrays outlive a call
    matrix: Mapping[str, str]  # given sequence → expression of its [T*B, n] matrix
    dims: Mapping[str, str]
    orientation: Orientation
    lead: str = "T"  # the axis of time of a given sequence; none of one step alone


class Views:
    """Names, buffers and views of one direction, made as its statements ask for them."""

    def __init__(self, storage: Storage, around: Around, forwards: bool) -> None:
        self.storage, self.around, self.forwards = storage, around, forwards
        self.program = storage.code.schedule.program
        self.values = storage.values
        self.names, self.orientation = around.names, around.orientation
        self.text = Text()
        self.region = Phase.BEFORE
        self.attributes: dict[object, str] = {}
        self.loop_names: dict[object, str] = {}
        self.bound: dict[object, str] = {}
        self.flats: dict[tuple[str, ...], str] = {}
        self.made: dict[Block, str] = {}  # local names of arrays that calls make
        self.said: set[tuple[Phase, str]] = set()
        self.last_said: tuple[str, ...] = ()
        self.plain = Plain(self.values, around.constants, around.dims, batched=False)

    # --- shapes and names -----------------------------------------------------------------------------------

    def dim(self, expr: sympy.Expr) -> str:
        return dim_text(expr, self.around.dims)

    def rows(self, shapes: Iterable[Shape]) -> str:
        return self.dim(sympy.expand(sum(map(ir.size, shapes), sympy.Integer(0))))

    def axes(self, shape: Shape, rank: int) -> tuple[str, ...]:
        """The axes of ``shape`` as Python, ``rank`` of them."""
        return ("1",) * (rank - len(shape)) + tuple(map(self.dim, shape))

    def place_name(self, buffer: int, place: int) -> str:
        """What is at a place in a buffer is called after the last value there that has a name of its own."""
        members = self.storage.buffers[buffer].members[place]
        if self.storage.buffers[buffer].home is Home.CONSTANT:
            return self.constant_name(members[0])
        carried = [c.before for c in self.program.carries if c.before in members]
        if carried and not self.forwards:
            return identifier(carried[0].removesuffix("<-"))
        own = [m for m in members if not m.startswith("%")]
        return identifier(own[-1] if own else members[-1])

    def constant_name(self, name: str) -> str:
        """A scaled parameter is called after the parameter."""
        for op in self.storage.code.schedule.prologue:
            match op:
                case ir.Pointwise(out=out, expr=sympy.Mul() as expr) if out == name:
                    number, rest = expr.as_coeff_Mul()
                    if rest.is_Symbol:
                        return identifier(rest.name) + ("_half" if number == sympy.Rational(1, 2) else "_scaled")
        return identifier(name)

    def block_name(self, block: Block) -> str:
        return together([self.place_name(block.buffer, k) for k in range(block.start, block.stop)])

    def buffer_attribute(self, index: int) -> str:
        """The attribute that holds buffer ``index``, allocated on first mention."""
        key = ("buffer", index)
        if key not in self.attributes:
            buffer = self.storage.buffers[index]
            whole = Block(index, 0, len(buffer.shapes))
            rows = self.rows(buffer.shapes)
            suffix = {Home.HISTORY: "_all", Home.FLAT: "_flat", Home.USER: "_out"}.get(buffer.home, "")
            name = self.names.get(key, self.block_name(whole) + suffix)
            shape = {
                Home.STEP: self.orientation.shape("", rows),
                Home.SEQUENCE: self.orientation.shape("T", rows),
                Home.HISTORY: self.orientation.shape(f"T + {self.reach(buffer.members[0])}", rows),
                Home.FLAT: f"{rows}, T, B" if self.orientation.features_first else f"T, B, {rows}",
                Home.USER: f"T, B, {rows}",
                Home.CONSTANT: self.orientation.shape("", rows) if self.around.lead else self.orientation.single(rows),
            }[buffer.home]
            self.attributes[key] = name
            self.text.buffers.append((name, f"({shape})"))
            if buffer.home is Home.CONSTANT:
                self.text.parameters.add(name)
        return self.attributes[key]

    # --- views ----------------------------------------------------------------------------------------------

    def operand(self, names: Sequence[str], split: Split = ()) -> str:
        """The expression for neighbours ``names`` in the current region; ``split`` is what their rows are split into."""
        if names[0] in self.around.constants and not self.in_buffer(names[0]):
            return self.constant(names[0], split)
        if self.alias(names[0]) in self.around.given:
            return self.given(self.alias(names[0]), split)
        block = self.storage.block(names)
        assert block is not None, f"{names} are not neighbours"
        home = self.storage.buffers[block.buffer].home
        if home is Home.CONSTANT:
            return self.constant_block(block, split)
        if home is Home.STEP:
            key = ("step", block, split)
            if (made := self.made.get(block)) is not None:
                return f"{made}.reshape({self.orientation.shape('', *split)})" if split else made
            return self.bind(key, self.block_name(block), f"ws.{self.view(block, names, split)}")
        attribute = self.view(block, names, split)
        if self.region is Phase.LOOP:
            return self.iterate(("loop", attribute), attribute, self.over(block, names, split, attribute))
        return f"ws.{attribute}"

    def alias(self, name: str) -> str:
        """The given value that lies where ``name`` does, or ``name``."""
        return self.storage.aliases.get(name, name)

    def in_buffer(self, name: str) -> bool:
        return name in self.storage.place

    def iterate(self, key: object, wanted: str, over: str) -> str:
        """The loop variable that runs over ``over``, one step at a time."""
        if key not in self.loop_names:
            self.loop_names[key] = wanted
            self.text.steps.append((wanted, over))
        return self.loop_names[key]

    def over(self, block: Block, names: Sequence[str], split: Split, attribute: str) -> str:
        """The sequence that the loop runs over; the states before a step are those after the last one, as it left them."""
        if not self.is_before(block, names):
            return f"self.{attribute}"
        axes = f".reshape({self.orientation.shape('T', *split)})" if split else ""
        return f"self.{self.buffer_attribute(block.buffer)}{self.moments(block, names)}{axes}"

    def is_before(self, block: Block, names: Sequence[str]) -> bool:
        """Whether ``names`` are a state before a step, not after it."""
        return self.storage.buffers[block.buffer].home is Home.HISTORY and names[0] in self.program.befores

    def reach(self, members: Sequence[str]) -> int:
        """How many steps more than there are a history has, of which these values are members."""
        return max((self.storage.reach(name) for name in members if name in self.program.afters), default=0)

    def moments(self, block: Block, names: Sequence[str]) -> str:
        """The rows of a history that steps define, or that they read if ``names`` are another step's: step t has row t."""
        reach = self.reach(self.storage.buffers[block.buffer].members[block.start])
        steps = self.storage.distance(names[0]) or 0
        start, stop = (reach - steps, steps) if self.forwards else (steps, reach - steps)
        return f"[{start or ''}:{-stop or ''}]"

    def bind(self, key: object, wanted: str, expression: str) -> str:
        """A local name for ``expression``, bound before the loop."""
        if self.region is not Phase.LOOP:
            return expression
        if key not in self.bound:
            name = expression.removeprefix("ws.")
            if not name.isidentifier():
                name = self.names.get(("local", key), wanted)
            self.bound[key] = name
            self.text.locals.append(f"{name} = {expression}")
        return self.bound[key]

    def view(self, block: Block, names: Sequence[str], split: Split) -> str:
        """The attribute that holds a view of ``block``."""
        buffer = self.storage.buffers[block.buffer]
        before = self.is_before(block, names)
        base = self.buffer_attribute(block.buffer)
        whole = block == Block(block.buffer, 0, len(buffer.shapes))
        as_it_is = (Home.STEP, Home.SEQUENCE) if self.orientation.features_first else (Home.STEP, Home.SEQUENCE, Home.USER)
        if whole and not split and buffer.home in as_it_is:
            return base
        key = ("view", block, split, names[0] if before else "")
        if key not in self.attributes:
            wanted = identifier(names[0]) if before else self.block_name(block)
            base, slicing = f"self.{base}", self.slicing(block, split)
            if before and split:
                base, slicing = f"self.{self.view(block, names, ())}", f".reshape({self.orientation.shape('T', *split)})"
            elif before:
                shape = self.orientation.shape("T", self.rows(buffer.shapes))
                slicing = self.moments(block, names)
                slicing += f" if not self.apart else empty(({shape}), dtype)" if self.forwards else ""
            self.attributes[key] = self.names.get(key, wanted + self.suffix(block, split))
            self.text.views.append((self.attributes[key], base + slicing))
        return self.attributes[key]

    @staticmethod
    def suffix(block: Block, split: Split) -> str:
        """What tells a split view from the block that it is of."""
        return "" if not split else "_blocks" if block.stop - block.start > 1 else "_axes"

    def slicing(self, block: Block, split: Split) -> str:
        """How the view of a block is taken from its buffer; of a state, after each step."""
        buffer = self.storage.buffers[block.buffer]
        whole = block.start == 0 and block.stop == len(buffer.shapes)
        start = self.rows(buffer.shapes[: block.start]) if block.start else ""
        stop = self.rows(buffer.shapes[: block.stop]) if block.stop < len(buffer.shapes) else ""
        rows = f"{start}:{stop}"
        orientation = self.orientation
        steps = f".reshape({orientation.shape('T', *split)})" if split else ""
        match buffer.home:
            case Home.CONSTANT:
                apart = orientation.shape("", *split) if self.around.lead else orientation.single(*split)
                part = "" if whole else orientation.part(rows, steps=False)
                return part + (f".reshape({apart})" if split else "")
            case Home.STEP:
                part = "" if whole else orientation.part(rows, steps=False)
                return part + (f".reshape({orientation.shape('', *split)})" if split else "")
            case Home.HISTORY:
                return self.moments(block, buffer.members[block.start][-1:]) + steps
            case Home.FLAT if orientation.features_first:
                return ("" if whole else f"[{rows}]") + ".transpose(1, 0, 2)" + steps
            case Home.USER if orientation.features_first:
                return ".transpose(0, 2, 1)" + steps
            case _:
                return ("" if whole else orientation.part(rows, steps=True)) + steps

    def given(self, name: str, split: Split = ()) -> str:
        expression = self.around.given[name]
        axes = f".reshape({self.orientation.shape(self.around.lead, *split)})" if split else ""
        if self.region is not Phase.LOOP:
            return expression + axes
        key = ("loop", expression + axes)
        if key not in self.loop_names:
            if name in self.around.fixed:
                return self.iterate(key, self.names.get(key, identifier(name)), expression + axes)
            array = _ARRAY.split(expression.removeprefix("ws."))[0].replace(".", "_")
            if not self.orientation.features_first:
                self.loop_names[key] = self.names.get(key, f"{array}_t")
                self.text.fresh.append((self.loop_names[key], expression + axes))
                return self.loop_names[key]
            known = ("rows", name) in self.names.by_key
            rows = self.names.get(("rows", name), f"{array}_rows")
            if not known:
                self.text.buffers.append((rows, f"({self.orientation.shape('T', self.rows([self.values[name].shape]))})"))
                self.text.before.append(f"np.copyto(ws.{rows}, {expression})")
            return self.iterate(key, self.names.get(key, f"{array}_t"), f"self.{rows}{axes}")
        return self.loop_names[key]

    def constant(self, name: str, split: Split = ()) -> str:
        """A constant on its own: for every sample, or with its axes apart and stretched along the batch."""
        expression = self.around.constants[name]
        shape = self.values[name].shape
        if self.around.lead and not split and not ir.is_one(shape):
            return self.spread(name)
        if not self.orientation.features_first:
            expression = expression if split or len(shape) < 2 else f"{expression}.reshape(-1)"
            if shape and self.region is Phase.LOOP:  # as many axes as a sample: then equal shapes, which ufuncs take up faster
                key = ("row", expression)
                return self.bind(key, f"{identifier(name)}_row", f"{expression}[None]")
        elif split:
            expression = f"{expression}[..., None]" if shape else expression
        elif shape:
            expression = f"{expression}[:, None]" if len(shape) == 1 else f"{expression}.reshape(-1, 1)"
        return self.name_constant(("constant", name, bool(split)), name, expression)

    def spread(self, name: str) -> str:
        """A constant once for every sample: ufuncs are faster on arrays of equal shapes than where they stretch one of them."""
        key = ("spread", name)
        if key not in self.bound:
            self.bound[key] = local = self.names.get(key, f"{self.constant_name(name)}_batch")
            self.text.buffers.append((local, f"({self.orientation.shape('', self.rows([self.values[name].shape]))})"))
            self.text.prologue += [f"{local} = ws.{local}", self.fill(name, local)]
        return self.bound[key]

    def fill(self, constant: str, target: str, *, stacked: bool = False) -> str:
        """A statement that puts a constant into its place: a matrix as it is if ``stacked``, otherwise for every sample."""
        axes = len(self.values[constant].shape)
        column = "[:, None]" if axes == 1 else ".reshape(-1, 1)" if axes and not stacked else ""
        if not self.orientation.features_first:
            column = ".reshape(-1)" if axes > 1 and not stacked else ""
        expression = self.around.constants.get(constant)
        definition = next((op for op in self.storage.code.schedule.prologue if constant in ir.outs(op)), None)
        if isinstance(definition, ir.Pointwise):
            number, rest = definition.expr.as_coeff_Mul()
            known = rest.is_Symbol and rest.name in self.around.constants
            if known and self.values[rest.name].shape == self.values[constant].shape:
                source = self.around.constants[rest.name]
                return f"np.multiply({source}{column}, {self.plain.scalar(number)}, out={target})"
        return f"np.copyto({target}, {expression}{column})"

    def matrix(self, name: str) -> str:
        """A weight matrix on its own."""
        return self.name_constant(("matrix", name), name, self.around.constants[name])

    def name_constant(self, key: object, name: str, expression: str) -> str:
        if expression.isidentifier():
            return expression
        if key not in self.bound:
            self.bound[key] = self.names.get(key, identifier(name))
            self.text.prologue.append(f"{self.bound[key]} = {bare(expression)}")
        return self.bound[key]

    def constant_block(self, block: Block, split: Split) -> str:
        expression = f"ws.{self.buffer_attribute(block.buffer)}{self.slicing(block, split)}"
        key = ("constant", block, split)
        if key not in self.bound:
            wanted = self.block_name(block) + self.suffix(block, split)
            whole = expression.removeprefix("ws.")
            self.bound[key] = whole if whole.isidentifier() else self.names.get(key, wanted)
            self.text.prologue.append(f"{self.bound[key]} = {expression}")
        return self.bound[key]
