"""Regions → what their code loads, computes and stores, in order, whatever runs it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import sympy

from cellspec import ir
from cellspec.backends.fused.c_family import ascii_name
from cellspec.backends.fused.flow import Flow, origin
from cellspec.backends.fused.memory import Columns, Kept, Memory
from cellspec.backends.fused.regions import Region
from cellspec.backends.memory.model import Buffer, Home, Phase
from cellspec.backends.naming import Names, identifier
from cellspec.ir import symbol
from cellspec.model.folding import is_finite


@dataclass(frozen=True)
class Store:
    """The value ``name`` goes to ``place``."""

    name: str
    place: Columns


@dataclass(frozen=True)
class Body:
    """The code of one region, for one unit of one sample.

    With ``whole`` it runs over the whole loop: ``carries`` are then held in variables from step to step. ``ops`` are the
    region's, those that are read once written where they are read; ``loads`` is what they read of memory.
    """

    memory: Memory
    region: Region
    whole: bool
    ops: tuple[ir.Pointwise, ...]
    loads: tuple[str, ...]
    carries: tuple[Kept, ...]

    @property
    def flow(self) -> Flow:
        """The flow that the region belongs to."""
        return self.memory.flow

    @cached_property
    def constants(self) -> tuple[str, ...]:
        """What is loaded and is the same at every step."""
        return tuple(name for name in self.loads if name in self.flow.constants)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """What is loaded at every step: all but carries that are held, and what is read where it is needed alone."""
        held = {kept.carry.before for kept in self.carries}
        return tuple(n for n in self.loads if n not in self.constants and n not in held and n not in self.on_demand)

    @cached_property
    def on_demand(self) -> tuple[str, ...]:
        """What is read where a sequence ends or begins once more: at few steps, so not loaded at each."""
        places = self.memory.reads
        return tuple(n for n in self.loads if n in places and (places[n].first or places[n].buffer.home is Home.FINAL))

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        """What is stored at every step, also for the caller."""
        found = (Store(name, place) for name in self.region.results for place in self.memory.stores.get(name, ()))
        return tuple(store for store in found if not (self.whole and store.place.buffer.home is Home.LATEST))

    @cached_property
    def last_stores(self) -> tuple[Store, ...]:
        """Carries that are held and are stored behind the last step."""
        return tuple(Store(k.carry.before, Columns(k.state)) for k in self.carries if k.state.home is Home.LATEST)

    @cached_property
    def totals(self) -> tuple[Store, ...]:
        """What code that runs over the whole loop sums over the steps, and where the sums go."""
        made = (name for name in self.region.results if name in self.memory.totals)
        return tuple(Store(name, Columns(self.memory.totals[name])) for name in made) if self.whole else ()

    @cached_property
    def written(self) -> frozenset[Buffer]:
        """The buffers that the code writes."""
        return frozenset(store.place.buffer for store in (*self.stores, *self.last_stores, *self.totals))

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers that the code may touch."""
        reads = self.memory.reads
        found = [reads[origin(self.flow, n)] for n in self.region.loads if origin(self.flow, n) in reads]
        places = [*found, *(place for name in self.region.results for place in self.memory.stores.get(name, ()))]
        rows = (place.rows for place in places if place.rows is not None)
        own = (kept.state for kept in self.memory.carries)
        return tuple(dict.fromkeys((*(place.buffer for place in places), *rows, *own, *self.memory.totals.values())))


def body(memory: Memory, region: Region, whole: bool) -> Body:
    """The code of ``region``; with ``whole``, if it is one of the loop's, it runs over the whole loop."""
    whole = whole and region.phase is Phase.LOOP
    stored = _stored(memory, region, whole)
    ops = _inlined(region, stored)
    known = {name for op in ops for name in (op.out, *memory.flow.program.args(op))}
    known |= {total.value for total in memory.flow.sums} | stored
    own = {op.out for op in region.ops}
    held = (k for k in memory.carries if k.carry.before in region.loads or k.carry.after in own)
    return Body(memory, region, whole, ops, tuple(n for n in region.loads if n in known), tuple(held) if whole else ())


def variables(body: Body, taken: Iterable[str]) -> dict[str, str]:
    """What the values that ``body`` holds are called; ``taken`` are names with another meaning."""
    names = Names(taken)
    found: dict[str, str] = {}
    for value in (*body.loads, *(kept.carry.before for kept in body.carries), *(op.out for op in body.ops)):
        back = value.startswith("d:")
        stem = ascii_name(identifier(value.removesuffix("<-") if back else value))
        if back and value.endswith("<-"):
            stem += "_next"
        found[value] = names.get(value, f"{stem}_j" if value in body.flow.constants else stem)
    for total in body.totals:
        found[f"{total.name} total"] = names.get(("total", total.name), f"{found[total.name]}_total")
    return found


def _stored(memory: Memory, region: Region, whole: bool) -> set[str]:
    """The values that leave a region by memory."""
    found = {name for name in region.results if memory.stores.get(name)}
    if region.phase is Phase.LOOP:
        found |= {name for name in memory.totals if name in region.results}
        ends = {kept.carry.after for kept in memory.carries}
        found |= {op.out for op in region.ops if whole and op.out in ends}
    return found


def _inlined(region: Region, stored: set[str]) -> tuple[ir.Pointwise, ...]:
    """The region's operations, those that are read once, by one of their own width, written where they are read."""
    uses: defaultdict[str, int] = defaultdict(int)
    for op in region.ops:
        for node in sympy.preorder_traversal(op.expr):
            if node.is_Symbol:
                uses[node.name] += 1
    pending: dict[sympy.Symbol, sympy.Expr] = {}
    kept: list[ir.Pointwise] = []
    for op in region.ops:
        inlined = {s: pending[s] for s in op.expr.free_symbols if s in pending}
        expr = op.expr.xreplace(inlined)
        if not is_finite(expr):  # SymPy divides by what it sees to be 0
            kept += (ir.Pointwise(s.name, pending.pop(s)) for s in sorted(inlined, key=str))
            expr = op.expr
        if uses[op.out] == 1 and op.out not in stored and not isinstance(expr, sympy.Function):
            pending[symbol(op.out)] = expr
        elif uses[op.out] or op.out in stored:
            kept.append(ir.Pointwise(op.out, expr))
    return tuple(kept)
