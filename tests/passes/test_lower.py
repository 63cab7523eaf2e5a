"""Lowering: equations in, programs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from program_support import operations, run, told
from support import COMMON, SPECS, cell_from, cell_of, draw, spec_id

from cellspec import oracle
from cellspec.passes.lower import Lowered, lower


def lowered(
    equations: str,
    params: str = "{}",
    *,
    x: str = "H",
    states: str = "{h: H}",
    outputs: str = "[h]",
) -> Lowered:
    """A cell of these equations, as programs."""
    lines = "".join(f"  {line.strip()}\n" for line in equations.strip().splitlines())
    head = f"name: small\ninputs: {{x: {x}}}\nstates: {states}\noutputs: {outputs}\nparams: {params}\n"
    return lower(cell_from(f"{head}equations: |\n{lines}"))


def test_a_step_with_all_that_belongs_to_it() -> None:
    """Each application of a function is a value, arithmetic is not; states are carried, inputs given, parameters constant."""
    found = lowered("h[t] = tanh(W @ x[t] + b)*sigmoid(h[t-1])", "{W: [H, I], b: H}", x="I")
    assert told(found.step) == told(
        """
        constant  W: [H, I], b: [H]
        sequence  x[t]: [I]
        carried   h[t-1]: [H]
          W@x[t]: [H]            = W @ x[t]
          h.pre: [H]             = W@x[t] + b
          `tanh(h.pre)`: [H]     = tanh(h.pre)
          `sigmoid(h[t-1])`: [H] = sigmoid(h[t-1])
          h[t]: [H]              = `sigmoid(h[t-1])`*`tanh(h.pre)`
        carry     h[t-1] <- h[t]
        give out  h[t]
        """
    )
    assert told(found.prologue) == "constant W: [H, I], b: [H]"


def test_what_reads_parameters_alone_is_computed_once() -> None:
    """Whether an equation of its own says so, or a part of one."""
    found = lowered("A = M - M.T\nh[t] = A @ h[t-1] + a*x[t] + sigmoid(a)*h[t-1]", "{M: [H, H], a: H}")
    assert told(found.prologue) == told(
        """
        constant  M: [H, H], a: [H]
          `M.T`: [H, H]     = M.T
          A: [H, H]         = M - `M.T`
          `sigmoid(a)`: [H] = sigmoid(a)
        give out  A, `sigmoid(a)`
        """
    )
    assert operations(found.step) == told(
        """
        A@h[t-1]: [H] = A @ h[t-1]
        h[t]: [H]     = A@h[t-1] + a*x[t] + h[t-1]*`sigmoid(a)`
        """
    )
    assert found.step.constants == ("a", "A", "sigmoid(a)")


def test_a_product_with_a_concatenation_is_one_for_each_part() -> None:
    """So that the part with ``x[t]`` need not wait for the state."""
    found = lowered("h[t] = W @ [h[t-1], x[t]]", "{W: [H, H + I]}", x="I")
    assert told(found.prologue) == told(
        """
        constant  W: [H, H + I]
          W|h[t-1]: [H, H] = W[..., 0 : H]
          W|x[t]: [H, I]   = W[..., H : H + I]
        give out  W|h[t-1], W|x[t]
        """
    )
    assert operations(found.step) == told(
        """
        `[h[t-1], x[t]]`: [H + I] = [h[t-1], x[t]]
        W|h[t-1]@h[t-1]: [H]      = W|h[t-1] @ h[t-1]
        W|x[t]@x[t]: [H]          = W|x[t] @ x[t]
        h[t]: [H]                 = W|h[t-1]@h[t-1] + W|x[t]@x[t]
        """
    )


def test_the_parts_of_each_head_meet_its_own_columns() -> None:
    found = lowered("h[t] = W @ [h[t-1], x[t]]", "{W: [N, K, K + I]}", x="[N, I]", states="{h: [N, K]}")
    assert operations(found.prologue) == told(
        """
        W|h[t-1]: [N, K, K] = W[..., 0 : K]
        W|x[t]: [N, K, I]   = W[..., K : I + K]
        """
    )


def test_a_divisor_makes_a_value_of_the_quotient() -> None:
    """In terms of which its derivative is written; a division by a number makes none."""
    step = lowered("s = 1 + x[t]**2\nh[t] = h[t-1]/s + x[t]/3").step
    assert operations(step) == told(
        """
        s: [H]          = x[t]**2 + 1
        `h[t-1]/s`: [H] = h[t-1]/s
        h[t]: [H]       = `h[t-1]/s` + x[t]/3
        """
    )


def test_heads_share_one_product_with_all_their_rows() -> None:
    """``[N, K, I] @ [I]`` is ``[N*K, I] @ [I]``, whose rows are then the heads'."""
    found = lowered("h[t] = W @ x[t] + h[t-1]", "{W: [N, K, I]}", x="I", states="{h: [N, K]}")
    assert told(found.prologue) == told(
        """
        constant  W: [N, K, I]
          W.rows: [K*N, I] = reshape(W)
        give out  W.rows
        """
    )
    assert operations(found.step) == told(
        """
        W.rows@x[t]: [K*N]        = W.rows @ x[t]
        W.rows@x[t].heads: [N, K] = reshape(W.rows@x[t])
        h[t]: [N, K]              = W.rows@x[t].heads + h[t-1]
        """
    )


def test_a_matrix_of_the_samples_own_is_no_weight() -> None:
    """It differs from sample to sample, so its product is a sum of pointwise ones, and an outer product is pointwise too."""
    step = lowered("C[t] = C[t-1] + outer(x[t], k)\nh[t] = C[t] @ k", "{k: K}", states="{h: H, C: [H, K]}").step
    assert operations(step) == told(
        """
        x[t].column: [H, 1]   = reshape(x[t])
        C[t]: [H, K]          = C[t-1] + k.row*x[t].column
        `C[t]*k`: [H, K]      = C[t]*k.row
        `sum(C[t]*k)`: [H, 1] = sum_to(`C[t]*k`)
        h[t]: [H]             = reshape(`sum(C[t]*k)`)
        """
    )


def test_equal_parts_are_made_once() -> None:
    step = lowered("f = sigmoid(x[t])\nh[t] = f*h[t-1] + (1 - sigmoid(x[t]))*tanh(x[t]) + tanh(x[t])").step
    assert operations(step) == told(
        """
        f: [H]            = sigmoid(x[t])
        `tanh(x[t])`: [H] = tanh(x[t])
        h[t]: [H]         = f*h[t-1] + `tanh(x[t])`*(1 - f) + `tanh(x[t])`
        """
    )


def test_an_equation_that_copies_is_read_at_its_source() -> None:
    """``r`` stays, for a trace; nothing depends on it."""
    assert operations(lowered("r = x[t]\nh[t] = r + h[t-1]").step) == told("r: [H] = x[t]\nh[t]: [H] = h[t-1] + x[t]")


def test_functions_of_numbers_are_numbers() -> None:
    step = lowered("h[t] = exp(0)*h[t-1] + sqrt(16)*x[t] + where(1 > 2, tanh(x[t]), 5)").step
    assert operations(step) == "h[t]: [H] = h[t-1] + 4*x[t] + 5"


def test_what_is_a_few_steps_back_is_carried_through_states() -> None:
    step = lowered("h[t] = h[t-2] + x[t-1]").step
    assert operations(step) == told(
        """
        h[t]: [H]      = h_lag2[t-1] + x_lag1[t-1]
        h_lag2[t]: [H] = h[t-1]
        x_lag1[t]: [H] = x[t]
        """
    )
    assert [link.before for link in step.carries] == ["h[t-1]", "h_lag2[t-1]", "x_lag1[t-1]"]


def test_what_is_further_back_is_delayed() -> None:
    """But for an input, which is known for all steps."""
    step = lowered("h[t] = h[t-1] + h[t-9] + x[t] + x[t-9]").step
    assert told(step) == told(
        """
        sequence  x[t]: [H], x[t-9]: [H]
        carried   h[t-1]: [H], h[t-9]: [H]
          h[t]: [H] = h[t-1] + h[t-9] + x[t-9] + x[t]
        carry     h[t-1] <- h[t]
        delay     h[t-9] <- h[t], 9 steps
        give out  h[t]
        """
    )


@pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, id=spec_id(spec), marks=() if spec.stem in COMMON[::2] else pytest.mark.slow) for spec in SPECS],
)
def test_a_lowered_step_computes_the_equations(spec: Path) -> None:
    """Every equation's value at the first step, against the oracle, which knows no programs."""
    cell = cell_of(spec)
    sample = draw(cell, steps=1, batch=1)
    expected = oracle.forward(cell, sample.params, sample.x, sample.state)
    found = lower(cell)
    made = run(found.prologue, sample.params, sample.dims)
    given = {f"{name}[t]": array[0, 0] for name, array in sample.x.items()}
    given |= {f"{state.name}[t-1]": sample.state[state.name][0] for state in cell.states}
    given |= {ref.label: sample.state[cell.keeper(ref).name][0, ref.back - 1] for ref in cell.distant}
    made |= run(found.step, {**made, **given}, sample.dims)
    for equation in cell.assignments:
        name = equation.target.name
        value = expected.values[name][0, 0] if name in expected.values else expected.derived[name]
        np.testing.assert_allclose(made[equation.target.label], value, rtol=1e-9, atol=1e-12, err_msg=equation.text)
