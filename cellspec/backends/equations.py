"""Every equation as plain array code, for one step: the body of ``step`` and ``trace``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.spelling import NUMPY, Spelling
from cellspec.backends.naming import Names, identifier
from cellspec.backends.plain import Mentioned, Noted, dim_text
from cellspec.ir import Program
from cellspec.model.equations import State
from cellspec.model.nodes import Kind, Shape
from cellspec.pipeline import Compiled


@dataclass(frozen=True)
class Assignment:
    """``target = text``, below the equation that it is, as a comment, if it is one."""

    target: str
    text: str
    comment: str = ""

    @property
    def lines(self) -> list[str]:
        return [*([self.comment] if self.comment else []), f"{self.target} = {self.text}"]


class PlainStep(TypedDict):
    """What the templates of ``step`` and ``trace`` need; ``dims`` are those that are mentioned."""

    lines: list[str]
    assignments: list[Assignment]
    streams: str
    previous: str
    traced: list[dict[str, str]]
    derived: list[dict[str, str]]
    states: list[dict[str, str]]
    shapes: dict[str, str]
    dims: list[str]


def plain_step(
    compiled: Compiled,
    constants: Mapping[str, str],
    derived: Mapping[str, str],
    dims: Mapping[str, str],
    reserved: Iterable[str],
    spelling: Spelling = NUMPY,
) -> tuple[PlainStep, set[str]]:
    """What the template of ``step`` and ``trace`` needs, and the helper functions that the equations call.

    ``constants`` are the texts of parameters and derived parameters, ``derived`` the variables of the latter, ``reserved`` the
    names that are taken.
    """
    program, cell = compiled.equations, compiled.cell
    names = Names(reserved)
    texts = dict(constants)
    several = len(cell.inputs) > 1
    streams = [f"{item.name}[t]" for item in cell.inputs]
    texts |= {name: names.get(name, f"{identifier(name)}_t") if several else "x_t" for name in streams}
    dtype = spelling.operation("like", array=texts[streams[0]])
    for ref in cell.distant:
        texts[ref.label] = f"state.{cell.keeper(ref).name}[:, {ref.back - 1}]"
    for state in cell.states:
        texts[f"{state.name}[t-1]"] = names.get(f"{state.name}[t-1]", identifier(f"{state.name}[t-1]"))
    mentioned = Mentioned(dims)
    plain = Plain(program.values, texts, mentioned, True, constants, dtype, spelling)
    labels = {e.target.label: e for e in cell.assignments}
    uses: dict[str, int] = defaultdict(int)
    for op in program.ops:
        for name in program.args(op):
            uses[name] += 1 if not isinstance(op, ir.Pointwise) else op.expr.count(ir.symbol(name))
    assignments: list[Assignment] = []
    batched = _batched(program, constants)
    # What is given out, or moved along axes, has its batch axis, even where nothing is left in it that depends on the sample.
    whole = {o.label for o in cell.outputs} | {f"{s.name}[t]" for s in cell.states}
    whole |= {name for op in program.ops if not isinstance(op, ir.Pointwise | ir.MatMul) for name in program.args(op)}
    whole |= {op.right for op in program.ops if isinstance(op, ir.MatMul) and len(program.shape(op.left)) == 3}
    for op in program.ops:
        (out,) = ir.outs(op)
        shape = program.shape(out)
        axes = Noted(_batched_axes(shape, dims))
        text = plain.whole(op, shape, axes, dtype)
        if out in whole and not batched[out] and not axes.written:
            text = spelling.operation("full", shape=axes, value=text, dtype=dtype)
        if axes.written:
            mentioned.mentioned |= {symbol.name for axis in shape for symbol in axis.free_symbols}
        if out in labels:
            plain.texts[out] = names.get(out, identifier(out))
            assignments.append(Assignment(plain.texts[out], text, f"# {labels[out].text}"))
        elif uses[out] == 1:
            plain.texts[out] = text if _closed(op, plain) else f"({text})"
        else:
            plain.texts[out] = names.get(out, identifier(out))
            assignments.append(Assignment(plain.texts[out], text))

    def after(state: State) -> str:
        if not state.rows or state.lag_of is None:
            return plain.texts[f"{state.name}[t]"]
        of_input = any(state.lag_of[0] == item.name for item in cell.inputs)
        newest = plain.texts[f"{state.lag_of[0]}[t]" if of_input else f"{state.lag_of[0]}[t-1]"]
        return shifted(newest, plain.texts[f"{state.name}[t-1]"], spelling)

    context: PlainStep = {
        "lines": [line for each in assignments for line in each.lines],
        "assignments": assignments,
        "streams": unpack(texts[name] for name in streams),
        "previous": unpack(texts[f"{s.name}[t-1]"] for s in cell.states),
        "traced": [
            {"key": e.target.name, "text": plain.texts[e.target.label]}
            for e in cell.assignments
            if e.target.kind is not Kind.DERIVED
        ],
        "derived": [
            {"key": e.target.name, "text": derived[e.target.name]} for e in cell.assignments if e.target.name in derived
        ],
        "states": [{"name": s.name, "text": after(s)} for s in cell.states],
        "shapes": {e.target.name: _batched_axes(e.target.shape, dims, "T, B") for e in cell.assignments},
        "dims": [local for name, local in dims.items() if name in mentioned.mentioned],
    }
    return context, plain.helpers


def shifted(newest: str, rows: str, spelling: Spelling = NUMPY) -> str:
    """Rows with ``newest`` in front and without the last."""
    return spelling.operation("concat", parts=f"{newest}[:, None], {rows}[:, :-1]", axis=1)


def _batched_axes(shape: Shape, dims: Mapping[str, str], lead: str = "B") -> str:
    """The shape of an array with ``lead`` axes in front, as a Python tuple."""
    return f"({lead}, {', '.join(dim_text(s, dims) for s in shape) or '1'})"


def unpack(names: Iterable[str]) -> str:
    """The left side of an assignment that unpacks a tuple."""
    listed = list(names)
    return f"({listed[0]},)" if len(listed) == 1 else ", ".join(listed)


def _closed(op: ir.Op, plain: Plain) -> bool:
    """Whether the text of ``op`` can stand inside any expression without parentheses."""
    if isinstance(op, ir.Pointwise):
        return plain.is_closed(op.expr)
    return not isinstance(op, ir.MatMul) and op.source() is None


def _batched(program: Program, constants: Iterable[str]) -> dict[str, bool]:
    """Whether plain code gives a value its batch axis and its full width."""
    known = set(constants)
    found = {n: True for n in (*program.sequences, *program.befores)}
    for op in program.ops:
        (out,) = ir.outs(op)
        args = [n for n in program.args(op) if n not in known]
        match op:
            case ir.Pointwise():
                found[out] = bool(args) and ir.stretched(program.shape(n) for n in args if found[n]) == program.shape(out)
            case ir.MatMul(right=right):
                found[out] = found.get(right, False)
            case ir.Joined():
                found[out] = True
            case _:
                found[out] = bool(args)
    return found
