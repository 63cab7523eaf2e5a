"""Storage plan → the statements of one direction, before, in and after the loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sympy

from cellspec import ir
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.numpy.instructions import HELPERS, Contraction, Scalar
from cellspec.backends.numpy.products import Products
from cellspec.backends.numpy.storage import Block, Packed, Step, is_mixed, step_reads, step_writes
from cellspec.backends.numpy.views import Text

KEYWORD_OUT = ("maximum", "minimum")
"""Ufuncs of which NumPy deprecates the call with the result's place as a positional argument."""


NEEDS_OUT = (*HELPERS, "copyto", "greater", "greater_equal", "negative")
"""Functions that are not called for a new array: of comparisons that would be one of truths."""


class Emitter(Products):
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
        for region, lines in zip(Phase, (self.text.before, self.text.loop, self.text.after), strict=True):
            self.region = region
            self.last_said = ()
            for step in self.storage.steps[region]:
                self.comment((self.values[n].origin for n in step_writes(step)), lines)
                self.statement(step, lines)
        self.region = Phase.LOOP
        for carry in self.storage.copied_carries:
            self.text.loop.append(f"np.copyto({self.operand([carry.before])}, {self.operand([carry.after])})")
        self.region = Phase.AFTER
        return self.text

    def statement(self, step: Step, lines: list[str]) -> None:
        match step:
            case Packed():
                self.elementwise(step, lines)
            case ir.Product() if self.region is not Phase.LOOP:
                self.whole_product(step, lines)
            case ir.Product() if self.heads(step):
                self.head_product(step, lines)
            case ir.Product():
                weights, outs = self.weights(step), self.ordered(step.outs)
                if step.transposed is self.orientation.features_first:
                    weights = self.transposed(weights, step)
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
            case _:
                raise NotImplementedError(f"the NumPy backend has no statement for {step}")

    def last(self, name: str) -> int:
        """The position of a value's last axis in its array."""
        apart = len(self.values[name].shape) > 1
        return self.orientation.last_axis(apart=apart, steps=self.region is not Phase.LOOP)

    def along(self, name: str, start: sympy.Expr | str, stop: sympy.Expr | str, step: str = "") -> str:
        """The index of a stretch of a value's last axis."""
        stretch = ":".join([*(p if isinstance(p, str) else self.dim(p) for p in (start, stop)), *([step] if step else [])])
        return {-1: f"..., {stretch}", -2: f"..., {stretch}, :", 0: stretch, 1: f":, {stretch}"}[self.last(name)]

    def sum_to(self, out: str, operand: str) -> str:
        """A sum over the axes of ``operand`` along which ``out`` has size 1."""
        large, target = self.values[operand].shape, self.operand([out], self.own(operand, out))
        small = (sympy.Integer(1),) * (len(large) - len(self.values[out].shape)) + self.values[out].shape
        first = (self.region is not Phase.LOOP) + (not self.orientation.features_first)
        axes = [k + first for k, (m, n) in enumerate(zip(large, small, strict=True)) if m != n]
        axis = str(axes[0]) if len(axes) == 1 else str(tuple(axes))
        source = self.operand([operand], self.own(operand))
        if self.region is not Phase.LOOP:
            return f"np.sum({source}, axis={axis}, keepdims=True, out={target})"
        return f"{self.function('total', 'np.add.reduce')}({source}, axis={axis}, out={target}, keepdims=True)"

    def contraction(self, step: Contraction) -> str:
        """A sum of products, by the letters of its axes; ``t`` and ``b`` are those of time and batch."""
        time = "" if self.region is Phase.LOOP else "t"
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

    def elementwise(self, step: Packed, lines: list[str]) -> None:
        shape = self.values[step.outs[0]].shape
        columns = [c for c in step.args if not isinstance(c, Scalar)]
        mixed = len(step.outs) == 1 and is_mixed(shape, (self.values[c[0]].shape for c in columns))

        def array(names: Sequence[str]) -> str:
            return self.operand(names, self.axes(self.values[names[0]].shape, len(shape)) if mixed else ())

        args = [self.number(c.value) if isinstance(c, Scalar) else array(c) for c in step.args]
        if not mixed and self.makes_result(step):
            name = self.new(step.outs[0])
            lines.append(f"{name} = {self.function(step.ufunc, f'np.{step.ufunc}')}({', '.join(args)})")
            return
        out = array(step.outs)
        flat = () if mixed else self.to_move(step)
        if flat:
            self.text.helpers.add("move")
            source = array(flat)
            lines.append(f"_move({source}, {out})")
            args = [out if arg == source else arg for arg in args]
        if step.ufunc == "copyto":
            if not flat:
                lines.append(f"np.copyto({out}, {args[0]})")
        elif step.ufunc in HELPERS:
            self.text.helpers.add(step.ufunc)
            lines.append(f"_{step.ufunc}({', '.join(args)}, out={out})")
        elif step.ufunc == "negative":  # NumPy 2.4's is wrong in place where the stride is 16 (float32) or 64 bytes (float64)
            lines.append(self.call("multiply", [*args, self.number(sympy.Integer(-1))], out))
        else:
            lines.append(self.call(step.ufunc, args, out))

    def makes_result(self, step: Packed) -> bool:
        """Whether the call can make the array of its result, which is then given out as it is: in one step alone."""
        (name, *more), columns = step.outs, [c for c in step.args if not isinstance(c, Scalar)]
        if self.around.lead or self.orientation.features_first or more or step.ufunc in NEEDS_OUT:
            return False
        whole = any(self.values[c[0]].shape == self.values[name].shape and not self.is_constant(c[0]) for c in columns)
        members = self.storage.buffers[self.storage.place[name][0]].members
        return whole and name in self.program.outputs and members == ((name,),)

    def to_move(self, step: Packed) -> tuple[str, ...]:
        """An argument from a product over all steps that is better brought to the result's place first, and worked on there."""
        places = self.storage.place
        homes = {name: self.storage.home(name) for name in (*step_reads(step), *step.outs) if name in places}
        flat = {c for c in step.args if not isinstance(c, Scalar) and homes.get(c[0]) is Home.FLAT}
        taken = {places[name] for name in step.outs} & {places[name] for name in step_reads(step) if name in places}
        lasting = homes[step.outs[0]] in (Home.SEQUENCE, Home.HISTORY)
        return flat.pop() if len(flat) == 1 and lasting and not taken and step.ufunc not in HELPERS else ()

    def new(self, name: str) -> str:
        """The local name of an array that a call makes."""
        block = self.storage.block([name])
        assert block is not None
        self.made[block] = self.names.get(("step", block, ()), self.block_name(block))
        return self.made[block]

    def call(self, function: str, args: Sequence[str], out: str) -> str:
        """A call of a NumPy function; in the loop under a local name and with the result's place last, which is faster."""
        if self.region is not Phase.LOOP:
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
        if self.region is not Phase.LOOP:
            return text
        known = {"0": "zero", "0.5": "half", "1": "one", "-1": "minus_one", "2": "two", "3": "three"}
        key = ("number", text)
        if key not in self.bound:
            self.bound[key] = self.names.get(key, known.get(text, "number"))
            self.text.locals.append(f"{self.bound[key]} = np.array({text}, dtype)")
        return self.bound[key]

    def transposed(self, weights: str, product: ir.Product) -> str:
        """The weights of a product in the loop the other way round."""
        key = ("transposed", weights)
        if not self.orientation.features_first:
            self.text.helpers.add("from_left")
            return self.bind(key, f"{weights}_T", f"_from_left({weights})")
        if key in self.bound or not self.around.lead:
            return self.bind(key, f"{weights}_T", f"{weights}.T")
        name = self.names.get(("buffer", key), f"{weights}_T")
        self.text.helpers.add("transposed")
        sides = (self.rows(self.values[n].shape for n in side) for side in (product.outs, product.operands))
        self.text.buffers.append((name, f"({', '.join(sides)})"))
        self.bound[key] = name
        self.text.locals.append(f"{name} = _transposed({weights}, T, B, ws.{name})")
        return name

    def head_product(self, step: ir.Product, lines: list[str]) -> None:
        """A product head by head, in the loop."""
        weights, outs = self.head_weights(step), self.ordered(step.outs)
        if not weights.isidentifier():
            weights = self.bind(("weights", weights), f"{weights.split('.')[0]}_{'T' if step.transposed else 'heads'}", weights)
        operand = self.operand(step.operands, self.own(step.operands[0]))
        blocks = (str(len(outs)),) * (len(outs) > 1)
        lines.append(self.call("matmul", [weights, operand], self.operand(outs, (*blocks, *self.own(outs[0])))))

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
