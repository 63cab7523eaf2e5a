"""Which array tells which dim: how a module, given arrays alone, knows the sizes that it works with.

A dim is told by an axis of a param, an input or a state, once the other dims of that axis are known. Where nothing in a cell
tells dims apart, as with ``N*D`` whenever only the product matters, any of the sizes that fit will do: all but one are 1.
Every dim of a cell is told: elaboration refuses the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sympy

from cellspec.model.equations import Equations
from cellspec.model.folding import number
from cellspec.model.nodes import Apply, Const, DimValue, Node, Ref, Shape, children
from cellspec.model.primitives import PRIMITIVES

FIXED_ARGUMENTS = ("params", "batch", "checkpoint", "self", "np", "cp", "Params", "State", "Workspace")
"""Names that a dim cannot have where it is an argument of what is given parameters alone."""


@dataclass(frozen=True)
class Told:
    """``dim`` is told by the axis ``axis`` of the array ``array``, of this ``extent``, in which no later dim stands."""

    dim: str
    array: int
    axis: int
    extent: sympy.Expr


@dataclass(frozen=True)
class Merged:
    """In a cell that knows them by ``extent`` alone, ``dim`` stands for it and each of ``ones`` is 1."""

    dim: str
    extent: sympy.Expr
    ones: tuple[str, ...]

    @property
    def size(self) -> sympy.Expr:
        """What ``dim`` is where the dims have sizes that somebody has chosen."""
        parts = linear(sympy.expand(self.extent.subs(dict.fromkeys(self.ones, 1))), self.dim)
        assert parts is not None
        factor, rest = parts
        return sympy.expand((self.extent - rest) / factor)


def told(arrays: Sequence[Shape], known: Collection[str] = ()) -> Iterator[Told]:
    """The dims that the shapes of ``arrays`` tell beyond the ``known`` ones, one after the other."""
    found = set(known)
    axes = [(k, axis, extent) for k, shape in enumerate(arrays) for axis, extent in enumerate(shape)]
    while True:
        unknown = ((place, [s.name for s in place[2].free_symbols if s.name not in found]) for place in axes)
        alone = ((place, names[0]) for place, names in unknown if len(names) == 1)
        first = next(((place, dim) for place, dim in alone if linear(place[2], dim) or square(place[2], dim)), None)
        if first is None:
            return
        (array, axis, extent), dim = first
        found.add(dim)
        yield Told(dim, array, axis, extent)


def untold(cell: Equations) -> list[str]:
    """The dims that no array tells."""
    groups = merged(cell)
    ones = [one for group in groups for one in group.ones]
    known = {*ones, *(each.dim for each in told([without(shape, groups) for shape in shapes(cell)], ones))}
    return [dim for dim in cell.dims if dim not in known]


def untold_by_params(cell: Equations) -> list[str]:
    """The dims that no parameter's shape tells."""
    groups = merged(cell)
    ones = {one: group.dim for group in groups for one in group.ones}
    known = {each.dim for each in told([without(param.shape, groups) for param in cell.params], ones)}
    return [dim for dim in cell.dims if ones.get(dim, dim) not in known]


def merged(cell: Equations) -> tuple[Merged, ...]:
    """The dims that nothing in ``cell`` tells apart."""
    arrays = shapes(cell)
    known = {each.dim for each in told(arrays)}
    if known.issuperset(cell.dims):
        return ()
    extents = list(dict.fromkeys(extent for shape in arrays for extent in shape))
    matter = [*extents, *dict.fromkeys(extent for e in cell.assignments for extent in _extents(e.value))]
    matter += [_number(e.value) for e in cell.assignments]
    groups: list[Merged] = []
    for extent in extents:
        unknown = sorted((s.name for s in extent.free_symbols if s.name not in known), key=cell.dims.index)
        for dim in unknown:
            if len(unknown) < 2 or not (parts := linear(extent, dim)):
                continue
            if _always_fits(extent, parts[0], unknown) and _is_all(parts, dim, unknown, matter):
                groups.append(Merged(dim, extent, tuple(name for name in unknown if name != dim)))
                known.update(unknown)
                known.update(each.dim for each in told(arrays, known))
                break
    return tuple(groups)


def without(shape: Shape, groups: Sequence[Merged]) -> Shape:
    """``shape`` in the dims that stand for others."""
    ones = {sympy.Symbol(one): 1 for group in groups for one in group.ones}
    return tuple(sympy.expand(extent.subs(ones)) for extent in shape) if ones else shape


def shapes(cell: Equations) -> list[Shape]:
    """The shapes of the arrays that a module is given: of params, inputs and states, in this order."""
    return [item.shape for group in (cell.params, cell.inputs, cell.states) for item in group]


def linear(extent: sympy.Expr, dim: str) -> tuple[sympy.Expr, sympy.Expr] | None:
    """``factor`` and ``rest`` if ``extent`` is ``factor*dim + rest``, or None."""
    symbol = sympy.Symbol(dim)
    factor = extent.coeff(symbol)
    rest = sympy.expand(extent - factor * symbol)
    return None if factor == 0 or symbol in rest.free_symbols | factor.free_symbols else (factor, rest)


def square(extent: sympy.Expr, dim: str) -> tuple[sympy.Expr, sympy.Expr] | None:
    """``factor`` and ``rest`` if ``extent`` is ``factor*dim**2 + rest``, or None."""
    symbol = sympy.Symbol(dim)
    factor = extent.coeff(symbol, 2)
    rest = sympy.expand(extent - factor * symbol**2)
    return None if factor == 0 or symbol in rest.free_symbols | factor.free_symbols else (factor, rest)


def _is_all(parts: tuple[sympy.Expr, sympy.Expr], dim: str, unknown: Sequence[str], matter: Sequence[sympy.Expr]) -> bool:
    """Whether the extent ``factor*dim + rest`` is all that what ``matter``s knows of the dims ``unknown``."""
    factor, rest = parts
    whole = sympy.Dummy()
    others = {sympy.Symbol(name) for name in unknown}
    asking = (expr for expr in matter if others & expr.free_symbols)
    made = (expr.subs(sympy.Symbol(dim), (whole - rest) / factor) for expr in asking)
    return all(not others & expr.free_symbols or not others & sympy.cancel(expr).free_symbols for expr in made)


def _always_fits(extent: sympy.Expr, factor: sympy.Expr, unknown: Sequence[str]) -> bool:
    """Whether a dim that is multiplied by ``factor`` makes ``extent`` every size that it can have, the other dims being 1."""
    varying = extent - extent.subs(dict.fromkeys(unknown, 0))
    return bool(factor.subs(dict.fromkeys(unknown, 1)) == varying.as_content_primitive()[0])


def _extents(node: Node) -> Iterator[sympy.Expr]:
    """The extents of ``node`` and of all in it."""
    yield from node.shape
    for child in children(node):
        yield from _extents(child)


def _number(node: Node) -> sympy.Expr:
    """``node`` as an expression in which dims stand as SymPy's arithmetic leaves them."""
    match node:
        case DimValue(value=value):
            return value
        case Const(value=value):
            return number(value)
        case Ref():
            return sympy.Symbol(node.label)
        case Apply(function=function, args=args) if not PRIMITIVES[function].derivatives:
            return PRIMITIVES[function].definition(*map(_number, args))
        case _:
            return sympy.Function(type(node).__name__)(*map(_number, children(node)))
