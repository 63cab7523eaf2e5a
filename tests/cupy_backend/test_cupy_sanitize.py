"""The CUDA text of generated modules under sanitizers, and mutants of it: each must be caught.

AddressSanitizer and UBSan see an index that leaves an array, ThreadSanitizer two threads that nothing keeps apart, whatever the
numbers. The mutants say that these, and the numbers themselves, would have told: a text without one of its barriers, and with
an index, a comparison or a guard off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import Mutant, Report, barrier_mutants, import_text, index_mutants, sanitize, substitute, unavailable
from cuda_support import bfloat16, needs
from cupy_jobs import Call, fault, results
from episodes import Masks, masked, random_masks
from support import ROOT, SPECS, cell_of, generator, module_of, spec_id
from test_masks import spoilt

import cellspec
from cellspec.verification.check import PRIMES
from cellspec.verification.sampling import Sample, sample

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=str(unavailable()))

TOLERANCES = {"float64": 1e-9, "float32": 1e-3, "bfloat16": np.inf}  # how near small floats come: see the numeric tests

# T, B, H, and whether samples have lengths and resets, or the loop is a graph. Together: blocks that are not full, several
# blocks, several parts of a sum, a last tile of one row, one thread alone, and no sample at all.
Shape = tuple[int, int, int, str]
SHAPES: tuple[Shape, ...] = ((7, 3, 33, "masks"), (22, 6, 33, ""), (1, 1, 33, ""), (2, 9, 33, "graph"), (2, 0, 33, ""))
WIDE: Shape = (2, 2, 129, "")  # more units than the threads of a block that goes along them
# To ThreadSanitizer a CUDA thread is half a megabyte, and a launch has all of its threads at once. Of each line the first shape
# with no launch that is too large, if there is one: a sum over units has a block for each row, of which a matrix has many.
HELD = 2048
FEW_THREADS: tuple[tuple[Shape, ...], ...] = (
    ((3, 2, 17, "masks"), (3, 2, 7, "masks")),
    ((1, 6, 23, ""), (1, 1, 13, "")),
    ((2, 3, 17, "graph"), (2, 3, 5, "graph")),
    ((22, 6, 5, ""), (66, 2, 3, "")),  # parts of sums
    (WIDE,),
)

WITH_PRODUCTS = ROOT / "specs" / "lstm.yaml"  # a launch for each step, between products
WITH_LOOPS = [ROOT / "specs" / f"{name}.yaml" for name in ("indrnn", "mingru")]  # a loop inside the kernel
WITH_UNITS = ROOT / "tests" / "valid" / "constants.yaml"  # sums over the units of a sample
WITH_CHAINS = ROOT / "tests" / "valid" / "normed.yaml"  # functions along the units, one after the other
WITH_HEADS = ROOT / "specs" / "slstm.yaml"  # products head by head
REPRESENTATIVE = [WITH_PRODUCTS, *WITH_LOOPS, WITH_UNITS, WITH_CHAINS]

# Mutants that are none of an index, or that mean the same as the text.
NUMBERS = re.compile(r"__device__ inline real \w+\(real a(, real b)*\)")  # functions of numbers: there is no index in them
INFINITE = re.compile(r"<= real\(INFINITY\)")  # no index is infinite; test_cupy_language.py has rows that are
# One tile more, behind a row of full tiles: it has no element, as the mutants of the comparisons that say so show.
TILES = re.compile(r"for \(long long first = 0; first <= length; first \+= 128\)")
SPANS = re.compile(r"for \(int span = 1; span <= 128; span \*= 2\)")  # one span more, that no thread of 128 reaches: all add 0


def drawn(path: Path, steps: int, batch: int, width: int, dtype: Any) -> Sample:
    """Arguments of a cell, all its dims distinct; few and small heads ([N, D]), as each takes blocks of its own."""
    cell = cell_of(path)
    chosen = {"H": width} | ({"N": 2, "D": 3} if "N" in cell.dims else {})
    primes = [prime for prime in (*((2, 3) if width < 11 else ()), *PRIMES) if "H" not in cell.dims or prime != width]
    dims = {dim: chosen.get(dim, prime) for dim, prime in zip(cell.dims, primes, strict=False)}
    return sample(cell, dims, steps, batch, generator(1), dtype)


@cache
def calls(path: Path, shapes: tuple[Shape, ...], dtype: str) -> list[Call]:
    """Calls of a cell's module in these shapes, with the NumPy module's results."""
    found = []
    kind = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    for steps, batch, width, how in shapes:
        given = drawn(path, steps, batch, width, np.float32 if dtype == "float32" else np.float64)
        masks = first_whole(random_masks(generator(3), steps, batch)) if how == "masks" else Masks()
        wanted = asdict(masked(module_of(path), given, masks))
        expected = tuple(array for arrays in wanted.values() for array in arrays.values())
        given = spoilt(given, masks)
        fields = (given.params, given.x, given.state or {}, given.dy, given.dfinal)
        arrays = [tuple(array.astype(kind) for array in arrays.values()) for arrays in fields]
        what = f"T={steps} B={batch} H={width} {how}"
        found.append(Call(what, *arrays, how == "graph", masks.options(), expected, TOLERANCES[dtype]))
    return found


def first_whole(masks: Masks) -> Masks:
    """The same with the samples' lengths turned round: the first is whole, so that the first row of all is read."""
    assert masks.lengths is not None
    return replace(masks, lengths=masks.lengths[::-1].copy())


@cache
def text_of(path: Path) -> str:
    """The CuPy module of a cell."""
    made = ROOT / "generated" / f"{path.stem}_cupy.py"
    return made.read_text("utf-8") if path.parent == ROOT / "specs" else cellspec.generate(cell_of(path), "cupy")


def with_cuda(text: str, cuda: str) -> str:
    """A module's text with other CUDA text."""
    return text.replace(cuda_in(text), cuda)


def cuda_in(text: str) -> str:
    """The CUDA text in a module's text."""
    found = re.search(r'^_CUDA = r"""\n(.*?)^"""', text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@cache
def threads(path: Path, shape: Shape) -> int:
    """The most threads of a launch in this shape."""
    most = 0

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        nonlocal most
        most = max(most, math.prod(grid) * math.prod(block))

    (given,) = calls(path, (shape,), "float64")
    with substitute() as cupy:
        module = import_text(text_of(path))
        module._kernel = lambda name, dtype: launch
        results(cupy, module, given)
    return most


def shapes_for(variant: str, path: Path) -> tuple[Shape, ...]:
    """The shapes in which a sanitizer sees a cell."""
    along = "H" in cell_of(path).dims and "__shared__ real tile[128]" in text_of(path)
    if variant == "asan":
        return (*SHAPES, WIDE) if along else SHAPES
    held = [[shape for shape in line if threads(path, shape) <= HELD] for line in FEW_THREADS if along or WIDE not in line]
    return tuple(line[0] for line in held if line)


def reports_of(variant: str, texts: list[str], path: Path, dtype: str) -> list[Report]:
    """What a sanitizer says of each text of a cell's module, and whether its numbers are right."""
    needs(variant)
    given = calls(path, shapes_for(variant, path), dtype)
    return sanitize(variant, fault, [(text, given) for text in texts])


def check_clean(variant: str, path: Path, dtype: str) -> None:
    (report,) = reports_of(variant, [text_of(path)], path, dtype)
    assert report.clean and report.value == "", f"{report.value}\n{report.error}\n{report.output}"


@pytest.mark.parametrize("path", REPRESENTATIVE, ids=spec_id)
@pytest.mark.parametrize("variant", ["asan", "tsan"])
def test_sanitizers_find_nothing(variant: str, path: Path) -> None:
    check_clean(variant, path, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("path", SPECS, ids=spec_id)
@pytest.mark.parametrize(("variant", "dtype"), [*product(("asan", "tsan"), ("float32", "bfloat16"))])
def test_sanitizers_find_nothing_in_any_cell(variant: str, dtype: str, path: Path) -> None:
    check_clean(variant, path, dtype)


# --- mutants --------------------------------------------------------------------------------------------------------------


def definitions(cuda: str) -> list[str]:
    """The functions and kernels of a CUDA text, each with what stands before it."""
    return re.split(r"(?<=^}\n)|(?<=; }\n)", cuda, flags=re.MULTILINE)


def own(path: Path, mutants: Iterable[Mutant], others: Iterable[Path] = (WITH_PRODUCTS,)) -> list[Mutant]:
    """Those mutants that change a definition which no module of the others has to the letter."""
    known = {definition for other in others for definition in definitions(cuda_in(text_of(other)))}
    lines, end = set(), 0
    for definition in definitions(cuda_in(text_of(path))):
        start, end = end, end + definition.count("\n")
        if definition not in known:
            lines.update(range(start + 1, end + 1))
    return [mutant for mutant in mutants if mutant.line in lines]


def wrong_indices(path: Path) -> list[Mutant]:
    """Mutants of a cell's CUDA text in which an index, or what guards one, is off."""
    cuda = cuda_in(text_of(path))
    lines = cuda.splitlines()
    same = re.compile("|".join(rule.pattern for rule in (INFINITE, TILES, SPANS)))
    return [m for m in index_mutants(cuda) if not NUMBERS.match(lines[m.line - 1]) and not same.search(line_of(m))]


def line_of(mutant: Mutant) -> str:
    """The line that is wrong."""
    return mutant.text.splitlines()[mutant.line - 1].strip()


def reports_of_mutants(variant: str, path: Path, mutants: list[Mutant], dtype: str = "float64") -> list[tuple[Mutant, Report]]:
    """What a sanitizer says of each mutant of a cell's CUDA text."""
    text = text_of(path)
    control, *reports = reports_of(variant, [text, *(with_cuda(text, mutant.text) for mutant in mutants)], path, dtype)
    assert control.clean and control.value == "", control
    return list(zip(mutants, reports, strict=True))


THIRDS = pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
"""Each mutant is a compilation of its own: by default a third of them."""


def check_indices(path: Path, mutants: list[Mutant]) -> None:
    """Each is caught: in float64, or where storage and arithmetic differ, by a NaN that nobody has written over."""
    for dtype in ("float64", "bfloat16"):
        reports = reports_of_mutants("asan", path, mutants, dtype)
        mutants = [mutant for mutant, report in reports if report.clean and report.value == ""]
        if not mutants:
            return
    assert [f"{mutant}, in {line_of(mutant)!r}" for mutant in mutants] == []


@THIRDS
def test_wrong_indices_are_caught(every: int) -> None:
    mutants = wrong_indices(WITH_PRODUCTS)
    assert len(mutants) > 15
    check_indices(WITH_PRODUCTS, mutants[::every])


@THIRDS
@pytest.mark.parametrize("path", WITH_LOOPS, ids=spec_id)
def test_wrong_indices_in_loops_are_caught(path: Path, every: int) -> None:
    mutants = own(path, wrong_indices(path))
    assert len(mutants) > 5
    check_indices(path, mutants[::every])


@THIRDS
def test_wrong_indices_in_sums_over_units_are_caught(every: int) -> None:
    mutants = own(WITH_UNITS, wrong_indices(WITH_UNITS))
    assert len(mutants) > 10
    check_indices(WITH_UNITS, mutants[::every])


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in SPECS if path not in (WITH_PRODUCTS, *WITH_LOOPS)], ids=spec_id)
def test_wrong_indices_in_any_cell_are_caught(path: Path) -> None:
    check_indices(path, own(path, wrong_indices(path)))


def barriers(path: Path, others: Iterable[Path]) -> list[Mutant]:
    """Mutants that lack a barrier within a kernel or a function.

    Left out is where a block waits between the links of a chain, or for what the caller of a function does next: in
    the cells here the same threads often go on with what they have written themselves.
    """
    lines = cuda_in(text_of(path)).splitlines()
    chained, found = False, set()
    for number, line in enumerate(lines, 1):
        chained = "a block for each sample" in line or (chained and not line.startswith("// "))
        ends = lines[number].strip() if number < len(lines) else ""
        if not chained and ends not in ("}", "return result;"):
            found.add(number)
    return [mutant for mutant in own(path, barrier_mutants(cuda_in(text_of(path))), others) if mutant.line in found]


@pytest.mark.parametrize(
    ("path", "others", "count"),
    [(WITH_PRODUCTS, (), 1), (WITH_UNITS, (WITH_PRODUCTS,), 1), (WITH_HEADS, (WITH_PRODUCTS, WITH_CHAINS), 1)],
    ids=["products", "units", "heads"],
)
def test_missing_barriers_are_races(path: Path, others: tuple[Path, ...], count: int) -> None:
    mutants = barriers(path, others)
    assert len(mutants) == count
    for mutant, report in reports_of_mutants("tsan", path, mutants):
        assert "data race" in {finding.kind for finding in report.findings}, f"{mutant}: {report}"


@pytest.mark.parametrize(("every", "least"), [(4, 2), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_missing_waits_between_links_are_races(every: int, least: int) -> None:
    waits = own(WITH_CHAINS, barrier_mutants(cuda_in(text_of(WITH_CHAINS))))[::every]
    reports = [report for _, report in reports_of_mutants("tsan", WITH_CHAINS, waits)]
    assert sum("data race" in {finding.kind for finding in report.findings} for report in reports) >= least


def test_there_are_no_other_barriers() -> None:
    for path in SPECS:
        assert not barriers(path, (WITH_PRODUCTS, WITH_UNITS, WITH_CHAINS, WITH_HEADS)), path
