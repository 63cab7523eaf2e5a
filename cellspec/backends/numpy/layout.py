"""The memory of a module's two passes: what the forward pass leaves for the backward pass, what each has to itself, and blocks.

A buffer whose size grows with the number of steps lies

- in the *saved* memory, which the tape holds, if the backward pass reads it;
- in the memory of its pass, if a result lies in it;
- else in a *block*, which it shares with buffers of either pass that are never needed at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from cellspec.backends.arrays.expressions import View
from cellspec.backends.arrays.statements import spans, where
from cellspec.backends.memory.arena import Arena, Need, arrange
from cellspec.backends.memory.model import Buffer, Owner, Place
from cellspec.backends.numpy.direction import Direction


@dataclass(frozen=True)
class Room:
    """One part of the memory: buffers of its ``own``, ``guests`` of blocks with their places, and ``views``."""

    own: tuple[Buffer, ...]
    guests: tuple[tuple[Buffer, Place], ...]
    views: tuple[View, ...]

    def size(self) -> sympy.Expr:
        """The numbers in its own buffers."""
        return sympy.expand(sympy.Add(*(buffer.size for buffer in self.own)))


@dataclass(frozen=True)
class Layout:
    """The memory of both passes; ``guests`` lie in the arena's blocks, ``steps``: how many arrays each loop runs over."""

    saved: Room
    forward: Room
    backward: Room
    arena: Arena
    guests: tuple[tuple[Buffer, ...], ...]
    steps: tuple[int, int]

    def scratch(self) -> sympy.Expr:
        """The numbers in all blocks."""
        return sympy.expand(sympy.Add(*(block.size for block in self.arena.blocks)))

    @property
    def lies(self) -> Mapping[Buffer, Owner]:
        """Whose those buffers are that are not their pass's: the tape's."""
        return dict.fromkeys(self.saved.own, Owner.TAPE)


def lay_out(forward: Direction, backward: Direction) -> Layout:
    """Decide where every buffer of the two passes lies."""
    behind = list(backward.moments())
    saved = {buffer for buffer in spans([*behind, backward.text.views]) if buffer.owner is Owner.FORWARD}
    end = len(list(forward.moments()))
    needs = _needs("forward", forward, saved, 0) + _needs("backward", backward, set(), end)
    arena = arrange(need for need, _ in needs)
    buffers = {need.name: buffer for need, buffer in needs}
    return Layout(
        saved=Room(
            own=tuple(buffer for buffer in forward.text.buffers if buffer in saved),
            guests=(),
            views=tuple(view for view in forward.text.views if view.buffer in saved),
        ),
        forward=_room("forward", forward, arena, saved),
        backward=_room("backward", backward, arena, set()),
        arena=arena,
        guests=tuple(tuple(buffers[name] for name in guests) for guests in arena.guests),
        steps=(len(forward.text.steps), len(backward.text.steps)),
    )


def _needs(owner: str, direction: Direction, saved: set[Buffer], start: int) -> list[tuple[Need, Buffer]]:
    """The buffers of one pass that may lie in blocks, and when they are needed; its first moment is ``start``."""
    moments = list(direction.moments())
    elsewhere = saved | where(direction.results, moments)
    needed = spans(moments)
    return [
        (Need(f"{owner}.{buffer.name}", buffer.size, start + needed[buffer][0], start + needed[buffer][1]), buffer)
        for buffer in direction.text.buffers
        if buffer in needed and buffer not in elsewhere and buffer.grows
    ]


def _room(owner: str, direction: Direction, arena: Arena, saved: set[Buffer]) -> Room:
    places = {buffer: arena.places.get(f"{owner}.{buffer.name}") for buffer in direction.text.buffers if buffer not in saved}
    return Room(
        own=tuple(buffer for buffer, place in places.items() if place is None),
        guests=tuple((buffer, place) for buffer, place in places.items() if place is not None),
        views=tuple(view for view in direction.text.views if view.buffer not in saved),
    )
