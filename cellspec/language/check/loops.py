"""Loops unrolled: every equation for itself, the variables of the loops replaced by numbers, families split into members."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cellspec.language.check.scope import Scope
from cellspec.language.check.shapes import Constants, fold
from cellspec.language.check.substitute import settled, with_numbers
from cellspec.language.read.equation_block import MAX_EQUATIONS
from cellspec.language.spec import Assignment, Expr, Gaps, Loop, walk
from cellspec.language.unparse import label, source, written
from cellspec.model.nodes import member

MOST_TURNS = 10_000
"""Turns of all loops together; one without an equation counts too."""

LARGEST_INDEX = 1_000_000

MOST_PARTS = 60_000
"""Names, numbers and operators that loops make, all together."""


class TooMuch(Exception):
    """The equations grow beyond a limit, as has been reported."""


@dataclass(frozen=True)
class Unrolled:
    """Single equations, each with the one of a file that it comes from; and those of a file of which an heir leaves nothing."""

    singles: tuple[tuple[Assignment, Assignment], ...]
    replaced: tuple[Assignment, ...]


def unroll(equations: Sequence[Assignment], scope: Scope) -> Unrolled:
    """The single equations, in the order of their turns.

    Members of families are called ``s[1]`` and have no index any more. Of a member that a file and one that it extends both
    assign, only the heir's equation is left. What cannot be unrolled is reported and left out.
    """
    unroller = _Unroller(scope)
    copied = [equation for equation in equations if equation.loops]
    scope.reporter.copied |= {part.at for equation in copied for part in walk(equation.value)} | {one.at for one in copied}
    try:
        unroller.turns(equations, {})
    except TooMuch:
        scope.gaps |= Gaps(parts=frozenset(("equations",)))
        return Unrolled((), ())
    singles = tuple(unroller.found.values())
    left = {id(equation) for _, equation in singles}
    return Unrolled(singles, tuple(equation for equation in unroller.replaced if id(equation) not in left))


class _Unroller:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.found: dict[object, tuple[Assignment, Assignment]] = {}
        self.replaced: list[Assignment] = []
        self.count = self.parts = 0

    def turns(self, equations: Sequence[Assignment], values: Mapping[str, int], depth: int = 0) -> None:
        """Unroll ``equations``, which stand in ``depth`` loops whose variables have these ``values``."""
        for loop, group in itertools.groupby(equations, lambda one: one.loops[depth] if depth < len(one.loops) else None):
            body = list(group)
            if loop is None:
                for equation in body:
                    self.add(equation, values)
                continue
            bounds = self.bounds(loop, values)
            if bounds is None:
                self.lose(body)
                continue
            for value in bounds:
                self.count += 1
                if self.count > MOST_TURNS:
                    self.give_up(loop, f"the loops take more than {MOST_TURNS} turns in all")
                self.turns(body, {**values, loop.variable: value}, depth + 1)

    def bounds(self, loop: Loop, values: Mapping[str, int]) -> range | None:
        """What a loop counts through; None where its bounds are no whole constants."""
        constants = {**self.scope.constants, **values}
        found: list[int] = []
        for expr in (loop.start, loop.stop):
            value = fold(expr, constants)
            if value is not None and value == int(value):
                found.append(int(value))
            elif value is not None or self.scope.is_certain(with_numbers(expr, values)):
                what = "the bounds of a loop are whole numbers, made of hyperparameters and constants"
                self.scope.reporter.error(expr.at, f"{what}, not {source(expr)!r}")
        return range(found[0], found[1]) if len(found) == 2 else None

    def add(self, equation: Assignment, values: Mapping[str, int]) -> None:
        """One turn's copy of an equation."""
        constants = {**self.scope.constants, **values}
        target, value, text = equation.target, equation.value, equation.text
        if equation.loops:
            value = settled(with_numbers(value, values), self.scope.constants)
            self.parts += sum(1 for _ in walk(value))
        if equation.index is not None:
            number = self.index(equation, equation.index, constants)
            if number is None:
                return self.lose([equation])
            target = member(target, number)
        if equation.loops or (equation.index is not None and label(equation) != target):
            text = f"{target}[t] = {written(value)}" if equation.is_state else f"{target} = {written(value)}"
        copy = replace(equation, target=target, value=value, text=text, index=None, loops=())
        self.keep(copy, equation)
        if self.parts > MOST_PARTS:
            self.give_up(equation.loops[0], f"the loops make more than {MOST_PARTS} names, numbers and operators in all")

    def index(self, equation: Assignment, expr: Expr, constants: Constants) -> int | None:
        """Which member of a family an equation assigns."""
        value = fold(expr, constants)
        if value is not None and value == int(value) and 0 <= value <= LARGEST_INDEX:
            return int(value)
        if value is not None:
            counted = f"the members of a family are counted from 0 to {LARGEST_INDEX} at most"
            self.scope.reporter.error(equation.at, f"there can be no '{equation.target}[{value:g}]': {counted}")
        elif self.scope.is_certain(with_numbers(expr, {loop.variable: 0 for loop in equation.loops})):
            what = f"the index of {label(equation)!r} is no constant"
            self.scope.reporter.error(expr.at, f"{what}: it is made of numbers, loop variables and hyperparameters")
        return None

    def keep(self, copy: Assignment, equation: Assignment) -> None:
        """Enter a single equation, in the place of the one that it overrides."""
        key: tuple[object, ...] = copy.left
        if (earlier := self.found.get(key)) is not None:
            if earlier[0].at.file == copy.at.file:
                key = (*key, len(self.found))  # a mistake, which is told when the left sides are looked at
            else:
                self.replaced.append(earlier[1])
        self.found[key] = copy, equation
        if len(self.found) > MAX_EQUATIONS:
            at = equation.loops[0] if equation.loops else equation
            self.give_up(at, f"there are more than {MAX_EQUATIONS} equations, with the loops unrolled")

    def lose(self, equations: Iterable[Assignment]) -> None:
        """Conclude nothing from the absence of what these would have assigned."""
        self.scope.gaps |= Gaps(names=frozenset(equation.target for equation in equations))

    def give_up(self, at: Loop | Assignment, message: str) -> None:
        self.scope.reporter.error(at.at, message)
        raise TooMuch
