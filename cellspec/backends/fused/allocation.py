"""Plan → Memory: where every value lies, decided in passes over one draft.

The passes stand in :data:`_PASSES` in their order: what products and sums over units write, carries, what is left for earlier
steps, operands, outputs, totals, all else that is read from memory; then values share what nobody needs any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import sympy

from cellspec import ir
from cellspec.backends.fused.c_family import ascii_name
from cellspec.backends.fused.flow import Flow, origin, vectors
from cellspec.backends.fused.memory import Columns, Kept, Memory, buffer, owner
from cellspec.backends.fused.regions import Plan, Region
from cellspec.backends.memory.model import Buffer, Element, Home, Owner, Phase
from cellspec.backends.naming import Names, identifier
from cellspec.ir import Along, Carry, Joined, Move, Op
from cellspec.passes.masks import first_state, last_state

SUFFIXES = {Home.STEP: "_now", Home.SEQUENCE: "_all", Home.HISTORY: "_all", Home.ROLLING: "_pair", Home.LATEST: "_last"}
"""How the names of buffers end."""


def allocate(
    plan: Plan,
    given: Mapping[str, Columns],
    matrices: Mapping[str, Columns],
    names: Names,
    single: bool,
    rank: Mapping[str, int],
) -> Memory:
    """Decide where everything lies.

    ``given`` is what comes from outside, ``matrices`` where of it products read; ``single``: one kernel does the whole loop;
    ``rank``: each equation's place, in which order values stand side by side.
    """
    task = _Task(plan, matrices, single, rank)
    draft = _Draft(owner(plan.flow), names, dict(given))
    for decide in _PASSES:
        decide(task, draft)
    return Memory(
        plan, tuple(draft.buffers), draft.reads, {n: tuple(p) for n, p in draft.stores.items()}, draft.stacks,
        tuple(draft.carries), draft.outputs, draft.totals, _summed(task, draft),
    )  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """What is asked for, and what is easily told of it."""

    plan: Plan
    matrices: Mapping[str, Columns]
    single: bool
    rank: Mapping[str, int]

    @property
    def flow(self) -> Flow:
        return self.plan.flow

    @cached_property
    def made(self) -> dict[str, tuple[Phase, Op]]:
        """What defines each value, and when."""
        return self.flow.made

    @cached_property
    def order(self) -> dict[str, int]:
        """The order in which values stand side by side."""
        values = self.flow.program.values
        ranked = sorted(values, key=lambda name: self.rank.get(values[name].origin, len(self.rank)))
        return {name: k for k, name in enumerate(ranked)}

    @cached_property
    def late(self) -> set[str]:
        """What is read after the loop, or by the other direction."""
        found = set(self.flow.kept) | {self.origin(n) for n in self.read_in(Phase.AFTER)}
        found |= {self.origin(n) for g in self.flow.gradients for n in (g.right, *(left for _, left in g.rows))}
        return found | {total.value for total in self.flow.sums}

    def origin(self, name: str) -> str:
        """The value whose memory is read when ``name`` is: itself, or what it is a part of."""
        return origin(self.flow, name)

    def read_in(self, phase: Phase) -> set[str]:
        """What the steps of a phase read from memory."""
        found: set[str] = set()
        for step in self.plan.steps[phase]:
            found.update(step.loads if isinstance(step, Region) else vectors(step))
        return found

    def in_time(self, *names: str) -> bool:
        """Whether any of ``names`` needs memory for every step."""
        return any(n in self.late or self.is_flat(n) for n in (*names, *map(self.origin, names)))

    def is_flat(self, name: str) -> bool:
        """Whether ``name`` is made for all steps at once."""
        return name in self.made and self.made[name][0] is not Phase.LOOP

    def is_made_by(self, name: str, kind: type[ir.Pointwise] | type[ir.Product]) -> bool:
        """Whether an operation of that kind defines ``name``."""
        return name in self.made and isinstance(self.made[name][1], kind)

    def products(self) -> Iterable[tuple[Phase, ir.Product]]:
        """The products of all phases."""
        return ((phase, op) for phase in Phase for op in self.flow.phases[phase] if isinstance(op, ir.Product))


@dataclass
class _Draft:
    """A memory in the making."""

    owner: Owner
    names: Names
    reads: dict[str, Columns]
    buffers: list[Buffer] = field(default_factory=list)
    stores: defaultdict[str, list[Columns]] = field(default_factory=lambda: defaultdict(list))
    stacks: dict[frozenset[str], tuple[Columns, tuple[str, ...]]] = field(default_factory=dict)
    carries: list[Kept] = field(default_factory=list)
    outputs: dict[str, Buffer] = field(default_factory=dict)
    totals: dict[str, Buffer] = field(default_factory=dict)

    def add(self, task: _Task, names: Sequence[str], home: Home, *, exact: bool = False, called: str = "") -> Buffer:
        """A new buffer for ``names`` side by side."""
        wanted = called or self.names.together([ascii_name(identifier(n)) for n in names]) + SUFFIXES[home]
        name = self.names.get(("buffer", len(self.buffers), wanted), wanted)
        units = sympy.Add(*(task.flow.width(n) for n in names))
        made = buffer(name, home, units, self.owner, Element.EXACT if exact else Element.STORED)
        self.buffers.append(made)
        return made

    def kept(self, name: str) -> Kept | None:
        """The carry that ``name`` is an end of."""
        return next((k for k in self.carries if name in (k.carry.before, k.carry.after)), None)

    def replaced(self, old: Buffer, new: Buffer) -> None:
        """Let ``new`` be what ``old`` was."""

        def moved(place: Columns) -> Columns:
            return replace(place, buffer=new) if place.buffer == old else place

        self.buffers[self.buffers.index(old)] = new
        self.reads = {name: moved(place) for name, place in self.reads.items()}
        for name, places in self.stores.items():
            self.stores[name] = [moved(place) for place in places]
        for key, (place, names) in self.stacks.items():
            self.stacks[key] = (moved(place), names)


def _side_by_side(flow: Flow, names: Sequence[str], buffer: Buffer) -> dict[str, Columns]:
    """The columns of ``names``, side by side in ``buffer``; along their last axis where they have several."""
    shapes = [flow.program.shape(name) for name in names]
    pitched = len(names) > 1 and len(shapes[0]) > 1
    widths = [shape[-1] if pitched else ir.size(shape) for shape in shapes]
    total = sympy.expand(sympy.Add(*widths))
    start: sympy.Expr = sympy.S.Zero
    places = {}
    for name, width in zip(names, widths, strict=True):
        places[name] = Columns(buffer, sympy.expand(start), pitch=(width, total) if pitched else None)
        start += width
    return places


# --- what operations write ----------------------------------------------------------------------------------------


def _results(task: _Task, draft: _Draft) -> None:
    """What products, sums over units and concatenations write."""
    flow = task.flow
    ends = {carry.after for carry in flow.program.carries}
    for op in (op for phase in Phase for op in flow.phases[phase] if not isinstance(op, ir.Pointwise | Move)):
        outs = ir.outs(op)
        if len(outs) == 1 and outs[0] in ends:
            continue
        home = Home.SEQUENCE if task.in_time(*outs) or outs[0] in flow.outputs else Home.STEP
        if outs[0] in flow.outputs:
            made = draft.outputs[outs[0]] = draft.add(task, outs, home, called=f"{ascii_name(identifier(outs[0]))}_out")
        else:
            made = draft.add(task, outs, home, exact=isinstance(op, Along))
        draft.reads |= _side_by_side(flow, outs, made)
        if isinstance(op, Joined):
            for part, place in _side_by_side(flow, op.parts, made).items():
                draft.stores[part].append(place)


def _carries(task: _Task, draft: _Draft) -> None:
    """The memory of carries; also a copy of their type that products read."""
    operands = {name for _, op in task.products() for name in op.operands}
    for gradient in task.flow.gradients:
        operands |= {gradient.right, *(left for _, left in gradient.rows if len(gradient.rows) == 1)}
    operands |= {task.origin(name) for name in operands}
    for carry in task.flow.program.carries:
        _carry(task, draft, carry, not operands.isdisjoint((carry.before, carry.after)))


def _carry(task: _Task, draft: _Draft, carry: Carry, multiplied: bool) -> None:
    """The memory of one carry; ``multiplied``: a product reads one of its ends."""
    forwards = task.flow.forwards
    home = Home.LATEST if task.single else Home.ROLLING
    if forwards or task.in_time(carry.before, carry.after) or (task.single and _is_shared(task, carry)):
        home = Home.HISTORY  # samples end at any step; what several threads read may be read after one has stored it
    product = task.is_made_by(carry.after, ir.Product)
    named = carry.after.removesuffix(" next") if forwards else carry.before.removesuffix("<-")
    stem = ascii_name(identifier(named))
    state = draft.add(task, [carry.before], home, exact=not product, called=stem + SUFFIXES[home])
    operand: Buffer | None = None
    if multiplied:
        operand = state if product else draft.add(task, [carry.before], home, called=f"{stem}_operand")
    draft.carries.append(Kept(carry, state, operand))
    draft.reads[carry.before] = Columns(state)
    draft.reads.setdefault(carry.after, Columns(state, late=True))
    if forwards:
        draft.reads[first_state(carry.before)] = Columns(state, first=True)
    if (name := last_state(carry)) in task.made:
        draft.outputs[name] = draft.add(task, [name], Home.FINAL, exact=True, called=f"{stem}_final")
        draft.stores[name].append(Columns(draft.outputs[name]))
    if not product:
        draft.stores[carry.after] += [Columns(each, late=True) for each in (state, operand) if each is not None]


def _is_shared(task: _Task, carry: Carry) -> bool:
    """Whether several threads of a kernel read the same unit of a carry."""
    loaders = [region for region in task.plan.in_phase(Phase.LOOP) if carry.before in region.loads]
    return any(region.units != task.flow.width(carry.before) for region in loaders)


def _delays(task: _Task, draft: _Draft) -> None:
    """What is left for earlier steps; of states, the history of the carry is what later ones read."""
    for delay in task.flow.program.delays if not task.flow.forwards else ():
        draft.stores[delay.after].append(Columns(draft.reads[delay.before].buffer))


# --- what is read together ----------------------------------------------------------------------------------------


def _operands(task: _Task, draft: _Draft) -> None:
    """The operands of products and gradients: one contiguous matrix each."""
    demands = [(op.operands, phase is not Phase.LOOP) for phase, op in task.products()]
    for gradient in task.flow.gradients:
        demands += [(tuple(left for _, left in gradient.rows), True), ((gradient.right,), True)]
    flat = {frozenset(names) for names, in_time in demands if in_time or task.in_time(*names)}
    for names, _ in demands:
        key = frozenset(names)
        if key not in draft.stacks:
            draft.stacks[key] = _stack(task, draft, sorted(key, key=task.order.__getitem__), key in flat)


def _stack(task: _Task, draft: _Draft, names: Sequence[str], in_time: bool) -> tuple[Columns, tuple[str, ...]]:
    """The memory of a product's operands."""
    if len(names) == 1:
        (name,) = map(task.origin, names)
        kept = draft.kept(name)
        if kept is not None and kept.operand is not None:
            return Columns(kept.operand, late=name == kept.carry.after), (names[0],)
        if not task.is_made_by(name, ir.Pointwise):
            return task.matrices.get(name) or draft.reads[name], (names[0],)
        if names[0] != name:
            own = draft.stacks.setdefault(frozenset((name,)), _stack(task, draft, (name,), in_time))
            return own[0], (names[0],)
    made = draft.add(task, names, Home.SEQUENCE if in_time else Home.STEP)
    for name, place in _side_by_side(task.flow, names, made).items():
        draft.stores[name].append(place)
    return Columns(made), tuple(names)


def _outputs(task: _Task, draft: _Draft) -> None:
    """What is given to the caller lies in memory that nothing else reads."""
    for name in task.flow.outputs:
        if name not in draft.outputs:
            called = f"{ascii_name(identifier(name))}_out"
            draft.outputs[name] = draft.add(task, [name], Home.SEQUENCE, called=called)
            draft.stores[name].append(Columns(draft.outputs[name]))


def _totals(task: _Task, draft: _Draft) -> None:
    """In a kernel that runs over the whole loop, each thread sums its own share of a gradient."""
    if not task.single:
        return
    for value in dict.fromkeys(total.value for total in task.flow.sums):
        if value in task.made and task.made[value][0] is Phase.LOOP:
            called = f"{ascii_name(identifier(value))}_totals"
            draft.totals[value] = draft.add(task, [value], Home.LATEST, exact=True, called=called)


def _others(task: _Task, draft: _Draft) -> None:
    """Memory for everything else that is read where it is not computed."""
    flow = task.flow
    sums = {total.value for total in flow.sums} - set(draft.totals)
    summed = {task.origin(op.operand) for ops in flow.phases for op in ops if isinstance(op, Along)}
    wanted = {task.origin(n) for region in task.plan.regions for n in region.loads} | summed | set(flow.kept) | sums
    for name in sorted(wanted, key=task.order.__getitem__):
        if not task.is_made_by(name, ir.Pointwise):
            continue
        fits = [p for p in draft.stores[name] if _serves(task, draft, name, p)]
        fits = [p for p in fits if not (name in sums and p.buffer.element is Element.EXACT)]
        fits = [p for p in fits if p.pitch is None or name not in summed]
        if not fits:
            home = Home.SEQUENCE if task.in_time(name) else Home.STEP
            fits = [Columns(draft.add(task, [name], home, exact=home is Home.STEP))]
            draft.stores[name] += fits
        draft.reads[name] = fits[0]


def _serves(task: _Task, draft: _Draft, name: str, place: Columns) -> bool:
    """Whether ``place`` can be read by whoever reads ``name``."""
    if place.buffer in draft.outputs.values():
        return False
    if place.buffer.home in (Home.SEQUENCE, Home.HISTORY):
        return True
    return not task.in_time(name) and place.buffer.home is not Home.LATEST


def _summed(task: _Task, draft: _Draft) -> dict[str, Columns]:
    """Where the values that are summed over steps and samples are read: together, as far as may be."""
    values = dict.fromkeys(total.value for total in task.flow.sums if total.value not in draft.totals)
    places = {name: [p for p in (*draft.stores[name], draft.reads[name]) if _serves(task, draft, name, p)] for name in values}
    places = {name: [p for p in own if p.buffer.element is not Element.EXACT] for name, own in places.items()}
    holds: defaultdict[Buffer, int] = defaultdict(int)
    for name in values:
        for each in {p.buffer for p in places[name]}:
            holds[each] += 1
    return {name: max(places[name], key=lambda p: holds[p.buffer]) for name in values}


# --- sharing ------------------------------------------------------------------------------------------------------


def _share(task: _Task, draft: _Draft) -> None:
    """Let values of the loop overwrite what only the region that computes them reads: gates their pre-activations."""
    flow, width = task.flow, task.flow.width
    reader = _only_readers(task, draft)
    alone = defaultdict[Buffer, set[str]](set)
    for name, places in draft.stores.items():
        for each in places:
            alone[each.buffer].add(name)
    stacked = {stack.buffer for stack, _ in draft.stacks.values()}
    for region in task.plan.in_phase(Phase.LOOP):
        for name in region.results:
            place = draft.reads.get(name)
            if place is None or place.buffer.home is not Home.SEQUENCE or len(alone[place.buffer]) != 1:
                continue
            if place.buffer in stacked or place.buffer in draft.outputs.values():
                continue
            same = [f for f, own in reader.items() if own is region and width(f) == width(name)]
            same.sort(key=lambda f: flow.program.values[f].origin != flow.program.values[name].origin)
            if same and width(name) == region.units:
                del reader[same[0]]
                draft.buffers.remove(place.buffer)
                draft.stores[name] = [draft.reads[same[0]] if p == place else p for p in draft.stores[name]]
                draft.reads[name] = draft.reads[same[0]]


def _only_readers(task: _Task, draft: _Draft) -> dict[str, Region]:
    """What products leave before the loop for one of its regions alone, and that region."""
    readers: defaultdict[str, list[Region]] = defaultdict(list)
    for region in task.plan.regions:
        for name in region.loads:
            readers[task.origin(name)].append(region)
    needed = task.late | {task.origin(n) for names in draft.stacks for n in names} | set(draft.outputs)
    made = (name for phase, op in task.products() if phase is Phase.BEFORE for name in op.outs if name not in needed)
    alone = {name: readers[name][0] for name in made if len(readers[name]) == 1}
    return {name: region for name, region in alone.items() if region.phase is Phase.LOOP and name in region.loads}


def _rename(task: _Task, draft: _Draft) -> None:
    """Call a buffer whose columns have all been overwritten after what lies there in the end."""
    for old in list(draft.buffers):
        here = [name for name in task.made if name in draft.reads and draft.reads[name].buffer == old]
        by_start = {draft.reads[name].start: name for name in here}
        residents = [by_start[start] for start in dict.fromkeys(draft.reads[name].start for name in here)]
        if old.home is not Home.SEQUENCE or len(here) == len(residents) or any(not draft.stores[n] for n in residents):
            continue
        wanted = draft.names.together([ascii_name(identifier(name)) for name in residents]) + SUFFIXES[Home.SEQUENCE]
        draft.replaced(old, replace(old, name=draft.names.get(("renamed", old), wanted)))


_PASSES = (_results, _carries, _delays, _operands, _outputs, _totals, _others, _share, _rename)
