"""The nodes of a cell's typed equations. Names are resolved, shapes known.

A cell's right-hand sides are trees of the frozen nodes below, every node with its shape. They are not yet SymPy:
SymPy evaluates as it builds (``0*h`` becomes a scalar 0), which would lose shapes; lowering builds SymPy expressions
from them where the shapes no longer matter.

A shape is a tuple of SymPy polynomials over the dims, expanded, so that equal shapes compare equal. ``()`` is a number,
``(n,)`` a vector, ``(m, n)`` a matrix: a parameter's, or (one per sample) a value's, as heads ``[N, D]`` or a matrix state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import sympy

Shape = tuple[sympy.Expr, ...]

STEP_INDEX = "t_now"
"""The name of the step's index."""

_MEMBER = re.compile(r"(\w+)\[(\d+)\]")


class Kind(Enum):
    """What a name stands for."""

    PARAM = "parameter"
    DERIVED = "derived parameter"
    INPUT = "input"
    PREVIOUS = "previous state"  # h[t-1]
    STATE = "state"  # h[t]
    VALUE = "intermediate"


@dataclass(frozen=True)
class Const:
    """A number; hyperparameters are numbers by now."""

    value: int | float
    shape: Shape = ()


@dataclass(frozen=True)
class DimValue:
    """A dim expression used as a number: the ``H`` of ``x/H``."""

    value: sympy.Expr
    shape: Shape = ()


@dataclass(frozen=True)
class Ref:
    """A named value: ``Wi``, ``x[t]``, ``h[t-1]``, ``h[t]``, ``i``; ``name`` is the bare name.

    An input or a previous state that lies further back does so by ``back`` steps more: ``x[t-3]`` by 3, ``h[t-3]`` by 2.
    """

    name: str
    kind: Kind
    shape: Shape
    back: int = 0

    @property
    def label(self) -> str:
        """The name as an equation writes it: ``h[t-1]``. Unique within a cell."""
        match self.kind:
            case Kind.INPUT | Kind.STATE | Kind.PREVIOUS:
                return f"{self.name}[t-{self.steps}]" if self.steps else f"{self.name}[t]"
            case _:
                return self.name

    @property
    def steps(self) -> int:
        """How many steps before the one that reads it the value belongs to."""
        return self.back + (self.kind is Kind.PREVIOUS)


@dataclass(frozen=True)
class Apply:
    """A pointwise function of :mod:`cellspec.model.primitives`, with broadcasting: ``add``, ``sigmoid``, ``where``."""

    function: str
    args: tuple[Node, ...]
    shape: Shape


@dataclass(frozen=True)
class Member:
    """``R[l]``: one member of a family of parameters; ``family.shape`` has the family's length in front."""

    family: Ref
    index: int
    shape: Shape


@dataclass(frozen=True)
class MatMul:
    """``left @ right``, contracted over the last axis of ``left``.

    ``[m, k] @ [k]``, ``[n, m, k] @ [k]`` (one product for all heads), ``[n, m, k] @ [n, k]`` (each head its own),
    and ``[m, k] @ [k, n]`` among parameters. ``left`` is made of parameters, or it is a matrix state: ``[m, k] @ [k]``.
    """

    left: Node
    right: Node
    shape: Shape


@dataclass(frozen=True)
class Transpose:
    """``operand.T`` of a matrix."""

    operand: Node
    shape: Shape


@dataclass(frozen=True)
class Inverse:
    """``inv(operand)`` of a square matrix made of parameters."""

    operand: Node
    shape: Shape


@dataclass(frozen=True)
class Eye:
    """The identity matrix."""

    shape: Shape


@dataclass(frozen=True)
class Concat:
    """``[a, b, …]``: vectors one after the other."""

    parts: tuple[Node, ...]
    shape: Shape


@dataclass(frozen=True)
class Along:
    """A function along the last axis, by its name in the language.

    ``softmax`` and ``cumsum`` keep the axis; ``sum``, ``mean``, ``var`` (of the population), ``norm`` (Euclidean),
    ``logsumexp`` and ``dot`` (of two arguments) leave it with size 1.
    """

    function: str
    args: tuple[Node, ...]
    shape: Shape


@dataclass(frozen=True)
class OuterProduct:
    """``outer(u, v)``: the matrix ``u vᵀ`` of two vectors."""

    left: Node
    right: Node
    shape: Shape


@dataclass(frozen=True)
class Roll:
    """``roll(v, k)``: along the last axis, element ``j`` of the result is element ``j - k`` of ``v``, as in ``numpy.roll``."""

    operand: Node
    shift: int
    shape: Shape


@dataclass(frozen=True)
class StopGradient:
    """The operand, with derivative zero."""

    operand: Node
    shape: Shape


Node = (
    Const
    | DimValue
    | Ref
    | Member
    | Apply
    | MatMul
    | Transpose
    | Inverse
    | Eye
    | Concat
    | Along
    | OuterProduct
    | Roll
    | StopGradient
)


def children(node: Node) -> tuple[Node, ...]:
    """The operands of ``node``, from left to right."""
    match node:
        case Apply(args=args) | Concat(parts=args) | Along(args=args):
            return args
        case MatMul(left=left, right=right) | OuterProduct(left=left, right=right):
            return (left, right)
        case Transpose(operand=operand) | Inverse(operand=operand) | Roll(operand=operand) | StopGradient(operand=operand):
            return (operand,)
        case Member(family=family):
            return (family,)
        case _:
            return ()


def with_children(node: Node, parts: Sequence[Node]) -> Node:
    """``node`` with other operands, of the same shapes."""
    match node:
        case Apply() | Along():
            return replace(node, args=tuple(parts))
        case Concat():
            return replace(node, parts=tuple(parts))
        case MatMul() | OuterProduct():
            return replace(node, left=parts[0], right=parts[1])
        case Transpose() | Inverse() | Roll() | StopGradient():
            return replace(node, operand=parts[0])
        case _:
            return node


def refs(node: Node) -> Iterator[Ref]:
    """Every reference in ``node``, from left to right, repeats included."""
    if isinstance(node, Ref):
        yield node
    for child in children(node):
        yield from refs(child)


def member(family: str, index: int) -> str:
    """``s[1]``: how a member of a family is called."""
    return f"{family}[{index}]"


def of_family(name: str) -> tuple[str, int] | None:
    """The family and the index of a member's name; None for any other."""
    found = _MEMBER.fullmatch(name)
    return None if found is None else (found[1], int(found[2]))
