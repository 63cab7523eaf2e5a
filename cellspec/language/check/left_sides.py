"""The left sides of the equations: what they declare, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

from cellspec.language.check.scope import FUNCTIONS, Role, Scope
from cellspec.language.spec import Assignment
from cellspec.language.unparse import label
from cellspec.model.nodes import STEP_INDEX


def declare_targets(equations: Sequence[Assignment], scope: Scope) -> list[Assignment]:
    """Enter the intermediates that ``equations`` assign; those whose left side is wrong are reported and given back."""
    strays: list[Assignment] = []
    for equation in equations:
        message = _mistake(equation, scope)
        if message is not None:
            scope.reporter.error(equation.at, message)
            strays.append(equation)
        elif not equation.is_state and equation.target not in scope.entries:
            scope.declare(equation.target, Role.VALUE if equation.index is None else Role.FAMILY, equation.at)
    assigned = {equation.target for equation in equations}
    for entry in scope.of_role(Role.STATE):
        if scope.gaps.may_hold(entry.name, "equations"):
            continue
        if entry.name not in assigned and not entry.used:  # else it was suggested for a misspelt left side
            entry.used = True  # one mistake is enough
            scope.reporter.error(entry.at, f"state {entry.name!r} is never assigned: write {entry.name}[t] = …")
    return strays


def single_assignments(
    unrolled: Sequence[tuple[Assignment, Assignment]], strays: Sequence[Assignment], scope: Scope
) -> tuple[list[Assignment], list[Assignment]]:
    """The single equations, and those that are strays or assign what another one does; members of families are entered.

    ``unrolled`` are pairs of a single equation and the one of the file that it comes from.
    """
    lost = {id(equation) for equation in strays}
    good: dict[str, tuple[Assignment, Assignment]] = {}
    others: list[Assignment] = []
    for equation, written in unrolled:
        text = label(equation)
        if id(written) in lost:
            others.append(equation)
        elif (earlier := good.get(text)) is not None:
            scope.reporter.error(equation.at, _assigned_twice(text, written, earlier[1]))
            others.append(equation)
        else:
            good[text] = equation, written
            if written.index is not None and (entry := scope.declare(text, Role.VALUE, equation.at)):
                entry.used = True  # the family as a whole must be
    return [equation for equation, _ in good.values()], others


def _assigned_twice(text: str, equation: Assignment, earlier: Assignment) -> str:
    if equation is not earlier or not equation.loops:
        return f"{text!r} is assigned twice; first in line {earlier.at.line}"
    plain = equation.index is None and not equation.is_state
    hint = f": write {equation.target}[{equation.loops[-1].variable}] = …" if plain else ""
    return f"{text!r} is assigned in more than one turn of a loop{hint}"


def _mistake(equation: Assignment, scope: Scope) -> str | None:
    """What is wrong with the left side of an equation, or None."""
    name, text = equation.target, label(equation)
    entry = scope.entries.get(name)
    match entry.role if entry else None:
        case Role.STATE if not equation.is_state:
            return f"{name!r} is a state: write {name}[t] = …"
        case Role.STATE:
            return None
        case None if equation.is_state and scope.gaps.may_hold(name, "states"):
            return None
        case None if equation.is_state:
            hint = scope.suggest(name, (state.name for state in scope.of_role(Role.STATE)))
            hint = hint or f": write {name} = … or declare it under states"
            return f"{text!r} is assigned, but {name!r} is not a state{hint}"
        case None if name in FUNCTIONS or name == STEP_INDEX:
            return f"{name!r} is a name of the language and cannot be assigned"
        case None:
            return None
        case (Role.VALUE | Role.FAMILY) as role if equation.is_state:
            return f"{text!r} is assigned, but {name!r} is {role.value}"
        case Role.VALUE if equation.index is not None and entry is not None:
            return f"{text!r} is assigned, but {name!r} is no family: it is assigned as a whole in line {entry.at.line}"
        case Role.FAMILY if equation.index is None and entry is not None:
            return f"{name!r} is a family, from line {entry.at.line} on: write {name}[0] = …"
        case Role.VALUE | Role.FAMILY:
            return None
        case _:
            return f"{name!r} is {entry.kind if entry else ''} and cannot be assigned"
