"""A backend whose modules are functions of whole arrays, for the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from cellspec import ir
from cellspec.backends.base import Footprint, Section
from cellspec.backends.frameworks.module import Target, module_text
from cellspec.passes.policy import SchedulePolicy
from cellspec.pipeline import Compiled, Pass


def hand_on_by_carries(state: Compiled) -> Compiled:
    """Nothing comes to a backward step by delays: what they hand on lies in rows that the carry of the step before brings."""
    program = state.backward
    nothing = {ir.symbol(delay.before): 0 for delay in program.delays}
    ops = [replace(op, expr=op.expr.xreplace(nothing)) if isinstance(op, ir.Pointwise) else op for op in program.ops]
    return replace(state, backward=program.with_ops(ops)) if nothing else state


@dataclass(frozen=True)
class ArrayBackend:
    """The backend of ``target``; ``bridge`` makes its modules take NumPy arrays."""

    target: Target
    needs: tuple[str, ...]
    dtypes: tuple[str, ...]
    bridge: Callable[[ModuleType], Any]
    residual_policies: tuple[str, ...] = ("speed", "memory")
    policy: SchedulePolicy = SchedulePolicy(block_products=True)  # noqa: RUF009
    rewrites: tuple[Pass, ...] = (Pass("hand on by carries", hand_on_by_carries),)
    finish: tuple[Pass, ...] = ()

    @property
    def name(self) -> str:
        return self.target.folder

    @property
    def title(self) -> str:
        return self.target.title

    def text(self, compiled: Compiled) -> str:
        return module_text(compiled, self.target)

    def describe(self, compiled: Compiled) -> tuple[Section, ...]:
        return ()

    def footprint(self, compiled: Compiled, itemsize: int) -> tuple[Footprint, ...]:
        return ()

    def on_host(self, module: ModuleType) -> Any:
        return self.bridge(module)
