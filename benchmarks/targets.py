"""What the NumPy modules are to reach beside the peers, and whether a report says that they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cells import BOTH
from cpu_cases import DENSE, ELEMENTWISE, SHAPES, STREAMED, USUAL_CELLS, Shape
from cpu_report import Result, sizes
from worker import STEP

FIRST_FIVE = SHAPES[:5]
LARGE = tuple(shape for shape in SHAPES if shape[3] >= 512)


class Target(NamedTuple):
    """The peer's time over ours is to be at least so much: the geometric mean over all cells and shapes, or each."""

    what: str
    least: float
    mean: bool
    peer: str
    cells: tuple[str, ...]
    shapes: tuple[Shape, ...]
    direction: str = BOTH


class Verdict(NamedTuple):
    """What was found: the mean or the worst ratio, and where the worst is; of how many of the ``wanted`` cases."""

    target: Target
    found: float | None
    where: str
    measured: int
    wanted: int

    @property
    def met(self) -> str:
        """``yes``, ``no``, or why that cannot be said."""
        if self.found is None:
            return "not measured"
        if self.found < self.target.least and (self.measured == self.wanted or not self.target.mean):
            return "no"
        return "yes" if self.measured == self.wanted else f"{self.measured} of {self.wanted} measured"


LSTM, GRU = ("lstm",), ("gru_after",)
TARGETS = (
    Target("jax.lax.scan, each", 1.2, False, "jax.lax.scan", DENSE, FIRST_FIVE),
    Target("jax.lax.scan, mean", 2.0, True, "jax.lax.scan", DENSE, FIRST_FIVE),
    Target("jax.lax.scan, elementwise and linear cells, each", 1.5, False, "jax.lax.scan", ELEMENTWISE, FIRST_FIVE),
    Target("PyTorch loop, each", 1.0, False, "torch loop", USUAL_CELLS, FIRST_FIVE),
    Target("PyTorch loop, mean", 4.0, True, "torch loop", USUAL_CELLS, FIRST_FIVE),
    Target("torch.nn.LSTM, the first three shapes, mean", 0.6, True, "torch.nn", LSTM, SHAPES[:3]),
    Target("torch.nn.LSTM, H ≥ 512, each", 0.95, False, "torch.nn", LSTM, LARGE),
    Target("torch.nn.GRU, all shapes, each", 1.0, False, "torch.nn", GRU, SHAPES),
    Target("torch.nn.GRU, mean", 2.0, True, "torch.nn", GRU, FIRST_FIVE),
    Target("torch.nn.LSTMCell, one step of B = 1, H = 128", 3.0, False, "torch.nn", LSTM, STREAMED[:1], STEP),
)


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def judge(target: Target, results: Sequence[Result]) -> Verdict:
    """What the results say of a target."""
    ratios = {
        f"{result.cell} {sizes(result.shape)}": result.ratio.median
        for result in results
        if (result.contender, result.direction) == (target.peer, target.direction)
        and result.cell in target.cells
        and result.shape in target.shapes
    }
    wanted = len(target.cells) * len(target.shapes)
    if not ratios:
        return Verdict(target, None, "", 0, wanted)
    worst = min(ratios, key=ratios.__getitem__)
    found = geometric_mean(list(ratios.values())) if target.mean else ratios[worst]
    return Verdict(target, found, "" if target.mean else worst, len(ratios), wanted)


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """All targets."""
    return [judge(target, results) for target in TARGETS]
