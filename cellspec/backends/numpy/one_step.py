"""One step alone, for streams: nothing is known beforehand but the parameters, and nothing is left for later."""

from __future__ import annotations

from dataclasses import replace

from cellspec import ir
from cellspec.ir import Program


def one_step(program: Program) -> Program:
    """``program``, a forward step, with its states among what it is given and what it gives out."""
    given = (*program.sequences, *(carry.before for carry in program.carries))
    outputs = dict.fromkeys((*program.outputs, *(carry.after for carry in program.carries)))
    return ir.typecheck(replace(program, sequences=given, carries=(), outputs=tuple(outputs)))
