"""What the comments of a module say above its lines: the equation that they compute, or what they pass back, and to where.

In the forward direction that is the equation itself. In the backward direction it follows from the name of a cotangent ``d:V``:

- of the sum within an equation, or of another part of its right side: ``back through n = phi(Wn @ x[t] + …)``;
- of an equation's result, or of a state before the step, with its readers: ``back to c[t-1], from c[t] = f*c[t-1] + i*g``;
- made by a product with transposed weights: ``back through [Uu; Ur] @ h[t-1]``.

What stands in several places of a phase is said in full once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cellspec import ir
from cellspec.ir import Program, Value
from cellspec.model.equations import Equation
from cellspec.model.nodes import refs
from cellspec.pipeline import Compiled

AGAIN = " again"
"""What is added to the origin of values that the backward pass computes as the forward pass has."""

LONGEST = 100
"""A longer remark gives way to a shorter one that says less."""

GRADIENTS = "gradients of the parameters: products and sums over all steps and samples"
"""The remark on what follows the backward loop."""

_SHORT_PART = 40
"""A part of an equation is written out up to this length."""

_HERE, _NEXT, _LAST, _KEPT = " here", " next", " last", " kept"
"""Endings of values that masks and carries have had added."""

_MASKED = {
    "<-" + _HERE: "what comes back from the next step, unless the sequence ends or is reset in between",
    _HERE: "the state before the step, put back where the sequence is reset",
    _NEXT: "the state for the next step, put back where the sequence is reset",
}


@dataclass(frozen=True)
class Remark:
    """What is said of lines, ``text``; of those that go on with the same, ``way`` and what it leads to or through."""

    text: str
    way: str
    label: str


@dataclass
class Account:
    """What has been said already, and what was said last, in a stretch of code that is read from its beginning."""

    said: set[Remark] = field(default_factory=set)
    last: tuple[Remark, ...] = ()

    def lines(self, remarks: Iterable[Remark | None]) -> list[str]:
        """What to say of the next lines: nothing while they go on with the same."""
        now = tuple(dict.fromkeys(remark for remark in remarks if remark is not None))
        if set(now) <= set(self.last):
            return []
        self.last = now
        lines = [remark.text for remark in now if remark not in self.said]
        known: dict[str, list[str]] = {}
        for remark in now:
            if remark in self.said:
                known.setdefault(remark.way, []).append(remark.label)
        self.said.update(now)
        return [*lines, *(f"{way}{_and(labels)}, continued" for way, labels in known.items())]


@dataclass(frozen=True)
class Remarks:
    """The remarks of one direction of a cell."""

    forwards: bool
    program: Program  # one step with every equation
    again: Collection[str]  # what the backward pass repeats of the forward pass
    equations: Mapping[str, Equation]  # by the names of their targets
    readers: Mapping[str, tuple[Equation, ...]]  # by the values that they read
    made: Mapping[str, ir.Op]  # by what they define
    order: Mapping[str, int]  # the place of each parameter in the spec

    @classmethod
    def of(cls, compiled: Compiled, forwards: bool) -> Remarks:
        """The remarks of a direction of ``compiled``."""
        cell, program = compiled.cell, compiled.equations
        readers: defaultdict[str, tuple[Equation, ...]] = defaultdict(tuple)
        for equation in cell.assignments:
            for name in dict.fromkeys(ref.label for ref in refs(equation.value)):
                readers[name] += (equation,)
        equations = {e.target.name: e for e in cell.assignments}
        made = {name: op for op in program.ops for name in ir.outs(op)}
        order = {param.name: k for k, param in enumerate(cell.params)}
        return cls(forwards, program, frozenset(compiled.again), equations, readers, made, order)

    @cached_property
    def named(self) -> frozenset[str]:
        """The values that the spec has a name for, and that are no parameters."""
        given = (*self.program.befores, *self.program.sequences)
        return frozenset((*given, *(e.target.label for e in self.equations.values())))

    @cached_property
    def later(self) -> dict[str, str]:
        """Who reads a step's values besides its own equations."""
        found = {delay.after: "later steps" for delay in self.program.delays}
        return found | {carry.after: "the next step" for carry in self.program.carries}

    def about(self, value: Value, op: object = None) -> Remark | None:
        """The remark on the lines that compute ``value``, be it by the product ``op``; None if there is nothing to say."""
        for ending, text in _MASKED.items():
            if value.origin and value.name.endswith(ending):
                return _same(text)
        origin = value.origin.removesuffix(AGAIN)
        equation = self.equations.get(origin)
        if self.forwards:
            return Remark(equation.text, "", equation.target.label) if equation else None
        if value.origin.endswith(AGAIN) or value.name in self.again:
            return self.repeated(value.name, equation)
        return self.backward(value.name, equation, op)

    def repeated(self, name: str, equation: Equation | None) -> Remark | None:
        """The remark on what the backward pass computes as the forward pass has."""
        if equation is None:
            return None
        label = equation.target.label
        part = "" if name == label else self.part(name)
        text = f"{part}, in {label}" if part else equation.text if name == label else f"a part of {equation.text}"
        return Remark(f"again: {text}", "again: ", label)

    def backward(self, name: str, equation: Equation | None, op: object) -> Remark | None:
        """The remark on what passes cotangents back."""
        name = name.removesuffix(_KEPT)
        if isinstance(op, ir.Product) and op.transposed and (remark := self.products(op)):
            return remark
        stem = name.rstrip("0123456789")
        if stem.endswith(("*", "+")) and name not in self.program.values:
            remark = self.cotangent(stem[:-1], equation, within=True)
            return remark and Remark(f"for the way {remark.text}", f"for the way {remark.way}", remark.label)
        return self.cotangent(name.removesuffix("@"), equation, within=False)

    def cotangent(self, name: str, equation: Equation | None, within: bool) -> Remark | None:
        """The remark on a cotangent; what comes from outside the step's equations is left out of those ``within`` them."""
        of = name.removeprefix("d:")
        if name.startswith("d:") and of in self.named:
            return self.to(of, within)
        through = self.through(name)
        if through and (part := self.operand(through[1])):
            return _same(f"back through {through[0]} @ {part}")
        if equation is None:
            return None
        label = equation.target.label
        return Remark(_fitting(f"back through {equation.text}", f"back through {label}"), "back through ", label)

    # --- where cotangents go ----------------------------------------------------------------------------------

    def to(self, name: str, within: bool) -> Remark:
        """The remark on the sum of all that comes back to ``name``."""
        readers = self.readers.get(name, ())
        outside = ["the output"] if name in self.program.outputs else []
        outside += [self.later[name]] if name in self.later else []
        short = f"back to {name}"
        texts = [e.text for e in readers] if len(readers) == 1 else [e.target.label for e in readers]
        labels = [e.target.label for e in readers]
        found = short
        for each in (labels, texts):
            sources = [*([] if within else outside), *each]
            longer = f"{short}, from {_and(sources)}" if sources else short
            found = _fitting(longer, found)
        return Remark(found, "back to ", name)

    def products(self, op: ir.Product) -> Remark | None:
        """The remark on products with transposed weights."""
        found = []
        for out, weights in zip(op.outs, op.weights, strict=True):
            through = self.through(out)
            operand = self.operand(through[1] if through else out.removeprefix("d:").rstrip("0123456789").rstrip("+@*"))
            if not operand:
                return None
            ordered = sorted(weights, key=lambda name: self.order.get(name, len(self.order)))
            found.append((ordered, operand))
        text = "back through " + ", ".join(f"{_stack(weights)} @ {operand}" for weights, operand in found)
        few = "back through " + ", ".join(f"{_stack((w[0], '…', w[-1]))} @ {operand}" for w, operand in found)
        return _same(_fitting(text, few))

    def through(self, name: str) -> tuple[str, str] | None:
        """The weights and the operand of the product that a cotangent ``U.T@d:U@v`` has come back through."""
        _, turned, product = name.partition(".T@d:")
        op = self.made.get(product) if turned else None
        return (op.left, op.right) if isinstance(op, ir.MatMul) else None

    def operand(self, name: str) -> str:
        """What a product was made with, as a factor; "" if that is long."""
        if name in self.named:
            return name
        part = self.part(name)
        return part if part.isidentifier() or not part else f"({part})"

    def part(self, name: str) -> str:
        """What a nameless part of an equation is; "" if that is long, or made of nameless parts itself."""
        op = self.made.get(name)
        if not isinstance(op, ir.Pointwise):
            return ""
        text = str(op.expr)
        whole = all(symbol.name in self.named or symbol.name in self.order for symbol in op.expr.free_symbols)
        return text if whole and len(text) <= _SHORT_PART else ""


def _same(text: str) -> Remark:
    """A remark that is never shortened."""
    return Remark(text, text, "")


def _fitting(text: str, shorter: str) -> str:
    """``text`` if it is not too long."""
    return text if len(text) <= LONGEST else shorter


def _and(items: Sequence[str]) -> str:
    """A list in words."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _stack(weights: Sequence[str]) -> str:
    """Matrices on top of one another."""
    return "; ".join(weights) if len(weights) == 1 else f"[{'; '.join(weights)}]"
