"""Program: the intermediate representation, one step of a cell (or of its adjoint) in A-normal form.

Every operation defines one named value, once. A program knows nothing of batches, devices or the loop over time; it only says
which values are the same at every step (``constants``), which are given for each step (``sequences``), and which come from
the neighbouring step (``carries``) or one further away (``delays``). Value names read like the spec: ``i``, ``h[t-1]``,
``Wi@x[t]``, ``i.pre``, ``d:i.pre``. None of them but a spec's own names is a Python identifier, so they never clash; backends
turn them into identifiers. Operations are defined in :mod:`cellspec.operations` and found here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import sympy

from cellspec.cell import Shape
from cellspec.operations import (
    Concat,
    CumSum,
    Eye,
    Index,
    Inverse,
    Largest,
    MatMul,
    Op,
    Outer,
    Pointwise,
    Product,
    Reshape,
    Roll,
    Slice,
    Stack,
    Stop,
    SumTo,
    Transpose,
    operands,
    outs,
    rename,
    symbol,
    with_out,
)
from cellspec.shapes import broadcast

__all__ = [
    "Carry",
    "Concat",
    "CumSum",
    "Delay",
    "Eye",
    "Index",
    "Inverse",
    "Largest",
    "MatMul",
    "Op",
    "Outer",
    "Pointwise",
    "Product",
    "Program",
    "Reshape",
    "Roll",
    "Slice",
    "Stack",
    "Stop",
    "SumTo",
    "Total",
    "Transpose",
    "TypecheckError",
    "Value",
    "is_one",
    "operands",
    "outer",
    "outs",
    "product",
    "rename",
    "size",
    "stretched",
    "stretches",
    "symbol",
    "turned",
    "typecheck",
    "with_out",
]


@dataclass(frozen=True)
class Value:
    """A named value. ``origin`` is the equation that it belongs to: the comment beside the code that computes it."""

    name: str
    shape: Shape
    origin: str


@dataclass(frozen=True)
class Carry:
    """A loop-carried value: what a step reads (``before``) is what its neighbour has defined (``after``)."""

    before: str
    after: str


@dataclass(frozen=True)
class Delay:
    """A carry over ``steps`` > 1: what a step reads (``before``) is what the step so many turns before has defined (``after``).

    ``h[t-3]`` is ``h[t]`` three steps on. Its adjoint is one too, as a carry's is: what a step defines for the cotangent of
    ``h[t-3]`` is read three turns of the reversed loop later, by the step that defines ``h[t]``.
    """

    before: str
    after: str
    steps: int


@dataclass(frozen=True)
class Total:
    """``target`` is the sum of ``value`` over all steps and samples: a parameter's gradient."""

    target: str
    value: str


@dataclass(frozen=True)
class Program:
    """One step: operations in an order in which every operand is defined before it is read."""

    values: Mapping[str, Value]
    constants: tuple[str, ...]
    sequences: tuple[str, ...]
    carries: tuple[Carry, ...]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    totals: tuple[Total, ...] = ()
    delays: tuple[Delay, ...] = ()

    @property
    def links(self) -> tuple[Carry | Delay, ...]:
        """What joins a step to others."""
        return (*self.carries, *self.delays)

    @property
    def befores(self) -> tuple[str, ...]:
        """What a step reads of others."""
        return tuple(link.before for link in self.links)

    @property
    def afters(self) -> tuple[str, ...]:
        """What a step defines for others."""
        return tuple(dict.fromkeys(link.after for link in self.links))

    def shape(self, name: str) -> Shape:
        """The shape of a value."""
        return self.values[name].shape

    def args(self, op: Op) -> tuple[str, ...]:
        """The values that ``op`` reads, sorted where their order carries no meaning."""
        return tuple(name for name in operands(op) if name in self.values)

    def roots(self) -> tuple[str, ...]:
        """What must be computed: outputs, carries and totals."""
        return (*self.outputs, *self.afters, *(t.value for t in self.totals))

    def with_ops(self, ops: Iterable[Op], values: Mapping[str, Value] | None = None) -> Program:
        """The same program with other operations; ``values`` are added, and values that nothing names any more are dropped."""
        new = tuple(ops)
        table = {**self.values, **(values or {})}
        kept = {*self.constants, *self.sequences, *self.befores, *self.roots()}
        for op in new:
            kept.update(outs(op))
        return replace(self, ops=new, values=MappingProxyType({name: v for name, v in table.items() if name in kept}))


class TypecheckError(Exception):
    """A pass has produced a program that is not well formed: a bug in cellspec, stopped at the pass that made it."""


def typecheck(program: Program) -> Program:
    """Return ``program`` after checking single assignment, definition before use, and the shape of every operation.

    SymPy may drop what an expression reads, never add to it: whatever is read is a value, or a dim that stands for a number.
    """
    defined = {*program.constants, *program.sequences, *program.befores}
    missing = [name for name in (*defined, *program.roots()) if name not in program.values]
    if missing:
        raise TypecheckError(f"values without a type: {sorted(missing)}")
    for op in program.ops:
        for name in operands(op):
            is_dim = isinstance(op, Pointwise) and name not in program.values and name.isidentifier()
            if not is_dim and name not in defined:
                raise TypecheckError(f"{name!r} is read before it is defined, in {op}")
        for name in outs(op):
            if name in defined:
                raise TypecheckError(f"{name!r} is defined twice, in {op}")
        _check_shape(program, op)
        defined.update(outs(op))
    for name in program.roots():
        if name not in defined:
            raise TypecheckError(f"the result {name!r} is never defined")
    for link in program.links:
        if program.shape(link.before) != program.shape(link.after):
            raise TypecheckError(f"{link} changes its shape")
    return program


def _check_shape(program: Program, op: Op) -> None:
    shape = program.shape
    match op:
        case Pointwise(out=out, expr=expr):
            if expr.has(sympy.zoo, sympy.nan):
                raise TypecheckError(f"{out!r} is not a number: {expr}")
            ok = all(stretches(shape(name), shape(out)) for name in program.args(op))
        case MatMul(out=out, left=left, right=right, left_t=left_t, right_t=right_t):
            ok = product(turned(shape(left), left_t), turned(shape(right), right_t)) == shape(out)
        case Product(outs=targets, weights=weights, operands=vectors, transposed=transposed):
            ok = all(
                product(turned(shape(w), transposed), shape(v)) == shape(out)
                for out, row in zip(targets, weights, strict=True)
                for w, v in zip(row, vectors, strict=True)
            )
        case Outer(out=out, left=left, right=right):
            ok = shape(out) == outer(shape(left), shape(right))
        case Concat(out=out, parts=parts):
            heads = {shape(p)[:-1] for p in parts}
            ok = heads == {shape(out)[:-1]} and sympy.expand(sum(shape(p)[-1] for p in parts)) == shape(out)[-1]
        case Slice(out=out, operand=operand, start=start, stop=stop):
            ok = shape(out) == (*shape(operand)[:-1], sympy.expand(stop - start))
        case Transpose(out=out, operand=operand):
            ok = shape(out) == shape(operand)[::-1]
        case Eye(out=out):
            ok = len(shape(out)) == 2 and shape(out)[0] == shape(out)[1]
        case Inverse(out=out, operand=operand):
            ok = shape(out) == shape(operand) and len(shape(out)) == 2 and shape(out)[0] == shape(out)[1]
        case Index(out=out, operand=operand, index=index):
            ok = shape(out) == shape(operand)[1:] and 0 <= index < shape(operand)[0]
        case Stack(out=out, parts=parts):
            ok = all(shape(out) == (len(parts), *shape(part)) for part in parts)
        case Reshape(out=out, operand=operand):
            ok = size(shape(out)) == size(shape(operand))
        case Largest(out=out, operand=operand):
            ok = shape(out) == (*shape(operand)[:-1], 1)
        case Roll(out=out, operand=operand) | Stop(out=out, operand=operand) | CumSum(out=out, operand=operand):
            ok = shape(out) == shape(operand)
        case SumTo(out=out, operand=operand):
            ok = stretches(shape(out), shape(operand))
    if not ok:
        shapes = {name: shape(name) for name in (*outs(op), *program.args(op))}
        raise TypecheckError(f"shapes do not fit in {op}: {shapes}")


def size(shape: Shape) -> sympy.Expr:
    """The number of elements."""
    return sympy.expand(sympy.Mul(*shape))


def is_one(shape: Shape) -> bool:
    """Whether a value of this shape is a single number."""
    return all(axis == 1 for axis in shape)


def turned(shape: Shape, transposed: bool) -> Shape:
    """The shape of a matrix, or of each head's matrix, transposed or not."""
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def product(left: Shape, right: Shape) -> Shape | None:
    """The shape of ``left @ right``: ``[m, k] @ [k]``, ``[m, k] @ [k, n]``, by heads ``[n, m, k] @ [n, k]``; or None."""
    if len(left) == 3:
        return left[:2] if right == (left[0], left[2]) else None
    return (left[0], *right[1:]) if len(left) == 2 and left[1:] == right[:1] else None


def outer(left: Shape, right: Shape) -> Shape:
    """The shape of ``left rightᵀ``, for each head if they have heads."""
    return (*left, right[-1])


def stretched(shapes: Iterable[Shape]) -> Shape:
    """The shape to which values of these shapes stretch together."""
    result: Shape = ()
    for shape in shapes:
        wider = broadcast(result, shape)
        if wider is None:
            raise TypecheckError(f"shapes do not fit together: {result} and {shape}")
        result = wider
    return result


def stretches(small: Shape, large: Shape) -> bool:
    """Whether ``small`` broadcasts to ``large``: equal, or its axes of size 1 stretch, as the language allows."""
    if is_one(small):
        return len(small) <= len(large)
    return len(small) == len(large) and all(a in (b, 1) for a, b in zip(small, large, strict=True))
