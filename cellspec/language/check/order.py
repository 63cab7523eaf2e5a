"""What each equation reads within the step, an order in which they can be computed, and the cycles that forbid one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cellspec.errors import Location
from cellspec.language.check.shapes import Constants, decide
from cellspec.language.check.subscripts import time_offset
from cellspec.language.spec import Assignment, Call, Expr, Name, Subscript, parts
from cellspec.language.unparse import label
from cellspec.model.nodes import member

LONGEST_CYCLE = 12


@dataclass(frozen=True)
class Cycle:
    """Equations that wait for one another: ``labels`` of their targets, the first repeated at the end, and the first read."""

    labels: tuple[str, ...]
    at: Location

    def __str__(self) -> str:
        labels = self.labels
        if len(labels) > LONGEST_CYCLE:
            labels = (*labels[: LONGEST_CYCLE - 2], "…", *labels[-2:])
        return " -> ".join(labels)


def operands(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of ``expr``, from left to right. An index, or the size of ``eye``, is no value and so no operand."""
    match expr:
        case Subscript() | Call(function="eye"):
            return ()
        case _:
            return parts(expr)


def walk(expr: Expr, constants: Constants | None = None) -> Iterator[Expr]:
    """``expr`` and all that is in it, in the order of the text.

    With ``constants``, a ``where`` whose condition they decide counts as the branch that is taken.
    """
    waiting = [expr]
    while waiting:
        part = waiting.pop()
        yield part
        inner = operands(part)
        match part:
            case Call(function="where", args=(condition, yes, no)) if constants is not None:
                decided = decide(condition, constants)
                inner = inner if decided is None else (yes if decided else no,)
        waiting.extend(reversed(inner))


def sort(equations: Sequence[Assignment], constants: Constants) -> tuple[list[Assignment], list[Cycle]]:
    """The equations with each after those that it reads, otherwise in the given order; and the cycles.

    Equations that are in a cycle, or behind one, come last. Left sides must be distinct.
    """
    index = {label(equation): position for position, equation in enumerate(equations)}
    reads = [_reads(equation.value, index, constants) for equation in equations]
    done, left, cycles = arrange(list(index), reads)
    return [equations[position] for position in (*done, *left)], cycles


def arrange(labels: Sequence[str], reads: Sequence[dict[int, Location]]) -> tuple[list[int], list[int], list[Cycle]]:
    """Positions in an order in which each comes after those that it reads; those in a cycle or behind one; and the cycles."""
    readers: list[list[int]] = [[] for _ in labels]
    missing = [len(sources) for sources in reads]
    for position, sources in enumerate(reads):
        for source in sources:
            readers[source].append(position)
    ready = [position for position, count in enumerate(missing) if not count]
    done: list[int] = []
    while ready:
        position = heapq.heappop(ready)
        done.append(position)
        for reader in readers[position]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    left = [position for position, count in enumerate(missing) if count]
    return done, left, [_cycle(component, labels, reads) for component in _components(left, reads)]


def _reads(value: Expr, index: dict[str, int], constants: Constants) -> dict[int, Location]:
    """The equations that ``value`` reads within the step, each with the place where it does first."""
    sources: dict[int, Location] = {}
    for part in walk(value, constants):
        match part:
            case Name(id=name) if name in index:
                sources.setdefault(index[name], part.at)
            case Subscript(id=name, index=inside) if (found := _read(name, time_offset(inside, constants))) in index:
                sources.setdefault(index[found], part.at)
    return sources


def _read(name: str, offset: tuple[float, float] | None) -> str:
    """The left side that a subscript reads within the step: ``h[t]`` or ``s[1]``; empty where it reads none."""
    match offset:
        case (1, 0):
            return f"{name}[t]"
        case (0, index) if index == int(index) and index >= 0:
            return member(name, int(index))
        case _:
            return ""


def _components(nodes: Sequence[int], reads: Sequence[dict[int, Location]]) -> list[list[int]]:
    """The strongly connected components of ``nodes`` that hold a cycle (Tarjan's algorithm, without recursion)."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    components: list[list[int]] = []
    inside = set(nodes)
    for root in nodes:
        if root in number:
            continue
        work: list[tuple[int, Iterator[int]]] = []
        _enter(root, number, low, path, on_path)
        work.append((root, iter(reads[root])))
        while work:
            node, sources = work[-1]
            for source in sources:
                if source not in inside:
                    continue
                if source not in number:
                    _enter(source, number, low, path, on_path)
                    work.append((source, iter(reads[source])))
                    break
                if source in on_path:
                    low[node] = min(low[node], number[source])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    component = path[path.index(node) :]
                    del path[-len(component) :]
                    on_path.difference_update(component)
                    if len(component) > 1 or node in reads[node]:
                        components.append(sorted(component))
    return sorted(components)


def _enter(node: int, number: dict[int, int], low: dict[int, int], path: list[int], on_path: set[int]) -> None:
    number[node] = low[node] = len(number)
    path.append(node)
    on_path.add(node)


def _cycle(component: Sequence[int], labels: Sequence[str], reads: Sequence[dict[int, Location]]) -> Cycle:
    """The shortest cycle through the first equation of a component."""
    first, inside = component[0], set(component)
    came_from: dict[int, int] = {}
    front = [first]
    while first not in came_from:
        following: list[int] = []
        for node in front:
            for source in reads[node]:
                if source in inside and source not in came_from:
                    came_from[source] = node
                    following.append(source)
        front = following
    backwards = [first, came_from[first]]
    while backwards[-1] != first:
        backwards.append(came_from[backwards[-1]])
    positions = backwards[::-1]
    return Cycle(tuple(labels[position] for position in positions), reads[first][positions[1]])
