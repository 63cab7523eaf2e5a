"""A plan of the NumPy backend run on memory that holds names: whoever reads a value finds it, or the plan is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cellspec import ir
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.numpy.instructions import HELPERS
from cellspec.backends.numpy.storage import Packed, Step, Storage, step_reads, step_writes

STEPS = 3

Content = tuple[str, int]
"""A value and the step that it is of."""


class Simulation:
    """One call: phases before and after the loop touch all steps' places, the loop one step's after the other's."""

    def __init__(self, storage: Storage, keep: Iterable[str], states: bool) -> None:
        self.storage, self.keep, self.states = storage, tuple(keep), states
        self.program = storage.code.schedule.program
        self.memory: dict[tuple[object, ...], Content] = {}
        self.same: dict[str, str] = {}  # a value in another shape → the value

    def run(self) -> None:
        """Every read is asserted to find what it looks for; in the end what outlives the call is there for every step."""
        for link in self.program.links:
            if link.before in self.storage.place:
                for t in range(self.storage.distance(link.before) or 1) if self.history(link.before) else (0,):
                    self.memory[self.place(link.before, t)] = self.content(link.before, t)
        for phase in Phase:
            if phase is Phase.LOOP:
                for t in range(STEPS):
                    for step in self.storage.steps[phase]:
                        self.step(step, (t,))
                    self.hand_on(t)
            else:
                for step in self.storage.steps[phase]:
                    self.step(step, range(STEPS))
        for name in self.left():
            for t in range(STEPS):
                self.read(name, t)

    def left(self) -> Iterator[str]:
        """What is read when all is done."""
        yield from self.keep
        yield from self.program.outputs
        for gradient in self.storage.code.schedule.gradients:
            yield from (gradient.right, *(left for _, left in gradient.rows))
        yield from (total.value for total in self.storage.code.schedule.sums)

    def step(self, step: Step, steps: Iterable[int]) -> None:
        for t in steps:
            for name in step_reads(step):
                self.read(name, t)
        if isinstance(step, ir.Move) and step.in_order and self.at(step.out) == self.at(step.operand):
            self.same[step.out] = step.operand
            return
        if not isinstance(step, Packed) or step.ufunc in HELPERS:
            shared = {self.at(name) for name in step_writes(step)} & {self.at(name) for name in step_reads(step)} - {None}
            assert not shared, f"{step} writes where it reads"
        for t in steps:
            for name in step_writes(step):
                if self.at(name) is not None:
                    self.memory[self.place(name, t)] = self.content(name, t)

    def hand_on(self, t: int) -> None:
        """Carries that are not kept for every step: what the next one reads lies where this one's lay."""
        if self.states:
            return
        for carry in self.storage.copied_carries:
            self.read(carry.after, t)
            self.memory[self.place(carry.before, t + 1)] = self.content(carry.before, t + 1)
        for carry in self.program.carries:
            found = self.memory[self.place(carry.before, t + 1)]
            assert found in (self.content(carry.before, t + 1), self.content(carry.after, t)), f"{carry}: {found}"
            self.memory[self.place(carry.before, t + 1)] = self.content(carry.before, t + 1)

    def read(self, name: str, t: int) -> None:
        if self.at(name) is not None and self.storage.home(name) is not Home.CONSTANT:
            found = self.memory.get(self.place(name, t))
            assert found == self.content(name, t), f"step {t} looks for {name} and finds {found}"

    def at(self, name: str) -> tuple[int, int] | None:
        """The place of a value that has one."""
        return None if name in self.storage.aliases else self.storage.place.get(name)

    def history(self, name: str) -> bool:
        return self.storage.home(name) is Home.HISTORY

    def place(self, name: str, t: int) -> tuple[object, ...]:
        """The memory of a value at a step; rows of histories are those of the steps that define them."""
        at = self.storage.place[name]
        match self.storage.home(name):
            case Home.STEP | Home.CONSTANT:
                return (at,)
            case Home.HISTORY:
                return at, t - (self.storage.distance(name) or 0)
        return at, t

    def content(self, name: str, t: int) -> Content:
        """What a value is: of another step if it is read of one, in another shape the same."""
        while name in self.same:
            name = self.same[name]
        for link in self.program.links:
            if link.before == name and self.history(name):
                return link.after, t - (self.storage.distance(name) or 0)
        return name, t
