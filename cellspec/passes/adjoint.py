"""The adjoint of a Program: reverse-mode differentiation by source transformation.

For ``out = op(a, b, …)`` each operation has a transpose rule that turns the cotangent ``d:out`` into contributions to ``d:a``,
``d:b``, …; inside a pointwise expression ``sympy.diff`` gives the factors. Derivatives of functions are written in terms of
their results (``i*(1 - i)``), which is why lowering gives every function application a value of its own.

The backward step of a recurrence runs from the last step to the first. Its carries are the cotangents of the states: it reads
``d:h[t] <-`` (what later steps contribute) and defines ``d:h[t-1]``. Likewise its delays, ``d:h[t] <-3`` and ``d:h[t-3]``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import sympy

from cellspec import ir
from cellspec.ir import Op, Program, Value, symbol
from cellspec.model.nodes import Shape
from cellspec.model.primitive import divides
from cellspec.passes.simplify import simplify


def cotangent(name: str) -> str:
    """The name of the cotangent of ``name``."""
    return f"d:{name}"


def later(name: str, steps: int = 1) -> str:
    """The name of what later steps, or the step ``steps`` later, contribute to the cotangent of the state value ``name``."""
    return f"d:{name}<-{'' if steps == 1 else steps}"


def given(name: str) -> str:
    """The name of the cotangent that the caller gives for the output ``name``."""
    return f"d:{name} given"


def derivative(expr: sympy.Expr, by: sympy.Symbol, out: sympy.Symbol) -> sympy.Expr:
    """The derivative of ``out = expr``, in terms of ``out`` where a function's row is, and where ``expr`` is a quotient.

    ``q = a/b`` has the derivative ``-q/b`` by b: no square of b, which leaves the range where the derivative does not.
    """
    below = [factor for factor in sympy.Mul.make_args(expr) if divides(factor) and factor.has(by)]
    above = expr / sympy.Mul(*below)
    slopes = (factor.exp * differential(factor.base, by) / factor.base for factor in below)
    return sympy.Add(
        (differential(above, by) * sympy.Mul(*below)).xreplace({expr: out}),
        *(out * slope for slope in slopes),
    )


def differential(expr: sympy.Expr, by: sympy.Symbol) -> sympy.Expr:
    """``∂expr/∂by``, as :func:`sympy.diff` has it; that asks of every part whether it is zero, ten times as long."""
    if by not in expr.free_symbols:
        return sympy.Integer(0)
    match expr:
        case sympy.Symbol():
            return sympy.Integer(1)
        case sympy.Add(args=args):
            return sympy.Add(*(differential(arg, by) for arg in args))
        case sympy.Mul(args=args):
            return sympy.Add(*(sympy.Mul(*args[:k], differential(arg, by), *args[k + 1 :]) for k, arg in enumerate(args)))
        case sympy.Pow(base=base, exp=exponent) if by not in exponent.free_symbols:
            return expr * (differential(base, by) * exponent / base)
        case sympy.Function(args=args):
            return sympy.Add(*(expr.fdiff(k) * differential(a, by) for k, a in enumerate(args, 1) if by in a.free_symbols))
        case _:
            return sympy.diff(expr, by)


@dataclass(frozen=True)
class Adjoint:
    """A backward program and the forward values that it reads, its residuals."""

    program: Program
    residuals: tuple[str, ...]


def adjoint_step(step: Program, inputs: Collection[str], params: Collection[str]) -> Adjoint:
    """The backward step of the recurrence ``step``.

    ``inputs`` are the sequences and ``params`` the constants whose gradients are wanted; the gradient of an input is an output
    of the program, that of a constant a total over steps and samples.
    """
    builder = _Builder(step, wanted={*inputs, *params, *step.befores})
    seeds: dict[str, Value] = {}
    for name in dict.fromkeys(step.outputs):
        seeds[given(name)] = Value(given(name), step.shape(name), step.values[name].origin)
        builder.add(name, symbol(given(name)))
    links = [(c.before, c.after, 1) for c in step.carries] + [(d.before, d.after, d.steps) for d in step.delays]
    for _, after, steps in links:
        seed = later(after, steps)
        seeds[seed] = Value(seed, step.shape(after), step.values[after].origin)
        builder.add(after, symbol(seed))
    builder.values.update(seeds)
    builder.run()

    for before, _, _ in links:
        builder.finish(before)
    for name in step.sequences:
        if name in inputs:
            builder.finish(name)
    totals = [total for name in step.constants if name in params for total in builder.totals(name)]
    return builder.adjoint(
        constants=step.constants,
        sequences=tuple(given(name) for name in dict.fromkeys(step.outputs)),
        carries=tuple(ir.Carry(later(c.after), cotangent(c.before)) for c in step.carries),
        outputs=tuple(cotangent(name) for name in step.sequences if name in inputs),
        totals=tuple(totals),
        delays=tuple(ir.Delay(later(d.after, d.steps), cotangent(d.before), d.steps) for d in step.delays),
    )


def adjoint_prologue(prologue: Program, params: Collection[str], known: Collection[str]) -> Adjoint:
    """The backward program of derived parameters: from their totals ``known`` to the gradients of ``params``.

    An output ``d:W`` holds what flows to ``W`` through derived parameters, plus its own total where ``W`` is in ``known``.
    """
    builder = _Builder(prologue, wanted=set(params))
    for name in known:
        if name in prologue.values:
            seed = f"{cotangent(name)} total"
            builder.values[seed] = Value(seed, prologue.shape(name), prologue.values[name].origin)
            builder.add(name, symbol(seed))
    builder.run()
    for name in params:
        builder.gather(name)
    reached = [name for name in prologue.constants if name in params and builder.terms[name]]
    for name in reached:
        builder.finish(name)
    seeds = tuple(f"{cotangent(name)} total" for name in known if name in prologue.values)
    return builder.adjoint(
        constants=(*prologue.constants, *seeds),
        sequences=(),
        carries=(),
        outputs=tuple(map(cotangent, reached)),
        totals=(),
    )


@dataclass
class _Builder:
    """Walks a program backwards, collecting for every value the terms of its cotangent."""

    forward: Program
    wanted: set[str]
    values: dict[str, Value] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    terms: defaultdict[str, list[sympy.Expr]] = field(default_factory=lambda: defaultdict(list))
    slices: defaultdict[str, list[tuple[ir.Slice, str]]] = field(default_factory=lambda: defaultdict(list))
    members: defaultdict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    active: set[str] = field(default_factory=set)
    cotangents: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.cotangents = set(map(cotangent, self.forward.values))
        self.active = set(self.wanted)
        for op in self.forward.ops:
            if not isinstance(op, ir.Stop) and any(name in self.active for name in self.forward.args(op)):
                self.active.update(ir.outs(op))

    def add(self, name: str, term: sympy.Expr) -> None:
        """Add ``term`` to the cotangent of ``name``, if anything wanted depends on it."""
        if name in self.active and term != 0:
            self.terms[name].append(term)

    def emit(self, op: Op, shape: Shape, origin: str) -> sympy.Symbol:
        """Add an operation of the backward program; the symbol of its value.

        That has the name of the operation's result unless it is taken, or that of a cotangent: ``d:A`` transposed is not the
        cotangent of ``A.T``, though both may be called ``d:A.T``.
        """
        (name,) = ir.outs(op)
        out, number = name, 2
        while out in self.values or out in self.cotangents:
            out, number = f"{name}#{number}", number + 1
        return self.define(ir.with_out(op, out), shape, origin)

    def define(self, op: Op, shape: Shape, origin: str) -> sympy.Symbol:
        """Add the operation that defines a value of this very name, which no other has."""
        (out,) = ir.outs(op)
        self.values[out] = Value(out, shape, origin)
        self.ops.append(op)
        return symbol(out)

    def finish(self, name: str) -> str:
        """Define ``d:name`` as the sum of its terms (zero, if it has none)."""
        value = self.forward.values[name]
        self.gather(name)
        self.define(ir.Pointwise(cotangent(name), sympy.Add(*self.terms[name])), value.shape, value.origin)
        return cotangent(name)

    def run(self) -> None:
        """Apply the transpose rule of every operation, from the last to the first."""
        for op in reversed(self.forward.ops):
            (out,) = ir.outs(op)
            self.gather(out)
            if self.terms[out]:
                self.transpose(op, self.finish(out))

    def transpose(self, op: Op, d_out: str) -> None:
        """The transpose rule of ``op``: contributions to its operands' cotangents, given that of its result."""
        (out,) = ir.outs(op)
        shape, origin = self.forward.shape, self.forward.values[out].origin
        match op:
            case ir.Pointwise(expr=expr):
                for name in self.forward.args(op):
                    if name in self.active:
                        self.pointwise(name, out, expr, d_out)
            case ir.MatMul(left=left, right=right, left_t=False, right_t=False):
                if left in self.active:
                    made: Op = ir.Outer(f"{d_out}⊗{right}", d_out, right)
                    if len(shape(left)) == len(shape(right)) == 2:
                        made = ir.MatMul(f"{d_out}@{right}.T", d_out, right, right_t=True)
                    self.add(left, self.emit(made, shape(left), origin))
                if right in self.active:
                    made = ir.MatMul(f"{left}.T@{d_out}", left, d_out, left_t=True)
                    self.add(right, self.emit(made, shape(right), self.forward.values[right].origin))
            case ir.Concat(parts=parts):
                start: sympy.Expr = sympy.Integer(0)
                for k, part in enumerate(parts):
                    stop = sympy.expand(start + shape(part)[-1])
                    if part in self.active:
                        self.add(part, self.emit(ir.Slice(f"{d_out}[{k}]", d_out, start, stop), shape(part), origin))
                    start = stop
            case ir.Slice(operand=operand):
                self.slices[operand].append((op, d_out))
            case ir.Index(operand=operand, index=index):
                self.members[operand].append((index, d_out))
            case ir.Reshape(operand=operand):
                self.add(operand, self.emit(ir.Reshape(f"{d_out}.flat", d_out), shape(operand), origin))
            case ir.SumTo(operand=operand):
                self.add(operand, symbol(d_out))
            case ir.CumSum(operand=operand, reverse=reverse):
                back = ir.CumSum(f"cumsum({d_out})", d_out, not reverse)
                self.add(operand, self.emit(back, shape(operand), origin))
            case ir.Inverse(operand=operand):
                left = self.emit(ir.MatMul(f"{out}.T@{d_out}", out, d_out, left_t=True), shape(out), origin)
                both = self.emit(ir.MatMul(f"{left}@{out}.T", str(left.name), out, right_t=True), shape(out), origin)
                self.add(operand, -both)
            case ir.Transpose(operand=operand):
                self.add(operand, self.emit(ir.Transpose(f"{d_out}.T", d_out), shape(operand), origin))
            case ir.Roll(operand=operand, shift=shift):
                self.add(operand, self.emit(ir.Roll(f"roll({d_out}, {-shift})", d_out, -shift), shape(operand), origin))
            case ir.Eye() | ir.Stop() | ir.Largest():
                pass
            case _:
                raise NotImplementedError(f"no transpose rule for {op}")

    def pointwise(self, name: str, out: str, expr: sympy.Expr, d_out: str) -> None:
        """``d:name += d:out * ∂expr/∂name``, summed over the axes along which ``name`` was stretched."""
        partial = derivative(expr, symbol(name), symbol(out))
        term = symbol(d_out) * partial
        small, large = self.forward.shape(name), self.forward.shape(out)
        if small != large and term != 0 and name in self.active:
            origin = self.forward.values[out].origin
            full = self.emit(ir.Pointwise(f"{d_out}*{name}'", term), large, origin)
            term = self.emit(ir.SumTo(f"sum({full.name})", full.name), small, origin)
        self.add(name, term)

    def gather(self, name: str) -> None:
        """Add the cotangents of parts of ``name`` to its terms."""
        self.gather_members(name)
        self.gather_slices(name)

    def gather_members(self, name: str) -> None:
        """The cotangents of a family's members, stacked; zero for those that nothing reads."""
        members = self.members.pop(name, [])
        if not members or name not in self.active:
            return
        value = self.forward.values[name]
        parts = []
        for index in range(int(value.shape[0])):
            part = sympy.Add(*(symbol(d_out) for k, d_out in members if k == index))
            made = self.emit(ir.Pointwise(f"{cotangent(name)} member{index}", part), value.shape[1:], value.origin)
            parts.append(str(made.name))
        self.terms[name].append(self.emit(ir.Stack(f"{cotangent(name)} members", tuple(parts)), value.shape, value.origin))

    def gather_slices(self, name: str) -> None:
        """The cotangents of column blocks of ``name``: side by side where they tile it, else each among zeros."""
        blocks = self.slices.pop(name, [])
        if not blocks or name not in self.active:
            return
        columns = self.forward.shape(name)[-1]
        while blocks:
            row: list[tuple[ir.Slice, str]] = []
            start = sympy.Integer(0)
            while following := [b for b in blocks if b[0].start == start and b not in row]:
                row.append(following[0])
                start = following[0][0].stop
            if start != columns:
                row = blocks[:1]
            blocks = [b for b in blocks if b not in row]
            self.side_by_side(name, row)

    def side_by_side(self, name: str, row: list[tuple[ir.Slice, str]]) -> None:
        """Add the blocks of ``row``, in order, to the cotangent of ``name``, with zeros in the gaps."""
        origin = self.forward.values[name].origin
        *rows, columns = self.forward.shape(name)
        parts: list[str] = []
        start = sympy.Integer(0)
        number = len(self.terms[name])
        for op, d_out in [*row, (None, "")]:
            stop = columns if op is None else op.start
            if stop != start:
                zeros = ir.Pointwise(f"{cotangent(name)} zeros{number}.{len(parts)}", sympy.Integer(0))
                parts.append(str(self.emit(zeros, (*rows, sympy.expand(stop - start)), origin).name))
            if op is not None:
                parts.append(d_out)
                start = op.stop
        self.terms[name].append(
            self.emit(ir.Concat(f"{cotangent(name)} blocks{number}", tuple(parts)), (*rows, columns), origin)
        )

    def totals(self, name: str) -> Iterable[ir.Total]:
        """The totals of a constant: a term that is one operation's result for itself, pointwise terms in one sum."""
        value = self.forward.values[name]
        self.gather(name)
        alone = [term for term in self.terms[name] if term.is_Symbol and self.values[term.name].shape == value.shape]
        rest = [term for term in self.terms[name] if term not in alone]
        for term in alone:
            yield ir.Total(cotangent(name), str(term.name))
        if rest:
            out = self.emit(ir.Pointwise(f"{cotangent(name)} each", sympy.Add(*rest)), value.shape, value.origin)
            yield ir.Total(cotangent(name), str(out.name))

    def adjoint(
        self,
        constants: tuple[str, ...],
        sequences: tuple[str, ...],
        carries: tuple[ir.Carry, ...],
        outputs: tuple[str, ...],
        totals: tuple[ir.Total, ...],
        delays: tuple[ir.Delay, ...] = (),
    ) -> Adjoint:
        """The finished program: dead operations dropped, copies resolved, cotangents of a single use fused into it."""
        defined = {name for op in self.ops for name in ir.outs(op)} | set(sequences)
        defined |= {carry.before for carry in carries} | {delay.before for delay in delays}
        read = {name for op in self.ops for name in ir.operands(op)} & set(self.forward.values)
        residuals = tuple(sorted(read - defined - set(constants)))
        program = Program(
            values=MappingProxyType(
                {n: v for n, v in self.forward.values.items() if n in read or n in constants} | self.values,
            ),
            constants=constants,
            sequences=(*sequences, *residuals),
            carries=carries,
            ops=tuple(self.ops),
            outputs=outputs,
            totals=totals,
            delays=delays,
        )
        program = ir.typecheck(simplify(ir.typecheck(program)))
        used = {name for op in program.ops for name in program.args(op)} | {total.value for total in program.totals}
        kept = tuple(name for name in program.sequences if name in used or name in sequences)
        return Adjoint(
            ir.typecheck(replace(program, sequences=kept).with_ops(program.ops)),
            tuple(name for name in kept if name not in sequences),
        )
