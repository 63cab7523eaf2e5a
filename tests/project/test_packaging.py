"""What is handed out: the wheel and what it says of itself, versions, licence, citation; and what is run before a commit."""

from __future__ import annotations

import datetime
import email.message
import email.parser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from support import ROOT

from cellspec import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path) -> email.message.Message:
    """The wheel's METADATA."""
    (name,) = (name for name in names(wheel) if name.endswith(".dist-info/METADATA"))
    return email.parser.BytesParser().parsebytes(zipfile.ZipFile(wheel).read(name))


def test_the_wheel_has_every_file(wheel: Path) -> None:
    """Modules, templates, sources that are included, the schema: all that is in the folder; and the specs."""
    package = ROOT / "cellspec"
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {f"cellspec/{path.relative_to(package).as_posix()}" for path in files}
    assert {"cellspec/py.typed", "cellspec/cell.schema.json"} < wanted
    wanted |= {f"cellspec/specs/{path.name}" for path in (ROOT / "specs").glob("*.yaml")}
    assert {name for name in names(wheel) if ".dist-info/" not in name} == wanted


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    found = metadata(wheel)
    assert (found["Name"], found["Version"], found["License-Expression"]) == ("cellspec", __version__, "BSD-3-Clause")
    assert found["Author"] == "the cellspec authors" and found["Summary"] == PROJECT["description"]
    assert found["Requires-Python"] == ">=3.11" and "Typing :: Typed" in found.get_all("Classifier", [])
    assert not any(line.startswith("License ::") for line in found.get_all("Classifier", []))  # the expression says it
    (name,) = (name for name in names(wheel) if name.endswith(".dist-info/licenses/LICENSE"))
    licence = zipfile.ZipFile(wheel).read(name).decode()
    assert licence == (ROOT / "LICENSE").read_text("utf-8")
    assert licence.startswith("BSD 3-Clause License\n") and "belong to whoever generates them" in " ".join(licence.split())


def test_the_wheel_runs_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked in another folder: both backends write the same module as here, and the command is there."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import cellspec, sys; assert cellspec.__file__.startswith(sys.argv[1]), cellspec.__file__;"
        "[print(cellspec.generate(cellspec.load('gru'), backend), end='') for backend in ('numpy', 'cupy')]"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    both = [(ROOT / "generated" / f"gru_{backend}.py").read_text("utf-8") for backend in ("numpy", "cupy")]
    assert done.stdout.decode() == "".join(both)
    (entries,) = (name for name in names(wheel) if name.endswith(".dist-info/entry_points.txt"))
    assert "cellspec = cellspec.__main__:run" in zipfile.ZipFile(wheel).read(entries).decode()


# --- versions ----------------------------------------------------------------------------------------------


def test_the_changelog_has_a_section_for_each_version() -> None:
    """The newest first, which is this one; each has its day, but for the first as long as it is not released."""
    sections = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (unreleased|\d{4}-\d\d-\d\d)", text) for text in sections]
    assert all(found), sections
    versions = [tuple(map(int, match.groups()[:3])) for match in found if match]
    days = [match[4] for match in found if match]
    assert versions == sorted(set(versions), reverse=True) and ".".join(map(str, versions[0])) == __version__
    assert [day for day in days[1:] if datetime.date.fromisoformat(day).isoformat() != day] == []


def test_what_is_tagged_has_its_day() -> None:
    done = subprocess.run(["git", "tag", "--list", "v*"], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:  # an archive of the sources, say, in which nobody makes a release
        pytest.skip("this tree is no clone: there are no tags")
    for tag in done.stdout.split():
        assert re.search(rf"^## \[{re.escape(tag[1:])}\] - \d{{4}}-\d\d-\d\d$", CHANGELOG, re.MULTILINE), tag


def test_the_citation_agrees() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (found["title"], found["version"], found["license"]) == ("cellspec", __version__, PROJECT["license"])
    assert found["abstract"] == PROJECT["description"] and [author["name"] for author in found["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]


# --- before a commit ---------------------------------------------------------------------------------------


def commands(target: str) -> list[str]:
    """What ``make`` runs for a target."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in found[1].splitlines()]


def test_hooks_run_what_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (repository,) = config["repos"]
    assert repository["repo"] == "local"  # nothing is fetched; the tools are those of .venv
    assert [hook["entry"] for hook in repository["hooks"]] == commands("lint")
    assert all((hook["language"], hook["pass_filenames"]) == ("system", False) for hook in repository["hooks"])


def test_contributing_names_what_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([\w-]+)", text, re.MULTILINE))
    assert {"demo", "test", "test-all", "lint", "coverage"} <= named <= targets
    for path in re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*)`|\]\((\w+)\)", text):
        name = next(filter(None, path))
        assert (ROOT / name).exists() or name == "runtime/", name
