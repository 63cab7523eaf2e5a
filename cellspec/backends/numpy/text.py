"""The statements of one direction, what they find in its memory, and what is around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cellspec.backends.arrays.expressions import Apply, Choice, Expression, Items, Library, Local, Not, OfMemory, View, Word
from cellspec.backends.arrays.statements import Bind, BindAll, Statement
from cellspec.backends.memory.model import Axes, Buffer, Owner, T
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.remarks import Remarks


@dataclass
class Text:
    """The statements of one direction, and what they find in its memory."""

    buffers: list[Buffer] = field(default_factory=list)
    parameters: set[Buffer] = field(default_factory=set)  # those of the buffers that hold parameters
    views: list[View] = field(default_factory=list)
    steps: list[tuple[Local, Expression]] = field(default_factory=list)  # loop variable, sequence that it runs over
    fresh: list[tuple[Local, Expression]] = field(default_factory=list)  # the same for the sequences that come with the call
    locals: list[Bind] = field(default_factory=list)  # bound before the loop
    functions: list[tuple[Local, Library]] = field(default_factory=list)  # local name, function
    prologue: list[Statement] = field(default_factory=list)
    before: list[Statement] = field(default_factory=list)
    loop: list[Statement] = field(default_factory=list)
    after: list[Statement] = field(default_factory=list)

    @property
    def short(self) -> list[Statement]:
        """The statement that gives the functions their local names, if there are any."""
        return [BindAll(*map(tuple, zip(*self.functions, strict=True)))] if self.functions else []


@dataclass(frozen=True)
class Around:
    """What a direction's code finds around it."""

    names: Wishes
    remarks: Remarks
    constants: Mapping[str, Expression]  # constant value → its array
    given: Mapping[str, Expression]  # given sequence → its view in the layout's order of axes
    fixed: frozenset[str]  # given sequences whose arrays outlive a call
    matrix: Mapping[str, Expression]  # given sequence → its [T*B, n] matrix
    dims: Mapping[str, str]
    orientation: Orientation
    owner: Owner
    lead: Axes = (T,)  # the axis of time of a given sequence; none of one step alone


def apart(rows: Expression, shape: Axes) -> Expression:
    """What steps read of earlier ones: ``rows`` of what these have left, or memory of its own where it may be others."""
    return Choice(Not(OfMemory("apart")), rows, Apply(Word("empty"), (Items(shape), Word("dtype"))))
