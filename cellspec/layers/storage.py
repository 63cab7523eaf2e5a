"""Parameters in files: the format is safetensors, which holds arrays and texts and runs nothing when it is read."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cellspec.layers.protocol import AnyLayer
from cellspec.layers.trees import named, rebuilt


def save(path: str | Path, layer: AnyLayer, params: Any) -> None:
    """Write the parameters of ``layer`` to a file, whole or not at all.

    Arrays are called by their paths, ``0.forward.Wi``; the metadata are the layer's facts: each cell, the digest of its spec
    and its dims. Raises ValueError if the parameters are not the layer's, ImportError without safetensors.
    """
    library = _safetensors()
    arrays = named(params)
    _compare("params", arrays, layer)
    on_host = getattr(layer.xp, "asnumpy", np.asarray)
    tensors = {name: np.ascontiguousarray(on_host(array)) for name, array in arrays.items()}
    _write(Path(path), library.numpy.save(tensors, metadata=layer.facts()))


def load(path: str | Path, layer: AnyLayer) -> Any:
    """The parameters that a file holds for ``layer``.

    Raises ValueError for a file of other cells, specs, dims, names, shapes or dtypes, and one that is not safetensors;
    OSError if it cannot be read; ImportError without safetensors.
    """
    library = _safetensors()
    Path(path).stat()  # what is missing is no file of another format
    try:
        with library.safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except library.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None
    for name, expected in layer.facts().items():
        if facts.get(name) != expected:
            raise ValueError(f"{path}: {name} is {facts.get(name, 'missing')}, but that of the layer is {expected}")
    if others := facts.keys() - layer.facts().keys():
        raise ValueError(f"{path}: {min(others)} is {facts[min(others)]}, of which the layer knows nothing")
    _compare(str(path), arrays, layer)
    template = layer.template
    return rebuilt(template, [layer.xp.asarray(arrays[name]) for name in named(template)])


def _compare(where: str, arrays: dict[str, Any], layer: AnyLayer) -> None:
    """The names, shapes and dtypes must be those of the layer's parameters."""
    expected = named(layer.template)
    for name in [*expected, *arrays]:
        if name not in arrays or name not in expected:
            raise ValueError(f"{where}: there is {'no' if name in expected else 'an unknown'} parameter {name or 'array'!r}")
        found, wanted = arrays[name], expected[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ValueError(f"{where}: {name} is {found.dtype}{found.shape}, expected {wanted.dtype}{wanted.shape}")


def _write(path: Path, data: bytes) -> None:
    """``data`` as the file ``path``, which at no time is there in part."""
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _safetensors() -> ModuleType:
    """The package, which is needed here alone."""
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ImportError("layers.save and layers.load need safetensors: pip install 'cellspec[layers]'") from error
    return safetensors
