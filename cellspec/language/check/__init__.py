"""Checking: a :class:`~cellspec.language.spec.Spec` into a typed :class:`~cellspec.cell.Cell`."""
