"""Functions along the last axis, in terms of sums, largest elements and pointwise arithmetic."""

from __future__ import annotations

from typing import Protocol

import sympy

from cellspec import ir
from cellspec.ir import Op, symbol
from cellspec.model.nodes import Shape
from cellspec.model.primitives import PRIMITIVES


class Builder(Protocol):
    """Adds an operation to a program; gives the name of its value."""

    def emit(self, op: Op, shape: Shape) -> str: ...


def along(build: Builder, function: str, args: tuple[str, ...], wide: Shape, shape: Shape, label: str | None) -> sympy.Expr:
    """``function(args…)`` of values of shape ``wide`` as a pointwise expression over values, the last called ``label``."""
    a = args[0]
    narrow = (*wide[:-1], sympy.Integer(1))

    def total(expr: sympy.Expr, what: str, name: str | None = None) -> sympy.Symbol:
        each = what if expr == symbol(what) else build.emit(ir.Pointwise(what, expr), wide)
        return symbol(build.emit(ir.SumTo(name or f"sum({each})", each), narrow))

    def centred() -> str:
        mean = build.emit(ir.Pointwise(f"mean({a})", total(symbol(a), a) / wide[-1]), narrow)
        return build.emit(ir.Pointwise(f"{a}-mean", symbol(a) - symbol(mean)), wide)

    def exponentials() -> tuple[sympy.Symbol, sympy.Symbol]:
        """The largest element, and exp(a - largest)."""
        top = build.emit(ir.Stop(f"top({a})", build.emit(ir.Largest(f"largest({a})", a), narrow)), narrow)
        below = build.emit(ir.Pointwise(f"{a}-top", symbol(a) - symbol(top)), wide)
        return symbol(top), symbol(build.emit(ir.Pointwise(f"exp({below})", PRIMITIVES["exp"].symbol(symbol(below))), wide))

    def direction() -> sympy.Symbol:
        """The unit vector u of ``a``, 0 for zeros. The norm is the sum of ``a*u``, u its derivative: u and du are orthogonal.

        Before it is squared ``a`` is divided by its largest magnitude: nothing leaves the range that the norm does not leave.
        """
        sizes = build.emit(ir.Pointwise(f"|{a}|", PRIMITIVES["abs"].symbol(symbol(a))), wide)
        top = symbol(build.emit(ir.Largest(f"largest(|{a}|)", sizes), narrow))
        size = symbol(build.emit(ir.Pointwise(f"scale({a})", top + PRIMITIVES["eq"].symbol(top, 0)), narrow))
        part = build.emit(ir.Pointwise(f"{a}/scale", symbol(a) / size), wide)
        squares = total(symbol(part) ** 2, f"({part})²")
        length = symbol(build.emit(ir.Pointwise(f"norm({part})", PRIMITIVES["sqrt"].symbol(squares)), narrow))
        unit = build.emit(ir.Pointwise(f"{part}/norm", symbol(part) / (length + PRIMITIVES["eq"].symbol(length, 0))), wide)
        return symbol(build.emit(ir.Stop(f"direction({a})", unit), wide))

    match function:
        case "sum":
            return total(symbol(a), a, label)
        case "mean":
            return total(symbol(a), a) / wide[-1]
        case "var":
            away = centred()
            return total(symbol(away) ** 2, f"({away})²") / wide[-1]
        case "norm":
            return total(symbol(a) * direction(), f"{a}*direction", label)
        case "dot":
            return total(symbol(a) * symbol(args[1]), f"{a}*{args[1]}", label)
        case "softmax":
            _, powers = exponentials()
            return powers / total(powers, str(powers.name))
        case "logsumexp":
            top, powers = exponentials()
            whole = total(powers, str(powers.name))
            return top + symbol(build.emit(ir.Pointwise(f"log({whole})", PRIMITIVES["log"].symbol(whole)), narrow))
        case "cumsum":
            return symbol(build.emit(ir.CumSum(label or f"cumsum({a})", a), shape))
    raise NotImplementedError(f"no operations for {function!r}")
