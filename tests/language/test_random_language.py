"""Random specs over the whole language: each compiles for every backend, and its module agrees with the equations.

The oracle reads the equations; streaming, plain and packed, agrees with it as well (:mod:`cellspec.verification.check`); and
what ``lengths`` cuts off has no influence: each sample gives what it gives alone.
"""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np
import pytest
from random_language import RandomLanguage
from support import generator

import cellspec
from cellspec.cell import Cell
from cellspec.language.check.elaborate import elaborate
from cellspec.language.names import REDUCTIONS
from cellspec.language.read.loader import parse_spec
from cellspec.model.primitives import CALLABLE
from cellspec.verification.check import values_of, verify
from cellspec.verification.sampling import pack, sample

LENGTHS = (20, 1, 7)
"""Steps of three samples, more than the 16 after which padding starts again."""

KINDS = {
    "function of a constant": r"(abs|max|mod|erf|clip)\((k0|k1)",
    "condition on constants": r"where\((abs\()?[k0-9.]+\)? <",
    "branches that differ by a constant": r"where\(([\w\[\]t-]+) > 0.2, \1 - 1, \1\)",
    "terms that cancel": r"\((\w+(\[t-1\])?) - \1 \+",
    "a mixture of a value with itself": r"sigmoid\((.+)\)\*(\w+(\[t-1\])?) \+ \(1 - sigmoid\(\1\)\)\*\2",
    "reduction as a state": r"s\d\[t\] = sum",
    "constant state": r"s\d\[t\] = (p\d+|k\d|0\.4|2|1\.5)\n",
    "equal right sides": r"(v\d) = (.+)\n(.+\n)*  v7 = \2\n",
    "equal derived parameters": r"q\d = (\w+) - \1\.T\n(.+\n)*  q\d = \1 - \1\.T\n",
    "product of dims": r"G\*L",
    "sum of dims": r"G \+ L",
    "multiplicative integration": r"\((\(\w+ @ [^@]+\))\*(\(\w+ @ [^@]+\)) \+ \1 \+ \2\)",
    "large biases": r"init: -?[69]",
    "step after this one": r"t_now \+ 1",
    "constant power": r"\*\*0",
    "list of one": r"roll\(\[",
    "number of a dim": r"/sqrt\(P\)",
}
"""What the random specs must hold, each within a few dozen of them."""


def cell_of(seed: int) -> Cell:
    text = RandomLanguage(seed).text()
    print(f"seed {seed}\n{text}")
    return elaborate(parse_spec(text, f"language_{seed}.yaml"))


def check(seed: int) -> None:
    cell = cell_of(seed)
    module = cellspec.build(cell)
    report = verify(cell, module, seed=seed, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)
    check_lengths(cell, module, seed)
    assert f'CELL = "language_{seed}"' in cellspec.generate(cell, "cupy")


def check_lengths(cell: Cell, module: ModuleType, seed: int) -> None:
    """A batch of samples of several lengths gives what each sample gives alone, and the sum of their gradients."""
    dims = dict(zip(cell.dims, (3, 2, 4, 5, 2, 3, 4, 5), strict=False))
    drawn = sample(cell, dims, max(LENGTHS), len(LENGTHS), generator(seed), np.float64)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, final, tape = module.forward(params, x, state, lengths=LENGTHS)
    dy, dfinal = drawn.upstream(module)
    grads = module.backward(params, tape, dy, dfinal)
    found = {"y": values_of(y, len(cell.outputs)), "final": final, "d params": grads.params}
    found |= {"d x": values_of(grads.x, len(cell.inputs)), "d state": grads.state}
    right = {name: [np.zeros_like(array) for array in arrays] for name, arrays in found.items()}
    for k, length in enumerate(LENGTHS):
        own = slice(k, k + 1)

        def steps(streams: dict[str, np.ndarray], kind: str, own: slice = own, length: int = length) -> object:
            return pack(module, kind, [array[:length, own] for array in streams.values()])

        first, last = (module.State(*(each[own] for each in states)) for states in (state, dfinal))
        y, final, tape = module.forward(params, steps(drawn.x, "Inputs"), first)
        alone = module.backward(params, tape, steps(drawn.dy, "Outputs"), last)
        for total, array in zip(right["d params"], alone.params, strict=True):
            total += array
        for name, arrays in (("final", final), ("d state", alone.state)):
            for total, array in zip(right[name], arrays, strict=True):
                total[own] = array
        for name, arrays in (("y", values_of(y, len(cell.outputs))), ("d x", values_of(alone.x, len(cell.inputs)))):
            for total, array in zip(right[name], arrays, strict=True):
                total[:length, own] = array
    for name, arrays in found.items():
        scale = max((np.max(np.abs(array), initial=0.0) for array in right[name]), default=0.0)
        for array, wanted in zip(arrays, right[name], strict=True):
            np.testing.assert_allclose(array, wanted, rtol=1e-8, atol=1e-10 * (1 + scale), err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_random_cells_are_right(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 1000))
def test_many_random_cells_are_right(seed: int) -> None:
    check(seed)


def test_the_random_specs_hold_every_kind_of_trap() -> None:
    texts = [RandomLanguage(seed).text() for seed in range(60)]
    assert not [kind for kind, written in KINDS.items() if not any(re.search(written, text) for text in texts)]
    texts += [RandomLanguage(seed).text() for seed in range(60, 120)]
    functions = {*CALLABLE, *REDUCTIONS, "outer", "roll", "stop_gradient", "eye", "inv"}
    assert not [name for name in functions if not any(f"{name}(" in text for text in texts)]


def test_the_same_seed_gives_the_same_spec() -> None:
    assert RandomLanguage(3).text() == RandomLanguage(3).text()
