"""The CuPy backend, as the registry has it."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from cellspec.backends.base import Backend, Footprint, Section
from cellspec.backends.cupy.describe import describe
from cellspec.backends.cupy.module import module_text
from cellspec.backends.fused.directions import results
from cellspec.backends.rewrites import MASKS
from cellspec.passes.policy import SchedulePolicy
from cellspec.pipeline import BACKWARD, FORWARD, Compiled, Pass


def _give_out(state: Compiled) -> Compiled:
    """The forward step gives out states after a sample's last step too, where they are stored apart."""
    outputs = tuple(dict.fromkeys((*results(state), *state.kept)))
    return replace(state, forward=replace(state.forward, outputs=outputs))


class _CuPy:
    name, title = "cupy", "CuPy"
    needs = ("cupy", "numpy")
    dtypes = ("float64", "float32", "bfloat16", "float16")
    residual_policies = ("speed",)
    policy = SchedulePolicy(stack_heads=True)
    rewrites = (MASKS, Pass("give out last states", _give_out))
    finish: tuple[Pass, ...] = ()

    def text(self, compiled: Compiled) -> str:
        return module_text(compiled)

    def describe(self, compiled: Compiled) -> tuple[Section, ...]:
        """The class of each direction's loop and why, its exchanges and its kernels."""
        ahead, back = describe(compiled)
        return Section("on a GPU", ahead, FORWARD), Section("on a GPU", back, BACKWARD)

    def footprint(self, compiled: Compiled, itemsize: int) -> tuple[Footprint, ...]:
        return ()

    def on_host(self, module: ModuleType) -> None:
        """Arrays of the host are refused: ``make gpu-check`` verifies where there is a device."""


BACKEND: Backend = _CuPy()
