"""Lengths and resets where layers must look at them; what is wrong with them the generated module has said before."""

from __future__ import annotations

from typing import Any


def within(lengths: Any, steps: int, xp: Any) -> Any:
    """[T, B]: whether step t of a sample comes before its length."""
    return xp.arange(steps)[:, None] < xp.asarray(lengths)[None, :]


def turned(resets: Any, lengths: Any, reverse: bool, xp: Any) -> Any:
    """The resets of a run in the other direction, so that what was reset apart stays apart.

    A reset before the step at t cuts between t and the step read before it. From the other side the first step behind the cut
    is that one: t - 1 for a cut made reading forwards, t + 1 for one made in ``reverse``.
    """
    cuts = xp.asarray(resets)
    if lengths is not None:
        cuts = cuts & within(lengths, len(cuts), xp)
    other = xp.zeros_like(cuts)
    if reverse:
        other[1:] = cuts[:-1]
    else:
        other[:-1] = cuts[1:]
    return other
