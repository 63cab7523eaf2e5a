"""Where specs are found: a path, beside the child of an ``extends``, or among the shipped ones."""

from __future__ import annotations

from pathlib import Path

from cellspec.errors import Location, Reporter, SpecError, did_you_mean, shorten


def shipped_dir() -> Path:
    """The folder of the shipped specs: within the installed package, or ``specs`` of a source checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "specs"
    return inside if inside.is_dir() else package.parent / "specs"


def shipped_names() -> tuple[str, ...]:
    """The names of the shipped specs, sorted."""
    return tuple(sorted(path.stem for path in shipped_dir().glob("*.yaml")))


def resolve(source: str | Path) -> Path:
    """The path that a user means: a file's path or a shipped cell's name; SpecError where there is none."""
    report = Reporter()
    path = find(source, report)
    if path is None:
        raise SpecError(report.diagnostics)
    return path


def find(source: str | Path, report: Reporter) -> Path | None:
    """The path that ``source`` means; None after reporting that there is none."""
    text, path = str(source), Path(source)
    at = Location(text, 1, 1)
    if "\x00" in text:
        report.error(Location("<path>", 1, 1), "a path cannot contain the character U+0000")
        return None
    if isinstance(source, str) and text.isidentifier() and text in shipped_names():
        return _relative(shipped_dir() / f"{text}.yaml")
    try:
        found = path.exists()
    except OSError as error:
        report.error(at, f"the path {shorten(text)} cannot be read: {error.strerror}")
        return None
    if found:
        return path
    if isinstance(source, str) and not path.suffix and len(path.parts) == 1:
        hint = did_you_mean(text[:100], shipped_names())
        if Path(f"{text}.yaml").exists():
            hint = f"; did you mean {text + '.yaml'!r}?"
        report.error(at, f"unknown cell {shorten(text)}{hint or '; expected a path or the name of a shipped cell'}")
    else:
        report.error(at, f"there is no file {shorten(text, 200)}")
    return None


def parent_path(name: str, child: str, at: Location, report: Reporter) -> Path | None:
    """The path of the parent ``name`` of the spec in the file ``child``; None after reporting that there is none."""
    if not name.isidentifier():
        report.error(at, f"'extends' names a spec, without a folder or suffix, which {shorten(name)} does not")
        return None
    beside = Path(child).parent / f"{name}.yaml"
    shipped = shipped_dir() / f"{name}.yaml"
    for path in (beside, shipped):
        if path.is_file():
            return path if path is beside else _relative(path)
    known = [*shipped_names(), *(path.stem for path in Path(child).parent.glob("*.yaml"))]
    hint = did_you_mean(name[:100], known) or "; a parent stands beside this file or among the shipped specs"
    report.error(at, f"unknown parent {shorten(name)}{hint}")
    return None


def _relative(path: Path) -> Path:
    """``path`` as seen from the working directory, where it lies below it: messages are shorter."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
