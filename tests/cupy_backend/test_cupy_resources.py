"""Every kernel of every generated CuPy module compiles for sm_90, spills no register and keeps within the committed budget.

``cuda_budget.json`` holds the registers of each kernel by cell and dtype; ``make registers`` writes it anew, to be
read before it is committed.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from cuda_host import nvrtc
from support import COMMON, ROOT, SHIPPED

BUDGET = ROOT / "tests" / "cupy_backend" / "cuda_budget.json"
DTYPES = ("float64", "float32", "float16", "bfloat16")
SHARED = 16 * 1024  # bytes of static shared memory a block
NAMES = [path.stem for path in SHIPPED]


def cuda_text(cell: str, dtype: str) -> str:
    """The CUDA text of a shipped cell's module for one dtype."""
    return text_of_kernels((ROOT / "generated" / f"{cell}_cupy.py").read_text("utf-8"), dtype)


def text_of_kernels(module: str, dtype: str) -> str:
    """The CUDA text of a module's text for one dtype, as it gives it to CuPy; read without importing CuPy."""
    tree = ast.parse(module)
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in ("_TYPES", "_CUDA")
    }
    return f"{constants['_TYPES'][dtype]}\n{constants['_CUDA']}"


def registers(cell: str) -> dict[str, dict[str, int]]:
    """The registers of each kernel by dtype; a spill, or too much shared memory, fails."""
    found: dict[str, dict[str, int]] = {}
    for dtype in DTYPES:
        uses = nvrtc.resources(cuda_text(cell, dtype), ("--std=c++17",))
        assert uses, f"{cell} has no kernel"
        assert not [name for name, use in uses.items() if use.spills], f"{cell} spills registers in {dtype}"
        assert all(use.shared <= SHARED for use in uses.values())
        found[dtype] = {name: use.registers for name, use in sorted(uses.items())}
    return found


@pytest.mark.skipif(bool(nvrtc.unavailable()), reason=nvrtc.unavailable())
@pytest.mark.parametrize("cell", [pytest.param(n, marks=() if n in COMMON else pytest.mark.slow) for n in NAMES])
def test_kernels_compile_without_spills_and_within_budget(cell: str) -> None:
    budget = json.loads(BUDGET.read_text("utf-8"))[cell]
    found = registers(cell)
    assert {d: set(kernels) for d, kernels in found.items()} == {d: set(kernels) for d, kernels in budget.items()}
    over = [
        f"{dtype} {name}: {count} registers, budget {budget[dtype][name]}"
        for dtype, kernels in found.items()
        for name, count in kernels.items()
        if count > budget[dtype][name] + 2
    ]
    assert not over, "; ".join(over)


def test_budget_names_the_shipped_cells() -> None:
    assert sorted(json.loads(BUDGET.read_text("utf-8"))) == sorted(NAMES)


if __name__ == "__main__":
    text = json.dumps({name: registers(name) for name in NAMES}, indent=1, sort_keys=True)
    Path(BUDGET).write_text(text + "\n", "utf-8")
