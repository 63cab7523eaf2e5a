"""What kernels are told of the cuts of a call."""

from __future__ import annotations

from typing import Any

import cupy as cp


def _cut(ws: Any) -> None:
    """Tell the kernels of the resets and ends of a call's samples, or that it has none."""
    was_cut, ws.is_cut = ws.is_cut, True  # as it stays if this is interrupted
    if ws.rows is not None:
        ws.cuts[...] = cp.asarray(ws.rows.cuts[:, :, None])
    elif was_cut:
        ws.cuts.fill(0)
    ws.is_cut = ws.rows is not None
