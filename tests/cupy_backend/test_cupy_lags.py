"""Lags of any length in CuPy modules: the tests of the NumPy modules, on the substitute for CuPy and on a device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cupy_support import needs_substitute, on_device
from episodes import Masks, alone, masked, random_masks
from support import call, close, generator, part
from test_lags import TEXTS, cell, drawn, plain
from test_masks import agree, spoilt

import cellspec
from cellspec.verification.check import verify
from cellspec.verification.sampling import sample


@pytest.mark.parametrize("name", TEXTS)
def test_far_lags_are_right(name: str, machine: str) -> None:
    with on_device(cell(name), "random", machine=machine, seed=2) as module:
        report = verify(cell(name), module, exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("kinds", ["lengths", "lengths resets reverse"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_batch_is_its_episodes(name: str, kinds: str, machine: str) -> None:
    with on_device(cell(name), "random", machine=machine, seed=3) as module:
        for steps in (3, 24):
            masks = random_masks(generator(steps), steps, 4, kinds)
            if masks.resets is not None and steps > 20:  # episodes both shorter and longer than the lags
                masks = replace(masks, resets=masks.resets & (np.random.default_rng(steps).random(masks.resets.shape) < 0.3))
            right = alone(module, drawn(name, steps), masks)
            agree(masked(module, spoilt(drawn(name, steps), masks), masks), right)


@needs_substitute
@pytest.mark.parametrize("name", TEXTS)
def test_chunks_and_workspaces_and_no_step(name: str) -> None:
    whole = drawn(name, 11)
    with on_device(cell(name)) as module:
        y, final, grads = call(module, whole)
        params, state = whole.module_params(module), whole.module_state(module)
        first, second = part(whole, slice(None, 4), 0), part(whole, slice(4, None), 0)
        y1, middle, tape1 = module.forward(params, first.module_x(module), state)
        y2, last, tape2 = module.forward(params, second.module_x(module), middle)
        back2 = module.backward(params, tape2, *second.upstream(module))
        back1 = module.backward(params, tape1, first.upstream(module)[0], back2.state)
        assert close(tuple(map(np.concatenate, zip(y1, y2, strict=True))), y) and close(last, final)
        assert close(tuple(map(np.concatenate, zip(back1.x, back2.x, strict=True))), grads.x)
        assert close(back1.state, grads.state, 1e-11)
        workspace = module.Workspace(11, 4, params)
        for kinds in ("lengths resets", "", "resets"):
            masks = random_masks(generator(5), 11, 4, kinds) if kinds else Masks()
            agree(masked(module, whole, masks, workspace=workspace), masked(module, whole, masks), 1e-13)
        none = part(whole, slice(0), 0)
        _, final, grads = call(module, none)
        assert close(final, none.module_state(module), 0.0) and close(grads.state, none.upstream(module)[1], 0.0)


@needs_substitute
def test_half_precision() -> None:
    given = drawn("dense", 9)
    with on_device(cell("dense")) as module:
        y = module.forward(given.module_params(module), given.module_x(module), given.module_state(module))[0]
        kinds = ("params", "x", "state", "dy", "dfinal")
        small = replace(given, **{kind: {n: a.astype("f2") for n, a in getattr(given, kind).items()} for kind in kinds})
        half, _, grads = call(module, small)
    assert close(tuple(a.astype("f8") for a in half), y, 0.02) and all(np.isfinite(g).all() for g in grads.params)


def test_the_text_does_not_grow_with_the_lag() -> None:
    for text in ("tanh(W @ x[t] + U @ h[t-{}] + b)", "tanh(W @ x[t-{}] + b*h[t-1])*sum(U @ b)"):
        assert len({len(cellspec.generate(plain(text.format(k)), "cupy").splitlines()) for k in (100, 999)}) == 1


@needs_substitute
def test_an_elementwise_lag_runs_in_one_kernel() -> None:
    """Each thread finds what it has written some steps ago itself."""
    one = plain("tanh(b*h[t-7] + U @ (W @ x[t]) + 0.5*h[t-1]) + b*h[t-2]")
    assert cellspec.generate(one, "cupy").count("// Every step, from the ") == 2, "a loop of steps where one kernel would do"
    dims = dict(zip(one.dims, (2, 3), strict=True))
    given, masks = sample(one, dims, 24, 3, generator(1), np.float64), random_masks(generator(2), 24, 3, "lengths resets")
    masks = replace(masks, resets=np.arange(24)[:, None] == [3, 9, 15])
    with on_device(one, "random", seed=1) as module:
        assert verify(one, module, exact=False).ok
        agree(masked(module, given, masks), alone(module, given, masks))
