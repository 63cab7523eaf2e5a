"""How much memory a NumPy module takes: polynomials over T, B and the dims, from the layout that its buffers are written from.

Results are counted, but for single states, which do not grow with T; nothing is that the caller gives, neither x nor dy. A loop
takes its arrays apart once, into views of each step; they are objects of Python, of the same size whatever the numbers in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sympy

from cellspec import ir
from cellspec.backends.memory.model import BATCH, STEPS
from cellspec.backends.numpy.module import design
from cellspec.model.nodes import Shape
from cellspec.pipeline import Compiled

T, B, K = sympy.Symbol(STEPS), sympy.Symbol(BATCH), sympy.Dummy("k")
"""Steps, samples, and the steps between checkpoints."""


ZERO = sympy.Integer(0)
VIEW, TURN = 136, 48
"""Bytes of a view of one step, and of the tuple of all that one turn of a loop takes (NumPy 2 on 64 bits)."""


@dataclass(frozen=True)
class Size:
    """So many ``numbers``, and so many ``bytes`` of Python's objects."""

    numbers: sympy.Expr
    bytes: sympy.Expr = ZERO

    def __add__(self, other: Size) -> Size:
        return Size(self.numbers + other.numbers, self.bytes + other.bytes)

    def within(self, steps: sympy.Expr) -> Size:
        """The size for so many steps in place of T."""
        return Size(self.numbers.subs(T, steps), self.bytes.subs(T, steps))

    def formula(self, itemsize: int) -> str:
        """The size in bytes by what it grows with: ``4*((17*H + I)*T*B + 10*H*B + 16*H**2) + 2400*T``."""
        text = f"{itemsize}*({_sum(self.numbers)})"
        return f"{text} + {_sum(self.bytes)}" if self.bytes != 0 else text


@dataclass(frozen=True)
class Footprint:
    """``tape``: what is kept from the forward pass to the backward pass; ``workspace``: what both passes take together.

    ``dims`` are the dims' symbols, by name.
    """

    tape: Size
    workspace: Size
    dims: Mapping[str, sympy.Symbol]

    def at(self, itemsize: int, steps: int, batch: int, dims: Mapping[str, int], checkpoint: int = 1) -> tuple[int, int]:
        """The bytes of ``tape`` and ``workspace`` for so many steps and samples."""
        sizes = {T: steps, B: batch, K: checkpoint} | {self.dims[name]: size for name, size in dims.items()}
        tape, workspace = ((itemsize * size.numbers + size.bytes).subs(sizes) for size in (self.tape, self.workspace))
        return int(sympy.ceiling(tape)), int(sympy.ceiling(workspace))


def footprints(compiled: Compiled) -> tuple[Footprint, Footprint]:
    """The memory of a sequence that is run as a whole, and of one in segments of k steps, of which k divides T.

    A segment is run in the memory of a whole sequence of k steps. Beside it there are the state before each segment, and whole
    results.
    """
    made = design(compiled)
    layout, common = made.layout, made.setting.common
    cell, dims = compiled.cell, {name: sympy.Symbol(local) for name, local in common.dims.items()}

    def numbers(shapes: Iterable[Shape]) -> sympy.Expr:
        total = sympy.Add(*map(ir.size, shapes))
        return total.xreplace({symbol: dims[symbol.name] for symbol in total.free_symbols})

    views = {out for op in compiled.prologue.ops if op.traits.view for out in ir.outs(op)}
    derived = Size(numbers(compiled.prologue.shape(name) for name in common.derived if name not in views))
    turns = sympy.Add(*(T * (TURN + VIEW * count) for count in layout.steps if count))
    saved = Size(layout.saved.size())
    workspace = saved + Size(layout.scratch() + layout.forward.size() + layout.backward.size(), turns)

    kept = workspace.within(K) + Size(T / K * B * numbers(state.shape for state in cell.states))
    results = T * B * numbers([*(item.shape for item in cell.inputs), *(ref.shape for ref in cell.outputs)])
    results += numbers(param.shape for param in cell.params)
    return Footprint(saved + derived, workspace, dims), Footprint(kept + derived, kept + Size(results), dims)


def _sum(size: sympy.Expr) -> str:
    """A polynomial by what it grows with."""
    parts: defaultdict[tuple[int, ...], sympy.Expr] = defaultdict(lambda: sympy.Integer(0))
    for term in sympy.Add.make_args(sympy.expand(size)):
        powers = term.as_powers_dict()
        degrees = tuple(int(powers[symbol]) for symbol in (T, B, K))
        parts[degrees] += term / (T ** degrees[0] * B ** degrees[1] * K ** degrees[2])
    return " + ".join(_term(degrees, sympy.factor(parts[degrees])) for degrees in sorted(parts, key=_order))


def _order(degrees: tuple[int, ...]) -> tuple[int, ...]:
    steps, batch, between = degrees
    return (-steps, between < 0, -between, -batch)


def _term(degrees: tuple[int, ...], factor: sympy.Expr) -> str:
    steps, batch, between = degrees
    grows = ["T/k" if between < 0 else "T"] * steps + ["k"] * (between > 0) + ["B"] * batch
    text = f"({factor})" if factor.is_Add and grows else str(factor)
    return "*".join([text] * (factor != 1 or not grows) + grows)
