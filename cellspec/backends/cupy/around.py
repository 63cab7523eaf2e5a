"""How a thread finds its place: which sample and unit it has, and where values lie for it, as C++ text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from cellspec.backends.cupy.cuda import RESERVED
from cellspec.backends.fused.c_family import size_text
from cellspec.backends.fused.code import EMPTY, Code, code, in_parentheses, joined, mentions, name, names_in
from cellspec.backends.fused.indices import UNIT, ZERO, first, stretched, sum_of, widened
from cellspec.backends.fused.memory import Columns, Memory
from cellspec.backends.fused.regions import Region
from cellspec.backends.memory.model import Buffer, Home, Phase
from cellspec.backends.remarks import Remarks
from cellspec.model.nodes import Shape

STEPS, SAMPLES, STEP, ROWS, ROW, SAMPLE, AT, K = map(name, ("T", "B", "t", "rows", "row", "sample", "at", "k"))
"""The numbers of steps and samples, of this step, and of all rows; of a thread, its row of those of all steps, its sample, its
element of those of all steps, and its element of those of one step.
"""

TAKEN = (*RESERVED, *(variable.text for variable in (STEPS, SAMPLES, STEP, ROWS, ROW, SAMPLE, AT, K, UNIT)))
"""Names that neither values nor dims can have in a kernel."""


@dataclass(frozen=True)
class Texts:
    """What kernels call things: dims, and what is said above their lines."""

    dims: Mapping[str, str]  # dim → C++ variable
    remarks: Remarks


class Around:
    """How a kernel finds its place: the variables of one way of running a region."""

    def __init__(self, memory: Memory, region: Region, texts: Texts, single: bool) -> None:
        self.memory, self.region, self.texts, self.single = memory, region, texts, single
        self.flat = region.phase is not Phase.LOOP
        self.forwards = memory.flow.forwards
        self.units = self.size(region.units)
        self.shape = region.shape
        self.whole = self.factor(region.units)

    def size(self, expr: sympy.Expr) -> Code:
        """A number of units, safe as a factor."""
        text = size_text(expr, self.texts.dims)
        return code("({})", text) if isinstance(expr, sympy.Add) else text

    def factor(self, expr: sympy.Expr) -> Code:
        """A number of units, safe to divide by."""
        return self.size(expr) if expr.is_Atom or isinstance(expr, sympy.Add) else code("({})", self.size(expr))

    def times(self, units: sympy.Expr) -> Code:
        """The factor for rows of so many units: nothing for one."""
        return EMPTY if units == 1 else code("*{}", self.size(units))

    def unit(self, shape: Shape) -> Code:
        """Which unit of a value of this shape a thread has."""
        return stretched(shape, self.shape, self.factor)

    def guard(self, shape: Shape) -> Code:
        """What stands before a store of a value of this shape: of several threads that have a unit the first stores it."""
        condition = first(shape, self.shape, self.factor)
        return code("if ({}) ", condition) if condition else EMPTY

    def index(self, place: Columns, unit: Code, alone: bool = True) -> Code:
        """Where a thread finds unit ``unit`` of the value at ``place``; ``alone``: by the variables of its own unit."""
        buffer = place.buffer
        behind = self.memory.is_behind(place)
        if buffer.home is Home.CONSTANT:
            return unit
        one = self.region.units == 1
        plain = unit == (ZERO if one else UNIT) and place.start == 0 and buffer.units == self.region.units
        plain = plain and place.pitch is None and alone
        samples = code("{}*{}", SAMPLES, self.units) if plain else SAMPLES
        width = self.times(buffer.units)
        match buffer.home:
            case Home.SEQUENCE:
                row, at = ROW, AT
            case Home.HISTORY if behind and not place.first:
                row, at = code("({} + {})" if width else "{} + {}", ROW, SAMPLES), code("{} + {}", AT, samples)
            case Home.HISTORY if not place.first:
                row, at = ROW, AT
            case Home.ROLLING:
                turn = code("({} + 1)%2" if behind else "{}%2", STEP)
                row, at = code("({}*{} + {})", turn, SAMPLES, SAMPLE), code("{}*{} + {}", turn, samples, K)
            case _ if self.flat:
                row, plain = code("({}%{})" if width else "{}%{}", ROW, SAMPLES), False
            case _:
                row, at = SAMPLE, K
        if plain:
            return at
        start = EMPTY if place.start == 0 else size_text(place.start, self.texts.dims)
        within = sum_of(start, unit)
        if place.pitch is not None and unit != ZERO:
            within = widened(unit, *place.pitch, start, self.factor)
        return joined(" + ", (code("{}{}", row, width), within))

    def start(self, state: Buffer, unit: Code) -> Code:
        """Where a thread finds unit ``unit`` of a carry before the first step, in the memory of all steps."""
        if state.units == self.region.units:
            return K if self.forwards else code("{}*{}{} + {}", STEPS, SAMPLES, self.times(self.region.units), K)
        row, width = (SAMPLE if self.forwards else code("{}*{} + {}", STEPS, SAMPLES, SAMPLE)), self.times(state.units)
        row = code("({}){}", row, width) if width and not self.forwards else code("{}{}", row, width)
        return sum_of(row, unit)

    def sizes_used(self, lines: Sequence[Code]) -> tuple[str, ...]:
        """The sizes that ``lines`` mention, in the order in which they are passed."""
        own = (STEPS,) if self.single else (STEP, ROWS)
        names = names_in(lines)
        return tuple(size for size in (*(each.text for each in (*own, SAMPLES)), *self.texts.dims.values()) if size in names)

    def opening(self, body: Sequence[Code]) -> list[Code]:
        """The lines by which a thread learns which sample and unit it has."""
        one = self.region.units == 1
        count = ROWS if self.flat else SAMPLES
        every = count if one else code("{}*{}", count, self.units)
        lines = [
            code("const long long {} = (long long)blockIdx.x*blockDim.x + threadIdx.x;", K),
            code("if ({} >= {}) return;", K, every),
        ]
        found = []
        if self.flat:
            found += [code("{} = {}" if one else "{} = {}/{}", ROW, K, self.whole)] if mentions(body, ROW) else []
        elif mentions(body, SAMPLE) or mentions(body, ROW):
            found += [code("{} = {}" if one else "{} = {}/{}", SAMPLE, K, self.whole)]
        if mentions(body, UNIT):
            found.append(code("{} = 0", UNIT) if one else code("{} = {}%{}", UNIT, K, self.whole))
        if self.flat and mentions(body, AT):
            found.append(code("{} = {}", AT, K))
        return [*lines, *_defined(found)]

    def sample_of_block(self, body: Sequence[Code]) -> list[Code]:
        """The lines by which a block learns which sample it has, in a kernel of a block per sample."""
        if self.flat:
            return [code("const long long {} = blockIdx.x;", ROW)]
        row = code("{} = {}*{} + {}", ROW, STEP, SAMPLES, SAMPLE)
        return [code("const long long {} = blockIdx.x;", SAMPLE), *_defined([row] if mentions(body, ROW) else [])]

    def within_sample(self, body: Sequence[Code]) -> list[Code]:
        """The lines that say where unit ``j`` lies, in a kernel of a block per sample."""
        row = ROW if self.flat else SAMPLE
        step = ROW if self.flat else code("{}*{} + {}", STEP, SAMPLES, SAMPLE)
        if self.region.units == 1:
            return _defined(
                [code("{} = {}", each, value) for each, value in ((UNIT, ZERO), (K, row), (AT, step)) if mentions(body, each)]
            )
        step = in_parentheses(step)
        places = ((K, row), (AT, step))
        return _defined(
            [code("{} = {}*{} + {}", each, value, self.units, UNIT) for each, value in places if mentions(body, each)]
        )

    def moment(self, body: Sequence[Code]) -> list[Code]:
        """Where in all steps this step's row lies."""
        if self.flat:
            return []
        found = []
        if mentions(body, ROW):
            found.append(code("{} = {}*{} + {}", ROW, STEP, SAMPLES, SAMPLE))
        if mentions(body, AT):
            found.append(code("{} = {}*{}{} + {}", AT, STEP, SAMPLES, self.times(self.region.units), K))
        return _defined(found)


def _defined(definitions: Sequence[Code]) -> list[Code]:
    """The line that defines what ``definitions`` say."""
    return [code("const long long {};", joined(", ", definitions))] if definitions else []
