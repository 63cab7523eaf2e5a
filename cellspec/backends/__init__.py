"""One folder a backend: from schedules to the text of a module."""

from cellspec.backends.registry import BUILT_IN

BACKENDS = tuple(BUILT_IN)
"""The backends that come with cellspec."""
