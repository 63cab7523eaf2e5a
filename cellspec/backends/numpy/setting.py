"""What all parts of a NumPy module start from: the compiled cell, its names, and the arrays that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cellspec import ir
from cellspec.backends.arrays.caller import Caller
from cellspec.backends.arrays.expressions import Attribute, Expression, Formula, Word
from cellspec.backends.common import Common
from cellspec.backends.memory.model import Axes, Owner, T
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.orientation import Orientation
from cellspec.backends.numpy.origins import ranks
from cellspec.backends.numpy.storage import Storage
from cellspec.backends.numpy.text import Around
from cellspec.backends.remarks import AGAIN, Remarks
from cellspec.cell import Cell
from cellspec.ir import Program, Value
from cellspec.pipeline import Compiled


@dataclass(frozen=True)
class Setting:
    """A compiled cell, what its module calls things, and each equation's place among neighbours."""

    compiled: Compiled
    common: Common
    caller: Caller
    rank: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, compiled: Compiled, common: Common) -> Setting:
        return cls(compiled, common, Caller(compiled.cell, common.dims), ranks(compiled.equations))

    @property
    def cell(self) -> Cell:
        return self.compiled.cell

    @property
    def constants(self) -> dict[str, Expression]:
        """The arrays of parameters and of derived parameters."""
        params: dict[str, Expression] = {p.name: Attribute(Word("params"), p.name) for p in self.cell.params}
        return params | {name: Word(called) for name, called in self.common.derived.items()}

    def ranks_of(self, values: Mapping[str, Value]) -> dict[str, tuple[int, ...]]:
        """The place of each value's equation."""
        return {name: self.rank.get(value.origin.removesuffix(AGAIN), (99,)) for name, value in values.items()}

    def emitter(self, storage: Storage, given: Given, names: Wishes, orientation: Orientation, owner: Owner) -> Emitter:
        """What writes the statements of a direction, or of one step alone, from its storage plan."""
        constants, program = self.constants, storage.code.schedule.program
        for op in storage.code.schedule.prologue:
            (out,) = ir.outs(op)
            constants[out] = formula(out, op, program, constants)
        around = Around(
            names,
            Remarks.of(self.compiled, owner is not Owner.BACKWARD),
            constants,
            given.arrays,
            given.fixed,
            given.matrices,
            self.common.dims,
            orientation,
            owner,
            given.lead,
        )
        return Emitter.of(storage, around, forwards=owner is not Owner.BACKWARD)


@dataclass(frozen=True)
class Given:
    """Arrays from outside, by value: as they are read, those that outlive a call, and matrices of all steps and samples."""

    arrays: Mapping[str, Expression]
    fixed: frozenset[str]
    matrices: Mapping[str, Expression]
    lead: Axes = (T,)


def formula(out: str, op: ir.Op, program: Program, known: Mapping[str, Expression]) -> Expression:
    """What ``op`` makes of what is ``known``: that itself if it makes nothing of it."""
    if isinstance(op, ir.Stop) and isinstance(known[op.operand], Word):
        return known[op.operand]
    return Formula(out, op, program, tuple((name, known[name]) for name in program.args(op) if name in known))
