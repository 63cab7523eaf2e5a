"""Plan → Memory: where every value lies. All arrays are batch-major: a row a sample, units contiguous, so that threads of a
warp touch neighbours, and every operand of a product is one contiguous matrix that cuBLAS takes without a copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import sympy

from cellspec import ir
from cellspec.backends.cupy.cuda import plain_name
from cellspec.backends.cupy.cuts import first_state, last_state
from cellspec.backends.cupy.flow import Flow, Phase, origin, vectors
from cellspec.backends.cupy.regions import Plan, Region
from cellspec.backends.naming import Names, identifier, together
from cellspec.ir import Along, Carry, Joined, Move


class Home(Enum):
    """The kind of memory of a buffer; n is the sum of its columns' widths."""

    STEP = "[B, n], overwritten at every step"
    SEQUENCE = "[T, B, n]"
    HISTORY = "[T + 1, B, n], a carry before and after each step"
    ROLLING = "[2, B, n], a carry before and after this step"
    LATEST = "[B, n], a carry before and after the sequence"
    FINAL = "[B, n], read or stored where a sample ends and nowhere else"
    CONSTANT = "[n]"


@dataclass(frozen=True)
class Buffer:
    """An array. ``real`` ones hold gate arithmetic's type, the others what is stored and multiplied. ``saved``: the tape's.
    One ``of_rows`` holds the numbers of rows of another.
    """

    name: str
    home: Home
    units: sympy.Expr
    real: bool = False
    saved: bool = False
    of_rows: bool = False


@dataclass(frozen=True)
class Place:
    """Columns of a buffer from ``offset``; ``late`` for what a carry is after the step, ``first`` for before all steps.

    Values of several axes that lie side by side do so along the last: with ``pitch``, rows of the first length stand in rows
    of the second. Where ``rows`` says which row of the buffer a step reads, -1 is the number ``otherwise``.
    """

    buffer: Buffer
    offset: sympy.Expr = sympy.S.Zero
    late: bool = False
    first: bool = False
    pitch: tuple[sympy.Expr, sympy.Expr] | None = None
    rows: Buffer | None = None
    otherwise: sympy.Expr = sympy.S.Zero


@dataclass(frozen=True)
class Kept:
    """The memory of a carry: ``state``, and ``operand``, what products read (the same memory where the types are the same)."""

    carry: Carry
    state: Buffer
    operand: Buffer | None


@dataclass(frozen=True)
class Memory:
    """Where the values of one direction lie.

    ``reads``: where a value is read; ``stores``: where the region that computes it puts it; ``results``: what a product or a
    sum over units writes; ``stacks``: the buffer of a product's operands, by the set of them; ``totals``: what each thread of
    a kernel over the whole loop sums, and ``summed``: where the values of other sums lie.
    """

    plan: Plan
    buffers: tuple[Buffer, ...]
    reads: Mapping[str, Place]
    stores: Mapping[str, tuple[Place, ...]]
    stacks: Mapping[frozenset[str], tuple[Place, tuple[str, ...]]]
    carries: tuple[Kept, ...]
    outputs: Mapping[str, Buffer]
    totals: Mapping[str, Buffer]
    summed: Mapping[str, Place]

    @property
    def flow(self) -> Flow:
        """The flow that this is the memory of."""
        return self.plan.flow

    def kept(self, name: str) -> Kept | None:
        """The carry that ``name`` is an end of."""
        return next((k for k in self.carries if name in (k.carry.before, k.carry.after)), None)


def remember(
    plan: Plan,
    given: Mapping[str, Place],
    matrices: Mapping[str, Place],
    names: Names,
    single: bool,
    rank: Mapping[str, int],
) -> Memory:
    """Decide where everything lies.

    ``given`` is what comes from outside, ``matrices`` where of it products read; ``single``: one kernel does the whole loop;
    ``rank``: each equation's place, in which order values stand side by side.
    """
    draft = _Draft(plan, dict(given), matrices, names, single, rank)
    draft.products()
    draft.carries_()
    draft.delays_()
    draft.operands()
    draft.outputs_()
    draft.totals_()
    draft.generic()
    draft.share()
    draft.rename()
    return Memory(
        plan, tuple(draft.buffers), draft.reads, {n: tuple(p) for n, p in draft.stores.items()}, draft.stacks,
        tuple(draft.carries), draft.outputs, draft.totals, draft.summed(),
    )  # fmt: skip


@dataclass
class _Draft:
    plan: Plan
    reads: dict[str, Place]
    matrices: Mapping[str, Place]
    names: Names
    single: bool
    rank: Mapping[str, int]
    buffers: list[Buffer] = field(default_factory=list)
    stores: defaultdict[str, list[Place]] = field(default_factory=lambda: defaultdict(list))
    stacks: dict[frozenset[str], tuple[Place, tuple[str, ...]]] = field(default_factory=dict)
    carries: list[Kept] = field(default_factory=list)
    outputs: dict[str, Buffer] = field(default_factory=dict)
    totals: dict[str, Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        flow = self.flow = self.plan.flow
        self.made = flow.made
        values = flow.program.values
        ranked = sorted(values, key=lambda name: self.rank.get(values[name].origin, len(self.rank)))
        self.order = {name: k for k, name in enumerate(ranked)}
        self.late = set(flow.kept) | {self.origin(n) for n in self.read_in(Phase.AFTER)}
        self.late |= {self.origin(n) for g in flow.gradients for n in (g.right, *(left for _, left in g.rows))}
        self.late |= {total.value for total in flow.sums}
        self.befores = {c.before for c in flow.program.carries}
        self.afters = {c.after for c in flow.program.carries}

    # --- asking -----------------------------------------------------------------------------------------------

    def origin(self, name: str) -> str:
        """The value whose memory is read when ``name`` is: itself, or what it is a part of."""
        return origin(self.flow, name)

    def read_in(self, phase: Phase) -> set[str]:
        """What the steps of a phase read from memory."""
        found: set[str] = set()
        for step in self.plan.steps[phase]:
            found.update(step.loads if isinstance(step, Region) else vectors(step))
        return found

    def is_flat(self, name: str) -> bool:
        """Whether ``name`` is made for all steps at once."""
        return name in self.made and self.made[name][0] is not Phase.LOOP

    def in_time(self, *names: str) -> bool:
        """Whether any of ``names`` needs memory for every step."""
        return any(n in self.late or self.is_flat(n) for n in (*names, *map(self.origin, names)))

    def units(self, names: Iterable[str]) -> sympy.Expr:
        return sympy.Add(*(self.flow.width(n) for n in names))

    # --- making -----------------------------------------------------------------------------------------------

    def buffer(self, names: Sequence[str], home: Home, real: bool = False, called: str = "") -> Buffer:
        suffix = {Home.STEP: "_now", Home.SEQUENCE: "_all", Home.HISTORY: "_all", Home.ROLLING: "_pair", Home.LATEST: "_last"}
        wanted = called or together([plain_name(identifier(n)) for n in names]) + suffix[home]
        made = Buffer(self.names.get(("buffer", len(self.buffers), wanted), wanted), home, self.units(names), real)
        self.buffers.append(made)
        return made

    def lay(self, names: Sequence[str], buffer: Buffer) -> dict[str, Place]:
        """The columns of ``names``, side by side in ``buffer``; along their last axis where they have several."""
        shapes = [self.flow.program.shape(name) for name in names]
        pitched = len(names) > 1 and len(shapes[0]) > 1
        widths = [shape[-1] if pitched else ir.size(shape) for shape in shapes]
        total = sympy.expand(sympy.Add(*widths))
        offset: sympy.Expr = sympy.S.Zero
        places = {}
        for name, width in zip(names, widths, strict=True):
            places[name] = Place(buffer, sympy.expand(offset), pitch=(width, total) if pitched else None)
            offset += width
        return places

    def products(self) -> None:
        """What products, sums over units and concatenations write."""
        for phase in Phase:
            for op in self.flow.phases[phase]:
                if isinstance(op, ir.Pointwise | Move):
                    continue
                outs = ir.outs(op)
                if len(outs) == 1 and outs[0] in self.afters:
                    continue
                home = Home.SEQUENCE if self.in_time(*outs) or outs[0] in self.flow.outputs else Home.STEP
                if outs[0] in self.flow.outputs:
                    buffer = self.buffer(outs, home, called=f"{plain_name(identifier(outs[0]))}_out")
                    self.outputs[outs[0]] = buffer
                else:
                    buffer = self.buffer(outs, home, real=isinstance(op, Along))
                self.reads |= self.lay(outs, buffer)
                if isinstance(op, Joined):
                    for part, place in self.lay(op.parts, buffer).items():
                        self.stores[part].append(place)

    def carries_(self) -> None:
        """The memory of carries; also a copy of their type that products read."""
        operands = {n for p in Phase for op in self.flow.phases[p] if isinstance(op, ir.Product) for n in op.operands}
        for gradient in self.flow.gradients:
            operands |= {gradient.right, *(left for _, left in gradient.rows if len(gradient.rows) == 1)}
        operands |= {self.origin(name) for name in operands}
        for carry in self.flow.program.carries:
            ends = (carry.before, carry.after)
            home = Home.LATEST if self.single else Home.ROLLING
            if self.flow.forwards or self.in_time(*ends) or (self.single and self.is_shared(carry)):
                home = Home.HISTORY  # samples end at any step; what several threads read may be read after one has stored it
            made = self.made.get(carry.after)
            product = made is not None and isinstance(made[1], ir.Product)
            named = carry.after.removesuffix(" next") if self.flow.forwards else carry.before.removesuffix("<-")
            stem = plain_name(identifier(named))
            suffix = {Home.HISTORY: "_all", Home.ROLLING: "_pair", Home.LATEST: "_last"}[home]
            state = self.buffer([carry.before], home, real=not product, called=stem + suffix)
            operand: Buffer | None = None
            if operands.intersection(ends):
                operand = state if product else self.buffer([carry.before], home, called=f"{stem}_operand")
            self.carries.append(Kept(carry, state, operand))
            self.reads[carry.before] = Place(state)
            self.reads.setdefault(carry.after, Place(state, late=True))
            if self.flow.forwards:
                self.reads[first_state(carry.before)] = Place(state, first=True)
            if (name := last_state(carry)) in self.made:
                self.outputs[name] = self.buffer([name], Home.FINAL, real=True, called=f"{stem}_final")
                self.stores[name].append(Place(self.outputs[name]))
            if not product:
                self.stores[carry.after].append(Place(state, late=True))
                if operand is not None:
                    self.stores[carry.after].append(Place(operand, late=True))

    def delays_(self) -> None:
        """What is left for earlier steps; of states, the history of the carry is what later ones read."""
        for delay in self.flow.program.delays if not self.flow.forwards else ():
            self.stores[delay.after].append(Place(self.reads[delay.before].buffer))

    def is_shared(self, carry: Carry) -> bool:
        """Whether several threads of a kernel read the same unit of a carry."""
        loaders = [region for region in self.plan.in_phase(Phase.LOOP) if carry.before in region.loads]
        return any(region.units != self.flow.width(carry.before) for region in loaders)

    def operands(self) -> None:
        """The operands of products and gradients: one contiguous matrix each."""
        demands = [
            (op.operands, phase is not Phase.LOOP)
            for phase in Phase
            for op in self.flow.phases[phase]
            if isinstance(op, ir.Product)
        ]
        for g in self.flow.gradients:
            demands += [(tuple(left for _, left in g.rows), True), ((g.right,), True)]
        flat = {frozenset(names) for names, in_time in demands if in_time or self.in_time(*names)}
        for names, _ in demands:
            key = frozenset(names)
            if key not in self.stacks:
                self.stacks[key] = self.stack(sorted(key, key=self.order.__getitem__), key in flat)

    def stack(self, names: Sequence[str], in_time: bool) -> tuple[Place, tuple[str, ...]]:
        """The memory of a product's operands."""
        if len(names) == 1:
            (name,) = map(self.origin, names)
            kept = next((k for k in self.carries if name in (k.carry.before, k.carry.after)), None)
            if kept is not None and kept.operand is not None:
                return Place(kept.operand, late=name == kept.carry.after), (names[0],)
            if name not in self.made or not isinstance(self.made[name][1], ir.Pointwise):
                return self.matrices.get(name) or self.reads[name], (names[0],)
            if names[0] != name:
                own = self.stacks.setdefault(frozenset((name,)), self.stack((name,), in_time))
                return own[0], (names[0],)
        buffer = self.buffer(names, Home.SEQUENCE if in_time else Home.STEP)
        for name, place in self.lay(names, buffer).items():
            self.stores[name].append(place)
        return Place(buffer), tuple(names)

    def outputs_(self) -> None:
        """What is given to the caller lies in memory that nothing else reads."""
        for name in self.flow.outputs:
            if name not in self.outputs:
                self.outputs[name] = self.buffer([name], Home.SEQUENCE, called=f"{plain_name(identifier(name))}_out")
                self.stores[name].append(Place(self.outputs[name]))

    def totals_(self) -> None:
        """In a kernel that runs over the whole loop, each thread sums its own share of a gradient."""
        if self.single:
            for total in self.flow.sums:
                made = self.made.get(total.value)
                if made is not None and made[0] is Phase.LOOP and total.value not in self.totals:
                    called = f"{plain_name(identifier(total.value))}_totals"
                    self.totals[total.value] = self.buffer([total.value], Home.LATEST, real=True, called=called)

    def generic(self) -> None:
        """Memory for everything else that is read where it is not computed."""
        sums = {total.value for total in self.flow.sums} - set(self.totals)
        summed = {self.origin(op.operand) for ops in self.flow.phases for op in ops if isinstance(op, Along)}
        wanted = {self.origin(n) for region in self.plan.regions for n in region.loads} | summed | set(self.flow.kept) | sums
        for name in sorted(wanted, key=self.order.__getitem__):
            if name not in self.made or not isinstance(self.made[name][1], ir.Pointwise):
                continue
            exact = name in sums
            fits = [p for p in self.stores[name] if self.serves(name, p) and not (exact and p.buffer.real)]
            fits = [p for p in fits if p.pitch is None or name not in summed]
            if not fits:
                home = Home.SEQUENCE if self.in_time(name) else Home.STEP
                place = Place(self.buffer([name], home, real=home is Home.STEP))
                self.stores[name].append(place)
                fits = [place]
            self.reads[name] = fits[0]

    def summed(self) -> dict[str, Place]:
        """Where the values that are summed over steps and samples are read: together, as far as may be."""
        values = dict.fromkeys(total.value for total in self.flow.sums if total.value not in self.totals)
        places = {n: [p for p in (*self.stores[n], self.reads[n]) if self.serves(n, p) and not p.buffer.real] for n in values}
        holds: defaultdict[Buffer, int] = defaultdict(int)
        for name in values:
            for buffer in {p.buffer for p in places[name]}:
                holds[buffer] += 1
        return {name: max(places[name], key=lambda p: holds[p.buffer]) for name in values}

    def serves(self, name: str, place: Place) -> bool:
        """Whether ``place`` can be read by whoever reads ``name``."""
        if place.buffer in self.outputs.values():
            return False
        if place.buffer.home in (Home.SEQUENCE, Home.HISTORY):
            return True
        return not self.in_time(name) and place.buffer.home is not Home.LATEST

    # --- sharing ----------------------------------------------------------------------------------------------

    def share(self) -> None:
        """Let values of the loop overwrite what only the region that computes them reads: gates their pre-activations."""
        readers: defaultdict[str, list[Region]] = defaultdict(list)
        for region in self.plan.regions:
            for name in region.loads:
                readers[self.origin(name)].append(region)
        stacked = {self.origin(n) for names in self.stacks for n in names}
        free = [
            name
            for op in self.flow.phases[Phase.BEFORE]
            if isinstance(op, ir.Product)
            for name in op.outs
            if name not in self.late and name not in stacked and name not in self.outputs
            and len(readers[name]) == 1 and readers[name][0].phase is Phase.LOOP and name in readers[name][0].loads
        ]  # fmt: skip
        for region in self.plan.in_phase(Phase.LOOP):
            for name in region.results:
                place = self.reads.get(name)
                if place is None or place.buffer.home is not Home.SEQUENCE or len(self.alone(place.buffer)) != 1:
                    continue
                if place.buffer in self.outputs.values() or any(place.buffer == s.buffer for s, _ in self.stacks.values()):
                    continue
                same = [f for f in free if readers[f][0] is region and self.flow.width(f) == self.flow.width(name)]
                same.sort(key=lambda f: self.flow.program.values[f].origin != self.flow.program.values[name].origin)
                if same and self.flow.width(name) == region.units:
                    free.remove(same[0])
                    self.buffers.remove(place.buffer)
                    self.stores[name] = [self.reads[same[0]] if p == place else p for p in self.stores[name]]
                    self.reads[name] = self.reads[same[0]]

    def rename(self) -> None:
        """Call a buffer whose columns have all been overwritten after what lies there in the end."""
        for k, old in enumerate(self.buffers):
            here = [name for name in self.flow.made if name in self.reads and self.reads[name].buffer == old]
            by_offset = {self.reads[name].offset: name for name in here}
            residents = [by_offset[offset] for offset in dict.fromkeys(self.reads[name].offset for name in here)]
            if old.home is not Home.SEQUENCE or len(here) == len(residents) or any(not self.stores[n] for n in residents):
                continue
            wanted = together([plain_name(identifier(name)) for name in residents]) + "_all"
            new = replace(old, name=self.names.get(("renamed", old), wanted))
            self.buffers[k] = new
            self.reads = {n: replace(p, buffer=new) if p.buffer == old else p for n, p in self.reads.items()}
            for name, places in self.stores.items():
                self.stores[name] = [replace(p, buffer=new) if p.buffer == old else p for p in places]
            for key, (place, names) in self.stacks.items():
                self.stacks[key] = (replace(place, buffer=new) if place.buffer == old else place, names)

    def alone(self, buffer: Buffer) -> list[str]:
        """The values that are stored in ``buffer``."""
        return [name for name, places in self.stores.items() if any(p.buffer == buffer for p in places)]


def matrices(memory: Memory) -> dict[str, Place]:
    """What of ``memory`` a product can read: contiguous rows of the type that is stored, for every step."""
    here = {name: place for name, place in memory.reads.items() if place.rows is None}
    found = {name: place for name, place in here.items() if memory.flow.width(name) == place.buffer.units}
    found |= {names[0]: place for place, names in memory.stacks.values() if len(names) == 1}
    found = {name: place for name, place in found.items() if not place.buffer.real and place.buffer.home is not Home.STEP}
    return {name: place for name, place in found.items() if place.buffer.home in (Home.SEQUENCE, Home.HISTORY)}


def as_saved(place: Place) -> Place:
    """A place of the forward pass, as the backward pass sees it."""
    rows = None if place.rows is None else replace(place.rows, saved=True)
    return replace(place, buffer=replace(place.buffer, saved=True), rows=rows)
