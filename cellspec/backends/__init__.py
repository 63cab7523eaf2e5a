"""One folder a backend: from schedules to the text of a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellspec.cell import Cell

BACKENDS = ("numpy", "cupy", "torch", "jax")
"""The backends that there are."""


def generator(backend: str) -> Callable[[Cell, str], str]:
    """The function that writes modules for ``backend`` under a policy for residuals; raises ValueError for an unknown one."""
    match backend:
        case "numpy":
            from cellspec.backends.numpy.module import generate

            return generate
        case "cupy":
            from cellspec.backends.cupy.module import generate

            return generate
        case "torch":
            from cellspec.backends.torch.module import generate

            return generate
        case "jax":
            from cellspec.backends.jax.module import generate

            return generate
    raise ValueError(f"unknown backend {backend!r}; there is {', '.join(BACKENDS)}")
