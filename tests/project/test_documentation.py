"""The README and docs/: specs compile, code and commands run and print what is shown, made parts are fresh, links lead on."""

from __future__ import annotations

import re
from pathlib import Path

import click
import documents
import pytest
from support import ROOT

from cellspec import pipeline
from cellspec.backends import registry
from cellspec.backends.base import MEMBERS
from cellspec.cli import main
from cellspec.language.keys import CALLABLE, KEYS

TEXTS = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in documents.pages()}
OTHERS = ("CHANGELOG.md", "benchmarks/README.md", "tests/cuda_host/README.md")
LINKING = TEXTS | {name: (ROOT / name).read_text("utf-8") for name in OTHERS}
every_page = pytest.mark.parametrize("name", TEXTS)


@every_page
def test_pages_play(name: str, tmp_path: Path) -> None:
    """If this fails because something is printed otherwise now: ``make pages``."""
    text = TEXTS[name]
    assert [(text[slice(*change.at)], change.found) for change in documents.play(text, tmp_path)] == []


@every_page
def test_specs_compile(name: str, tmp_path: Path) -> None:
    shown = [block for block in documents.blocks(TEXTS[name]) if block.language == "yaml"]
    for block in shown:
        (tmp_path / block.file).write_text(block.text, "utf-8")
    if shown:
        done = documents.run(["-m", "cellspec", "check", *sorted({block.file for block in shown})], tmp_path)
        assert done.returncode == 0, done.stdout


@every_page
def test_made_parts_are_fresh(name: str) -> None:
    """If this fails: ``make pages``."""
    assert documents.remade(TEXTS[name]) == TEXTS[name]


@every_page
def test_blocks_are_understood(name: str) -> None:
    """Every fence belongs to a block, every block says its language, every mark has a meaning."""
    text, shown = TEXTS[name], documents.blocks(TEXTS[name])
    assert len(re.findall(r"^\s*```", text, re.M)) == 2 * len(shown)
    assert {block.language for block in shown} <= {"yaml", "python", "console", "sh", "toml", "text"}
    marks = {mark for block in shown for mark in block.marks}
    assert [mark for mark in marks if mark not in documents.NOT_RUN and not re.match(r"in \S+: .* -> ", mark)] == []


def test_what_is_made() -> None:
    """The parts that must not be written by hand are not."""
    made = {(part, name) for name, text in TEXTS.items() for part in documents.made_parts(text)}
    assert made >= {("excerpt", "README.md"), ("cells", "docs/cells.md"), ("speed", "docs/speed.md")}


# --- links and names ---------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What headings are called in addresses."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[ -]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("name", LINKING)
def test_links(name: str) -> None:
    folder = (ROOT / name).parent
    prose = re.sub(r"^```.*?^```$", "", LINKING[name], flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose):
        file, _, anchor = target.partition("#")
        path = folder / file if file else ROOT / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text("utf-8")), target


@every_page
def test_paths_exist(name: str) -> None:
    """Files and folders of the repository that a page names, a star standing for any name."""
    for path in re.findall(r"`((?:cellspec|tests|benchmarks|examples|specs|generated|docs)/[\w./*-]*)`", TEXTS[name]):
        assert list(ROOT.glob(path.rstrip("/"))), path


@every_page
def test_make_has_what_is_named(name: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert set(re.findall(r"(?:^|`|\$ )make ([\w-]+)", TEXTS[name], re.M)) <= set(targets)


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].encode()) <= 10_000


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(name.removeprefix("docs/") for name in TEXTS if name != "README.md")


def test_every_pass_is_described() -> None:
    """In the order in which the driver runs them, for each backend. If this fails: a row in docs/architecture.md."""
    rows = re.findall(r"^\| `([a-z ]+)` \| ([\w, ]+) \| \S", TEXTS["docs/architecture.md"], re.M)
    for backend in registry.built_in():
        listed = [name for name, of in rows if of == "all" or backend.title in of.split(", ")]
        assert listed == list(dict.fromkeys(each.name for each in pipeline.passes(backend)))


def test_the_command_line_is_described() -> None:
    """Every command has a heading of its own, below it every option."""
    sections = dict(re.findall(r"^## cellspec (\w+)\n(.*?)(?=^## |\Z)", TEXTS["docs/cli.md"], re.M | re.S))
    assert set(sections) == set(main.commands)
    for command, section in sections.items():
        options = [param for param in main.commands[command].params if isinstance(param, click.Option)]
        assert {f"--{option}" for option in re.findall(r"`--([\w-]+)", section)} == {option.opts[0] for option in options}


def test_the_contract_is_described() -> None:
    (table,) = re.findall(r"^## 1\. The contract\n(.*?)^## ", TEXTS["docs/adding-a-backend.md"], re.M | re.S)
    listed = [name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)", row)]
    assert listed == list(MEMBERS)


def test_the_folders_of_tests_are_described() -> None:
    """If this fails: a row in docs/testing.md."""
    folders = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders == set(re.findall(r"`(tests/\w+)`", TEXTS["docs/testing.md"]))


def test_the_language_is_described() -> None:
    page = TEXTS["docs/language.md"]
    words = set(re.findall(r"\w+", page))
    assert set(KEYS) <= words and set(CALLABLE) <= words


# --- the tests' own tools ----------------------------------------------------------------------------------


def test_dots_stand_for_any_text() -> None:
    assert documents.matches("$ a\nb … d\n", "$ a\nb c c d\n") and not documents.matches("$ a\nb … d\n", "$ a\nb c\n")
    assert documents.matches("$ a\n…\nz\n", "$ a\nx\ny\nz\n") and documents.matches("$ a\n…\nz\n", "$ a\nz\n")
    assert not documents.matches("$ a\n…\nz\n", "$ a\nx\n") and not documents.matches("a.c\n", "abc\n")


def test_a_wrong_page_is_found(tmp_path: Path) -> None:
    page = "```console\n$ cellspec check lstm\nlstm: fine\n```\n"
    (change,) = documents.play(page, tmp_path)
    assert page[slice(*change.at)] == "$ cellspec check lstm\nlstm: fine\n" and change.found.endswith("lstm.yaml: ok\n")
    with pytest.raises(documents.PageError, match="ZeroDivisionError"):
        documents.play("```python\n1/0\n```\n", tmp_path)
    with pytest.raises(documents.PageError, match="not 'rm -r x'"):
        documents.play("```console\n$ rm -r x\n```\n", tmp_path)
    with pytest.raises(documents.PageError, match="stands 0 times"):
        documents.play("```yaml\nname: a\n```\n\n<!-- in a.yaml: x -> y -->\n```console\n```\n", tmp_path)


def test_loops_are_found_wherever_they_stand() -> None:
    first = "def a():\n    for x in y:\n        # h = 2\n        pass\n\n"
    text = f"{first}def b():\n    if x:\n        for z in y:\n            # h = 1\n            pass\n"
    assert documents.loop(text, ["h = 1"], "forward") == "for z in y:\n    # h = 1\n    pass\n"
    with pytest.raises(documents.PageError, match="no loop"):
        documents.loop(text, ["h = 1"], "backward")
