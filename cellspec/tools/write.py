"""The folder of generated modules: what should stand in it, what stands in it, and making the second equal the first.

A module is ``<cell>_<backend>.py``. It is written by way of a temporary file beside it, so that no reader ever sees half of
one, and only if its text has changed, so that time stamps tell what is new.

*Invariant*: a file holds the old text or the new one, whatever ends the program; a temporary file lasts no longer than the
process that writes it, or than the next run if that process was killed; folders made for nothing go again. What the system
refuses is a :class:`~cellspec.tools.arguments.UsageMistake`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellspec import generate
from cellspec.errors import Diagnostic, SpecError, shorten
from cellspec.tools import stopping
from cellspec.tools.arguments import UsageMistake
from cellspec.tools.jobs import Made

if TYPE_CHECKING:
    from cellspec.cell import Cell

MARK = re.compile(r'^SPEC_SHA256 = "[0-9a-f]{64}"$', re.MULTILINE)
"""The line by which a generated module is known."""

TEMPORARY = re.compile(r"\.cellspec-(?P<host>[\w-]+)-(?P<process>\d+)-\d+\.tmp")
"""The name of a temporary file: short, whatever the module is called, and telling who writes it."""

DAY = 24 * 60 * 60

PACKAGE = "__init__.py"
PACKAGE_TEXT = '"""Modules written by ``cellspec generate``."""\n'


_numbers = itertools.count()


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
    """The modules of ``cells``, text by file; two cells of one name are a :class:`~cellspec.tools.arguments.UsageMistake`."""
    chosen = tuple(backends)
    return gathered(Made(cell.path, cell.name, {backend: generate(cell, backend) for backend in chosen}) for cell in cells)


def gathered(made: Iterable[Made]) -> dict[str, str]:
    """All modules, text by file; SpecError with the mistakes of all files if any has one.

    Cells whose names are the same, or differ by case alone, as some file systems do not tell them apart, are a
    :class:`~cellspec.tools.arguments.UsageMistake`.
    """
    found: dict[str, str] = {}
    taken: dict[str, Made] = {}
    wrong: list[Diagnostic] = []
    for one in made:
        wrong += one.mistakes
        if one.texts is None:
            continue
        other = taken.setdefault(one.cell.casefold(), one)
        if other is not one:
            both = f"{other.path!r} and {one.path!r} both describe a cell named {one.cell!r}"
            raise UsageMistake(both + f", or {other.cell!r} in other letters" * (other.cell != one.cell))
        found |= {module_name(one.cell, backend): text for backend, text in one.texts.items()}
    if wrong:
        raise SpecError(wrong)
    return found


def reach(folder: Path) -> None:
    """Refuse a folder that cannot be, before anything is made for it."""
    with _allowed("reach", folder):
        planned(folder, {})


def planned(folder: Path, modules: Mapping[str, str]) -> dict[str, str]:
    """What ``folder`` should hold, text by file: the modules, and what makes it a package unless it is the working folder."""
    package = {} if folder.resolve() == Path.cwd().resolve() or (folder / PACKAGE).exists() else {PACKAGE: PACKAGE_TEXT}
    return package | dict(modules)


def compare(folder: Path, modules: Mapping[str, str], cells: Collection[str], backends: Collection[str]) -> Comparison:
    """Compare ``folder`` with ``modules``; nothing is written.

    Orphaned is a module there whose cell is not among ``cells`` or whose backend is not among ``backends``.
    """
    with _allowed("read", folder):
        wanted = planned(folder, modules)
        there = set(_generated(folder, backends))
    texts = {name: _read(folder / name) for name in wanted}
    return Comparison(
        stale=tuple(sorted(name for name, text in texts.items() if text is not None and text != wanted[name].encode())),
        missing=tuple(sorted(name for name, text in texts.items() if text is None)),
        orphaned=tuple(sorted(there - _known(cells, backends))),
    )


def write(folder: Path, modules: Mapping[str, str]) -> tuple[str, ...]:
    """Make ``folder`` hold ``modules``; the names of the files that have changed, sorted.

    A file that cellspec has not written is never overwritten: it is a :class:`~cellspec.tools.arguments.UsageMistake`, found
    before anything is written.
    """
    with _allowed("write to", folder):
        wanted = planned(folder, modules)
        there = os.listdir(folder) if folder.is_dir() else []
    folded = {name.casefold(): name for name in there}
    changed = []
    for name in sorted(wanted):
        if name not in there and name.casefold() in folded:
            other = str(folder / folded[name.casefold()])
            raise UsageMistake(f"{other!r} differs from {name!r} by case alone; move it or use another --out")
        text = _read(folder / name)
        if text is not None and text.strip() and not MARK.search(text.decode("utf-8", "replace")):
            where = str(folder / name)
            raise UsageMistake(f"{where!r} is in the way, as cellspec has not written it; move it or use another --out")
        if text != wanted[name].encode():
            changed.append(name)
    with _allowed("write to", folder), _made(folder):
        _sweep(folder)
        for name in changed:
            replace_text(folder / name, wanted[name])
    return tuple(changed)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """With ``folder`` and those above it; what had to be made, and is still empty, goes again if something is refused."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError:
        for one in missing:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


def _sweep(folder: Path) -> None:
    """Remove temporary files whose writers are no more: of this machine where the process is gone, of others after a day."""
    for path in folder.glob(".cellspec-*.tmp"):
        name = TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if name and (_gone(int(name["process"])) if name["host"] == _host() else time.time() - path.stat().st_mtime > DAY):
                path.unlink()


def _gone(process: int) -> bool:
    """Whether there is no such process on this machine."""
    if os.name != "posix":
        return False  # there is no asking without the danger of ending it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _host() -> str:
    return re.sub(r"\W", "-", platform.node())[:60] or "host"


def replace_text(path: Path, text: str) -> None:
    """Put ``text`` into the file at ``path`` at one stroke: readers see the old text or the new one."""
    temporary = path.with_name(f".cellspec-{_host()}-{os.getpid()}-{next(_numbers)}.tmp")
    with stopping.temporary(str(temporary)):
        try:
            temporary.write_bytes(text.encode())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def reason(error: Exception) -> str:
    """Why the system refused, in lower case: ``permission denied``."""
    if isinstance(error, UnicodeError):
        return "the name has characters that no file's name can have"
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


@contextlib.contextmanager
def _allowed(doing: str, path: Path) -> Iterator[None]:
    """What the system refuses to do with ``path`` becomes a mistake of the command line: ``cannot read …``."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # the latter where links lead in a circle
        raise UsageMistake(f"cannot {doing} {shorten(str(path), 100)}: {reason(error)}") from None


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
    with _allowed("read", path), contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None
