"""The benchmark's processes and its report, with our own contenders and tiny shapes. Times are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
QUICK = ("--shape", "4,2,3,5", "--rounds", "2", "--seconds", "0.01", "--calls", "5", "--pause", "0", "--threads", "1")


def cpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "cpu.py"), *QUICK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def worker() -> Any:
    """Asks a worker process: a request in, an answer out."""
    command = [sys.executable, str(BENCHMARKS / "worker.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(**request: Any) -> Any:
            print(json.dumps(request), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def prepare(**changes: Any) -> dict[str, Any]:
    request = {"do": "prepare", "contender": "ours", "cell": "lstm", "T": 4, "B": 2, "I": 3, "H": 5, "seed": 0, "threads": 1}
    return request | changes


def test_report(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.json"
    done = cpu("--cells", "lstm,gru_after,elman", "--peers", "none", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "no peer knows elman" in done.stdout
    report = json.loads(file.read_text())
    assert set(report) == {"what", "date", "command", "machine", "rounds", "results", "skipped"}
    assert {"cpu", "cores", "threads", "load", "system", "python", "numpy", "blas"} == set(report["machine"])
    assert report["rounds"] == 2 and report["skipped"] == {} and "cpu.py" in report["command"]
    found = [(result["cell"], result["contender"]) for result in report["results"]]
    assert found == [(cell, name) for cell in ("lstm", "gru_after", "elman") for name in ("ours", "ours, no workspace")]
    for result in report["results"]:
        assert result["shape"] == [4, 2, 3, 5]
        assert len(result["rounds"]) == 2 and 4 <= result["calls"] <= 10
        assert 0 < result["q1"] <= result["median"] <= result["q3"] and result["ratio"] > 0
        assert result["contender"] == "ours" or result["error"] <= 1e-6
        assert "numpy" in result["versions"]


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    before = set(BENCHMARKS.rglob("*.json"))
    assert cpu("--cells", "lstm", "--peers", "none").returncode == 0
    assert set(BENCHMARKS.rglob("*.json")) == before


def test_missing_peers_are_skipped_visibly(tmp_path: Path) -> None:
    """A peer's interpreter without the peers: a folder of modules that cannot be imported stands for it."""
    blocked = tmp_path / "python"
    text = "import os, runpy, sys; sys.modules |= dict.fromkeys(('torch', 'jax')); sys.path[0] = os.path.dirname(sys.argv[1]); "
    text += "runpy.run_path(sys.argv[1], run_name='__main__')"
    blocked.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{text}" "$@"\n')
    blocked.chmod(0o755)
    done = cpu("--cells", "lstm", "--peer-python", str(blocked), "--json", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stderr
    skipped = json.loads((tmp_path / "report.json").read_text())["skipped"]
    assert set(skipped) == {"torch.nn", "torch loop", "jax.lax.scan"}
    for name, why in skipped.items():
        assert why.startswith("no module named ") and f"skipped: {name}: {why}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cells", "nosuch", "--peers", "none"), "cpu: no module named generated.nosuch_numpy"),
        (("--cells", "../lstm"), "cpu.py: error: --cells: '../lstm' is not a cell's name"),
        (("--peers", "tensorflow"), "cpu.py: error: --peers: 'tensorflow' is none of torch, jax"),
        (("--shape", "1,2,3"), "cpu.py: error: argument --shape: '1,2,3' is not four sizes T,B,I,H"),
    ],
)
def test_one_sentence_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = cpu(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == message


def test_worker_answers_and_recovers(worker: Any, tmp_path: Path) -> None:
    assert "unexpected request 'time'" in worker(do="time", seconds=0, most=1)["error"]
    assert worker(**prepare(cell="nosuch"))["missing"]
    assert "error" in worker(**prepare(H=-1))
    prepared = worker(**prepare())
    assert prepared["note"] == "" and "numpy" in prepared["versions"]
    times = worker(do="time", seconds=0.01, most=3)["seconds"]
    assert 2 <= len(times) <= 3 and min(times) > 0
    assert worker(do="gradients", file=str(tmp_path / "g.npz")) == {}
    with np.load(tmp_path / "g.npz") as gradients:
        shapes = {name: value.shape for name, value in gradients.items()}
    assert shapes == {"W": (4, 5, 3), "U": (4, 5, 5), "b": (4, 5), "x": (4, 2, 3), "h0": (2, 5), "c0": (2, 5)}
