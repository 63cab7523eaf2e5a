"""How a thread finds its place: which sample and unit it has, and where values lie for it, as C++ text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from cellspec.backends.cupy.cuda import length
from cellspec.backends.cupy.flow import Phase
from cellspec.backends.cupy.memory import Buffer, Home, Memory, Place
from cellspec.backends.cupy.regions import Region
from cellspec.backends.cupy.units import first, stretched, widened
from cellspec.model.nodes import Shape


@dataclass(frozen=True)
class Texts:
    """What kernels call things: dims, and above each line the equation that it belongs to."""

    dims: Mapping[str, str]  # dim → C++ variable
    comments: Mapping[str, str]  # origin → comment


class Around:
    """How a kernel finds its place: the variables of one way of running a region."""

    def __init__(self, memory: Memory, region: Region, texts: Texts, single: bool) -> None:
        self.memory, self.region, self.texts, self.single = memory, region, texts, single
        self.flat = region.phase is not Phase.LOOP
        self.forwards = memory.flow.forwards
        self.units = self.size(region.units)
        self.shape = region.shape
        self.whole = self.factor(region.units)

    def size(self, expr: sympy.Expr) -> str:
        """A number of units, safe as a factor."""
        text = length(expr, self.texts.dims)
        return f"({text})" if isinstance(expr, sympy.Add) else text

    def factor(self, expr: sympy.Expr) -> str:
        """A number of units, safe to divide by."""
        text = self.size(expr)
        return text if expr.is_Atom or text.startswith("(") else f"({text})"

    def unit(self, shape: Shape) -> str:
        """Which unit of a value of this shape a thread has."""
        return stretched(shape, self.shape, self.factor)

    def guard(self, shape: Shape) -> str:
        """What stands before a store of a value of this shape: of several threads that have a unit the first stores it."""
        condition = first(shape, self.shape, self.factor)
        return f"if ({condition}) " if condition else ""

    def index(self, place: Place, unit: str, alone: bool = True) -> str:
        """Where a thread finds unit ``unit`` of the value at ``place``; ``alone``: by the variables of its own unit."""
        buffer = place.buffer
        late = place.late if self.forwards or buffer.saved else not place.late
        if buffer.home is Home.CONSTANT:
            return unit
        one = self.region.units == 1
        plain = unit == ("0" if one else "j") and place.offset == 0 and buffer.units == self.region.units
        plain = plain and place.pitch is None and alone
        samples = f"B*{self.units}" if plain else "B"
        match buffer.home:
            case Home.SEQUENCE:
                row, at = "row", "at"
            case Home.HISTORY if late and not place.first:
                row, at = "(row + B)", f"at + {samples}"
            case Home.HISTORY if not place.first:
                row, at = "row", "at"
            case Home.ROLLING:
                turn = "(t + 1)%2" if late else "t%2"
                row, at = f"({turn}*B + sample)", f"{turn}*{samples} + k"
            case _ if self.flat:
                row, plain = "row%B", False
            case _:
                row, at = "sample", "k"
        if plain:
            return at
        width = "" if buffer.units == 1 else f"*{self.size(buffer.units)}"
        row = f"({row})" if width and row == "row%B" else row
        row = row[1:-1] if not width and row.startswith("(row") else row
        start = "" if place.offset == 0 else length(place.offset, self.texts.dims)
        terms = [start, "" if unit == "0" else unit]
        if place.pitch is not None and unit != "0":
            terms = widened(unit, *place.pitch, start, self.factor)
        return " + ".join(term for term in (f"{row}{width}", *terms) if term)

    def start(self, state: Buffer, unit: str) -> str:
        """Where a thread finds unit ``unit`` of a carry before the first step, in the memory of all steps."""
        if state.units == self.region.units:
            whole = "" if self.region.units == 1 else f"*{self.units}"
            return "k" if self.forwards else f"T*B{whole} + k"
        row, width = "sample" if self.forwards else "T*B + sample", "" if state.units == 1 else f"*{self.size(state.units)}"
        row = f"({row}){width}" if width and not self.forwards else f"{row}{width}"
        return row if unit == "0" else f"{row} + {unit}"

    def sizes_used(self, lines: Sequence[str]) -> tuple[str, ...]:
        """The sizes that ``lines`` mention, in the order in which they are passed."""
        words = words_of(lines)
        own = ("T",) if self.single else ("t", "rows")
        return tuple(name for name in (*own, "B", *self.texts.dims.values()) if name in words)

    def opening(self, body: Sequence[str]) -> list[str]:
        """The lines by which a thread learns which sample and unit it has."""
        words = words_of(body)
        count = "rows" if self.flat else "B"
        lines = ["const long long k = (long long)blockIdx.x*blockDim.x + threadIdx.x;"]
        one = self.region.units == 1
        lines.append(f"if (k >= {count if one else f'{count}*{self.units}'}) return;")
        found = []
        if "j" in words:
            found.append("j = 0" if one else f"j = k%{self.whole}")
        if self.flat:
            if "row" in words:
                found.insert(0, "row = k" if one else f"row = k/{self.whole}")
            if "at" in words:
                found.append("at = k")
        elif words & {"sample", "row"}:
            found.insert(0, "sample = k" if one else f"sample = k/{self.whole}")
        if found:
            lines.append(f"const long long {', '.join(found)};")
        return lines

    def sample_of_block(self, body: Sequence[str]) -> list[str]:
        """The lines by which a block learns which sample it has, in a kernel of a block per sample."""
        words = words_of(body)
        if self.flat:
            return ["const long long row = blockIdx.x;"]
        lines = ["const long long sample = blockIdx.x;"]
        return [*lines, *(["const long long row = t*B + sample;"] if "row" in words else [])]

    def within_sample(self, body: Sequence[str]) -> list[str]:
        """The lines that say where unit ``j`` lies, in a kernel of a block per sample."""
        words = words_of(body)
        row = "row" if self.flat else "sample"
        step = "row" if self.flat else "t*B + sample"
        if self.region.units == 1:
            found = [f"{name} = {value}" for name, value in (("j", "0"), ("k", row), ("at", step)) if name in words]
        else:
            step = step if self.flat else f"({step})"
            found = [f"{name} = {value}*{self.units} + j" for name, value in (("k", row), ("at", step)) if name in words]
        return [f"const long long {', '.join(found)};"] if found else []

    def moment(self, body: Sequence[str]) -> list[str]:
        """Where in all steps this step's row lies."""
        words = words_of(body)
        found = []
        if "row" in words:
            found.append("row = t*B + sample")
        if "at" in words:
            found.append("at = t*B + k" if self.region.units == 1 else f"at = t*B*{self.units} + k")
        return [f"const long long {', '.join(found)};"] if found and not self.flat else []


def words_of(lines: Sequence[str]) -> set[str]:
    """The words of C++ text, comments left out."""
    return {word for line in lines for word in re.findall(r"\w+", line.split("//")[0])}
