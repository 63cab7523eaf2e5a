"""What a command line says, made into paths and settings; every mistake is a :class:`UsageMistake` of one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cellspec import RESIDUALS
from cellspec.backends import registry
from cellspec.errors import CellspecError, SpecError, did_you_mean
from cellspec.tools.backend_option import ALL


class UsageMistake(CellspecError):
    """The command line asks for something that cannot be: one sentence."""


def spec_paths(specs: Iterable[str]) -> tuple[Path, ...]:
    """The files that ``specs``, paths or shipped names, stand for; each file once, in the order given."""
    from cellspec.language.read.paths import resolve

    found: dict[Path, Path] = {}
    for spec in specs:
        try:
            path = resolve(spec)
        except SpecError as error:
            raise UsageMistake("; ".join(diagnostic.message for diagnostic in error.diagnostics)) from None
        if path.is_dir():
            raise UsageMistake(f"{spec!r} is a folder; a spec is a file, such as {str(path / 'name.yaml')!r}")
        found.setdefault(path.resolve(), path)
    return tuple(found.values())


def shipped_paths() -> tuple[Path, ...]:
    """The files of all shipped specs."""
    from cellspec.language.read.paths import shipped_names

    return spec_paths(shipped_names())


def known_cells(paths: Iterable[Path]) -> frozenset[str]:
    """The names of the shipped cells, of the specs at ``paths``, and of those that lie beside these."""
    from cellspec.language.read.paths import shipped_names

    return frozenset((*shipped_names(), *(beside.stem for path in paths for beside in path.parent.glob("*.yaml"))))


def about_settings(error: SpecError) -> UsageMistake | None:
    """``error`` as a mistake of the command line, if it lies in the values of ``--set`` alone."""
    if any(diagnostic.location.file != "--set" for diagnostic in error.diagnostics):
        return None
    return UsageMistake("; ".join(dict.fromkeys(diagnostic.message for diagnostic in error.diagnostics)))


def settings(pairs: Sequence[str]) -> dict[str, str]:
    """``name=value`` of each ``--set``, by name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            raise UsageMistake(f"--set takes name=value, such as sigma=hard_sigmoid, not {pair!r}")
        if name in found:
            raise UsageMistake(f"--set {name} is given twice")
        found[name] = value
    return found


def backends(choice: str | None, specs: Sequence[str], residuals: str) -> tuple[str, ...]:
    """The backends that ``--backend`` names; without it the usual one for named SPECs, or those of the shipped cells' folder.

    All of them must know the policy ``residuals``.
    """
    if choice is None:
        chosen: tuple[str, ...] = (registry.DEFAULT,) if specs else registry.STANDING
    else:
        chosen = tuple(registry.BUILT_IN) if choice == ALL else (known_backend(choice, ALL),)
    for name in chosen:
        check_residuals(name, residuals)
    return chosen


def backend(choice: str | None, residuals: str) -> str:
    """The backend that ``--backend`` names, or the usual one; it must know the policy ``residuals``."""
    chosen = registry.DEFAULT if choice is None else known_backend(choice)
    check_residuals(chosen, residuals)
    return chosen


def known_backend(name: str, *more: str) -> str:
    """``name``, which must be that of a backend; ``more`` is what might be meant besides."""
    if name in registry.BUILT_IN or name in registry.names():
        return name
    known = (*registry.names(), *more)
    hint = did_you_mean(name, known) or f"; there is {', '.join(known)}"
    raise UsageMistake(f"unknown backend {name!r}{hint}")


def check_residuals(name: str, residuals: str) -> None:
    """A policy that a backend does not know is a mistake; the usual one all know, so that none need be loaded for it."""
    if residuals != RESIDUALS[0] and residuals not in registry.backend(name).residual_policies:
        able = registry.able(residuals)
        names = " or ".join(one.name for one in able)
        raise UsageMistake(f"--residuals {residuals} is for the {registry.told(able)} alone: --backend {names}")
