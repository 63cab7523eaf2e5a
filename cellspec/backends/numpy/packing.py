"""Packing: which values of one direction lie side by side, and which elementwise instructions become one call; the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cellspec import ir
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.numpy.instructions import (
    HELPERS,
    Arg,
    Code,
    Elementwise,
    Instruction,
    Scalar,
    reads,
    writes,
)
from cellspec.backends.numpy.sharing import Sharing, share
from cellspec.backends.numpy.storage import Demands, Packed, Slots, Step, Storage, is_mixed, step_reads, step_writes
from cellspec.backends.numpy.turns import in_turn, unpacked


def plan(code: Code, demands: Demands) -> Storage:
    """Decide where every value of ``code`` lives."""
    return _Planner(share(code, demands), code.regions).run()


@dataclass
class _Planner:
    known: Sharing
    regions: tuple[tuple[Instruction, ...], ...]
    packs: list[list[str]] = field(default_factory=list)
    in_pack: dict[str, tuple[int, int]] = field(default_factory=dict)  # root -> its pack, and its place there
    products_packed: bool = False

    def packable(self, name: str) -> bool:
        if not self.known.demands.neighbours or self.known.homes[name] in (Home.GIVEN, Home.HISTORY, Home.USER):
            return False
        if self.known.homes[name] is Home.FLAT and self.products_packed:
            return False  # a product over all steps writes the whole of its buffer
        return self.known.homes[name] is Home.CONSTANT or self.known.home_of_class(name) is not Home.HISTORY

    def fits(self, names: Sequence[str]) -> bool:
        """Whether ``names`` are, or can be made, neighbours in this order."""
        roots = [self.known.root(n) for n in names]
        if len(set(roots)) != len(roots):
            return False
        first = self.in_pack.get(roots[0])
        if first is None:
            free = not any(r in self.in_pack for r in roots) and all(map(self.packable, names))
            return free and len({self.known.home_of_class(n) for n in names}) == 1
        return all(self.in_pack.get(r) == (first[0], first[1] + k) for k, r in enumerate(roots))

    def follows(self, name: str, stack: Sequence[str], roots: Collection[str]) -> bool:
        """Whether ``name`` fits behind ``stack``, which fits itself; ``roots`` are its classes."""
        root, last = self.known.root(name), self.in_pack.get(self.known.root(stack[-1]))
        if root in roots:
            return False
        if last is None:
            return (
                root not in self.in_pack
                and self.packable(name)
                and self.known.home_of_class(name) is self.known.home_of_class(stack[0])
            )
        return self.in_pack.get(root) == (last[0], last[1] + 1)

    def make_pack(self, names: Sequence[str]) -> None:
        roots = [self.known.root(n) for n in names]
        if roots[0] not in self.in_pack:
            self.in_pack |= {root: (len(self.packs), k) for k, root in enumerate(roots)}
            self.packs.append(roots)

    def ranked(self, names: Iterable[str]) -> list[str]:
        order = list(names)
        return sorted(order, key=lambda n: (self.known.demands.rank.get(n, (99,)), order.index(n)))

    def pack_products(self) -> None:
        """Stacks that products write and read, and the stacks of gradients."""
        products = [i for _, i in self.known.sequence if isinstance(i, ir.Product)]
        for product in products:
            if len(product.outs) > 1 and self.known.homes[product.outs[0]] is Home.FLAT and not self.uneven(product):
                self.make_pack(self.ranked(product.outs))
        self.products_packed = True
        even = [p for p in products if not self.uneven(p)]
        stacks = [self.ranked(names) for p in even for names in (p.outs, p.operands) if len(names) > 1]
        for names in sorted(stacks, key=len, reverse=True):
            if self.fits(names):
                self.make_pack(names)
        self.regions = tuple(
            tuple(part for i in region for part in (self.split(i) if isinstance(i, ir.Product) else (i,)))
            for region in self.known.code.regions
        )
        for gradient in self.known.code.schedule.gradients:
            lefts = self.ranked(left for _, left in gradient.rows)
            if len(lefts) > 1 and self.fits(lefts):
                self.make_pack(lefts)

    def uneven(self, product: ir.Product) -> bool:
        """Whether the heads' matrices of several results have several shapes: they do not make one array."""
        shapes = {self.known.values[weight].shape for row in product.weights for weight in row}
        return len(shapes) > 1 and any(len(shape) == 3 for shape in shapes)

    def split(self, product: ir.Product) -> Iterator[Instruction]:
        """``product``, or several with the same results where its results or operands cannot all be neighbours."""
        outs, operands = self.neighbours(product.outs), self.neighbours(product.operands)
        if self.uneven(product) or len(operands) > 1:
            outs = [[out] for out in product.outs]
        if len(outs) > 1:
            rows = dict(zip(product.outs, product.weights, strict=True))
            for run in outs:
                yield from self.split(replace(product, outs=tuple(run), weights=tuple(rows[out] for out in run)))
        elif len(operands) > 1:
            yield from self.summed(product, operands)
        else:
            for names in (*outs, *operands):
                if len(names) > 1:
                    self.make_pack(names)
            yield product

    def neighbours(self, names: Sequence[str]) -> list[list[str]]:
        """``names`` in runs, as long as can be, that are or can be made neighbours."""
        runs: list[list[str]] = []
        roots: set[str] = set()
        for name in self.ranked(names):
            if runs and (self.follows(name, runs[-1], roots) if len(runs[-1]) > 1 else self.fits([*runs[-1], name])):
                runs[-1].append(name)
            else:
                runs.append([name])
                roots = set()
            roots.add(self.known.root(name))
        return runs

    def summed(self, product: ir.Product, runs: Sequence[Sequence[str]]) -> Iterator[Instruction]:
        """A product with one result as a sum, with a term for each of the ``runs`` of its operands."""
        (out,), (row,) = product.outs, product.weights
        weights: defaultdict[str, list[str]] = defaultdict(list)  # an operand may come more than once
        for operand, weight in zip(product.operands, row, strict=True):
            weights[operand].append(weight)

        def term(result: str, run: Sequence[str]) -> ir.Product:
            return ir.Product((result,), (tuple(weights[name].pop(0) for name in run),), tuple(run), product.transposed)

        whole = self.known.homes[out] if self.known.homes[out] in (Home.FLAT, Home.USER) else Home.SEQUENCE
        apart = Home.STEP if self.known.sequence[self.known.defined[out]][0] is Phase.LOOP else whole
        total = self.add_value(f"%{out}.0", out, self.known.homes[out])
        yield from self.split(term(total, runs[0]))
        self.known.join(total, out)  # the sum grows where it will stay
        spare = f"%{out}.1"
        for k, run in enumerate(runs[1:], 1):
            part = self.add_value(f"%{out}.{k}", out, apart)
            if part != spare:
                self.known.join(part, spare)
            yield from self.split(term(part, run))
            before, total = total, out
            if k < len(runs) - 1:
                total = self.add_value(f"%{out}.sum{k + 1}", out, self.known.homes[out])
                self.known.join(total, out)
            yield Elementwise("add", total, (before, part))

    def add_value(self, name: str, like: str, home: Home) -> str:
        """A value that comes up between others: ``name``, of the shape of ``like`` and used up where that is defined."""
        self.known.values[name] = replace(self.known.values[like], name=name)
        self.known.homes[name] = home
        self.known.classes.add(name)
        self.known.class_homes[name] = {home}
        self.known.defined[name], self.known.last[name] = self.known.defined[like], self.known.defined[like]
        return name

    def group(self, instructions: Sequence[Instruction]) -> list[Step]:
        """One region's instructions, neighbours' elementwise work in one call, in an order that respects dependencies."""
        depth: dict[str, int] = {}
        kinds: defaultdict[tuple[object, ...], list[Elementwise]] = defaultdict(list)
        for instruction in instructions:
            level = max((depth.get(n, 0) for n in reads(instruction)), default=0) + 1
            depth |= dict.fromkeys(writes(instruction), level)
            if isinstance(instruction, Elementwise) and self.groups(instruction):
                shapes = tuple(
                    a
                    if isinstance(a, Scalar)
                    else (
                        self.known.values[a].shape,
                        self.known.homes[a] is Home.CONSTANT,
                        self.known.homes[a] is Home.FLAT,
                    )
                    for a in instruction.args
                )
                kinds[(level, instruction.ufunc, *shapes)].append(instruction)
        together: dict[str, Packed] = {}
        for members in kinds.values():
            for run in self.runs(members):
                together |= dict.fromkeys(run.outs, run)
        return self.ordered(instructions, together)

    def groups(self, instruction: Elementwise) -> bool:
        """Whether one call can do the work of several such instructions."""
        shapes = (self.known.values[name].shape for name in reads(instruction))
        return instruction.ufunc not in HELPERS and not is_mixed(self.known.values[instruction.out].shape, shapes)

    def runs(self, members: list[Elementwise]) -> list[Packed]:
        """Maximal runs of ``members`` whose results and arguments can be neighbours; whoever cannot join ends a run."""
        members = sorted(members, key=lambda i: self.known.demands.rank.get(i.out, (99,)))
        result: list[Packed] = []
        pending = members
        while pending:
            run: list[Elementwise] = pending[:1]
            rest: list[Elementwise] = []
            if self.is_single(run[0]):
                result.append(Packed(run[0].ufunc, (run[0].out,), self.columns(run)))
                pending = pending[1:]
                continue
            stacks: dict[int, _Stack] = {}  # what must be neighbours: arguments by their positions, and results
            for candidate in pending[1:]:
                if len(run) == 1 and self.joins([*run, candidate]):
                    run.append(candidate)
                    stacks = self.stacks(run)
                elif len(run) > 1 and not rest and self.continues(stacks, run[0], candidate):
                    run.append(candidate)
                    for position, stack in stacks.items():
                        stack.add(_mentioned(candidate)[position], self.known.root)
                else:
                    rest.append(candidate)
            columns = self.columns(run)
            packed = Packed(run[0].ufunc, tuple(i.out for i in run), columns)
            rows = [packed.outs, *(c for c in columns if not isinstance(c, Scalar) and len(c) > 1)] if len(run) > 1 else []
            for names in rows:
                if self.fits(names):
                    self.make_pack(names)
            if all(map(self.fits, rows)):
                result.append(packed)
            else:
                result.extend(unpacked(packed))
            pending = rest
        return result

    def is_single(self, instruction: Elementwise) -> bool:
        """Whether an instruction mentions what has no neighbours, so that it joins no other."""
        names = [n for n in reads(instruction) if not ir.is_one(self.known.values[n].shape)]
        return not all(self.known.root(n) in self.in_pack or self.packable(n) for n in (*names, instruction.out))

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
        outs = [self.known.values[i.out].shape for i in run]
        if not stacks or any([self.known.values[n].shape for n in c] != outs for c in stacks):
            return False
        if any(not isinstance(c, Scalar) and len(c) == 1 and not ir.is_one(self.known.values[c[0]].shape) for c in columns):
            return False  # a shared argument is stretched over the blocks: that takes NumPy longer than calls of equal shapes
        return all(map(self.fits, [tuple(i.out for i in run), *stacks]))

    def stacks(self, run: Sequence[Elementwise]) -> dict[int, _Stack]:
        """What of the instructions of ``run`` lies in stacks, by its position among what they mention."""
        columns = list(zip(*map(_mentioned, run), strict=True))
        several = [k for k, names in enumerate(columns) if isinstance(names[0], str) and len(set(names)) > 1]
        return {k: _Stack([str(n) for n in columns[k]], {self.known.root(str(n)) for n in columns[k]}) for k in several}

    def continues(self, stacks: Mapping[int, _Stack], first: Elementwise, candidate: Elementwise) -> bool:
        """Whether ``candidate`` can join a run of at least two, of which ``first`` is the first and ``stacks`` the operands."""
        shape = self.known.values[candidate.out].shape
        for position, (name, like) in enumerate(zip(_mentioned(candidate), _mentioned(first), strict=True)):
            stack = stacks.get(position)
            if stack is None:
                if name != like:
                    return False
            elif self.known.values[str(name)].shape != shape or not self.follows(str(name), stack.names, stack.roots):
                return False
        return True

    def ordered(self, instructions: Sequence[Instruction], together: Mapping[str, Packed]) -> list[Step]:
        """The region's steps in dependency order, each as early as its first instruction allows."""
        mine = {n for i in instructions for n in writes(i)}
        steps: dict[tuple[str, ...], Step] = {}
        for instruction in instructions:
            match instruction:
                case Elementwise(out=out, ufunc=ufunc, args=args):
                    alone = Packed(ufunc, (out,), tuple(a if isinstance(a, Scalar) else (a,) for a in args))
                    step: Step = together.get(out, alone)
                case _:
                    step = instruction
            steps.setdefault(step_writes(step), step)
        blockers = self.overwritten(instructions)

        def needs(step: Step) -> set[str]:
            mentioned = {*mine.intersection(step_reads(step)), *(n for out in step_writes(step) for n in blockers[out])}
            return mentioned - set(step_writes(step))

        return in_turn(list(steps.values()), needs)

    def overwritten(self, instructions: Sequence[Instruction]) -> dict[str, set[str]]:
        """For each value, the results that come before its place is written: those that read it since it was last written, or
        wrote it then.
        """
        touched: defaultdict[str, set[str]] = defaultdict(set)
        blockers: dict[str, set[str]] = {}
        for instruction in instructions:
            outs = writes(instruction)
            for out in outs:
                blockers[out] = set(touched[self.known.root(out)])
            for name in reads(instruction):
                if name in self.known.defined:
                    touched[self.known.root(name)].update(outs)
            touched |= {self.known.root(out): set(outs) for out in outs}
        return blockers

    def run(self) -> Storage:
        self.pack_products()
        steps = tuple(tuple(self.group(self.regions[region])) for region in Phase)
        groups = self.known.members()
        buffers: list[Slots] = []
        place: dict[str, tuple[int, int]] = {}
        links = (
            self.known.program.links if self.known.demands.states else self.known.program.delays
        )  # with both ends in one history
        befores = {link.before for link in links}
        alone = [[r] for r in groups if r not in self.in_pack and self.known.homes[r] is not Home.GIVEN and r not in befores]
        for pack in (*self.packs, *alone):
            home = self.known.home_of_class(pack[0])
            if home is Home.CONSTANT and len(pack) == 1:
                continue
            members = tuple(tuple(sorted(groups[root], key=self.known.defined.__getitem__)) for root in pack)
            for k, names in enumerate(members):
                place |= dict.fromkeys(names, (len(buffers), k))
            buffers.append(Slots(home, tuple(self.known.values[root].shape for root in pack), members))
        place |= {link.before: place[link.after] for link in links}
        copied = tuple(
            c for c in self.known.program.carries if not self.known.demands.states and place[c.before] != place[c.after]
        )
        return Storage(self.known.code, steps, tuple(buffers), place, self.known.values, copied, self.known.aliases)


@dataclass
class _Stack:
    """Values that are to be neighbours, and the classes that they belong to."""

    names: list[str]
    roots: set[str]

    def add(self, name: Arg, root: Callable[[str], str]) -> None:
        self.names.append(str(name))
        self.roots.add(root(str(name)))


def _mentioned(instruction: Elementwise) -> tuple[Arg, ...]:
    return (*instruction.args, instruction.out)
