"""Specs put together: a child over its parent (``extends``, ``remove``), and ``--set`` over both."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from cellspec.errors import Location, Reporter, closest, did_you_mean, shorten
from cellspec.language.read.source import number
from cellspec.language.spec import Assignment, Gaps, Macro, Mention, Name, Setting, Spec, Variable, walk

REMOVABLE = ("params", "states", "inputs", "equations")

_Part = TypeVar("_Part", Variable, Setting, Macro)


def merge(parent: Spec, child: Spec, remove: Sequence[Mention], report: Reporter) -> Spec:
    """The child's spec: the parent's parts less what is removed, replaced and extended by the child's.

    The child's name, title, doc, cite and expect are its own; dims and outputs are inherited as whole lists.
    """
    removed = {mention.name for mention in remove}
    gaps = parent.gaps | child.gaps
    known = [part.name for group in (parent.params, parent.states, parent.inputs) for part in group]
    known += [equation.target for equation in parent.equations]
    for mention in remove:
        if mention.name not in known and not parent.gaps.may_hold(mention.name, *REMOVABLE):
            meant = closest(mention.name, known)
            hint = "" if meant is None else f"; did you mean {meant!r}?"
            report.error(mention.at, f"there is no {mention.name!r} to remove from {parent.name!r}{hint}")
            gaps |= Gaps(names=frozenset((meant or mention.name,)))
    merged = replace(
        child,
        hyper=_over(parent.hyper, child.hyper, set()),
        inputs=_over(parent.inputs, child.inputs, removed),
        states=_over(parent.states, child.states, removed),
        params=_over(parent.params, child.params, removed),
        activations=_over(parent.activations, child.activations, set()),
        functions=_over(parent.functions, child.functions, set()),
        equations=_equations(parent.equations, child.equations, removed),
        outputs=child.outputs or tuple(mention for mention in parent.outputs if mention.name not in removed),
        gaps=gaps,
    )
    return replace(merged, dims=child.dims or _inherited_dims(parent, merged))


def _over(parent: Sequence[_Part], child: Sequence[_Part], removed: set[str]) -> tuple[_Part, ...]:
    """Key by key: a child's entry takes the place of its parent's, a new one comes last."""
    parts: dict[Hashable, _Part] = {part.name: part for part in parent if part.name not in removed}
    parts |= {part.name: part for part in child}
    return tuple(parts.values())


def _equations(parent: Sequence[Assignment], child: Sequence[Assignment], removed: set[str]) -> tuple[Assignment, ...]:
    """A child's equation takes the place of its parent's; which members of families it replaces, unrolling will tell."""
    parts = {part.left: part for part in parent if part.target not in removed}
    parts |= {part.left: part for part in child}
    return tuple(parts.values())


def _inherited_dims(parent: Spec, merged: Spec) -> tuple[Mention, ...]:
    """The parent's list of dims, fitted to the shapes: without those that are gone, with the new ones behind."""
    if not parent.dims:
        return ()
    free: dict[str, Location] = {}
    constants = {setting.name for setting in merged.hyper}
    for name in _free_names((*merged.inputs, *merged.states, *merged.params)):
        if name.id not in constants:
            free.setdefault(name.id, name.at)
    kept = {mention.name: mention for mention in parent.dims if mention.name in free}
    new = {name: Mention(name, at) for name, at in free.items() if name not in kept}
    return (*kept.values(), *new.values())


def _free_names(variables: Iterable[Variable]) -> Iterable[Name]:
    return (part for variable in variables for axis in variable.shape for part in walk(axis) if isinstance(part, Name))


def check_whole(spec: Spec, report: Reporter) -> Spec:
    """Report what a spec lacks or has too much of once it is merged; what it lacks is a gap."""
    needed = () if "extends" in spec.gaps.parts else ("inputs", "states", "equations")
    missing = [key for key in needed if not getattr(spec, key) and key not in spec.gaps.parts]
    for key in missing:
        report.error(spec.at, f"{key!r} is missing")
    return replace(spec, gaps=spec.gaps | Gaps(parts=frozenset(missing)))


def apply_settings(spec: Spec, settings: Mapping[str, str], activations: Sequence[str], report: Reporter) -> Spec:
    """``--set``: other values for hyperparameters and activations."""
    hyper = {setting.name: setting for setting in spec.hyper}
    functions = {setting.name: setting for setting in spec.activations}
    for name, text in sorted(settings.items()):
        written = f"{name}={text}"
        at = Location("--set", 1, 1, written[:200])
        value_at = Location("--set", 1, len(name) + 2, written[:200])
        if name in hyper:
            value = number(text.strip())
            if value is None or math.isinf(value):
                report.error(value_at, f"{name!r} is a hyperparameter and needs a number, not {shorten(text)}")
            else:
                hyper[name] = replace(hyper[name], value=value)
        elif name in functions:
            if text.strip() in activations:
                functions[name] = replace(functions[name], value=text.strip())
            else:
                hint = did_you_mean(text[:100], activations) or "; expected one such as 'sigmoid' or 'tanh'"
                report.error(value_at, f"{shorten(text)} is no pointwise function of one argument{hint}")
        elif not spec.gaps.may_hold(name, "hyper", "activations"):
            known = sorted((*hyper, *functions))
            hint = did_you_mean(name[:100], known) or (f"; it has {', '.join(known)}" if known else "; it has none")
            report.error(at, f"{spec.name!r} has no hyperparameter or activation {shorten(name)}{hint}")
    chosen = tuple((name, text.strip()) for name, text in sorted(settings.items()))
    if not chosen:
        return spec
    digest = hashlib.sha256("\n".join((spec.sha256, *(f"{name}={text}" for name, text in chosen))).encode()).hexdigest()
    return replace(spec, hyper=tuple(hyper.values()), activations=tuple(functions.values()), settings=chosen, sha256=digest)
