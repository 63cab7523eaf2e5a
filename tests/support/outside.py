"""A backend that lives outside cellspec: a distribution in a folder, with metadata that name its entry point."""

from __future__ import annotations

from pathlib import Path

BACKEND = '''\
"""Modules in plain Python that sum up what a step does; they run, and tell how many operations a sequence takes."""

from dataclasses import replace

from cellspec.backends.base import Section
from cellspec.ir.text import program_text
from cellspec.passes.policy import SchedulePolicy
from cellspec.pipeline import BACKWARD, FORWARD, Pass


def without_stash(state):
    """Nothing runs backwards here."""
    outputs = tuple(output.label for output in state.cell.outputs)
    return replace(state, forward=replace(state.forward, outputs=outputs))


class Count:
    name, title = "{name}", "Counting"
    needs = ()
    dtypes = ("float64",)
    residual_policies = ("speed",)
    policy = SchedulePolicy(stack_heads=True)
    rewrites = (Pass("give out results alone", without_stash),)
    finish = ()

    def text(self, compiled):
        forward = compiled.schedules[FORWARD]
        counts = {{"before": len(forward.before), "loop": len(forward.loop), "after": len(forward.after)}}
        return (
            f'"""{{program_text(forward.listing)}}"""\\n\\nCELL = {{compiled.cell.name!r}}\\n'
            f'SPEC_SHA256 = "{{compiled.cell.sha256}}"\\nCOUNTS = {{counts}}\\n\\n\\n'
            'def operations(T):\\n    return T*sum(COUNTS.values())\\n'
        )

    def describe(self, compiled):
        loop = compiled.schedules[BACKWARD].loop
        return [Section("counted", f"{{len(loop)}} operations in the loop", BACKWARD)]

    def footprint(self, compiled, itemsize):
        return []

    def on_host(self, module):
        return None


BACKEND = Count()
'''


def distribution(folder: Path, *points: str, module: str = "counting", text: str | None = None, name: str = "outside") -> Path:
    """Write one into ``folder``, which is to come onto ``sys.path``; ``points`` are lines ``name = module:object``."""
    (folder / f"{module}.py").write_text(BACKEND.format(name="count") if text is None else text, "utf-8")
    metadata = folder / f"{name}-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", "utf-8")
    lines = "\n".join(points or (f"count = {module}:BACKEND",))
    (metadata / "entry_points.txt").write_text(f"[cellspec.backends]\n{lines}\n", "utf-8")
    return folder
