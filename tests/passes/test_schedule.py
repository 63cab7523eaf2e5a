"""Scheduling: a step in, what happens before, in and after the loop out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from program_support import assert_same_numbers, happens, in_order, operations, program, scheduled, told
from support import COMMON, SPECS, cell_of, spec_id

from cellspec import ir
from cellspec.passes.policy import SchedulePolicy
from cellspec.passes.schedule import Gradient, pack_rows, stack_operands
from cellspec.pipeline import compile_cell
from cellspec.verification.check import PRIMES

TWO_LEVELS = """
    constant  Wi: [H, I], Wf: [H, I], U: [H, H], V: [H, H], b: [H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H]
      Wi@x: [H]  = Wi @ x[t]
      U@h: [H]   = U @ h[t-1]
      i.pre: [H] = Wi@x + U@h + b
      i: [H]     = sigmoid(i.pre)
      Wf@x: [H]  = Wf @ x[t]
      r: [H]     = i*h[t-1]
      V@r: [H]   = V @ r
      f: [H]     = Wf@x + V@r
      h[t]: [H]  = f*i
      y: [H]     = tanh(h[t])
    carry     h[t-1] <- h[t]
    give out  h[t], y
"""


def test_what_happens_when() -> None:
    """What no state feeds happens before the loop, what feeds no state after it; a level waits for one more product."""
    plan = scheduled(TWO_LEVELS)
    assert happens(plan) == {
        "before": told("Wi@x: [H], Wf@x: [H] = [Wi; Wf] @ [x[t]]\n `i.pre+`: [H] = Wi@x + b"),
        "1": told(
            """
            U@h: [H]   = [U] @ [h[t-1]]
            i.pre: [H] = U@h + `i.pre+`
            i: [H]     = sigmoid(i.pre)
            r: [H]     = h[t-1]*i
            """
        ),
        "2": told("V@r: [H] = [V] @ [r]\n f: [H] = V@r + Wf@x\n h[t]: [H] = f*i"),
        "after": told("y: [H] = tanh(h[t])"),
    }
    assert_same_numbers(program(TWO_LEVELS), in_order(plan))


def test_a_step_alone() -> None:
    """Everything is in the loop, where products of ``x[t]`` are stacked with those of the state, and none waits for another."""
    assert happens(scheduled(TWO_LEVELS, alone=True)) == {
        "0": told("`x[t] here`: [I] = x[t]"),
        "1": told(
            """
            Wi@x: [H]  = [Wi] @ [`x[t] here`]
            U@h: [H]   = [U] @ [h[t-1]]
            i.pre: [H] = U@h + Wi@x + b
            i: [H]     = sigmoid(i.pre)
            r: [H]     = h[t-1]*i
            """
        ),
        "2": told("f: [H] = [Wf, V] @ [`x[t] here`; r]\n h[t]: [H] = f*i\n y: [H] = tanh(h[t])"),
    }


def test_constants_are_computed_once() -> None:
    text = """
        constant  a: [H], b: [H]
        sequence  x[t]: [H]
        carried   h[t-1]: [H]
          h[t]: [H] = h[t-1]*sigmoid(a*b) + x[t]
        carry     h[t-1] <- h[t]
        give out  h[t]
    """
    plan = scheduled(text)
    assert happens(plan) == {"prologue": told("`h[t]*`: [H] = sigmoid(a*b)"), "0": told("h[t]: [H] = h[t-1]*`h[t]*` + x[t]")}


def test_a_state_that_depends_on_no_state_is_copied_in_the_loop() -> None:
    """All its values are there before the loop; so too for a result that is the same at every step."""
    text = """
        constant  a: [H]
        sequence  x[t]: [H]
        carried   h[t-1]: [H]
          h[t]: [H] = tanh(x[t])
          y: [H]    = h[t-1] + h[t]
          z: [H]    = sigmoid(a)
        carry     h[t-1] <- h[t]
        give out  y, z
    """
    plan = scheduled(text)
    assert happens(plan) == {
        "prologue": told("z~: [H] = sigmoid(a)"),
        "before": told("h[t]~: [H] = tanh(x[t])"),
        "0": told("h[t]: [H] = h[t]~"),
        "after": told("y: [H] = h[t-1] + h[t]~\n z: [H] = z~"),
    }
    assert_same_numbers(program(text), in_order(plan))


GRADIENTS = (
    """
    constant  Wi: [H, I], Wf: [H, I], U: [H, H]
    sequence  d:y[t] given: [H], x[t]: [I], h[t-1]: [H], i: [H]
    carried   d:h[t]<-: [H]
      d:h[t]: [H]      = `d:y[t] given` + d:h[t]<-
      d:i: [H]         = d:h[t]*i
      d:i⊗x[t]: [H, I] = outer(d:i, x[t])
      d:h⊗x[t]: [H, I] = outer(d:h[t], x[t])
      d:i⊗h: [H, H]    = outer(d:i, h[t-1])
      Wi.d:i: [I]      = Wi.T @ d:i
      Wf.d:h: [I]      = Wf.T @ d:h[t]
      d:x[t]: [I]      = Wi.d:i + Wf.d:h
      d:h[t-1]: [H]    = U.T @ d:i
    carry     d:h[t]<- <- d:h[t-1]
    total     d:Wi = sum of d:i⊗x[t]
    total     d:Wf = sum of d:h⊗x[t]
    total     d:U = sum of d:i⊗h
    total     d:b = sum of d:i
    give out  d:x[t]
""".replace("d:y[t] given:", "`d:y[t] given`:")
    .replace("Wi.d:i", "`Wi.T@d:i`")
    .replace("Wf.d:h", "`Wf.T@d:h`")
)


def test_gradients_are_products_over_all_steps() -> None:
    """A product for each right side, whatever the number of rows; the gradient of a bias is a sum."""
    plan = scheduled(GRADIENTS)
    assert plan.gradients == (
        Gradient((("d:Wi", "d:i"), ("d:Wf", "d:h[t]")), "x[t]"),
        Gradient((("d:U", "d:i"),), "h[t-1]"),
    )
    assert plan.sums == (ir.Total("d:b", "d:i"),)
    assert "outer" not in "".join(happens(plan).values())
    assert happens(plan)["after"] == told("d:x[t]: [I] = [Wi.T, Wf.T] @ [d:i; d:h[t]]")
    assert_same_numbers(program(GRADIENTS), in_order(plan))


# --- products ---------------------------------------------------------------------------------------------------------

SUM = """
    constant  V: [H, H], W: [H, H], K: [N, H, H], L: [N, H, H]
    sequence  x[t]: [H], g[t]: [N, H]
    carried   h[t-1]: [H]
      p: [H]    = tanh(h[t-1])
      q: [H]    = sigmoid(h[t-1])
      {products}
      y: {shape} = {sum}
      h[t]: [H] = p + q
    carry     h[t-1] <- h[t]
    give out  y, h[t]
"""


def stacked(products: str, total: str, shape: str = "[H]", heads: bool = False) -> str:
    """The operations of a step with such a sum, after stacking; without what all have in common."""
    text = SUM.format(products=products.replace("; ", "\n"), sum=total, shape=shape)
    found = stack_operands(program(text), SchedulePolicy(stack_heads=heads))
    assert_same_numbers(program(text), found)
    return "\n".join(operations(found).splitlines()[2:-1])


def test_products_that_are_only_summed_are_one() -> None:
    assert stacked("a: [H] = V @ p; b: [H] = W @ q", "a + b") == told("y: [H] = [V, W] @ [p; q]")
    assert stacked("a: [H] = V @ p; b: [H] = W @ q", "a + b + x[t]") == told("y@: [H] = [V, W] @ [p; q]\n y: [H] = x[t] + y@")
    assert stacked("a: [H] = V.T @ p; b: [H] = W.T @ q", "a + b") == told("y: [H] = [V.T, W.T] @ [p; q]")


@pytest.mark.parametrize(
    ("why", "products", "total"),
    [
        ("another reads it", "a: [H] = V @ p; b: [H] = W @ q", "a*b + a + b"),
        ("it is a factor, no term", "a: [H] = V @ p; b: [H] = W @ q", "a*b"),
        ("one is transposed, the other is not", "a: [H] = V @ p; b: [H] = W.T @ q", "a + b"),
        ("what it multiplies is given, so there is nothing to stack it with", "a: [H] = V @ x[t]; b: [H] = W @ p", "a + b"),
        ("there is but one", "a: [H] = V @ p", "a + x[t]"),
    ],
)
def test_products_that_stay_apart(why: str, products: str, total: str) -> None:
    found = stacked(products, total)
    assert found == told(f"{products}\n y: [H] = {total}".replace("; ", "\n")), why


def test_products_by_heads_are_stacked_where_that_is_wanted() -> None:
    products = "k: [N, H] = g[t] + p; l: [N, H] = g[t]*2 + q; a: [N, H] = K @ k; b: [N, H] = L @ l"
    products = products.replace("+ p", "+ 1").replace("+ q", "+ 3")
    assert "[K, L] @ [k; l]" in stacked(products, "a + b", "[N, H]", heads=True)
    assert "a: [N, H] = K @ k" in stacked(products, "a + b", "[N, H]")


def rows(text: str, blocks: bool = False) -> str:
    """A sequence of operations, with rows packed."""
    step = program(f"constant V: [H, H], W: [H, H]\n sequence x[t]: [H], z[t]: [H]\n{text}")
    return operations(ir.typecheck(step.with_ops(pack_rows(step.ops, blocks))))


def test_products_with_a_common_operand_are_one() -> None:
    """Where the first of them stands."""
    assert rows("a: [H] = V @ x[t]\n c: [H] = x[t]\n b: [H] = W @ x[t]") == told(
        "a: [H], b: [H] = [V; W] @ [x[t]]\n c: [H] = x[t]"
    )
    text = "a: [H] = V @ x[t]\n b: [H] = W.T @ x[t]\n c: [H] = W @ z[t]"
    assert rows(text) == told("a: [H] = [V] @ [x[t]]\n b: [H] = [W.T] @ [x[t]]\n c: [H] = [W] @ [z[t]]")


def test_a_block_matrix_where_that_is_wanted() -> None:
    text = "a: [H] = [V, W] @ [x[t]; z[t]]\n b: [H] = [W, V] @ [x[t]; z[t]]"
    assert rows(text) == told(text)
    assert rows(text, blocks=True) == told("a: [H], b: [H] = [V, W; W, V] @ [x[t]; z[t]]")


# --- cells --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, id=spec_id(spec), marks=() if spec.stem in COMMON[::6] else pytest.mark.slow) for spec in SPECS],
)
def test_a_scheduled_step_computes_the_same(spec: Path) -> None:
    """Both directions of a cell, however they are scheduled; in order, so that nothing is read before it is there."""
    cell = cell_of(spec)
    compiled = compile_cell(cell)
    dims = dict(zip(cell.dims, PRIMES, strict=False))
    for step in (compiled.forward, compiled.backward):
        for how in ({"blocks": True}, {"heads": True}, {"alone": True}):
            found = ir.typecheck(in_order(scheduled(step, **how)))
            with np.errstate(all="ignore"):  # a logarithm of a negative number is none in both
                assert_same_numbers(step, found, dims)
