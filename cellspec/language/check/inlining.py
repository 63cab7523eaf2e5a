"""Local functions inlined: a call becomes the function's body with the arguments in the place of its own names.

It is hygienic: what else a body mentions means what it means in the spec, whatever the arguments are called. Of the body, what
holds no argument is the same object at every call, with its place in the function; the rest is placed at the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from cellspec.errors import Location
from cellspec.language.check.lookup import look_up
from cellspec.language.check.order import arrange
from cellspec.language.check.scope import Role, Scope
from cellspec.language.check.substitute import mapped, rebuilt
from cellspec.language.read.scanner import MAX_NESTING, MAX_TOKENS
from cellspec.language.spec import Assignment, Call, Expr, Gaps, Inlined, Macro, Name, Spec, Unread, parts, walk

MOST_PARTS = 60_000
"""Names, numbers and operators that the functions of a cell make, all together."""


@dataclass(frozen=True)
class _Sized:
    """An expression, how many parts it has, shared ones counted as often as they occur, and how deeply they are nested."""

    expr: Expr
    parts: int
    depth: int


class _TooMuch(Exception):
    """The functions make more than there may be, as has been reported."""


def inline(equations: Iterable[Assignment], spec: Spec, scope: Scope) -> list[Assignment]:
    """The equations with every call of a local function inlined.

    A call that cannot be is reported, and stays. Functions must have been declared, and those be marked as used that an
    equation calls.
    """
    if not spec.functions:
        return list(equations)
    macros = _Inliner(spec, scope)
    macros.look_up(spec)
    try:
        macros.prepare()
        return [macros.equation(equation) for equation in equations]
    except _TooMuch:
        scope.gaps |= Gaps(parts=frozenset(("equations",)))
        return []


class _Inliner:
    def __init__(self, spec: Spec, scope: Scope) -> None:
        self.scope = scope
        self.macros = {m.name: m for m in spec.functions if (e := scope.entries.get(m.name)) and e.role is Role.FUNCTION}
        self.bodies: dict[str, Expr] = {}  # with all calls inlined, and arguments under names that nothing else has
        self.read: list[str] = []
        self.work = self.parts = 0

    def look_up(self, spec: Spec) -> None:
        """Look up what bodies mention: of the functions that are called, and of the others that the file itself defines."""
        waiting = [macro for macro in self.macros.values() if self.scope.entries[macro.name].used]
        called = {macro.name for macro in waiting}
        while waiting:
            for name in _calls(waiting.pop().body):
                if name in self.macros and name not in called:
                    called.add(name)
                    waiting.append(self.macros[name])
        self.read = [macro.name for macro in self.macros.values() if macro.name in called or macro.at.file == spec.path]
        for name in self.read:
            body = self.macros[name].body
            look_up(body, self.scope, self.macros[name].arguments, what=f"an argument of {name!r}")
            self.scope.reporter.copied |= {part.at for part in walk(body)}

    def prepare(self) -> None:
        """Inline the calls within bodies; a function that calls itself, by whatever way, has none."""
        names = self.read
        index = {name: position for position, name in enumerate(names)}
        calls = [_calls(self.macros[name].body) for name in names]
        reads = [{index[name]: at for name, at in called.items() if name in index} for called in calls]
        done, _, cycles = arrange(names, reads)
        for cycle in cycles:
            self.scope.reporter.error(cycle.at, f"functions call one another in a circle: {cycle}")
        for position in done:
            macro = self.macros[names[position]]
            if isinstance(macro.body, Unread):
                continue
            body = self.inline(_with_own_names(macro))
            self.check(body, macro.at, f"the function {macro.name!r}")
            self.bodies[macro.name] = body.expr

    def check(self, found: _Sized, at: Location, what: str) -> None:
        """Give up where something goes beyond the limits of an equation."""
        if found.parts > MAX_TOKENS:
            self.give_up(at, f"{what} comes to more than {MAX_TOKENS} names, numbers and operators, with what it calls")
        if found.depth > MAX_NESTING:
            self.give_up(at, f"{what} comes to be nested deeper than {MAX_NESTING} levels, with what it calls")

    def count(self, work: int, parts: int, at: Location) -> None:
        """Give up where all calls together make too much work, or too many parts."""
        self.work += work
        self.parts += parts
        if self.work > MOST_PARTS or self.parts > MOST_PARTS:
            what = f"more than {MOST_PARTS} names, numbers and operators in all"
            self.give_up(at, f"with functions inlined, the equations have {what}")

    def give_up(self, at: Location, message: str) -> NoReturn:
        self.scope.reporter.error(at, message)
        raise _TooMuch

    def equation(self, equation: Assignment) -> Assignment:
        """``equation`` with its calls inlined."""
        found = self.inline(equation.value)
        self.count(0, found.parts, equation.at)
        self.check(found, equation.at, "this equation")
        return replace(equation, value=found.expr)

    def inline(self, expr: Expr) -> _Sized:
        """``expr`` with its calls inlined."""
        inner = [self.inline(part) for part in parts(expr)]
        same = _together(expr, inner)
        match expr:
            case Call(function=name) if (macro := self.macros.get(name)) is not None:
                return self.call(expr, macro, inner) or same
            case _:
                return same

    def call(self, call: Call, macro: Macro, args: list[_Sized]) -> _Sized | None:
        """A call with its arguments, in which all calls are inlined; None where there is nothing to inline."""
        if len(args) != len(macro.arguments):
            plural = "argument" if len(macro.arguments) == 1 else "arguments"
            self.scope.reporter.error(call.at, f"{macro.name!r} takes {len(macro.arguments)} {plural}, not {len(args)}")
            return None
        if macro.name not in self.bodies:
            return None
        values = {_own(macro, name): arg for name, arg in zip(macro.arguments, args, strict=True)}
        filled = self.fill(self.bodies[macro.name], values, call.at)
        made = _Sized(Inlined(call, filled.expr, call.at), filled.parts, filled.depth + 1)
        self.check(made, call.at, f"this call of {macro.name!r}")
        self.scope.reporter.copied.add(call.at)
        return made

    def fill(self, expr: Expr, values: Mapping[str, _Sized], at: Location) -> _Sized:
        """``expr`` with names replaced; what holds one goes to ``at``."""
        self.count(1, 0, at)
        if isinstance(expr, Name) and expr.id in values:
            return values[expr.id]
        return _together(expr, [self.fill(part, values, at) for part in parts(expr)], at)


def _together(expr: Expr, inner: list[_Sized], at: Location | None = None) -> _Sized:
    """``expr`` made of other parts."""
    made = rebuilt(expr, [one.expr for one in inner], at)
    if isinstance(expr, Inlined):
        return inner[0] if made is not expr else _Sized(expr, inner[0].parts, inner[0].depth + 1)
    return _Sized(made, 1 + sum(one.parts for one in inner), max((one.depth + 1 for one in inner), default=0))


def _calls(body: Expr) -> dict[str, Location]:
    """The functions that ``body`` calls, each with the first place."""
    found: dict[str, Location] = {}
    for part in walk(body):
        if isinstance(part, Call):
            found.setdefault(part.function, part.at)
    return found


def _own(macro: Macro, argument: str) -> str:
    """A name for an argument that no spec can write."""
    return f"{macro.name}.{argument}"


def _with_own_names(macro: Macro) -> Expr:
    """The body of ``macro``, its arguments under names of their own."""

    def change(part: Expr) -> Expr | None:
        match part:
            case Name(id=name) if name in macro.arguments:
                return Name(_own(macro, name), part.at)
            case _:
                return None

    return mapped(macro.body, change)
