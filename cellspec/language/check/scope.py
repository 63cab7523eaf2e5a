"""The names of a cell: who declared them, as what, with which shape; and which of them are used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import sympy

from cellspec.errors import Location, Reporter, did_you_mean
from cellspec.language.check.product_rules import ALONG
from cellspec.language.check.shapes import Constant, dim_polynomial, fold
from cellspec.language.spec import Expr, Gaps, Name, Spec, Unread, Variable, walk
from cellspec.language.unparse import source
from cellspec.model.nodes import STEP_INDEX, Shape
from cellspec.model.primitives import CALLABLE

STRUCTURAL = {"eye": 1, "roll": 2, "stop_gradient": 1, "outer": 2, "inv": 1}
"""Functions that are neither pointwise nor along an axis → number of arguments."""

FUNCTIONS = (*CALLABLE, *STRUCTURAL, *ALONG)

MOST_AXES = 3
"""Heads, rows and columns; a family of params has one more."""

MOST_MEMBERS = 1000

_MOST_SUGGESTIONS = 50


class Role(Enum):
    """What a file declares a name to be."""

    DIM = "a dim"
    HYPER = "a hyperparameter"
    INPUT = "an input"
    STATE = "a state"
    PARAM = "a param"
    ACTIVATION = "an activation"
    FUNCTION = "a function"
    VALUE = "an intermediate"
    FAMILY = "a family of intermediates"


@dataclass
class Entry:
    """A declared name. ``shape`` is None while unknown, or for good after an error.

    ``varies`` tells a value of each step from one that is the same throughout the sequence. A family of params has ``members``,
    the number of which is None while unknown; its shape has that number in front. ``number`` is that of a derived constant.
    """

    name: str
    role: Role
    at: Location
    shape: Shape | None = None
    varies: bool = False
    used: bool = False
    members: int | None = None
    is_family: bool = False
    number: sympy.Expr | None = None

    @property
    def kind(self) -> str:
        """What the name is, for messages."""
        return "a family of params" if self.role is Role.PARAM and self.is_family else self.role.value


class Scope:
    """All the names of one cell, and the reporter to which their mistakes go."""

    def __init__(self, reporter: Reporter, gaps: Gaps) -> None:
        self.reporter, self.gaps = reporter, gaps
        self.entries: dict[str, Entry] = {}
        self.constants: dict[str, Constant] = {}
        self.activations: dict[str, str] = {}
        self._suggestions = _MOST_SUGGESTIONS

    def declare(self, name: str, role: Role, at: Location) -> Entry | None:
        """A new entry, or None after reporting that the name is taken."""
        if (earlier := self.entries.get(name)) is not None:
            self.reporter.error(at, f"{name!r} is declared twice: as {earlier.kind} and as {role.value}")
            return None
        entry = self.entries[name] = Entry(name, role, at, is_family=role is Role.FAMILY)
        return entry

    def of_role(self, *roles: Role) -> list[Entry]:
        """The entries of these roles, in order of declaration."""
        return [entry for entry in self.entries.values() if entry.role in roles]

    def shape_of(self, name: str) -> Shape:
        """The shape of a declared name, ``()`` where an error left it without one."""
        entry = self.entries.get(name)
        return entry.shape or () if entry is not None else ()

    def suggest(self, name: str, candidates: Iterable[str]) -> str:
        """``did_you_mean``, for as many names as a person would read; the suggested name counts as used."""
        if self._suggestions <= 0 or len(name) > 100:
            return ""
        self._suggestions -= 1
        options = list(candidates)
        hint = did_you_mean(name, [o for o in options if o.casefold() == name.casefold()]) or did_you_mean(name, options)
        if hint and (entry := self.entries.get(hint.split("'")[1])):
            entry.used = True
        return hint

    def unknown_name(self, name: str, at: Location, *parts: str) -> None:
        """Report a name that none of the ``parts`` of the spec declares; suggest whatever an equation can read."""
        if not self.gaps.may_hold(name, *parts):
            known = self.of_role(Role.PARAM, Role.VALUE, Role.FAMILY, Role.INPUT, Role.STATE, Role.HYPER, Role.DIM)
            self.reporter.error(at, f"unknown name {name!r}{self.suggest(name, (e.name for e in known))}")

    def unknown_function(self, name: str, at: Location) -> None:
        """Report a call of something that is no function."""
        if (entry := self.entries.get(name)) is not None:
            entry.used = True
            self.reporter.error(at, f"{name!r} is {entry.kind}, not a function")
        elif not self.gaps.may_hold(name, "activations", "functions"):
            known = self.of_role(Role.ACTIVATION, Role.FUNCTION)
            hint = self.suggest(name, (*FUNCTIONS, *(e.name for e in known)))
            self.reporter.error(at, f"unknown function {name!r}{hint}")

    def mention(self, name: str) -> None:
        """Count a name as used that stands in what could not be read; if it is misspelt there, the one that may be meant."""
        if (entry := self.entries.get(name)) is not None:
            entry.used = True
        elif name not in FUNCTIONS:
            self.suggest(name, self.entries)

    def is_certain(self, expr: Expr) -> bool:
        """Whether all names in ``expr`` are known for what they are: else it may be a constant whose value is not known."""
        names = [part.id for part in walk(expr) if isinstance(part, Name) and part.id not in ("t", STEP_INDEX)]
        return all(name in self.constants or self._is_no_constant(name) for name in names)

    def _is_no_constant(self, name: str) -> bool:
        entry = self.entries.get(name)
        match entry.role if entry else None:
            case None | Role.HYPER:
                return False
            case Role.DIM:
                return not self.gaps.may_hold(name, "hyper")
            case _:
                return True


def declare_all(spec: Spec, scope: Scope) -> None:
    """Enter everything that ``spec`` declares, with shapes; dims that shapes imply are entered in order of appearance."""
    for mention in spec.dims:
        scope.declare(mention.name, Role.DIM, mention.at)
    for setting in spec.hyper:
        if scope.declare(setting.name, Role.HYPER, setting.at) and isinstance(setting.value, int | float):
            scope.constants[setting.name] = setting.value
    parts = ((Role.INPUT, spec.inputs), (Role.STATE, spec.states), (Role.PARAM, spec.params))
    declared: list[tuple[Entry, Variable]] = []
    for role, variables in parts:
        for variable in variables:
            if entry := scope.declare(variable.name, role, variable.at):
                entry.varies = role is not Role.PARAM
                declared.append((entry, variable))
    for setting in spec.activations:
        if scope.declare(setting.name, Role.ACTIVATION, setting.at):
            scope.activations[setting.name] = str(setting.value)
    for macro in spec.functions:
        scope.declare(macro.name, Role.FUNCTION, macro.at)
    implied = not spec.dims
    for entry, variable in declared:
        entry.shape = _shape(variable, scope, implied)
        if variable.repeat is not None:
            entry.is_family, entry.members = True, _members(variable.repeat, scope)
            known = entry.shape is not None and entry.members is not None
            entry.shape = (sympy.Integer(entry.members), *(entry.shape or ())) if known else None


def resolve_dim(name: Name, scope: Scope, hint: str = "") -> sympy.Expr | None:
    """The value of a name within a dim expression: a dim's symbol or a whole hyperparameter. Marks it used."""
    entry = scope.entries.get(name.id)
    if entry is None:
        if not scope.gaps.may_hold(name.id, "dims", "hyper"):
            hint = scope.suggest(name.id, (e.name for e in scope.of_role(Role.DIM))) or hint
            scope.reporter.error(name.at, f"unknown dim {name.id!r}{hint}")
        return None
    entry.used = True
    match entry.role:
        case Role.DIM:
            return sympy.Symbol(name.id)
        case Role.HYPER if isinstance(value := scope.constants.get(name.id), int):
            return sympy.Integer(value)
        case Role.HYPER if name.id not in scope.constants:
            return None
        case Role.HYPER:
            scope.reporter.error(name.at, f"{name.id!r} is no whole number, as a shape needs")
        case role:
            scope.reporter.error(name.at, f"{name.id!r} is {role.value}; a shape is made of dims")
    return None


def _members(repeat: Expr, scope: Scope) -> int | None:
    """How many members a family of params has; None after an error."""
    if isinstance(repeat, Unread):
        return None
    for part in walk(repeat):
        if isinstance(part, Name):
            if (entry := scope.entries.get(part.id)) is not None:
                entry.used = True
            else:
                scope.unknown_name(part.id, part.at, "hyper")
    value = fold(repeat, scope.constants)
    if value is None and not scope.is_certain(repeat):
        return None
    if value is None or value != int(value):
        what = "'repeat' counts the members of a family: a whole number, or a hyperparameter that is one"
        scope.reporter.error(repeat.at, f"{what}, not {source(repeat)!r}")
        return None
    if not 1 <= value <= MOST_MEMBERS:
        what = f"a family has 1 to {MOST_MEMBERS} members, but {source(repeat)!r} is {value:g}"
        scope.reporter.error(repeat.at, what)
        return None
    return int(value)


def _shape(variable: Variable, scope: Scope, implied: bool) -> Shape | None:
    """The declared shape; None after an error."""

    def resolve(name: Name) -> sympy.Expr | None:
        if implied and name.id not in scope.entries:
            scope.declare(name.id, Role.DIM, name.at)
        return resolve_dim(name, scope, "; add it to 'dims'")

    axes = [dim_polynomial(expr, resolve, scope.reporter) for expr in variable.shape]
    for expr, axis in zip(variable.shape, axes, strict=True):
        if axis is not None and axis.is_Integer and axis < 1:
            scope.reporter.error(expr.at, f"an axis has at least size 1, but {source(expr)!r} is {axis}")
            return None
    if len(axes) > MOST_AXES:
        what = f"{variable.name!r}: a shape has at most {MOST_AXES} axes, not {len(axes)}"
        scope.reporter.error(variable.shape[MOST_AXES].at, what)
        return None
    known = tuple(axis for axis in axes if axis is not None)
    return known if len(known) == len(axes) else None
