"""What is kept between the passes: a step in, what it leaves for the backward step out."""

from __future__ import annotations

import numpy as np
import pytest
from program_support import drawn, operations, program, results, run, told

from cellspec import RESIDUALS
from cellspec.passes.adjoint import adjoint_step, given, later
from cellspec.passes.residuals import Residuals, select

GATED = """
    constant  W: [H, I], U: [H, H], V: [H, H], b: [H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H]
      W@x: [H]   = W @ x[t]
      U@h: [H]   = U @ h[t-1]
      i.pre: [H] = W@x + U@h + b
      i: [H]     = sigmoid(i.pre)
      r: [H]     = i*h[t-1]
      V@r: [H]   = V @ r
      h[t]: [H]  = V@r*i
    carry     h[t-1] <- h[t]
    give out  h[t]
"""


def kept(text: str, policy: str = "speed") -> Residuals:
    step = program(text)
    return select(step, adjoint_step(step, step.sequences, step.constants), policy)


def test_for_speed_arithmetic_alone_is_repeated() -> None:
    """A product and a function are not: ``r`` is one multiplication."""
    found = kept(GATED)
    assert found.stash == ("x[t]", "h[t-1]", "i", "V@r")
    assert found.again == ("r",)
    assert operations(found.backward).startswith("r: [H] = h[t-1]*i\nd:h[t]: [H] = ")


def test_for_memory_everything_is_repeated_from_states_and_inputs() -> None:
    found = kept(GATED, "memory")
    assert found.stash == ("x[t]", "h[t-1]")
    assert found.again == ("W@x", "U@h", "i.pre", "i", "r", "V@r")


CUTS = {
    "the narrower of two values, from which the other is moved": (
        """
        constant W: [H, I]
        sequence x[t]: [I], d[t]: [2*H]
          p: [H]   = W @ x[t]
          q: [2*H] = [p, p]
          y: [2*H] = q*d[t]
        give out y
        """,
        ("x[t]", "p", "d[t]"),
        ("q",),
    ),
    "one value, of which several are made by arithmetic": (
        """
        constant W: [H, I]
        sequence x[t]: [I]
          p: [H] = W @ x[t]
          q: [H] = p + 1
          r: [H] = p - 1
          y: [H] = q*r
        give out y
        """,
        ("x[t]", "p"),
        ("q", "r"),
    ),
    "the results of functions, not their arguments": (
        """
        sequence x[t]: [H]
          p: [H] = 2*x[t]
          y: [H] = tanh(p)
        give out y
        """,
        ("y",),
        (),
    ),
    "nothing of what is linear": (
        """
        constant W: [H, H]
        sequence x[t]: [H]
          p: [H] = roll(x[t], 1)
          y: [H] = 3*p - x[t]
        give out y
        """,
        (),
        (),
    ),
    "a state's value after the step, which is kept anyway, however wide it is": (
        """
        constant W: [H, I]
        sequence x[t]: [I]
        carried h[t-1]: [2*H]
          p: [H]      = W @ x[t]
          h[t]: [2*H] = [p, p]
          q: [2*H]    = h[t] - 1
          y: [2*H]    = q**2
        carry h[t-1] <- h[t]
        give out y
        """,
        ("x[t]", "h[t]"),
        ("q",),
    ),
}
"""What is kept, of which step: its stash, and what is computed again."""


@pytest.mark.parametrize("what", CUTS)
def test_what_is_kept(what: str) -> None:
    text, stash, again = CUTS[what]
    found = kept(text)
    assert (set(found.stash), found.again) == (set(stash), again)


@pytest.mark.parametrize("policy", RESIDUALS)
@pytest.mark.parametrize("text", [GATED, *(text for text, _, _ in CUTS.values())], ids=["gated", *CUTS])
def test_the_backward_step_needs_no_more_and_gives_the_same(text: str, policy: str) -> None:
    step = program(text)
    adjoint = adjoint_step(step, step.sequences, step.constants)
    found = select(step, adjoint, policy)
    values = run(step, drawn(step))
    rng = np.random.default_rng(1)
    seeds = {given(name): rng.normal(size=values[name].shape) for name in step.outputs}
    seeds |= {later(carry.after): rng.normal(size=values[carry.after].shape) for carry in step.carries}
    handed_on = {name: values[name] for name in (*step.constants, *found.stash)}
    expected = results(adjoint.program, run(adjoint.program, {**values, **seeds}))
    gradients = results(found.backward, run(found.backward, {**handed_on, **seeds}))
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(gradients[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_backward_step_holds_what_it_repeats_first() -> None:
    text, _, _ = CUTS["one value, of which several are made by arithmetic"]
    assert told(kept(text).backward) == told(
        """
        constant  W: [H, I]
        sequence  `d:y given`: [H], x[t]: [I], p: [H]
          q: [H]           = p + 1
          r: [H]           = p - 1
          d:p: [H]         = `d:y given`*q + `d:y given`*r
          d:p⊗x[t]: [H, I] = outer(d:p, x[t])
          d:x[t]: [I]      = W.T @ d:p
        total     d:W = sum of d:p⊗x[t]
        give out  d:x[t]
        """
    )
