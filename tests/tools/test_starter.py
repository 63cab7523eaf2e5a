"""New specs: a text that checks, hints of what comes next, and nothing written where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

import cellspec
from cellspec.errors import SpecError
from cellspec.language.read.paths import shipped_dir
from cellspec.tools import starter
from cellspec.tools.arguments import UsageMistake
from cellspec.tools.starter import write_starter
from cellspec.verification.expect import check_expect

PARENT = """
name: parent
inputs: {x: I}
states: {h: H}
params: {W: [H, I]}
equations: |
  a = W @ x[t]
  h[t] = tanh(a) + h[t-1]
"""


def test_a_whole_spec_is_right(tmp_path: Path) -> None:
    path = write_starter(tmp_path, "mine")
    cell = cellspec.load(path)
    check_expect(cell)
    assert cell.name == "mine" and path == tmp_path / "mine.yaml" and [param.name for param in cell.params][:2] == ["Wf", "Wn"]


def test_a_variant_is_its_parent_and_shows_its_equations(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT)
    path = write_starter(tmp_path, "mine", "parent")
    text = path.read_text(encoding="utf-8")
    assert "#   a = W @ x[t]\n#   h[t] = tanh(a) + h[t-1]\n" in text
    own, parents = (cellspec.load(tmp_path / name).assignments for name in ("mine.yaml", "parent.yaml"))
    assert [equation.text for equation in own] == [equation.text for equation in parents]
    assert path.name == "mine.yaml" and write_starter(tmp_path, "other", "parent.yaml").is_file()


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        ("schema.json", "# yaml-language-server: $schema=schema.json"),
        ("../schema.json", "# yaml-language-server: $schema=../schema.json"),
        ("../../schema.json", "name: mine"),
    ],
)
def test_editors_find_the_schema_where_it_lies_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: str, line: str
) -> None:
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    monkeypatch.setattr(starter, "SCHEMA", folder / schema)
    assert write_starter(folder, "mine").read_text().splitlines()[0] == line


@pytest.mark.parametrize(
    ("name", "parent", "message"),
    [
        ("2x", None, "'2x' cannot name a cell; a name is made of letters, digits and '_'"),
        ("lambda", None, "'lambda' is a Python keyword and cannot name a cell"),
        ("there", None, "'there.yaml' exists already; nothing was written"),
        ("mine", "nobody_has_this", "unknown cell 'nobody_has_this'"),
        ("mine", "../up", "--extends names a cell in this folder or a shipped one, which '../up' does not"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path: Path, name: str, parent: str | None, message: str) -> None:
    (tmp_path / "there.yaml").write_text("as it was")
    with pytest.raises(UsageMistake) as error:
        write_starter(tmp_path, name, parent)
    assert str(error.value).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "as it was"


def test_a_shipped_name_is_taken(tmp_path: Path) -> None:
    shipped = min(shipped_dir().glob("*.yaml")).stem
    with pytest.raises(UsageMistake, match=f"there is a shipped cell called {shipped!r}; take another name"):
        write_starter(tmp_path, shipped)


def test_a_parent_that_is_wrong_says_why(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT.replace("tanh(a)", "tanh(b)"))
    with pytest.raises(SpecError, match="unknown name 'b'"):
        write_starter(tmp_path, "mine", "parent")
    assert not (tmp_path / "mine.yaml").exists()
