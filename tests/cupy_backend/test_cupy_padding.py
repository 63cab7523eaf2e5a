"""Behind a sample's end CuPy modules make nothing up: each sample as itself run alone, and no kernel raises a flag."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import import_text
from cuda_host.library import Kernel
from cupy_support import OnDevice, cupy_on, needs_substitute, on_device, text_of
from episodes import Masks, alone, masked
from support import SHIPPED, cell_from, cell_of
from test_masks import agree, spoilt
from test_padding import GROWING, LENGTHS, ROUNDING, SPEC, TOGETHER, copies, few, leveled, long

import cellspec
from cellspec.cell import Cell
from cellspec.verification.sampling import Sample

INVALID, DIVIDED, OVERFLOW = 1, 4, 8
"""FE_INVALID, FE_DIVBYZERO and FE_OVERFLOW of <fenv.h> on x86-64."""


@contextmanager
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The kernels that raise floating-point exceptions in the block, and which."""
    libm, launch = ctypes.CDLL("libm.so.6"), Kernel.launch
    raised: dict[str, int] = {}

    def watched(self: Kernel, *args: Any, **options: Any) -> None:
        libm.feclearexcept(INVALID | DIVIDED | OVERFLOW)
        launch(self, *args, **options)
        if found := libm.fetestexcept(INVALID | DIVIDED | OVERFLOW):
            raised[self.name] = raised.get(self.name, 0) | found

    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "launch", watched)
        yield raised


def check(cell: Cell, drawn: Sample, masks: Masks, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy_module = cellspec.build(cell)
    with np.errstate(all="raise"):
        expected = alone(numpy_module, drawn, masks)
    given = spoilt(replace(drawn, x=copies(drawn.x), dy=copies(drawn.dy)), masks)
    with on_device(cell, "random", seed=3) as module, flags(monkeypatch) as raised:
        found = masked(module, given, masks)
    agree(*leveled(found, expected), ROUNDING[drawn.dtype.type])
    assert not raised


EACH_KIND = ("elman", "slstm", "mlstm_xlstm", "qrnn_fo", "clockwork")


@needs_substitute
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[] if p.stem in EACH_KIND else [pytest.mark.slow]) for p in SHIPPED]
)
def test_each_sample_is_the_sample_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(path)
    check(cell, replace(long(cell, np.float64), state=None), Masks(LENGTHS), monkeypatch)  # states from minus infinity, too
    check(cell, long(cell, np.float32), TOGETHER[SHIPPED.index(path) % len(TOGETHER)][0], monkeypatch)


@needs_substitute
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", GROWING)
def test_what_grows_is_not_run_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_from(SPEC.format(name, GROWING[name]))
    for lengths, reverse in (([4, 3, 0, 1], False), ([2, 4, 4, 3], True)):
        check(cell, few(cell, np.float32), Masks(np.array(lengths), None, reverse), monkeypatch)


@needs_substitute
def test_a_state_that_is_made_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an end the spec's own initial state in place of the sample's: it is divided by."""
    cell = cell_from(SPEC.format("divided", GROWING["divided"]))
    drawn, text = few(cell, np.float32), text_of(cell)
    assert "cut_after == 1" in text
    for changed, expected in ((text, False), (text.replace("cut_after == 1", "true"), True)):
        with cupy_on("substitute") as cupy, flags(monkeypatch) as raised:
            masked(OnDevice(import_text(changed), cupy), drawn, Masks(np.array([4, 3, 0, 1])))
        assert bool(raised) == expected


@needs_substitute
def test_a_flag_that_a_kernel_raises_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_from(SPEC.format("squared", GROWING["squared"]))
    drawn = few(cell, np.float32)
    with on_device(cell) as module, flags(monkeypatch) as raised:
        module.forward(drawn.module_params(module), drawn.module_x(module), drawn.module_state(module), lengths=[40, 3, 2, 1])
    assert raised
