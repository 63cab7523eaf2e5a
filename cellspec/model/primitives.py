"""The one table of pointwise primitives: a row each, with its definition, derivatives and NumPy spelling.

A row of :data:`PRIMITIVES` serves every stage: elaboration reads the arity, lowering builds ``symbol(*args)``, the adjoint
reads the derivatives, a backend its spelling, the oracle the *definition* alone, and for its bounds whether a result
``rounds``. To add a primitive, add a row.

Derivatives are written in terms of the arguments *and the result* ``y`` (``y*(1 - y)`` for the logistic function), so that the
backward pass reads what the forward pass has computed. Where there is no derivative the convention is PyTorch's: see each row.

**Range**: a spelling is right to rounding wherever the result is a number of the dtype, float64 as float32, and neither it
nor a derivative has an intermediate that leaves the range when the result does not. So no constant in a row may depend on the
width of a dtype. (Derivatives in terms of ``y`` are right to rounding beside their own largest value: ``1 - y**2`` is 0 where
y is 1.)
"""

from __future__ import annotations

from collections.abc import Callable

import sympy
from sympy import Piecewise, Rational

from cellspec.model.primitive import Expr, Least, Primitive, Sign, Size, Want, ufunc


class _Floor(sympy.Function):  # type: ignore[misc]
    """floor(x) with derivative zero everywhere, for definitions; evaluates on numbers."""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr:
        return sympy.floor(x) if x.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.Integer(0)


def _make_symbol(name: str, arity: int, derivatives: tuple[Callable[..., Expr], ...]) -> type[sympy.Function]:
    """A SymPy Function that never evaluates itself and differentiates by the table."""

    def fdiff(self: Expr, argindex: int = 1) -> Expr:
        return derivatives[argindex - 1](*self.args, self)

    return type(name, (sympy.Function,), {"nargs": arity, "fdiff": fdiff, "__module__": __name__})


PRIMITIVES: dict[str, Primitive] = {}
"""Name → row."""


def _row(
    name: str,
    definition: Callable[..., Expr],
    *derivatives: Callable[..., Expr],
    numpy: Callable[..., Expr] | None = None,
    domain: tuple[float, float] = (-3.0, 3.0),
    kinks: tuple[float, ...] = (),
    listed: bool = True,
    cuda: str = "",
    wants: Want | tuple[Want, ...],
    size: Size,
    sign: Sign = Sign.ANY,
    least: Least = Least.NOTHING,
    rounds: bool = True,
    complement: Callable[..., Expr] | None = None,
) -> None:
    """Add a pointwise function; ``numpy`` defaults to the ufunc of the same name, ``cuda`` to CUDA's function of it.

    One ``wants`` serves all arguments.
    """
    arity = len(derivatives)
    PRIMITIVES[name] = Primitive(
        name,
        arity,
        definition,
        derivatives,
        numpy or ufunc(name),
        _make_symbol(name, arity, derivatives),
        domain,
        kinks,
        listed,
        cuda or name,
        wants if isinstance(wants, tuple) else (wants,) * arity,
        size,
        sign,
        least,
        rounds,
        complement,
    )


def _arithmetic(name: str, arity: int, build: Callable[..., Expr], *, listed: bool = False, rounds: bool = True) -> None:
    """Add an operator that SymPy's own arithmetic expresses and differentiates."""
    PRIMITIVES[name] = Primitive(name, arity, build, (), build, build, listed=listed, rounds=rounds)


def _cases(*branches: tuple[Expr, Expr]) -> Expr:
    return Piecewise(*branches)


def _call(name: str, *args: Expr) -> Expr:
    """Another row's function, for use in a derivative."""
    return PRIMITIVES[name].symbol(*args)


def _logistic(x: Expr, e: Expr) -> Expr:
    """The logistic function of x, ``e/(1 + e)`` where x < 0 and ``1/(1 + e)`` elsewhere, with ``e = exp(-|x|)``, at most 1."""
    return _maximum(e, _sign(x)) / (1 + e)


def _zero(*_: Expr) -> Expr:
    return sympy.Integer(0)


def _one(*_: Expr) -> Expr:
    return sympy.Integer(1)


_exp, _log, _sqrt, _erf, _pi = sympy.exp, sympy.log, sympy.sqrt, sympy.erf, sympy.pi
_maximum, _minimum, _abs, _sign, _expm1, _logaddexp = (
    ufunc(n) for n in ("maximum", "minimum", "abs", "sign", "expm1", "logaddexp")
)

_arithmetic("add", 2, lambda a, b: a + b)
_arithmetic("sub", 2, lambda a, b: a - b)
_arithmetic("mul", 2, lambda a, b: a * b)
_arithmetic("div", 2, lambda a, b: a / b)
_arithmetic("pow", 2, lambda a, b: a**b)
_arithmetic("neg", 1, lambda a: -a, rounds=False)
_arithmetic("identity", 1, lambda a: a, listed=True, rounds=False)

# Comparisons give 1 or 0 and have derivative zero.
for _name, _ufunc, _operator, _holds in (
    ("lt", "less", "<", sympy.Lt),
    ("le", "less_equal", "<=", sympy.Le),
    ("gt", "greater", ">", sympy.Gt),
    ("ge", "greater_equal", ">=", sympy.Ge),
    ("eq", "equal", "==", sympy.Eq),
    ("ne", "not_equal", "!=", sympy.Ne),
):
    _row(
        _name,
        lambda a, b, holds=_holds: _cases((1, holds(a, b)), (0, True)),
        _zero,
        _zero,
        numpy=ufunc(_ufunc),
        listed=False,
        cuda=f"{_name}(a, b) = a {_operator} b",
        wants=Want.SIDE,
        size=Size.BOUNDED,
        sign=Sign.NOT_NEGATIVE,
        rounds=False,
    )

_row(
    "exp",
    _exp,
    lambda x, y: y,
    wants=Want.LITTLE,
    size=Size.GROWS,
    sign=Sign.NOT_NEGATIVE,
    complement=lambda x: -_call("expm1", x),
)
_row("log", _log, lambda x, y: 1 / x, domain=(0.1, 3.0), wants=Want.RATIO, size=Size.BOUNDED)
_row(
    "sqrt",
    _sqrt,
    lambda x, y: 1 / (2 * y),
    domain=(0.1, 3.0),
    wants=Want.RATIO,
    size=Size.KEEPS,
    sign=Sign.NOT_NEGATIVE,
    least=Least.ROOT,
)
_row("sin", sympy.sin, lambda x, y: _call("cos", x), wants=Want.SAME, size=Size.BOUNDED)
_row("cos", sympy.cos, lambda x, y: -_call("sin", x), wants=Want.LITTLE, size=Size.BOUNDED)
_row("tanh", sympy.tanh, lambda x, y: 1 - y**2, wants=Want.SAME, size=Size.BOUNDED, sign=Sign.SAME)
_row(
    "sigmoid",
    lambda x: 1 / (1 + _exp(-x)),
    lambda x, y: y * (1 - y),
    numpy=lambda x: _logistic(x, ufunc("exp")(-_abs(x))),
    cuda="sigmoid(a) = {logistic}(a, {exp}(-{fabs}(a)))",
    wants=Want.LITTLE,
    size=Size.BOUNDED,
    sign=Sign.NOT_NEGATIVE,
    complement=lambda x: _call("sigmoid", -x),
)
_row(
    "erf",
    _erf,
    lambda x, y: 2 / _sqrt(_pi) * _call("gauss", x),
    wants=Want.SAME,
    size=Size.BOUNDED,
    sign=Sign.SAME,
    complement=lambda x: _call("erfc", x),
)
_row(
    "erfc",  # 1 - erf(x)
    lambda x: sympy.erfc(x),
    lambda x, y: -2 / _sqrt(_pi) * _call("gauss", x),
    listed=False,
    wants=Want.LITTLE,
    size=Size.BOUNDED,
    sign=Sign.NOT_NEGATIVE,
)
_row(
    "gauss",
    lambda x: _exp(-(x**2)),
    lambda x, y: -2 * x * y,
    numpy=lambda x: ufunc("exp")(-(_minimum(_abs(x), 40) ** 2)),  # exp(-40**2) is 0 in every dtype; squares may be infinite
    listed=False,
    cuda="gauss(a) = {exp}(-{square}(a))",
    wants=Want.LITTLE,
    size=Size.BOUNDED,
    sign=Sign.NOT_NEGATIVE,
)
_row("expm1", lambda x: _exp(x) - 1, lambda x, y: y + 1, listed=False, wants=Want.SAME, size=Size.GROWS, sign=Sign.SAME)
_row(
    "softplus",
    lambda x: _log(1 + _exp(x)),
    lambda x, y: _call("sigmoid", x),
    numpy=lambda x: _logaddexp(0, x),
    cuda="softplus(a) = {maximum}(a, 0) + {log1p}({exp}(-{fabs}(a)))",
    wants=Want.LITTLE,
    size=Size.KEEPS,
    sign=Sign.NOT_NEGATIVE,
)
_row(
    "logsigmoid",
    lambda x: -_log(1 + _exp(-x)),
    lambda x, y: _call("sigmoid", -x),
    numpy=lambda x: -_logaddexp(0, -x),
    cuda="logsigmoid(a) = {minimum}(a, 0) - {log1p}({exp}(-{fabs}(a)))",
    wants=Want.LITTLE,
    size=Size.KEEPS,
)
_row(
    "relu",  # derivative 0 at 0
    lambda x: _cases((x, x > 0), (0, True)),
    lambda x, y: _call("gt", y, 0),
    numpy=lambda x: _maximum(x, 0),
    kinks=(0.0,),
    cuda="relu(a) = a < 0 ? 0 : a",
    wants=Want.SAME,
    size=Size.KEEPS,
    sign=Sign.NOT_NEGATIVE,
    rounds=False,
)
_row(
    "leaky_relu",  # slope 0.01 for x <= 0
    lambda x: _cases((x, x > 0), (x / 100, True)),
    lambda x, y: Rational(1, 100) + Rational(99, 100) * _call("gt", x, 0),
    numpy=lambda x: _maximum(x, x / 100),
    kinks=(0.0,),
    cuda="leaky_relu(a) = a > 0 ? a : a/100",
    wants=Want.SAME,
    size=Size.KEEPS,
    sign=Sign.SAME,
)
_row(
    "elu",  # x for x > 0, else exp(x) - 1
    lambda x: _cases((x, x > 0), (_exp(x) - 1, True)),
    lambda x, y: 1 + _call("min", y, 0),
    numpy=lambda x: _maximum(x, 0) + _expm1(_minimum(x, 0)),
    cuda="elu(a) = a > 0 ? a : {expm1}(a)",
    wants=Want.SAME,
    size=Size.KEEPS,
    sign=Sign.SAME,
)
_row(
    "gelu",  # the exact form, x Phi(x)
    lambda x: x * (1 + _erf(x / _sqrt(2))) / 2,
    lambda x, y: _call("erfc", -x / _sqrt(2)) / 2 + x * _call("gauss", x / _sqrt(2)) / _sqrt(2 * _pi),
    numpy=lambda x: x / 2 * ufunc("erfc")(-x / _sqrt(2)),
    cuda="gelu(a) = a/2*{erfc}(-a*{0.7071067811865476})",
    wants=Want.SAME,
    size=Size.KEEPS,
    sign=Sign.SAME,
)
_row(
    "silu",
    lambda x: x / (1 + _exp(-x)),
    lambda x, y: _call("sigmoid", x) + y * (1 - _call("sigmoid", x)),
    numpy=lambda x: x * PRIMITIVES["sigmoid"].numpy(x),
    cuda="silu(a) = a*{sigmoid}(a)",
    wants=Want.SAME,
    size=Size.KEEPS,
    sign=Sign.SAME,
)
_row(
    "softsign",
    lambda x: x / (1 + _cases((x, x > 0), (-x, True))),
    lambda x, y: (1 + _call("abs", x)) ** -2,
    numpy=lambda x: x / (1 + _abs(x)),
    cuda="softsign(a) = a/(1 + {fabs}(a))",
    wants=Want.SAME,
    size=Size.BOUNDED,
    sign=Sign.SAME,
)
_row(
    "hard_sigmoid",  # clip(x/6 + 1/2, 0, 1); derivative 0 at -3 and 3
    lambda x: _cases((0, x <= -3), (1, x >= 3), (x / 6 + Rational(1, 2), True)),
    lambda x, y: _call("gt", x, -3) * _call("lt", x, 3) / 6,
    numpy=lambda x: _minimum(_maximum(x / 6 + Rational(1, 2), 0), 1),
    domain=(-5.0, 5.0),
    kinks=(-3.0, 3.0),
    cuda="hard_sigmoid(a) = {minimum}({maximum}(a/6 + {0.5}, 0), 1)",
    wants=Want.SAME,
    size=Size.BOUNDED,
    sign=Sign.NOT_NEGATIVE,
)
_row(
    "hard_tanh",  # clip(x, -1, 1); derivative 0 at -1 and 1
    lambda x: _cases((-1, x <= -1), (1, x >= 1), (x, True)),
    lambda x, y: _call("gt", x, -1) * _call("lt", x, 1),
    numpy=lambda x: _minimum(_maximum(x, -1), 1),
    kinks=(-1.0, 1.0),
    cuda="hard_tanh(a) = {minimum}({maximum}(a, -1), 1)",
    wants=Want.SAME,
    size=Size.BOUNDED,
    sign=Sign.SAME,
    rounds=False,
)
_row(
    "abs",  # derivative 0 at 0
    lambda x: _cases((x, x > 0), (-x, x < 0), (0, True)),
    lambda x, y: _call("sign", x),
    kinks=(0.0,),
    cuda="fabs",
    wants=Want.SAME,
    size=Size.KEEPS,
    sign=Sign.NOT_NEGATIVE,
    least=Least.SAME,
    rounds=False,
)
_row(
    "sign",
    lambda x: _cases((1, x > 0), (-1, x < 0), (0, True)),
    _zero,
    kinks=(0.0,),
    cuda="sign(a) = (a > 0) - (a < 0)",
    wants=Want.SIDE,
    size=Size.BOUNDED,
    sign=Sign.SAME,
    rounds=False,
)
_row("floor", lambda x: _Floor(x), _zero, kinks=(0.0, 1.0), wants=Want.SIDE, size=Size.KEEPS, rounds=False)
_row(
    "max",  # a tie gives half to each side
    lambda a, b: _cases((a, a > b), (b, a < b), ((a + b) / 2, True)),
    lambda a, b, y: (_call("gt", a, b) + _call("ge", a, b)) / 2,
    lambda a, b, y: (_call("gt", b, a) + _call("ge", b, a)) / 2,
    numpy=_maximum,
    cuda="maximum(a, b) = a < b || b != b ? b : a",
    wants=Want.SAME,
    size=Size.KEEPS,
    least=Least.GREATEST,
    rounds=False,
)
_row(
    "min",
    lambda a, b: _cases((a, a < b), (b, a > b), ((a + b) / 2, True)),
    lambda a, b, y: (_call("lt", a, b) + _call("le", a, b)) / 2,
    lambda a, b, y: (_call("lt", b, a) + _call("le", b, a)) / 2,
    numpy=_minimum,
    cuda="minimum(a, b) = b < a || b != b ? b : a",
    wants=Want.SAME,
    size=Size.KEEPS,
    rounds=False,
)
_row(
    "clip",  # derivative 1 at either end; where lo > hi the result is hi
    lambda v, lo, hi: _cases((hi, lo > hi), (hi, v > hi), (lo, v < lo), (v, True)),
    lambda v, lo, hi, y: _call("ge", v, lo) * _call("le", v, hi),
    lambda v, lo, hi, y: _call("lt", v, lo) * _call("le", lo, hi),
    lambda v, lo, hi, y: _call("max", _call("gt", v, hi), _call("gt", lo, hi)),
    numpy=lambda v, lo, hi: _minimum(_maximum(v, lo), hi),
    cuda="clip(a, low, high) = {minimum}({maximum}(a, low), high)",
    wants=Want.SAME,
    size=Size.KEEPS,
    rounds=False,
)
_row(
    "mod",  # a - b*floor(a/b): the sign of b, as in Python; the quotient has derivative zero
    lambda a, b: a - b * _Floor(a / b),
    _one,
    lambda a, b, y: -_call("floor", a / b),
    numpy=ufunc("remainder"),
    domain=(0.5, 3.0),
    cuda="mod(a, b) = {signed_as}(b, {fmod}(a, b))",
    wants=Want.RATIO,
    size=Size.KEEPS,
)
_row(
    "where",
    lambda c, a, b: _cases((b, sympy.Eq(c, 0)), (a, True)),
    _zero,
    lambda c, a, b, y: c,
    lambda c, a, b, y: 1 - c,
    cuda="where(c, a, b) = c != 0 ? a : b",
    wants=(Want.SIDE, Want.SAME, Want.SAME),
    size=Size.KEEPS,
    rounds=False,
)

COMPARISONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
"""Operators of a condition → rows."""

OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}
"""Binary operators → rows."""

CALLABLE = tuple(name for name, row in PRIMITIVES.items() if row.listed)
"""The pointwise functions that a spec may call."""
