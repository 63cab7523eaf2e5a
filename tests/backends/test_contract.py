"""What the backends that come with cellspec say of themselves, and the passes that they add."""

from __future__ import annotations

import ast
from pathlib import Path

import click
import pytest
from support import ROOT, cell_from, cell_of

import cellspec
from cellspec import ir
from cellspec.backends import registry
from cellspec.backends.base import Section
from cellspec.cell import Cell
from cellspec.cli import main
from cellspec.passes.policy import SchedulePolicy
from cellspec.pipeline import BACKWARD, FORWARD, NOTHING, SINGLE_STEP, Compiled, compile_cell, passes, states
from cellspec.tools.backend_option import ALL, BackendName

BACKENDS = tuple(registry.BUILT_IN)


def shipped(name: str) -> Cell:
    return cell_of(ROOT / "specs" / f"{name}.yaml")


def behind(cell: Cell, backend: str, name: str) -> Compiled:
    """The state behind a pass of a backend."""
    return next(state for each, state in states(Compiled(cell), passes(registry.backend(backend))) if each.name == name)


# --- what they say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_sections_stand_somewhere(name: str) -> None:
    backend = registry.backend(name)
    compiled = compile_cell(shipped("gru"), "speed", backend)
    sections = backend.describe(compiled)
    assert all(section.direction in ("", *compiled.schedules) for section in sections)
    assert backend.text(compiled) == cellspec.generate(shipped("gru"), name)
    if name in registry.STANDING:
        assert sections and backend.text(compiled) == (ROOT / "generated" / f"gru_{name}.py").read_text("utf-8")


def test_the_description_is_of_the_schedule_that_runs() -> None:
    numpy, cupy = (registry.backend(name) for name in ("numpy", "cupy"))
    (told,) = numpy.describe(compile_cell(shipped("lstm"), "speed", numpy))
    assert isinstance(told, Section) and told.title == "on a CPU" and told.body.startswith("arrays are feature-major, ")
    (told,) = numpy.describe(compile_cell(shipped("mingru"), "speed", numpy))
    assert told.body.startswith("arrays are batch-major, ")
    ahead, back = cupy.describe(compile_cell(shipped("gru"), "speed", cupy))
    assert (ahead.direction, back.direction) == (FORWARD, BACKWARD)
    assert "\nexchanges per step: 2\n  1 carries h[t-1]: [H], for " in ahead.body


def test_formulas_for_memory() -> None:
    numpy = registry.backend("numpy")
    whole, segments = numpy.footprint(compile_cell(shipped("lstm"), "speed", numpy), 8)
    assert (whole.option, whole.tape) == ("", "8*(7*H*T*B + 2*H*B)")
    assert segments.option == "checkpoint=k" and segments.workspace.startswith("8*(")
    assert list(registry.backend("cupy").footprint(compile_cell(shipped("lstm")), 8)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "cellspec" / "backends").rglob("*.py")), ids=lambda path: path.stem)
def test_no_backend_compiles_or_schedules_by_itself(path: Path) -> None:
    """What the driver does not run, it can neither check nor show."""
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom)
        and node.module in ("cellspec.passes.schedule", "cellspec.pipeline", "cellspec.passes.hoist")
        for alias in node.names
    }
    assert not imported & {"schedule", "place", "hoist", "stack_operands", "compile_cell", "scheduled", "scheduling"}


# --- their passes --------------------------------------------------------------------------------------------


def test_numpys_single_step_gives_out_states_and_hands_on_nothing() -> None:
    single = behind(shipped("lstm"), "numpy", "single step").single
    assert single.outputs == ("h[t]", "c[t]") and single.links == ()
    assert {"x[t]", "h[t-1]", "c[t-1]"} <= set(single.sequences)


def test_numpys_tanh_form_leaves_what_is_kept() -> None:
    state = behind(shipped("lstm"), "numpy", "tanh form")
    assert state.forward.outputs == ("h[t]", *state.kept) and set(state.kept) == {"i", "f", "g", "o", "tanh(c[t])"}
    for program in (state.forward, state.single):
        assert "tanh(f.pre)" in program.values
        assert not any(isinstance(op, ir.Pointwise) and "sigmoid" in str(op.expr) for op in program.ops)


def test_numpy_marks_what_the_backward_pass_repeats() -> None:
    before = behind(shipped("gru"), "numpy", "tanh form").backward
    after = behind(shipped("gru"), "numpy", "mark what is repeated").backward
    assert (before.values["n.part"].origin, after.values["n.part"].origin) == ("n", "n again")
    assert before.ops == after.ops


def test_numpy_keeps_carries_that_are_read_after_the_loop() -> None:
    before = behind(shipped("lif"), "numpy", "schedule").schedules
    after = behind(shipped("lif"), "numpy", "keep carries").schedules
    name = "d:syn[t]<- kept"
    assert name not in before[BACKWARD].listing.values and name in after[BACKWARD].listing.values
    assert (before[FORWARD], before[SINGLE_STEP]) == (after[FORWARD], after[SINGLE_STEP])


def test_cupy_gives_out_last_states_that_are_stored_apart() -> None:
    state = behind(shipped("lstm"), "cupy", "give out last states")
    assert state.forward.outputs[:2] == ("h[t]", "h[t] last") and state.single is NOTHING
    assert "c[t] last" not in state.forward.values  # pointwise operations alone read it: it is put back where they do


def test_policies() -> None:
    assert registry.backend("numpy").policy == SchedulePolicy(block_products=True)
    assert registry.backend("cupy").policy == SchedulePolicy(stack_heads=True)


# --- the option ----------------------------------------------------------------------------------------------


def test_the_option_offers_what_there_is() -> None:
    option = BackendName(ALL)
    assert option.choices() == (*BACKENDS, "all") and BackendName().choices() == BACKENDS
    context = click.Context(main)
    parameter = click.Option(["--backend"], type=option)
    assert option.get_metavar(parameter, context) == "|".join((*BACKENDS, ALL))
    assert [item.value for item in option.shell_complete(context, parameter, "nu")] == ["numpy"]
    assert [item.value for item in option.shell_complete(context, parameter, "")] == [*BACKENDS, "all"]


def test_generate_takes_the_default() -> None:
    cell = cell_from("name: one\ninputs: {x: H}\nstates: {h: H}\nequations: |\n  h[t] = tanh(h[t-1] + x[t])\n")
    assert cellspec.generate(cell) == cellspec.generate(cell, registry.DEFAULT)
