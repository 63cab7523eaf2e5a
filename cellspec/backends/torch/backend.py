"""The PyTorch backend, as the registry has it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from cellspec.backends.base import Backend
from cellspec.backends.frameworks.backend import ArrayBackend
from cellspec.backends.frameworks.module import Target
from cellspec.backends.torch.spelling import TORCH

TARGET = Target(
    folder="torch",
    title="PyTorch",
    spelling=TORCH,
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


def _bridge(module: ModuleType) -> Any:
    from cellspec.backends.torch.bridge import TorchBridge

    return TorchBridge(module)


BACKEND: Backend = ArrayBackend(TARGET, needs=("torch",), dtypes=("float64", "float32", "bfloat16", "float16"), bridge=_bridge)
