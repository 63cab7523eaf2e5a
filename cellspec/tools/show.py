"""What the compiler knows of a cell at each stage, as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy

from cellspec import generate, ir
from cellspec.backends import registry
from cellspec.cell import Cell
from cellspec.errors import CellspecError, blamed
from cellspec.ir.text import program_text
from cellspec.language.spec import Cite, Initialiser
from cellspec.model.recurrence import parameter_count, recurrence, stages
from cellspec.passes.schedule import Gradient, Schedule
from cellspec.pipeline import BACKWARD, FORWARD, Compiled, compile_cell, scheduled
from cellspec.render.as_sympy import latex, pretty
from cellspec.tools import memory

if TYPE_CHECKING:
    from cellspec.backends.base import Backend
    from cellspec.verification.check import Report

INDENT = "  "


def text_of(cell: Cell, stage: str, residuals: str = "speed", backend: str | None = None) -> str:
    """What ``cellspec show`` prints: ``stage`` is equations, latex, ir, adjoint, schedule or code.

    Without a ``backend`` it is the usual one, and the schedule says besides how the others that come with cellspec run it.
    """
    chosen = registry.backend(backend or registry.DEFAULT)
    with blamed(f"cell {cell.name!r}"):
        return _text_of(cell, stage, residuals, chosen, alone=backend is not None)


def _text_of(cell: Cell, stage: str, residuals: str, backend: Backend, alone: bool) -> str:
    match stage:
        case "equations":
            return overview(cell, residuals, backend)
        case "latex":
            return latex(cell)
        case "ir":
            return _ir(cell)
        case "adjoint":
            return _adjoint(compile_cell(cell, residuals))
        case "schedule":
            return _schedules(compile_cell(cell, residuals), backend, alone)
        case "code":
            return generate(cell, backend.name, residuals)
    raise CellspecError(f"unknown stage {stage!r}")


# --- equations ---------------------------------------------------------------------------------------------


def overview(cell: Cell, residuals: str, backend: Backend) -> str:
    """Equations, what they are about, parameters, recurrence, memory, and sources."""
    parts = [f"{cell.name}: {cell.title}" if cell.title else cell.name]
    if cell.doc:
        parts.append(cell.doc)
    parts.append(_indented(pretty(cell)))
    params = [(p.name, _shape(p.shape), _initialiser(p.init) + ("" if p.trainable else ", not trained")) for p in cell.params]
    if params:
        parts.append("parameters\n" + _columns(params))
    start = [(s.name, _shape(s.shape), f"starts at {s.init:g}") for s in cell.states]
    rows = [("input", s.name, _shape(s.shape), "") for s in cell.inputs]
    rows += [("state", *row) for row in start]
    rows += [("output", ref.name, _shape(ref.shape), "") for ref in cell.outputs]
    rows += [("constant", name, f"{value:g}", "") for name, value in cell.hyper]
    rows += [("function", name, function, "") for name, function in cell.activations]
    parts.append(_columns(rows, indent=""))
    lines = [("parameters", count_of(cell)), ("stages", str(stages(cell))), ("recurrence", recurrence(cell))]
    lines += _stash(compile_cell(cell, residuals))
    lines += [("set", f"{name}={value}") for name, value in cell.settings]
    lines += [("source", _source(cite)) for cite in cell.cite]
    parts.append(_columns(lines, indent=""))
    if formulas := _memory(cell, backend):
        parts.append("memory in bytes for float32, of T steps of B samples\n" + _columns(formulas))
    return "\n\n".join(parts)


def _stash(compiled: Compiled) -> list[tuple[str, str]]:
    """What is stashed for the backward pass, and its size in float32."""
    shapes = (f"{name} {_shape(shape)}" for name, shape in memory.kept(compiled).items())
    each = memory.FLOAT32 * memory.numbers(compiled)
    state = compiled.cell.states[0]
    per_unit = memory.example(each / ir.size(state.shape))
    size = f"{sympy.factor(each)} bytes a step and sample in float32"
    there = f"{memory.example(each):,.0f} where every dim is {memory.EXAMPLE_DIM}"
    unit = f"{per_unit:.4g} a unit of {state.name}"
    return [("stash", _listed(shapes)), ("", size), ("", f"{there}, {unit}")]


def _memory(cell: Cell, backend: Backend) -> list[tuple[str, str, str]]:
    """What a module keeps between the passes, and what it takes for both, under every policy."""
    rows = []
    for residuals in backend.residual_policies:
        for one in backend.footprint(compile_cell(cell, residuals, backend), memory.FLOAT32):
            rows.append((", ".join(filter(None, (residuals, one.option))), "tape", one.tape))
            rows.append(("", "workspace", one.workspace))
    return rows


def count_of(cell: Cell) -> str:
    """The number of trainable parameters: ``4*H*(H + I + 1)``."""
    return str(sympy.factor(parameter_count(cell)))


def _shape(shape: Iterable[sympy.Expr]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _initialiser(init: Initialiser) -> str:
    numbers = ", ".join(f"{number:g}" for number in init.numbers)
    if init.kind == "constant":
        return numbers
    return f"{init.kind}({numbers})" if numbers else init.kind


def _source(cite: Cite) -> str:
    parts = [cite.authors, cite.title, cite.year, f"doi:{cite.doi}" if cite.doi else "", cite.url, cite.note]
    return ". ".join(part for part in parts if part) or cite.key


# --- programs ----------------------------------------------------------------------------------------------


def _ir(cell: Cell) -> str:
    compiled = compile_cell(cell)
    parts = []
    if compiled.prologue.ops:
        parts.append(_section("derived parameters, once a sequence", program_text(compiled.prologue)))
    parts.append(_section("one step", program_text(compiled.equations)))
    return "\n\n".join(parts)


def _adjoint(compiled: Compiled) -> str:
    parts = [
        _section("stashed by the forward step", _listed(compiled.stash)),
        _section("one step, backwards", program_text(compiled.backward)),
    ]
    if compiled.epilogue.program.ops:
        parts.append(_section("through the derived parameters, once a sequence", program_text(compiled.epilogue.program)))
    return "\n\n".join(parts)


def _schedules(compiled: Compiled, backend: Backend, alone: bool) -> str:
    """Both directions as ``backend`` has them; unless it is wanted ``alone``, also what others would make of the cell."""
    made = scheduled(compiled, backend)
    others = () if alone else (one for one in registry.built_in() if one is not backend)
    described = [*backend.describe(made)]
    for other in others:
        if compiled.residuals in other.residual_policies:
            described += other.describe(scheduled(compiled, other))

    def about(direction: str) -> list[str]:
        return [_section(one.title, _indented(one.body)) for one in described if one.direction == direction]

    parts = []
    if compiled.prologue.ops:
        parts.append(_section("derived parameters, once a sequence", _operations(compiled.prologue, compiled.prologue.ops)))
    wishes = list(backend.policy.wishes())
    parts.append(_section(f"policy of the {backend.title} backend", _columns(wishes)))
    parts += about("")
    parts.append("FORWARD\n\n" + _schedule(made.schedules[FORWARD]))
    parts += about(FORWARD)
    parts.append(_section(f"stashed for the backward pass, for {compiled.residuals}", _listed(compiled.stash)))
    parts.append(_section("computed again by the backward pass", _listed(memory.again(compiled))))
    parts.append("BACKWARD\n\n" + _schedule(made.schedules[BACKWARD]))
    parts += about(BACKWARD)
    if compiled.epilogue.program.ops:
        program = compiled.epilogue.program
        parts.append(_section("through the derived parameters, once a sequence", _operations(program, program.ops)))
    return "\n\n".join(parts)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _schedule(plan: Schedule) -> str:
    """One direction: what happens once, for all steps together, step by step, and for all steps together again."""
    parts = []
    for title, ops in (("once a sequence", plan.prologue), ("before the loop, for all steps together", plan.before)):
        if ops:
            parts.append(_section(title, _operations(plan.program, ops)))
    levels = [
        (f"level {number}: after {_plural(number, 'product')} in a row" if number else "level 0: before any product", ops)
        for number, ops in enumerate(plan.levels)
        if ops
    ]
    loop = [_section(title, _operations(plan.program, ops)) for title, ops in levels]
    carries = "\n".join(f"{carry.before} <- {carry.after}" for carry in plan.program.carries)
    if carries:
        loop.append(_section("handed to the next turn", _indented(carries)))
    delays = "\n".join(f"{delay.before} <- {delay.after}, {delay.steps} turns on" for delay in plan.program.delays)
    if delays:
        loop.append(_section("handed to later turns", _indented(delays)))
    parts.append(_section("the loop", _indented("\n".join(loop), INDENT)))
    if plan.after:
        parts.append(_section("after the loop, for all steps together", _operations(plan.program, plan.after)))
    gradients = [_gradient(gradient) for gradient in plan.gradients]
    gradients += [f"{total.target} = sum over steps and samples of {total.value}" for total in plan.sums]
    if gradients:
        parts.append(_section("gradients, after the loop", _indented("\n".join(gradients))))
    if plan.program.outputs:
        parts.append(_section("given out", _indented(", ".join(plan.program.outputs))))
    return "\n\n".join(parts)


def _gradient(gradient: Gradient) -> str:
    targets = "; ".join(target for target, _ in gradient.rows)
    lefts = "; ".join(left for _, left in gradient.rows)
    return f"[{targets}] = sum over steps and samples of [{lefts}] {gradient.right}ᵀ"


def _operations(program: ir.Program, ops: Sequence[ir.Op]) -> str:
    """Operations alone, as :func:`cellspec.ir.text.program_text` writes them."""
    alone = replace(program, ops=tuple(ops), constants=(), sequences=(), carries=(), outputs=(), totals=(), delays=())
    return program_text(alone)


# --- verification ------------------------------------------------------------------------------------------


def error_table(report: Report) -> tuple[tuple[str, ...], list[list[tuple[str, bool]]]]:
    """Heads and rows of a table with the worst error of each quantity, a column a dtype; each entry with whether it is good."""
    worst = {(row.quantity, row.dtype): row for row in report.worst()}
    dtypes = tuple(dict.fromkeys(dtype for _, dtype in worst))
    rows = []
    for quantity in dict.fromkeys(quantity for quantity, _ in worst):
        entries: list[tuple[str, bool]] = [(quantity, True)]
        for dtype in dtypes:
            row = worst.get((quantity, dtype))
            if row is None:
                entries.append(("", True))
                continue
            failed = "" if row.ok else f" FAILED at {row.setting}"
            entries.append((f"{row.error:.1e} of {row.tolerance:.1e}{failed}", row.ok))
        rows.append(entries)
    return ("quantity", *(f"{dtype}: error of allowed" for dtype in dtypes)), rows


def verdict(report: Report) -> dict[str, Any]:
    """A report as JSON takes it; what is no finite number is null."""
    rows = [
        {
            "quantity": row.quantity,
            "setting": row.setting,
            "dtype": row.dtype,
            "error": row.error if math.isfinite(row.error) else None,
            "tolerance": row.tolerance if math.isfinite(row.tolerance) else None,
            "ok": bool(row.ok),
        }
        for row in report.worst()
    ]
    return {"cell": report.cell, "ok": report.ok, "seed": report.seed, "faults": list(report.faults), "worst": rows}


# --- text --------------------------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body.startswith(" ") else f"{title}\n{_indented(body)}"


def _indented(text: str, by: str = INDENT) -> str:
    return "\n".join(by + line if line else line for line in text.split("\n"))


def _columns(rows: Sequence[Sequence[str]], indent: str = INDENT) -> str:
    """Rows with their entries below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{entry:{width}}" for entry, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
