"""The names that a module uses itself, as its templates have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cellspec
from cellspec.backends.numpy.module import VALUES, names_alone, names_of_values
from cellspec.backends.skeleton import names, skeleton


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a):\n    return b\n", {("f", "f"), ("f", "a"), ("f", "b")}),
        ("import os\nX = 1\ndef f():\n    pass\nY = 2\n", {("", "os"), ("", "X"), ("f", "f"), ("", "Y")}),
        ("def f():\n    a.b.c = 1\n", {("f", "f"), ("f", "a")}),
        ("class C:\n    def f(self):\n        self.a.b = 1\n", {("C", name) for name in ("C", "f", "self", "a")}),
        ("def f():\n    # a b\n    x = 'c \\' d'\n", {("f", "f"), ("f", "x")}),
        ('def f():\n    """a "b" c\n    d"""\n    x = f"{e}"\n', {("f", "f"), ("f", "x")}),
        ("def g():\n    return f'{a}' rb''\n", {("g", "g")}),
        ("def f():\n    return 1e5 if None else x1\n", {("f", "f"), ("f", "x1")}),
    ],
)
def test_names_in_text(source: str, found: set[tuple[str, str]]) -> None:
    assert set(names(source)) == found


def test_a_function_is_open_where_something_of_the_cell_stands_in_it() -> None:
    own = skeleton("numpy")
    assert {"_forward", "_Segments", "init_params", "step"} <= own.open
    assert not {"_by_step", "_rows", "_columns"} & own.open


def test_what_each_function_has_is_known_and_what_others_have_is_not() -> None:
    own = skeleton("numpy")
    assert {"saved", "steps", "cuts", "params", "_move", "np"} <= own.names(["_forward"])
    assert "k" in own.names(["_Segments"]) and "k" not in own.names(["_forward"])
    assert own.names([]) < own.names(["_forward"])


def test_names_that_no_template_has() -> None:
    assert {"float", "y"} <= set(names_of_values())
    assert "x" in names_of_values() and "x" not in names_alone()


def test_the_functions_in_which_values_stand_are_there() -> None:
    assert set(VALUES) <= set(skeleton("numpy").scopes)


HOSTILE = """
name: hostile
dims: [k, start]
inputs: {steps: k, owner: k}
states: {float: start, scratch: start, cuts: start}
params:
  W{f,h}: {shape: [start, k], init: glorot_uniform}
  U{f,h}: {shape: [start, start], init: orthogonal}
  b{f,h}: start
equations: |
  key = tanh(bf)/start
  apart = sigmoid(Wf @ steps[t] + Uf @ float[t-1] + key)
  values = tanh(Wh @ owner[t] + Uh @ (apart*float[t-1]) + bh + scratch[t-1]/k)
  float[t] = (1 - apart)*float[t-1] + apart*values
  scratch[t] = float[t]*0.5 + cuts[t-1]
  cuts[t] = tanh(float[t])
outputs: [float, cuts]
"""


def test_a_cell_may_have_all_the_names_that_the_module_has(tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(HOSTILE)
    module = cellspec.build(cellspec.load(path))
    rng = np.random.default_rng(0)
    params = module.init_params(rng, k=3, start=4)
    x = module.Inputs(rng.normal(size=(7, 2, 3)), rng.normal(size=(7, 2, 3)))
    y, _, tape = module.forward(params, x)
    expected = module.backward(params, tape, y)
    _, _, tape = module.forward(params, x, checkpoint=2)
    assert tape.buffers.k == 2  # and not the dim that is called so
    for got, wanted in zip(module.backward(params, tape, y).params, expected.params, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
