"""Residual selection: which forward values the backward pass finds stashed, and which it computes again.

A minimum cut, as in rematerialisation for automatic differentiation: the source feeds what is at hand or must not be repeated,
the sink drinks what the backward pass reads, and cutting through a value costs its size. Values behind the cut are computed
again from those on it, by the same operations as in the forward pass.

The policies are two sets of costs for one cut:

- ``speed``: products and functions must not be repeated; arithmetic may be, where it saves memory.
- ``memory``: everything may be repeated, and the states' histories cost nothing, nor do the inputs. A step depends on nothing
  else, so the cut goes through them alone. What is computed again needs no step's result for the next: it is done for all
  steps at once, its products as one each.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, replace

import sympy

from cellspec import ir
from cellspec.ir import Op, Program
from cellspec.passes.adjoint import Adjoint
from cellspec.passes.simplify import live

NOMINAL_DIM = 64
"""Every dim's size when sizes are weighed against one another; derivation knows no real ones."""


@dataclass(frozen=True)
class Residuals:
    """``stash``: the forward values that the backward pass is handed; ``again``: those that it computes from them.

    ``backward``: its program, recomputation included.
    """

    stash: tuple[str, ...]
    again: tuple[str, ...]
    backward: Program


def select(step: Program, adjoint: Adjoint, policy: str = "speed") -> Residuals:
    """Choose what to stash between ``step`` and its ``adjoint``; ``policy`` is one of :data:`cellspec.RESIDUALS`."""
    frugal = policy == "memory"
    free = {*step.sequences, *step.befores}
    kept = set(step.afters)  # a state's history is kept whole: its value after a step costs nothing more
    defining = {out: op for op in step.ops for out in ir.outs(op)}
    graph = _Flow()
    for op in step.ops:
        for out in ir.outs(op):
            graph.edge((out, "in"), (out, "out"), 0 if out in kept else _size(step, out))
            if out in kept:
                graph.edge(_SOURCE, (out, "in"), _INFINITE)
            if frugal or _repeatable(op):
                for name in step.args(op):
                    if name not in step.constants:
                        graph.edge((name, "out"), (out, "in"), _INFINITE)
            else:
                graph.edge(_SOURCE, (out, "in"), _INFINITE)
    for name in sorted(free):  # what the parameters' gradients need is kept in any case
        graph.edge(_SOURCE, (name, "in"), _INFINITE)
        graph.edge((name, "in"), (name, "out"), 0 if frugal or name in adjoint.residuals else _size(step, name))
    for name in adjoint.residuals:
        graph.edge((name, "out"), _SINK, _INFINITE)
    cut = graph.minimum_cut()
    stash = {name for name in (*free, *defining) if (name, "in") in cut and (name, "out") not in cut}

    stash |= free.intersection(adjoint.residuals)
    again: list[Op] = []
    for op in step.ops:
        if (frugal or _repeatable(op)) and not stash.intersection(ir.outs(op)):
            again.append(op)
    backward = adjoint.program
    order = tuple(name for name in (*step.values,) if name in stash)
    given = tuple(name for name in backward.sequences if name not in adjoint.residuals)
    needed_values = {name: step.values[name] for op in again for name in (*ir.outs(op), *step.args(op))}
    constants = dict.fromkeys((*backward.constants, *(n for n in needed_values if n in step.constants)))
    whole = replace(
        backward,
        values={**needed_values, **{name: step.values[name] for name in order}, **backward.values},
        constants=tuple(constants),
        sequences=(*given, *order),
        ops=(*_reachable(again, step, {*order, *step.constants}), *backward.ops),
    )
    program = live(whole)
    used = {name for op in program.ops for name in program.args(op)} | {total.value for total in program.totals}
    stash_order = tuple(name for name in order if name in used)
    program = replace(program, sequences=(*given, *stash_order)).with_ops(program.ops)
    repeated = tuple(name for op in program.ops for name in ir.outs(op) if name in defining)
    return Residuals(stash_order, repeated, ir.typecheck(program))


def _reachable(ops: list[Op], step: Program, known: set[str]) -> list[Op]:
    """Those of ``ops`` that can be computed from ``known``."""
    kept = []
    for op in ops:
        if known.issuperset(step.args(op)):
            kept.append(op)
            known.update(ir.outs(op))
    return kept


def _repeatable(op: Op) -> bool:
    """Whether ``op`` is cheap enough to do twice: arithmetic within a unit, and moves."""
    if isinstance(op, ir.Pointwise):
        powers = op.expr.atoms(sympy.Pow)
        return not op.expr.has(sympy.Function) and not any(p.exp.is_Integer is not True or p.exp < 0 for p in powers)
    return op.traits.cheap


def _size(program: Program, name: str) -> int:
    size = ir.size(program.shape(name))
    return int(size.subs(dict.fromkeys(size.free_symbols, NOMINAL_DIM)))


_Vertex = tuple[str, str]
_SOURCE: _Vertex = ("", "source")
_SINK: _Vertex = ("", "sink")
_INFINITE = 10**15


class _Flow:
    """Maximum flow by shortest augmenting paths (Edmonds and Karp); the graphs here have tens of vertices."""

    def __init__(self) -> None:
        self.capacity: defaultdict[_Vertex, dict[_Vertex, int]] = defaultdict(dict)

    def edge(self, a: _Vertex, b: _Vertex, capacity: int) -> None:
        self.capacity[a][b] = self.capacity[a].get(b, 0) + capacity
        self.capacity[b].setdefault(a, 0)

    def minimum_cut(self) -> set[_Vertex]:
        """The source's side of the minimum cut that lies nearest to the source."""
        while True:
            parent = self._search()
            if _SINK not in parent:
                return set(parent)
            path, vertex = [], _SINK
            while vertex != _SOURCE:
                path.append((parent[vertex], vertex))
                vertex = parent[vertex]
            amount = min(self.capacity[a][b] for a, b in path)
            for a, b in path:
                self.capacity[a][b] -= amount
                self.capacity[b][a] += amount

    def _search(self) -> dict[_Vertex, _Vertex]:
        parent: dict[_Vertex, _Vertex] = {_SOURCE: _SOURCE}
        queue = deque([_SOURCE])
        while queue:
            a = queue.popleft()
            for b, capacity in self.capacity[a].items():
                if capacity > 0 and b not in parent:
                    parent[b] = a
                    queue.append(b)
        return parent
