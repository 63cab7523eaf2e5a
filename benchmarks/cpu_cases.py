"""What the CPU benchmark measures unless it is told otherwise. Shapes are T, B, I, H."""

from __future__ import annotations

from typing import NamedTuple

Shape = tuple[int, int, int, int]

DENSE = ("elman", "lstm", "peephole", "cifg", "gru", "gru_after")  # a product stands between a state and the next
ELEMENTWISE = ("indrnn", "mingru")  # none does; mingru is linear
USUAL_CELLS = (*DENSE, *ELEMENTWISE)
SHAPES: tuple[Shape, ...] = (
    (200, 16, 32, 32),
    (100, 32, 64, 128),
    (100, 1, 64, 128),
    (50, 20, 650, 650),
    (100, 64, 256, 512),
    (1000, 8, 64, 64),
    (20, 128, 1024, 1024),
)
STREAMED = (SHAPES[2], SHAPES[0])  # where a single step is measured, too


class Axis(NamedTuple):
    """A size that grows while the others stay; I is H."""

    sizes: tuple[int, ...]
    T: int
    B: int
    H: int

    def shapes(self, name: str) -> list[Shape]:
        """The shapes along this axis, whose name is T, B or H."""
        found = []
        for size in self.sizes:
            at = {"T": self.T, "B": self.B, "H": self.H, name: size}
            found.append((at["T"], at["B"], at["H"], at["H"]))
        return found


SWEEP = {
    "T": Axis((25, 50, 100, 200, 400, 800, 1600), T=0, B=16, H=64),
    "B": Axis((1, 2, 4, 8, 16, 32, 64, 128, 256), T=50, B=0, H=64),
    "H": Axis((16, 32, 64, 128, 256, 512, 1024), T=50, B=16, H=0),
}
SWEPT_CELLS = ("lstm", "gru")
SWEPT_SHAPES = tuple(dict.fromkeys(shape for name, axis in SWEEP.items() for shape in axis.shapes(name)))
