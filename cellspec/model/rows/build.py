"""How a row of the table of primitives is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy

from cellspec.model.primitive import Expr, Least, Primitive, Sign, Size, Want, ufunc
from cellspec.model.spelling import spelling

_ROWS: dict[str, Primitive] = {}
"""All rows, by name: derivatives are written with functions of other rows."""


def row(
    name: str,
    definition: Callable[..., Expr],
    *derivatives: Callable[..., Expr],
    numpy: Callable[..., Expr] | None = None,
    spellings: Mapping[str, str] | None = None,
    domain: tuple[float, float] = (-3.0, 3.0),
    kinks: tuple[float, ...] = (),
    listed: bool = True,
    wants: Want | tuple[Want, ...],
    size: Size,
    sign: Sign = Sign.ANY,
    least: Least = Least.NOTHING,
    rounds: bool = True,
    slope_beside_one: bool = False,
    in_place: bool = True,
    complement: Callable[..., Expr] | None = None,
    in_sympy: Callable[..., Expr] | None = None,
) -> Primitive:
    """A pointwise function.

    ``numpy`` defaults to the ufunc of the same name, and then so do its spellings in NumPy, PyTorch and JAX; that in CUDA
    defaults to CUDA's function of this name. One ``wants`` serves all arguments.
    """
    arity = len(derivatives)
    same = {"numpy": f"np.{name}", "torch": f"torch.{name}", "jax": f"jnp.{name}"}
    words = {"cuda": name} | ({} if numpy else same) | dict(spellings or {})
    _ROWS[name] = Primitive(
        name=name,
        arity=arity,
        definition=definition,
        derivatives=derivatives,
        numpy=numpy or ufunc(name),
        symbol=_make_symbol(name, arity, derivatives),
        spellings={target: spelling(text) for target, text in words.items()},
        domain=domain,
        kinks=kinks,
        listed=listed,
        wants=wants if isinstance(wants, tuple) else (wants,) * arity,
        size=size,
        sign=sign,
        least=least,
        rounds=rounds,
        slope_beside_one=slope_beside_one,
        in_place=in_place,
        complement=complement,
        in_sympy=in_sympy,
    )
    return _ROWS[name]


def arithmetic(name: str, arity: int, build: Callable[..., Expr], *, listed: bool = False, rounds: bool = True) -> Primitive:
    """An operator that SymPy's own arithmetic expresses and differentiates, and printers of expressions spell."""
    return Primitive(name, arity, build, (), build, build, listed=listed, rounds=rounds)


def call(name: str, *args: Expr) -> Expr:
    """Another row's function, for use in a derivative."""
    return _ROWS[name].symbol(*args)


def cases(*branches: tuple[Expr, Expr]) -> Expr:
    """A choice by conditions, the first that holds."""
    return sympy.Piecewise(*branches)


def zero(*_: Expr) -> Expr:
    """The derivative of what does not depend on an argument, or jumps."""
    return sympy.Integer(0)


def one(*_: Expr) -> Expr:
    """The derivative of what grows as an argument does."""
    return sympy.Integer(1)


def _make_symbol(name: str, arity: int, derivatives: tuple[Callable[..., Expr], ...]) -> type[sympy.Function]:
    """A SymPy Function that never evaluates itself and differentiates by the table."""

    def fdiff(self: Expr, argindex: int = 1) -> Expr:
        return derivatives[argindex - 1](*self.args, self)

    return type(name, (sympy.Function,), {"nargs": arity, "fdiff": fdiff, "__module__": "cellspec.model.primitives"})
