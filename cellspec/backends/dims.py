"""Shapes and dims as the module's text: how a shape is documented, and from which argument each dim is read."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.backends.plain import dim_text
from cellspec.cell import Cell
from cellspec.ir import size
from cellspec.model.dim_sources import Told, linear, merged, square, told, untold_by_params, without
from cellspec.model.nodes import Shape


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


def step_texts(cell: Cell) -> list[str]:
    """The same of one step alone: ``x_t``, or ``x_t.a`` and ``x_t.b``."""
    return ["x_t"] if len(cell.inputs) == 1 else [f"x_t.{item.name}" for item in cell.inputs]


def other_dims(cell: Cell) -> list[str]:
    """The dims that no parameter's shape tells, which are arguments of what is given parameters alone."""
    return untold_by_params(cell)


def dim_lines(cell: Cell, dims: Mapping[str, str], with_arguments: bool) -> list[dict[str, str]]:
    """How each dim is read off an array's shape, one unknown at a time; ``with_arguments``, also off x and the state.

    Off the state, which need not be given, only if nothing else tells. Without, there are arguments called as
    :func:`other_dims` says. Of dims that nothing tells apart one stands for all, also where they are given.
    """
    arrays = [(f"params.{p.name}", f"params.{p.name}", p.shape, 0) for p in cell.params]
    states: list[tuple[str, str, Shape, int]] = []
    others: list[str] = []
    if with_arguments:
        arrays += [(name, name, item.shape, 2) for item, name in zip(cell.inputs, input_texts(cell), strict=True)]
        states += [(f"state.{s.name}", f'getattr(state, "{s.name}", None)', s.shape, 1) for s in cell.states]
    else:
        others = other_dims(cell)
    groups = merged(cell)
    lines = {group.dim: dim_text(group.size, {}) for group in groups if group.dim in others}
    lines |= {one: "1" for group in groups for one in group.ones}
    lines |= {dim: dim for dim in others if dim not in lines and dims.get(dim, dim) != dim}
    for given in (arrays, [*arrays, *states]):
        for each in told([without(shape, groups) for _, _, shape, _ in given], {*lines, *others}):
            lines[each.dim] = _reading(each, *given[each.array], dims)
    return [{"dim": dim, "local": dims.get(dim, dim), "read": read} for dim, read in lines.items()]


def _reading(each: Told, name: str, array: str, shape: Shape, offset: int, dims: Mapping[str, str]) -> str:
    """How a dim is read off the axis that tells it, of an array called ``name`` in messages with ``offset`` axes in front."""
    read = f'_axis("{name}", {array}, {len(shape) + offset}, {each.axis + offset}, "{bracket(shape, offset)}")'
    straight = linear(each.extent, each.dim)
    parts = straight or square(each.extent, each.dim)
    assert parts is not None
    factor, rest = parts
    if rest != 0:
        read = f"{read} - ({dim_text(rest, dims)})"
    if factor != 1:
        read = f"({read})//({dim_text(factor, dims)})"
    return read if straight else f"round(abs({read})**0.5)"
