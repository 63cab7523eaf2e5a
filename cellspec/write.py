"""The folder of generated modules: what should stand in it, what stands in it, and making the second equal the first.

A module is ``<cell>_<backend>.py``. It is written by way of a temporary file beside it, so that no reader ever sees half of
one, and only if its text has changed, so that time stamps tell what is new.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellspec import generate
from cellspec.arguments import UsageMistake
from cellspec.errors import Diagnostic, SpecError
from cellspec.jobs import Made

if TYPE_CHECKING:
    from cellspec.cell import Cell

MARK = re.compile(r'^SPEC_SHA256 = "[0-9a-f]{64}"$', re.MULTILINE)
"""The line by which a generated module is known."""

PACKAGE = "__init__.py"
PACKAGE_TEXT = '"""Modules written by ``cellspec generate``."""\n'


@dataclass(frozen=True)
class Comparison:
    """How a folder differs from what it should hold: names of files, sorted."""

    stale: tuple[str, ...]
    missing: tuple[str, ...]
    orphaned: tuple[str, ...]

    @property
    def fresh(self) -> bool:
        """Whether there is no difference."""
        return not (self.stale or self.missing or self.orphaned)


def module_name(cell: str, backend: str) -> str:
    """The file of a cell's module."""
    return f"{cell}_{backend}.py"


def modules(cells: Iterable[Cell], backends: Iterable[str]) -> dict[str, str]:
    """The modules of ``cells``, text by file; two cells of one name are a :class:`~cellspec.arguments.UsageMistake`."""
    chosen = tuple(backends)
    return gathered(Made(cell.path, cell.name, {backend: generate(cell, backend) for backend in chosen}) for cell in cells)


def gathered(made: Iterable[Made]) -> dict[str, str]:
    """All modules, text by file; SpecError with the mistakes of all files if any has one."""
    found: dict[str, str] = {}
    paths: dict[str, str] = {}
    wrong: list[Diagnostic] = []
    for one in made:
        wrong += one.mistakes
        if one.texts is None:
            continue
        if one.cell in paths:
            raise UsageMistake(f"{paths[one.cell]!r} and {one.path!r} both describe a cell named {one.cell!r}")
        paths[one.cell] = one.path
        found |= {module_name(one.cell, backend): text for backend, text in one.texts.items()}
    if wrong:
        raise SpecError(wrong)
    return found


def planned(folder: Path, modules: Mapping[str, str]) -> dict[str, str]:
    """What ``folder`` should hold, text by file: the modules, and what makes it a package unless it is the working folder."""
    package = {} if folder.resolve() == Path.cwd().resolve() or (folder / PACKAGE).exists() else {PACKAGE: PACKAGE_TEXT}
    return package | dict(modules)


def compare(folder: Path, modules: Mapping[str, str], cells: Collection[str], backends: Collection[str]) -> Comparison:
    """Compare ``folder`` with ``modules``; nothing is written.

    Orphaned is a module there whose cell is not among ``cells`` or whose backend is not among ``backends``.
    """
    wanted = planned(folder, modules)
    texts = {name: _read(folder / name) for name in wanted}
    return Comparison(
        stale=tuple(sorted(name for name, text in texts.items() if text is not None and text != wanted[name].encode())),
        missing=tuple(sorted(name for name, text in texts.items() if text is None)),
        orphaned=tuple(sorted(set(_generated(folder, backends)) - _known(cells, backends))),
    )


def write(folder: Path, modules: Mapping[str, str]) -> tuple[str, ...]:
    """Make ``folder`` hold ``modules``; the names of the files that have changed, sorted.

    A file that cellspec has not written is never overwritten: it is a :class:`~cellspec.arguments.UsageMistake`, found before
    anything is written.
    """
    wanted = planned(folder, modules)
    changed = []
    for name in sorted(wanted):
        text = _read(folder / name)
        if text is not None and text.strip() and not MARK.search(text.decode("utf-8", "replace")):
            where = str(folder / name)
            raise UsageMistake(f"{where!r} is in the way, as cellspec has not written it; move it or use another --out")
        if text != wanted[name].encode():
            changed.append(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in changed:
            replace_text(folder / name, wanted[name])
    except OSError as error:
        raise UsageMistake(f"cannot write to {str(folder)!r}: {reason(error)}") from None
    return tuple(changed)


def replace_text(path: Path, text: str) -> None:
    """Put ``text`` into the file at ``path`` at one stroke: readers see the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(text.encode())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def reason(error: OSError) -> str:
    """Why the system refused, in lower case: ``permission denied``."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def _known(cells: Iterable[str], backends: Collection[str]) -> set[str]:
    return {module_name(cell, backend) for cell in cells for backend in backends}


def _generated(folder: Path, backends: Collection[str]) -> Iterable[str]:
    """The modules in ``folder`` that cellspec has written, or that are named as if it had."""
    if not folder.is_dir():
        return
    for path in folder.glob("*.py"):
        if path.name == PACKAGE or not path.is_file():
            continue
        text = _read(path) or b""
        if path.stem.endswith(tuple(f"_{backend}" for backend in backends)) or MARK.search(text.decode("utf-8", "replace")):
            yield path.name


def _read(path: Path) -> bytes | None:
    """The bytes of a file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageMistake(f"cannot read {str(path)!r}: {reason(error)}") from None
