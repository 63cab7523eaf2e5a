"""Storage plan → the statements of one direction, before, in and after the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.arrays.expressions import (
    ELLIPSIS,
    EVERYTHING,
    REVERSED,
    TRUE,
    Apply,
    Attribute,
    Expression,
    Helper,
    Index,
    Items,
    Library,
    Literal,
    Local,
    Number,
    Stretch,
    Word,
    reshaped,
    root,
)
from cellspec.backends.arrays.statements import Bind, Call, Comment, Copy, Out, Statement
from cellspec.backends.memory.model import B, Home, Phase, T
from cellspec.backends.naming import Like, number_name
from cellspec.backends.numpy.instructions import HELPERS, Contraction, Scalar
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.products import Products
from cellspec.backends.numpy.storage import Block, Packed, Step, Storage, is_mixed, step_reads, step_writes
from cellspec.backends.numpy.text import Around, Text
from cellspec.backends.numpy.views import Views
from cellspec.backends.plain import number_text
from cellspec.backends.remarks import Account
from cellspec.ir import Value

KEYWORD_OUT = ("maximum", "minimum")
"""Ufuncs of which NumPy deprecates the call with the result's place as a positional argument."""

NEEDS_OUT = (*HELPERS, "copyto", "greater", "greater_equal", "negative")
"""Functions that are not called for a new array: of comparisons that would be one of truths."""


@dataclass
class Emitter:
    """Writes one direction; ``account`` is what has been said in this phase."""

    views: Views
    products: Products
    account: Account = field(default_factory=Account)

    @classmethod
    def of(cls, storage: Storage, around: Around, forwards: bool) -> Emitter:
        """The emitter of a direction in this surroundings."""
        views = Views(storage, around, forwards)
        return cls(views, Products(views))

    @property
    def text(self) -> Text:
        return self.views.text

    @property
    def values(self) -> Mapping[str, Value]:
        return self.views.values

    @property
    def orientation(self) -> Orientation:
        return self.views.orientation

    @property
    def in_loop(self) -> bool:
        """Whether statements are those of one step."""
        return self.views.phase is Phase.LOOP

    def comment(self, step: Step, served: Mapping[str, str]) -> list[Statement]:
        """What is to be said of the values that ``step`` defines, or that those without a name are ``served`` to."""
        remarks = self.views.around.remarks
        found = [remarks.about(self.values[served.get(name, name)], step) for name in step_writes(step)]
        return [Comment(text) for text in self.account.lines(found)]

    def run(self) -> Text:
        """Write everything but the gradients."""
        self.pack_constants()
        storage, operand = self.views.storage, self.views.operand
        for phase, lines in zip(Phase, (self.text.before, self.text.loop, self.text.after), strict=True):
            self.views.phase = phase
            self.account = Account()
            served = serves(storage.steps[phase])
            for step in storage.steps[phase]:
                made: list[Statement] = []
                self.statement(step, made)
                lines += [*self.comment(step, served), *made] if made else []
        self.views.phase = Phase.LOOP
        for carry in storage.copied_carries:
            self.text.loop.append(Copy(operand([carry.before]), operand([carry.after])))
        self.views.phase = Phase.AFTER
        return self.text

    def statement(self, step: Step, lines: list[Statement]) -> None:
        """The statements of one step of the plan."""
        match step:
            case Packed():
                self.elementwise(step, lines)
            case ir.Product() if not self.in_loop:
                self.products.whole_product(step, lines)
            case ir.Product() if self.products.heads(step):
                lines.append(self.head_product(step))
            case ir.Product():
                lines.append(self.product(step))
            case ir.Concat() | ir.Slice() | ir.Roll() | ir.Reshape():
                lines.extend(self.moved(step))
            case ir.SumTo(out=out, operand=operand):
                lines.append(self.sum_to(out, operand))
            case Contraction():
                lines.append(self.contraction(step))
            case ir.CumSum(out=out, operand=operand, reverse=reverse):
                target, source = self.apart(out), self.apart(operand)
                if reverse:
                    target, source = (self.along(out, array, REVERSED) for array in (target, source))
                lines.append(Call(Library("cumsum"), (source,), target, keywords=(("axis", self.last(out)),)))
            case ir.Largest(out=out, operand=operand):
                target = self.views.operand([out], self.views.own(operand, out))
                keywords = (("axis", self.last(operand)),)
                lines.append(Call(Helper("largest"), (self.apart(operand),), target, keywords=keywords))
            case _:
                raise NotImplementedError(f"the NumPy backend has no statement for {step}")

    def apart(self, name: str) -> Expression:
        """A value with its own axes."""
        return self.views.operand([name], self.views.own(name))

    def moved(self, step: ir.Concat | ir.Slice | ir.Roll | ir.Reshape) -> list[Statement]:
        """Values in other places or shapes."""
        match step:
            case ir.Concat(out=out, parts=parts):
                target = self.apart(out)
                stretches = self.products.stretches(self.values[part].shape[-1] for part in parts)
                return [
                    Copy(self.along(out, target, stretch), self.apart(part))
                    for part, stretch in zip(parts, stretches, strict=True)
                ]
            case ir.Slice(out=out, operand=operand, start=start, stop=stop):
                stretch = Stretch(self.views.dim(start), self.views.dim(stop))
                source = self.along(operand, self.apart(operand), stretch)
                return [Copy(self.apart(out), source)]
            case ir.Roll(out=out, operand=operand, shift=shift):
                source = Apply(Library("roll"), (self.apart(operand), shift), (("axis", self.last(out)),))
                return [Copy(self.apart(out), source)]
            case ir.Reshape(out=out, operand=operand):
                place = self.views.storage.place
                if self.views.alias(out) == out and place.get(out) != place.get(operand, ()):
                    return [Copy(self.views.operand([out]), self.views.operand([operand]))]
                return []

    def product(self, step: ir.Product) -> Call:
        """A product in the loop."""
        views = self.views
        weights, outs = self.products.weights(step), views.ordered(step.outs)
        left = self.transposed(weights, step) if step.transposed is self.orientation.features_first else weights
        right = views.operand(views.ordered(step.operands))
        if self.orientation.features_first:
            return self.call("dot", (left, right), views.operand(outs))
        block = views.storage.block(outs)  # of matrices side by side, one is no array in C order, which dot demands
        assert block is not None
        return self.call("dot" if len(outs) == views.slots(block) else "matmul", (right, left), views.operand(outs))

    def last(self, name: str) -> int:
        """The position of a value's last axis in its array."""
        return self.orientation.last_axis(apart=len(self.values[name].shape) > 1, steps=not self.in_loop)

    def along(self, name: str, array: Expression, stretch: Stretch) -> Expression:
        """A stretch of the last axis of a value's array."""
        match self.last(name):
            case -1:
                return Index(array, (ELLIPSIS, stretch))
            case -2:
                return Index(array, (ELLIPSIS, stretch, EVERYTHING))
            case 0:
                return Index(array, (stretch,))
        return Index(array, (EVERYTHING, stretch))

    def sum_to(self, out: str, operand: str) -> Call:
        """A sum over the axes of ``operand`` along which ``out`` has size 1."""
        large, target = self.values[operand].shape, self.views.operand([out], self.views.own(operand, out))
        small = (sympy.Integer(1),) * (len(large) - len(self.values[out].shape)) + self.values[out].shape
        first = (not self.in_loop) + (not self.orientation.features_first)
        axes = [k + first for k, (m, n) in enumerate(zip(large, small, strict=True)) if m != n]
        axis = (("axis", axes[0] if len(axes) == 1 else Items(tuple(axes))),)
        source, keep = self.apart(operand), (("keepdims", TRUE),)
        if not self.in_loop:
            return Call(Library("sum"), (source,), target, keywords=(*axis, *keep))
        return Call(self.function("total", Library("add.reduce")), (source,), target, keywords=axis, options=keep)

    def contraction(self, step: Contraction) -> Call:
        """A sum of products, by the letters of its axes; ``t`` and ``b`` are those of time and batch."""
        views, time = self.views, "" if self.in_loop else "t"
        arrays: list[Expression] = []
        letters: list[str] = []
        for name in (step.left, step.right, step.out):
            shape = self.values[name].shape
            padded = (sympy.Integer(1),) * (len(step.shape) - len(shape)) + shape
            axes = {letter: axis for letter, axis in zip("ijk", padded, strict=False) if axis != 1}
            sizes = tuple(map(views.dim, axes.values()))
            if name in views.around.constants:
                matrix = views.matrix(name)
                arrays.append(reshaped(matrix, *sizes) if len(axes) < len(shape) else matrix)
                letters.append("".join(axes))
            else:
                arrays.append(views.operand([name], sizes))
                own = "".join(axes or "n")  # n: the axis of a single number
                letters.append(f"{time}{own}b" if self.orientation.features_first else f"{time}b{own}")
        left, right, out = letters
        function = Library("einsum") if time else self.function("einsum")
        return Call(function, (Literal(f"{left},{right}->{out}"), *arrays[:2]), arrays[2])

    def elementwise(self, step: Packed, lines: list[Statement]) -> None:
        """A call of a function that works number by number."""
        shape = self.values[step.outs[0]].shape
        columns = [c for c in step.args if not isinstance(c, Scalar)]
        mixed = len(step.outs) == 1 and is_mixed(shape, (self.values[c[0]].shape for c in columns))

        def array(names: Sequence[str]) -> Expression:
            return self.views.operand(names, self.views.axes(self.values[names[0]].shape, len(shape)) if mixed else ())

        args = [self.number(c.value) if isinstance(c, Scalar) else array(c) for c in step.args]
        if not mixed and self.makes_result(step):
            lines.append(Bind(self.new(step.outs[0]), Apply(self.function(step.ufunc), tuple(args))))
            return
        out = array(step.outs)
        flat = () if mixed else self.to_move(step)
        if flat:
            source = array(flat)
            lines.append(Call(Helper("move"), (source,), out, Out.LAST))
            args = [out if arg == source else arg for arg in args]
        if step.ufunc == "copyto":
            if not flat:
                lines.append(Copy(out, args[0]))
        elif step.ufunc in HELPERS:
            lines.append(Call(Helper(step.ufunc), tuple(args), out))
        elif step.ufunc == "negative":  # NumPy 2.4's is wrong in place where the stride is 16 (float32) or 64 bytes (float64)
            lines.append(self.call("multiply", (*args, self.number(sympy.Integer(-1))), out))
        else:
            lines.append(self.call(step.ufunc, tuple(args), out))

    def makes_result(self, step: Packed) -> bool:
        """Whether the call can make the array of its result, which is then given out as it is: in one step alone."""
        views = self.views
        (name, *more), columns = step.outs, [c for c in step.args if not isinstance(c, Scalar)]
        if views.around.lead or self.orientation.features_first or more or step.ufunc in NEEDS_OUT:
            return False
        whole = any(self.values[c[0]].shape == self.values[name].shape and not views.is_constant(c[0]) for c in columns)
        members = views.storage.buffers[views.storage.place[name][0]].members
        return whole and name in views.program.outputs and members == ((name,),)

    def to_move(self, step: Packed) -> tuple[str, ...]:
        """An argument from a product over all steps that is better brought to the result's place first, and worked on there."""
        places = self.views.storage.place
        homes = {name: self.views.storage.home(name) for name in (*step_reads(step), *step.outs) if name in places}
        flat = {c for c in step.args if not isinstance(c, Scalar) and homes.get(c[0]) is Home.FLAT}
        taken = {places[name] for name in step.outs} & {places[name] for name in step_reads(step) if name in places}
        lasting = homes[step.outs[0]] in (Home.SEQUENCE, Home.HISTORY)
        return flat.pop() if len(flat) == 1 and lasting and not taken and step.ufunc not in HELPERS else ()

    def new(self, name: str) -> Local:
        """The local name of an array that a call makes."""
        block = self.views.storage.block([name])
        assert block is not None
        made = Local(self.views.names.get(("step", block, ()), self.views.block_name(block)))
        self.views.made[block] = made
        return made

    def call(self, function: str, args: tuple[Expression, ...], out: Expression) -> Call:
        """A call of a NumPy function; in the loop under a local name and with the result's place last, which is faster."""
        if not self.in_loop:
            return Call(Library(function), args, out)
        return Call(self.function(function), args, out, Out.KEYWORD if function in KEYWORD_OUT else Out.LAST)

    def function(self, name: str, meaning: Library | None = None) -> Local:
        """The local name of a function that the loop calls."""
        key = ("function", name)
        if key not in self.views.bound:
            self.views.bound[key] = Local(self.views.names.get(key, name))
            self.text.functions.append((self.views.bound[key], meaning or Library(name)))
        return self.views.bound[key]

    def number(self, value: sympy.Expr) -> Expression:
        """A number: as it is, in the loop an array without axes, which a ufunc takes up faster."""
        if not self.in_loop:
            return Number(value)
        key = ("number", number_text(value) if value.is_number else value)  # 1/2 and 0.5 are one
        if key not in self.views.bound:
            self.views.bound[key] = Local(self.views.names.get(key, number_name(value)))
            array = Apply(Library("array"), (Number(value), Word("dtype")))
            self.text.locals.append(Bind(self.views.bound[key], array))
        return self.views.bound[key]

    def transposed(self, weights: Word | Local, product: ir.Product) -> Expression:
        """The weights of a product in the loop the other way round."""
        views, key = self.views, ("transposed", weights.name)
        wanted = Like(weights.name, "_T")
        if not self.orientation.features_first:
            return views.bind(key, wanted, Apply(Helper("from_left"), (weights,)))
        if key in views.bound or not views.around.lead:
            return views.bind(key, wanted, Attribute(weights, "T"))
        name = views.bound[key] = Local(views.names.get(("buffer", key), wanted))
        sides = (views.rows(self.values[n].shape for n in side) for side in (product.outs, product.operands))
        buffer = views.new_buffer(name.name, tuple(sides))
        self.text.locals.append(Bind(name, Apply(Helper("transposed"), (weights, T, B, buffer))))
        return name

    def head_product(self, step: ir.Product) -> Call:
        """A product head by head, in the loop."""
        views, weights = self.views, self.products.head_weights(step)
        outs = views.ordered(step.outs)
        if not isinstance(weights, Word | Local):
            whole = root(weights)
            assert isinstance(whole, Word | Local)
            weights = views.bind(("weights", weights), Like(whole.name, "_T" if step.transposed else "_heads"), weights)
        operand = views.operand(step.operands, views.own(step.operands[0]))
        blocks = (sympy.Integer(len(outs)),) * (len(outs) > 1)
        return self.call("matmul", (weights, operand), views.operand(outs, (*blocks, *views.own(outs[0]))))

    def pack_constants(self) -> None:
        """Fill the buffers that hold several constants side by side."""
        views = self.views
        for index, slots in enumerate(views.storage.buffers):
            if slots.home is Home.CONSTANT:
                buffer = views.buffer(index)
                name = views.bound["constant", Block(index, 0, len(slots.shapes)), ()] = Local(buffer.name)
                views.text.prologue.append(Bind(name, buffer))
                stretches = self.products.stretches(map(ir.size, slots.shapes))
                for (member, *_), stretch in zip(slots.members, stretches, strict=True):
                    views.text.prologue.append(views.fill(member, self.orientation.part(name, stretch, steps=False)))


def serves(steps: Sequence[Step]) -> dict[str, str]:
    """For each nameless value that ``steps`` define, the named one that it is first a part of."""
    found: dict[str, str] = {}
    for step in reversed(steps):
        for name, out in _readers(step):
            if name.startswith("%"):
                found[name] = found.get(out, out)
    return found


def _readers(step: Step) -> Iterator[tuple[str, str]]:
    """What a step reads, each with what is made of it."""
    if isinstance(step, Packed):
        for column in step.args:
            yield from () if isinstance(column, Scalar) else zip(column, step.outs, strict=False)
    else:
        (out, *_) = step_writes(step)
        yield from ((name, out) for name in step_reads(step))
