"""Where the values of one direction live: which share memory, which lie side by side, and in which buffers.

Three decisions, in this order:

- *Sharing*: an elementwise instruction writes over an operand that it is the last to read. Gates overwrite their
  pre-activations, cotangents overwrite their factors.
- *Packing*: values that a product writes or reads as one stack lie side by side in one buffer; elementwise instructions of one
  kind on neighbours become one call (superword-level parallelism, on arrays).
- *Buffers*: a pack, or a value alone, gets a buffer; buffers whose lifetimes do not meet share one.

Per-step arrays are feature-major, ``[n, B]``: every value is a contiguous block of rows of its buffer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from cellspec import ir
from cellspec.backends.numpy.instructions import Arg, Code, Elementwise, Instruction, Region, Scalar, reads, writes
from cellspec.cell import Shape
from cellspec.ir import Value


class Home(Enum):
    """The kind of memory that a value lives in."""

    STEP = "step"  # [n, B]: overwritten at every step
    SEQUENCE = "sequence"  # [T, n, B]
    FLAT = "flat"  # [n, T, B]: what one product over all steps and samples writes
    STATE = "state"  # [T + 1, n, B]: a forward carry, before and after each step
    GIVEN = "given"  # the caller's [T, B, n], or another direction's memory
    CONSTANT = "constant"  # [n, 1] or a matrix
    USER = "user"  # [T, B, n]: written for the caller


@dataclass(frozen=True)
class Packed:
    """``ufunc`` on blocks of neighbours: ``outs`` side by side, each argument shared, or side by side in the same order."""

    ufunc: str
    outs: tuple[str, ...]
    args: tuple[tuple[str, ...] | Scalar, ...]


Step = Packed | ir.MatMul | ir.Product | ir.Concat | ir.Slice | ir.Roll | ir.SumTo


@dataclass(frozen=True)
class Block:
    """A run of neighbouring values in a buffer: rows ``start`` to ``stop`` of its list of places."""

    buffer: int
    start: int
    stop: int


@dataclass(frozen=True)
class Buffer:
    """A buffer: the shapes of the places that it holds side by side, in which memory; ``members`` are the values at each place."""

    home: Home
    shapes: tuple[Shape, ...]
    members: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Storage:
    """The plan of one direction."""

    code: Code
    steps: tuple[tuple[Step, ...], ...]  # by region
    buffers: tuple[Buffer, ...]
    place: Mapping[str, tuple[int, int]]  # value → buffer, place
    values: Mapping[str, Value]
    copied_carries: tuple[ir.Carry, ...]  # carries whose two ends do not share memory

    def block(self, names: Sequence[str]) -> Block | None:
        """The block that holds ``names`` in this order, if they are neighbours."""
        places = [self.place[name] for name in names if name in self.place]
        if len(places) != len(names):
            return None
        buffer, start = places[0]
        if [(buffer, start + k) for k in range(len(places))] != places:
            return None
        return Block(buffer, start, start + len(places))

    def home(self, name: str) -> Home:
        """The kind of memory that ``name`` lives in."""
        return self.buffers[self.place[name][0]].home


@dataclass(frozen=True)
class Demands:
    """What the surroundings ask of a direction's memory: ``keep`` outlives it, ``given`` comes from outside."""

    keep: frozenset[str]
    given: frozenset[str]
    states: bool  # whether carries keep every step (forward) or only the latest (backward)
    rank: Mapping[str, tuple[int, ...]]  # value → its place among neighbours


def plan(code: Code, demands: Demands) -> Storage:
    """Decide where every value of ``code`` lives."""
    return _Planner(code, demands).run()


class _Planner:
    def __init__(self, code: Code, demands: Demands) -> None:
        self.code, self.demands = code, demands
        self.program = code.schedule.program
        self.values = dict(code.values)
        self.regions: tuple[tuple[Instruction, ...], ...] = code.regions
        self.sequence: list[tuple[Region, Instruction]] = [(r, i) for r in Region for i in code.regions[r]]
        self.constants = {*self.program.constants, *(o for op in code.schedule.prologue for o in ir.outs(op))}
        self.defined: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.homes: dict[str, Home] = {}
        self.parent: dict[str, str] = {}
        self.packs: list[list[str]] = []
        self.in_pack: dict[str, int] = {}

    # --- lifetimes -------------------------------------------------------------------------------------------

    def lifetimes(self) -> None:
        """When each value is defined and last read, as positions in the direction's instructions."""
        end = len(self.sequence)
        for name in (*self.constants, *self.program.sequences, *(c.before for c in self.program.carries)):
            self.defined[name] = -1
        for k, (_, instruction) in enumerate(self.sequence):
            for name in writes(instruction):
                self.defined[name] = k
            for name in reads(instruction):
                if name in self.defined:
                    self.last[name] = k
        for gradient in self.code.schedule.gradients:
            for name in (gradient.right, *(left for _, left in gradient.rows)):
                self.last[name] = end
        for total in self.code.schedule.sums:
            self.last[total.value] = end
        for name in (*self.demands.keep, *self.program.outputs):
            self.last[name] = end
        for carry in self.program.carries:
            self.last[carry.after] = end

    def find_homes(self) -> None:
        """The kind of memory that each value asks for, before sharing."""
        region_of = {name: region for region, i in self.sequence for name in writes(i)}
        crossing: set[str] = set()
        for region, instruction in self.sequence:
            crossing.update(n for n in reads(instruction) if region_of.get(n, region) != region)
        for name in self.defined:
            if name in self.constants:
                self.homes[name] = Home.CONSTANT
            elif name in self.demands.given or name in self.program.sequences:
                self.homes[name] = Home.GIVEN
            elif region_of.get(name) is Region.LOOP and self.last.get(name, 0) < len(self.sequence) and name not in crossing:
                self.homes[name] = Home.STEP
            else:
                self.homes[name] = Home.SEQUENCE
        for _, instruction in self.sequence:
            if isinstance(instruction, ir.Product) and region_of[instruction.outs[0]] is not Region.LOOP:
                self.homes |= dict.fromkeys(instruction.outs, Home.FLAT)
                if len(instruction.outs) == 1 and instruction.outs[0] in self.program.outputs and not self.demands.states:
                    self.homes[instruction.outs[0]] = Home.USER
        for carry in self.program.carries:
            home = Home.STATE if self.demands.states else Home.STEP
            self.homes[carry.before] = self.homes[carry.after] = home

    # --- sharing ---------------------------------------------------------------------------------------------

    def root(self, name: str) -> str:
        while self.parent.get(name, name) != name:
            name = self.parent[name]
        return name

    def members(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = defaultdict(list)
        for name in self.defined:
            groups[self.root(name)].append(name)
        return groups

    def share(self) -> None:
        """Let elementwise results overwrite operands that are read for the last time."""
        lasting = self.lasting()
        for k, (_, instruction) in enumerate(self.sequence):
            if not isinstance(instruction, Elementwise):
                continue
            out = instruction.out
            dying = [a for a in dict.fromkeys(reads(instruction)) if self.can_overwrite(a, out, k)]
            if instruction.ufunc in ("where", "erf"):
                dying = []
            rank = {Home.SEQUENCE: 0, Home.STATE: 1, Home.STEP: 2}
            dying.sort(key=lambda a: rank[self.home_of_class(a)])
            if out not in lasting:
                dying = [a for a in dying if self.home_of_class(a) is Home.STEP]
            elif not self.demands.states:
                ends = {n for c in self.program.carries for n in (c.before, c.after)}
                dying = [a for a in dying if not ends.intersection(n for n in self.defined if self.root(n) == self.root(a))]
            if dying:
                self.parent[self.root(out)] = self.root(dying[0])
        if not self.demands.states:
            for carry in self.program.carries:
                self.join_ends(carry)

    def lasting(self) -> set[str]:
        """Values that will, through sharing, live in a sequence."""
        found = {name for name, home in self.homes.items() if home in (Home.SEQUENCE, Home.STATE)}
        for k in reversed(range(len(self.sequence))):
            _, instruction = self.sequence[k]
            if isinstance(instruction, Elementwise) and instruction.out in found:
                shape = self.values[instruction.out].shape
                for name in reads(instruction):
                    if self.last.get(name) == k and self.homes[name] is Home.STEP and self.values[name].shape == shape:
                        found.add(name)
        return found

    def home_of_class(self, name: str) -> Home:
        root = self.root(name)
        homes = {self.homes[n] for n in self.defined if self.root(n) == root}
        return next(h for h in (Home.STATE, Home.SEQUENCE, Home.STEP, *Home) if h in homes)

    def can_overwrite(self, operand: str, out: str, position: int) -> bool:
        """Whether ``out``, defined at ``position``, may take the place of ``operand``."""
        allowed = (Home.STEP, Home.SEQUENCE)
        if self.homes[operand] not in allowed or self.homes[out] not in (*allowed, Home.STATE):
            return False
        if self.values[operand].shape != self.values[out].shape:
            return False
        root = self.root(operand)
        together = [n for n in self.defined if self.root(n) == root]
        if any(self.last.get(n, -1) > position for n in together):
            return False
        carried = {c.before for c in self.program.carries} | {c.after for c in self.program.carries}
        if self.demands.states and carried.intersection(together):
            return False
        # The end of one carry must not lie where another begins: the copies between steps would get in one another's way.
        others = {c.before for c in self.program.carries if c.after != out}
        if any(c.after == out for c in self.program.carries) and others.intersection(together):
            return False
        region = self.sequence[position][0]
        # A sequence written before the loop is overwritten step by step inside it; after the loop it is whole again.
        return not (region is Region.AFTER and any(self.homes[n] is Home.STEP for n in together))

    def join_ends(self, carry: ir.Carry) -> None:
        """Let a backward carry's new value overwrite its old one, where the old one is no longer read."""
        first = [n for n in self.defined if self.root(n) == self.root(carry.before)]
        second = [n for n in self.defined if self.root(n) == self.root(carry.after)]
        starts = min(self.defined[n] for n in second)
        at_once = isinstance(self.sequence[starts][1], Elementwise) if starts >= 0 else False
        ends = max(self.last.get(n, -1) for n in first)
        separate = ends < starts or (ends == starts and at_once and self.sequence[starts][1].ufunc != "where")  # type: ignore[union-attr]
        if separate and self.root(carry.before) != self.root(carry.after) and not any(c.after in first for c in self.program.carries):
            self.parent[self.root(carry.after)] = self.root(carry.before)

    # --- packing ---------------------------------------------------------------------------------------------

    def packable(self, name: str) -> bool:
        if self.homes[name] in (Home.GIVEN, Home.STATE, Home.USER):
            return False
        return self.homes[name] is Home.CONSTANT or self.home_of_class(name) is not Home.STATE

    def fits(self, names: Sequence[str]) -> bool:
        """Whether ``names`` are, or can be made, neighbours in this order."""
        roots = [self.root(n) for n in names]
        if len(set(roots)) != len(roots):
            return False
        known = [self.in_pack.get(r) for r in roots]
        if all(k is None for k in known):
            return all(map(self.packable, names)) and len({self.home_of_class(n) for n in names}) == 1
        if len(set(known)) != 1 or known[0] is None:
            return False
        pack = self.packs[known[0]]
        start = pack.index(roots[0])
        return pack[start : start + len(roots)] == roots

    def make_pack(self, names: Sequence[str]) -> None:
        roots = [self.root(n) for n in names]
        if roots[0] not in self.in_pack:
            self.packs.append(roots)
            self.in_pack |= dict.fromkeys(roots, len(self.packs) - 1)

    def ranked(self, names: Iterable[str]) -> list[str]:
        order = list(names)
        return sorted(order, key=lambda n: (self.demands.rank.get(n, (99,)), order.index(n)))

    def pack_products(self) -> None:
        """Stacks that products write and read, and the stacks of gradients."""
        products = [i for _, i in self.sequence if isinstance(i, ir.Product)]
        stacks = [self.ranked(names) for p in products for names in (p.outs, p.operands) if len(names) > 1]
        for names in sorted(stacks, key=len, reverse=True):
            if self.fits(names):
                self.make_pack(names)
        self.regions = tuple(
            tuple(part for i in region for part in (self.split(i) if isinstance(i, ir.Product) else (i,)))
            for region in self.code.regions
        )
        for gradient in self.code.schedule.gradients:
            lefts = self.ranked(left for _, left in gradient.rows)
            if len(lefts) > 1 and self.fits(lefts):
                self.make_pack(lefts)

    def split(self, product: ir.Product) -> Iterator[Instruction]:
        """``product``, or several with the same results where its results or operands cannot be neighbours."""
        if len(product.outs) > 1 and not self.fits(self.ranked(product.outs)):
            for out, weights in zip(product.outs, product.weights, strict=True):
                yield replace(product, outs=(out,), weights=(weights,))
        elif len(product.operands) > 1 and not self.fits(self.ranked(product.operands)):
            (out,), (weights,) = product.outs, product.weights
            parts = []
            for k, (weight, operand) in enumerate(zip(weights, product.operands, strict=True)):
                part = f"{out}.{k}"
                self.values[part] = replace(self.values[out], name=part)
                self.homes[part] = self.homes[out] if self.homes[out] is Home.FLAT else self.home_of_class(out)
                if self.homes[part] is Home.STATE:
                    self.homes[part] = Home.STEP
                self.defined[part], self.last[part] = self.defined[out], self.defined[out]
                yield ir.Product((part,), ((weight,),), (operand,), product.transposed)
                parts.append(part)
            total = parts[0]
            for k, part in enumerate(parts[1:], 2):
                target = out if k == len(parts) else f"{out}.sum{k}"
                if target != out:
                    self.values[target] = replace(self.values[out], name=target)
                    self.homes[target] = self.homes[parts[0]]
                    self.defined[target], self.last[target] = self.defined[out], self.defined[out]
                yield Elementwise("add", target, (total, part))
                total = target
        else:
            yield product

    def group(self, instructions: Sequence[Instruction]) -> list[Step]:
        """One region's instructions with neighbours' elementwise work done in one call, in an order that respects dependencies."""
        depth: dict[str, int] = {}
        kinds: defaultdict[tuple[object, ...], list[Elementwise]] = defaultdict(list)
        for instruction in instructions:
            level = max((depth.get(n, 0) for n in reads(instruction)), default=0) + 1
            depth |= dict.fromkeys(writes(instruction), level)
            if isinstance(instruction, Elementwise) and instruction.ufunc not in ("where", "erf"):
                shapes = tuple(
                    a if isinstance(a, Scalar) else (self.values[a].shape, self.homes[a] is Home.CONSTANT, self.homes[a] is Home.FLAT)
                    for a in instruction.args
                )
                kinds[(level, instruction.ufunc, *shapes)].append(instruction)
        together: dict[str, Packed] = {}
        for members in kinds.values():
            for run in self.runs(members):
                together |= dict.fromkeys(run.outs, run)
        return self.ordered(instructions, together)

    def runs(self, members: list[Elementwise]) -> list[Packed]:
        """Maximal runs of ``members`` whose results and arguments can be neighbours."""
        members = sorted(members, key=lambda i: self.demands.rank.get(i.out, (99,)))
        result: list[Packed] = []
        pending = members
        while pending:
            run, rest = [pending[0]], []
            for candidate in pending[1:]:
                if not rest_blocks(run, rest) and self.joins([*run, candidate]):
                    run.append(candidate)
                else:
                    rest.append(candidate)
            columns = self.columns(run)
            packed = Packed(run[0].ufunc, tuple(i.out for i in run), columns)
            stacks = [packed.outs, *(c for c in columns if not isinstance(c, Scalar) and len(c) > 1)] if len(run) > 1 else []
            for names in stacks:
                if self.fits(names):
                    self.make_pack(names)
            if all(map(self.fits, stacks)):
                result.append(packed)
            else:
                result.extend(_unpacked(packed))
            pending = rest
        return result

    def columns(self, run: Sequence[Elementwise]) -> tuple[tuple[str, ...] | Scalar, ...]:
        columns: list[tuple[str, ...] | Scalar] = []
        for column in zip(*(i.args for i in run), strict=True):
            first: Arg = column[0]
            if isinstance(first, Scalar):
                columns.append(first)
            else:
                names = tuple(str(c) for c in column)
                columns.append(names[:1] if len(set(names)) == 1 else names)
        return tuple(columns)

    def joins(self, run: Sequence[Elementwise]) -> bool:
        """Whether the instructions of ``run`` can be one call."""
        columns = self.columns(run)
        stacks = [c for c in columns if not isinstance(c, Scalar) and len(c) > 1]
        if not stacks:
            return False
        if any(not isinstance(c, Scalar) and len(c) == 1 and self.values[c[0]].shape not in ((), (1,)) for c in columns):
            shapes = {self.values[i.out].shape for i in run}
            if len(shapes) > 1 or any(self.homes[n] is Home.FLAT for c in stacks for n in c):
                return False
        return all(map(self.fits, [tuple(i.out for i in run), *stacks]))

    def ordered(self, instructions: Sequence[Instruction], together: Mapping[str, Packed]) -> list[Step]:
        """The region's steps in dependency order, each as early as its first instruction allows."""
        mine = {n for i in instructions for n in writes(i)}
        waiting: list[Step] = []
        for instruction in instructions:
            match instruction:
                case Elementwise(out=out, ufunc=ufunc, args=args):
                    alone = Packed(ufunc, (out,), tuple(a if isinstance(a, Scalar) else (a,) for a in args))
                    step: Step = together.get(out, alone)
                case ir.MatMul() | ir.Product() | ir.Concat() | ir.Slice() | ir.Roll() | ir.SumTo():
                    step = instruction
                case _:
                    raise NotImplementedError(f"the NumPy backend has no code for {instruction}")
            if not waiting or step not in waiting:
                waiting.append(step)
        blockers = self.overwritten(instructions)
        done: set[str] = set()
        result: list[Step] = []

        def ready(step: Step) -> bool:
            mentioned = {*mine.intersection(step_reads(step)), *(n for out in step_writes(step) for n in blockers[out])}
            return done.issuperset(mentioned - set(step_writes(step)))

        while waiting:
            step = next(filter(ready, waiting), waiting[0])
            waiting.remove(step)
            if not ready(step):  # neighbours that wait for one another: call by call, then
                waiting.insert(0, step)
                stuck = next(s for s in waiting if isinstance(s, Packed) and len(s.outs) > 1)
                where = waiting.index(stuck)
                waiting[where : where + 1] = _unpacked(stuck)
                continue
            done.update(step_writes(step))
            result.append(step)
        return result

    def overwritten(self, instructions: Sequence[Instruction]) -> dict[str, set[str]]:
        """For each value, the results that must be computed before its place is written: those that read or write it earlier."""
        touched: defaultdict[str, set[str]] = defaultdict(set)
        blockers: dict[str, set[str]] = {}
        for instruction in instructions:
            outs = writes(instruction)
            for out in outs:
                blockers[out] = set(touched[self.root(out)])
            for name in (*reads(instruction), *outs):
                if name in self.defined:
                    touched[self.root(name)].update(outs)
        return blockers

    # --- buffers ---------------------------------------------------------------------------------------------

    def run(self) -> Storage:
        self.lifetimes()
        self.find_homes()
        self.share()
        self.pack_products()
        steps = tuple(tuple(self.group(self.regions[region])) for region in Region)
        groups = self.members()
        buffers: list[Buffer] = []
        place: dict[str, tuple[int, int]] = {}
        befores = {c.before for c in self.program.carries} if self.demands.states else set()
        alone = [[r] for r in groups if r not in self.in_pack and self.homes[r] is not Home.GIVEN and r not in befores]
        for pack in (*self.packs, *alone):
            home = self.home_of_class(pack[0])
            if home is Home.CONSTANT and len(pack) == 1:
                continue
            members = tuple(tuple(sorted(groups[root], key=self.defined.__getitem__)) for root in pack)
            for k, names in enumerate(members):
                place |= dict.fromkeys(names, (len(buffers), k))
            buffers.append(Buffer(home, tuple(self.values[root].shape for root in pack), members))
        if self.demands.states:
            place |= {c.before: place[c.after] for c in self.program.carries}
        copied = tuple(c for c in self.program.carries if not self.demands.states and place[c.before] != place[c.after])
        return Storage(self.code, steps, tuple(buffers), place, self.values, copied)


def _unpacked(step: Packed) -> list[Packed]:
    """The calls that ``step`` had joined."""
    return [
        Packed(step.ufunc, (out,), tuple(c if isinstance(c, Scalar) else c[k : k + 1] if len(c) > 1 else c for c in step.args))
        for k, out in enumerate(step.outs)
    ]


def rest_blocks(run: Sequence[Elementwise], rest: Sequence[Elementwise]) -> bool:
    """Runs are contiguous in rank order: once a candidate was refused, the run is closed."""
    return bool(rest) and len(run) > 1


def step_reads(step: Step) -> tuple[str, ...]:
    """The values that a step reads."""
    if isinstance(step, Packed):
        return tuple(name for column in step.args if not isinstance(column, Scalar) for name in column)
    return ir.operands(step)


def step_writes(step: Step) -> tuple[str, ...]:
    """The values that a step defines."""
    return step.outs if isinstance(step, Packed) else ir.outs(step)
