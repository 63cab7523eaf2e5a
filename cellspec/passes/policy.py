"""What a backend wishes of scheduling, as data: the passes read it, and ``cellspec show --stage schedule`` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields


def _wish(of: str, yes: str, no: str) -> bool:
    """A field that is off by default; ``yes`` and ``no`` say what becomes of what it is a wish ``of``."""
    made: bool = field(default=False, metadata={"of": of, True: yes, False: no})
    return made


@dataclass(frozen=True)
class SchedulePolicy:
    """How products are joined, and whether there is a loop at all.

    ``stack_heads``: operands of products head by head are stacked too, as those of other products are. ``block_products``: the
    loop's products of the same stacked operands are one, of a block matrix; elsewhere than in the loop their results are
    gradients, which callers want each for itself. ``single_step``: there is one step, of which nothing but constants is known
    beforehand and nothing is left for later: all of it is the loop's.
    """

    stack_heads: bool = _wish("operands of a sum's products, head by head", "stacked", "each for itself")
    block_products: bool = _wish(
        "the loop's products of the same stacked operands", "one, of a block matrix", "each for itself"
    )
    single_step: bool = _wish(
        "what no earlier step decides", "in the step", "before and after the loop, for all steps together"
    )

    def wishes(self) -> Iterator[tuple[str, str]]:
        """What each field is about, and what it says, in words."""
        for one in fields(self):
            yield one.metadata["of"], one.metadata[getattr(self, one.name)]


PLAIN = SchedulePolicy()
"""No wishes."""
