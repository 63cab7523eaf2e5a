"""Sharing: which values of one direction overwrite which."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from cellspec import ir
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.memory.sharing import Classes
from cellspec.backends.numpy.instructions import HELPERS, Code, Elementwise, Instruction, reads, writes
from cellspec.backends.numpy.storage import Demands
from cellspec.ir import Program, Value


def share(code: Code, demands: Demands) -> Sharing:
    """Decide which values of a direction lie in the same place, one after the other."""
    made = (name for op in code.schedule.prologue for name in ir.outs(op))
    constants = dict.fromkeys((*code.schedule.program.constants, *made))
    sequence = tuple((phase, instruction) for phase in Phase for instruction in code.regions[phase])
    sharing = Sharing(code, demands, dict(code.values), sequence, constants)
    sharing.lifetimes()
    sharing.find_homes()
    sharing.classes = Classes.of(sharing.defined)
    sharing.find_aliases()
    sharing.class_homes = {root: {sharing.homes[n] for n in names} for root, names in sharing.classes.members.items()}
    sharing.share()
    return sharing


@dataclass
class Sharing:
    """Lifetimes, the memory that each value asks for, and the classes of values that share a place.

    What is asked of a class is kept, by its root, as classes are joined, so that the time does not grow with their sizes.
    Positions count the direction's instructions.
    """

    code: Code
    demands: Demands
    values: dict[str, Value]
    sequence: tuple[tuple[Phase, Instruction], ...]
    constants: dict[str, None]
    defined: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    homes: dict[str, Home] = field(default_factory=dict)
    classes: Classes = field(default_factory=Classes)
    class_homes: dict[str, set[Home]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        return self.code.schedule.program

    def lifetimes(self) -> None:
        """When each value is defined and last read, as positions in the direction's instructions."""
        end = len(self.sequence)
        for name in (*self.constants, *self.program.sequences, *self.program.befores):
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
        for name in self.program.afters:
            self.last[name] = end

    def find_homes(self) -> None:
        """The kind of memory that each value asks for, before sharing."""
        region_of = {name: region for region, i in self.sequence for name in writes(i)}
        crossing: set[str] = set()
        for region, instruction in self.sequence:
            crossing.update(n for n in reads(instruction) if region_of.get(n, region) != region)

        def lasts(name: str) -> bool:
            return name in crossing or self.last.get(name, 0) >= len(self.sequence)

        for name in self.defined:
            if name in self.constants:
                self.homes[name] = Home.CONSTANT
            elif name in self.demands.given or name in self.program.sequences:
                self.homes[name] = Home.GIVEN
            elif self.demands.alone or (region_of.get(name) is Phase.LOOP and not lasts(name)):
                self.homes[name] = Home.STEP
            else:
                self.homes[name] = Home.SEQUENCE
        for _, instruction in self.sequence:
            if isinstance(instruction, ir.Product) and region_of[instruction.outs[0]] is not Phase.LOOP:
                self.homes |= dict.fromkeys(instruction.outs, Home.FLAT if self.demands.neighbours else Home.SEQUENCE)
                out, heads = instruction.outs[0], len(self.values[instruction.weights[0][0]].shape) == 3
                if len(instruction.outs) == 1 and out in self.program.outputs and not (heads or self.demands.states):
                    self.homes[out] = Home.USER
        for carry in self.program.carries:
            home = Home.HISTORY if self.demands.states else Home.STEP
            self.homes[carry.before] = self.homes[carry.after] = home
        for delay in self.program.delays:
            self.homes[delay.before] = self.homes[delay.after] = Home.HISTORY

    def find_aliases(self) -> None:
        """Let a value in another shape lie where it lies; the ends of carries move on, so they are copied instead."""
        ends = {*self.program.befores, *self.program.afters}
        for _, instruction in self.sequence:
            if not isinstance(instruction, ir.Move) or not instruction.in_order:
                continue
            if not ends.intersection((instruction.out, instruction.operand)):
                out, operand = instruction.out, instruction.operand
                if self.homes[operand] is Home.GIVEN:
                    self.homes[out], self.aliases[out] = Home.GIVEN, self.aliases.get(operand, operand)
                elif self.homes[operand] in (Home.STEP, Home.SEQUENCE, Home.FLAT) and self.homes[out] is not Home.USER:
                    if self.homes[operand] is Home.FLAT:
                        self.homes[out] = Home.FLAT
                    self.join(out, operand)
        for names in self.classes.members.values():  # what lies together lasts together
            if Home.SEQUENCE in (homes := {self.homes[n] for n in names}) and Home.STEP in homes:
                self.homes |= dict.fromkeys((n for n in names if self.homes[n] is Home.STEP), Home.SEQUENCE)

    def root(self, name: str) -> str:
        """The name of the class of ``name``."""
        return self.classes.root(name)

    def together(self, name: str) -> list[str]:
        """The values of the class of ``name``."""
        return self.classes.together(name)

    def join(self, name: str, other: str) -> None:
        """Make the class of ``name`` a part of that of ``other``, and what it asks for too."""
        joined = self.classes.join(name, other)
        if joined and self.class_homes:
            below, root = joined
            self.class_homes[root] |= self.class_homes.pop(below)

    def members(self) -> dict[str, list[str]]:
        """The classes by their names, values in the order of their definitions."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name in self.defined:
            groups[self.root(name)].append(name)
        return groups

    def share(self) -> None:
        """Let elementwise results overwrite operands that are read for the last time."""
        lasting = self.lasting()
        ends = {n for c in self.program.carries for n in (c.before, c.after)}
        for k, (_, instruction) in enumerate(self.sequence):
            if not isinstance(instruction, Elementwise):
                continue
            out = instruction.out
            dying = [a for a in dict.fromkeys(reads(instruction)) if self.can_overwrite(a, out, k)]
            if instruction.ufunc in HELPERS:
                dying = []
            rank = {Home.SEQUENCE: 0, Home.HISTORY: 1, Home.STEP: 2}
            dying.sort(key=lambda a: rank[self.home_of_class(a)])
            if out not in lasting:
                dying = [a for a in dying if self.home_of_class(a) is Home.STEP]
            elif not self.demands.states:
                dying = [a for a in dying if not ends.intersection(self.together(a))]
            if dying:
                self.join(out, dying[0])
        if not self.demands.states:
            for carry in self.program.carries:
                self.join_ends(carry)

    def lasting(self) -> set[str]:
        """Values that will, through sharing, live in a sequence."""
        found = {name for name, home in self.homes.items() if home in (Home.SEQUENCE, Home.HISTORY)}
        for k in reversed(range(len(self.sequence))):
            _, instruction = self.sequence[k]
            if isinstance(instruction, Elementwise) and instruction.out in found:
                shape = self.values[instruction.out].shape
                dying = [n for n in reads(instruction) if self.last.get(n) == k and self.values[n].shape == shape]
                if not any(self.homes[n] is Home.SEQUENCE for n in dying):
                    found.update(n for n in dying if self.homes[n] is Home.STEP)
        return found

    def home_of_class(self, name: str) -> Home:
        """The kind of memory that the class of ``name`` lives in: the most lasting that one of its values asks for."""
        homes = self.class_homes[self.root(name)]
        found: Home = next(h for h in (Home.HISTORY, Home.SEQUENCE, Home.STEP, *Home) if h in homes)
        return found

    def can_overwrite(self, operand: str, out: str, position: int) -> bool:
        """Whether ``out``, defined at ``position``, may take the place of ``operand``."""
        allowed = (Home.STEP, Home.SEQUENCE)
        if self.homes[operand] not in allowed or self.homes[out] not in (*allowed, Home.HISTORY):
            return False
        if self.values[operand].shape != self.values[out].shape:
            return False
        if self.demands.alone and out in self.program.outputs:
            return False  # for the reader's sake: what a step gives out has a place, and a name, of its own
        together = self.together(operand)
        if any(self.last.get(n, -1) > position for n in together):
            return False
        carried = {*self.program.befores, *self.program.afters}
        if self.demands.states and carried.intersection(together):
            return False
        # The end of one carry must not lie where another begins: the copies between steps would get in one another's way.
        others = {c.before for c in self.program.carries if c.after != out}
        if any(c.after == out for c in self.program.carries) and others.intersection(together):
            return False
        region = self.sequence[position][0]
        # A sequence written before the loop is overwritten step by step inside it; after the loop it is whole again.
        return not (region is Phase.AFTER and any(self.homes[n] is Home.STEP for n in together))

    def join_ends(self, carry: ir.Carry) -> None:
        """Let a backward carry's new value overwrite its old one, where the old one is no longer read."""
        first, second = self.together(carry.before), self.together(carry.after)
        starts = min(self.defined[n] for n in second)
        at_once = isinstance(self.sequence[starts][1], Elementwise) if starts >= 0 else False
        ends = max(self.last.get(n, -1) for n in first)
        separate = ends < starts or (ends == starts and at_once and self.sequence[starts][1].ufunc not in HELPERS)  # type: ignore[union-attr]
        if (
            separate
            and self.root(carry.before) != self.root(carry.after)
            and not any(c.after in first for c in self.program.carries)
        ):
            self.join(carry.after, carry.before)
