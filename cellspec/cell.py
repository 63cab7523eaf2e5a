"""Cell: elaborated, typed equations. Names are resolved, shapes known, equations in dependency order.

A cell's right-hand sides are trees of the frozen nodes below, every node with its shape. They are not yet SymPy:
SymPy evaluates as it builds (``0*h`` becomes a scalar 0), which would lose shapes; lowering builds SymPy expressions
from them where the shapes no longer matter.

A shape is a tuple of SymPy polynomials over the dims, expanded, so that equal shapes compare equal. ``()`` is a number,
``(n,)`` a vector, ``(m, n)`` a matrix: a parameter's, or (one per sample) a value's, as heads ``[N, D]`` or a matrix state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import sympy

from cellspec.errors import Location
from cellspec.spec import Cite, Expect, Initialiser

Shape = tuple[sympy.Expr, ...]

STEP_INDEX = "t_now"
"""The name of the step's index."""


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
    """A pointwise function of the table in :mod:`cellspec.functions`, with broadcasting: ``add``, ``sigmoid``, ``where``."""

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


@dataclass(frozen=True)
class Param:
    """A parameter: its shape and how it starts. A family of ``repeat`` members has that many in front of its shape."""

    name: str
    shape: Shape
    init: Initialiser
    trainable: bool
    repeat: int | None = None


@dataclass(frozen=True)
class State:
    """A state: its shape and the number that it starts from.

    ``lag_of`` is set for a state that the language makes of a lag: ``h_lag2``, read as ``h[t-2]``, is a ``State`` whose
    equation is ``h_lag2[t] = h[t-1]``; ``x_lag1`` holds ``x[t-1]``; and for the step's index, whose equation is
    ``t_now[t] = t_now[t-1] + 1`` (``("t_now", 0)``). They come after the spec's own states.
    One with ``rows`` has no equation: it holds so many earlier values along its first axis, the newest first, and ``lag_of``
    says how far back the last of them lies.
    """

    name: str
    shape: Shape
    init: float
    lag_of: tuple[str, int] | None = None
    rows: int = 0


@dataclass(frozen=True)
class Input:
    """An input stream: one value a step."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Equation:
    """``target = value``. ``target.kind`` is STATE, VALUE or DERIVED; ``value`` broadcasts to ``target.shape``."""

    target: Ref
    value: Node
    text: str
    at: Location


@dataclass(frozen=True)
class Cell:
    """A cell, right in every respect that can be told before code is generated.

    ``assignments`` are the typed equations in dependency order, derived parameters first. ``outputs`` are references to states
    or intermediates. ``dims`` are in the order of the generated keyword arguments. ``settings`` are the ``--set`` choices.
    ``made_by`` is the Python that makes this cell of what its file says, empty if it is just that.

    The properties show the cell to people: ``equations`` in SymPy, ``latex()``, ``stages``, ``recurrence``.
    """

    name: str
    title: str
    doc: str
    cite: tuple[Cite, ...]
    sha256: str
    dims: tuple[str, ...]
    hyper: tuple[tuple[str, float | int], ...]
    activations: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    inputs: tuple[Input, ...]
    states: tuple[State, ...]
    outputs: tuple[Ref, ...]
    params: tuple[Param, ...]
    assignments: tuple[Equation, ...]
    expect: Expect
    at: Location
    path: str
    made_by: str = ""

    @property
    def equations(self) -> tuple[sympy.Eq, ...]:
        """The equations as SymPy equalities, in dependency order; states and intermediates are indexed by ``t``."""
        from cellspec.present import sympy_equations

        return sympy_equations(self)

    @property
    def streams(self) -> tuple[State, ...]:
        """The states that are known for all steps at once: earlier inputs, and the index of the step."""
        known = {STEP_INDEX, *(item.name for item in self.inputs)}
        return tuple(state for state in self.states if state.lag_of is not None and state.lag_of[0] in known)

    @property
    def distant(self) -> tuple[Ref, ...]:
        """What the equations read of states and inputs that have no state for each step back: each once, the nearest first."""
        found = {ref for equation in self.assignments for ref in refs(equation.value) if ref.back}
        order = [*(state.name for state in self.states), *(item.name for item in self.inputs)]
        return tuple(sorted(found, key=lambda ref: (order.index(ref.name), ref.back)))

    def keeper(self, ref: Ref) -> State:
        """The state that holds what ``ref``, one of :attr:`distant`, reads: in row ``ref.back - 1``."""
        return next(state for state in self.states if state.rows and state.lag_of is not None and state.lag_of[0] == ref.name)

    @property
    def stages(self) -> int:
        """How many recurrent matrix products depend on one another within a step."""
        from cellspec.recurrence import stages

        return stages(self)

    @property
    def recurrence(self) -> str:
        """``dense``, ``elementwise`` or ``linear``."""
        from cellspec.recurrence import recurrence

        return recurrence(self)

    def latex(self) -> str:
        """The equations as an ``aligned`` environment."""
        from cellspec.present import latex

        return latex(self)

    def _repr_latex_(self) -> str:
        """The equations, for notebooks."""
        return f"$${self.latex()}$$"
