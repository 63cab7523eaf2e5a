"""The adjoint: a step in, the step that runs backwards out; and that its numbers are the derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from program_support import Arrays, drawn, operations, program, results, run, told

from cellspec.ir import Program, symbol
from cellspec.ir.ops.pointwise import derivative
from cellspec.model.primitives import PRIMITIVES
from cellspec.passes.adjoint import Adjoint, adjoint_prologue, adjoint_step, cotangent, given, later


def backwards(step: Program) -> Adjoint:
    """The adjoint by everything that the step is given."""
    return adjoint_step(step, step.sequences, step.constants)


RECURRENCE = """
    constant  W: [H, I], b: [H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H]
      W@x[t]: [H] = W @ x[t]
      h.pre: [H]  = W@x[t] + b
      f: [H]      = tanh(h.pre)
      h[t]: [H]   = f*h[t-1]
    carry     h[t-1] <- h[t]
    give out  h[t]
"""


def test_a_recurrence() -> None:
    """Cotangents of outputs are given, those of states carried backwards; gradients of parameters are sums over the steps.

    A derivative is in terms of the result: ``1 - f**2``. What is read of the forward pass are the residuals.
    """
    found = backwards(program(RECURRENCE))
    assert told(found.program) == told(
        """
        constant  W: [H, I], b: [H]
        sequence  `d:h[t] given`: [H], f: [H], h[t-1]: [H], x[t]: [I]
        carried   d:h[t]<-: [H]
          d:h[t]: [H]           = `d:h[t] given` + d:h[t]<-
          d:h.pre: [H]          = d:h[t]*h[t-1]*(1 - f**2)
          d:W@x[t]⊗x[t]: [H, I] = outer(d:h.pre, x[t])
          d:x[t]: [I]           = W.T @ d:h.pre
          d:h[t-1]: [H]         = d:h[t]*f
        carry     d:h[t]<- <- d:h[t-1]
        total     d:W = sum of d:W@x[t]⊗x[t]
        total     d:b = sum of d:h.pre
        give out  d:x[t]
        """
    )
    assert found.residuals == ("f", "h[t-1]", "x[t]")


def test_what_no_gradient_is_wanted_of_has_no_cotangent() -> None:
    step = program(RECURRENCE)
    found = adjoint_step(step, (), {"b"}).program
    assert operations(found) == told(
        """
        d:h[t]: [H]   = `d:h[t] given` + d:h[t]<-
        d:h.pre: [H]  = d:h[t]*h[t-1]*(1 - f**2)
        d:h[t-1]: [H] = d:h[t]*f
        total d:b = sum of d:h.pre
        """
    )
    assert found.outputs == ()


def test_an_input_that_nothing_reads_has_gradient_0() -> None:
    step = program("sequence x[t]: [H], z[t]: [I]\n y: [H] = 2*x[t]\n give out y")
    assert operations(backwards(step).program) == told("d:x[t]: [H] = 2*`d:y given`\n d:z[t]: [I] = 0")


RULES = {
    "a product: an outer product for the matrix, the transposed matrix for the vector": (
        """
        constant W: [H, I]
        sequence x[t]: [I]
          y: [H] = W @ x[t]
        give out y
        """,
        """
        d:y⊗x[t]: [H, I] = outer(`d:y given`, x[t])
        d:x[t]: [I]      = W.T @ `d:y given`
        total d:W = sum of d:y⊗x[t]
        """,
    ),
    "a product by heads has the same rule": (
        """
        constant W: [N, H, I]
        sequence x[t]: [N, I]
          y: [N, H] = W @ x[t]
        give out y
        """,
        """
        d:y⊗x[t]: [N, H, I] = outer(`d:y given`, x[t])
        d:x[t]: [N, I]      = W.T @ `d:y given`
        total d:W = sum of d:y⊗x[t]
        """,
    ),
    "a product of matrices": (
        """
        constant A: [H, I], B: [I, K]
          y: [H, K] = A @ B
        give out y
        """,
        """
        `d:y@B.T`: [H, I] = `d:y given` @ B.T
        `A.T@d:y`: [I, K] = A.T @ `d:y given`
        total d:A = sum of `d:y@B.T`
        total d:B = sum of `A.T@d:y`
        """,
    ),
    "a quotient: in terms of itself, no square of the divisor": (
        """
        sequence a: [H], b: [H]
          q: [H] = a/b
        give out q
        """,
        """
        d:a: [H] = `d:q given`/b
        d:b: [H] = -`d:q given`*q/b
        """,
    ),
    "a choice: the side that was chosen alone": (
        """
        sequence a: [H], b: [H]
          y: [H] = where(lt(a, b), a**2, b)
        give out y
        """,
        """
        d:a: [H] = 2*`d:y given`*a*lt(a, b)
        d:b: [H] = `d:y given`*(1 - lt(a, b))
        """,
    ),
    "what was stretched is summed": (
        """
        sequence s: [1], x[t]: [H], k: []
          y: [H] = s*x[t] + k
        give out y
        """,
        """
        d:k: []       = sum_to(`d:y given`)
        `d:y*s'`: [H] = `d:y given`*x[t]
        d:s: [1]      = sum_to(`d:y*s'`)
        d:x[t]: [H]   = `d:y given`*s
        """,
    ),
    "a sum is stretched": (
        """
        sequence x[t]: [H]
          y: [1] = sum_to(x[t])
        give out y
        """,
        "d:x[t]: [H] = `d:y given`",
    ),
    "a concatenation is cut": (
        """
        sequence a: [H], b: [I]
          y: [H + I] = [a, b]
        give out y
        """,
        """
        d:a: [H] = `d:y given`[..., 0 : H]
        d:b: [I] = `d:y given`[..., H : H + I]
        """,
    ),
    "blocks that tile what they were cut of are put side by side": (
        """
        sequence x[t]: [H + I]
          u: [H] = x[t][..., 0 : H]
          v: [I] = x[t][..., H : H + I]
        give out v, u
        """,
        "d:x[t]: [H + I] = [`d:u given`, `d:v given`]",
    ),
    "a block that does not is put among zeros": (
        """
        sequence x[t]: [H + I]
          v: [I] = x[t][..., H : H + I]
        give out v
        """,
        """
        `d:x[t] zeros0.0`: [H] = 0
        d:x[t]: [H + I]        = [`d:x[t] zeros0.0`, `d:v given`]
        """,
    ),
    "members of a family are stacked, with zeros for those that nothing reads": (
        """
        constant V: [3, H]
          a: [H] = V[0]
          b: [H] = V[2]
        give out a, b
        """,
        """
        `d:V member1`: [H]    = 0
        `d:V members`: [3, H] = stack(`d:a given`, `d:V member1`, `d:b given`)
        total d:V = sum of `d:V members`
        """,
    ),
    "sums from the left are sums from the right": (
        """
        sequence x[t]: [H]
          y: [H] = cumsum(x[t])
        give out y
        """,
        "d:x[t]: [H] = cumsum(`d:y given`, reverse)",
    ),
    "and the other way round": (
        """
        sequence x[t]: [H]
          y: [H] = cumsum(x[t], reverse)
        give out y
        """,
        "d:x[t]: [H] = cumsum(`d:y given`)",
    ),
    "a roll is rolled back": (
        """
        sequence x[t]: [H]
          y: [H] = roll(x[t], -2)
        give out y
        """,
        "d:x[t]: [H] = roll(`d:y given`, 2)",
    ),
    "a reshaped value has its own shape again": (
        """
        sequence x[t]: [H, I]
          y: [H*I] = reshape(x[t])
        give out y
        """,
        "d:x[t]: [H, I] = reshape(`d:y given`)",
    ),
    "a transposed matrix": (
        """
        constant M: [H, I]
          y: [I, H] = M.T
        give out y
        """,
        """
        `d:y.T`: [H, I] = `d:y given`.T
        total d:M = sum of `d:y.T`
        """,
    ),
    "an inverse: -B.T dB B.T": (
        """
        constant M: [H, H]
          B: [H, H] = inv(M)
        give out B
        """,
        """
        `B.T@d:B`: [H, H]     = B.T @ `d:B given`
        `B.T@d:B@B.T`: [H, H] = `B.T@d:B` @ B.T
        `d:M each`: [H, H]    = -`B.T@d:B@B.T`
        total d:M = sum of `d:M each`
        """,
    ),
    "a lag: what a step defines is read so many turns later": (
        """
        sequence x[t]: [H]
        carried h[t-3]: [H]
          h[t]: [H] = x[t]*h[t-3]
        delay h[t-3] <- h[t], 3 steps
        give out h[t]
        """,
        """
        d:h[t]: [H]   = `d:h[t] given` + d:h[t]<-3
        d:h[t-3]: [H] = d:h[t]*x[t]
        d:x[t]: [H]   = d:h[t]*h[t-3]
        """,
    ),
    "the cotangent of what is read twice is a sum": (
        """
        constant W: [H, H]
        sequence x[t]: [H]
          a: [H] = x[t]**2
          b: [H] = W @ a
          y: [H] = a*b
        give out y
        """,
        """
        d:b: [H]      = `d:y given`*a
        d:b⊗a: [H, H] = outer(d:b, a)
        `W.T@d:b`: [H] = W.T @ d:b
        d:x[t]: [H]   = 2*x[t]*(`W.T@d:b` + `d:y given`*b)
        total d:W = sum of d:b⊗a
        """,
    ),
}
"""What a rule says, and a step with its adjoint."""


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    step, expected = RULES[rule]
    assert operations(backwards(program(step)).program) == told(expected)


@pytest.mark.parametrize("text", [RECURRENCE, *(step for step, _ in RULES.values())], ids=["recurrence", *RULES])
def test_gradients_are_derivatives(text: str) -> None:
    """By central differences, in a random direction, of the sum of all results, each times a number of its own."""
    step = program(text)
    back = backwards(step)
    arguments, direction = drawn(step, 1), drawn(step, 2)
    values = run(step, arguments)
    found = results(back.program, run(back.program, {**values, **cotangents(step)}))

    def total(shift: float) -> float:
        moved = run(step, {name: array + shift * direction[name] for name, array in arguments.items()})
        seeds = cotangents(step)
        sums = [np.sum(seeds[given(name)] * moved[name]) for name in step.outputs]
        sums += [np.sum(seeds[seed] * moved[after]) for after, seed in links(step)]
        return float(sum(sums))

    numeric = (total(1e-6) - total(-1e-6)) / 2e-6
    gradients = {name: found[cotangent(name)] for name in (*step.sequences, *step.constants)}
    gradients |= {link.before: found[f"{seed} <-"] for link, (_, seed) in zip(step.links, links(step), strict=True)}
    assert sum(np.sum(gradients[name] * direction[name]) for name in arguments) == pytest.approx(numeric, rel=1e-7)


def links(step: Program) -> list[tuple[str, str]]:
    """For each link, what it hands on, and the name of what later steps add to its cotangent."""
    carries = [(carry.after, later(carry.after)) for carry in step.carries]
    return carries + [(delay.after, later(delay.after, delay.steps)) for delay in step.delays]


def cotangents(step: Program) -> Arrays:
    """A cotangent for each result of ``step``."""
    rng = np.random.default_rng(3)
    values = run(step, drawn(step))
    shapes = {given(name): values[name].shape for name in step.outputs}
    shapes |= {seed: values[after].shape for after, seed in links(step)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_nothing_flows_through_a_stop() -> None:
    step = program("sequence x[t]: [H]\n a: [H] = stop_gradient(x[t])\n y: [H] = a*x[t]\n give out y")
    assert operations(backwards(step).program) == told("d:x[t]: [H] = `d:y given`*a")


def test_nothing_flows_through_the_largest_element() -> None:
    step = program("sequence x[t]: [H]\n a: [1] = largest(x[t])\n y: [H] = a*x[t]\n give out y")
    assert operations(backwards(step).program) == told("d:x[t]: [H] = `d:y given`*a")


PROLOGUE = """
    constant  M: [H, H], b: [H]
      `M.T`: [H, H] = M.T
      A: [H, H]     = M - `M.T`
      c: [H]        = sigmoid(b)
    give out  A, c
"""


def test_a_prologue() -> None:
    """From the totals of derived parameters to gradients of parameters, once a sequence."""
    found = adjoint_prologue(program(PROLOGUE), ["M", "b"], ["A", "c", "b"])
    assert told(found.program) == told(
        """
        constant  M: [H, H], b: [H], `d:A total`: [H, H], `d:c total`: [H], `d:b total`: [H]
        sequence  c: [H]
          `d:M.T`: [H, H]   = -`d:A total`
          `d:M.T.T`: [H, H] = `d:M.T`.T
          d:M: [H, H]       = `d:A total` + `d:M.T.T`
          d:b: [H]          = `d:b total` + `d:c total`*c*(1 - c)
        give out  d:M, d:b
        """
    )
    assert found.residuals == ("c",)


def test_a_parameter_that_no_derived_one_reads_has_none_of_it() -> None:
    found = adjoint_prologue(program(PROLOGUE), ["M", "b"], ["c"])
    assert found.program.outputs == ("d:b",)


# --- derivatives of expressions -------------------------------------------------------------------------------------


def fn(name: str, *args: sympy.Expr) -> sympy.Expr:
    return PRIMITIVES[name].symbol(*args)


a, b, y = map(symbol, "aby")


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (a * b, b),
        (a**3 + b, 3 * a**2),
        (a / b, 1 / b),
        (b / a, -y / a),
        (1 / a**2, -2 * y / a),
        (a / (a + b), -y / (a + b) + 1 / (a + b)),
        (fn("sigmoid", a), y * (1 - y)),
        (fn("exp", a), y),
        (b * fn("tanh", a), b * (1 - fn("tanh", a) ** 2)),
        (fn("relu", a), fn("gt", y, 0)),
        (sympy.Integer(3), 0),
    ],
)
def test_derivatives_are_in_terms_of_results(expr: sympy.Expr, expected: sympy.Expr) -> None:
    assert derivative(expr, a, y) == expected
