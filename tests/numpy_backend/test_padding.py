"""Behind a sample's end nothing is made up: every cell, many steps, each sample as itself run alone, and nothing raised."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from episodes import Masks, Results, alone, masked
from support import COMMON, ROOT, SHIPPED, cell_from, cell_of, generator
from test_masks import agree, spoilt

import cellspec
from cellspec.cell import Cell
from cellspec.verification.sampling import Sample, sample

STEPS, LENGTHS = 53, np.array([53, 17, 1, 0, 40])
ROUNDING = {np.float32: 2e-3, np.float64: 1e-9}
"""What is left of rounding after so many steps, of which some cells make a lot; NaN and what is made up are far beyond."""


def long(cell: Cell, dtype: Any, seed: int = 1) -> Sample:
    """A call with parameters and states as usual, and with inputs for many steps."""
    rng, batch = generator(seed), len(LENGTHS)
    short = sample(cell, dict(zip(cell.dims, (2, 3, 4, 5, 2, 3, 4, 5), strict=False)), 2, batch, rng, dtype)

    def more(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: (0.5 * rng.normal(size=(STEPS, *a.shape[1:]))).astype(dtype) for name, a in arrays.items()}

    return replace(short, steps=STEPS, x=more(short.x), dy=more(short.dy))


def check(module: Any, drawn: Sample, masks: Masks, **options: Any) -> None:
    """The samples' own results, and nothing that is raised, if the samples alone raise nothing: they must not, to be a test."""
    with np.errstate(all="raise"):
        expected = alone(module, drawn, masks)
        given = replace(drawn, x=copies(drawn.x), dy=copies(drawn.dy))
        found = masked(module, spoilt(given, masks), masks, **options)
    agree(*leveled(found, expected), ROUNDING[drawn.dtype.type])


def copies(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(array) for name, array in arrays.items()}


def leveled(one: Results, other: Results) -> tuple[Results, Results]:
    """Both with 0 where they are infinite, and equal: a state that starts at minus infinity and has no step."""
    for first, second in zip(vars(one).values(), vars(other).values(), strict=True):
        for a, b in zip(first.values(), second.values(), strict=True):
            assert not (np.isnan(a).any() or np.isnan(b).any())
            same = np.isinf(a) & (a == b)
            a[same] = b[same] = 0
    return one, other


def generated(path: Path) -> ModuleType:
    """The committed module of a shipped cell, which is made already."""
    return importlib.import_module(f"generated.{path.stem}_numpy")


RESETS = np.random.default_rng(0).random((STEPS, len(LENGTHS))) < 0.1
TOGETHER = (
    (Masks(LENGTHS, reverse=True), {"checkpoint": 20}),
    (Masks(LENGTHS, RESETS), {}),
    (Masks(LENGTHS, RESETS, True), {"checkpoint": 7}),
)
"""Lengths with something else; each cell tries one of them."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", range(len(SHIPPED)), ids=[path.stem for path in SHIPPED])
def test_each_sample_is_the_sample_alone(number: int) -> None:
    cell, module = cell_of(SHIPPED[number]), generated(SHIPPED[number])
    check(module, replace(long(cell, np.float64), state=None), Masks(LENGTHS))  # states from minus infinity, too
    masks, options = TOGETHER[number % len(TOGETHER)]
    check(module, long(cell, np.float32), masks, **options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", COMMON)
def test_the_same_with_residuals_for_memory(name: str) -> None:
    cell = cell_of(ROOT / "specs" / f"{name}.yaml")
    module = cellspec.build(cell, residuals="memory")
    for masks, options in ((Masks(LENGTHS), {"checkpoint": 9}), TOGETHER[1]):
        check(module, long(cell, np.float64), masks, **options)


SPEC = "name: {}\ninputs: {{x: I}}\nstates: {{h: H}}\nparams: {{W: [H, I], U: [H, H]}}\nequations: |\n  {}\n"
GROWING = {
    "squared": "h[t] = (U @ h[t-1])**2 + W @ x[t]",
    "doubled": "h[t] = max(1000*(U @ h[t-1]) + W @ x[t], 0)",
    "counted": "h[t] = tanh(U @ h[t-1])*exp(8*t_now) + W @ x[t]",
    "divided": "h[t] = W @ x[t]/(1.5 + h[t-1]/(U @ h[t-1]))",
    "falling": "h[t] = W @ x[t] - (U @ h[t-1])**2/(1 + h[t-2])",
    "earlier": "h[t] = (U @ h[t-1])*h[t-3] + W @ x[t-1] + W @ x[t-3]",
}
"""What soon leaves the floats, or divides by what is nothing but a number that was made up. It is run for few steps of many."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("residuals", ["speed", "memory"])
@pytest.mark.parametrize("name", GROWING)
def test_what_grows_is_not_run_on(name: str, residuals: str) -> None:
    cell = cell_from(SPEC.format(name, GROWING[name]))
    module = cellspec.build(cell, residuals=residuals)
    for dtype in (np.float32, np.float64):
        drawn = few(cell, dtype)
        for lengths in ([4, 3, 0, 1], [2, 4, 4, 3]):
            for reverse in (False, True):
                for options in ({}, {"checkpoint": 3}, {"checkpoint": 50}):
                    check(module, drawn, Masks(np.array(lengths), None, reverse), **options)


def few(cell: Cell, dtype: Any) -> Sample:
    """A call with four steps of data, and many more behind them."""
    rng = generator(2)
    short = sample(cell, {"I": 2, "H": 2}, 4, 4, rng, dtype)
    short.params["U"][...] = 3 + np.abs(short.params["U"])
    x, dy = ({n: np.concatenate([a, np.repeat(a[-1:], 116, 0)]) for n, a in arrays.items()} for arrays in (short.x, short.dy))
    return replace(short, steps=120, x=x, dy=dy, state={n: np.abs(a) for n, a in (short.state or {}).items()})


@pytest.mark.parametrize("name", ["lstm", "qrnn_fo", "clockwork"])
def test_segments_without_a_step_leave_nothing_of_the_call_before(name: str) -> None:
    """All samples end early: the steps behind are run no more, and what lay in the workspace there is gone."""
    path = ROOT / "specs" / f"{name}.yaml"
    module, drawn = generated(path), long(cell_of(path), np.float64)
    for options in ({}, {"checkpoint": 7}):
        workspace = module.Workspace(STEPS, len(LENGTHS), drawn.module_params(module), **options)
        for lengths in (LENGTHS, [9, 3, 0, 2, 9], [0, 0, 0, 0, 0], [1, 14, 0, 2, 1]):
            for masks in (Masks(np.array(lengths)), Masks(np.array(lengths), RESETS, True)):
                check(module, drawn, masks, workspace=workspace)


def test_padding_is_cut_but_once() -> None:
    """States are put back where a sample ends, and not again while the longest has steps: few calls for a lot of padding."""
    module, lengths = generated(ROOT / "specs" / "lstm.yaml"), np.array([50, 20, 1, 0])
    masks = module._masks(lengths, None, False, 50, 4)
    cuts = module._cuts(masks, 0, 50)
    assert {t: columns.tolist() for t, columns in cuts.begins.items()} == {0: [3], 1: [2], 20: [1]}
    assert (cuts.rows[20:, 1] == np.arange(30)).all() and (cuts.samples[20:, 1] == 0).all()
