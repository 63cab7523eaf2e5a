"""A file that holds the whole of a run, and that is never there in part."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Snapshot(NamedTuple):
    """Where a run is: arrays by name, and the rest as JSON has it."""

    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


def save(path: Path, snapshot: Snapshot) -> None:
    """Write ``snapshot``: whoever is killed or loses power meanwhile finds the file as it was before, or as it is now.

    The new file is on the disk before it takes the old one's name, and the folder, which holds the name, after that.
    """
    new = path.with_name(f".{path.name}.tmp")
    with new.open("wb") as file:
        np.savez(file, allow_pickle=False, values=np.array(json.dumps(snapshot.values)), **snapshot.arrays)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load(path: Path) -> Snapshot | None:
    """What :func:`save` wrote; None if there is no file. Raises ValueError for a file of anything else."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return Snapshot(arrays, json.loads(str(arrays.pop("values"))))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{path} is not a checkpoint") from None
