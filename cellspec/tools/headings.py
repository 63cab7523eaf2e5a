"""Families of cells: a spec does not name one, so they are told from what it extends and from how its states recur."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cellspec.language.read.loader import load_spec
from cellspec.language.read.paths import resolve
from cellspec.model.recurrence import recurrence

if TYPE_CHECKING:
    from cellspec.cell import Cell

SMALLEST = 3
"""Members that a line of descent needs to be a family of its own."""


def families(cells: Iterable[Cell]) -> dict[str, tuple[Cell, ...]]:
    """``cells`` by family, within one in their order but for its root, which comes first.

    A family is a line of descent, named after the cell that all of its members extend in the end; the largest comes first.
    Cells of fewer relatives follow by recurrence, the dense ones also by whether they carry one state, as simple and
    GRU-like networks do, or several, as LSTMs do.
    """
    members = [(cell, _root(Path(cell.path))) for cell in cells]
    sizes = Counter(root for _, root in members)
    found: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell, root in members:
        found[root if sizes[root] >= SMALLEST else _kind(cell)].append(cell)
    order = sorted(found, key=lambda name: (sizes[name] < SMALLEST, -sizes[name] if sizes[name] >= SMALLEST else 0, name))
    return {name: tuple(sorted(found[name], key=lambda cell: cell.name != name)) for name in order}


def _root(path: Path) -> str:
    """The name at the upper end of the chain of ``extends`` that leads from the spec at ``path``."""
    spec = load_spec(path)
    if spec.extends is None:
        return spec.name
    beside = path.with_name(f"{spec.extends}.yaml")
    return _root(beside if beside.is_file() else resolve(spec.extends))


def _kind(cell: Cell) -> str:
    """Of a cell without relatives: ``linear``, ``elementwise``, ``dense, one state`` or ``dense, several states``."""
    kind = recurrence(cell)
    if kind != "dense":
        return kind
    own = [state for state in cell.states if state.lag_of is None]
    return f"{kind}, {'one state' if len(own) == 1 else 'several states'}"
