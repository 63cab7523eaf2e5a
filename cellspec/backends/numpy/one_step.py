"""One step alone, for streams: nothing is known beforehand but the parameters, and nothing is left for later."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cellspec import ir
from cellspec.backends.numpy.views import Text
from cellspec.ir import Program


def one_step(program: Program) -> Program:
    """``program``, a forward step, with its states among what it is given and what it gives out."""
    outputs = dict.fromkeys((*program.outputs, *program.afters))
    given = (*program.sequences, *program.befores)
    return ir.typecheck(replace(program, sequences=given, carries=(), delays=(), outputs=tuple(outputs)))


def packed(text: Text, derived: Iterable[str]) -> dict[str, list[Any]]:
    """The parts of one step's text: what is done once for all steps, for all of a batch size, and at every step."""
    own = re.compile(r"\bws\.")
    once = [*text.prologue, *(line for line in text.locals if not own.search(line))]
    every = [line for line in text.locals if own.search(line)]
    functions = " = ".join(", ".join(names) for names in zip(*text.functions, strict=True))
    lines = [*([functions] if functions else []), *(f"{name} = {value}" for name, value in text.steps), *text.loop]
    words = names_in("\n".join(line for line in (*every, *lines) if not line.startswith("#")))
    bound = dict.fromkeys((*derived, *(line.split(" = ")[0] for line in once if re.match(r"\w+ = ", line))))
    return {
        "constant_buffers": [buffer for buffer in text.buffers if buffer[0] in text.parameters],
        "buffers": [buffer for buffer in text.buffers if buffer[0] not in text.parameters],
        "views": text.views,
        "prologue": [own.sub("self.", line) for line in once],
        "constants": [name for name in bound if name in words],
        "lines": [own.sub("packed.", line) for line in (*every, *lines)],
    }


def names_in(text: str) -> set[str]:
    """The words of Python text."""
    return set(re.findall(r"\w+", text))
