"""The commands: what they take, and how their results are shown. What they do is done elsewhere.

Everything beyond click is imported when a command needs it, so that ``cellspec --help`` is quick.
"""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cellspec import RESIDUALS, __version__
from cellspec.backends.registry import DEFAULT
from cellspec.errors import CellspecError, Diagnostic, SpecError, blamed
from cellspec.tools.backend_option import ALL, BackendName

if TYPE_CHECKING:
    from rich.console import Console

    from cellspec.cell import Cell

_Item = TypeVar("_Item")
_Command = TypeVar("_Command", bound=Callable[..., Any])

STAGES = ("equations", "ir", "adjoint", "schedule", "code")
PIPED_WIDTH = 250  # columns of a table that goes into a file or a pipe: wide enough that nothing is cut


class _Group(click.Group):
    """Turns the errors that cellspec raises on purpose, and its bugs, into sentences on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        from cellspec.tools.arguments import UsageMistake, about_settings

        with contextlib.suppress(AttributeError, ValueError):
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            with blamed("this command", click.ClickException, click.exceptions.Exit, click.Abort):
                return super().invoke(ctx)
        except CellspecError as error:
            mistake = about_settings(error) if isinstance(error, SpecError) else error
            click.echo(str(error) if mistake is None else f"cellspec: {mistake}", err=True)
            ctx.exit(2 if isinstance(mistake, UsageMistake) else 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly where nobody reads on
            where = "" if error.filename is None else f": {str(error.filename)[:200]!r}"
            click.echo(f"cellspec: {(error.strerror or str(error)).lower()}{where}", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cellspec")
def main() -> None:
    """Recurrent cells from their equations to fast, verified forward and backward code.

    A SPEC is the path of a YAML file or the name of a shipped cell: see 'cellspec list'.

    Exit status: 0 done, 1 something was found wrong, 2 usage, 130 Ctrl-C, 143 SIGTERM.
    """


def _set_option(command: _Command) -> _Command:
    text = "Another value for a hyperparameter or activation; may be repeated."
    return click.option("--set", "choices", metavar="NAME=VALUE", multiple=True, help=text)(command)


def _residuals_option(command: _Command) -> _Command:
    text = "What is kept between the passes: what saves work, or states alone, from which the rest is computed again."
    return click.option("--residuals", type=click.Choice(RESIDUALS), default="speed", show_default=True, help=text)(command)


def _backend_option(text: str) -> Callable[[_Command], _Command]:
    return click.option("--backend", type=BackendName(), help=f"{text}  [default: {DEFAULT}]")


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_specs_argument = click.argument("specs", metavar="SPEC...", nargs=-1, required=True)


@main.command("list")
@_json_option
@click.option("--markdown", is_flag=True, help="Print a table in Markdown, with sources.")
def list_(as_json: bool, markdown: bool) -> None:
    """List the shipped cells by family: title, parameters, stages, recurrence.

    A family is what extends one cell, if there are enough of them; other cells are grouped by recurrence.
    """
    from cellspec.tools import listing
    from cellspec.tools.arguments import UsageMistake, shipped_paths

    if as_json and markdown:
        raise UsageMistake("--json and --markdown exclude each other")
    cells = list(_loaded(shipped_paths(), {}))
    if markdown:
        click.echo(listing.markdown(cells), nl=False)
    elif as_json:
        _print_json(listing.facts(cells))
    else:
        _print_list(listing.by_family(listing.facts(cells)))


@main.command()
@_specs_argument
@_json_option
def check(specs: tuple[str, ...], as_json: bool) -> None:
    """Check specs and report every error of every file, located."""
    from cellspec.tools.arguments import spec_paths
    from cellspec.verification.expect import check_expect

    found = []
    good = []
    paths = spec_paths(specs)
    for path in _progress(paths, "checking", len(paths)):
        try:
            for cell in _loaded([path], {}):
                check_expect(cell)
                good.append(path)
        except SpecError as error:
            found += [diagnostic for diagnostic in error.diagnostics if diagnostic not in found]
    if as_json:
        places = [(diagnostic.location, diagnostic.message) for diagnostic in found]
        _print_json([{"file": at.file, "line": at.line, "column": at.column, "message": text} for at, text in places])
    else:
        for path in good:
            click.echo(f"{path}: ok")
        for diagnostic in found:
            click.echo(str(diagnostic), err=True)
        if found:
            click.echo(f"{len(found)} error{'s' * (len(found) > 1)}", err=True)
    if found:
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("specs", metavar="[SPEC...]", nargs=-1)
@click.option(
    "--backend",
    type=BackendName(ALL),
    help=f"What the modules run on.  [default: {DEFAULT} for SPECs; {ALL} that come with cellspec for the shipped cells]",
)
@click.option("--out", default="generated", show_default=True, metavar="DIR", help="The folder of the modules.")
@_set_option
@_residuals_option
@click.option("--check", "only_check", is_flag=True, help="Write nothing; fail if a module is stale, missing or orphaned.")
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many processes work.  [default: one for each core, but one alone for few SPECs]",
)
def generate(
    specs: tuple[str, ...],
    backend: str | None,
    out: str,
    choices: tuple[str, ...],
    residuals: str,
    only_check: bool,
    jobs: int | None,
) -> None:
    """Write modules for SPECs, or for all shipped cells.

    Nothing is written if any spec is wrong. With --check, a module in DIR is orphaned if its cell is neither named, nor
    shipped, nor described by a file beside a named one.
    """
    from cellspec.backends import registry
    from cellspec.tools import jobs as work
    from cellspec.tools import write
    from cellspec.tools.arguments import UsageMistake, backends, known_cells, settings, shipped_paths, spec_paths

    chosen = backends(backend, specs, residuals)
    if choices and not specs:
        raise UsageMistake("--set needs a SPEC, as cells differ in what can be set")
    folder, paths = Path(out), spec_paths(specs) or shipped_paths()
    write.reach(folder)
    made = work.made(paths, settings(choices), chosen, jobs, residuals)
    modules = write.gathered(_progress(made, "generating", len(paths), lambda one: one.cell))
    if not only_check:
        changed = write.write(folder, modules)
        for name in changed:
            click.echo(f"wrote {folder / name}")
        kept = len(modules) - len([name for name in changed if name in modules])
        if kept:
            click.echo(f"{kept} module{'s' * (kept > 1)} in {folder} already up to date")
        return
    comparison = write.compare(folder, modules, known_cells(paths), registry.names())
    for what, names in (("stale", comparison.stale), ("missing", comparison.missing), ("orphaned", comparison.orphaned)):
        for name in names:
            click.echo(f"{what}: {folder / name}", err=True)
    if not comparison.fresh:
        click.echo("cellspec: the same command without --check makes the modules again; delete orphans by hand", err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"{len(modules)} module{'s' * (len(modules) > 1)} in {folder} up to date")


@main.command()
@click.argument("spec", metavar="SPEC")
@click.option("--stage", type=click.Choice(STAGES), default="equations", show_default=True, help="How far the compiler goes.")
@click.option("--latex", is_flag=True, help="The equations as LaTeX.")
@click.option("--passes", is_flag=True, help="What each pass of the compiler changes, as differences between programs.")
@_backend_option("The backend whose modules are shown.")
@_set_option
@_residuals_option
def show(
    spec: str, stage: str, latex: bool, passes: bool, backend: str | None, choices: tuple[str, ...], residuals: str
) -> None:
    """Show what the compiler knows of a cell at a stage.

    \b
    equations  the equations as typed, parameters, recurrence, sources
    ir         one step, an operation a line
    adjoint    the backward step, and what it reads of the forward step
    schedule   both directions: before, in and after the loop over time
    code       the module

    With --passes, every program after every pass that has changed it.
    """
    from cellspec.tools import arguments
    from cellspec.tools.passes import passes_text
    from cellspec.tools.show import text_of

    for other in ["--latex"] * latex + ["--passes"] * passes:
        if stage != "equations":
            what = "the equations" if other == "--latex" else "all programs"
            raise arguments.UsageMistake(f"{other} shows {what}; it cannot be combined with --stage {stage}")
    if latex and passes:
        raise arguments.UsageMistake("--latex and --passes exclude each other")
    chosen = arguments.backend(backend, residuals)
    (cell,) = _loaded(arguments.spec_paths([spec]), arguments.settings(choices))
    if passes:
        _print_differences(passes_text(cell, residuals, chosen))
        return
    text = text_of(cell, "latex" if latex else stage, residuals, backend)
    console = _console()
    if stage == "code" and console.is_terminal and not console.no_color:
        from rich.syntax import Syntax

        console.print(Syntax(text, "python", theme="ansi_dark", background_color="default"))
    else:
        click.echo(text.removesuffix("\n"))


@main.command()
@_specs_argument
@_backend_option("The backend whose modules are compared.")
@_set_option
@_residuals_option
@_json_option
def verify(specs: tuple[str, ...], backend: str | None, choices: tuple[str, ...], residuals: str, as_json: bool) -> None:
    """Compare generated code with the source equations.

    Forward pass, single steps, and every gradient, in float64 and float32, on random inputs of many shapes. The table shows
    the worst relative error of each quantity.
    """
    from cellspec.tools import arguments
    from cellspec.tools.show import verdict
    from cellspec.verification.check import verify as compare
    from cellspec.verification.subject import dtypes, subject

    chosen = arguments.backend(backend, residuals)
    cells = list(_loaded(arguments.spec_paths(specs), arguments.settings(choices)))
    working = _progress(cells, "verifying", len(cells), lambda cell: cell.name)
    reports = [compare(cell, subject(cell, chosen, residuals), dtypes=dtypes(chosen)) for cell in working]
    if as_json:
        _print_json([verdict(report) for report in reports])
    else:
        for report in reports:
            _print_report(report)
    if not all(report.ok for report in reports):
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("name", metavar="NAME")
@click.option("--extends", "parent", metavar="CELL", help="The cell that the new one is a variant of.")
def new(name: str, parent: str | None) -> None:
    """Write a starter spec, NAME.yaml, into the current folder."""
    from cellspec.tools.starter import write_starter

    path = write_starter(Path.cwd(), name, parent)
    click.echo(f"wrote {path.name}; next: cellspec check {path.name}, then cellspec generate {path.name}")


# --- showing -----------------------------------------------------------------------------------------------


def _loaded(paths: Iterable[Path], chosen: dict[str, str]) -> Iterator[Cell]:
    """The cells at ``paths``; after the last one, SpecError with the mistakes of all files."""
    from cellspec import load

    wrong: list[Diagnostic] = []
    for path in paths:
        try:
            yield load(path, chosen)
        except SpecError as error:
            wrong += error.diagnostics
    if wrong:
        raise SpecError(wrong)


def _console(stderr: bool = False) -> Console:
    """A console on stdout or stderr, which does not cut lines that go elsewhere than to a terminal."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _table(*heads: str) -> Any:
    """A table: ruled on a terminal, mere columns elsewhere."""
    from rich import box
    from rich.table import Table

    plain = not _console().is_terminal
    frame, head, gap = (None, "", 2) if plain else (box.SIMPLE_HEAD, "bold", 1)
    return Table(*heads, box=frame, padding=(0, gap, 0, 0), pad_edge=False, header_style=head)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _print_list(families: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A table of cells with the names of the families between them."""
    from rich.text import Text

    table = _table("cell", "title", "parameters", "stages", "recurrence")
    for family, rows in families.items():
        table.add_row(Text(family, style="bold"))
        for row in rows:
            table.add_row(f"  {row['name']}", row["title"], row["parameters"], str(row["stages"]), row["recurrence"])
    _console().print(table)


def _print_differences(text: str) -> None:
    """Hunks of unified diffs under headings; in colours on a terminal."""
    from rich.text import Text

    console = _console()
    if not console.is_terminal or console.no_color:
        click.echo(text)
        return
    styles = {"+": "green", "-": "red", "@": "cyan", " ": ""}
    for line in text.split("\n"):
        console.print(Text(line, style=styles.get(line[:1], "bold")), soft_wrap=True)


def _print_report(report: Any) -> None:
    """The worst errors of a verification as a table; what exceeds its tolerance is marked and repeated on stderr."""
    from rich.text import Text

    from cellspec.tools.show import error_table

    heads, rows = error_table(report)
    table = _table(*heads)
    for row in rows:
        table.add_row(*(Text(text, style="" if ok else "bold red") for text, ok in row))
    console = _console()
    console.print(Text(f"{report.cell}: {'every quantity within its tolerance' if report.ok else 'FAILED'}", style="bold"))
    console.print(table)
    if not report.ok:
        click.echo(str(report), err=True)


def _progress(items: Iterable[_Item], doing: str, count: int, label: Callable[[_Item], str] = str) -> Iterator[_Item]:
    """``items``, of which there are ``count``, with a bar on stderr while they are worked on, if that is a terminal."""
    console = _console(stderr=True)
    if not console.is_terminal or count < 2:
        yield from items
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(doing, total=count)
        for item in items:
            bar.update(task, description=f"{doing} {label(item)}")
            yield item
            bar.advance(task)
