"""Cell → where everything lies: the memory of both directions of a CuPy module, and what comes to it from outside."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec import ir
from cellspec.backends.common import Common
from cellspec.backends.cupy.classes import Choice, Kind, choose
from cellspec.backends.cupy.cuda import plain_name, reserved
from cellspec.backends.cupy.cuts import CUT_AFTER, CUT_BEFORE, final, first_state, last_state
from cellspec.backends.cupy.earlier import Earlier
from cellspec.backends.cupy.flow import Flow, flow, origin
from cellspec.backends.cupy.memory import Buffer, Home, Memory, Place, as_saved, matrices, remember
from cellspec.backends.cupy.regions import Plan, plan
from cellspec.backends.naming import Names, identifier
from cellspec.model.nodes import STEP_INDEX
from cellspec.pipeline import BACKWARD, FORWARD, Compiled

ATTRIBUTES = (
    "use", "T", "B", "dtype", "captured", "saved", "steps", "cuts", "rows", "is_cut", "stream", "latest", "device", "scratch",
    "owner", "key", "numbered",
)  # fmt: skip
"""Attributes that the memory of either direction has."""

_SLOTS = Buffer("cuts", Home.HISTORY, ir.size(()), real=True)
CUTS = {CUT_BEFORE: Place(_SLOTS), CUT_AFTER: Place(_SLOTS, late=True)}
"""Where the cuts lie, before and after each step."""


def results(compiled: Compiled) -> tuple[str, ...]:
    """What the forward step gives out for the caller: outputs, and states after a sample's last step."""
    lasts = (last_state(carry) for carry in compiled.forward.carries)
    outputs = (output.label for output in compiled.cell.outputs)
    return tuple(dict.fromkeys((*outputs, *(name for name in lasts if name in compiled.forward.values))))


def forward_plan(compiled: Compiled) -> tuple[Plan, Choice]:
    """The forward direction's plan and class; the programs of ``compiled`` read cuts."""
    befores = {c.before for c in compiled.forward.carries}
    late = tuple(n for n in compiled.stash if n not in compiled.forward.sequences)
    apart = {f"{STEP_INDEX}[t-1]", CUT_BEFORE, CUT_AFTER, *map(first_state, befores)}
    whole = tuple(n for n in compiled.forward.sequences if n not in apart)
    made = plan(flow(compiled.schedules[FORWARD], results(compiled), late, whole, True))
    return made, choose(made)


def cuts_in(flow_: Flow) -> dict[str, Place]:
    """Where those cuts lie that one direction reads."""
    return {name: place for name, place in CUTS.items() if name in flow_.program.values}


class Layout:
    """The plans and the memory of both directions; the programs of ``compiled`` read cuts.

    ``inputs`` are the texts of the caller's streams by value, ``names`` those of buffers that are taken, of the direction whose
    memory was made last.
    """

    def __init__(self, compiled: Compiled, common: Common) -> None:
        self.compiled, self.cell = compiled, compiled.cell
        streams = zip(self.cell.inputs, common.inputs, strict=True)
        self.inputs = {f"{item.name}[t]": {key: str(text) for key, text in given.items()} for item, given in streams}
        cuda = Names(reserved())
        self.cuda_dims = {d: cuda.get(("dim", d), plain_name(d)) for d in self.cell.dims}
        self.rank = {e.target.name: k for k, e in enumerate(self.cell.assignments)}
        self.attributes = [*reserved(), *self.cuda_dims.values(), *ATTRIBUTES]
        self.names = Names(self.attributes)
        self.earlier = Earlier(self.cell, common, self.names)
        self.attributes += [name for stream in self.earlier.known for name in (stream.buffer, f"d_{stream.buffer}")]
        self.histories = self.earlier.histories
        self.attributes += [name for lag in self.histories.attributes for name in (lag, f"{lag}_of_steps")]

    def given(self, flow_: Flow, made: Plan, more: Mapping[str, Place]) -> dict[str, Place]:
        """Where the values are that come from outside: constants that kernels read, and ``more``."""
        loaded = {origin(flow_, n) for region in made.regions for n in region.loads}
        places = dict(more)
        for name in flow_.program.values:
            if name in flow_.constants and name in loaded:
                called = self.names.get(("constant", flow_.forwards, name), plain_name(identifier(name)))
                places[name] = Place(Buffer(called, Home.CONSTANT, flow_.width(name)))
        return places

    def sequence(self, flow_: Flow, made: Plan, name: str) -> Place:
        """A sequence that the caller gives: kernels read a copy in the workspace, so that the loop depends on nothing else."""
        loaded = any(origin(flow_, n) == name for region in made.regions for n in region.loads)
        text = self.inputs[name]["value"]
        own = self.names.get(("sequence", name), f"{plain_name(identifier(text))}_all") if loaded else text
        return Place(Buffer(own, Home.SEQUENCE, flow_.width(name), saved=not loaded))

    def as_given(self, flow_: Flow) -> dict[str, Place]:
        """The sequences that the caller gives where they lie, as products read them."""
        return {
            name: Place(Buffer(given["value"], Home.SEQUENCE, flow_.width(name), saved=True))
            for name, given in self.inputs.items()
            if name in flow_.program.values
        }

    def forward_memory(self) -> tuple[Memory, Choice]:
        made, choice = forward_plan(self.compiled)
        whole = self.as_given(made.flow)
        sequences = {name: self.sequence(made.flow, made, name) for name in whole}
        given = self.given(made.flow, made, {**sequences, **self.earlier.places, **cuts_in(made.flow)})
        given |= self.histories.forward(made.flow)
        whole |= self.earlier.matrices
        memory = remember(made, given, whole, self.names, choice.kind is Kind.SEQUENCE, self.rank)
        return memory, choice

    def backward_plan(self, forward: Memory) -> tuple[Plan, Choice]:
        compiled = self.compiled
        whole = {*self.inputs, *matrices(forward), *(f"d:{o.label} given" for o in self.cell.outputs)}
        outputs = tuple(n for n in compiled.backward.outputs)
        made = plan(flow(compiled.schedules[BACKWARD], outputs, (), whole, False))
        return made, choose(made)

    def backward_memory(self, forward: Memory) -> tuple[Memory, Choice]:
        made, choice = self.backward_plan(forward)
        self.names = Names([*self.attributes, *(b.name for b in forward.buffers if b.home in (Home.SEQUENCE, Home.HISTORY))])
        saved = {n: as_saved(p) for n, p in cuts_in(made.flow).items()}
        saved |= {n: as_saved(forward.reads[n]) for n in self.compiled.stash if n in forward.reads}
        befores = (carry.before for carry in self.compiled.forward.carries)
        saved |= {n: as_saved(forward.reads[n]) for n in map(first_state, befores) if n in made.flow.program.values}
        saved |= self.finals(made) | self.histories.backward(made.flow)
        whole = {n: as_saved(p) for n, p in matrices(forward).items()}
        given = self.as_given(made.flow)
        saved |= {name: self.sequence(made.flow, made, name) for name in given}
        whole |= given
        for o in self.cell.outputs:
            name = f"d:{o.label} given"
            if name in made.flow.program.values:
                called = "dy" if len(self.cell.outputs) == 1 else f"dy_{o.name}"
                buffer = Buffer(
                    self.names.get(("dy", o.name), plain_name(f"{called}_all")), Home.SEQUENCE, made.flow.width(name)
                )
                saved[name] = whole[name] = Place(buffer)
        places = self.given(made.flow, made, saved)
        return remember(made, places, whole, self.names, choice.kind is Kind.SEQUENCE, self.rank), choice

    def finals(self, made: Plan) -> dict[str, Place]:
        """The final state's cotangents, as kernels read them where a sample ends."""
        loaded = {n for region in made.regions for n in region.loads}
        names = [final(carry) for carry in made.flow.program.carries if final(carry) in loaded]
        called = {name: self.names.get(("final", name), plain_name(identifier(name))) for name in names}
        return {name: Place(Buffer(called[name], Home.FINAL, made.flow.width(name), real=True)) for name in names}
