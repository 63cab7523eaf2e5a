"""A sequence that is run in segments: how a module takes whole arrays apart and puts them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cellspec.backends.common import Common, gather
from cellspec.cell import Cell
from cellspec.model.nodes import Shape


def segments(cell: Cell, common: Common) -> dict[str, object]:
    """What the template needs: memory for states between segments and for whole results, and parts of arrays."""
    inputs, outputs = [item.name for item in cell.inputs], [item.name for item in cell.outputs]

    def memory(shapes: Iterable[Shape]) -> list[str]:
        return [f"empty({common.batched(shape, 'T, B')}, dtype)" for shape in shapes]

    return {
        "starts": [(s.name, common.batched(s.shape, "len(self.bounds), B")) for s in cell.states],
        "y": gather(memory(o.shape for o in cell.outputs)),
        "d_x": gather(memory(i.shape for i in cell.inputs), "Inputs"),
        "x_part": _part("x", inputs, "Inputs"),
        "dy_part": _part("dy", outputs, "Outputs"),
        "y_parts": _pairs("y", "y_part", outputs),
        "d_x_parts": _pairs("d_x", "grads.x", inputs),
    }


def _part(whole: str, names: Sequence[str], kind: str) -> str:
    """The steps of one segment."""
    return f"{whole}[start:stop]" if len(names) == 1 else f"{kind}(*(each[start:stop] for each in {whole}))"


def _pairs(whole: str, part: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Each array of a whole sequence with that of a segment which goes into it."""
    return [(whole, part)] if len(names) == 1 else [(f"{whole}.{name}", f"{part}.{name}") for name in names]
