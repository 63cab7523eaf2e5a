"""Constants: functions of numbers are what their definitions say, in check, in the compiler and in generated modules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
from support import cell_from

import cellspec
from cellspec.model.folding import folded, is_finite, number

VALUES = [
    ("abs", (-0.3,), 0.3),
    ("max", (0.5, 0.5), 0.5),
    ("min", (2, 1.5), 1.5),
    ("mod", (5.5, 2), 1.5),
    ("mod", (-1, 3), 2),
    ("mod", (3, -2), -1),
    ("mod", (0.3, 0.1), 0.3 % 0.1),
    ("floor", (-0.5,), -1),
    ("clip", (2, -1, 1), 1),
    ("clip", (2, 3, 1), 1),
    ("sign", (0,), 0),
    ("sign", (-2.5,), -1),
    ("relu", (0,), 0),
    ("hard_sigmoid", (3,), 1),
    ("hard_tanh", (-1,), -1),
    ("leaky_relu", (-1,), -0.01),
    ("elu", (-1e-20,), -1e-20),
    ("erf", (2,), math.erf(2)),
    ("tanh", (0.3,), math.tanh(0.3)),
    ("sin", (1e300,), math.sin(1e300)),
    ("softplus", (-700,), math.exp(-700)),
    ("logsigmoid", (-800,), -800),
    ("sigmoid", (-740,), math.exp(-740)),
    ("exp", (-800,), 0),
    ("gelu", (-30,), -1.4720141781444560e-196),
    ("eq", (2, 2.0), 1),
    ("lt", (1, 1.0), 0),
    ("where", (0, 3, 4), 4),
    ("pow", (4, 0.5), 2),
    ("div", (1, 3), 1 / 3),
]
"""Function, arguments, value."""

NONE = [
    ("log", (0,)), ("log", (-1,)), ("sqrt", (-2,)), ("exp", (1000,)), ("mod", (3, 0)), ("div", (1, 0)), ("div", (0, 0)),
    ("pow", (-8, 1 / 3)), ("pow", (0, -1)), ("mul", (1e300, 1e300)),
]  # fmt: skip


@pytest.mark.parametrize(("function", "args", "value"), VALUES)
def test_a_function_of_numbers_is_its_definition(function: str, args: tuple[float, ...], value: float) -> None:
    found = folded(function, [number(arg) for arg in args])
    assert found is not None and float(found) == pytest.approx(value, rel=1e-15, abs=0)


@pytest.mark.parametrize(("function", "args"), NONE)
def test_what_is_no_finite_real_number_is_no_constant(function: str, args: tuple[float, ...]) -> None:
    assert folded(function, [number(arg) for arg in args]) is None


def test_functions_of_dims_stay() -> None:
    rows = sympy.Symbol("H")
    assert str(folded("sqrt", [rows])) == "sqrt(H)"
    assert folded("div", [rows, rows - rows]) is None
    assert folded("div", [rows, rows]) == 1


def test_numbers_that_are_none_are_found_anywhere_in_an_expression() -> None:
    x = sympy.Symbol("x")
    assert is_finite(2 * x + sympy.Rational(1, 3) * x**2)
    for wrong in (x + sympy.zoo, sympy.nan * x, sympy.I * x, x + sympy.Float("1e400"), x * 10**400, sympy.oo * x):
        assert not is_finite(wrong)


def test_constants_have_their_values_in_modules() -> None:
    """In ``forward``, ``step`` and ``trace`` alike; each state holds one constant."""
    forms = {
        "abs(gam)": 0.3, "max(gam, 1)": 1, "mod(7, 4)": 3, "erf(2)": math.erf(2), "clip(gam, -0.2, 1)": -0.2, "sign(gam)": -1,
        "where(abs(gam) < 1, 5, 6)": 5, "sqrt(H)": math.sqrt(3), "max(c, 2)": math.exp(1), "floor(H/2)": 1, "sigmoid(0)": 0.5,
    }  # fmt: skip
    names = [f"s{k}" for k in range(len(forms))]
    lines = [f"  {name}[t] = {form} + 0*{name}[t-1] + 0*sum(x[t])" for name, form in zip(names, forms, strict=True)]
    states = ", ".join(f"{name}: H" for name in names)
    text = f"name: constants\nhyper: {{gam: -0.3}}\ninputs: {{x: I}}\nstates: {{{states}}}\noutputs: [{', '.join(names)}]\n"
    text += "params: {b: H}\nequations: |\n  c = exp(1)\n" + "\n".join([f"{lines[0]} + 0*b", *lines[1:], ""])
    module = cellspec.build(cell_from(text))
    for dtype in (np.float32, np.float64):
        params, x = module.Params(np.ones(3, dtype)), np.ones((2, 2, 4), dtype)
        state = module.init_state(params, batch=2, I=4)
        y, final, _ = module.forward(params, x, state)
        traced = module.trace(params, x, state)
        packed, stepped = module.step(module.pack(params, I=4), x[0], state)[0], module.step(params, x[0], state)[0]
        for k, value in enumerate(forms.values()):
            for array in (y[k], final[k], traced[names[k]], packed[k], stepped[k]):
                assert array.dtype == dtype
                np.testing.assert_allclose(array, value, rtol=1e-6 if dtype is np.float32 else 1e-15)
