"""The driver: which passes there are, in which order, what is checked behind each, and what a backend adds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from support import ROOT, VALID, cell_from, cell_of, spec_id

from cellspec import ir
from cellspec.backends import registry
from cellspec.cell import Cell
from cellspec.ir import Program, symbol
from cellspec.passes import schedule as scheduling
from cellspec.passes.policy import PLAIN, SchedulePolicy
from cellspec.pipeline import (
    BACKWARD,
    FORWARD,
    FRONT,
    NOTHING,
    SINGLE_STEP,
    Compiled,
    Pass,
    compile_cell,
    passes,
    scheduled,
    states,
)

GRU = ROOT / "specs" / "gru.yaml"

COMMON = [
    "lower",
    "without cancellation",
    "give streams",
    "live",
    "differentiate",
    "choose residuals",
    "give out the stash",
    "differentiate derived parameters",
    "collect facts",
]
SCHEDULING = ["live", "detach results", "hoist", "copy operands", "stack operands", "schedule"]


@dataclass(frozen=True)
class Wishes:
    """A target that wishes what a test wishes."""

    policy: SchedulePolicy = PLAIN
    rewrites: tuple[Pass, ...] = ()
    finish: tuple[Pass, ...] = ()


def gru() -> Cell:
    return cell_of(GRU)


# --- the list --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "before", "after"),
    [
        ("numpy", ["single step", "tanh form", "mark what is repeated"], ["mixtures", "keep carries"]),
        ("cupy", ["masks", "give out last states"], []),
    ],
)
def test_every_pass_has_its_place(backend: str, before: list[str], after: list[str]) -> None:
    """The whole road of a backend, by name."""
    assert [each.name for each in passes(registry.backend(backend))] == [*COMMON, *before, *SCHEDULING, *after]


def test_without_a_target_the_road_ends_before_scheduling() -> None:
    assert passes() is FRONT
    compiled = compile_cell(gru())
    assert compiled.schedules == {} and compiled.working == {} and compiled.single is NOTHING
    assert list(compiled.programs) == [
        "derived parameters",
        "equations",
        "forward",
        "backward",
        "derived parameters, backwards",
    ]


def test_the_road_in_two_parts_is_the_same_road() -> None:
    for backend in registry.built_in():
        whole, behind = compile_cell(gru(), "speed", backend), scheduled(compile_cell(gru()), backend)
        assert whole.schedules == behind.schedules and whole.programs == behind.programs


def test_states_can_be_recorded() -> None:
    """Each pass with what stands behind it; a state is never changed, so that all can be kept."""
    target = registry.backend("numpy")
    start = Compiled(gru())
    recorded = list(states(start, passes(target)))
    assert [each.name for each, _ in recorded] == [each.name for each in passes(target)]
    assert start.programs == {} and recorded[0][1].programs.keys() == {"derived parameters", "equations"}
    behind = {each.name: state for each, state in recorded}
    assert behind["differentiate"].stash == () and behind["choose residuals"].stash == ("x[t]", "h[t-1]", "r", "u", "n")
    assert "tanh(r.pre)" not in behind["single step"].forward.values and "tanh(r.pre)" in behind["tanh form"].forward.values
    assert recorded[-1][1].schedules == compile_cell(gru(), "speed", target).schedules


# --- what is checked ---------------------------------------------------------------------------------------


def wrong(program: Program) -> Program:
    """``program`` with an operation that reads what nobody defines."""
    return replace(program, ops=(ir.Pointwise(program.ops[0].out, symbol("no such")), *program.ops[1:]))  # type: ignore[union-attr]


def test_every_program_is_typechecked_behind_every_pass() -> None:
    """The mistake of a pass is told with its name and the program, before the next pass meets it."""
    reached = []
    bad = Pass("spoil", lambda state: replace(state, backward=wrong(state.backward)))
    after = Pass("after", lambda state: reached.append(state) or state)  # type: ignore[func-returns-value]
    with pytest.raises(
        ir.TypecheckError, match=r"^backward, after the pass 'spoil': 'no such' is read before it is defined, in "
    ):
        compile_cell(gru(), target=Wishes(rewrites=(bad, after)))
    assert reached == []


def test_schedules_are_typechecked_too() -> None:
    def spoil(state: Compiled) -> Compiled:
        forward = state.schedules[FORWARD]
        first, *rest = forward.levels
        return replace(state, schedules={FORWARD: replace(forward, levels=(*rest[::-1], first))})

    with pytest.raises(ir.TypecheckError, match=r"^forward, after the pass 'turn round': .* is read before it is defined"):
        compile_cell(gru(), target=Wishes(finish=(Pass("turn round", spoil),)))


@pytest.mark.parametrize("name", [name for name, _ in scheduling.REWRITES])
def test_no_pass_of_scheduling_is_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = tuple((one, (lambda p, _: wrong(p)) if one == name else rewrite) for one, rewrite in scheduling.REWRITES)
    monkeypatch.setattr("cellspec.pipeline.REWRITES", spoilt)
    with pytest.raises(ir.TypecheckError, match=f"^forward, after the pass '{name}': "):
        compile_cell(gru(), target=Wishes())
    monkeypatch.setattr(scheduling, "REWRITES", spoilt)
    with pytest.raises(ir.TypecheckError, match="'no such' is read before it is defined"):
        scheduling.schedule(compile_cell(gru()).forward)


@pytest.mark.parametrize("path", VALID, ids=spec_id)
def test_what_the_driver_schedules_is_what_schedule_does(path: object) -> None:
    policy = SchedulePolicy(block_products=True)
    compiled = compile_cell(cell_of(path), target=Wishes(policy))  # type: ignore[arg-type]
    assert compiled.schedules[FORWARD] == scheduling.schedule(compiled.forward, policy)
    assert compiled.schedules[BACKWARD] == scheduling.schedule(compiled.backward, policy)
    assert SINGLE_STEP not in compiled.schedules


# --- policies ----------------------------------------------------------------------------------------------


def test_wishes_are_told_in_words() -> None:
    words = dict(SchedulePolicy(stack_heads=True).wishes())
    assert list(words.values()) == ["stacked", "each for itself", "before and after the loop, for all steps together"]
    assert dict(SchedulePolicy(single_step=True).wishes())["what no earlier step decides"] == "in the step"
    assert all(
        one != other
        for one, other in zip(
            (words for _, words in PLAIN.wishes()),
            (words for _, words in SchedulePolicy(True, True, True).wishes()),
            strict=True,
        )
    )


def test_a_single_step_leaves_nothing_for_before_and_after() -> None:
    compiled = compile_cell(gru(), target=registry.backend("numpy"))
    alone, loop = compiled.schedules[SINGLE_STEP], compiled.schedules[FORWARD]
    assert loop.before and not alone.before and not alone.after
    assert {out for op in alone.loop for out in ir.outs(op)} >= {"r", "u", "n", "h[t]"}
    plain = scheduling.schedule(compiled.single)
    assert plain.after and not plain.loop  # without the policy: a step that hands nothing on is no recurrence


HEADS = """
name: heads
inputs: {x: [N, D]}
states: {h: [N, D], c: [N, D]}
params: {U: [N, D, D], V: [N, D, D]}
equations: |
  h[t] = tanh(x[t] + U @ h[t-1])
  c[t] = tanh(x[t] + V @ h[t-1] + U @ c[t-1])
"""


def stacks(policy: SchedulePolicy) -> int:
    """How many products of several operands there are in the loops."""
    compiled = compile_cell(cell_from(HEADS), target=Wishes(policy))
    loops = (op for one in compiled.schedules.values() for op in one.loop)
    return sum(isinstance(op, ir.Product) and len(op.operands) > 1 for op in loops)


def test_heads_are_stacked_where_it_is_wished() -> None:
    assert stacks(PLAIN) == 0 < stacks(SchedulePolicy(stack_heads=True))


BLOCKS = """
name: blocks
inputs: {x: H}
states: {h: H, c: H}
params: {U: [H, H], V: [H, H], P: [H, H], Q: [H, H]}
equations: |
  a = exp(h[t-1])
  b = exp(c[t-1])
  h[t] = tanh(x[t] + U @ a + V @ b)
  c[t] = tanh(x[t] + P @ a + Q @ b)
"""


def test_products_of_one_stack_are_one_where_it_is_wished() -> None:
    compiled = compile_cell(cell_from(BLOCKS))
    for policy, count in ((PLAIN, 2), (SchedulePolicy(block_products=True), 1)):
        loop = scheduling.schedule(compiled.forward, policy).loop
        assert sum(isinstance(op, ir.Product) for op in loop) == count
