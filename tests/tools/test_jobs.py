"""Generating in several processes: the same files, the same messages, and a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support import ROOT

from cellspec.cli import main
from cellspec.tools import jobs

CELLS = ("elman", "gru", "indrnn", "mingru")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wrong(folder: Path, name: str) -> str:
    """A spec that reads what is not there."""
    text = (ROOT / "specs" / "elman.yaml").read_text("utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("name: elman", f"name: {name}").replace("U @ h[t-1]", "U @ k"), "utf-8")
    return str(path)


def test_the_number_of_processes_changes_neither_files_nor_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = []
    for count in ("1", "2", "64"):
        result = run("generate", *CELLS, "--jobs", count, "--out", "out")
        assert (result.exit_code, result.stderr) == (0, "")
        said.append((result.stdout, files(tmp_path / "out")))
        for path in (tmp_path / "out").iterdir():
            path.unlink()
    assert said[0] == said[1] == said[2]
    assert [line.split(os.sep)[-1] for line in said[0][0].splitlines()] == ["__init__.py", *(f"{c}_numpy.py" for c in CELLS)]


def test_mistakes_are_told_as_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    specs = ["gru", wrong(tmp_path, "first"), "elman", wrong(tmp_path, "second")]
    one, two = run("generate", *specs, "--jobs", "1"), run("generate", *specs, "--jobs", "2")
    assert (one.exit_code, one.stdout, one.stderr) == (two.exit_code, two.stdout, two.stderr)
    assert one.exit_code == 1 and one.stderr.count("error: unknown name 'k'") == 2
    assert not (tmp_path / "generated").exists()


def test_a_wrong_setting_is_a_mistake_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("generate", "elman", "gru", "--set", "psi=tanh", "--jobs", "2")
    assert result.exit_code == 2 and result.stderr.startswith("cellspec: 'elman' has no hyperparameter or activation 'psi'")


def test_two_specs_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gru.yaml").write_bytes((ROOT / "specs" / "gru.yaml").read_bytes())
    result = run("generate", "gru.yaml", "gru", "--jobs", "2")
    assert result.exit_code == 2 and "both describe a cell named 'gru'" in result.stderr


def test_a_count_below_one_is_refused() -> None:
    result = run("generate", "gru", "--jobs", "0")
    assert result.exit_code == 2 and "--jobs" in result.stderr


def test_a_killed_process_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise BrokenProcessPool

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ProcessPoolExecutor, "submit", killed)
    result = run("generate", *CELLS, "--jobs", "2")
    told = "cellspec: a process that generated modules has been killed; --jobs 1 takes less memory\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", told)


def test_few_specs_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ProcessPoolExecutor", None)
    paths = [ROOT / "specs" / f"{name}.yaml" for name in CELLS]
    assert [one.cell for one in jobs.made(paths, {}, ["numpy"], None)] == list(CELLS)


def wait_for_children(process: subprocess.Popen[str]) -> None:
    """Until the processes that do the work are there, and some of it has been done."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 3:  # two, and one that Python itself keeps
        assert process.poll() is None, "it was over before it could be interrupted"
        time.sleep(0.05)
    time.sleep(0.5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_an_interrupt_ends_it_quietly(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group of processes; nothing is written, one word is said.

    That stderr comes to an end shows that no process is left that could write there. A shell starts what runs in the background
    with interrupts ignored, which it passes on: here they are not.
    """
    command = [sys.executable, "-m", "cellspec", "generate", "--backend", "numpy", "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "start_new_session": True, "text": True}
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        wait_for_children(process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "Aborted!")
    assert list(tmp_path.iterdir()) == []
