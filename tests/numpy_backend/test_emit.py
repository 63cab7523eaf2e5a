"""The statements of a direction compute what its program says, and say it as they should: views, products, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy_support import emitter_of, executed, printer
from program_support import DIMS, evaluate, run, size_of

from cellspec import ir
from cellspec.backends.arrays.expressions import Local
from cellspec.backends.memory.model import Home, Owner, Phase
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.orientation import BATCH_MAJOR, FEATURE_MAJOR, Orientation

STEPS, BATCH = 4, 5
SIZES = {**DIMS, "D": 2}

GATES = """
    constant  Wi: [H, I], Wf: [H, I], Wz: [H, I], Ui: [H, H], Uf: [H, H], Uz: [H, H], b: [H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H]
      Wi@x: [H]  = Wi @ x[t]
      Wf@x: [H]  = Wf @ x[t]
      Wz@x: [H]  = Wz @ x[t]
      Ui@h: [H]  = Ui @ h[t-1]
      Uf@h: [H]  = Uf @ h[t-1]
      Uz@h: [H]  = Uz @ h[t-1]
      i.pre: [H] = Wi@x + Ui@h + b
      f.pre: [H] = Wf@x + Uf@h
      z.pre: [H] = Wz@x + Uz@h
      i: [H]     = sigmoid(i.pre)
      f: [H]     = sigmoid(f.pre)
      z: [H]     = tanh(z.pre)
      h[t]: [H]  = f*h[t-1] + i*z
    carry     h[t-1] <- h[t]
    give out  h[t]
"""
HEADS = """
    constant  U: [N, H, D], V: [N, H, D], R: [N, H, D]
    sequence  y[t]: [N, D]
    carried   h[t-1]: [N, D]
      p: [N, H]    = U @ h[t-1]
      q: [N, H]    = V @ h[t-1]
      r: [N, H]    = R @ y[t]
      a: [N, H]    = tanh(p + r)
      c: [N, D]    = V.T @ a
      s: [N, 1]    = sum_to(q)
      h[t]: [N, D] = c + h[t-1]*s
    carry     h[t-1] <- h[t]
    give out  h[t], a
"""
MOVES = """
    constant  b: [H], s: [1], W: [H, H]
    sequence  x[t]: [H], q[t]: [N, H], r[t]: [1, H]
      a: [2*H]  = [x[t], b]
      c: [H]    = a[..., H : 2*H]
      d: [H]    = cumsum(c, reverse)
      e: [1]    = sum_to(d)
      f: [H]    = roll(x[t], 1)
      g: [N, 1] = sum_to(q[t])
      h: [N, 1] = largest(q[t])
      i: [N, H] = q[t]*r[t]
      j: [N, 1] = sum_to(i)
      k: [H]    = W @ x[t]
      l: [H]    = erf(k)*s - b
      m: [H]    = -x[t]
      n: [1, H] = sum_to(q[t])
      o: [H]    = cumsum(x[t])
    give out e, f, g, h, j, l, d, m, n, o
"""
MOVES_IN_LOOP = """
    constant  b: [H]
    sequence  x[t]: [H], q[t]: [N, H]
    carried   h[t-1]: [H]
      u: [2*H]  = [h[t-1], x[t]]
      v: [H]    = u[..., H - 1 : 2*H - 1]
      c: [H]    = cumsum(v, reverse)
      w: [H]    = roll(c, 1)
      k: [H]    = cumsum(w)
      e: [1]    = sum_to(k)
      r: [1, H] = reshape(h[t-1])
      i: [N, H] = q[t]*r
      j: [N, 1] = sum_to(i)
      g: [N, 1] = largest(i)
      o: [1, H] = sum_to(i)
      m: [H]    = reshape(o)
      h[t]: [H] = tanh(k + e*b + m)
    carry     h[t-1] <- h[t]
    give out  h[t], j, g
"""
SUMS = """
    constant  U: [H, H], V: [H, H]
    sequence  x[t]: [H], y[t]: [H]
    carried   h[t-1]: [H]
      a: [H]    = tanh(h[t-1]*x[t])
      b: [H]    = tanh(h[t-1]*y[t])
      p: [H]    = U.T @ a
      q: [H]    = V.T @ b
      e: [H]    = p + q
      h[t]: [H] = e + a
    carry     h[t-1] <- h[t]
    give out  h[t], a
"""
LATE = """
    constant  W: [I, H], c: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      k: [H]    = 3*c
      a: [H]    = tanh(x[t]) + k
      h[t]: [H] = a*h[t-1]
      b: [H]    = a + h[t]
      y: [I]    = W @ b
    carry     h[t-1] <- h[t]
    give out  y
"""
BACK = """
    constant  U: [H, H], V: [H, I]
    sequence  dy[t]: [H], s[t]: [H], x[t]: [I], z[t]: [H]
    carried   p: [H]
      d: [H]    = dy[t] + p
      e: [H]    = d*s[t]*(1 - s[t])
      f: [H]    = d*z[t]
      m: [H]    = e + f
      n: [H]    = U.T @ m
      dx: [I]   = V.T @ e
      O: [H, I] = outer(e, x[t])
      Q: [H, I] = outer(f, x[t])
    carry     p <- n
    total     db = sum of e
    total     dc = sum of f
    total     dV = sum of O
    total     dW = sum of Q
    give out  dx
"""
HEADS_BACK = """
    constant  U: [N, H, D]
    sequence  dy[t]: [N, H], s[t]: [N, D]
    carried   p: [N, D]
      d: [N, H]    = dy[t]*2
      c: [N, D]    = U.T @ d
      n: [N, D]    = c*s[t] + p
      O: [N, H, D] = outer(d, s[t])
    carry     p <- n
    total     dU = sum of O
    total     dm = sum of c
"""
PROGRAMS = {"gates": GATES, "moves": MOVES, "moves in the loop": MOVES_IN_LOOP, "sums": SUMS, "late": LATE}


def drawn(emitter: Emitter) -> dict[str, dict[str, Any]]:
    """Random arguments for all steps and samples, the samples last, and constants that are made of others."""
    program, rng = emitter.views.program, np.random.default_rng(3)
    constants = {name: rng.normal(size=size_of(program.shape(name), SIZES)) for name in program.constants}
    values = dict(constants)
    for op in emitter.views.storage.code.schedule.prologue:
        assert isinstance(op, ir.Pointwise)
        values[op.out] = evaluate(op.expr, {**SIZES, **values})
    return {
        "constants": values,
        "sequences": {n: rng.normal(size=(STEPS, *size_of(program.shape(n), SIZES), BATCH)) for n in program.sequences},
        "befores": {n: rng.normal(size=(*size_of(program.shape(n), SIZES), BATCH)) for n in program.befores},
    }


def by_definition(emitter: Emitter, given: dict[str, dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """All values of each step of each sample."""
    program = emitter.views.program
    found = []
    for b in range(BATCH):
        befores = {name: array[..., b] for name, array in given["befores"].items()}
        steps = []
        for t in range(STEPS):
            sequences = {name: array[t, ..., b] for name, array in given["sequences"].items()}
            steps.append(run(program, {**given["constants"], **sequences, **befores}, SIZES))
            befores = {link.before: steps[-1][link.after] for link in program.links}
        found.append(steps)
    return found


def value(emitter: Emitter, scope: dict[str, Any], name: str) -> Any:
    """All steps of a value, ``[T, n, B]``."""
    emitter.views.phase = Phase.AFTER
    array = eval(printer(emitter.views.around.owner).text(emitter.views.operand([name])), scope)
    array = array if emitter.orientation.features_first else array.swapaxes(1, 2)
    return array


def assert_computes(emitter: Emitter, names: tuple[str, ...]) -> None:
    given = drawn(emitter)
    emitter.run()
    for name in names:
        emitter.views.operand([name])  # so that its view is there
    scope = executed(emitter, given, STEPS, BATCH, SIZES)
    wanted = by_definition(emitter, given)
    for name in names:
        expected = np.array([[wanted[b][t][name].ravel() for b in range(BATCH)] for t in range(STEPS)]).swapaxes(1, 2)
        np.testing.assert_allclose(value(emitter, scope, name), expected, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("orientation", [FEATURE_MAJOR, BATCH_MAJOR], ids=lambda each: each.name)
@pytest.mark.parametrize("name", PROGRAMS)
def test_statements_compute_what_the_program_says(name: str, orientation: Orientation) -> None:
    emitter = emitter_of(PROGRAMS[name], orientation=orientation)
    assert_computes(emitter, emitter.views.program.outputs)


@pytest.mark.parametrize("keep", [(), ("i", "f", "z"), ("i.pre", "z"), ("Wf@x",)])
def test_whatever_is_kept(keep: tuple[str, ...]) -> None:
    """Another plan of memory, the same numbers; what is kept is there for every step."""
    assert_computes(emitter_of(GATES, keep=keep), ("h[t]", *keep))


def test_products_head_by_head() -> None:
    assert_computes(emitter_of(HEADS), ("h[t]", "a"))


@pytest.mark.parametrize(("text", "names"), [(BACK, ("dx",)), (HEADS_BACK, ())], ids=["plain", "heads"])
def test_totals(text: str, names: tuple[str, ...]) -> None:
    """Of matrices by products over all steps and samples, of vectors by sums."""
    emitter = emitter_of(text, owner=Owner.BACKWARD)
    given, program = drawn(emitter), emitter.views.program
    emitter.run()
    targets = {total.target: Local(total.target) for total in program.totals}
    emitter.products.gradients(targets)
    scope = executed(emitter, given, STEPS, BATCH, SIZES)
    wanted = by_definition(emitter, given)
    for total in program.totals:
        expected = sum(wanted[b][t][total.value] for b in range(BATCH) for t in range(STEPS))
        np.testing.assert_allclose(scope[total.target], expected, rtol=1e-12, err_msg=total.target)
    assert all(emitter.views.storage.home(name) is Home.USER for name in names)
