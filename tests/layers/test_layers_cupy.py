"""Layers around CuPy modules: the same numbers as around NumPy's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cuda_host import import_text
from cupy_support import BY_ID, carried, cupy_on, text_of
from layer_support import arguments, module, regularised, shipped
from support import cell_of, close

import cellspec
from cellspec import layers
from cellspec.layers import AnyLayer


def model(lstm: ModuleType, gru: ModuleType, noisy: ModuleType) -> AnyLayer:
    """Every kind of layer, with all that is random."""
    first = layers.Layer(lstm, I=3, H=4, dtype=np.float64, input_dropout=0.25, drop_connect={"U": 0.5})
    both = layers.Bidirectional(first, layers.Layer(gru, I=3, H=4, dtype=np.float64, learn_state=True))
    last = layers.Layer(noisy, I=8, H=8, dtype=np.float64, zoneout=0.25, state_dropout=0.25)
    return layers.Stack(both, layers.Residual(last), dropout=0.25)


@contextmanager
def models(machine: str) -> Iterator[tuple[AnyLayer, AnyLayer, Any]]:
    """The model on the host, on the machine, and the array library there."""
    masked = cellspec.regularise(shipped("gru"), zoneout=("h",), state_dropout=("h",))
    here = model(module("lstm"), module("gru"), regularised("gru", ("h",), ("h",)))
    with cupy_on(machine) as cupy:
        texts = [text_of(cell_of(BY_ID["lstm"])), text_of(cell_of(BY_ID["gru"])), text_of(masked)]
        yield here, model(*(import_text(text, f"layer_{k}") for k, text in enumerate(texts))), cupy


def test_the_same_numbers(machine: str, tmp_path: Path) -> None:
    with models(machine) as (here, there, cupy):
        given = arguments(here, steps=3, batch=2)
        moved = carried(given, cupy.asarray, np.ndarray)
        for seed, lengths in ((None, None), (1, None), (1, [1, 3])):

            def run(tested: AnyLayer, arguments: Any, seed: int | None = seed, lengths: Any = lengths) -> Any:
                params, x, state = arguments
                rng = None if seed is None else np.random.default_rng(seed)
                y, final, tape = tested.forward(params, x, state, lengths=lengths, rng=rng)
                return y, final, tuple(tested.backward(params, tape, y, final))

            assert close(carried(run(there, moved), cupy.asnumpy, cupy.ndarray), run(here, given))

        vector, unflatten = layers.flatten(moved[0], cupy)
        assert close(carried(unflatten(vector), cupy.asnumpy, cupy.ndarray), given[0])
        clipped, norm = layers.clip_by_global_norm(moved[0], 1.0)
        expected, before = layers.clip_by_global_norm(given[0], 1.0)
        assert abs(norm - before) < 1e-12 * before
        assert close(carried(clipped, cupy.asnumpy, cupy.ndarray), expected)
        layers.save(tmp_path / "m", there, moved[0])
        loaded = layers.load(tmp_path / "m", there)
        assert isinstance(layers.leaves(loaded)[0], cupy.ndarray)
        assert close(carried(loaded, cupy.asnumpy, cupy.ndarray), layers.load(tmp_path / "m", here), 0.0)


def test_steps_and_layouts(machine: str) -> None:
    with cupy_on(machine) as cupy:
        gru = import_text(text_of(cell_of(BY_ID["gru"])), "layer_gru")
        here, there = (
            layers.Stack(layers.Layer(m, I=3, H=4, dtype=np.float64, learn_state=True)) for m in (module("gru"), gru)
        )
        params, x, state = arguments(here, steps=2, batch=2)
        moved = carried((params, x, state), cupy.asarray, np.ndarray)
        result = there.step(there.pack(moved[0]), moved[1][0], moved[2])
        assert close(carried(result, cupy.asnumpy, cupy.ndarray), here.step(params, x[0], state))
        y, _, tape = layers.Layout(there).forward(moved[0], moved[1][:, 0])
        grads = layers.Layout(there).backward(moved[0], tape, y)
        expected, _, tape = layers.Layout(here).forward(params, x[:, 0])
        assert close(cupy.asnumpy(y), expected)
        wanted = layers.Layout(here).backward(params, tape, expected)
        assert close(carried(tuple(grads), cupy.asnumpy, cupy.ndarray), tuple(wanted))
