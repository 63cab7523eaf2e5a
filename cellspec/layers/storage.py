"""Parameters in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellspec.layers.protocol import AnyLayer


def save(path: str | Path, layer: AnyLayer, params: Any) -> None:
    raise NotImplementedError


def load(path: str | Path, layer: AnyLayer) -> Any:
    raise NotImplementedError
