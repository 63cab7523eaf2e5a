"""Shapes and dims as the module's text: how a shape is documented, and from which argument each dim is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import sympy

from cellspec.backends.plain import dim_text
from cellspec.cell import Cell, Shape
from cellspec.ir import size


def bracket(shape: Shape, offset: int = 0) -> str:
    """A shape as documentation: ``[H, I]``; ``offset`` time and batch axes come first."""
    return f"[{', '.join([*('T', 'B')[2 - offset :], *(dim_text(s, {}) for s in shape)])}]"


def length(shape: Shape, dims: Mapping[str, str]) -> str:
    """The number of a value's elements, as Python."""
    return dim_text(size(shape), dims)


def dim_texts(shape: Shape) -> list[str]:
    """A shape's axes in the spec's dims."""
    return [dim_text(s, {}) for s in shape]


def tuple_text(shape: Shape, dims: Mapping[str, str]) -> str:
    """A shape as a Python tuple: ``(H, I)``."""
    inner = ", ".join(dim_text(s, dims) for s in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def input_texts(cell: Cell) -> list[str]:
    """The input streams as Python: ``x``, or ``x.a`` and ``x.b`` where there are several."""
    return ["x"] if len(cell.inputs) == 1 else [f"x.{item.name}" for item in cell.inputs]


def other_dims(cell: Cell) -> list[str]:
    """The dims that no parameter's shape tells."""
    known = {line["dim"] for line in dim_lines(cell, {}, with_arguments=False)}
    return [d for d in cell.dims if d not in known]


def dim_lines(cell: Cell, dims: Mapping[str, str], with_arguments: bool) -> list[dict[str, str]]:
    """How each dim is read off an array's shape, one unknown at a time; ``with_arguments``, also off x and the state.

    Off the state, which need not be given, only if nothing else tells.
    """
    arrays = [(f"params.{p.name}", f"params.{p.name}", p.shape, 0) for p in cell.params]
    states: list[tuple[str, str, Shape, int]] = []
    if with_arguments:
        arrays += [(name, name, item.shape, 2) for item, name in zip(cell.inputs, input_texts(cell), strict=True)]
        states += [(f"state.{s.name}", f'getattr(state, "{s.name}", None)', s.shape, 1) for s in cell.states]
    lines: dict[str, str] = {}
    for group in (arrays, [*arrays, *states]):
        while found := next(_readings(group, lines, dims), None):
            lines |= dict([found])
    return [{"dim": dim, "local": dims.get(dim, dim), "read": read} for dim, read in lines.items()]


def _readings(
    arrays: Sequence[tuple[str, str, Shape, int]], known: Collection[str], dims: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The dims that some axis tells where the ``known`` ones are, and how they are read there."""
    for name, array, shape, offset in arrays:
        for axis, extent in enumerate(shape):
            unknown = [s for s in extent.free_symbols if s.name not in known]
            if len(unknown) != 1 or sympy.degree(extent, unknown[0]) != 1:
                continue
            (d,) = unknown
            read = f'_axis("{name}", {array}, {len(shape) + offset}, {axis + offset}, "{bracket(shape, offset)}")'
            factor, rest = extent.coeff(d), sympy.expand(extent - extent.coeff(d) * d)
            if rest != 0:
                read = f"{read} - ({dim_text(rest, dims)})"
            if factor != 1:
                read = f"({read})//({dim_text(factor, dims)})"
            yield d.name, read
