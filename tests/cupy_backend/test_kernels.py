"""Kernels as text: parameters and bounds, loads before stores, one store for each value, and blocks that wait between links."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import sympy
from fused_support import GATED, SCAN, memory_of
from numpy_support import SILENT

from cellspec import ir
from cellspec.backends.cupy.around import Texts
from cellspec.backends.cupy.chained import chain_kernel
from cellspec.backends.cupy.cuda import ROW_FUNCTIONS
from cellspec.backends.cupy.kernels import Kernel, gap, kernel, pointer, product, wrapped
from cellspec.backends.fused.chains import Chain, launches
from cellspec.backends.fused.code import Code
from cellspec.backends.fused.memory import Memory
from cellspec.backends.memory.model import Buffer, Element, Home, Owner, Phase

H, N = sympy.symbols("H N")
TEXTS = Texts({"H": "H", "I": "I", "N": "N"}, SILENT)

TOTAL = """
    constant  b: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      f: [H]    = sigmoid(x[t])
      g: [H]    = f*h[t-1]
      h[t]: [H] = g + b
    carry     h[t-1] <- h[t]
    total     d:b = sum of g
    give out  f
"""
STRETCHED = """
    constant  b: [H], s: [1]
    sequence  x[t]: [H], y[t]: [1]
    carried   h[t-1]: [H], n[t-1]: [1]
      n[t]: [1] = n[t-1]*y[t] + s
      h[t]: [H] = tanh(h[t-1]*n[t] + x[t]*b)
    carry     h[t-1] <- h[t]
    carry     n[t-1] <- n[t]
    give out  h[t], n[t]
"""
"""A single number, which every thread of a sample needs."""

BEFORE = """
    constant  U: [H, H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      v: [H]    = tanh(x[t])
      w: [H]    = U @ v
      u: [H]    = U @ h[t-1]
      h[t]: [H] = tanh(u)*w
      e: [H]    = sigmoid(h[t])
      d: [H]    = U @ e
      z: [H]    = d*e
    carry     h[t-1] <- h[t]
    give out  z
"""
"""Something to do in each phase."""

NORMED = """
    constant  a: [H]
    sequence  x[t]: [H], m[t]: [N, H]
      e: [H]    = exp(x[t])*a
      s: [1]    = sum_to(e)
      p: [H]    = e/s
      n: [N, 1] = sum_to(m[t])
      q: [1, H] = sum_to(m[t])
      c: [H]    = cumsum(p)
      r: [H]    = tanh(c)
    give out  r, n, q
"""
"""Regions and functions along axes, one after the other."""


def kernels(text: str, phase: Phase = Phase.LOOP, *, single: bool = False, **options: object) -> list[Kernel]:
    memory = memory_of(text, single=single, **options)  # type: ignore[arg-type]
    return [kernel(f"k{n}", memory, region, TEXTS, single) for n, region in enumerate(memory.plan.in_phase(phase))]


CASES: dict[str, list[Kernel]] = {
    "gated": kernels(GATED, kept=("i",)),
    "gated, backwards": kernels(GATED.replace("give out  h[t]", "give out i"), forwards=False),
    "scan": kernels(SCAN, single=True),
    "scan, backwards": kernels(SCAN, single=True, forwards=False),
    "total": kernels(TOTAL, single=True, forwards=False),
    "stretched": kernels(STRETCHED),
    "before": kernels(BEFORE, Phase.BEFORE),
    "loop": kernels(BEFORE),
    "after": kernels(BEFORE, Phase.AFTER),
}

KNOWN = {
    "const", "long", "real", "stored", "if", "return", "for", "blockIdx", "blockDim", "threadIdx", "keep", "x",
    *("sigmoid", "tanh", "exp"),
}  # fmt: skip
"""Words of C++, of its surroundings, and functions that a module defines."""


def parameters(made: Kernel) -> list[tuple[str, str]]:
    """The types and names of a kernel's parameters."""
    text = " ".join(made.parameters)
    assert text.endswith(")")
    found = [parameter.strip() for parameter in text[:-1].split(",")]
    return [tuple(parameter.rsplit(" ", 1)) for parameter in found]  # type: ignore[misc]


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_is_called_with_its_sizes_and_buffers_in_the_order_of_its_parameters(name: str) -> None:
    for made in CASES[name]:
        found = parameters(made)
        assert [name for _, name in found] == [*made.sizes, *(buffer.name for buffer in made.buffers)]
        assert all(kind == "const long long" for kind, _ in found[: len(made.sizes)])
        assert all(kind.endswith("*") for kind, _ in found[len(made.sizes) :])


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_names_nothing_that_it_has_not(name: str) -> None:
    """And has nothing that it does not name."""
    for made in CASES[name]:
        body = "\n".join(made.body)
        own = {name for _, name in parameters(made)}
        variables = set(re.findall(r"(?:const long long|long long|const real|real|,) ([A-Za-z_]\w*) = ", body))
        names = set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", body))
        assert names <= own | variables | KNOWN
        assert own <= names and all(len(re.findall(rf"\b{each}\b", body)) > 1 for each in variables)


@pytest.mark.parametrize("name", CASES)
def test_what_is_stored_is_no_constant_and_all_else_is_one(name: str) -> None:
    for made in CASES[name]:
        body = "\n".join(made.body)
        stored = set(re.findall(r"^ *(?:if \(.*?\) )?(\w+)\[.*?\] = ", body, re.MULTILINE)) | set(
            re.findall(r"keep\((\w+),", body)
        )
        assert stored
        for kind, parameter in parameters(made)[len(made.sizes) :]:
            assert kind.startswith("const ") is (parameter not in stored)


@pytest.mark.parametrize("name", CASES)
def test_a_thread_without_a_unit_returns_first(name: str) -> None:
    for made in CASES[name]:
        first, second, *_ = made.body
        assert first == "const long long k = (long long)blockIdx.x*blockDim.x + threadIdx.x;"
        rows = "rows" if name in ("before", "after") else "B"
        assert second == f"if (k >= {rows}*{made.units}) return;"


@pytest.mark.parametrize("name", CASES)
def test_all_loads_of_a_step_come_before_its_stores(name: str) -> None:
    """What lies in another's place has been read when it is overwritten; each place is stored once."""
    for made in CASES[name]:
        lines = [line.strip() for line in made.body]
        loads = [k for k, line in enumerate(lines) if re.match(r"const real \w+ = \w+\[", line)]
        stores = [k for k, line in enumerate(lines) if re.match(r"(if \(.*\) )?(\w+\[.*\] = |keep\()", line)]
        assert max(loads) < min(stores)
        targets = [re.split(r" = |, \w+\);", lines[k])[0] for k in stores]
        assert len(targets) == len(set(targets))


def test_types_are_those_of_the_buffers() -> None:
    """Carries and gate arithmetic in the exact type, what is multiplied in the stored one."""
    (made,) = CASES["gated"]
    types = {name: kind for kind, name in parameters(made)}
    assert (types["c_all"], types["h_operand"], types["b"]) == ("real*", "stored*", "const stored*")
    assert "    " not in made.body[0] and "keep(h_operand, at + B*H, h);" in made.body


def test_gates_are_stored_over_their_pre_activations() -> None:
    (made,) = CASES["gated"]
    text = "\n".join(made.body)
    assert text.index("const real W_x = i_all_2[at];") < text.index("i_all_2[at] = i;")


def test_a_kernel_over_the_whole_loop_keeps_carries_in_registers() -> None:
    """It reads the first before the loop and turns over at the end of each step, in the direction of its steps."""
    (made,) = CASES["scan"]
    (back,) = CASES["scan, backwards"]
    text, reverse = "\n".join(made.body), "\n".join(back.body)
    loop = "for (long long t = 0; t < T; t++) {"
    assert text.index("real h_prev = h_all[k];") < text.index(loop) < text.index("    h_prev = h;")
    assert "for (long long t = T - 1; t >= 0; t--) {" in reverse and loop not in reverse
    assert made.about == "Every step, from the first to the last." and back.about == "Every step, from the last to the first."
    assert reverse.endswith("}\nh_prev_last[k] = h_prev;"), "what is left is stored behind the loop"
    assert "T" in made.sizes and "t" not in made.sizes


def test_each_thread_sums_its_own_share() -> None:
    (made,) = CASES["total"]
    text = "\n".join(made.body)
    assert (
        text.index("real g_total = 0;")
        < text.index("for (")
        < text.index("    g_total += g;")
        < text.index("g_totals[k] = g_total;")
    )


def test_of_several_threads_that_have_a_value_the_first_stores_it() -> None:
    (made,) = CASES["stretched"]
    guarded = [line for line in made.body if line.startswith("if (j == 0) ")]
    assert guarded == ["if (j == 0) n_all[row + B] = n;", "if (j == 0) n_out[row] = n;"]
    assert {"h_all[at + B*H] = h;", "h_out[at] = h;"} <= set(made.body), "its own unit each thread stores"


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("gated", "One step, after U @ h_prev."),
        ("before", "All steps at once, before the loop."),
        ("loop", "One step, after U @ h_prev."),
        ("after", "All steps at once, after the loop."),
    ],
)
def test_what_a_kernel_is_for(name: str, about: str) -> None:
    assert about in [made.about for made in CASES[name]]


def test_functions_that_a_module_must_have() -> None:
    (made,) = CASES["gated"]
    assert made.functions == {"sigmoid"}


# --- parts of a kernel's text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (ir.Product(("a",), (("U",),), ("h[t-1]",), False), "U @ h_prev"),
        (ir.Product(("a",), (("U",),), ("d:i.pre",), True), "U.T @ d_i_pre"),
        (ir.Product(("a", "b"), (("Ui",), ("Uf",)), ("h[t-1]",), False), "[Ui; Uf] @ h_prev"),
        (ir.Product(("a",), (("U", "V"),), ("d", "e"), True), "[U.T, V.T] @ [d; e]"),
    ],
)
def test_products_as_comments_write_them(op: ir.Product, text: str) -> None:
    assert product(op) == text


def test_lines_of_parameters() -> None:
    """None is broken within one; all are as long as can be."""
    assert wrapped(["const long long B"]) == ("const long long B)",)
    names = [f"const stored* buffer_{k}" for k in range(12)]
    lines = wrapped(names)
    assert " ".join(lines) == f"{', '.join(names)})" and max(map(len, lines)) <= 111 and len(lines) > 1
    assert all(line.endswith(",") for line in lines[:-1])
    assert all(len(line) + len(following.split(",")[0]) > 108 for line, following in pairwise(lines))


@pytest.mark.parametrize(
    ("element", "text"), [(Element.STORED, "stored* a"), (Element.EXACT, "real* a"), (Element.ROW, "long long* a")]
)
def test_pointers(element: Element, text: str) -> None:
    assert pointer(Buffer("a", (H,), Owner.FORWARD, Home.STEP, element)) == text


def test_a_gap_stands_before_something() -> None:
    assert gap([]) == [] and [line.text for line in gap([Code("a;")])] == ["", "a;"]


# --- chains ------------------------------------------------------------------------------------------------------------------


def chained(text: str) -> tuple[Memory, Chain, Kernel]:
    memory = memory_of(text)
    (chain,) = [step for step in launches(memory.plan, Phase.AFTER) if isinstance(step, Chain)]
    return memory, chain, chain_kernel("chain", memory, chain, Phase.AFTER, TEXTS)


def test_a_chain_is_one_kernel_of_a_block_for_each_sample() -> None:
    _, chain, made = chained(NORMED)
    assert made.by_sample and made.units == 1 and made.about.endswith("a block for each sample.")
    assert made.body[0] == "const long long row = blockIdx.x;" and made.functions == {"exp", "tanh"}
    assert len(chain.links) == 9
    assert [name for _, name in parameters(made)] == [*made.sizes, *(buffer.name for buffer in made.buffers)]


def test_a_block_waits_between_links_of_which_one_reads_the_other() -> None:
    """Two sums of what is given can be made at once."""
    _, chain, made = chained(NORMED)
    waits = [line for line in made.body if line == "__syncthreads();"]
    assert len(waits) == len(chain.links) - 2
    first, second = (next(k for k, line in enumerate(made.body) if word in line) for word in ("sum_row(H, m", "sum_of_column"))
    assert "__syncthreads();" not in made.body[first:second]


def test_functions_along_axes() -> None:
    """Rows one after the other by all threads; columns by a thread each."""
    text = "\n".join(chained(NORMED)[2].body)
    assert "for (long long k = 0; k < N; k++)\n    sum_row(H, m + row*H*N + k*H, n_allraw_all + row*N + k);" in text
    assert "(q_allraw_all + row*H)[k] = sum_of_column(N, H, m + row*H*N + k/H*N*H + k%H);" in text
    assert "\nsum_row(H, e_all + row*H, s_all + row);\n" in text
    assert f"\n{ROW_FUNCTIONS['running_sum']}(H, p_all + row*H, c_all + row*H);\n" in text


def test_regions_of_a_chain_are_loops_over_units() -> None:
    _, chain, made = chained(NORMED)
    heads = [line for line in made.body if line.startswith("for (long long j = threadIdx.x;")]
    regions = [link for link in chain.links if hasattr(link, "units")]
    assert len(heads) == len(regions)
    assert {head.split("j < ")[1].split(";")[0] for head in heads} == {str(region.units) for region in regions}
    assert all(head.endswith("j += blockDim.x) {") for head in heads)


def test_a_region_of_one_unit_is_the_first_threads() -> None:
    _, chain, made = chained(
        """
        sequence x[t]: [H]
          s: [1] = sum_to(x[t])
          v: [1] = exp(s)
        give out v
        """
    )
    ones = [link for link in chain.links if getattr(link, "units", None) == 1]
    assert ones and sum(line == "if (threadIdx.x == 0) {" for line in made.body) == len(ones)
