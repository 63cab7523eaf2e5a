"""The adjoint of a Program: reverse-mode differentiation by source transformation.

For ``out = op(a, b, …)`` each operation has a transpose rule (:meth:`cellspec.ir.Operation.transpose`) that turns the cotangent
``d:out`` into contributions to ``d:a``, ``d:b``, …. Derivatives of functions are written in terms of their results
(``i*(1 - i)``), which is why lowering gives every function application a value of its own.

The backward step of a recurrence runs from the last step to the first. Its carries are the cotangents of the states: it reads
``d:h[t] <-`` (what later steps contribute) and defines ``d:h[t-1]``. Likewise its delays, ``d:h[t] <-3`` and ``d:h[t-3]``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

import sympy

from cellspec import ir
from cellspec.ir import Op, Operation, Program, Value, symbol
from cellspec.ir.ops.row import Part, cotangent
from cellspec.model.nodes import Shape
from cellspec.passes.simplify import simplify


def later(name: str, steps: int = 1) -> str:
    """The name of what later steps, or the step ``steps`` later, contribute to the cotangent of the state value ``name``."""
    return f"d:{name}<-{'' if steps == 1 else steps}"


def given(name: str) -> str:
    """The name of the cotangent that the caller gives for the output ``name``."""
    return f"d:{name} given"


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
    """Walks a program backwards, collecting for every value the terms of its cotangent: what transpose rules write to."""

    forward: Program
    wanted: set[str]
    values: dict[str, Value] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    terms: defaultdict[str, list[sympy.Expr]] = field(default_factory=lambda: defaultdict(list))
    parts: defaultdict[str, list[tuple[Part, str]]] = field(default_factory=lambda: defaultdict(list))
    active: set[str] = field(default_factory=set)
    cotangents: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.cotangents = set(map(cotangent, self.forward.values))
        self.active = set(self.wanted)
        for op in self.forward.ops:
            if not op.traits.stops and any(name in self.active for name in self.forward.args(op)):
                self.active.update(ir.outs(op))

    def add(self, name: str, term: sympy.Expr) -> None:
        """Add ``term`` to the cotangent of ``name``, if anything wanted depends on it."""
        if name in self.active and term != 0:
            self.terms[name].append(term)

    def shape(self, name: str) -> Shape:
        """The shape of a value of the forward program."""
        return self.forward.shape(name)

    def wants(self, name: str) -> bool:
        """Whether the cotangent of ``name`` is asked for, or leads to one that is."""
        return name in self.active

    def terms_of(self, name: str) -> int:
        """How many terms the cotangent of ``name`` has so far."""
        return len(self.terms[name])

    def collect(self, part: Part, d_out: str) -> None:
        """Note the cotangent of a part, to be put together with those of the other parts of the same value."""
        self.parts[part.operand].append((part, d_out))

    def emit(self, op: Operation, shape: Shape, of: str) -> sympy.Symbol:
        """Add an operation; the symbol of its result, which belongs to the same equation as the forward value ``of``.

        It has the name of the operation's result unless that is taken, or that of a cotangent: ``d:A`` transposed is not the
        cotangent of ``A.T``, though both may be called ``d:A.T``.
        """
        (name,) = op.defines()
        out, number = name, 2
        while out in self.values or out in self.cotangents:
            out, number = f"{name}#{number}", number + 1
        return self.define(cast(Op, op.defining(out)), shape, self.forward.values[of].origin)

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
                op.transpose(self, self.finish(out))

    def gather(self, name: str) -> None:
        """Add what the cotangents of parts of ``name`` make together to its terms."""
        kinds: defaultdict[type[Part], list[tuple[Part, str]]] = defaultdict(list)
        for part, d_out in self.parts.pop(name, []):
            kinds[type(part)].append((part, d_out))
        if name in self.active:
            for kind, parts in kinds.items():
                kind.assemble(self, name, parts)

    def totals(self, name: str) -> Iterable[ir.Total]:
        """The totals of a constant: a term that is one operation's result for itself, pointwise terms in one sum."""
        value = self.forward.values[name]
        self.gather(name)
        alone = [term for term in self.terms[name] if term.is_Symbol and self.values[term.name].shape == value.shape]
        rest = [term for term in self.terms[name] if term not in alone]
        for term in alone:
            yield ir.Total(cotangent(name), str(term.name))
        if rest:
            out = self.emit(ir.Pointwise(f"{cotangent(name)} each", sympy.Add(*rest)), value.shape, name)
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
