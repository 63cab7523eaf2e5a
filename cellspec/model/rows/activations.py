"""Functions that gates and activations are made of."""

from __future__ import annotations

import sympy
from sympy import Rational

from cellspec.model.primitive import Expr, Sign, Size, Want, ufunc
from cellspec.model.rows.build import call, cases, row

abs_, expm1, logaddexp, maximum, minimum, sign = map(ufunc, ("abs", "expm1", "logaddexp", "maximum", "minimum", "sign"))


def logistic(x: Expr) -> Expr:
    """``e/(1 + e)`` where x < 0 and ``1/(1 + e)`` elsewhere, with ``e = exp(-|x|)``, at most 1."""
    e = ufunc("exp")(-abs_(x))
    return maximum(e, sign(x)) / (1 + e)


ROWS = (
    row(
        "sigmoid",
        lambda x: 1 / (1 + sympy.exp(-x)),
        lambda x, y: y * (1 - y),
        numpy=logistic,
        spellings={
            "torch": "torch.sigmoid",
            "jax": "jax.nn.sigmoid",
            "numpy": "_sigmoid",
            "cuda": "sigmoid(a) = logistic(a, exp(-fabs(a)))",
        },
        slope_beside_one=True,
        wants=Want.LITTLE,
        size=Size.BOUNDED,
        sign=Sign.NOT_NEGATIVE,
        complement=lambda x: call("sigmoid", -x),
    ),
    row(
        "erf",
        sympy.erf,
        lambda x, y: 2 / sympy.sqrt(sympy.pi) * call("gauss", x),
        wants=Want.SAME,
        size=Size.BOUNDED,
        sign=Sign.SAME,
        complement=lambda x: call("erfc", x),
        spellings={
            "numpy": "_erf",
            "torch": "torch.erf",
            "jax": "jax.scipy.special.erf",
        },
        in_place=False,
        in_sympy=sympy.erf,
    ),
    row(
        "erfc",  # 1 - erf(x)
        lambda x: sympy.erfc(x),
        lambda x, y: -2 / sympy.sqrt(sympy.pi) * call("gauss", x),
        listed=False,
        spellings={
            "numpy": "_erfc",
            "torch": "torch.erfc",
            "jax": "jax.scipy.special.erfc",
        },
        in_place=False,
        wants=Want.LITTLE,
        size=Size.BOUNDED,
        sign=Sign.NOT_NEGATIVE,
    ),
    row(
        "gauss",
        lambda x: sympy.exp(-(x**2)),
        lambda x, y: -2 * x * y,
        numpy=lambda x: ufunc("exp")(-(minimum(abs_(x), 40) ** 2)),  # exp(-40**2) is 0 in every dtype; squares may be infinite
        listed=False,
        spellings={
            "cuda": "gauss(a) = exp(-square(a))",
            "torch": "torch.exp(-torch.square({0}))",
            "jax": "jnp.exp(-jnp.square({0}))",
        },
        wants=Want.LITTLE,
        size=Size.BOUNDED,
        sign=Sign.NOT_NEGATIVE,
    ),
    row(
        "expm1", lambda x: sympy.exp(x) - 1, lambda x, y: y + 1, listed=False, wants=Want.SAME, size=Size.GROWS, sign=Sign.SAME
    ),
    row(
        "softplus",
        lambda x: sympy.log(1 + sympy.exp(x)),
        lambda x, y: call("sigmoid", x),
        numpy=lambda x: logaddexp(0, x),
        spellings={
            "cuda": "softplus(a) = maximum(a, 0) + log1p(exp(-fabs(a)))",
            "torch": "-functional.logsigmoid(-({0}))",  # functional.softplus is the identity from 20 on
            "jax": "jax.nn.softplus",
        },
        wants=Want.LITTLE,
        size=Size.KEEPS,
        sign=Sign.NOT_NEGATIVE,
    ),
    row(
        "logsigmoid",
        lambda x: -sympy.log(1 + sympy.exp(-x)),
        lambda x, y: call("sigmoid", -x),
        numpy=lambda x: -logaddexp(0, -x),
        spellings={
            "cuda": "logsigmoid(a) = minimum(a, 0) - log1p(exp(-fabs(a)))",
            "torch": "functional.logsigmoid",
            "jax": "jax.nn.log_sigmoid",
        },
        wants=Want.LITTLE,
        size=Size.KEEPS,
    ),
    row(
        "relu",  # derivative 0 at 0
        lambda x: cases((x, x > 0), (0, True)),
        lambda x, y: call("gt", y, 0),
        numpy=lambda x: maximum(x, 0),
        kinks=(0.0,),
        spellings={
            "numpy": "np.maximum({0}, 0)",
            "cuda": "relu(a) = a < 0 ? 0 : a",
            "torch": "torch.relu",
            "jax": "jax.nn.relu",
        },
        wants=Want.SAME,
        size=Size.KEEPS,
        sign=Sign.NOT_NEGATIVE,
        rounds=False,
    ),
    row(
        "leaky_relu",  # slope 0.01 for x <= 0
        lambda x: cases((x, x > 0), (x / 100, True)),
        lambda x, y: Rational(1, 100) + Rational(99, 100) * call("gt", x, 0),
        numpy=lambda x: maximum(x, x / 100),
        kinks=(0.0,),
        spellings={
            "cuda": "leaky_relu(a) = a > 0 ? a : a/100",
            "torch": "functional.leaky_relu",
            "jax": "jax.nn.leaky_relu",
        },
        wants=Want.SAME,
        size=Size.KEEPS,
        sign=Sign.SAME,
    ),
    row(
        "elu",  # x for x > 0, else exp(x) - 1
        lambda x: cases((x, x > 0), (sympy.exp(x) - 1, True)),
        lambda x, y: 1 + call("min", y, 0),
        numpy=lambda x: maximum(x, 0) + expm1(minimum(x, 0)),
        spellings={
            "torch": "functional.elu",
            "jax": "jax.nn.elu",
            "numpy": "_elu",
            "cuda": "elu(a) = a > 0 ? a : expm1(a)",
        },
        slope_beside_one=True,
        wants=Want.SAME,
        size=Size.KEEPS,
        sign=Sign.SAME,
    ),
    row(
        "gelu",  # the exact form, x Phi(x)
        lambda x: x * (1 + sympy.erf(x / sympy.sqrt(2))) / 2,
        lambda x, y: call("erfc", -x / sympy.sqrt(2)) / 2 + x * call("gauss", x / sympy.sqrt(2)) / sympy.sqrt(2 * sympy.pi),
        numpy=lambda x: x / 2 * ufunc("erfc")(-x / sympy.sqrt(2)),
        spellings={
            "numpy": "_gelu",
            "cuda": "gelu(a) = a/2*erfc(-a*real(0.7071067811865476))",
            "torch": "_gelu",
            "jax": "_gelu",
        },
        wants=Want.SAME,
        size=Size.KEEPS,
        sign=Sign.SAME,
    ),
    row(
        "silu",
        lambda x: x / (1 + sympy.exp(-x)),
        lambda x, y: call("sigmoid", x) + y * (1 - call("sigmoid", x)),
        numpy=lambda x: x * logistic(x),
        spellings={
            "numpy": "_silu",
            "cuda": "silu(a) = a*sigmoid(a)",
            "torch": "functional.silu",
            "jax": "jax.nn.silu",
        },
        wants=Want.SAME,
        size=Size.KEEPS,
        sign=Sign.SAME,
    ),
    row(
        "softsign",
        lambda x: x / (1 + cases((x, x > 0), (-x, True))),
        lambda x, y: (1 + call("abs", x)) ** -2,
        numpy=lambda x: x / (1 + abs_(x)),
        spellings={
            "numpy": "_softsign",
            "cuda": "softsign(a) = a/(1 + fabs(a))",
            "torch": "functional.softsign",
            "jax": "jax.nn.soft_sign",
        },
        wants=Want.SAME,
        size=Size.BOUNDED,
        sign=Sign.SAME,
    ),
    row(
        "hard_sigmoid",  # clip(x/6 + 1/2, 0, 1); derivative 0 at -3 and 3
        lambda x: cases((0, x <= -3), (1, x >= 3), (x / 6 + Rational(1, 2), True)),
        lambda x, y: call("gt", x, -3) * call("lt", x, 3) / 6,
        numpy=lambda x: minimum(maximum(x / 6 + Rational(1, 2), 0), 1),
        domain=(-5.0, 5.0),
        kinks=(-3.0, 3.0),
        spellings={
            "cuda": "hard_sigmoid(a) = minimum(maximum(a/6 + real(0.5), 0), 1)",
            "torch": "functional.hardsigmoid",
            "jax": "jax.nn.hard_sigmoid",
        },
        wants=Want.SAME,
        size=Size.BOUNDED,
        sign=Sign.NOT_NEGATIVE,
    ),
    row(
        "hard_tanh",  # clip(x, -1, 1); derivative 0 at -1 and 1
        lambda x: cases((-1, x <= -1), (1, x >= 1), (x, True)),
        lambda x, y: call("gt", x, -1) * call("lt", x, 1),
        numpy=lambda x: minimum(maximum(x, -1), 1),
        kinks=(-1.0, 1.0),
        spellings={
            "cuda": "hard_tanh(a) = minimum(maximum(a, -1), 1)",
            "torch": "functional.hardtanh",
            "jax": "jax.nn.hard_tanh",
        },
        wants=Want.SAME,
        size=Size.BOUNDED,
        sign=Sign.SAME,
        rounds=False,
    ),
)
