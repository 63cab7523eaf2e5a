"""Rows of arrays in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cupy as cp

if TYPE_CHECKING:
    from cellspec.backends.cupy.runtime.surroundings import _kernel, _run


def _arranged(order: cp.ndarray | None, given: cp.ndarray, dtype: Any) -> cp.ndarray:
    """Rows of ``given``, [T, B, ...], in that order; ``given`` itself if there is none. ``dtype`` is that of the parameters."""
    if order is None:
        return given
    out = cp.empty((*order.shape, *given.shape[2:]), given.dtype)
    kernel = _kernel("arrange" if given.dtype == dtype else "arrange_real", dtype)
    columns = out.size//max(1, order.size)
    _run(kernel, out.size, (cp.int64(out.size), cp.int64(columns), order, cp.ascontiguousarray(given), out))
    return out


def _last(ws: Any, history: cp.ndarray, ended: cp.ndarray | None = None) -> cp.ndarray:
    """What ``history``, [T + 1, B, n], holds after each sample's last step, or ``ended`` if that is kept there."""
    if ws.rows is None:
        return history[ws.T]
    return _arranged(ws.rows.ends, history, ws.dtype) if ended is None else ended
