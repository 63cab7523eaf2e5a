"""Signals: one word, the status that shells expect, and nothing left behind, whatever was going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import ROOT
from test_jobs import wait_for_children

from cellspec.tools import write

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sends signals, looks into /proc")

SIGNALS = [signal.SIGINT, signal.SIGTERM]
SLOW_IMPORT = """\
import time
try:
    print("importing", flush=True)
    time.sleep(60)
except BaseException as error:
    raise ImportError("as extension modules do, it makes another exception of what reaches it") from error
"""
SLOW_WRITE = """\
import os, time
from pathlib import Path
from cellspec.tools import stopping
from cellspec.tools import write
stopping.install()
os.replace = lambda *_: (print("writing", flush=True), time.sleep(60))
write.write(Path("out"), {"a_numpy.py": "text"})
"""


@contextmanager
def started(*command: str, cwd: Path, path: str = str(ROOT)) -> Iterator[subprocess.Popen[str]]:
    """A Python process in which interrupts are not ignored, as they are in what a shell starts in the background."""
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        yield process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_library_is_imported(tmp_path: Path, number: int) -> None:
    (tmp_path / "sympy.py").write_text(SLOW_IMPORT)
    with started("-m", "cellspec", "show", "lstm", cwd=tmp_path, path=f"{tmp_path}{os.pathsep}{ROOT}") as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "", "Aborted!\n")


def test_what_is_imported_before_signals_are_prepared_for() -> None:
    """Until then a signal would show a traceback: nothing is read from disk but the package and the preparation itself."""
    code = (
        "import sys, __future__; before = set(sys.modules); import cellspec.tools.stopping; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.strip() == "['cellspec', 'cellspec.tools', 'cellspec.tools.stopping']", done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_file_is_written(tmp_path: Path, number: int) -> None:
    with started("-c", SLOW_WRITE, cwd=tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".tmp"]
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    with started("-c", SLOW_WRITE, cwd=tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        (left,) = (tmp_path / "out").iterdir()
        write.write(tmp_path / "out", {"__init__.py": ""})
        assert left.exists(), "another process is about to rename it"
        process.kill()
        process.wait(60)
    other = left.with_name(left.name.replace(write._host(), "another-machine"))
    recent = other.with_name(other.name.replace("-0.tmp", "-1.tmp"))
    mine = left.with_name(".cellspec-notes.tmp")
    for path in (other, recent, mine):
        path.write_text("")
    os.utime(other, (1, 1))
    write.write(tmp_path / "out", {"__init__.py": ""})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(["__init__.py", recent.name, mine.name])


def test_processes_end_with_the_one_that_has_started_them(tmp_path: Path) -> None:
    with started("-m", "cellspec", "generate", "--backend", "numpy", "--jobs", "2", cwd=tmp_path) as process:
        wait_for_children(process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.communicate(timeout=60)  # these hold its stderr: it comes to an end when they do
    for _ in range(100):
        if not any(alive(child) for child in children):
            break
        time.sleep(0.1)
    assert not any(alive(child) for child in children)
    assert list(tmp_path.iterdir()) == []


def alive(process: str) -> bool:
    """Whether it runs, and is not merely remembered."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
