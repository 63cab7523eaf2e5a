"""Compiled cell → the text of a PyTorch module."""

from __future__ import annotations

from cellspec.backends.arrays.module import Target, module_text
from cellspec.backends.torch.spelling import TORCH
from cellspec.cell import Cell
from cellspec.errors import blamed
from cellspec.pipeline import compile_cell

TARGET = Target(
    folder="torch",
    title="PyTorch",
    spelling=TORCH,
    names=("torch", "Tensor", "functional", "generator", "ctx", "cotangents", "arrays"),
    array="Tensor",
    noun="a tensor",
    xp="torch",
    empty="torch.empty(0)",
    diagonal="r.diagonal(dim1=-2, dim2=-1)",
    copy="contiguous()",
    differentiable="Autograd takes its derivatives by the derived backward pass, and those of these by the plain equations.",
    source="generator: torch.Generator | None = None",
    options="dtype: torch.dtype = torch.float32, device: Any = None",
    draws="{source}, dtype, device",
    seeded="``generator`` must be on ``device``, PyTorch's own generator if None",
)


def generate(cell: Cell, residuals: str = "speed") -> str:
    """The PyTorch module of ``cell``; ``residuals`` is one of :data:`cellspec.RESIDUALS`."""
    with blamed(f"cell {cell.name!r}"):
        return module_text(compile_cell(cell, residuals), TARGET)
