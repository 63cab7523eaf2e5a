"""Flow, regions, kinds of loops and chains: the text of a step in, which kernels there are and what they do out."""

from __future__ import annotations

import pytest
import sympy
from fused_support import GATED, SCAN, flow_of, lines, ops_of, plan_of

from cellspec import ir
from cellspec.backends.fused import loop_kinds
from cellspec.backends.fused.chains import Chain, launches
from cellspec.backends.fused.flow import has_heads, origin, stages, vectors
from cellspec.backends.fused.loop_kinds import Kind, choose, live
from cellspec.backends.fused.regions import Region, plan
from cellspec.backends.memory.model import Phase
from cellspec.passes.masks import initial_states, next_state, with_masks

H = sympy.Symbol("H")

# --- flow -----------------------------------------------------------------------------------------------------------


def test_pointwise_work_sinks_into_the_loop() -> None:
    """Scheduling has hoisted the bias; a kernel of the loop adds it for nothing."""
    found = flow_of(GATED)
    assert ops_of(found, Phase.BEFORE) == ["W@x: [H] = [W] @ [x[t]]"]
    assert ops_of(found, Phase.LOOP) == [
        "`i.pre+`: [H] = W@x + b",
        "U@h: [H] = [U] @ [h[t-1]]",
        "i.pre: [H] = U@h + `i.pre+`",
        "i: [H] = sigmoid(i.pre)",
        "c[t]: [H] = c[t-1]*i + 1",
        "h[t]: [H] = c[t]*i",
    ]
    assert ops_of(found, Phase.AFTER) == []
    assert found.made["W@x"][0] is Phase.BEFORE and found.made["h[t]"][0] is Phase.LOOP
    assert found.width("W@x") == H


def test_what_a_product_before_the_loop_reads_is_computed_there() -> None:
    found = flow_of(GATED.replace("W@x: [H]   = W @ x[t]", "y: [I]     = tanh(x[t])\n      W@x: [H]   = W @ y"))
    assert ops_of(found, Phase.BEFORE)[0] == "y: [I] = tanh(x[t])"


def test_without_a_carry_there_is_no_loop() -> None:
    found = flow_of("constant b: [H]\nsequence x[t]: [H]\n  h: [H] = tanh(x[t] + b)\ngive out h")
    assert ops_of(found, Phase.LOOP) == [] and ops_of(found, Phase.AFTER) == ["h: [H] = tanh(b + x[t])"]


def test_constants_are_computed_where_they_are_read_if_that_is_cheap() -> None:
    text = SCAN.replace("f*h[t-1] + b", "f*h[t-1] + tanh(b) + 2*b")
    found = flow_of(text)
    assert [lines(found, [op]) for op in found.fixed] == [["`h[t]+`: [H] = 2*b + tanh(b)"]]  # a function: computed once
    cheap = flow_of(SCAN.replace("f*h[t-1] + b", "f*h[t-1] + 3*b*b"))
    assert cheap.fixed == () and list(cheap.free) == ["h[t]*"]
    assert cheap.constants == {"b"}


def test_states_that_boundaries_decide_are_so_wherever_they_are_read() -> None:
    from program_support import program, scheduled

    from cellspec.backends.fused.flow import flow

    forward, _ = with_masks(program(SCAN), program("sequence d: [H]\n  e: [H] = 2*d\ngive out e"), {"h[t-1]": sympy.Integer(0)})
    found = flow(scheduled(forward), ("h[t]",), (), ("x[t]",), True)
    assert found.free["h[t-1] here"].expr.func is next_state
    assert "h[t-1] here" not in {name for ops in found.phases for op in ops for name in ir.outs(op)}
    assert initial_states(()) == {}


def test_work_after_the_loop_joins_its_kernels() -> None:
    """The loop has the operands in registers; what another phase has made is not there."""
    found = flow_of(GATED.replace("give out  h[t]", "  y: [H] = tanh(h[t])*i\n    give out  y"))
    assert ops_of(found, Phase.AFTER) == [] and ops_of(found, Phase.LOOP)[-1] == "y: [H] = i*tanh(h[t])"


def test_what_products_leave_for_others_is_copied() -> None:
    """An output is memory of its own: a kernel copies the product there; a carry may be written by the product itself."""
    product = """
        constant U: [H, H]
        carried  h[t-1]: [H]
          h[t]: [H] = U @ h[t-1]
        carry    h[t-1] <- h[t]
    """
    alone = flow_of(product + "  give out h[t]", outputs=("h[t]",))
    assert ops_of(alone, Phase.LOOP) == ["`h[t]~raw`: [H] = [U] @ [h[t-1]]", "h[t]: [H] = `h[t]~raw`"]


def test_operands_that_are_stacked_are_copies_each_in_a_place_of_its_own() -> None:
    found = flow_of(
        """
        constant V: [H, H], W: [H, H]
        sequence x[t]: [H]
        carried  h[t-1]: [H]
          p: [H]    = V @ h[t-1]
          y: [H]    = x[t]*h[t-1]
          q: [H]    = W @ y
          h[t]: [H] = tanh(p + q)
        carry    h[t-1] <- h[t]
        give out h[t]
        """
    )
    products = [op for op in found.phases[Phase.LOOP] if isinstance(op, ir.Product)]
    made = {name for op in found.phases[Phase.LOOP] if isinstance(op, ir.Pointwise) for name in ir.outs(op)}
    for op in products:
        assert len(op.operands) == 1 or made.issuperset(op.operands)


def test_stages_count_the_kernels_that_must_be_over() -> None:
    found = flow_of(GATED)
    stage = stages(found.phases[Phase.LOOP], found.program)
    assert set(stage.values()) == {0}, "a product of what the step before has left needs no kernel of this step"
    two = flow_of(GATED.replace("U@h: [H]   = U @ h[t-1]", "r: [H]     = c[t-1]*h[t-1]\n      U@h: [H]   = U @ r"))
    stage = stages(two.phases[Phase.LOOP], two.program)
    assert (stage["r"], stage["U@h"], stage["h[t]"]) == (0, 1, 1)


def test_questions() -> None:
    found = flow_of(
        """
        constant U: [N, H, H]
        sequence x[t]: [N*H]
          y: [N, H] = reshape(x[t])
          z: [N, H] = U @ y
          s: [N, H] = tanh(z)
        give out s
        """
    )
    (product,) = (op for ops in found.phases for op in ops if isinstance(op, ir.Product))
    assert has_heads(found.program, product) and vectors(product) == product.operands
    assert origin(found, "y") == "x[t]" and origin(found, "z") == "z"


# --- regions ----------------------------------------------------------------------------------------------------------


def regions(text: str, phase: Phase, **options: object) -> list[Region]:
    return list(plan_of(text, **options).in_phase(phase))


def test_a_stage_is_one_region() -> None:
    made = plan_of(GATED)
    product, region = made.steps[Phase.LOOP]
    assert isinstance(product, ir.Product) and isinstance(region, Region)
    assert region.loads == ("b", "c[t-1]", "W@x", "U@h") and region.units == H
    assert region.results == ("c[t]", "h[t]") and region.repeats == {"i", "i.pre", "i.pre+"}
    assert made.regions == (region,)


def test_what_nobody_reads_is_not_stored() -> None:
    (region,) = regions(GATED, Phase.LOOP)
    assert "i.pre" in region.repeats and "i.pre" not in region.results
    (region,) = regions(GATED, Phase.LOOP, kept=("i.pre",))
    assert "i.pre" in region.results


WIDTHS = """
    constant  b: [H], m: [1]
    sequence  x[t]: [H], y[t]: [D]
    carried   h[t-1]: [H], g[t-1]: [D], s[t-1]: [1]
      s[t]: [1] = s[t-1]/2 + m
      h[t]: [H] = h[t-1]*s[t] + x[t]*b
      g[t]: [D] = tanh(g[t-1] + y[t])
    carry     h[t-1] <- h[t]
    carry     g[t-1] <- g[t]
    carry     s[t-1] <- s[t]
    give out  h[t], g[t]
"""


def test_a_region_for_each_width_narrow_values_in_the_first_that_they_stretch_to() -> None:
    wide, other = regions(WIDTHS, Phase.LOOP)
    assert wide.shape == (H,) and other.shape == (sympy.Symbol("D"),)
    assert {"s[t]", "h[t]"} <= set(wide.results) and other.results == ("g[t]",)


def test_cheap_values_are_computed_again_rather_than_read() -> None:
    two = GATED.replace("U@h: [H]   = U @ h[t-1]", "r: [H]     = x2*h[t-1]\n      U@h: [H]   = U @ r").replace(
        "x[t]: [I]", "x[t]: [I], x2: [H]"
    )
    text = two.replace("h[t]: [H]  = i*c[t]", "h[t]: [H]  = i*c[t] + r")
    first, second = regions(text, Phase.LOOP)
    assert first.results == ("r",) and "r" in second.repeats and "r" not in second.loads


# --- kinds of loops -------------------------------------------------------------------------------------------------


def test_the_first_kind_that_can_run_a_plan() -> None:
    free = "sequence x[t]: [H]\n  h: [H] = tanh(x[t])\ngive out h"
    assert choose(plan_of(free)).kind is Kind.PARALLEL
    scan = choose(plan_of(SCAN))
    assert scan.kind is Kind.SEQUENCE and scan.against == ((Kind.PARALLEL, "a step reads what the step before has left"),)
    gated = choose(plan_of(GATED))
    assert gated.kind is Kind.STEP and gated.against[1] == (Kind.SEQUENCE, "the loop holds the product U@h")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"f*h[t-1]": "f*s", "h[t]: [H]": "s: [1]    = sum_to(h[t-1])\n      h[t]: [H]"}, "the loop looks across units for s"),
        ({"f*h[t-1]": "f*r", "h[t]: [H]": "r: [H]    = roll(h[t-1], 1)\n      h[t]: [H]"}, "the loop looks across units for r"),
    ],
)
def test_what_is_in_the_way_of_a_kernel_for_the_whole_sequence(change: dict[str, str], why: str) -> None:
    text = SCAN
    for old, new in change.items():
        text = text.replace(old, new)
    assert (Kind.SEQUENCE, why) in choose(plan_of(text)).against


def test_units_of_different_widths_may_not_share_a_carry() -> None:
    text = WIDTHS.replace("g[t-1] + y[t]", "g[t-1] + y[t]*s[t-1]")
    assert (Kind.SEQUENCE, "units of different widths share s[t-1]") in choose(plan_of(text)).against
    assert choose(plan_of(WIDTHS)).kind is Kind.SEQUENCE


def test_what_a_thread_holds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (region,) = regions(SCAN, Phase.LOOP)
    assert live(region) == 4  # b, h[t-1], f and, before any of them is let go, h[t]
    monkeypatch.setattr(loop_kinds, "BUDGET", 3)
    assert choose(plan_of(SCAN)).against[1] == (Kind.SEQUENCE, "a thread would hold 4 values at once, and there is room for 3")


# --- chains -----------------------------------------------------------------------------------------------------------

NORMED = """
    constant  U: [H, H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      U@h: [H]  = U @ h[t-1]
      p: [H]    = U@h + x[t]
      s: [1]    = sum_to(p)
      q: [H]    = p - s/H
      h[t]: [H] = tanh(q)
    carry     h[t-1] <- h[t]
    give out  h[t]
"""


def test_steps_that_stay_within_a_sample_are_one_launch() -> None:
    product, chain = launches(plan_of(NORMED), Phase.LOOP)
    assert isinstance(product, ir.Product) and isinstance(chain, Chain)
    kinds = [type(link).__name__ for link in chain.links]
    assert kinds == ["Region", "SumTo", "Region"]


def test_regions_alone_are_no_chain() -> None:
    assert [type(step).__name__ for step in launches(plan_of(GATED), Phase.LOOP)] == ["Product", "Region"]
    assert launches(plan_of(GATED), Phase.AFTER) == ()


def test_a_matrix_is_too_much_for_a_block_in_the_loop() -> None:
    """It is so for what is as large as products of two vectors; before the loop there are enough steps."""
    text = """
        constant  U: [H, H]
        sequence  x[t]: [H, H]
        carried   h[t-1]: [H]
          U@h: [H]   = U @ h[t-1]
          m: [H, H]  = tanh(x[t])*2
          s: [1, H]  = sum_to(m)
          r: [H]     = reshape(s)
          h[t]: [H]  = tanh(U@h + r)
        carry     h[t-1] <- h[t]
        give out  h[t]
    """
    made = plan_of(text)
    assert any(isinstance(step, Chain) for step in launches(made, Phase.BEFORE))
    assert plan(made.flow) == made
