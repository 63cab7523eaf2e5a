"""Program: the intermediate representation, one step of a cell (or of its adjoint) in A-normal form.

Every operation defines one named value, once. A program knows nothing of batches, devices or the loop over time; it only says
which values are the same at every step (``constants``), which are given for each step (``sequences``), and which come from
the neighbouring step (``carries``) or one further away (``delays``). Value names read like the spec: ``i``, ``h[t-1]``,
``Wi@x[t]``, ``i.pre``, ``d:i.pre``. None of them but a spec's own names is a Python identifier, so they never clash; backends
turn them into identifiers. Operations are defined in :mod:`cellspec.ir.ops`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cellspec.ir.ops import Op, operands, outs
from cellspec.model.nodes import Shape


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
