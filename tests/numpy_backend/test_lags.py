"""Lags of any length: one history a name, whatever is read of it, and all that a sequence can be run with."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from episodes import Masks, alone, masked, random_masks
from support import call, cell_from, close, generator, part
from test_masks import agree, spoilt

import cellspec
from cellspec.cell import Cell
from cellspec.ir import Delay
from cellspec.language.check.lags import NEAR
from cellspec.pipeline import compile_cell
from cellspec.verification.check import verify
from cellspec.verification.sampling import Sample, sample

HEAD = """inputs: {x: I, m: 1}
states: {h: {shape: H, init: 0.25}, g: [2, H]}
outputs: [h, g]
params: {W: [H, I], U: [H, H], a: H}
"""
TEXTS = {
    # a product reads a lag: features come first
    "dense": """
  i = W @ x[t] + W @ x[t-6]
  h[t] = tanh(U @ h[t-5] + i + a*h[t-2]) + 0.5*h[t-1]*m[t-1]
  g[t] = 0.5*g[t-7] + outer([1*m[t], m[t-5]], U @ h[t-1])""",
    # no product in the loop: samples come first
    "elementwise": """
  h[t] = tanh(a*h[t-6] + U @ (W @ x[t])) + 0.25*h[t-9] - 0.125*h[t-1]
  g[t] = 0.5*g[t-1] + outer([m[t-2], m[t-8]], h[t-9] + a*h[t-2])""",
    # the state before the step is read by nobody, nor the input of the step; what a lag reads is used as it is
    "skipped": """
  h[t] = h[t-5] + W @ x[t-5] + m[t-40]
  g[t] = stop_gradient(g[t-6]) + outer([m[t-8], 0.1*t_now], tanh(h[t-5])*a) + outer([m[t-1], m[t-1]], U @ h[t-8])""",
}
REACH = {"dense": (7, 6), "elementwise": (9, 8), "skipped": (8, 40)}


@cache
def cell(name: str) -> Cell:
    return cell_from(f"name: {name}\n{HEAD}equations: |{TEXTS[name]}\n")


@cache
def module(name: str, residuals: str = "speed") -> ModuleType:
    return cellspec.build(cell(name), residuals=residuals)


def drawn(name: str, steps: int, batch: int = 4, seed: int = 1, **options: Any) -> Sample:
    dims = dict(zip(cell(name).dims, (2, 3), strict=True))
    return sample(cell(name), dims, steps, batch, generator(seed), np.float64, **options)


def plain(text: str, name: str = "plain") -> Cell:
    head = f"name: {name}\ninputs: {{x: I}}\nstates: {{h: {{shape: H, init: 0.25}}}}\nparams: {{W: [H, I], U: [H, H], b: H}}\n"
    return cell_from(f"{head}equations: |\n  h[t] = {text}\n")


@pytest.mark.parametrize("name", TEXTS)
def test_far_lags_are_right(name: str) -> None:
    """Against the oracle, forward, stepwise, and every gradient."""
    report = verify(cell(name), module(name))
    assert report.ok, str(report)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 40])
def test_lags_of_every_length_are_right(lag: int) -> None:
    one = plain(f"tanh(W @ x[t-{lag - 1}] + U @ h[t-{lag}] + b*h[t-1])")
    report = verify(one, cellspec.build(one))
    assert report.ok, str(report)


def test_a_lag_is_what_the_loops_of_its_equations_say() -> None:
    steps, rng = 12, generator(0)
    params, x = module("elementwise").init_params(rng, I=2, H=3), rng.normal(size=(steps, 1, 2))
    params = params._replace(a=rng.normal(size=3))
    m = rng.normal(size=(steps, 1, 1))
    y, final, _ = module("elementwise").forward(params, module("elementwise").Inputs(x, m))
    h, g = [np.full(3, 0.25)] * 9, [np.zeros((2, 3))]
    before = np.concatenate([np.zeros(8), m[:, 0, 0]])
    for t in range(steps):
        new = np.tanh(params.a * h[-6] + params.U @ params.W @ x[t, 0]) + 0.25 * h[-9] - 0.125 * h[-1]
        g.append(0.5 * g[-1] + np.outer([before[t + 6], before[t]], h[-9] + params.a * h[-2]))
        h.append(new)
    assert close(y.h[:, 0], np.array(h[9:])) and close(y.g[:, 0], np.array(g[1:]))
    assert close(final.h_lags[0], np.array(h[-2:-10:-1])) and close(final.m_lags[0, :, 0], before[:-9:-1])


@pytest.mark.parametrize("name", TEXTS)
def test_far_lags_add_one_state_a_name(name: str) -> None:
    states = {state.name: state for state in cell(name).states}
    for source, reach in zip(("h" if name != "dense" else "g", "m" if name != "dense" else "x"), REACH[name], strict=True):
        kept = states[f"{source}_lags"]
        assert kept.rows == kept.shape[0] == reach - (source in "hg") and kept.lag_of == (source, reach)
    assert not any(state.name[-1].isdigit() for state in cell(name).states if state.rows)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("cut", [1, 4, 30])
def test_chunks_are_the_whole(name: str, cut: int) -> None:
    steps = 43
    whole = drawn(name, steps)
    y, final, grads = call(module(name), whole)
    first, second = part(whole, slice(None, cut), 0), part(whole, slice(cut, None), 0)
    params, state = whole.module_params(module(name)), whole.module_state(module(name))
    y1, middle, tape1 = module(name).forward(params, first.module_x(module(name)), state)
    y2, last, tape2 = module(name).forward(params, second.module_x(module(name)), middle)
    dy2, dfinal = second.upstream(module(name))
    back2 = module(name).backward(params, tape2, dy2, dfinal)
    back1 = module(name).backward(params, tape1, first.upstream(module(name))[0], back2.state)
    assert close(tuple(map(np.concatenate, zip(y1, y2, strict=True))), y) and close(last, final)
    assert close(tuple(map(np.concatenate, zip(back1.x, back2.x, strict=True))), grads.x)
    assert close(tuple(a + b for a, b in zip(back1.params, back2.params, strict=True)), grads.params, 1e-11)
    assert close(back1.state, grads.state, 1e-11)


@pytest.mark.parametrize("residuals", ["speed", "memory"])
@pytest.mark.parametrize("name", TEXTS)
def test_checkpoints_may_be_shorter_than_lags(name: str, residuals: str) -> None:
    made, given = module(name, residuals), drawn(name, 21)
    right = masked(module(name), given, Masks())
    for interval in (1, 4, 20):
        agree(masked(made, given, Masks(), checkpoint=interval), right, 1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kinds", ["lengths", "resets", "lengths resets", "lengths resets reverse"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_batch_is_its_episodes(name: str, kinds: str) -> None:
    for steps, seed in ((3, 1), (53, 2)):
        masks = random_masks(generator(seed), steps, 4, kinds)
        if masks.resets is not None and steps > 20:  # episodes both shorter and longer than the lags
            masks = replace(masks, resets=masks.resets & (np.random.default_rng(seed).random(masks.resets.shape) < 0.3))
        right = alone(module(name), drawn(name, steps), masks)
        with np.errstate(all="raise"):
            agree(masked(module(name), spoilt(drawn(name, steps), masks), masks), right)
        agree(masked(module(name, "memory"), spoilt(drawn(name, steps), masks), masks, checkpoint=7), right)


def test_a_workspace_serves_calls_of_every_kind_in_turn() -> None:
    for name in TEXTS:
        given = drawn(name, 20)
        params = given.module_params(module(name))
        for workspace in (module(name).Workspace(20, 4, params), module(name).Workspace(20, 4, params, checkpoint=6)):
            for kinds in ("", "lengths", "", "resets", "lengths resets reverse"):
                masks = random_masks(generator(5), 20, 4, kinds) if kinds else Masks()
                agree(masked(module(name), given, masks, workspace=workspace), masked(module(name), given, masks), 1e-13)


@pytest.mark.parametrize("name", TEXTS)
def test_no_step_leaves_everything_as_it_is(name: str) -> None:
    given = part(drawn(name, 3), slice(0), 0)
    _, final, grads = call(module(name), given)
    assert close(final, given.module_state(module(name)), 0.0)
    (_, dfinal) = given.upstream(module(name))
    assert close(grads.state, dfinal, 0.0)


def test_the_text_does_not_grow_with_the_lag() -> None:
    for text in ("tanh(W @ x[t] + U @ h[t-{}] + b)", "tanh(W @ x[t-{}] + U @ h[t-1] + b)"):
        lengths = {len(cellspec.generate(plain(text.format(k))).splitlines()) for k in (10, 100, 1000)}
        assert len(lengths) == 1
        compiled = compile_cell(plain(text.format(1000)))
        assert len(compiled.forward.ops) < 10 and len(compiled.backward.ops) < 20


def test_a_delay_is_the_adjoint_of_a_delay() -> None:
    compiled = compile_cell(plain("tanh(U @ h[t-7] + W @ x[t] + b*h[t-3])"))
    assert compiled.forward.delays == (Delay("h[t-3]", "h[t]", 3), Delay("h[t-7]", "h[t]", 7))
    assert compiled.backward.delays == (Delay("d:h[t]<-3", "d:h[t-3]", 3), Delay("d:h[t]<-7", "d:h[t-7]", 7))


def test_near_and_far_lags_say_the_same() -> None:
    """A lag's state has another form beyond NEAR steps, and no other values: a factor of 0 makes the farther one."""
    near, far = plain(f"tanh(W @ x[t] + U @ h[t-{NEAR}])*b"), plain(f"tanh(W @ x[t] + U @ h[t-{NEAR}])*b + b*0*h[t-{NEAR + 1}]")
    steps, rng, results = 9, generator(3), []
    x, dy = rng.normal(size=(steps, 2, 2)), rng.normal(size=(steps, 2, 3))
    params = cellspec.build(near).init_params(rng, I=2, H=3)._replace(b=rng.normal(size=3))
    for one in (near, far):
        made = cellspec.build(one)
        own = made.Params(*params)
        y, _, tape = made.forward(own, x)
        grads = made.backward(own, tape, dy)
        results.append((y, grads.params[:], grads.x, grads.state.h))
    assert close(results[0], results[1])


def test_equations_are_shown_with_their_lags() -> None:
    one = plain("tanh(W @ x[t-12] + U @ h[t-11] + b)")
    assert r"x_{t-12}" in one.latex() and r"h_{t-11}" in one.latex()
    assert "x[t - 12]" in str(one.equations) and "h[t - 11]" in str(one.equations)
    assert one.stages == 1 and one.recurrence == "dense"
    assert cell("elementwise").recurrence == "elementwise" and cell("elementwise").stages == 0


def test_a_name_that_a_far_lag_needs_is_taken(tmp_path: Any) -> None:
    path = tmp_path / "taken.yaml"
    path.write_text(
        "name: taken\ninputs: {x: H}\nstates: {h: H}\nparams: {h_lags: H, h_lag2: H}\n"
        "equations: |\n  h[t] = h_lags*h[t-2] + h_lag2*h[t-9] + x[t]\n"
    )
    with pytest.raises(cellspec.SpecError) as caught:
        cellspec.load(path)
    assert "'h[t-9]' is kept in a state 'h_lags', but 'h_lags' is a param already: choose another name" in str(caught.value)
    assert "h_lag2'" not in str(caught.value)
