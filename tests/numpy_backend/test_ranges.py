"""Every function and quotient over the whole range of its dtype: value and derivative, against many digits.

The value must be right to a few roundings of the result, or of the argument: a function magnifies a rounding of its argument by
its condition number, ``x*f'(x)/f(x)``. So must a derivative, but for those that are written in terms of the result ``y``: they
are right beside 1. No operation may leave the range where neither result nor derivative does, so overflows raise here.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
from cupy_support import SUBSTITUTE, needs_substitute, on_device
from support import Array, cell_from, leaves

import cellspec
from cellspec.cell import Cell
from cellspec.model.primitives import CALLABLE, PRIMITIVES

FUNCTIONS = tuple(name for name in CALLABLE if PRIMITIVES[name].derivatives and PRIMITIVES[name].arity == 1)
POWERS = {"square": 2, "cube": 3, "inverse": -1, "inverse_square": -2, "inverse_cube": -3, "inverse_fifth": -5, "sesqui": 1.5}
SIZES = (1e-30, 1e-10, 1e-3, 0.3, 1, 2.9, 7, 17, 37, 80, 88.5, 100, 300, 700, 740, 1e4, 1e10, 1e18, 1e30)
ROUNDINGS = 8
BITS = 1200  # hold 1 + exp(-745)


@cache
def whole() -> Cell:
    """A cell with every function, each of an input of its own, as an output."""
    inputs = [*FUNCTIONS, *POWERS]
    lines = [f"y_{name} = {name}(x_{name}[t])" for name in FUNCTIONS]
    lines += [f"y_{name} = x_{name}[t]**{power}" for name, power in POWERS.items()]
    return cell_from(
        "name: whole\n"
        f"inputs: {{{', '.join(f'x_{name}: H' for name in inputs)}}}\n"
        f"states: {{h: H}}\noutputs: [h, {', '.join(f'y_{name}' for name in inputs)}]\nparams: {{b: H}}\n"
        "equations: |\n" + "".join(f"  {line}\n" for line in [*lines, "h[t] = tanh(b*h[t-1])"])
    )


@cache
def numpy_module(cell: Cell) -> ModuleType:
    return cellspec.build(cell)


@cache
def definitions(name: str) -> tuple[Any, Any]:
    """The function and its derivative, for mpmath."""
    u = sympy.Symbol("u")
    definition = u ** sympy.nsimplify(POWERS[name]) if name in POWERS else sympy.sympify(PRIMITIVES[name].definition(u))
    modules = [{"_Floor": mpmath.floor}, "mpmath"]
    return sympy.lambdify(u, definition, modules=modules), sympy.lambdify(u, sympy.diff(definition, u), modules=modules)


@cache
def exact(name: str, x: float) -> tuple[Any, Any]:
    """Value and derivative at ``x`` with many digits."""
    value, slope = definitions(name)
    with mpmath.workprec(BITS):
        return mpmath.mpf(value(mpmath.mpf(x))), mpmath.mpf(slope(mpmath.mpf(x)))


def points(name: str, dtype: Any) -> Array:
    """Arguments at which the value and the derivative are numbers of ``dtype``; of kinks the neighbourhood is left out."""
    info = np.finfo(dtype)
    positive = name in ("log", "sqrt", "sesqui")
    found = []
    sizes = (size for size in (*SIZES, float(info.max) / 4) if float(info.smallest_subnormal) <= size <= float(info.max))
    for size in sizes:
        for x in map(float, np.array([size] if positive else [-size, size]).astype(dtype)):
            value, slope = exact(name, x)
            largest = max(abs(value), abs(slope))
            if largest < float(info.max) / 2 and (name not in ("sin", "cos") or abs(x) < 1e5):
                found.append(x)
    return np.array(found, dtype)


def tolerance(name: str, x: float, value: Any, slope: Any, dtype: Any) -> tuple[float, float]:
    """The errors allowed to the value and to the derivative."""
    info = np.finfo(dtype)
    eps, tiny = float(info.eps), float(info.smallest_subnormal)
    u, y = sympy.symbols("u y")
    of_result = name in FUNCTIONS and sympy.sympify(PRIMITIVES[name].derivatives[0](u, y)).has(y)
    beyond = mpmath.mpf(abs(x)) * eps
    bend = abs(exact(name, x * (1 + 1e-9))[1] - slope) / 1e-9  # |x f''(x)|
    floor = 4 * tiny * min(max(1, abs(x)), 1e3)  # a factor may be a number with fewer bits
    beside_one = eps if of_result and name not in ("exp", "sqrt") else 0
    return (
        float(ROUNDINGS * (abs(value) * eps + abs(slope) * beyond + floor)),
        float(ROUNDINGS * (abs(slope) * eps + bend * eps + floor + beside_one)),
    )


def check(name: str, module: Any, dtype: Any) -> None:
    """Value and derivative of ``name`` at all its points, all at once, as ``module`` computes them."""
    at = points(name, dtype)
    inputs = {f"x_{other}": np.ones((1, 1, len(at)), dtype) for other in (*FUNCTIONS, *POWERS)}
    inputs[f"x_{name}"] = at.reshape(1, 1, -1).astype(dtype)
    params = module.Params(np.zeros(len(at), dtype))
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        y, _, tape = module.forward(params, module.Inputs(**inputs))
        dy = {key: np.zeros_like(array) for key, array in y._asdict().items()}
        dy[f"y_{name}"][...] = 1
        grads = module.backward(params, tape, module.Outputs(**dy))
        stepped, _ = module.step(params, module.Inputs(**{k: v[0] for k, v in inputs.items()}), module.init_state(params, 1))
    found = getattr(y, f"y_{name}")[0, 0], getattr(stepped, f"y_{name}")[0], getattr(grads.x, f"x_{name}")[0, 0]
    for k, x in enumerate(map(float, at)):
        value, slope = exact(name, x)
        of_value, of_slope = tolerance(name, x, value, slope, dtype)
        right = {"value": (value, of_value), "value in step": (value, of_value), "derivative": (slope, of_slope)}
        for got, (what, (expected, allowed)) in zip(found, right.items(), strict=True):
            error = abs(mpmath.mpf(float(got[k])) - expected)
            assert error <= allowed, f"{what} of {name}({x!r}) is {float(got[k])!r}, not {mpmath.nstr(expected, 17)}"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*FUNCTIONS, *POWERS])
def test_functions_over_the_whole_range(name: str, dtype: Any) -> None:
    check(name, numpy_module(whole()), dtype)


@needs_substitute
@pytest.mark.parametrize("dtype", [pytest.param(np.float64, marks=pytest.mark.slow), np.float32, np.float16])
def test_functions_over_the_whole_range_in_cuda(dtype: Any) -> None:
    with on_device(whole(), machine=SUBSTITUTE) as module:
        for name in (*FUNCTIONS, *POWERS):
            check(name, module, dtype)


# --- several values ------------------------------------------------------------------------------------------------

SEVERAL = """
name: several
inputs: {{a: H, b: H}}
states: {{h: H}}
params: {{p: H, q: H}}
equations: |
  y = {expression}
  h[t] = y + 0*h[t-1] + sum(a[t] - a[t])
"""


@cache
def several(expression: str) -> ModuleType:
    return cellspec.build(cell_from(SEVERAL.format(expression=expression)))


QUOTIENTS: list[tuple[str, dict[str, float], float, dict[str, float]]] = [
    # expression, arguments, value, derivatives
    ("p*q*a[t]/b[t]", {"a": 1e-25, "b": 1e-25}, 1.0, {"a": 1e25, "b": -1e25, "p": 1.0}),
    ("p*q*a[t]/b[t]", {"a": 0.0, "b": 1e-25}, 0.0, {"a": 1e25, "b": 0.0, "p": 0.0}),
    ("p*q*a[t]/b[t]", {"a": 1e25, "b": 1e25}, 1.0, {"a": 1e-25, "b": -1e-25, "q": 1.0}),
    ("p*q*a[t]/b[t]", {"a": -1e25, "b": 1e25}, -1.0, {"a": 1e-25, "b": 1e-25}),
    ("a[t]*b[t]/p/q", {"a": 1e-25, "p": 1e-25}, 1.0, {"a": 1e25, "p": -1e25, "q": -1.0}),
    ("a[t]*b[t]/p/q", {"a": 1e25, "p": 1e25}, 1.0, {"a": 1e-25, "p": -1e-25, "b": 1.0}),
    ("a[t]/b[t]/b[t]*p*q", {"a": 1e-30, "b": 1e-20}, 1e10, {"a": 1e40, "b": -2e30, "p": 1e10}),
    ("p*a[t]*q/b[t]**2", {"a": 1e30, "b": 1e20}, 1e-10, {"b": -2e-30, "p": 1e-10}),
    ("p*q + sqrt(a[t])/sqrt(b[t])", {"a": 1e-30, "b": 1e-30}, 2.0, {"a": 5e29, "b": -5e29}),
    ("p*q*a[t]*b[t]**-1", {"a": 1e-25, "b": 1e-25}, 1.0, {"a": 1e25, "b": -1e25}),
    ("a[t] + p*q/b[t]", {"b": 1e-15}, 1e15, {"b": -1e30}),
    ("p*q*b[t] + a[t]/(1 + abs(a[t]))", {"a": 1e30}, 2.0, {"b": 1.0}),
    ("p*q*b[t]*softsign(a[t])", {"a": 1e18}, 1.0, {"a": 1e-36}),
    ("p*q*b[t]*norm(a[t])", {"a": 1e-25}, 2e-25, {"a": 2.0}),
    ("p*q*b[t]*norm(a[t])", {"a": 1e25}, 2e25, {"a": 2.0}),
    ("p*q*b[t]*norm(a[t])", {"a": 0.0}, 0.0, {"a": 0.0}),
    ("p*q*b[t]*norm(a[t])", {"a": -3e37}, 6e37, {}),
    ("p*q*norm(b[t])*a[t]/norm(a[t])", {"a": 1e-25}, 1.0, {}),
    ("p*q*norm(b[t])*a[t]/norm(a[t])", {"a": 1e25}, 1.0, {}),
    ("p*q*b[t] + logsumexp(a[t])", {"a": 1e30}, 1e30, {"a": 1.0}),
    ("p*q*b[t] + logsumexp(a[t])", {"a": -1e30}, -1e30, {"a": 1.0}),
    ("p*q*b[t]*softmax(a[t])", {"a": 1e30}, 0.25, {"a": 0.0, "b": 0.25}),
    ("p*q*b[t]*softmax(a[t])", {"a": -1e30}, 0.25, {"a": 0.0, "b": 0.25}),
    ("p*q*b[t]*mod(a[t], 3)", {"a": 1e5}, 1.0, {"a": 1.0}),
    ("p*q*b[t]*log(sigmoid(a[t]))", {"a": -80.0}, -80.0, {"a": 1.0}),
    ("p*q*b[t]*log(1 - sigmoid(a[t]))", {"a": 80.0}, -80.0, {"a": -1.0}),
    ("p*q*b[t]*sqrt(1 - exp(2*a[t]))", {"a": -5e-31}, 1e-15, {"a": -1e15}),
    ("p*q*b[t]*sigmoid(a[t])/sum(sigmoid(a[t]))", {"a": -80.0}, 0.25, {"b": 0.25}),
    ("p*q*b[t]*sigmoid(a[t])/norm(sigmoid(a[t]))", {"a": -80.0}, 0.5, {"b": 0.5}),
    ("p*q*b[t]*erf(a[t])/a[t]", {"a": 1e-20}, 2 / np.pi**0.5, {}),
]
"""All four units have the same arguments, 1 where nothing is said; derivatives are of the sum of ``h``, by one unit."""


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("expression", "given", "value", "slopes"), QUOTIENTS)
def test_intermediates_stay_in_range(
    expression: str, given: dict[str, float], value: float, slopes: dict[str, float], dtype: Any
) -> None:
    module = several(expression)
    array = {name: np.full(4, given.get(name, 1.0), dtype) for name in "abpq"}
    params, x = module.Params(array["p"], array["q"]), module.Inputs(*(array[n].reshape(1, 1, 4) for n in "ab"))
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        y, _, tape = module.forward(params, x)
        stepped, _ = module.step(params, module.Inputs(x.a[0], x.b[0]), module.init_state(params, 1))
        packed, _ = module.step(module.pack(params), module.Inputs(x.a[0], x.b[0]), module.init_state(params, 1))
    with np.errstate(over="ignore" if max(map(abs, slopes.values()), default=0) > 1e38 else "raise", invalid="raise"):
        grads = module.backward(params, tape, np.ones_like(y))
    found = {"p": grads.params.p, "q": grads.params.q, "a": grads.x.a, "b": grads.x.b}
    near = {"rtol": 16 * np.finfo(dtype).eps, "atol": 0}
    for what in (y, stepped, packed):
        np.testing.assert_allclose(what.ravel(), np.full(4, value), **near, err_msg="value")
    for name, slope in slopes.items():
        with np.errstate(over="ignore"):
            right = np.full(4, slope).astype(dtype)
        np.testing.assert_allclose(found[name].ravel(), right, **near, err_msg=f"derivative by {name}")


@needs_substitute
@pytest.mark.parametrize("expression", ["p*q*a[t]/b[t]", "p*q*a[t]/norm(a[t])*(b[t]/norm(b[t]))"])
def test_intermediates_stay_in_range_in_cuda(expression: str) -> None:
    """Also where few bits are stored: squares of 1e4 are no float16."""
    with on_device(cell_from(SEVERAL.format(expression=expression)), machine=SUBSTITUTE) as module:
        for dtype, size in [
            (np.float64, 1e-200),
            (np.float32, 1e-25),
            (np.float32, 1e25),
            (np.float16, 1e-4),
            (np.float16, 1e4),
        ]:
            ones, given = np.ones(4, dtype), np.full((1, 1, 4), size, dtype)
            params = module.Params(ones, ones)
            y, _, tape = module.forward(params, module.Inputs(given, given))
            grads = module.backward(params, tape, np.ones_like(y))
            near = {"rtol": 8 * float(np.finfo(dtype).eps), "err_msg": f"{dtype.__name__} {size}"}
            np.testing.assert_allclose(y.astype(float).ravel(), 0.25 if "norm" in expression else 1, **near)
            if "norm" not in expression:
                np.testing.assert_allclose(grads.x.b.astype(float).ravel(), -1 / float(given[0, 0, 0]), **near)
            assert all(np.isfinite(array.astype(float)).all() for array in leaves(grads))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_slope_of_a_norm_is_a_unit_vector_down_to_the_smallest_numbers(dtype: type) -> None:
    head = "name: length\ninputs: {x: H}\nstates: {h: 1}\nparams: {w: 1}\n"
    module = cellspec.build(cell_from(head + "equations: |\n  h[t] = w*norm(x[t]) + 0*h[t-1]\n"))
    limits = np.finfo(dtype)
    sizes = np.array([limits.smallest_subnormal * 16, limits.tiny / 64, limits.tiny, 1, limits.max / 8], dtype)
    x = sizes[None, :, None] * np.array([3, -4], dtype)
    y, _, tape = module.forward(module.Params(np.ones(1, dtype)), x)
    np.testing.assert_allclose(y[0, :, 0] / sizes, 5, rtol=0.05)  # the smallest have a few bits
    slopes = module.backward(module.Params(np.ones(1, dtype)), tape, np.ones_like(y)).x[0]
    np.testing.assert_allclose(slopes, np.broadcast_to([0.6, -0.8], slopes.shape), rtol=0.05)
    np.testing.assert_allclose(slopes[2:], np.broadcast_to([0.6, -0.8], (3, 2)), rtol=8 * limits.eps)
