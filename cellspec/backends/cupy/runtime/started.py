"""States at the first step, and their gradients, where samples have no step or begin anew at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp
import numpy as np

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import State, _arranged, _Masks, _real, _Rows


def _chosen(samples: np.ndarray, these: State, others: State, dtype: Any) -> State:
    """The states ``these`` of some samples and ``others`` of the rest, chosen in the type of carries."""
    here, real = cp.asarray(samples), _real(dtype)
    return State(*(
        cp.where(here.reshape(-1, *(1,)*(one.ndim - 1)), one.astype(real), other.astype(real)).astype(dtype)
        for one, other in zip(these, others)
    ))


def _started(masks: _Masks, rows: _Rows, state: State, spec: State, dtype: Any) -> State:
    """The state that each sample starts from: the spec's own where it is put back at once, another sample's where it has no step."""
    if masks.resets is not None and masks.resets[0].any():
        state = _chosen(masks.resets[0], spec, state, dtype)
    if (masks.lengths == 0).any():
        state = State(*(_arranged(rows.starts, each[None], dtype)[0] for each in state))
    return state


def _first_gradient(masks: _Masks, d_state: State, dfinal: State | None, dtype: Any) -> State:
    """The gradient of the initial state: the final one's where a sample has no step, none where it is put back at once."""
    none = State(*map(cp.zeros_like, d_state))
    if masks.resets is not None and masks.resets[0].any():
        d_state = _chosen(masks.resets[0], none, d_state, dtype)
    if (masks.lengths == 0).any():
        d_state = _chosen(masks.lengths == 0, none if dfinal is None else dfinal, d_state, dtype)
    return d_state
