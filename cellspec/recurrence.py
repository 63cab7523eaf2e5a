"""How a cell's states depend on the step before: the facts by which a reader, and the compiler, judge its cost."""

from __future__ import annotations

from collections.abc import Iterable

import sympy

from cellspec.cell import (
    Apply,
    Cell,
    Concat,
    Const,
    Kind,
    MatMul,
    Node,
    Ref,
    Roll,
    Shape,
    StopGradient,
    Transpose,
    children,
)

_FREE = -1  # depth of a value that depends on no previous state
_NONLINEAR = 2  # degree of a value that is not affine and elementwise in the previous states


def parameter_count(cell: Cell) -> sympy.Expr:
    """The number of trainable parameters, an expanded polynomial over the dims."""
    return sympy.expand(sympy.Add(*(sympy.Mul(*param.shape) for param in cell.params if param.trainable)))


def stages(cell: Cell) -> int:
    """The longest chain of recurrent matrix products that depend on one another within one step.

    A product is recurrent if it depends on a previous state and its result reaches a new one. LSTM 1; ``U @ (r*h[t-1])`` 2.
    """
    depths: dict[str, int] = {}
    for equation in cell.assignments:
        depths[equation.target.label] = _depth(equation.value, depths)
    return max((0, *(depths[f"{state.name}[t]"] for state in cell.states)))


def recurrence(cell: Cell) -> str:
    """``"dense"``: a matrix product on the path from state to state; ``"linear"``: every new state is affine and elementwise
    in the previous ones (a scan); ``"elementwise"``: the rest.
    """
    if stages(cell) > 0:
        return "dense"
    degrees: dict[str, int] = {}
    for equation in cell.assignments:
        target, value = equation.target, equation.value
        degrees[target.label] = _in_place(_degree(value, degrees), value.shape, target.shape)
    return "elementwise" if any(degrees[f"{state.name}[t]"] >= _NONLINEAR for state in cell.states) else "linear"


def _depth(node: Node, depths: dict[str, int]) -> int:
    """The recurrent matrix products on the longest path from a previous state to ``node``; ``_FREE`` where there is no path."""
    match node:
        case Ref(kind=Kind.PREVIOUS):
            return 0
        case Ref():
            return depths.get(node.label, _FREE)
        case _:
            depth = max((_depth(child, depths) for child in children(node)), default=_FREE)
            return depth + 1 if isinstance(node, MatMul) and depth != _FREE else depth


def _degree(node: Node, degrees: dict[str, int]) -> int:
    """0: independent of the previous states; 1: affine and elementwise in them; 2: neither."""
    match node:
        case Ref(kind=Kind.PREVIOUS):
            return 1
        case Ref():
            return degrees.get(node.label, 0)
        case Apply(function=function, args=args, shape=shape):
            return _applied(function, args, [_in_place(_degree(arg, degrees), arg.shape, shape) for arg in args])
        case StopGradient(operand=operand):
            return _degree(operand, degrees)
        case MatMul() | Transpose() | Concat() | Roll():
            return _NONLINEAR if any(_degree(child, degrees) for child in children(node)) else 0
        case _:
            return 0


def _in_place(degree: int, own: Shape, result: Shape) -> int:
    """The degree of an operand within a result: stretching lets one element reach many."""
    return _NONLINEAR if degree and own != result else degree


def _applied(function: str, args: Iterable[Node], degrees: list[int]) -> int:
    """The degree of a pointwise function of operands of these degrees."""
    match function, degrees:
        case _, _ if not any(degrees):
            return 0
        case "add" | "sub" | "neg" | "identity", _:
            return max(degrees)
        case "mul", _:
            return min(sum(degrees), _NONLINEAR)
        case "div", [above, 0]:
            return above
        case "where", [0, *branches]:
            return max(branches)
        case "pow", _:
            _, exponent = args
            return degrees[0] if isinstance(exponent, Const) and exponent.value == 1 else _NONLINEAR
        case _:
            return _NONLINEAR
