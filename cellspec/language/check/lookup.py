"""Every name that a spec mentions in its equations is looked up: what is used, and what cannot be mentioned."""

from __future__ import annotations

from collections.abc import Collection

from cellspec.language.check.order import walk
from cellspec.language.check.scope import FUNCTIONS, Role, Scope
from cellspec.language.spec import Assignment, Call, Expr, Loop, Name, Subscript, Unread
from cellspec.language.spec import walk as walk_all
from cellspec.model.nodes import STEP_INDEX


def look_up_equation(equation: Assignment, scope: Scope) -> None:
    """Mark what an equation of the file mentions as used, in branches that are not taken too; report what it cannot mention.

    A family is not used by its own equations.
    """
    local = {loop.variable for loop in equation.loops}
    if equation.index is None:
        look_up(equation.value, scope, local)
    else:
        look_up(equation.value, scope, local, equation.target)
        _look_up_constant(equation.index, scope, local)


def look_up_loops(equations: Collection[Assignment], scope: Scope) -> None:
    """The same for the heads of loops; each head stands at several equations."""
    seen: set[Loop] = set()
    for equation in equations:
        around: set[str] = set()
        for loop in equation.loops:
            if loop not in seen:
                seen.add(loop)
                if (entry := scope.entries.get(loop.variable)) is not None:
                    entry.used = True
                    what = f"{loop.variable!r} cannot be the variable of a loop, as it is {entry.kind} already"
                    scope.reporter.error(loop.at, what)
                for bound in (loop.start, loop.stop):
                    _look_up_constant(bound, scope, around)
            around.add(loop.variable)


def look_up(expr: Expr, scope: Scope, local: Collection[str], own: str = "", what: str = "the variable of a loop") -> None:
    """Look up what ``expr`` mentions besides the names ``local`` to it; ``own`` is the family that its equation assigns.

    ``what`` says what the local names are.
    """
    for part in walk(expr):
        match part:
            case Name(id=name):
                if name not in local:
                    _look_up_name(part, scope)
            case Subscript(id=name) if name in local:
                scope.reporter.error(part.at, f"{name!r} is {what} here and takes no subscript")
            case Call(function=name) if name in local:
                scope.reporter.error(part.at, f"{name!r} is {what} here, not a function")
            case Subscript(id=name, index=index):
                entry = scope.entries.get(name)
                if entry is None:
                    scope.unknown_name(name, part.at, "inputs", "states", "params", "equations")
                elif name != own:
                    entry.used = True
                _look_up_constant(index, scope, {"t", *local})
            case Call(function=name, args=args):
                entry = scope.entries.get(name)
                if entry is not None and entry.role in (Role.ACTIVATION, Role.FUNCTION):
                    entry.used = True
                elif name not in FUNCTIONS:
                    scope.unknown_function(name, part.at)
                elif name == "eye":
                    for arg in args:
                        _use(arg, scope)
            case Unread(names=names):
                for name in names:
                    scope.mention(name)


def _use(expr: Expr, scope: Scope) -> None:
    for part in walk_all(expr):
        if isinstance(part, Name) and (entry := scope.entries.get(part.id)) is not None:
            entry.used = True


def _look_up_constant(expr: Expr, scope: Scope, local: Collection[str]) -> None:
    """Look up what stands in an index or a bound. That it is a constant is checked where it is worked out."""
    for part in walk_all(expr):
        if isinstance(part, Name) and part.id not in local:
            if (entry := scope.entries.get(part.id)) is not None:
                entry.used = True
            else:
                scope.unknown_name(part.id, part.at, "hyper")


def _look_up_name(name: Name, scope: Scope) -> None:
    entry = scope.entries.get(name.id)
    if entry is not None:
        entry.used = True
    match entry.role if entry else None:
        case Role.STATE:
            message = f"is a state: write {name.id}[t-1] for its value before the step or {name.id}[t] after it"
        case Role.INPUT:
            message = f"is an input: write {name.id}[t] for its value at this step"
        case (Role.ACTIVATION | Role.FUNCTION) as role:
            message = f"is {role.value}: write {name.id}(…)"
        case Role.FAMILY:
            message = f"is a family of intermediates: write {name.id}[0] for its first member"
        case Role.PARAM if entry is not None and entry.is_family:
            message = f"is a family of params: write {name.id}[0] for its first member"
        case None if name.id in scope.gaps.names:
            return
        case None if name.id in FUNCTIONS:
            message = f"is a function: write {name.id}(…)"
        case None if name.id == "t":
            message = "is the time: it stands only in brackets, as in x[t]"
        case None if name.id != STEP_INDEX:
            return scope.unknown_name(name.id, name.at, "hyper", "params", "equations")
        case _:
            return
    scope.reporter.error(name.at, f"{name.id!r} {message}")
