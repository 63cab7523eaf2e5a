"""Functions that no spec names: forms of expressions that a pass has decided on, which no rule of SymPy's changes.

``mixture(p, x, y)`` is ``y + p*(x - y)``, computed as it stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy

MIXTURE = sympy.Function("mixture")

FORMS: Mapping[str, tuple[Any, int]] = {"mixture": (MIXTURE, 3)}
"""The functions by their names in a program's text, and how many arguments they take."""
