"""Folders of generated modules: comparing, writing, and leaving alone what is not ours."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from cellspec import load
from cellspec.tools import write
from cellspec.tools.arguments import UsageMistake
from cellspec.tools.jobs import Made
from cellspec.tools.write import Comparison

LSTM = write.modules([load("lstm")], ["numpy"])
NAME = "lstm_numpy.py"


def test_modules() -> None:
    assert list(LSTM) == [NAME] and write.MARK.search(LSTM[NAME])
    assert write.MARK.findall(LSTM[NAME]) == [f'SPEC_SHA256 = "{load("lstm").sha256}"']
    with pytest.raises(UsageMistake, match=r"both describe a cell named 'lstm'$"):
        write.modules([load("lstm"), load("lstm", {"phi": "relu"})], ["numpy"])


def test_write_if_changed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert write.write(folder, LSTM) == ("__init__.py", NAME)
    assert (folder / NAME).read_bytes() == LSTM[NAME].encode()
    os.utime(folder / NAME, (1, 1))
    assert write.write(folder, LSTM) == () and (folder / NAME).stat().st_mtime == 1
    (folder / NAME).write_text(LSTM[NAME] + "# edited\n")
    assert write.write(folder, LSTM) == (NAME,) and (folder / NAME).read_text("utf-8") == LSTM[NAME]
    assert sorted(path.name for path in folder.iterdir()) == ["__init__.py", NAME]


def test_lines_end_as_generated(tmp_path: Path) -> None:
    """A module that some tool has rewritten with other line ends is stale."""
    write.write(tmp_path / "g", LSTM)
    (tmp_path / "g" / NAME).write_bytes(LSTM[NAME].replace("\n", "\r\n").encode())
    assert write.compare(tmp_path / "g", LSTM, ["lstm"], ["numpy"]).stale == (NAME,)


def test_compare(tmp_path: Path) -> None:
    def compare() -> Comparison:
        return write.compare(tmp_path, LSTM, ["lstm", "gru"], ["numpy"])

    assert compare() == Comparison((), ("__init__.py", NAME), ()) and not compare().fresh
    write.write(tmp_path, LSTM)
    assert compare() == Comparison((), (), ()) and compare().fresh
    (tmp_path / "gru_numpy.py").write_text("")  # known
    (tmp_path / "notes.py").write_text("x = 1\n")  # not ours
    (tmp_path / "notes_numpy.txt").write_text("")
    (tmp_path / "sub_numpy.py").mkdir()
    assert compare().fresh
    (tmp_path / "old_numpy.py").write_text("")  # named as if it were ours
    (tmp_path / "lstm_fortran.py").write_text(LSTM[NAME])  # ours by its contents
    (tmp_path / NAME).write_text("")
    assert compare() == Comparison((NAME,), (), ("lstm_fortran.py", "old_numpy.py"))


def test_no_folder(tmp_path: Path) -> None:
    comparison = write.compare(tmp_path / "none", LSTM, ["lstm"], ["numpy"])
    assert comparison == Comparison((), ("__init__.py", NAME), ()) and not (tmp_path / "none").exists()


def test_foreign_files_stay(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("precious = 1\n")
    with pytest.raises(UsageMistake, match="is in the way, as cellspec has not written it"):
        write.write(tmp_path, LSTM)
    assert (tmp_path / NAME).read_text() == "precious = 1\n" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / NAME).write_text("\n")
    (tmp_path / "__init__.py").write_text("# mine\n")
    assert write.write(tmp_path, LSTM) == (NAME,)
    assert (tmp_path / "__init__.py").read_text() == "# mine\n"


def test_working_folder_becomes_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write.write(Path("."), LSTM) == (NAME,)
    assert write.compare(Path("."), LSTM, ["lstm"], ["numpy"]).fresh


def test_old_text_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write(tmp_path, LSTM)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UsageMistake, match=r"^cannot write to '.*': no space left on device$"):
        write.write(tmp_path, {NAME: LSTM[NAME] + "# new\n"})
    assert (tmp_path / NAME).read_text("utf-8") == LSTM[NAME]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["__init__.py", NAME]


@pytest.mark.parametrize("other", ["LSTM", "Lstm"])
def test_names_that_differ_by_case_alone(tmp_path: Path, other: str) -> None:
    """On some file systems their modules would be one file."""
    made = [Made("a.yaml", "lstm", {"numpy": ""}), Made("b.yaml", other, {"numpy": ""})]
    with pytest.raises(UsageMistake, match=f"^'a.yaml' and 'b.yaml' both describe a cell named '{other}', or 'lstm' in other"):
        write.gathered(made)
    folder = tmp_path / "g"
    write.write(folder, {f"{other}_numpy.py": LSTM[NAME]})
    with pytest.raises(UsageMistake, match=f"{other}_numpy.py' differs from '{NAME}' by case alone; move it or use another"):
        write.write(folder, LSTM)
    assert sorted(path.name for path in folder.iterdir()) == [f"{other}_numpy.py", "__init__.py"]


REFUSED = {
    "n" * 300: "file name too long",
    "new/deep/" + "n" * 300: "file name too long",
    "new/deep/" + "/".join(["n" * 200] * 30): "file name too long",
    "loop": "(symlink loop|too many levels of symbolic links)",
    "loop/deep": "(symlink loop|too many levels of symbolic links|file exists)",
    "dangling": "file exists",
    "file": "not a directory",
    "file/deep": "not a directory",
    "a\0b": "embedded null (byte|character)",
    "a\ud800b": "the name has characters that no file's name can have",
}


@pytest.mark.skipif(os.name != "posix", reason="links, and names, of another kind")
@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name[:20]))
def test_folders_that_cannot_be(tmp_path: Path, name: str) -> None:
    """Told in one sentence, by writing and by comparing; what was made on the way is gone again."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/deep")
    before = sorted(tmp_path.iterdir())
    with contextlib.suppress(UsageMistake):  # it is told at once where the name alone tells
        write.reach(tmp_path / name)
    with pytest.raises(UsageMistake, match=rf"^cannot (read|write to) '.*: {REFUSED[name]}[^\n]*$"):
        write.write(tmp_path / name, LSTM)
    with contextlib.suppress(UsageMistake):
        assert not write.compare(tmp_path / name, LSTM, ["lstm"], ["numpy"]).fresh
    assert sorted(tmp_path.iterdir()) == before


def test_folders_made_for_nothing_go_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> None:
        if str(path).endswith(("deepest", ".tmp")):
            raise PermissionError(13, "Permission denied")
        make(path)  # type: ignore[arg-type]

    make = os.mkdir
    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    for folder in (tmp_path / "deep" / "deepest", tmp_path / "deep" / "deeper"):
        with pytest.raises(UsageMistake, match=r"permission denied$"):
            write.write(folder, LSTM)
        assert list(tmp_path.iterdir()) == []
