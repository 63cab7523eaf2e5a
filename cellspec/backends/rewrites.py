"""Passes over programs that any backend may have run before scheduling, as the driver takes them."""

from __future__ import annotations

from dataclasses import replace

from cellspec.passes.masks import initial_states, with_masks
from cellspec.pipeline import Compiled, Pass


def _masks(state: Compiled) -> Compiled:
    """Both directions read what the boundaries between steps are."""
    forward, backward = with_masks(state.forward, state.backward, initial_states(state.cell.states))
    return replace(state, forward=forward, backward=backward)


MASKS = Pass("masks", _masks)
"""Resets and ends of sequences within a batch: see :mod:`cellspec.passes.masks`."""
