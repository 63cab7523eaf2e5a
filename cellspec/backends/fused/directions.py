"""Schedules → the plans and the memory of both directions of a module, with what comes to each from outside.

The caller gives sequences and the cotangents of results; the forward direction leaves to the backward one what that reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cellspec import ir
from cellspec.backends.fused.allocation import allocate
from cellspec.backends.fused.c_family import ascii_name
from cellspec.backends.fused.flow import Flow, flow, origin
from cellspec.backends.fused.lagged import Lagged
from cellspec.backends.fused.loop_kinds import Choice, Kind, choose
from cellspec.backends.fused.memory import Columns, Memory, as_saved, buffer, matrices, owner
from cellspec.backends.fused.regions import Plan, plan
from cellspec.backends.memory.model import Element, Home, Owner
from cellspec.backends.naming import Groups, Names, identifier
from cellspec.model.nodes import STEP_INDEX
from cellspec.passes.masks import BOUNDARY_AFTER, BOUNDARY_BEFORE, final_cotangent, first_state, last_state
from cellspec.pipeline import BACKWARD, FORWARD, Compiled

SLOTS = buffer("cuts", Home.HISTORY, ir.size(()), element=Element.EXACT)
"""What the boundaries are: a slot before each step, and one behind the last."""

BOUNDARIES = {BOUNDARY_BEFORE: Columns(SLOTS), BOUNDARY_AFTER: Columns(SLOTS, late=True)}
"""Where the boundaries lie, before and after each step."""


def results(compiled: Compiled) -> tuple[str, ...]:
    """What the forward step gives out for the caller: outputs, and states after a sample's last step."""
    lasts = (last_state(carry) for carry in compiled.forward.carries)
    outputs = (output.label for output in compiled.cell.outputs)
    return tuple(dict.fromkeys((*outputs, *(name for name in lasts if name in compiled.forward.values))))


def forward_plan(compiled: Compiled) -> tuple[Plan, Choice]:
    """The forward direction's plan and class; the programs of ``compiled`` read boundaries."""
    befores = {c.before for c in compiled.forward.carries}
    late = tuple(n for n in compiled.stash if n not in compiled.forward.sequences)
    apart = {f"{STEP_INDEX}[t-1]", BOUNDARY_BEFORE, BOUNDARY_AFTER, *map(first_state, befores)}
    whole = tuple(n for n in compiled.forward.sequences if n not in apart)
    made = plan(flow(compiled.schedules[FORWARD], results(compiled), late, whole, True))
    return made, choose(made)


def boundaries_in(flow_: Flow) -> dict[str, Columns]:
    """Where those boundaries lie that one direction reads."""
    return {name: place for name, place in BOUNDARIES.items() if name in flow_.program.values}


class Directions:
    """The plans and the memory of both directions; the programs of ``compiled`` read boundaries.

    ``inputs`` are the texts of the caller's streams by value; ``taken`` are names with a meaning in the code of regions and
    ``attributes`` those of a memory that are no buffers of values. ``dims`` are what that code calls the dims, and ``names``
    those that the memory has of the direction which was made last.
    """

    def __init__(
        self, compiled: Compiled, inputs: Mapping[str, str], taken: Collection[str], attributes: Collection[str]
    ) -> None:
        self.compiled, self.cell, self.inputs = compiled, compiled.cell, inputs
        own = Names(taken)
        self.dims = {d: own.get(("dim", d), ascii_name(d)) for d in self.cell.dims}
        self.rank = {e.target.name: k for k, e in enumerate(self.cell.assignments)}
        self.attributes = [*taken, *self.dims.values(), *attributes]
        self.groups = Groups(frozenset(param.name for param in self.cell.params))
        self.names = Names(self.attributes, self.groups)
        self.lagged = Lagged(self.cell, self.names)
        self.attributes += self.lagged.attributes

    def given(self, flow_: Flow, made: Plan, more: Mapping[str, Columns]) -> dict[str, Columns]:
        """Where the values are that come from outside: constants that kernels read, and ``more``."""
        loaded = {origin(flow_, n) for region in made.regions for n in region.loads}
        places = dict(more)
        for name in flow_.program.values:
            if name in flow_.constants and name in loaded:
                called = self.names.get(("constant", flow_.forwards, name), ascii_name(identifier(name)))
                places[name] = Columns(buffer(called, Home.CONSTANT, flow_.width(name), owner(flow_)))
        return places

    def sequence(self, flow_: Flow, made: Plan, name: str) -> Columns:
        """A sequence that the caller gives: kernels read a copy in the workspace, so that the loop depends on nothing else."""
        loaded = any(origin(flow_, n) == name for region in made.regions for n in region.loads)
        text = self.inputs[name]
        own = self.names.get(("sequence", name), f"{ascii_name(identifier(text))}_all") if loaded else text
        return Columns(buffer(own, Home.SEQUENCE, flow_.width(name), owner(flow_) if loaded else Owner.CALLER))

    def as_given(self, flow_: Flow) -> dict[str, Columns]:
        """The sequences that the caller gives where they lie, as products read them."""
        return {
            name: Columns(buffer(text, Home.SEQUENCE, flow_.width(name), Owner.CALLER))
            for name, text in self.inputs.items()
            if name in flow_.program.values
        }

    def forward_memory(self) -> tuple[Memory, Choice]:
        made, choice = forward_plan(self.compiled)
        whole = self.as_given(made.flow)
        sequences = {name: self.sequence(made.flow, made, name) for name in whole}
        given = self.given(made.flow, made, {**sequences, **self.lagged.places, **boundaries_in(made.flow)})
        given |= self.lagged.forward(made.flow)
        whole |= self.lagged.matrices
        memory = allocate(made, given, whole, self.names, choice.kind is Kind.SEQUENCE, self.rank)
        return memory, choice

    def backward_plan(self, forward: Memory) -> tuple[Plan, Choice]:
        compiled = self.compiled
        whole = {*self.inputs, *matrices(forward), *(f"d:{o.label} given" for o in self.cell.outputs)}
        outputs = tuple(n for n in compiled.backward.outputs)
        made = plan(flow(compiled.schedules[BACKWARD], outputs, (), whole, False))
        return made, choose(made)

    def backward_memory(self, forward: Memory) -> tuple[Memory, Choice]:
        made, choice = self.backward_plan(forward)
        kept = (b.name for b in forward.buffers if b.home in (Home.SEQUENCE, Home.HISTORY))
        self.names = Names([*self.attributes, *kept], self.groups)
        saved = {n: as_saved(p) for n, p in boundaries_in(made.flow).items()}
        saved |= {n: as_saved(forward.reads[n]) for n in self.compiled.stash if n in forward.reads}
        befores = (carry.before for carry in self.compiled.forward.carries)
        saved |= {n: as_saved(forward.reads[n]) for n in map(first_state, befores) if n in made.flow.program.values}
        saved |= self.finals(made) | self.lagged.backward(made.flow)
        whole = {n: as_saved(p) for n, p in matrices(forward).items()}
        given = self.as_given(made.flow)
        saved |= {name: self.sequence(made.flow, made, name) for name in given}
        whole |= given
        for o in self.cell.outputs:
            name = f"d:{o.label} given"
            if name in made.flow.program.values:
                called = "dy" if len(self.cell.outputs) == 1 else f"dy_{o.name}"
                called = self.names.get(("dy", o.name), ascii_name(f"{called}_all"))
                dy = buffer(called, Home.SEQUENCE, made.flow.width(name), Owner.BACKWARD)
                saved[name] = whole[name] = Columns(dy)
        places = self.given(made.flow, made, saved)
        return allocate(made, places, whole, self.names, choice.kind is Kind.SEQUENCE, self.rank), choice

    def finals(self, made: Plan) -> dict[str, Columns]:
        """The final state's cotangents, as kernels read them where a sample ends."""
        loaded = {n for region in made.regions for n in region.loads}
        names = [final_cotangent(carry) for carry in made.flow.program.carries if final_cotangent(carry) in loaded]
        called = {name: self.names.get(("final", name), ascii_name(identifier(name))) for name in names}
        final, width = (Home.FINAL, made.flow.width)
        return {n: Columns(buffer(called[n], final, width(n), Owner.BACKWARD, Element.EXACT)) for n in names}
