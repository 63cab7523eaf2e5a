"""Functions along the last axis: what they are made of, and that it computes them, for numbers of any size."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np
import pytest
import sympy
from program_support import Array, run, told

from cellspec import ir
from cellspec.ir import Op, Program, Value, symbol
from cellspec.model.nodes import Shape
from cellspec.passes.along import along

H = symbol("H")
WIDE, NARROW = (H,), (sympy.Integer(1),)


class Builder:
    """Collects operations as lowering does."""

    def __init__(self) -> None:
        self.values = {name: Value(name, WIDE, "") for name in ("a", "b")}
        self.ops: list[Op] = []

    def emit(self, op: Op, shape: Shape) -> str:
        (out,) = ir.outs(op)
        if out not in self.values:
            self.values[out] = Value(out, shape, "")
            self.ops.append(op)
        return out


def program_of(function: str, *, label: str | None = None) -> Program:
    """``y = function(a)``, or of a and b."""
    build = Builder()
    args = ("a", "b") if function == "dot" else ("a",)
    shape = WIDE if function in ("softmax", "cumsum") else NARROW
    expr = along(build, function, args, WIDE, shape, label)
    build.emit(ir.Pointwise("y", expr), shape)
    return ir.typecheck(Program(MappingProxyType(build.values), (), ("a", "b"), (), tuple(build.ops), ("y",)))


SOFTMAX = """
    sequence a: [H], b: [H]
      `largest(a)`: [1]      = largest(a)
      `top(a)`: [1]          = stop_gradient(`largest(a)`)
      `a-top`: [H]           = a - `top(a)`
      `exp(a-top)`: [H]      = exp(`a-top`)
      `sum(exp(a-top))`: [1] = sum_to(`exp(a-top)`)
      y: [H]                 = `exp(a-top)`/`sum(exp(a-top))`
    give out y
"""


def test_exponentials_are_of_what_is_below_the_largest() -> None:
    """No cotangent flows through the largest element: the result does not depend on what is taken away."""
    assert told(program_of("softmax")) == told(SOFTMAX)
    log = """`log(sum(exp(a-top)))`: [1] = log(`sum(exp(a-top))`)
             y: [1] = `log(sum(exp(a-top)))` + `top(a)`"""
    assert told(program_of("logsumexp")) == told(
        SOFTMAX.replace("y: [H]                 = `exp(a-top)`/`sum(exp(a-top))`", log)
    )


def test_the_last_value_has_the_name_of_the_equation() -> None:
    """Where an equation is nothing but the function, its name is that of the sum, not of a copy."""
    for function in ("sum", "norm", "dot", "cumsum"):
        assert program_of(function, label="total").ops[-1] == ir.Pointwise("y", symbol("total")), function


def softmax(a: Array, b: Array) -> Array:
    return np.exp(a - a.max()) / np.exp(a - a.max()).sum()


FUNCTIONS = {
    "sum": lambda a, b: a.sum(),
    "mean": lambda a, b: a.mean(),
    "var": lambda a, b: a.var(),
    "norm": lambda a, b: math.hypot(*a),
    "dot": lambda a, b: a @ b,
    "softmax": softmax,
    "logsumexp": lambda a, b: a.max() + np.log(np.exp(a - a.max()).sum()),
    "cumsum": lambda a, b: a.cumsum(),
}
A, B = np.array([0.5, -2.0, 1.25]), np.array([2.0, 1.0, -3.0])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numbers(function: str) -> None:
    found = run(program_of(function), {"a": A, "b": B})["y"]
    np.testing.assert_allclose(found, np.broadcast_to(FUNCTIONS[function](A, B), found.shape), rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "a"),
    [
        ("softmax", 1000 * A),
        ("logsumexp", 1000 * A),
        ("norm", 1e300 * A),
        ("norm", 1e-200 * A),
        ("norm", 0 * A),
    ],
)
def test_nothing_leaves_the_range_that_the_result_does_not_leave(function: str, a: Array) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = run(program_of(function), {"a": a, "b": B})["y"]
    np.testing.assert_allclose(found, np.broadcast_to(FUNCTIONS[function](a, B), found.shape), rtol=1e-13)


def test_there_are_no_others() -> None:
    with pytest.raises(NotImplementedError, match="'median'"):
        program_of("median")
