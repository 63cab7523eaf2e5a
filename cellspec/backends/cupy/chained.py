"""Chains → CUDA kernels: a block per sample does the links one after the other, each for all units, and waits in between."""

from __future__ import annotations

from itertools import pairwise

import sympy

from cellspec.backends.cupy.around import Around, Texts
from cellspec.backends.cupy.cuda import ROW_FUNCTIONS
from cellspec.backends.cupy.kernels import Kernel, Part, Writer, assembled
from cellspec.backends.fused.axes import extent, kernel_of
from cellspec.backends.fused.chains import Chain, Link
from cellspec.backends.fused.code import EMPTY, Code, code, indented, name
from cellspec.backends.fused.flow import origin
from cellspec.backends.fused.indices import UNIT, ZERO
from cellspec.backends.fused.memory import Memory
from cellspec.backends.fused.regions import Region
from cellspec.backends.memory.model import Phase
from cellspec.ir import Along


def chain_kernel(called: str, memory: Memory, chain: Chain, phase: Phase, texts: Texts) -> Kernel:
    """The kernel that runs ``chain``."""
    return _Chained(memory, chain, phase, texts).kernel(called)


class _Chained:
    def __init__(self, memory: Memory, chain: Chain, phase: Phase, texts: Texts) -> None:
        self.memory, self.chain, self.texts = memory, chain, texts
        self.flow = memory.flow
        self.whole = Around(memory, Region(phase, 0, (sympy.Integer(1),), (), (), frozenset()), texts, False)

    def kernel(self, called: str) -> Kernel:
        links = self.chain.links
        parts = [self.region(link) if isinstance(link, Region) else self.along(link) for link in links]
        inner = list(parts[0].lines)
        for (before, link), part in zip(pairwise(links), parts[1:], strict=True):
            inner += [*self.wait(before, link), *part.lines]
        lines = [*self.whole.sample_of_block(inner), EMPTY, *inner]
        first = next((link for link in links if isinstance(link, Region)), None)
        about = "All steps at once" if first is None else Writer(self.memory, first, self.texts, False).about().rstrip(".")
        about = f"{about}; a block for each sample."
        return assembled(called, about, self.whole.sizes_used(lines), lines, parts, sympy.Integer(1), by_sample=True)

    def wait(self, before: Link, link: Link) -> list[Code]:
        """The block waits between links, but not between functions along axes of which neither reads another's result."""
        made = {other.out for other in self.chain.links if not isinstance(other, Region)}
        if not isinstance(before, Region) and not isinstance(link, Region) and origin(self.flow, link.operand) not in made:
            return []
        return [Code("__syncthreads();")]

    def region(self, region: Region) -> Part:
        """What the block does for a region, for the units of a sample in turn."""
        writer = Writer(self.memory, region, self.texts, False)
        part, lines, around = writer.part(), writer.lines(), writer.around
        head = code("for (long long {0} = threadIdx.x; {0} < {1}; {0} += blockDim.x) {{", UNIT, around.units)
        if region.units == 1:
            head = Code("if (threadIdx.x == 0) {")
        whole = (head, *indented([*around.within_sample(lines), *lines]), Code("}"))
        return Part(whole, part.uses, part.writes, part.functions)

    def along(self, op: Along) -> Part:
        """What the block does for a function along an axis."""
        shape = self.flow.program.shape
        seen = extent(op, shape(op.operand), shape(op.out))
        source, out = self.memory.reads[origin(self.flow, op.operand)], self.memory.reads[op.out]
        outer, length, inner = map(self.whole.factor, (seen.outer, seen.length, seen.inner))
        values, results = (
            code("{} + {}", name(place.buffer.name), self.whole.index(place, ZERO, alone=False)) for place in (source, out)
        )
        kind = kernel_of(op, seen)
        function = ROW_FUNCTIONS[kind]
        remark = self.texts.remarks.about(self.flow.program.values[op.out])
        lines = [Code(f"// {remark.text}")] if remark else []
        if kind == "sum_across":
            column = code("{0} + k/{2}*{1}*{2} + k%{2}", values, length, inner)
            lines += [
                code("for (long long k = threadIdx.x; k < {}*{}; k += blockDim.x)", outer, inner),
                code("    ({})[k] = {}({}, {}, {});", results, function, length, inner, column),
            ]
        elif seen.outer == 1:
            lines.append(code("{}({}, {}, {});", function, length, values, results))
        else:
            result = code("{} + k", results) if op.reduces else code("{} + k*{}", results, length)
            lines += [
                code("for (long long k = 0; k < {}; k++)", outer),
                code("    {}({}, {} + k*{}, {});", function, length, values, length, result),
            ]
        return Part(tuple(lines), (source.buffer, out.buffer), frozenset((out.buffer,)), frozenset())
