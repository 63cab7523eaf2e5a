"""Functions that choose: by a sign, by size, by a condition; and what is left over by whole numbers."""

from __future__ import annotations

import sympy

from cellspec.model.primitive import Expr, Least, Sign, Size, Want, ufunc
from cellspec.model.rows.build import call, cases, one, row, zero

maximum, minimum = ufunc("maximum"), ufunc("minimum")


class _Floor(sympy.Function):  # type: ignore[misc]
    """floor(x) with derivative zero everywhere, for definitions; evaluates on numbers."""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr:
        return sympy.floor(x) if x.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.Integer(0)


ROWS = (
    row(
        "abs",  # derivative 0 at 0
        lambda x: cases((x, x > 0), (-x, x < 0), (0, True)),
        lambda x, y: call("sign", x),
        kinks=(0.0,),
        spellings={"cuda": "fabs"},
        in_sympy=sympy.Abs,
        wants=Want.SAME,
        size=Size.KEEPS,
        sign=Sign.NOT_NEGATIVE,
        least=Least.SAME,
        rounds=False,
    ),
    row(
        "sign",
        lambda x: cases((1, x > 0), (-1, x < 0), (0, True)),
        zero,
        kinks=(0.0,),
        spellings={"cuda": "sign(a) = (a > 0) - (a < 0)"},
        in_sympy=sympy.sign,
        wants=Want.SIDE,
        size=Size.BOUNDED,
        sign=Sign.SAME,
        rounds=False,
    ),
    row(
        "floor",
        lambda x: _Floor(x),
        zero,
        kinks=(0.0, 1.0),
        wants=Want.SIDE,
        size=Size.KEEPS,
        rounds=False,
        in_sympy=sympy.floor,
    ),
    row(
        "max",  # a tie gives half to each side
        lambda a, b: cases((a, a > b), (b, a < b), ((a + b) / 2, True)),
        lambda a, b, y: (call("gt", a, b) + call("ge", a, b)) / 2,
        lambda a, b, y: (call("gt", b, a) + call("ge", b, a)) / 2,
        numpy=maximum,
        spellings={
            "numpy": "np.maximum",
            "cuda": "maximum(a, b) = a < b || b != b ? b : a",
            "torch": "_maximum",
            "jax": "jnp.maximum",
        },
        in_sympy=sympy.Max,
        wants=Want.SAME,
        size=Size.KEEPS,
        least=Least.GREATEST,
        rounds=False,
    ),
    row(
        "min",
        lambda a, b: cases((a, a < b), (b, a > b), ((a + b) / 2, True)),
        lambda a, b, y: (call("lt", a, b) + call("le", a, b)) / 2,
        lambda a, b, y: (call("lt", b, a) + call("le", b, a)) / 2,
        numpy=minimum,
        spellings={
            "numpy": "np.minimum",
            "cuda": "minimum(a, b) = b < a || b != b ? b : a",
            "torch": "_minimum",
            "jax": "jnp.minimum",
        },
        in_sympy=sympy.Min,
        wants=Want.SAME,
        size=Size.KEEPS,
        rounds=False,
    ),
    row(
        "clip",  # derivative 1 at either end; where lo > hi the result is hi
        lambda v, lo, hi: cases((hi, lo > hi), (hi, v > hi), (lo, v < lo), (v, True)),
        lambda v, lo, hi, y: call("ge", v, lo) * call("le", v, hi),
        lambda v, lo, hi, y: call("lt", v, lo) * call("le", lo, hi),
        lambda v, lo, hi, y: call("max", call("gt", v, hi), call("gt", lo, hi)),
        numpy=lambda v, lo, hi: minimum(maximum(v, lo), hi),
        spellings={
            "cuda": "clip(a, low, high) = minimum(maximum(a, low), high)",
            "torch": "_minimum(_maximum({0}, {1}), {2})",
            "jax": "jnp.minimum(jnp.maximum({0}, {1}), {2})",
        },
        wants=Want.SAME,
        size=Size.KEEPS,
        rounds=False,
    ),
    row(
        "mod",  # a - b*floor(a/b): the sign of b, as in Python; the quotient has derivative zero
        lambda a, b: a - b * _Floor(a / b),
        one,
        lambda a, b, y: -call("floor", a / b),
        numpy=ufunc("remainder"),
        domain=(0.5, 3.0),
        spellings={
            "numpy": "np.mod",
            "cuda": "mod(a, b) = signed_as(b, fmod(a, b))",
            "torch": "torch.remainder",
            "jax": "jnp.remainder",
        },
        in_sympy=sympy.Mod,
        wants=Want.RATIO,
        size=Size.KEEPS,
    ),
    row(
        "where",
        lambda c, a, b: cases((b, sympy.Eq(c, 0)), (a, True)),
        zero,
        lambda c, a, b, y: c,
        lambda c, a, b, y: 1 - c,
        spellings={"cuda": "where(c, a, b) = c != 0 ? a : b"},
        in_place=False,
        wants=(Want.SIDE, Want.SAME, Want.SAME),
        size=Size.KEEPS,
        rounds=False,
    ),
)
