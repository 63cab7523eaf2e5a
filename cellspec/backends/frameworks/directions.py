"""A scheduled program as functional array code: what is computed for all steps, the step that a scan repeats, and the rest.

Arrays are ``[T, B, n]`` before and after the loop and ``[B, n]`` within. What a step reads of arrays over all steps it is
handed as rows of them, and what is read of its values afterwards it hands out as rows; so a value has one name everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.spelling import Spelling
from cellspec.backends.dims import tuple_text
from cellspec.backends.naming import Names, identifier
from cellspec.backends.plain import bare, dim_text
from cellspec.backends.remarks import GRADIENTS, Account, Remarks
from cellspec.ir import Op
from cellspec.model.nodes import Shape
from cellspec.passes.schedule import Gradient, Schedule

WIDTH = 108
"""A longer line, without its indentation, is to be broken: see :mod:`cellspec.backends.wrap`."""

LONGEST_NAME, LONGEST_PART = 30, 48
"""A longer name of a value that no equation has gives way to ``part``; a longer text is not written into another."""


@dataclass(frozen=True)
class Given:
    """The texts of a value that is given for each step: the array over all steps, and a step's row of it."""

    whole: str
    row: str


@dataclass(frozen=True)
class Around:
    """What surrounds a direction's code.

    ``constants``, ``sequences`` and ``befores`` are the texts of what it is given: the same at every step, for each step, and
    carried into a step. ``kept`` are the values of which others read all steps afterwards, ``handed`` those that a step hands
    on, ``labels`` those that equations define. ``like`` is an array of the right kind.
    """

    names: Names
    constants: Mapping[str, str]
    sequences: Mapping[str, Given]
    befores: Mapping[str, str]
    kept: Sequence[str]
    handed: Sequence[str]
    labels: frozenset[str]
    dims: Mapping[str, str]
    remarks: Remarks
    spelling: Spelling
    like: str


@dataclass
class Direction:
    """The text of one direction.

    ``read`` are the rows that a step is handed, with the arrays that they are of; ``rows`` those that it hands out.
    ``steps`` and ``step`` are the texts of values over all steps and within one, ``totals`` the variables of gradients.
    """

    before: list[str] = field(default_factory=list)
    read: dict[str, str] = field(default_factory=dict)
    loop: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    totals: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    step: dict[str, str] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)


def direction(schedule: Schedule, around: Around) -> Direction:
    """One direction's code."""
    return _Writer(schedule, around).written()


@dataclass(frozen=True)
class _Section:
    """A stretch of code: how it prints, where its lines go, and the values that its only reader may be written with."""

    plain: Plain
    lines: list[str]
    inlined: frozenset[str]
    account: Account = field(default_factory=Account)


class _Writer:
    def __init__(self, schedule: Schedule, around: Around) -> None:
        self.schedule, self.program, self.around = schedule, schedule.program, around
        self.result = result = Direction()
        constants = {*around.constants, *(out for op in schedule.prologue for out in ir.outs(op))}
        uses = _uses(schedule, (*around.kept, *around.handed))
        self.texts: dict[str, str] = dict(around.constants)
        self.stacks: dict[str, str] = {}

        def section(ops: Sequence[Op], lines: list[str], batched: bool = True, lead: str = "B") -> _Section:
            values, like, words = self.program.values, around.like, around.spelling
            plain = Plain(values, around.constants, around.dims, batched, constants, like, words, lead)
            read = {name for op in ops if isinstance(op, ir.Pointwise) for name in self.program.args(op)}
            return _Section(plain, lines, frozenset(name for name in read if uses[name] == 1))

        self.once = section(schedule.prologue, result.before, batched=False)
        self.early = section(schedule.before, result.before, lead="T, B")
        self.loop = section(schedule.loop, result.loop)
        self.late = section(schedule.after, result.after, lead="T, B")

    def written(self) -> Direction:
        schedule, result = self.schedule, self.result
        once, early, loop, late = self.once.plain, self.early.plain, self.loop.plain, self.late.plain
        for op in schedule.prologue:
            self.write(op, self.once)
        for plain in (early, loop, late):
            plain.texts |= once.texts
        early.texts |= {name: given.whole for name, given in self.around.sequences.items()}
        for op in schedule.before:
            self.write(op, self.early)
        self.hand_in()
        for op in schedule.loop:
            self.write(op, self.loop)
        late.texts |= early.texts
        self.hand_out()
        for op in schedule.after:
            self.write(op, self.late)
        self.gradients()
        result.steps, result.step = late.texts, loop.texts
        result.helpers = once.helpers | early.helpers | loop.helpers | late.helpers
        return result

    # --- what goes into the loop and out of it ----------------------------------------------------------------

    def hand_in(self) -> None:
        """Rows of what the loop reads that is known for all steps, and what is carried into it."""
        texts, wholes = self.loop.plain.texts, self.early.plain.texts
        made = {out for op in self.schedule.before for out in ir.outs(op)}
        for name in dict.fromkeys(name for op in self.schedule.loop for name in self.program.args(op)):
            if name in self.around.sequences:
                texts[name] = self.around.sequences[name].row
            elif name in made:
                texts[name] = wholes[name]
            else:
                continue
            self.result.read[texts[name]] = wholes[name]
        texts |= self.around.befores

    def hand_out(self) -> None:
        """Rows of what is read of the loop's values afterwards."""
        schedule, texts = self.schedule, self.loop.plain.texts
        inside = {out for op in schedule.loop for out in ir.outs(op)} | set(self.around.befores)
        for name in dict.fromkeys((*self.around.kept, *_late(schedule))):
            if name in inside:
                self.late.plain.texts[name] = texts[name]
                self.result.rows.append(texts[name])

    # --- statements -------------------------------------------------------------------------------------------

    def write(self, op: Op, section: _Section) -> None:
        """The statement of ``op``, or its text for the one expression that reads it."""
        if isinstance(op, ir.Product):
            self.product(op, section)
            return
        (out,) = ir.outs(op)
        self.bind(op, self.right_side(op, out, section.plain), section, _closed(op))

    def right_side(self, op: Op, out: str, plain: Plain) -> str:
        """The text of ``op``, an array with all axes in front and of its whole shape unless it is a constant."""
        shape = self.program.shape(out)
        if not plain.batched:
            return plain.whole(op, shape, tuple_text(shape, plain.dims), plain.dtype)
        text = bare(plain.op(op, shape))
        if not isinstance(op, ir.Pointwise):
            return text
        varies = any(name not in plain.constants for name in self.program.args(op))
        if varies and plain.spans(op, shape):
            return text
        return plain.word("full", shape=_axes(shape, plain), value=text, dtype=plain.dtype)

    def bind(self, op: Op, text: str, section: _Section, closed: bool) -> None:
        """The result of ``op`` is ``text``: a variable, unless one expression alone reads it, of the same section."""
        (out,) = ir.outs(op)
        if out in section.inlined and out not in self.around.labels and len(text) <= LONGEST_PART:
            section.plain.texts[out] = text if closed else f"({text})"
            return
        self.explain(out, op, section)
        section.plain.texts[out] = self.name(out)
        section.lines.append(wrapped(f"{section.plain.texts[out]} = ", text))

    def product(self, op: ir.Product, section: _Section) -> None:
        """Packed products as one: of stacked weights, with vectors side by side."""
        plain = section.plain
        weights = self.stacked(op)
        vector = self.joined([plain.full(name) for name in op.operands], -1)
        if len(self.program.shape(op.weights[0][0])) == 3:
            text = plain.word("heads transposed" if op.transposed else "heads", left=weights, right=vector)
        else:
            text = f"{vector} @ {weights}{'' if op.transposed else '.T'}"
        if len(op.outs) == 1:
            self.bind(op, text, section, closed=False)
            return
        plain.texts |= {out: self.name(out) for out in op.outs}
        parts = self.parts(text, [self.program.shape(out)[-1] for out in op.outs], -1)
        section.lines.append(unpacked([plain.texts[out] for out in op.outs], parts))

    def stacked(self, op: ir.Product) -> str:
        """The matrix of all weights, below and beside one another: made once, before the loop."""
        rows = [[self.once.plain.texts[weight] for weight in row] for row in op.weights]
        if op.transposed:
            rows = [list(column) for column in zip(*rows, strict=True)]
        first = len(self.program.shape(op.weights[0][0])) - 2
        text = self.joined([self.joined(row, first + 1) for row in rows], first)
        if len(op.weights) == len(op.operands) == 1:
            return text
        if text not in self.stacks:
            name = self.around.names.together([identifier(weight) for row in op.weights for weight in row])
            self.stacks[text] = self.around.names.get(("stack", text), name)
            self.result.before.append(wrapped(f"{self.stacks[text]} = ", text))
        return self.stacks[text]

    def joined(self, parts: Sequence[str], axis: int) -> str:
        """Arrays one after the other along an axis."""
        return parts[0] if len(parts) == 1 else self.around.spelling.operation("concat", parts=", ".join(parts), axis=axis)

    def parts(self, text: str, sizes: Sequence[sympy.Expr], axis: int) -> str:
        """``text`` split along an axis into parts of these sizes."""
        ends = [sympy.expand(sympy.Add(*sizes[: k + 1])) for k in range(len(sizes) - 1)]
        sizes_text, ends_text = (", ".join(dim_text(size, self.around.dims) for size in each) for each in (sizes, ends))
        return self.around.spelling.operation("split", value=text, sizes=sizes_text, ends=ends_text, axis=axis)

    # --- gradients --------------------------------------------------------------------------------------------

    def gradients(self) -> None:
        """Every total, by its target: a matrix's as one product over all steps and samples."""
        plain, found = self.late.plain, dict[str, list[str]]()
        targets = [target for g in self.schedule.gradients for target, _ in g.rows] + [s.target for s in self.schedule.sums]
        if targets:
            self.result.after.append(f"# {GRADIENTS}")
        several = {target for target, count in Counter(targets).items() if count > 1}
        for gradient in self.schedule.gradients:
            for target, text in self.gradient(gradient, several):
                found.setdefault(target, []).append(text)
        for total in self.schedule.sums:
            text = plain.word("total", value=plain.full(total.value))
            found.setdefault(total.target, []).append(text if self.program.shape(total.value) else f"{text}.reshape(())")
        for target, texts in found.items():
            self.result.totals[target] = self.name(target)
            if texts != [self.result.totals[target]]:
                self.result.after.append(wrapped(f"{self.result.totals[target]} = ", " + ".join(texts)))

    def gradient(self, gradient: Gradient, several: set[str]) -> list[tuple[str, str]]:
        """What one product gives each of its targets; of ``several`` it is a part."""
        plain, targets = self.late.plain, [target for target, _ in gradient.rows]
        left = self.joined([plain.full(left) for _, left in gradient.rows], -1)
        word = "gradients of heads" if len(self.program.shape(gradient.right)) == 2 else "gradients"
        text = plain.word(word, left=left, right=plain.full(gradient.right))
        if len(targets) == 1:
            return [(targets[0], text)]
        names = [self.name(t) if t not in several else self.name(f"{t} part {text}", f"{identifier(t)}_part") for t in targets]
        sizes = [self.program.shape(left)[-1] for _, left in gradient.rows]
        self.result.after.append(unpacked(names, self.parts(text, sizes, -2)))
        return list(zip(targets, names, strict=True))

    # --- names ------------------------------------------------------------------------------------------------

    def name(self, value: str, wanted: str = "") -> str:
        """The variable of a value."""
        wanted = wanted or identifier(value)
        return self.around.names.get(value, wanted if len(wanted) <= LONGEST_NAME else "part")

    def explain(self, out: str, op: Op, section: _Section) -> None:
        """What is to be said of ``out``, which ``op`` computes, unless it stands above."""
        for text in section.account.lines([self.around.remarks.about(self.program.values[out], op)]):
            section.lines.append(f"# {text}")


def _uses(schedule: Schedule, roots: Sequence[str]) -> Counter[str]:
    """How often each value is read."""
    uses = Counter[str]((*roots, *_late(schedule, of_loop=False)))
    for op in (*schedule.prologue, *schedule.before, *schedule.loop, *schedule.after):
        for name in schedule.program.args(op):
            uses[name] += op.expr.count(ir.symbol(name)) if isinstance(op, ir.Pointwise) else 1
    return uses


def _late(schedule: Schedule, of_loop: bool = True) -> list[str]:
    """What is read after the loop: by gradients and, ``of_loop``, by operations."""
    names = [name for op in schedule.after for name in schedule.program.args(op)] if of_loop else []
    names += [name for g in schedule.gradients for name in (*(left for _, left in g.rows), g.right)]
    return names + [total.value for total in schedule.sums]


def _closed(op: Op) -> bool:
    """Whether the text of ``op`` can stand inside any expression without parentheses."""
    if isinstance(op, ir.Pointwise):
        return bool(op.expr.is_Symbol or isinstance(op.expr, sympy.Function))
    return not isinstance(op, ir.MatMul | ir.Stop)


def _axes(shape: Shape, plain: Plain) -> str:
    return f"({plain.lead}, {', '.join(dim_text(s, plain.dims) for s in shape) or '1'})"


def wrapped(head: str, text: str) -> str:
    """``head`` and an expression, in parentheses if it is long and no call, so that it may be broken."""
    return f"{head}{text}" if len(head) + len(text) <= WIDTH or _is_call(text) else f"{head}({text})"


def _is_call(text: str) -> bool:
    """Whether ``text`` is a call or a pair of parentheses as a whole."""
    depth = 0
    for k, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and char == ")":
            return k == len(text) - 1
    return False


def unpacked(names: Sequence[str], text: str) -> str:
    """An assignment that unpacks ``text``."""
    return wrapped(f"({names[0]},) = " if len(names) == 1 else f"{', '.join(names)} = ", text)


def listed(items: Sequence[str]) -> str:
    """A tuple."""
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
