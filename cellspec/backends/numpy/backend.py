"""The NumPy backend, as the registry has it."""

from __future__ import annotations

from types import ModuleType

from cellspec.backends.base import Backend, Footprint, Section
from cellspec.backends.numpy.footprint import footprints
from cellspec.backends.numpy.module import module_text
from cellspec.backends.numpy.orientation import orientation_for
from cellspec.backends.numpy.rewrites import FINISH, POLICY, REWRITES
from cellspec.pipeline import BACKWARD, FORWARD, Compiled


class _NumPy:
    name, title = "numpy", "NumPy"
    needs = ("numpy",)
    dtypes = ("float64", "float32")
    residual_policies = ("speed", "memory")
    policy, rewrites, finish = POLICY, REWRITES, FINISH

    def text(self, compiled: Compiled) -> str:
        return module_text(compiled)

    def describe(self, compiled: Compiled) -> tuple[Section, ...]:
        """How its arrays lie, and why."""
        chosen = orientation_for(compiled.schedules[FORWARD], compiled.schedules[BACKWARD])
        return (Section("on a CPU", f"arrays are {chosen.name}, {chosen.axes_doc}: {chosen.why}"),)

    def footprint(self, compiled: Compiled, itemsize: int) -> tuple[Footprint, ...]:
        """Of sequences that are run whole, and in segments of k steps."""
        options = ("", "checkpoint=k")
        sizes = footprints(compiled)
        return tuple(
            Footprint(option, size.tape.formula(itemsize), size.workspace.formula(itemsize))
            for option, size in zip(options, sizes, strict=True)
        )

    def on_host(self, module: ModuleType) -> ModuleType:
        return module


BACKEND: Backend = _NumPy()
