"""The backends that there are: those that come with cellspec, and those that other distributions bring.

Another distribution says in its ``pyproject.toml`` which object is a backend (:class:`cellspec.backends.base.Backend`)::

    [project.entry-points."cellspec.backends"]
    fortran = "my_package.backend:BACKEND"

Nothing is imported before a backend is asked for, and nothing is searched for one that comes with cellspec.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellspec.backends.base import MEMBERS, Backend
from cellspec.errors import CellspecError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "cellspec.backends"
"""The group of entry points that are backends."""

BUILT_IN = {
    "numpy": "cellspec.backends.numpy.backend:BACKEND",
    "cupy": "cellspec.backends.cupy.backend:BACKEND",
    "torch": "cellspec.backends.torch.backend:BACKEND",
    "jax": "cellspec.backends.jax.backend:BACKEND",
}
"""Where the backends are that come with cellspec."""

STANDING = ("numpy", "cupy")
"""Those for which a folder of the shipped cells holds modules; for others they are generated when they are asked for."""

DEFAULT = "numpy"
"""The backend where none is named."""


class BackendError(CellspecError):
    """A backend of another distribution cannot be used: one sentence."""


def names() -> tuple[str, ...]:
    """The names of all backends, first those that come with cellspec."""
    return (*BUILT_IN, *(name for name in _elsewhere() if name not in BUILT_IN))


def backend(name: str) -> Backend:
    """The backend of this name; ValueError if there is none, :class:`BackendError` if it cannot be loaded."""
    if name in BUILT_IN:
        found: Backend = pkgutil.resolve_name(BUILT_IN[name])
        return found
    known = _elsewhere()
    if name not in known:
        raise ValueError(f"unknown backend {name!r}; there is {', '.join(names())}")
    return _loaded(name, known[name])


def built_in() -> tuple[Backend, ...]:
    """The backends that come with cellspec."""
    return tuple(map(backend, BUILT_IN))


def able(residuals: str) -> tuple[Backend, ...]:
    """The backends that come with cellspec and know a policy for residuals."""
    return tuple(one for one in built_in() if residuals in one.residual_policies)


def told(backends: Sequence[Backend]) -> str:
    """``NumPy backend``, or ``NumPy and CuPy backends``."""
    return f"{' and '.join(one.title for one in backends)} backend{'s' * (len(backends) > 1)}"


def lacking(name: str) -> tuple[str, ...]:
    """The packages that modules of a backend need and that are neither loaded nor to be found."""
    from importlib.util import find_spec

    def there(package: str) -> bool:
        return sys.modules.get(package) is not None or find_spec(package) is not None

    return tuple(package for package in backend(name).needs if not there(package))


def _elsewhere() -> dict[str, list[EntryPoint]]:
    """The entry points of other distributions, by name, in alphabetical order."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def _loaded(name: str, points: list[EntryPoint]) -> Backend:
    if len(points) > 1:
        raise BackendError(f"the backend {name!r} is what {' and '.join(map(_said, points))} both call theirs: remove one")
    (point,) = points
    try:
        found = point.load()
    except Exception as error:  # whatever another's code raises
        told = " ".join(str(error).split())
        raise BackendError(f"{_said(point)} cannot be loaded: {type(error).__name__}{': ' * bool(told)}{told}") from error
    lacking = [member for member in MEMBERS if not hasattr(found, member)]
    if isinstance(found, type) or lacking:
        why = "is a class: name an object of it" if isinstance(found, type) else f"has no {', '.join(lacking)}"
        raise BackendError(f"{_said(point)} is no backend: it {why}")
    if found.name != name:
        raise BackendError(f"{_said(point)} is a backend that calls itself {found.name!r}: both names must be the same")
    checked: Backend = found
    return checked


def _said(point: EntryPoint) -> str:
    """An entry point and where it comes from."""
    where = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    return f"the entry point '{point.name} = {point.value}'{where}"
