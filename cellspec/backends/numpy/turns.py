"""The order of a region's steps: each after those that write what it reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from cellspec.backends.numpy.instructions import Scalar
from cellspec.backends.numpy.storage import Packed, Step, step_writes


def in_turn(steps: Sequence[Step], needs: Callable[[Step], set[str]]) -> list[Step]:
    """``steps`` so that each comes after those that write what it ``needs``, and otherwise as early as it stands."""
    waiting: dict[tuple[int, ...], Step] = {(k,): step for k, step in enumerate(steps)}
    missing = {place: needs(step) for place, step in waiting.items()}
    readers: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
    done: set[str] = set()
    ready: list[tuple[int, ...]] = []

    def wait(place: tuple[int, ...]) -> None:
        missing[place] -= done
        for name in missing[place]:
            readers[name].append(place)
        if not missing[place]:
            heappush(ready, place)

    for place in list(waiting):
        wait(place)
    result: list[Step] = []
    while waiting:
        if not ready:  # neighbours that wait for one another: call by call, then
            stuck = min(p for p, step in waiting.items() if isinstance(step, Packed) and len(step.outs) > 1)
            step = waiting.pop(stuck)
            assert isinstance(step, Packed)
            for k, part in enumerate(unpacked(step)):
                waiting[*stuck, k] = part
                missing[*stuck, k] = needs(part)
                wait((*stuck, k))
            continue
        step = waiting.pop(heappop(ready))
        result.append(step)
        for name in step_writes(step):
            done.add(name)
            for place in readers.pop(name, ()):
                missing[place].discard(name)
                if place in waiting and not missing[place]:
                    heappush(ready, place)
    return result


def unpacked(step: Packed) -> list[Packed]:
    """The calls that ``step`` had joined."""
    return [
        Packed(step.ufunc, (out,), tuple(c if isinstance(c, Scalar) else c[k : k + 1] if len(c) > 1 else c for c in step.args))
        for k, out in enumerate(step.outs)
    ]
