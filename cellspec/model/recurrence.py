"""How a cell's states depend on the step before: the facts by which a reader, and the compiler, judge its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sympy

from cellspec.model.equations import Equations
from cellspec.model.nodes import (
    Along,
    Apply,
    Concat,
    Const,
    Kind,
    MatMul,
    Node,
    OuterProduct,
    Ref,
    Roll,
    Shape,
    StopGradient,
    children,
)

_FREE = -1  # depth of a value that depends on no previous state

_LINEAR, _NONLINEAR, _COUPLED = 1, 2, 3
"""Degrees of a value that depends on previous states; 0 is that of one that does not.

Affine and elementwise in them; not affine, or elements move to other places or are stretched; a matrix product, or a function
along an axis, makes one element of many.
"""


def parameter_count(cell: Equations) -> sympy.Expr:
    """The number of trainable parameters, an expanded polynomial over the dims."""
    return sympy.expand(sympy.Add(*(sympy.Mul(*param.shape) for param in cell.params if param.trainable)))


def stages(cell: Equations) -> int:
    """The longest chain of recurrent matrix products that depend on one another within one step.

    A product is recurrent if it depends on a previous state and its result reaches a new one. LSTM 1; ``U @ (r*h[t-1])`` 2.
    """
    depths = dict.fromkeys(_before(cell), 0)
    for equation in cell.assignments:
        depths[equation.target.label] = _depth(equation.value, depths)
    return max((0, *(depths[label] for label in _after(cell))))


def recurrence(cell: Equations) -> str:
    """``"dense"``: on the path from state to state a matrix product, or a function along an axis, couples the units;
    ``"linear"``: every new state is affine and elementwise in the previous ones (a scan); ``"elementwise"``: the rest.
    """
    degrees = dict.fromkeys(_before(cell), _LINEAR)
    for equation in cell.assignments:
        target, value = equation.target, equation.value
        degrees[target.label] = _in_place(_degree(value, degrees), value.shape, target.shape)
    worst = max((degrees[label] for label in _after(cell)), default=0)
    return "dense" if worst >= _COUPLED else "elementwise" if worst >= _NONLINEAR else "linear"


def _before(cell: Equations) -> list[str]:
    """The labels of what comes from earlier steps, but for what only holds earlier inputs or counts the steps."""
    states = [Ref(state.name, Kind.PREVIOUS, state.shape) for state in cell.states if state not in cell.streams]
    return [ref.label for ref in (*states, *cell.distant) if ref.kind is Kind.PREVIOUS]


def _after(cell: Equations) -> list[str]:
    """The labels of the states that equations define."""
    return [Ref(state.name, Kind.STATE, state.shape).label for state in cell.states if not state.rows]


def _depth(node: Node, depths: Mapping[str, int]) -> int:
    """The recurrent matrix products on the longest path from a previous state to ``node``; ``_FREE`` where there is no path."""
    if isinstance(node, Ref):
        return depths.get(node.label, _FREE)
    depth = max((_depth(child, depths) for child in children(node)), default=_FREE)
    return depth + 1 if isinstance(node, MatMul) and depth != _FREE else depth


def _degree(node: Node, degrees: Mapping[str, int]) -> int:
    """How ``node`` depends on the previous states, of which ``degrees`` has those by label."""
    match node:
        case Ref():
            return degrees.get(node.label, 0)
        case Apply(function=function, args=args, shape=shape):
            return _applied(function, args, [_in_place(_degree(arg, degrees), arg.shape, shape) for arg in args])
        case StopGradient(operand=operand):
            return _degree(operand, degrees)
    inner = max((_degree(child, degrees) for child in children(node)), default=0)
    match node:
        case MatMul() | Along():
            return _COUPLED if inner else 0
        case Concat() | Roll() | OuterProduct():
            return max(inner, _NONLINEAR) if inner else 0
        case _:  # made of params
            return inner


def _in_place(degree: int, own: Shape, result: Shape) -> int:
    """The degree of an operand within a result: stretching lets one element reach many."""
    return max(degree, _NONLINEAR) if degree and own != result else degree


def _applied(function: str, args: Iterable[Node], degrees: list[int]) -> int:
    """The degree of a pointwise function of operands of these degrees."""
    worst = max(degrees)
    match function, degrees:
        case _ if worst in (0, _COUPLED):
            return worst
        case "add" | "sub" | "neg" | "identity", _:
            return worst
        case "mul", _:
            return min(sum(degrees), _NONLINEAR)
        case "div", [above, 0]:
            return above
        case "where", [0, *branches]:
            return max(branches)
        case "pow", _:
            _, exponent = args
            return worst if isinstance(exponent, Const) and exponent.value == 1 else _NONLINEAR
        case _:
            return _NONLINEAR
