"""``make gpu-check`` without a GPU: the order of its stages, its result files, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from test_gpu_benchmark import CUPY, NO_DEVICE, WITH_GRAPH

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_check  # noqa: E402
from cells import GENERATED  # noqa: E402
from gpu_check import CELLS, SHAPES, STAGES, Stage  # noqa: E402

GPU = {"gpu": "no GPU, a stand-in", "versions": {"cupy": "0"}}


def options_of(stage: Stage) -> Any:
    """What ``gpu.py`` makes of a stage's command."""
    places = {"python": "python", "peer": "python", "results": "results", "generated": str(GENERATED)}
    return gpu.parse([part.format(**places) for part in stage.command[2:]])


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The result files by stage."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


def python(code: str) -> tuple[str, ...]:
    return ("{python}", "-c", code)


# --- the stages ----------------------------------------------------------------------------------------------------


def test_what_tells_most_comes_first_and_within_eight_minutes() -> None:
    assert [stage.name for stage in STAGES[:3]] == ["cells", "cudnn", "tests"]
    assert STAGES[0].seconds + STAGES[1].seconds <= 8 * 60
    cases = gpu.cases_of(options_of(STAGES[0]))
    assert {(case.cell, case.dtype) for case in cases} == {
        (cell, dtype) for cell in CELLS.split(",") for dtype in ("float64", "float32", "float16", "bfloat16")
    }
    assert len(cases) == 24 and options_of(STAGES[0]).contenders == ["ours", "ours graph"]
    beside = gpu.cases_of(options_of(STAGES[1]))
    assert {case.shape for case in beside} == set(SHAPES) and len(SHAPES) == 3
    assert "torch.nn" in options_of(STAGES[1]).contenders and {case.cell for case in beside} == {"lstm"}
    assert [stage.needs for stage in STAGES if "compute-sanitizer" in stage.command] == ["compute-sanitizer"] * 2
    assert options_of(STAGES[5]).quick


def test_make_runs_the_stages_and_nothing_before_them() -> None:
    command = ["make", "-n", "gpu-check", "GPU_STAGES=cells", "PEER_PYTHON=/there/python", "GPU_RESULTS=here"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    joined = " ".join(done.stdout.replace("\\\n", " ").split())
    assert "benchmarks/gpu_check.py --results here --peer-python /there/python --stages cells" in joined
    assert "cellspec generate" not in joined and "'.[test,cuda13x]'" in joined


# --- runs ----------------------------------------------------------------------------------------------------------

HANGS = "import time; print('it hangs'); time.sleep(600)"


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A runner of given stages, as on a machine with a GPU."""

    def run(*stages: Stage) -> tuple[int, dict[str, dict[str, Any]]]:
        monkeypatch.setattr(gpu_check, "STAGES", stages)
        monkeypatch.setattr(gpu_check, "machine", lambda python: GPU)
        return gpu_check.main(["--results", str(tmp_path / "results")]), records(tmp_path / "results")

    return run


def test_every_stage_writes_what_it_was_and_how_it_ended(
    staged: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    writes = python("open('{results}/numbers.json', 'w').write('[1]'); print('measured')")
    status, found = staged(
        Stage("one", "it measures", writes, 60, writes="numbers.json"),
        Stage("two", "it wants a program", ("no-such-program",), 60, needs="no-such-program"),
    )
    assert status == 0 and capfd.readouterr().out.count("measured") == 2  # its command is shown as well
    assert found["one"]["status"] == "passed" and found["one"]["results"] == "numbers.json"
    assert found["one"]["machine"] == GPU and found["one"]["command"].startswith(sys.executable) and found["one"]["date"]
    assert found["one"]["last lines"] == ["measured"] == (tmp_path / "results" / "one.log").read_text().splitlines()
    assert found["two"]["status"] == "left out"


def test_a_stage_that_fails_hangs_or_crashes_stops_no_other(staged: Any) -> None:
    begin = time.monotonic()
    status, found = staged(
        Stage("fails", "", python("print('wrong'); raise SystemExit(3)"), 60),
        Stage("hangs", "", python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HANGS!r}])"), 2),
        Stage("crashes", "", python("import os; os.abort()"), 60),
        Stage("is not there", "", ("no-such-program",), 60),
        Stage("measures nothing", "", python("print('skipped: no GPU')"), 60, writes="numbers.json"),
        Stage("passes", "", python("print('right')"), 60),
    )
    assert status == 1 and time.monotonic() - begin < 60
    assert {name: record["status"] for name, record in found.items()} == {
        "fails": "failed", "hangs": "over its 2 s", "crashes": "failed", "is not there": "failed",
        "measures nothing": "failed", "passes": "passed",
    }  # fmt: skip
    assert found["fails"]["exit"] == 3 and found["fails"]["last lines"] == ["wrong"]
    assert found["hangs"]["exit"] < 0 and found["crashes"]["exit"] < 0


def test_results_are_there_as_soon_as_a_stage_ends_and_lines_as_they_come(tmp_path: Path) -> None:
    """A run that is killed in its second stage has the first one's file, and has shown what the second has said so far."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import gpu_check as g\n"
        f"g.machine = lambda python: {GPU!r}\n"
        "g.STAGES = (g.Stage('quick', '', ('{python}', '-c', 'print(1)'), 60),\n"
        f"            g.Stage('slow', '', ('{{python}}', '-c', {HANGS!r}), 60))\n"
        f"g.main(['--results', {str(tmp_path)!r}])\n"
    )
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=quiet, text=True, cwd=ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "it hangs\n":
            break
    process.send_signal(signal.SIGINT)
    process.wait()
    process.stdout.close()
    assert line == "it hangs\n" and records(tmp_path)["quick"]["status"] == "passed" and "slow" not in records(tmp_path)


def libraries(tmp_path: Path, cupy: str) -> dict[str, str]:
    """The environment with a stand-in for CuPy, and without PyTorch."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "cupy.py").write_text(cupy)
    (folder / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def check(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = check(libraries(tmp_path, CUPY + NO_DEVICE), "--results", str(tmp_path / "results"))
    assert done.returncode == 2 and "nothing was checked: there is no GPU to check on" in done.stdout
    assert done.stdout.count("\n") == 1 and not (tmp_path / "results").exists()
    assert check(os.environ, "--stages", "cells,nothing").returncode == 2


@pytest.mark.slow
def test_the_first_stage_measures_every_cell_in_every_dtype(tmp_path: Path) -> None:
    """With NumPy modules in the place of CuPy's, which know float32 and float64: the others fail, and are in the results."""
    generated = tmp_path / "generated"
    generated.mkdir()
    for cell in CELLS.split(","):
        text = (GENERATED / f"{cell}_numpy.py").read_text("utf-8")
        (generated / f"{cell}_numpy.py").write_text(text, "utf-8")
        (generated / f"{cell}_cupy.py").write_text(text + WITH_GRAPH.format(in_graph="pass"), "utf-8")
    results = tmp_path / "results"
    done = check(libraries(tmp_path, CUPY), "--stages", "cells", "--generated", str(generated), "--results", str(results))
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((results / "cells-results.json").read_text("utf-8"))
    assert found["not reached"] == [] and found["machine"]["gpu"] == "no GPU, a stand-in"
    measured = {(r["cell"], r["dtype"], r["contender"]) for r in found["results"] if r["ms"]}
    assert {(c, d) for c, d, _ in measured} == {(c, d) for c in CELLS.split(",") for d in ("float32", "float64")}
    failed = {(r["cell"], r["dtype"]) for r in found["results"] if r["reason"]}
    assert failed == {(c, d) for c in CELLS.split(",") for d in ("float16", "bfloat16")}
    assert (
        records(results)["cells"]["status"] == "failed" and records(results)["cells"]["machine"]["gpu"] == "no GPU, a stand-in"
    )
