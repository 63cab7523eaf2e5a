"""Arithmetic, comparisons, and elementary functions."""

from __future__ import annotations

import sympy

from cellspec.model.primitive import Least, Sign, Size, Want, ufunc
from cellspec.model.rows.build import arithmetic, call, cases, row, zero

ROWS = (
    arithmetic("add", 2, lambda a, b: a + b),
    arithmetic("sub", 2, lambda a, b: a - b),
    arithmetic("mul", 2, lambda a, b: a * b),
    arithmetic("div", 2, lambda a, b: a / b),
    arithmetic("pow", 2, lambda a, b: a**b),
    arithmetic("neg", 1, lambda a: -a, rounds=False),
    arithmetic("identity", 1, lambda a: a, listed=True, rounds=False),
    *(  # comparisons give 1 or 0 and have derivative zero
        row(
            name,
            lambda a, b, holds=holds: cases((1, holds(a, b)), (0, True)),
            zero,
            zero,
            numpy=ufunc(word),
            listed=False,
            spellings={
                "numpy": f"np.{word}",
                "torch": f"({{0}} {operator} {{1}})",
                "jax": f"({{0}} {operator} {{1}})",
                "cuda": f"{name}(a, b) = a {operator} b",
            },
            wants=Want.SIDE,
            size=Size.BOUNDED,
            sign=Sign.NOT_NEGATIVE,
            rounds=False,
        )
        for name, word, operator, holds in (
            ("lt", "less", "<", sympy.Lt),
            ("le", "less_equal", "<=", sympy.Le),
            ("gt", "greater", ">", sympy.Gt),
            ("ge", "greater_equal", ">=", sympy.Ge),
            ("eq", "equal", "==", sympy.Eq),
            ("ne", "not_equal", "!=", sympy.Ne),
        )
    ),
    row(
        "exp",
        sympy.exp,
        lambda x, y: y,
        wants=Want.LITTLE,
        size=Size.GROWS,
        sign=Sign.NOT_NEGATIVE,
        complement=lambda x: -call("expm1", x),
        in_sympy=sympy.exp,
    ),
    row("log", sympy.log, lambda x, y: 1 / x, domain=(0.1, 3.0), wants=Want.RATIO, size=Size.BOUNDED, in_sympy=sympy.log),
    row(
        "sqrt",
        sympy.sqrt,
        lambda x, y: 1 / (2 * y),
        domain=(0.1, 3.0),
        wants=Want.RATIO,
        size=Size.KEEPS,
        sign=Sign.NOT_NEGATIVE,
        least=Least.ROOT,
        in_sympy=sympy.sqrt,
    ),
    row("sin", sympy.sin, lambda x, y: call("cos", x), wants=Want.SAME, size=Size.BOUNDED, in_sympy=sympy.sin),
    row("cos", sympy.cos, lambda x, y: -call("sin", x), wants=Want.LITTLE, size=Size.BOUNDED, in_sympy=sympy.cos),
    row(
        "tanh",
        sympy.tanh,
        lambda x, y: 1 - y**2,
        wants=Want.SAME,
        size=Size.BOUNDED,
        sign=Sign.SAME,
        slope_beside_one=True,
        in_sympy=sympy.tanh,
    ),
)
