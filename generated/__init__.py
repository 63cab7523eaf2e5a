"""Modules written by ``cellspec generate``."""
