"""Forms of expressions that take fewer calls of NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy
from program_support import assert_same_numbers, program, told
from support import cell_from

import cellspec
from cellspec import ir
from cellspec.ir import Program
from cellspec.ir.forms import MIXTURE
from cellspec.passes.forms import mixture, mixtures, tanh_form
from cellspec.passes.schedule import schedule

GATED = """
    constant  W: [H, I], U: [H, H], b: [H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H]
      W@x: [H]   = W @ x[t]
      U@h: [H]   = U @ h[t-1]
      i.pre: [H] = W@x + U@h + b
      i: [H]     = sigmoid(i.pre)
      h[t]: [H]  = i*h[t-1]
    carry     h[t-1] <- h[t]
    give out  h[t]
"""


def test_the_tanh_form_halves_the_weights() -> None:
    expected = """
        constant  W: [H, I], U: [H, H], b: [H]
        sequence  x[t]: [I]
        carried   h[t-1]: [H]
          `W/2`: [H, I]      = W/2
          `W@x/2`: [H]       = `W/2` @ x[t]
          `U/2`: [H, H]      = U/2
          `U@h/2`: [H]       = `U/2` @ h[t-1]
          i.pre: [H]         = `U@h/2` + `W@x/2` + b/2
          `tanh(i.pre)`: [H] = tanh(i.pre)
          i: [H]             = `tanh(i.pre)`/2 + 1/2
          h[t]: [H]          = h[t-1]*i
        carry     h[t-1] <- h[t]
        give out  h[t]
    """
    made = tanh_form(program(GATED), stash=("i",), delicate=())
    assert told(made) == told(expected)
    assert_same_numbers(program(GATED), made)


def test_a_matrix_is_halved_once_for_all_its_products() -> None:
    twice = """
        constant  U: [H, H]
        carried   h[t-1]: [H], c[t-1]: [H]
          U@h: [H]  = U @ h[t-1]
          U@c: [H]  = U @ c[t-1]
          a: [H]    = U@h + 1
          b: [H]    = U@c - 1
          f: [H]    = sigmoid(a)
          g: [H]    = sigmoid(b)
          h[t]: [H] = f*g
        carry     h[t-1] <- h[t]
        carry     c[t-1] <- h[t]
        give out  h[t]
    """
    made = tanh_form(program(twice), (), ())
    assert told(made).count("`U/2`: [H, H] = U/2") == 1 and told(made).count("`U/2` @") == 2
    assert_same_numbers(program(twice), made)


@pytest.mark.parametrize(
    ("stash", "delicate", "changed"),
    [
        (("i.pre",), (), {}),  # the backward pass reads it, and it has another meaning
        (("W@x", "U@h"), (), {}),
        ((), ("i",), {}),  # it must be accurate where it is small
        ((), (), {"h[t]: [H]  = i*h[t-1]": "h[t]: [H]  = i*h[t-1] + i.pre"}),  # it is read elsewhere
        ((), (), {"give out  h[t]": "give out  h[t], i"}),
        ((), (), {"W@x + U@h + b": "x[t]*b", "sequence  x[t]: [I]": "sequence  x[t]: [H]", "W@x: [H]   = W @ x[t]\n": ""}),
    ],
)
def test_what_keeps_a_logistic_function_as_it_is(
    stash: tuple[str, ...], delicate: tuple[str, ...], changed: dict[str, str]
) -> None:
    text = GATED
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    step = program(text)
    assert tanh_form(step, stash, delicate) == step


def test_one_product_that_is_kept_for_the_backward_pass_is_doubled_and_halved() -> None:
    """Only the other one is computed with half the weights."""
    made = tanh_form(program(GATED), stash=("W@x",), delicate=())
    assert "W@x: [H] = W @ x[t]" in told(made) and "i.pre: [H] = `U@h/2` + W@x/2 + b/2" in told(made)
    assert_same_numbers(program(GATED), made)


p, q, x, y = sympy.symbols("p q x y")
before = sympy.Symbol("h[t-1]")


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (p * x + (1 - p) * y, (p, x, y)),
        ((1 - p) * x + y * p, (p, y, x)),
        (2 * p * q * x + (1 - p) * y / 3, (p, 2 * q * x, y / 3)),
        (p * x + (1 - p) * before, (p, x, before)),
        (p * before * q + (1 - p) * y, (p, before * q, y)),
    ],
)
def test_a_mixture_is_found(expr: sympy.Add, expected: tuple[sympy.Expr, ...]) -> None:
    found = mixture(expr)
    assert found == expected
    weight, this, other = found
    assert sympy.expand(other + weight * (this - other) - expr) == 0


@pytest.mark.parametrize(
    "expr",
    [
        p * before + (1 - p) * y,  # where p is 1 the state must stay as it is, to the bit
        p * x + (1 - q) * y,
        p * x + (1 - p) * y + q,
        p * x - (1 - p) * y,
        p + (1 - p) * y,
        p * x + y,
        x + y,
        p * x + (1 - p) * p * y,  # the slope of z*sigmoid(z): y may be far larger than all of it
    ],
)
def test_what_is_no_mixture_stays_as_it_is(expr: sympy.Add) -> None:
    assert mixture(expr) is None


BLENDED = """
    constant  U: [H, H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      U@h: [H]  = U @ h[t-1]
      p: [H]    = sigmoid(U@h)
      n: [H]    = tanh(U@h + x[t])
      h[t]: [H] = p*n + (1 - p)*h[t-1]
    carry     h[t-1] <- h[t]
    give out  h[t]
"""


def mixed(text: str, careful: tuple[str, ...] = ()) -> Program:
    """All that happens in the schedule of a step, its mixtures rewritten."""
    return ir.typecheck(mixtures(schedule(program(text)), {}, careful).listing)


def unfolded(expr: sympy.Expr) -> sympy.Expr:
    """``expr`` with what mixtures are equal to."""
    return expr.replace(MIXTURE, lambda weight, this, other: other + weight * (this - other))


def test_a_mixture_in_a_loop_is_rewritten() -> None:
    expected = BLENDED.replace("p*n + (1 - p)*h[t-1]", "mixture(p, n, h[t-1])").replace("= U @ h[t-1]", "= [U] @ [h[t-1]]")
    made = mixed(BLENDED)
    assert told(made) == told(expected)
    plain = [replace(op, expr=unfolded(op.expr)) if isinstance(op, ir.Pointwise) else op for op in made.ops]
    assert_same_numbers(program(BLENDED), made.with_ops(plain))


def test_a_mixture_within_another_and_within_a_function_is_rewritten() -> None:
    inner = BLENDED.replace("p*n + (1 - p)*h[t-1]", "tanh(p*n + (1 - p)*(n*x[t] + (1 - n)*h[t-1]))")
    assert "h[t]: [H] = tanh(mixture(p, n, mixture(n, x[t], h[t-1])))" in told(mixed(inner))


@pytest.mark.parametrize(
    ("old", "new", "careful"),
    [
        ("h[t-1]\n    carry", "h[t-1]\n    carry", ("h[t]",)),
        ("n: [H]    = tanh", "n: [H]    = exp", ()),  # what is left of a huge one would be lost
        ("p*n + (1 - p)*h[t-1]", "p*h[t-1] + (1 - p)*n", ()),  # where p is 1 the state must stay as it is, to the bit
        ("    carry", "      q: [H]    = 1/h[t]\n    carry", ()),  # a small one beside a large one before it would be lost
    ],
)
def test_what_keeps_a_mixture_as_it_is(old: str, new: str, careful: tuple[str, ...]) -> None:
    text = BLENDED.replace(old, new)
    text = text.replace("give out  h[t]", "give out  h[t], q") if "q:" in text else text
    assert "mixture(" not in told(mixed(text, careful))
    assert "mixture(" in told(mixed(BLENDED))


MEAN = """
name: mean
inputs: {{x: H}}
states: {{h: H, m: H}}
params:
  U{{a,b}}: [H, H]
equations: |
  p = sigmoid(Ua @ h[t-1])
  n = {candidate}(Ub @ h[t-1])
  m[t] = p*n + (1 - p)*{other}
  h[t] = {result}
"""


@pytest.mark.parametrize(
    ("candidate", "other", "result", "mixed"),
    [
        ("softplus", "m[t-1]", "tanh(m[t] + x[t])", True),
        ("exp", "m[t-1]", "tanh(m[t] + x[t])", False),  # what is left of a huge one would be lost
        ("softplus", "m[t-1]", "tanh(x[t])/m[t]", False),  # a small m beside a large one before it would be lost
        ("softplus", "m[t-1]", "tanh(x[t])/sum(m[t])", False),
        ("softplus", "m[t-1]", "tanh(x[t])/norm(cumsum(m[t]))", False),
        ("softplus", "x[t]**2", "tanh(x[t] + sqrt(m[t-1]))", False),
    ],
)
def test_nothing_divides_by_a_mixture(candidate: str, other: str, result: str, mixed: bool) -> None:
    text = cellspec.generate(cell_from(MEAN.format(candidate=candidate, other=other, result=result)), backend="numpy")
    loop = text[text.index("def _forward(") : text.index("def backward(")]
    assert ("subtract(one, p, " in loop) != mixed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gate_of_its_own_argument_has_the_slopes_of_its_limits(dtype: str) -> None:
    head = "name: swish\ninputs: {x: H}\nstates: {h: H}\nparams: {w: H}\n"
    module = cellspec.build(cell_from(head + "equations: |\n  z = w*x[t]\n  h[t] = z*sigmoid(z) + 0*h[t-1]\n"))
    params = module.Params(np.ones(5, dtype))
    x = np.array([[[-1e20, -1e4, 1e4, 1e10, 1e20]]], dtype)
    y, _, tape = module.forward(params, x)
    assert module.backward(params, tape, np.ones_like(y)).x.ravel().tolist() == [0, 0, 1, 1, 1]
