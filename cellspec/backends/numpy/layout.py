"""The memory of a module's two passes: what the forward pass leaves for the backward pass, what each has to itself, and blocks.

A buffer whose size grows with the number of steps lies

- in the *saved* memory, which the tape holds, if the backward pass reads it;
- in the memory of its pass, if a result lies in it;
- else in a *block*, which it shares with buffers of either pass that are never needed at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sympy

from cellspec.backends.memory.arena import Arena, Need, arrange
from cellspec.backends.memory.model import STEPS
from cellspec.backends.numpy.statements import OF_MEMORY, OF_SAVED, Pass, bases, mentions, returned, shape_of, size_of
from cellspec.backends.numpy.views import Text
from cellspec.backends.plain import dim_text

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Room:
    """One part of the memory, as attributes and Python.

    ``own``: arrays with their shapes; ``guests``: arrays in blocks, with shape and place; ``views``: views with expressions.
    """

    own: Lines
    guests: tuple[tuple[str, str, str], ...]
    views: Lines

    def size(self) -> sympy.Expr:
        """The numbers in its own arrays."""
        return sympy.expand(sympy.Add(*(size_of(shape) for _, shape in self.own)))


@dataclass(frozen=True)
class Layout:
    """The memory of both passes; ``blocks``: name, size and guests of each; ``steps``: how many arrays each loop runs over."""

    saved: Room
    forward: Room
    backward: Room
    blocks: tuple[tuple[str, str, str], ...]
    steps: tuple[int, int]

    def scratch(self) -> sympy.Expr:
        """The numbers in all blocks."""
        return sympy.expand(sympy.Add(*(size_of(f"({size},)") for _, size, _ in self.blocks)))

    def moved(self, item: Any) -> Any:
        """``item``, what the template needs of the forward pass, with ``saved.h`` for ``ws.h`` where that is saved."""
        names = {name for name, _ in (*self.saved.own, *self.saved.views)}
        match item:
            case str():
                return OF_MEMORY.sub(lambda m: f"saved.{m[1]}" if m[1] in names else m[0], item)
            case list() | tuple() | set():
                return type(item)(self.moved(part) for part in item)
            case dict():
                return {key: self.moved(part) for key, part in item.items()}
            case Text():
                return replace(item, **{name: self.moved(part) for name, part in vars(item).items()})
            case _:
                return item


def lay_out(forward: Pass, backward: Pass) -> Layout:
    """Decide where every buffer of the two passes lies."""
    seen = bases(forward.text.views)
    read = {name for lines in backward.moments() for line in lines for name in OF_SAVED.findall(line)}
    read |= {name for _, expression in backward.text.views for name in OF_SAVED.findall(expression)}
    saved = {seen.get(name, name) for name in read}
    end = len(list(forward.moments()))
    needs = _needs("forward", forward, saved, 0) + _needs("backward", backward, set(), end)
    arena = arrange(needs)
    return Layout(
        saved=Room(
            own=tuple((name, shape) for name, shape in forward.text.buffers if name in saved),
            guests=(),
            views=tuple((name, expression) for name, expression in forward.text.views if seen[name] in saved),
        ),
        forward=_room("forward", forward.text, arena, saved),
        backward=_room("backward", backward.text, arena, set()),
        blocks=tuple(
            (block.name, _text(block.size), ", ".join(guests)) for block, guests in zip(arena.blocks, arena.guests, strict=True)
        ),
        steps=(len(forward.text.steps), len(backward.text.steps)),
    )


def _needs(owner: str, direction: Pass, saved: set[str], start: int) -> list[Need]:
    """The buffers of one pass that may lie in blocks; its first moment is ``start``."""
    apart = saved | returned(direction)
    spans = mentions(direction)
    return [
        Need(f"{owner}.{name}", size_of(shape), start + spans[name][0], start + spans[name][1])
        for name, shape in direction.text.buffers
        if name in spans and name not in apart and _grows(shape)
    ]


def _grows(shape: str) -> bool:
    return any(sympy.Symbol(STEPS) in axis.free_symbols for axis in shape_of(shape))


def _room(owner: str, text: Text, arena: Arena, saved: set[str]) -> Room:
    seen = bases(text.views)
    own, guests = [], []
    for name, shape in text.buffers:
        place = arena.places.get(f"{owner}.{name}")
        if place is not None:
            behind = f"[{_text(place.start)}:]" if place.start != 0 else ""
            guests.append((name, shape, f"scratch.{place.buffer.name}{behind}"))
        elif name not in saved:
            own.append((name, shape))
    views = tuple((name, expression) for name, expression in text.views if seen[name] not in saved)
    return Room(tuple(own), tuple(guests), views)


def _text(size: sympy.Expr) -> str:
    return dim_text(size, {})
