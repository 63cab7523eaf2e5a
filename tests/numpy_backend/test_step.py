"""Steps for streams, with packed parameters, and the two orientations of arrays. Numbers are compared by ``verify``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import cell_of, draw, leaves, module_of, same_bits

import cellspec
from cellspec.pipeline import compile_cell
from cellspec.verification.sampling import pack


def test_packed_parameters_are_copies(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path))
    params, state = drawn.module_params(module), drawn.module_state(module)
    x_t = pack(module, "Inputs", [stream[0] for stream in drawn.x.values()])
    packed = module.pack(params)
    before = module.step(packed, x_t, state)
    kept = [array.copy() for array in leaves(before)]
    for array in params:
        array[...] = np.nan
    again = module.step(packed, x_t, state)
    assert same_bits(again, before)
    for array in leaves(again):
        array[...] = np.nan
    for one, other in zip(leaves(module.step(packed, x_t, state)), kept, strict=True):
        np.testing.assert_array_equal(one, other, "results lie in the packed parameters' memory")


def test_batches_of_several_sizes_may_take_turns(path: Path) -> None:
    module, drawn = module_of(path), draw(cell_of(path))
    packed = module.pack(drawn.module_params(module))
    state = drawn.module_state(module)
    x_t = pack(module, "Inputs", [stream[0] for stream in drawn.x.values()])
    whole = leaves(module.step(packed, x_t, state))
    for first, last in ((0, 1), (1, drawn.batch), (0, 0), (0, drawn.batch)):
        some = pack(module, "Inputs", [stream[0][first:last] for stream in drawn.x.values()])
        part = leaves(module.step(packed, some, type(state)(*(array[first:last] for array in state))))
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_allclose(one, other[first:last], rtol=1e-12, atol=1e-12)


def test_a_step_has_one_product() -> None:
    text = cellspec.generate(cellspec.load("lstm"))
    step = text[text.index("def step(") : text.index("def trace(")]
    assert step.count("    dot(") == 1


@pytest.mark.parametrize(
    ("name", "expected"), [("lstm", "feature-major"), ("slstm", "feature-major"), ("mingru", "batch-major")]
)
def test_orientation_is_decided_by_the_products_in_the_loop(name: str, expected: str) -> None:
    from cellspec.backends.numpy.orientation import orientation_for
    from cellspec.passes.schedule import schedule

    compiled = compile_cell(cellspec.load(name))
    assert orientation_for(schedule(compiled.forward), schedule(compiled.backward)).name == expected
    assert f"Arrays are {expected}:" in cellspec.generate(cellspec.load(name))
