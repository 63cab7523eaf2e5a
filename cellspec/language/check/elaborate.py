"""Elaboration: from what a file says to a typed cell, or to all of its mistakes at once.

Spec → Cell, in five passes: declare the names, unroll the loops, look up every name that an equation mentions, sort the
equations, type them in that order. A pass reports and goes on; the cell is built if nothing was reported.
"""

from __future__ import annotations

from dataclasses import replace

from cellspec.cell import Cell
from cellspec.errors import Reporter
from cellspec.language.check.inlining import inline
from cellspec.language.check.left_sides import declare_targets, single_assignments
from cellspec.language.check.lookup import look_up_equation, look_up_loops
from cellspec.language.check.loops import unroll
from cellspec.language.check.order import sort, walk
from cellspec.language.check.scope import Entry, Role, Scope, declare_all
from cellspec.language.check.typing_rules import Typer
from cellspec.language.spec import Assignment, Call, Initialiser, Spec, Variable
from cellspec.language.unparse import label, source
from cellspec.model.dim_sources import FIXED_ARGUMENTS, untold, untold_by_params
from cellspec.model.equations import Equation, Input, Param, State
from cellspec.model.nodes import Kind, Ref
from cellspec.model.shapes import broadcast, show

MATRIX_DEFAULT = Initialiser("glorot_uniform")
VECTOR_DEFAULT = Initialiser("constant", (0.0,))


def elaborate(spec: Spec, report: Reporter | None = None) -> Cell:
    """The typed cell that ``spec`` describes; raises :class:`~cellspec.errors.SpecError` with all its mistakes.

    ``report`` holds those that were made before: a spec with gaps has no cell, but what could be read of it is checked.
    """
    reporter = report or Reporter()
    scope = Scope(reporter, spec.gaps)
    declare_all(spec, scope)
    _unused(spec, scope, Role.DIM)
    strays = declare_targets(spec.equations, scope)
    unrolled = unroll(spec.equations, scope)
    look_up_loops(spec.equations, scope)
    replaced = set(map(id, unrolled.replaced))
    for equation in spec.equations:
        if id(equation) not in replaced:
            look_up_equation(equation, scope)
    equations, others = single_assignments(unrolled.singles, strays, scope)
    inlined = inline([*equations, *others], spec, scope)
    equations, others = inlined[: len(equations)], inlined[len(equations) :]
    ordered, cycles = sort(equations, scope.constants)
    undecided = {label(equation) for equation in ordered if _is_undecided(equation, scope)}
    for cycle in cycles:
        if undecided.intersection(cycle.labels):
            continue  # the branch that makes it may not be taken
        hint = "; write [t-1] for the value before the step" if any("[t]" in name for name in cycle.labels) else ""
        reporter.error(cycle.at, f"cycle within one step: {cycle}{hint}")
    typer = Typer(scope)
    typed = [item for equation in ordered if (item := _equation(equation, typer)) is not None]
    for other in others:
        typer.type(other.value)
    typer.lags.check()
    outputs = _outputs(spec, scope)
    _unused(spec, scope, *(role for role in _UNUSED if role is not Role.DIM))
    reporter.raise_if_any()
    assert len(typed) == len(unrolled.singles), "an equation was left out in silence"
    typed = [replace(equation, value=typer.lags.settled(equation.value)) for equation in typed]
    derived = [equation for equation in typed if equation.target.kind is Kind.DERIVED]
    inputs = tuple(Input(variable.name, scope.shape_of(variable.name)) for variable in spec.inputs)
    states = tuple(State(variable.name, scope.shape_of(variable.name), _initial(variable)) for variable in spec.states)
    lags, kept = typer.lags.made(inputs, states)
    cell = Cell(
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
        states=(*states, *lags),
        outputs=outputs,
        params=tuple(_param(variable, scope.entries[variable.name]) for variable in spec.params),
        assignments=(
            *derived,
            *(equation for equation in typed if equation.target.kind is not Kind.DERIVED),
            *kept,
        ),
        expect=spec.expect,
        at=spec.at,
        path=spec.path,
    )
    for dim in set(FIXED_ARGUMENTS).intersection(untold_by_params(cell)):
        what = "it is an argument of init_state, pack and Workspace, as no param's shape tells it"
        reporter.error(scope.entries[dim].at, f"a dim cannot be called {dim!r} here: {what}")
    for dim in untold(cell):
        what = "no array has an axis that tells it, once the other dims are known"
        reporter.error(scope.entries[dim].at, f"nothing tells how large dim {dim!r} is: {what}")
    reporter.raise_if_any()
    return cell


# --- names -------------------------------------------------------------------------------------------------------------


def _is_undecided(equation: Assignment, scope: Scope) -> bool:
    """Whether an equation has a ``where`` of which it is not known which branch counts."""
    calls = [part for part in walk(equation.value) if isinstance(part, Call)]
    return any(call.function == "where" and not all(map(scope.is_certain, call.args[:1])) for call in calls)


def _outputs(spec: Spec, scope: Scope) -> tuple[Ref, ...]:
    """What the cell gives out; by default its first state."""
    outputs: list[Ref] = []
    mentions = [(mention.name, mention.at) for mention in spec.outputs] or [(state.name, state.at) for state in spec.states[:1]]
    for name, at in mentions:
        entry = scope.entries.get(name)
        if name.startswith("_") and len(mentions) > 1:
            what = "becomes a field of a NamedTuple, which must not begin with '_'"
            scope.reporter.error(at, f"{name!r} cannot name one of several outputs: it {what}")
        if entry is None:
            if not scope.gaps.may_hold(name, "states", "equations"):
                hint = scope.suggest(name, (known.name for known in scope.of_role(Role.STATE, Role.VALUE)))
                scope.reporter.error(at, f"output {name!r} is neither a state nor an intermediate{hint}")
            continue
        entry.used = True
        if entry.role is Role.FAMILY:
            scope.reporter.error(at, f"output {name!r} is a family: give a member a name of its own, as in y = {name}[0]")
        elif entry.role not in (Role.STATE, Role.VALUE):
            scope.reporter.error(at, f"output {name!r} is {entry.kind}; only states and intermediates are given out")
        elif entry.shape is not None and not entry.varies:
            scope.reporter.error(at, f"output {name!r} is a derived parameter, the same at every step")
        elif entry.shape is not None:
            outputs.append(Ref(name, Kind.STATE if entry.role is Role.STATE else Kind.VALUE, entry.shape))
    return tuple(outputs)


def _unused(spec: Spec, scope: Scope, *roles: Role) -> None:
    """Report the names of these roles that nothing has used; what an heir inherits and cannot drop it need not use."""
    for entry in scope.of_role(*roles):
        message, *parts = _UNUSED[entry.role]
        if entry.role in _KEPT and entry.at.file != spec.path:
            continue
        if not entry.used and not scope.gaps.may_hold(entry.name, "remove", *parts):
            scope.reporter.error(entry.at, message.format(repr(entry.name)))


_KEPT = (Role.HYPER, Role.ACTIVATION, Role.FUNCTION)
"""Roles of names that ``remove`` does not drop."""

_UNUSED: dict[Role, tuple[str, ...]] = {
    Role.DIM: ("dim {0} is not used by any shape", "inputs", "states", "params"),
    Role.HYPER: ("hyperparameter {0} is not used by any equation", "inputs", "states", "params", "equations"),
    Role.INPUT: ("input {0} is not used by any equation", "equations"),
    Role.STATE: ("state {0} is neither read by an equation nor an output", "equations", "outputs"),
    Role.PARAM: ("param {0} is not used by any equation", "equations"),
    Role.ACTIVATION: ("activation {0} is not used by any equation", "equations"),
    Role.FUNCTION: ("function {0} is not used by any equation", "equations", "functions"),
    Role.FAMILY: ("family {0} is read by no equation but its own", "equations", "outputs"),
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
        entry.shape, entry.varies, entry.number = typed.shape, typed.varies, typed.number
        target = Ref(entry.name, Kind.VALUE if typed.varies else Kind.DERIVED, typed.shape)
    return Equation(target, typed.node, " ".join(equation.text.split()), equation.at)


def _param(variable: Variable, entry: Entry) -> Param:
    """A parameter with its initialiser, by default uniform for matrices, and the matrices of heads, and zero for vectors."""
    default = MATRIX_DEFAULT if len(variable.shape) > 1 else VECTOR_DEFAULT
    return Param(variable.name, entry.shape or (), variable.init or default, variable.trainable, entry.members)


def _initial(variable: Variable) -> float:
    """The number that a state starts from."""
    return variable.init.numbers[0] if variable.init is not None else 0.0
