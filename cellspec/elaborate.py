"""Elaboration: from what a file says to a typed cell, or to all of its mistakes at once.

Spec → Cell, in four passes: declare the names, look up every name that an equation mentions, sort the equations,
type them in that order. A pass reports and goes on; the cell is built if nothing was reported.
"""

from __future__ import annotations

from collections.abc import Mapping

from cellspec.cell import STEP_INDEX, Cell, Equation, Input, Kind, Param, Ref, Shape, State
from cellspec.errors import Reporter
from cellspec.order import label, sort, walk
from cellspec.scope import FUNCTIONS, Role, Scope, declare_all
from cellspec.shapes import broadcast, show
from cellspec.spec import Assignment, Call, Initialiser, Name, Spec, Subscript, Unread, Variable
from cellspec.typing_rules import Typer
from cellspec.unparse import source

MATRIX_DEFAULT = Initialiser("glorot_uniform")
VECTOR_DEFAULT = Initialiser("constant", (0.0,))


def elaborate(spec: Spec, report: Reporter | None = None) -> Cell:
    """The typed cell that ``spec`` describes; raises :class:`~cellspec.errors.SpecError` with all its mistakes.

    ``report`` holds those that were made before: a spec with gaps has no cell, but what could be read of it is checked.
    """
    reporter = report or Reporter()
    scope = Scope(reporter, spec.gaps)
    declare_all(spec, scope)
    _unused(scope, Role.DIM)
    equations, strays = _targets(spec, scope)
    for equation in spec.equations:
        _look_up(equation, scope)
    ordered, cycles = sort(equations, scope.constants)
    undecided = {label(equation) for equation in ordered if _is_undecided(equation, scope)}
    for cycle in cycles:
        if undecided.intersection(cycle.labels):
            continue  # the branch that makes it may not be taken
        hint = "; write [t-1] for the value before the step" if any("[t]" in name for name in cycle.labels) else ""
        reporter.error(cycle.at, f"cycle within one step: {cycle}{hint}")
    typer = Typer(scope)
    typed = [item for equation in ordered if (item := _equation(equation, typer)) is not None]
    for stray in strays:
        typer.type(stray.value)
    outputs = _outputs(spec, scope)
    _unused(scope, Role.HYPER, Role.INPUT, Role.STATE, Role.PARAM, Role.ACTIVATION, Role.VALUE)
    reporter.raise_if_any()
    assert len(typed) == len(spec.equations), "an equation was left out in silence"
    derived = [equation for equation in typed if equation.target.kind is Kind.DERIVED]
    inputs = tuple(Input(variable.name, scope.shape_of(variable.name)) for variable in spec.inputs)
    states = tuple(State(variable.name, scope.shape_of(variable.name), _initial(variable)) for variable in spec.states)
    lags = tuple(typer.lags.made(inputs, states))
    return Cell(
        name=spec.name,
        title=spec.title,
        doc=spec.doc,
        cite=spec.cite,
        sha256=spec.sha256,
        dims=tuple(entry.name for entry in scope.of_role(Role.DIM)),
        hyper=tuple(scope.constants.items()),
        activations=tuple(scope.activations.items()),
        settings=spec.settings,
        inputs=inputs,
        states=(*states, *(state for state, _ in lags)),
        outputs=outputs,
        params=tuple(_param(variable, scope.shape_of(variable.name)) for variable in spec.params),
        assignments=(
            *derived,
            *(equation for equation in typed if equation.target.kind is not Kind.DERIVED),
            *(equation for _, equation in lags),
        ),
        expect=spec.expect,
        at=spec.at,
        path=spec.path,
    )


# --- names -------------------------------------------------------------------------------------------------------------


def _targets(spec: Spec, scope: Scope) -> tuple[list[Assignment], list[Assignment]]:
    """The equations with a good left side of their own, and the strays whose left side is reported here."""
    good: dict[str, Assignment] = {}
    strays: list[Assignment] = []
    for equation in spec.equations:
        message = _target_mistake(equation, good, scope)
        if message is None:
            good[label(equation)] = equation
            if not equation.is_state:
                scope.declare(equation.target, Role.VALUE, equation.at)
        else:
            scope.reporter.error(equation.at, message)
            strays.append(equation)
    assigned = {equation.target for equation in spec.equations}
    for entry in scope.of_role(Role.STATE):
        if scope.gaps.may_hold(entry.name, "equations"):
            continue
        if entry.name not in assigned and not entry.used:  # else it was suggested for a misspelt left side
            entry.used = True  # one mistake is enough
            scope.reporter.error(entry.at, f"state {entry.name!r} is never assigned: write {entry.name}[t] = …")
    return list(good.values()), strays


def _target_mistake(equation: Assignment, earlier: Mapping[str, Assignment], scope: Scope) -> str | None:
    """What is wrong with the left side of an equation, or None."""
    name, text = equation.target, label(equation)
    entry = scope.entries.get(name)
    if text in earlier:
        return f"{text!r} is assigned twice; first in line {earlier[text].at.line}"
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
        case Role.VALUE:
            return f"{text!r} is assigned, but {name!r} is an intermediate"
        case role:
            return f"{name!r} is {role.value} and cannot be assigned"


def _look_up(equation: Assignment, scope: Scope) -> None:
    """Mark what an equation mentions as used, in branches that are not taken too; report what it cannot mention."""
    for part in walk(equation.value):
        match part:
            case Name():
                _look_up_name(part, scope)
            case Subscript(id=name):
                if (entry := scope.entries.get(name)) is None:
                    scope.unknown_name(name, part.at, "inputs", "states")
                else:
                    entry.used = True
                for inner in walk(part.index):
                    if isinstance(inner, Name) and inner.id != "t":
                        _look_up_name(inner, scope)
            case Call(function=name):
                if name in scope.activations:
                    scope.entries[name].used = True
                elif name not in FUNCTIONS:
                    scope.unknown_function(name, part.at)
            case Unread(names=names):
                for name in names:
                    scope.mention(name)


def _is_undecided(equation: Assignment, scope: Scope) -> bool:
    """Whether an equation has a ``where`` of which it is not known which branch counts."""
    calls = [part for part in walk(equation.value) if isinstance(part, Call)]
    return any(call.function == "where" and not all(map(scope.is_certain, call.args[:1])) for call in calls)


def _look_up_name(name: Name, scope: Scope) -> None:
    entry = scope.entries.get(name.id)
    if entry is not None:
        entry.used = True
    match entry.role if entry else None:
        case Role.STATE:
            message = f"is a state: write {name.id}[t-1] for its value before the step or {name.id}[t] after it"
        case Role.INPUT:
            message = f"is an input: write {name.id}[t] for its value at this step"
        case Role.ACTIVATION:
            message = f"is an activation: write {name.id}(…)"
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


def _outputs(spec: Spec, scope: Scope) -> tuple[Ref, ...]:
    """What the cell gives out; by default its first state."""
    outputs: list[Ref] = []
    mentions = [(mention.name, mention.at) for mention in spec.outputs] or [(state.name, state.at) for state in spec.states[:1]]
    for name, at in mentions:
        entry = scope.entries.get(name)
        if entry is None:
            if not scope.gaps.may_hold(name, "states", "equations"):
                hint = scope.suggest(name, (known.name for known in scope.of_role(Role.STATE, Role.VALUE)))
                scope.reporter.error(at, f"output {name!r} is neither a state nor an intermediate{hint}")
            continue
        entry.used = True
        if entry.role not in (Role.STATE, Role.VALUE):
            scope.reporter.error(at, f"output {name!r} is {entry.role.value}; only states and intermediates are given out")
        elif entry.shape is not None and not entry.varies:
            scope.reporter.error(at, f"output {name!r} is a derived parameter, the same at every step")
        elif entry.shape is not None:
            outputs.append(Ref(name, Kind.STATE if entry.role is Role.STATE else Kind.VALUE, entry.shape))
    return tuple(outputs)


def _unused(scope: Scope, *roles: Role) -> None:
    """Report the names of these roles that nothing has used."""
    for entry in scope.of_role(*roles):
        message, *parts = _UNUSED[entry.role]
        if not entry.used and not scope.gaps.may_hold(entry.name, "remove", *parts):
            scope.reporter.error(entry.at, message.format(repr(entry.name)))


_UNUSED: dict[Role, tuple[str, ...]] = {
    Role.DIM: ("dim {0} is not used by any shape", "inputs", "states", "params"),
    Role.HYPER: ("hyperparameter {0} is not used by any equation", "inputs", "states", "params", "equations"),
    Role.INPUT: ("input {0} is not used by any equation", "equations"),
    Role.STATE: ("state {0} is neither read by an equation nor an output", "equations", "outputs"),
    Role.PARAM: ("param {0} is not used by any equation", "equations"),
    Role.ACTIVATION: ("activation {0} is not used by any equation", "equations"),
    Role.VALUE: ("intermediate {0} is neither read by an equation nor an output", "equations", "outputs"),
}
"""What is said of an unused name of each role; then the parts that can use it."""

# --- types -------------------------------------------------------------------------------------------------------------


def _equation(equation: Assignment, typer: Typer) -> Equation | None:
    """The typed equation; its left side gets its shape."""
    typed = typer.type(equation.value)
    entry = typer.scope.entries.get(equation.target)
    if typed is None or entry is None:
        return None
    if equation.is_state:
        if entry.shape is None:
            return None
        if broadcast(typed.shape, entry.shape) != entry.shape:
            what = f"state {entry.name!r} of shape {show(entry.shape)}"
            typer.scope.reporter.error(
                equation.value.at, f"cannot assign {source(equation.value)!r} of shape {show(typed.shape)} to {what}"
            )
            return None
        target = Ref(entry.name, Kind.STATE, entry.shape)
    else:
        entry.shape, entry.varies = typed.shape, typed.varies
        target = Ref(entry.name, Kind.VALUE if typed.varies else Kind.DERIVED, typed.shape)
    return Equation(target, typed.node, " ".join(equation.text.split()), equation.at)


def _param(variable: Variable, shape: Shape) -> Param:
    """A parameter with its initialiser, by default uniform for matrices and zero for vectors."""
    default = MATRIX_DEFAULT if len(shape) == 2 else VECTOR_DEFAULT
    return Param(variable.name, shape, variable.init or default, variable.trainable)


def _initial(variable: Variable) -> float:
    """The number that a state starts from."""
    return variable.init.numbers[0] if variable.init is not None else 0.0
