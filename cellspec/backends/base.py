"""The contract of a backend: from schedules to the text of a module, and what it tells people of itself.

A backend is an object with these attributes; :mod:`cellspec.backends.registry` finds it by its name. The driver
(:mod:`cellspec.pipeline`) runs every pass, the backend's own included; a backend schedules nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import ModuleType

    from cellspec.passes.policy import SchedulePolicy
    from cellspec.pipeline import Compiled, Pass


@dataclass(frozen=True)
class Section:
    """A part of what ``cellspec show --stage schedule`` prints: a title and lines.

    ``direction``, as :mod:`cellspec.pipeline` calls it, is the one behind which it stands; a section of none comes first.
    """

    title: str
    body: str
    direction: str = ""


@dataclass(frozen=True)
class Footprint:
    """Formulas over T, B and the dims, in bytes; ``option`` is the argument of ``forward`` that they hold for, if any.

    ``tape``: what is kept from the forward pass to the backward pass; ``workspace``: what both take together.
    """

    option: str
    tape: str
    workspace: str


class Backend(Protocol):
    """What writes modules for one array library; attributes are read, never set."""

    @property
    def name(self) -> str:
        """What ``--backend`` calls it, and the end of its modules' names: an identifier."""

    @property
    def title(self) -> str:
        """What people call it: ``NumPy``."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The packages that its modules import; whoever lacks one can generate them and not run them."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of its modules' arrays, by NumPy's names, the most accurate first."""

    @property
    def residual_policies(self) -> tuple[str, ...]:
        """Which of :data:`cellspec.RESIDUALS` it knows: ``speed`` at least."""

    @property
    def policy(self) -> SchedulePolicy:
        """What it wishes of scheduling."""

    @property
    def rewrites(self) -> tuple[Pass, ...]:
        """Its passes before scheduling: what it wants written otherwise, or given besides."""

    @property
    def finish(self) -> tuple[Pass, ...]:
        """Its passes over schedules."""

    def text(self, compiled: Compiled) -> str:
        """The module of ``compiled``, of which every pass has been run for this backend."""

    def describe(self, compiled: Compiled) -> Sequence[Section]:
        """What it makes of ``compiled``, as ``text`` takes it, for people; may be nothing."""

    def footprint(self, compiled: Compiled, itemsize: int) -> Sequence[Footprint]:
        """How much memory the module takes for numbers of ``itemsize`` bytes; nothing where that is not known."""

    def on_host(self, module: ModuleType) -> Any:
        """A module of this backend as one that takes and gives NumPy arrays, for ``cellspec verify``; None if there is none."""


MEMBERS = tuple(name for name in vars(Backend) if not name.startswith("_"))
"""All that a backend must have."""
