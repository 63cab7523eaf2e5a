"""The caller's arrays, as code that works on ``[B, n]`` or ``[T, B, n]`` reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

import cellspec
from cellspec.backends.arrays.caller import STEPS, Caller, dfinal, if_dfinal, state
from cellspec.backends.arrays.expressions import Attribute, Expression, Word
from cellspec.backends.arrays.printer import Printer, Seat
from cellspec.backends.memory.model import Owner

SEVERAL = """
name: several
dims: [k, H]
inputs: {a: k, b: H}
states: {h: H, C: [H, k]}
params: {W: [H, k]}
outputs: [h, n]
equations: |
  n = W @ a[t] + b[t]
  C[t] = C[t-1]/2
  h[t] = tanh(n + h[t-1])
"""


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Caller:
    path: Path = tmp_path_factory.mktemp("caller") / "several.yaml"
    path.write_text(SEVERAL)
    return Caller(cellspec.load(path), {"k": "k_", "H": "H"})


def text(expression: Expression) -> str:
    return Printer({}, Seat(Owner.FORWARD, "ws", {})).text(expression)


def test_one_of_several_has_a_name(caller: Caller) -> None:
    assert text(caller.input("a")) == "x.a"
    assert text(caller.input("a", "x_t")) == "x_t.a"
    assert text(caller.dy("n")) == "dy.n"


def test_the_only_one_has_none() -> None:
    single = Caller(cellspec.load("lstm"), {"I": "I", "H": "H"})
    assert (single.input("x"), single.dy("h")) == (Word("x"), Word("dy"))


def test_axes_are_made_one_and_told_apart_again(caller: Caller) -> None:
    shapes = {s.name: s.shape for s in caller.cell.states}
    assert text(caller.flat(state("C"), shapes["C"])) == "state.C.reshape(B, H*k_)"
    assert text(caller.shaped(Word("y"), shapes["C"], STEPS)) == "y.reshape(T, B, H, k_)"
    assert caller.flat(state("h"), shapes["h"]) == state("h") == Attribute(Word("state"), "h")


def test_a_final_gradient_may_be_missing() -> None:
    assert text(if_dfinal(dfinal("h"), 0)) == "0 if dfinal is None else dfinal.h"
