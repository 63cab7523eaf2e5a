"""Cell: elaborated, typed equations, and how they show themselves to people."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from cellspec.model import recurrence
from cellspec.model.equations import Equations
from cellspec.render.as_sympy import sympy_equations
from cellspec.render.latex import latex


@dataclass(frozen=True)
class Cell(Equations):
    """A cell. The properties show it to people: ``equations`` in SymPy, ``latex()``, ``stages``, ``recurrence``."""

    @property
    def equations(self) -> tuple[sympy.Eq, ...]:
        """The equations as SymPy equalities, in dependency order; states and intermediates are indexed by ``t``."""
        return sympy_equations(self)

    @property
    def stages(self) -> int:
        """How many recurrent matrix products depend on one another within a step."""
        return recurrence.stages(self)

    @property
    def recurrence(self) -> str:
        """``dense``, ``elementwise`` or ``linear``."""
        return recurrence.recurrence(self)

    def latex(self) -> str:
        """The equations as an ``aligned`` environment."""
        return latex(self)

    def _repr_latex_(self) -> str:
        """The equations, for notebooks."""
        return f"$${self.latex()}$$"
