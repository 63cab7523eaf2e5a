"""Chains → CUDA kernels: a block per sample does the links one after the other, each for all units, and waits in between."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import sympy

from cellspec.backends.cupy.around import Around, Texts
from cellspec.backends.cupy.axes import extent, kernel_of
from cellspec.backends.cupy.chains import Chain, Link
from cellspec.backends.cupy.flow import Phase, origin
from cellspec.backends.cupy.kernels import Kernel, Writer, pointer, wrapped
from cellspec.backends.cupy.memory import Buffer, Memory
from cellspec.backends.cupy.regions import Region
from cellspec.ir import Along

FUNCTIONS = {
    "sum_units": "sum_row",
    "largest_unit": "largest_of_row",
    "running_sum": "running_sums<false>",
    "running_sum_back": "running_sums<true>",
}
"""The functions by which a block works on a row, by the kernels that do the same for many."""


def chain_kernel(name: str, memory: Memory, chain: Chain, phase: Phase, texts: Texts) -> Kernel:
    """The kernel that runs ``chain``."""
    return _Chained(name, memory, chain, phase, texts).kernel()


class _Chained:
    def __init__(self, name: str, memory: Memory, chain: Chain, phase: Phase, texts: Texts) -> None:
        self.name, self.memory, self.chain, self.texts = name, memory, chain, texts
        self.flow = memory.flow
        self.buffers: dict[Buffer, bool] = {}
        self.functions: set[str] = set()
        self.whole = Around(memory, Region(phase, 0, (sympy.Integer(1),), (), (), frozenset()), texts, False)

    def kernel(self) -> Kernel:
        links = self.chain.links
        inner = self.link(links[0])
        for before, link in pairwise(links):
            inner += [*self.wait(before, link), *self.link(link)]
        body = [*self.whole.sample_of_block(inner), "", *inner]
        sizes = self.whole.sizes_used(body)
        read = [b for b, written in self.buffers.items() if not written]
        changed = [b for b, written in self.buffers.items() if written]
        parameters = [f"const long long {size}" for size in sizes]
        parameters += [f"const {pointer(b)}" for b in read] + [pointer(b) for b in changed]
        first = next((link for link in self.chain.links if isinstance(link, Region)), None)
        about = "All steps at once" if first is None else Writer("", self.memory, first, self.texts, False).about().rstrip(".")
        return Kernel(
            self.name, f"{about}; a block for each sample.", sizes, wrapped(parameters), (*read, *changed), tuple(body),
            sympy.Integer(1), frozenset(self.functions), by_sample=True,
        )  # fmt: skip

    def link(self, link: Link) -> list[str]:
        """What the block does for one link."""
        return self.region(link) if isinstance(link, Region) else self.along(link)

    def wait(self, before: Link, link: Link) -> list[str]:
        """The block waits between links, but not between functions along axes of which neither reads another's result."""
        made = {other.out for other in self.chain.links if not isinstance(other, Region)}
        if not isinstance(before, Region) and not isinstance(link, Region) and origin(self.flow, link.operand) not in made:
            return []
        return ["__syncthreads();"]

    def use(self, buffers: Mapping[Buffer, bool]) -> None:
        for buffer, written in buffers.items():
            self.buffers[buffer] = self.buffers.get(buffer, False) or written

    def region(self, region: Region) -> list[str]:
        """A region's lines, for the units of a sample in turn."""
        writer = Writer(self.name, self.memory, region, self.texts, False)
        lines = writer.lines()
        self.use(writer.buffers)
        self.functions |= writer.printer.used
        around = writer.around
        head = f"for (long long j = threadIdx.x; j < {around.units}; j += blockDim.x) {{"
        if region.units == 1:
            head = "if (threadIdx.x == 0) {"
        return [head, *(f"    {line}" if line else "" for line in [*around.within_sample(lines), *lines]), "}"]

    def along(self, op: Along) -> list[str]:
        """The lines of a function along an axis."""
        shape = self.flow.program.shape
        seen = extent(op, shape(op.operand), shape(op.out))
        source, out = self.memory.reads[origin(self.flow, op.operand)], self.memory.reads[op.out]
        self.use({source.buffer: False, out.buffer: True})
        outer, length, inner = map(self.whole.factor, (seen.outer, seen.length, seen.inner))
        values = f"{source.buffer.name} + {self.whole.index(source, '0', alone=False)}"
        results = f"{out.buffer.name} + {self.whole.index(out, '0', alone=False)}"
        kind = kernel_of(op, seen)
        comment = self.texts.comments.get(self.flow.program.values[op.out].origin, "")
        lines = [comment] if comment else []
        if kind == "sum_across":
            column = f"{values} + k/{inner}*{length}*{inner} + k%{inner}"
            return [
                *lines,
                f"for (long long k = threadIdx.x; k < {outer}*{inner}; k += blockDim.x)",
                f"    ({results})[k] = sum_of_column({length}, {inner}, {column});",
            ]
        result = f"{results} + k" if op.reduces else f"{results} + k*{length}"
        if seen.outer == 1:
            return [*lines, f"{FUNCTIONS[kind]}({length}, {values}, {results});"]
        return [
            *lines,
            f"for (long long k = 0; k < {outer}; k++)",
            f"    {FUNCTIONS[kind]}({length}, {values} + k*{length}, {result});",
        ]
