"""The README and the pages of docs/ as programs: what stands in their blocks is run, what is made of the code is made again.

A page is *played* in an empty folder, from its first block to its last:

- with a title, as in ``title="train.py"``: a file of that name, or more lines of it for ``title="train.py, continued"``;
- ``yaml``: a spec, a file that is called by its name;
- ``python``: a part of the page's script, which runs when the page is over;
- ``console``: commands behind ``$ ``, each run where the page is, and what they print. ``…`` stands for any text, on a line of
  its own for any lines;
- ``sh``, ``text`` and other languages: only read.

A comment above a block says what the page does not: ``<!-- in a.yaml: old -> new -->`` changes a file before the block is
played, ``<!-- needs a GPU -->`` and ``<!-- a sketch -->`` keep it from being run.

Parts between ``<!-- name: arguments -->`` and ``<!-- end of name -->`` are *made*: by the functions of :data:`MAKERS`.

    python tests/support/documents.py        # make pages: writes what is made, and what commands print, anew
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTINUED = ", continued"
NOT_RUN = ("needs a GPU", "a sketch")
_BLOCK = re.compile(
    r"""(?P<marks>(?:^<!--\ [^\n]*\ -->\n)*)
    ^```(?P<language>\w*)(?:\ title="(?P<title>[^"]+)")?\n
    (?P<text>.*?)^```$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_MADE = re.compile(
    r"""(?P<begin>^<!--\ (?P<name>\w+)(?::\ (?P<arguments>[^\n]*?))?\ -->\n)
    .*?
    (?P<end>^<!--\ end\ of\ (?P=name)\ -->$)""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


def pages() -> list[Path]:
    """The README and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: ``at`` is the span of its text, ``marks`` are the comments above it."""

    language: str
    title: str
    marks: tuple[str, ...]
    text: str
    at: tuple[int, int]
    made: bool

    @property
    def runs(self) -> bool:
        return not self.made and not set(self.marks).intersection(NOT_RUN)

    @property
    def file(self) -> str:
        """The file that the block is; nothing if it is none."""
        if self.title or self.language != "yaml":
            return self.title.removesuffix(CONTINUED)
        name = re.search(r"^name: (\w+)$", self.text, re.M)
        return f"{name[1]}.yaml" if name else ""


def blocks(page: str) -> list[Block]:
    made = [part.span() for part in _MADE.finditer(page)]
    return [
        Block(
            language=found["language"],
            title=found["title"] or "",
            marks=tuple(re.findall(r"<!-- (.*?) -->", found["marks"])),
            text=found["text"],
            at=found.span("text"),
            made=any(start < found.start() < end for start, end in made),
        )
        for found in _BLOCK.finditer(page)
    ]


# --- playing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What a page says, and what it should: the span of the text, and the text that belongs there."""

    at: tuple[int, int]
    found: str


class PageError(Exception):
    """A block of a page that cannot be played."""


def play(page: str, folder: Path) -> list[Change]:
    """Play a page in an empty folder: the consoles whose output is another now. Raises PageError for what does not run."""
    changes: list[Change] = []
    script: list[str] = []
    for block in blocks(page):
        for mark in block.marks:
            _edit(mark, folder)
        match block.language:
            case _ if block.file:
                _write(block, folder)
            case "yaml":
                raise PageError(f"a spec without a name:\n{block.text}")
            case "python" if block.runs:
                script.append(block.text)
            case "console" if block.runs:
                now = "".join(_session(block.text, folder))
                if not matches(block.text, now):
                    changes.append(Change(block.at, now))
    if script:
        _run_script("\n".join(script), folder)
    return changes


def _write(block: Block, folder: Path) -> None:
    path = folder / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if block.title.endswith(CONTINUED) else "w", encoding="utf-8") as file:
        file.write(block.text)


def _edit(mark: str, folder: Path) -> None:
    if asked := re.fullmatch(r"in (\S+): (.*) -> (.*)", mark):
        path = folder / asked[1]
        text = path.read_text("utf-8")
        if text.count(asked[2]) != 1:
            raise PageError(f"{asked[2]!r} stands {text.count(asked[2])} times in {asked[1]}")
        path.write_text(text.replace(asked[2], asked[3]), "utf-8")


def _session(text: str, folder: Path) -> Iterator[str]:
    """The lines of a console as they are now, command after command."""
    for line in text.splitlines():
        if line.startswith("$ "):
            yield f"{line}\n"
            done = run(_command(line.removeprefix("$ ")), folder)
            yield from (f"{said.rstrip()}\n" for said in done.stdout.splitlines())


def _command(line: str) -> list[str]:
    match line.split():
        case ["cellspec", *rest]:
            return ["-m", "cellspec", *rest]
        case ["python", *rest]:
            return ["-W", "error", *rest]
    raise PageError(f"a console may run cellspec and python, not {line!r}")


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Python with these arguments in a folder; what it says on either stream is ``stdout``."""
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def _run_script(code: str, folder: Path) -> None:
    """Run a page's script beside the modules that it imports: those that the page has made, or those of the shipped cells."""
    for name in re.findall(r"from generated import (\w+_numpy)", code):
        module, shipped = folder / "generated" / f"{name}.py", ROOT / "generated" / f"{name}.py"
        if not module.exists() and shipped.exists():
            module.parent.mkdir(exist_ok=True)
            shutil.copy(shipped, module)
    (folder / "page.py").write_text(f"{code}\nprint('done')\n", "utf-8")
    done = run(["-W", "error", "page.py"], folder)
    if done.stdout != "done\n":
        raise PageError(f"the page's script says:\n{done.stdout}")


def matches(shown: str, now: str) -> bool:
    """Whether ``now`` is what is shown, ``…`` being any text."""
    lines = shown.splitlines(keepends=True)
    pattern = "".join("(?:.*\n)*" if line == "…\n" else ".*".join(map(re.escape, line.split("…"))) for line in lines)
    return re.fullmatch(pattern, now) is not None


# --- what is made --------------------------------------------------------------------------------------------


def excerpt(page: str, cell: str, part: str = "forward") -> str:
    """The loop of a direction in the NumPy module of a spec that the page shows, or of a shipped cell."""
    from cellspec import generate, load

    with tempfile.TemporaryDirectory() as folder:
        source: str | Path = cell
        for block in blocks(page):
            if block.file == f"{cell}.yaml":
                source = Path(folder) / block.file
                source.write_text(block.text, "utf-8")
        made = load(source)
        return f"```python\n{loop(generate(made), [equation.text for equation in made.assignments], part)}```"


def loop(module: str, equations: list[str], part: str) -> str:
    """The first loop of a module that has every equation as a comment is that of the forward pass, the second the other."""
    tree = ast.parse(module)
    lines = module.splitlines()
    found = []
    for node in sorted((node for node in ast.walk(tree) if isinstance(node, ast.For)), key=lambda node: node.lineno):
        text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if all(f"# {equation}" in text for equation in equations):
            found.append(textwrap.dedent(text) + "\n")
    if len(found) < 1 + (part == "backward"):
        raise PageError(f"there is no loop with the equations {equations}")
    return found[part == "backward"]


def cells(page: str) -> str:
    """The table of the shipped cells."""
    from cellspec import load
    from cellspec.tools import listing
    from cellspec.tools.arguments import shipped_paths

    return listing.markdown(load(path) for path in shipped_paths())


def speed(page: str, file: str, parts: str) -> str:
    """The tables of ``benchmarks/results/FILE``."""
    sys.path[:0] = [str(ROOT / "benchmarks")] * (str(ROOT / "benchmarks") not in sys.path)
    import cpu
    import markdown_tables

    report = json.loads((ROOT / "benchmarks" / "results" / file).read_text("utf-8"))
    return str(markdown_tables.markdown(report, cpu.passes(parts)))


MAKERS: dict[str, Callable[..., str]] = {"cells": cells, "excerpt": excerpt, "speed": speed}


def made_parts(page: str) -> list[str]:
    """The names of the parts of a page that are made."""
    return [part["name"] for part in _MADE.finditer(page)]


def remade(page: str) -> str:
    """The page with every made part as it should be."""

    def made(part: re.Match[str]) -> str:
        text = MAKERS[part["name"]](page, *(part["arguments"] or "").split())
        return f"{part['begin']}\n{text.strip()}\n\n{part['end']}"

    return _MADE.sub(made, page)


def main() -> int:
    """Write anew what is made and what consoles show; the exit status is 1 if a page cannot be played."""
    broken = False
    for path in pages():
        before = path.read_text("utf-8")
        text = remade(before)
        try:
            with tempfile.TemporaryDirectory() as folder:
                for change in reversed(play(text, Path(folder))):
                    shown = text[slice(*change.at)]
                    if "…" in shown:
                        raise PageError(f"a console with … is to be written by hand; now it is\n{change.found}")
                    text = text[: change.at[0]] + change.found + text[change.at[1] :]
        except PageError as error:
            print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
            broken = True
        if text != before:
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
