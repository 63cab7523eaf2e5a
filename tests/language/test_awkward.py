"""Cells that generators trip over: their own favourite names, mixed shapes, several outputs, functions with kinks."""

from __future__ import annotations

import numpy as np
import pytest
from support import cell_from

import cellspec
from cellspec.verification.check import verify

NAMES = """
name: names
dims: [i0, i1]
inputs: {x: i0}
states: {out: i1, tape: i1, T: i1}
outputs: [out, np]
params:
  params: [i1, i0]
  ws: [i1, i1]
  B: i1
  state: {shape: i1, trainable: false}
  grads: 1
equations: |
  np = tanh(params @ x[t] + ws @ out[t-1] + B)
  dy = sigmoid(np + state*tape[t-1])
  self = dy*T[t-1]
  T[t] = self + grads*np
  tape[t] = tanh(T[t])*0.5 + tape[t-1]/i1
  out[t] = dy*tape[t] + (1 - dy)*out[t-1]
"""

MIXED = """
name: mixed
inputs: {x: I}
states: {h: H, s: 2*H, m: {shape: 1, init: -0.5}}
outputs: [r, h]
hyper: {keep: 0.25}
params:
  M: [H, H]
  W: [H, H+I]
  V: [2*H, H]
  R: [1, 2*H]
  a: {shape: 1, init: 0.5}
  b: H
  gam: {shape: 1, trainable: false}
equations: |
  A = M - M.T - sigmoid(gam)*eye(H)
  r = relu(W @ [x[t], h[t-1]] + b)
  q = where(r > keep, max(A @ h[t-1], r), (A @ h[t-1])*a)
  s[t] = keep*s[t-1] + V @ (softsign(q)*r**2) + m[t-1]
  m[t] = hard_tanh(R @ s[t-1]) + 0.5*m[t-1]
  h[t] = gelu(q)/H + clip(h[t-1], -0.5, 0.5)*m[t] + elu(q)
"""

LEAKY = """
name: leaky
inputs: {x: H}
states: {c: H, n: H}
params:
  w{a,b}: H
equations: |
  f = sigmoid(wa)
  c[t] = f*c[t-1] + (1 - f)*x[t]
  n[t] = min(abs(n[t-1] - wb*c[t]), 2) + mod(x[t], 2)*silu(c[t-1]) + leaky_relu(softplus(x[t]) - 1)*logsigmoid(c[t]) - erf(x[t])
"""


@pytest.mark.parametrize("text", [NAMES, MIXED, LEAKY], ids=["names", "mixed", "leaky"])
def test_awkward_cells_work_like_any_other(text: str) -> None:
    cell = cell_from(text)
    report = verify(cell, cellspec.build(cell), seed=4)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("function", "at", "slope"),
    [
        ("relu({})", 0.0, 0.0),
        ("abs({})", 0.0, 0.0),
        ("sign({})", 0.0, 0.0),
        ("leaky_relu({})", 0.0, 0.01),
        ("elu({})", 0.0, 1.0),
        ("hard_tanh({})", 1.0, 0.0),
        ("hard_tanh({})", -1.0, 0.0),
        ("hard_sigmoid({})", 3.0, 0.0),
        ("hard_sigmoid({})", -3.0, 0.0),
        ("max({}, 0.5)", 0.5, 0.5),
        ("min(0.5, {})", 0.5, 0.5),
        ("max({}, 2*{})", 0.0, 1.5),
        ("clip({}, -1, 0.5)", 0.5, 1.0),
        ("clip({}, -1, 0.5)", -1.0, 1.0),
        ("floor({})", 2.0, 0.0),
        ("mod({}, 2)", 2.0, 1.0),
        ("where({} > 1, 3*{}, 5*{})", 1.0, 5.0),
        ("where({} >= 1, 3*{}, 5*{})", 1.0, 3.0),
        ("{}**2", 0.0, 0.0),
        ("{}**3", 0.0, 0.0),
    ],
)
def test_derivatives_at_kinks_follow_the_convention(function: str, at: float, slope: float) -> None:
    """Of a parameter, of an input and of a previous state: the derivative of one step is the documented one."""
    sources = {"h": "p", "y": "x[t]", "z": "z[t-1]"}
    lines = [f"  {state}[t] = {function.replace('{}', source)}" for state, source in sources.items()]
    head = "name: kink\ninputs: {x: H}\nstates: {h: H, y: H, z: H}\noutputs: [h, y, z]\nparams: {p: H}\nequations: |\n"
    module = cellspec.build(cell_from(head + "\n".join(lines) + "\n"))
    params, x = module.Params(np.full((1,), at)), np.full((1, 1, 1), at)
    state = module.State(*(np.full((1, 1), at) for _ in range(3)))
    _, _, tape = module.forward(params, x, state)
    zeros = module.Outputs(*(np.zeros((1, 1, 1)) for _ in range(3)))
    grads = module.backward(params, tape, zeros, module.State(*(np.ones((1, 1)) for _ in range(3))))
    assert [grads.params.p.item(), grads.x.item(), grads.state.z.item()] == pytest.approx([slope] * 3, abs=1e-15)
