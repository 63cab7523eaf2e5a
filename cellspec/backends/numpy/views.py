"""Storage plan → buffers, views of them, and the names under which the statements of one direction read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.arrays.expressions import (
    ELLIPSIS,
    EVERYTHING,
    Attribute,
    Expression,
    Index,
    Library,
    Local,
    Method,
    Number,
    Stretch,
    View,
    Word,
    local,
    reshaped,
    root,
)
from cellspec.backends.arrays.statements import Bind, Call, Copy, Statement
from cellspec.backends.memory.model import Axes, B, Buffer, Home, Phase, T
from cellspec.backends.naming import Wanted, Wishes, identifier
from cellspec.backends.numpy.called import block_name, constant_name
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.storage import Block, Storage
from cellspec.backends.numpy.text import Around, Text, apart
from cellspec.ir import Program
from cellspec.model.nodes import Shape

Split = Axes
"""The axes into which rows are split: so many blocks of neighbours, or a value's own axes."""

KEPT = {Home.HISTORY: "_all", Home.FLAT: "_flat", Home.USER: "_out"}
"""What a buffer's name says of its kind of memory."""


@dataclass
class Views:
    """Wishes, buffers and views of one direction, made as its statements ask for them; ``phase`` is that of the statements."""

    storage: Storage
    around: Around
    forwards: bool
    text: Text = field(default_factory=Text)
    phase: Phase = Phase.BEFORE
    attributes: dict[object, Buffer | View] = field(default_factory=dict)
    loop_names: dict[object, Local] = field(default_factory=dict)
    bound: dict[object, Local] = field(default_factory=dict)
    made: dict[Block, Local] = field(default_factory=dict)  # local names of arrays that calls make

    @property
    def program(self) -> Program:
        return self.storage.code.schedule.program

    @property
    def values(self) -> Mapping[str, ir.Value]:
        return self.storage.values

    @property
    def names(self) -> Wishes:
        return self.around.names

    @property
    def orientation(self) -> Orientation:
        return self.around.orientation

    # --- shapes and names -----------------------------------------------------------------------------------

    def dim(self, expr: sympy.Expr) -> sympy.Expr:
        """A polynomial over the spec's dims in the module's."""
        return local(expr, self.around.dims)

    def rows(self, shapes: Iterable[Shape]) -> sympy.Expr:
        """How many rows values of these shapes take side by side."""
        return self.dim(sympy.expand(sum(map(ir.size, shapes), sympy.S.Zero)))

    def axes(self, shape: Shape, rank: int) -> Axes:
        """The axes of ``shape``, ``rank`` of them."""
        return (sympy.S.One,) * (rank - len(shape)) + tuple(map(self.dim, shape))

    def own(self, name: str, of: str | None = None) -> Split:
        """The axes of a value with several, of one with a single axis none; or the axes of ``of``, as many as ``name`` has."""
        shape = self.values[name].shape
        return self.axes(self.values[of or name].shape, len(shape)) if len(shape) > 1 else ()

    def slots(self, block: Block) -> int:
        """How many places there are in the buffer of a block."""
        return len(self.storage.buffers[block.buffer].shapes)

    def is_whole(self, block: Block) -> bool:
        """Whether a block is all of its buffer."""
        return block.start == 0 and block.stop == self.slots(block)

    def block_name(self, block: Block) -> str:
        """What lies in a block, in one word."""
        return block_name(self.storage, block, self.forwards, self.names.groups)

    def new_buffer(self, name: str, axes: Axes, home: Home = Home.STEP) -> Buffer:
        """Memory for an array that statements have asked for."""
        buffer = Buffer(name, axes, self.around.owner, home)
        self.text.buffers.append(buffer)
        return buffer

    def buffer(self, index: int) -> Buffer:
        """The array of the storage's buffer ``index``, made on first mention."""
        key = ("buffer", index)
        if key not in self.attributes:
            slots = self.storage.buffers[index]
            rows = self.rows(slots.shapes)
            name = self.block_name(Block(index, 0, len(slots.shapes))) + KEPT.get(slots.home, "")
            made = self.new_buffer(self.names.get(key, name), self.buffer_axes(index, rows), slots.home)
            self.attributes[key] = made
            if slots.home is Home.CONSTANT:
                self.text.parameters.add(made)
        found = self.attributes[key]
        assert isinstance(found, Buffer)
        return found

    def buffer_axes(self, index: int, rows: sympy.Expr) -> Axes:
        """The axes of the array of a buffer with ``rows`` rows."""
        slots, shape = self.storage.buffers[index], self.orientation.shape
        match slots.home:
            case Home.SEQUENCE:
                return shape((T,), rows)
            case Home.HISTORY:
                return shape((T + self.reach(slots.members[0]),), rows)
            case Home.FLAT if self.orientation.features_first:
                return rows, T, B
            case Home.FLAT | Home.USER:
                return T, B, rows
            case Home.CONSTANT if not self.around.lead:
                return self.orientation.single(rows)
        return shape((), rows)

    # --- views ----------------------------------------------------------------------------------------------

    def operand(self, names: Sequence[str], split: Split = ()) -> Expression:
        """Neighbours ``names`` in the current phase; ``split`` is what their rows are split into."""
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
            if (made := self.made.get(block)) is not None:
                return self.split_into(made, (), split)
            return self.bind(("step", block, split), self.block_name(block), self.view(block, names, split))
        view = self.view(block, names, split)
        if self.phase is Phase.LOOP:
            return self.iterate(("loop", view.name), view.name, self.over(block, names, split, view))
        return view

    def alias(self, name: str) -> str:
        """The given value that lies where ``name`` does, or ``name``."""
        return self.storage.aliases.get(name, name)

    def in_buffer(self, name: str) -> bool:
        return name in self.storage.place

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same for all steps and samples."""
        return name in self.around.constants or (self.in_buffer(name) and self.storage.home(name) is Home.CONSTANT)

    def ordered(self, names: Iterable[str]) -> list[str]:
        """``names`` in the order in which they lie in memory."""
        names = list(names)
        if any(n not in self.storage.place for n in names):
            return names
        return sorted(names, key=lambda n: self.storage.place[n])

    def iterate(self, key: object, wanted: str, over: Expression) -> Local:
        """The loop variable that runs over ``over``, one step at a time."""
        if key not in self.loop_names:
            self.loop_names[key] = Local(wanted)
            self.text.steps.append((self.loop_names[key], over))
        return self.loop_names[key]

    def over(self, block: Block, names: Sequence[str], split: Split, view: Expression) -> Expression:
        """The sequence that the loop runs over; the states before a step are those after the last one, as it left them."""
        if not self.is_before(block, names):
            return view
        return self.split_into(self.moments(self.buffer(block.buffer), block, names), (T,), split)

    def split_into(self, array: Expression, lead: Axes, split: Split) -> Expression:
        """An array with its rows as ``split`` says, or as it is."""
        return reshaped(array, *self.orientation.shape(lead, *split)) if split else array

    def is_before(self, block: Block, names: Sequence[str]) -> bool:
        """Whether ``names`` are a state before a step, not after it."""
        return self.storage.buffers[block.buffer].home is Home.HISTORY and names[0] in self.program.befores

    def reach(self, members: Sequence[str]) -> int:
        """How many steps more than there are a history has, of which these values are members."""
        return max((self.storage.reach(name) for name in members if name in self.program.afters), default=0)

    def moments(self, history: Buffer, block: Block, names: Sequence[str]) -> Expression:
        """The rows of a history that steps define, or that they read if ``names`` are another step's: step t has row t."""
        reach = self.reach(self.storage.buffers[block.buffer].members[block.start])
        steps = self.storage.distance(names[0]) or 0
        start, stop = (reach - steps, steps) if self.forwards else (steps, reach - steps)
        return Index(history, (Stretch(start or None, -stop or None),))

    def bind(self, key: object, wanted: Wanted, expression: Expression) -> Expression:
        """A local name for ``expression``, bound before the loop: that of its buffer or view if it is one."""
        if self.phase is not Phase.LOOP:
            return expression
        if key not in self.bound:
            self.bound[key] = self.local_for(expression, ("local", key), wanted)
            self.text.locals.append(Bind(self.bound[key], expression))
        return self.bound[key]

    def local_for(self, expression: Expression, key: object, wanted: Wanted) -> Local:
        """A local name for ``expression``: that of its buffer or view if it is one of this memory."""
        match expression:
            case Buffer(name=name) | View(name=name) if self.is_own(expression):
                return Local(name)
        return Local(self.names.get(key, wanted))

    def is_own(self, array: Expression) -> bool:
        """Whether an array is a buffer or view of this direction's memory."""
        match array:
            case Buffer(owner=owner) | View(buffer=Buffer(owner=owner)):
                return owner is self.around.owner
        return False

    def view(self, block: Block, names: Sequence[str], split: Split) -> Buffer | View:
        """A block as the memory has it under a name."""
        slots = self.storage.buffers[block.buffer]
        before = self.is_before(block, names)
        base = self.buffer(block.buffer)
        as_it_is = (Home.STEP, Home.SEQUENCE) if self.orientation.features_first else (Home.STEP, Home.SEQUENCE, Home.USER)
        if self.is_whole(block) and not split and slots.home in as_it_is:
            return base
        key = ("view", block, split, names[0] if before else "")
        if key not in self.attributes:
            wanted = (identifier(names[0]) if before else self.block_name(block)) + self.suffix(block, split)
            expression = self.before(block, names, split) if before else self.taken(base, block, split)
            self.attributes[key] = view = View(self.names.get(key, wanted), base, expression)
            self.text.views.append(view)
        return self.attributes[key]

    def before(self, block: Block, names: Sequence[str], split: Split) -> Expression:
        """States before a step, of a forward pass with memory of their own where they may be others than those after one."""
        if split:
            return self.split_into(self.view(block, names, ()), (T,), split)
        base = self.buffer(block.buffer)
        rows = self.moments(base, block, names)
        if not self.forwards:
            return rows
        shape = self.orientation.shape((T,), self.rows(self.storage.buffers[block.buffer].shapes))
        return apart(rows, shape)

    @staticmethod
    def suffix(block: Block, split: Split) -> str:
        """What tells a split view from the block that it is of."""
        return "" if not split else "_blocks" if block.stop - block.start > 1 else "_axes"

    def stretch(self, block: Block) -> Stretch:
        """The rows of a block in its buffer."""
        shapes = self.storage.buffers[block.buffer].shapes
        start = self.rows(shapes[: block.start]) if block.start else None
        stop = self.rows(shapes[: block.stop]) if block.stop < len(shapes) else None
        return Stretch(start, stop)

    def taken(self, base: Buffer, block: Block, split: Split) -> Expression:
        """How the view of a block is taken from its buffer; of a state, after each step."""
        slots, orientation, stretch = self.storage.buffers[block.buffer], self.orientation, self.stretch(block)
        array: Expression = base
        match slots.home:
            case Home.CONSTANT if not self.around.lead:
                array = array if self.is_whole(block) else orientation.part(array, stretch, steps=False)
                return reshaped(array, *orientation.single(*split)) if split else array
            case Home.CONSTANT | Home.STEP:
                array = array if self.is_whole(block) else orientation.part(array, stretch, steps=False)
                return self.split_into(array, (), split)
            case Home.HISTORY:
                array = self.moments(base, block, slots.members[block.start][-1:])
            case Home.FLAT if orientation.features_first:
                array = Method(array if self.is_whole(block) else Index(array, (stretch,)), "transpose", (1, 0, 2))
            case Home.USER if orientation.features_first:
                array = Method(array, "transpose", (0, 2, 1))
            case _:
                array = array if self.is_whole(block) else orientation.part(array, stretch, steps=True)
        return self.split_into(array, (T,), split)

    def given(self, name: str, split: Split = ()) -> Expression:
        """What comes from outside: in the loop, a step of it."""
        array = self.around.given[name]
        whole = self.split_into(array, self.around.lead, split)
        if self.phase is not Phase.LOOP:
            return whole
        key = ("loop", whole)
        if key in self.loop_names:
            return self.loop_names[key]
        if name in self.around.fixed:
            return self.iterate(key, self.names.get(key, identifier(name)), whole)
        called = self.called(root(array))
        if not self.orientation.features_first:
            self.loop_names[key] = Local(self.names.get(key, f"{called}_t"))
            self.text.fresh.append((self.loop_names[key], whole))
            return self.loop_names[key]
        if (rows := self.attributes.get(("rows", name))) is None:
            axes = self.orientation.shape((T,), self.rows([self.values[name].shape]))
            rows = self.attributes["rows", name] = self.new_buffer(self.names.get(("rows", name), f"{called}_rows"), axes)
            self.text.before.append(Copy(rows, array))
        return self.iterate(key, self.names.get(key, f"{called}_t"), self.split_into(rows, self.around.lead, split))

    def called(self, array: Expression) -> str:
        """What an array from outside is called: ``x``, ``dy_h``, ``saved_x_lag1_all``."""
        match array:
            case Attribute(of=of, name=name):
                return f"{self.called(of)}_{name}"
            case Buffer(name=name) | View(name=name):
                return name if self.is_own(array) else f"saved_{name}"
            case Word(name=name):
                return name
        raise AssertionError(f"{array} has no name")

    # --- constants ------------------------------------------------------------------------------------------

    def constant(self, name: str, split: Split = ()) -> Expression:
        """A constant on its own: for every sample, or with its axes apart and stretched along the batch."""
        array = self.around.constants[name]
        shape = self.values[name].shape
        if self.around.lead and not split and not ir.is_one(shape):
            return self.spread(name)
        if not self.orientation.features_first:
            array = array if split or len(shape) < 2 else reshaped(array, -1)
            if shape and self.phase is Phase.LOOP:  # as many axes as a sample: then equal shapes, which ufuncs take up faster
                return self.bind(("row", array), f"{identifier(name)}_row", Index(array, (None,)))
        elif split:
            array = Index(array, (ELLIPSIS, None)) if shape else array
        elif shape:
            array = self.column(array, len(shape))
        return self.name_constant(("constant", name, bool(split)), name, array)

    def spread(self, name: str) -> Local:
        """A constant once for every sample: ufuncs are faster on arrays of equal shapes than where they stretch one of them."""
        key = ("spread", name)
        if key not in self.bound:
            self.bound[key] = own = Local(self.names.get(key, f"{constant_name(self.storage, name)}_batch"))
            buffer = self.new_buffer(own.name, self.orientation.shape((), self.rows([self.values[name].shape])))
            self.text.prologue += [Bind(own, buffer), self.fill(name, own)]
        return self.bound[key]

    @staticmethod
    def column(array: Expression, axes: int) -> Expression:
        """A constant with ``axes`` axes as one column."""
        return Index(array, (EVERYTHING, None)) if axes == 1 else reshaped(array, -1, 1)

    def fill(self, constant: str, target: Expression, *, stacked: bool = False) -> Statement:
        """A statement that puts a constant into its place: a matrix as it is if ``stacked``, otherwise for every sample."""
        axes = len(self.values[constant].shape)

        def laid(array: Expression) -> Expression:
            if not self.orientation.features_first:
                return reshaped(array, -1) if axes > 1 and not stacked else array
            return self.column(array, axes) if axes == 1 or (axes and not stacked) else array

        definition = next((op for op in self.storage.code.schedule.prologue if constant in ir.outs(op)), None)
        if isinstance(definition, ir.Pointwise):
            number, rest = definition.expr.as_coeff_Mul()
            known = rest.is_Symbol and rest.name in self.around.constants
            if known and self.values[rest.name].shape == self.values[constant].shape:
                return Call(Library("multiply"), (laid(self.around.constants[rest.name]), Number(number)), target)
        return Copy(target, laid(self.around.constants[constant]))

    def matrix(self, name: str) -> Word | Local:
        """A weight matrix on its own."""
        return self.name_constant(("matrix", name), name, self.around.constants[name])

    def name_constant(self, key: object, name: str, array: Expression) -> Word | Local:
        """A local name for a constant, bound before everything else."""
        if isinstance(array, Word | Local):
            return array
        if key not in self.bound:
            self.bound[key] = Local(self.names.get(key, identifier(name)))
            self.text.prologue.append(Bind(self.bound[key], array))
        return self.bound[key]

    def constant_block(self, block: Block, split: Split) -> Local:
        """Constants side by side, or one of them."""
        key = ("constant", block, split)
        if key not in self.bound:
            array = self.taken(self.buffer(block.buffer), block, split)
            self.bound[key] = self.local_for(array, key, self.block_name(block) + self.suffix(block, split))
            self.text.prologue.append(Bind(self.bound[key], array))
        return self.bound[key]
