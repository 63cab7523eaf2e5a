"""Masks: programs in, programs that read what lies between two steps out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy
from program_support import Arrays, drawn, program, run, told
from support import cell_from

from cellspec import ir
from cellspec.backends.rewrites import MASKS
from cellspec.ir import Program
from cellspec.model.equations import State
from cellspec.passes.masks import (
    BOUNDARY_AFTER,
    BOUNDARY_BEFORE,
    ENDED,
    GOES_ON,
    RESET,
    RESTARTS,
    cotangent_at,
    final_cotangent,
    first_state,
    initial_states,
    last_state,
    next_state,
    state_at_end,
    with_masks,
)
from cellspec.pipeline import compile_cell

FORWARD = program(
    """
    constant  U: [H, H], b: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H], c[t-1]: [H]
      U@h: [H]  = U @ h[t-1]
      c[t]: [H] = c[t-1]*x[t] + b
      h[t]: [H] = c[t] + U@h
    carry     h[t-1] <- h[t]
    carry     c[t-1] <- c[t]
    give out  h[t]
    """
)
BACKWARD = program(
    """
    constant  U: [H, H]
    sequence  x[t]: [H], c[t-1]: [H], h[t-1]: [H], d:y: [H]
    carried   d:h[t]<-: [H], d:c[t]<-: [H]
      d:h[t]: [H]   = d:h[t]<- + d:y
      d:c[t]: [H]   = d:c[t]<- + d:h[t]
      d:x[t]: [H]   = c[t-1]*d:c[t]
      d:c[t-1]: [H] = d:c[t]*x[t]
      d:h[t-1]: [H] = U.T @ d:h[t]
      d:U: [H, H]   = outer(d:h[t], h[t-1])
    carry     d:h[t]<- <- d:h[t-1]
    carry     d:c[t]<- <- d:c[t-1]
    total     dU = sum of d:U
    give out  d:x[t]
    """
)
INITIAL = {"h[t-1]": sympy.Integer(0), "c[t-1]": sympy.Integer(2)}
MASKED, BACK = with_masks(FORWARD, BACKWARD, INITIAL)


def test_the_forward_program() -> None:
    """``c`` is read by pointwise operations alone, and reset where it is read; a product reads ``h``."""
    expected = """
        constant  U: [H, H], b: [H]
        sequence  x[t]: [H], `cut before`: [], `c[t-1] first`: [H], `cut after`: [], `h[t-1] first`: [H]
        carried   h[t-1]: [H], c[t-1]: [H]
          `c[t-1] here`: [H] = next_state(`cut before`, 2, c[t-1], `c[t-1] first`)
          U@h: [H]           = U @ h[t-1]
          c[t]: [H]          = b + `c[t-1] here`*x[t]
          h[t]: [H]          = U@h + c[t]
          `h[t] next`: [H]   = next_state(`cut after`, 0, h[t], `h[t-1] first`)
          `h[t] last`: [H]   = state_at_end(`cut after`, h[t])
        carry     h[t-1] <- `h[t] next`
        carry     c[t-1] <- c[t]
        give out  h[t]
    """
    assert told(MASKED).split("\n") == [" ".join(line.split()) for line in expected.strip().splitlines()]


def test_the_backward_program() -> None:
    """The state that was reset where it was read is so again; cotangents come from later steps, or of the final state."""
    expected = """
        constant  U: [H, H]
        sequence  x[t]: [H], c[t-1]: [H], h[t-1]: [H], d:y: [H], `cut before`: [], `c[t-1] first`: [H], `cut after`: [], """
    expected += """`d:h[t] final`: [H], `d:c[t] final`: [H]
        carried   d:h[t]<-: [H], d:c[t]<-: [H]
          `c[t-1] here`: [H]   = next_state(`cut before`, 2, c[t-1], `c[t-1] first`)
          `d:h[t]<- here`: [H] = cotangent_at(`cut after`, d:h[t]<-, `d:h[t] final`)
          `d:c[t]<- here`: [H] = cotangent_at(`cut after`, d:c[t]<-, `d:c[t] final`)
          d:h[t]: [H]          = `d:h[t]<- here` + d:y
          d:c[t]: [H]          = `d:c[t]<- here` + d:h[t]
          d:x[t]: [H]          = `c[t-1] here`*d:c[t]
          d:c[t-1]: [H]        = d:c[t]*x[t]
          d:h[t-1]: [H]        = U.T @ d:h[t]
          d:U: [H, H]          = outer(d:h[t], h[t-1])
        carry     d:h[t]<- <- d:h[t-1]
        carry     d:c[t]<- <- d:c[t-1]
        total     dU = sum of d:U
        give out  d:x[t]
    """
    assert told(BACK).split("\n") == [" ".join(line.split()) for line in expected.strip().splitlines()]


def test_what_a_sum_over_steps_reads_is_reset_before_it_is_handed_on() -> None:
    """The gradient of a vector that multiplies a state: the state's history itself is what is added up."""
    total = replace(BACKWARD, totals=(*BACKWARD.totals, ir.Total("dw", "c[t-1]")))
    forward, backward = with_masks(FORWARD, total, INITIAL)
    assert [carry.after for carry in forward.carries] == ["h[t] next", "c[t] next"]
    assert backward.totals[-1].value == "c[t-1]" and "c[t-1] here" not in backward.values


def test_a_delay_reads_what_is_handed_on() -> None:
    far = replace(FORWARD, delays=(ir.Delay("h[t-3]", "h[t]", 3),), values={**FORWARD.values, "h[t-3]": FORWARD.values["h[t]"]})
    forward, _ = with_masks(far, BACKWARD, INITIAL)
    assert forward.delays == (ir.Delay("h[t-3]", "h[t] next", 3),)


def test_names() -> None:
    (h, c), (d_h, _) = MASKED.carries, BACK.carries
    assert (last_state(h), first_state(c.before), final_cotangent(d_h)) == ("h[t] last", "c[t-1] first", "d:h[t] final")


def test_initial_states_are_whole_numbers_where_they_can_be() -> None:
    shape = (sympy.Symbol("H"),)
    states = [State("h", shape, 0.0), State("m", shape, float("-inf")), State("f", shape, 0.5)]
    found = initial_states(states)
    assert found == {"h[t-1]": 0, "m[t-1]": -sympy.oo, "f[t-1]": 0.5}
    assert found["h[t-1]"].is_Integer


# --- the numbers of a step ------------------------------------------------------------------------------------------


def decided(step: Program, before: int, after: int) -> Program:
    """``step`` between two boundaries, with the functions of masks done away with."""
    number = {BOUNDARY_BEFORE: before, BOUNDARY_AFTER: after}

    def of(expr: sympy.Expr) -> sympy.Expr:
        if not isinstance(expr, sympy.Function) or expr.func not in (next_state, state_at_end, cotangent_at):
            return expr
        boundary, *args = expr.args
        here = number[boundary.name]
        if expr.func is next_state:
            start, value, first = args
            return {GOES_ON: value, RESET: start, ENDED: first, RESTARTS: first}[here]
        if expr.func is cotangent_at:
            later, final = args
            return {GOES_ON: later, RESET: sympy.Integer(0), ENDED: final, RESTARTS: sympy.Integer(0)}[here]
        return args[0]

    return replace(step, ops=tuple(replace(op, expr=of(op.expr)) if isinstance(op, ir.Pointwise) else op for op in step.ops))


def arguments() -> Arrays:
    return {**drawn(MASKED), BOUNDARY_BEFORE: np.zeros(()), BOUNDARY_AFTER: np.zeros(())}


@pytest.mark.parametrize(
    ("before", "start"), [(GOES_ON, "c[t-1]"), (RESET, 2.0), (ENDED, "c[t-1] first"), (RESTARTS, "c[t-1] first")]
)
def test_what_a_step_reads_behind_a_boundary(before: int, start: str | float) -> None:
    given = arguments()
    found = run(decided(MASKED, before, GOES_ON), given)
    read = given[start] if isinstance(start, str) else np.full(3, start)
    plain = run(FORWARD, {**given, "c[t-1]": read})
    np.testing.assert_array_equal(found["c[t]"], plain["c[t]"])
    np.testing.assert_array_equal(found["h[t]"], plain["h[t]"])


@pytest.mark.parametrize(
    ("after", "handed"), [(GOES_ON, "h[t]"), (RESET, 0.0), (ENDED, "h[t-1] first"), (RESTARTS, "h[t-1] first")]
)
def test_what_a_step_hands_on_at_a_boundary(after: int, handed: str | float) -> None:
    given = arguments()
    found = run(decided(MASKED, GOES_ON, after), given)
    expected = {**given, **found}[handed] if isinstance(handed, str) else np.full(3, handed)
    np.testing.assert_array_equal(found["h[t] next"], expected)
    np.testing.assert_array_equal(found["h[t] last"], found["h[t]"])


@pytest.mark.parametrize(("after", "comes"), [(GOES_ON, "d:h[t]<-"), (RESET, 0.0), (ENDED, "d:h[t] final"), (RESTARTS, 0.0)])
def test_which_cotangent_comes_back_over_a_boundary(after: int, comes: str | float) -> None:
    given = {**drawn(BACK), BOUNDARY_BEFORE: np.zeros(()), BOUNDARY_AFTER: np.zeros(())}
    found = run(decided(BACK, GOES_ON, after), given)
    expected = given[comes] if isinstance(comes, str) else np.full(3, comes)
    np.testing.assert_array_equal(found["d:h[t]"], expected + given["d:y"])


def test_as_a_pass_of_the_driver() -> None:
    """Of a cell, with its initial states; what it repeats of the forward step reads boundaries too."""
    head = "name: small\ninputs: {x: H}\nstates: {h: {shape: H, init: 0.5}}\nparams: {a: H}\n"
    cell = cell_from(f"{head}equations: |\n  h[t] = a*h[t-1] + x[t]\n")
    plain = compile_cell(cell)
    masked = MASKS.run(plain)
    initial = initial_states(cell.states)
    assert initial == {"h[t-1]": 0.5}
    assert (masked.forward, masked.backward) == with_masks(plain.forward, plain.backward, initial)
    for step in (masked.forward, masked.backward):
        assert {BOUNDARY_BEFORE, BOUNDARY_AFTER}.intersection(ir.typecheck(step).sequences)
