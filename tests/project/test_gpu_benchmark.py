"""The GPU benchmark without a GPU: numbers, statistics, report, skips, and the peers' formulas on the CPU.

What needs PyTorch is skipped where it is missing. Whole runs use a stand-in for CuPy whose arrays are NumPy's and whose events
read the host's clock, and modules that are the NumPy ones with a ``graph`` argument; nothing is said of times.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import cells  # noqa: E402
import gpu  # noqa: E402
import gpu_report  # noqa: E402
import gpu_worker  # noqa: E402
from cells import CELLS, GENERATED, Case  # noqa: E402

SMALL = {"T": 5, "B": 3, "I": 4, "H": 7}

CUPY = '''"""A stand-in for CuPy on the host: NumPy's arrays, events that read the clock."""
import time
from types import SimpleNamespace

import numpy

__version__ = "0 (a stand-in on the host)"
asarray, asnumpy, float32 = numpy.array, numpy.array, numpy.float32


class Stream:
    current = None

    def __init__(self, non_blocking=False):
        assert non_blocking

    def use(self):
        Stream.current = self


class Event:
    def record(self, stream):
        assert stream is Stream.current
        self.at, self.done = time.perf_counter(), False

    def synchronize(self):
        self.done = True


def elapsed(start, end):
    assert end.done and end.at >= start.at
    return (end.at - start.at) * 1e3


class CUDARuntimeError(RuntimeError):
    pass


device = {"name": b"no GPU, a stand-in", "major": 0, "minor": 0, "totalGlobalMem": 1}
runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError, getDeviceProperties=lambda index: device, runtimeGetVersion=lambda: 0
)
cuda = SimpleNamespace(Stream=Stream, Event=Event, get_elapsed_time=elapsed, runtime=runtime)


def get_default_memory_pool():
    return SimpleNamespace(free_all_blocks=lambda: None)


get_default_pinned_memory_pool = get_default_memory_pool
'''

NO_DEVICE = """

def none(index):
    raise CUDARuntimeError("cudaErrorNoDevice: none")


runtime.getDeviceProperties = none
"""

WITH_GRAPH = """

ahead, back = forward, backward


def forward(params, x, state=None, *, workspace=None, graph=False):
    if graph:
        {in_graph}
    return ahead(params, x, state, workspace=workspace)


def backward(params, tape, dy, dfinal=None, *, workspace=None, graph=False):
    return back(params, tape, dy, dfinal, workspace=workspace)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Any:
    """A runner of gpu.py with the stand-in for CuPy, without PyTorch: a cell's module and what its graph does, arguments."""
    libraries, generated = tmp_path / "libraries", tmp_path / "generated"
    libraries.mkdir()
    generated.mkdir()
    (libraries / "cupy.py").write_text(CUPY)
    (libraries / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")

    def run(modules: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        for cell, in_graph in modules.items():
            text = (GENERATED / f"{cell}_numpy.py").read_text()
            (generated / f"{cell}_numpy.py").write_text(text)
            (generated / f"{cell}_cupy.py").write_text(text + WITH_GRAPH.format(in_graph=in_graph))
        quick = ("--rounds", "2", "--seconds", "0.002", "--calls", "3", "--shape", "5,3,4,7", "--cells", ",".join(modules))
        command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--generated", str(generated), *quick, *arguments]
        environment = os.environ | {"PYTHONPATH": str(libraries)}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    return run


# --- numbers -----------------------------------------------------------------------------------------------


def test_bfloat16_rounds_to_even() -> None:
    one = np.float32(1)
    step = np.float32(2**-7)  # to the next bfloat16 above 1
    given = np.array([one, one + step / 2, one + 3 * step / 2, one + step * np.float32(0.51), -one - step / 2], np.float32)
    wanted = np.array([1, 1, 1 + 2 * step, 1 + step, -1], np.float32)
    assert cells.representable(given, "bfloat16").tolist() == wanted.tolist()


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 0), ("tf32", 0), ("float16", 13), ("bfloat16", 16)])
def test_data_is_exact_in_the_dtype(dtype: str, bits: int) -> None:
    for cell in CELLS:
        data = Case(cell, **SMALL, dtype=dtype).data()
        assert {value.dtype for value in data.values()} == {np.dtype(np.float32)}
        if dtype == "float16":
            assert all(np.array_equal(value.astype(np.float16).astype(np.float32), value) for value in data.values())
        else:
            assert all(not np.any(value.view(np.uint32) & ((1 << bits) - 1)) for value in data.values())
        assert all(np.any(value != 0) for value in data.values())


@pytest.mark.parametrize("cell", CELLS)
def test_fields_are_the_modules(cell: str) -> None:
    data = Case(cell, **SMALL).data()
    fields = cells.fields(cell, data)
    shapes = cells.load_module(cell, "numpy").PARAM_SHAPES
    assert {name: value.shape for name, value in fields.items()} == {
        name: tuple(SMALL[axis] for axis in axes) for name, axes in shapes.items()
    }
    again = cells.kinds(cell, fields)
    assert all(np.array_equal(again[kind], data[kind]) for kind in CELLS[cell].kinds) and set(again) == set(CELLS[cell].kinds)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("cell", ["lstm", "gru_after"])
def test_fused_parameters_in_the_documented_formulas(cell: str) -> None:
    """The formulas of torch.nn.LSTM's and nn.GRU's documentation, which are cuDNN's, with the mapped parameters."""
    case = Case(cell, **SMALL, dtype="float64")
    data = case.data()
    given = cells.fused(cell, data)
    states = [data[f"{name}0"] for name in CELLS[cell].states]
    ys = []
    for x in data["x"]:
        zx = x @ given["weight_ih_l0"].T + given["bias_ih_l0"]
        zh = states[0] @ given["weight_hh_l0"].T + given["bias_hh_l0"]
        if cell == "lstm":
            i, f, g, o = np.split(zx + zh, 4, axis=1)
            c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
            states = [sigmoid(o) * np.tanh(c), c]
        else:
            (rx, zx, nx), (rh, zh, nh) = np.split(zx, 3, axis=1), np.split(zh, 3, axis=1)
            r, z = sigmoid(rx + rh), sigmoid(zx + zh)
            n = np.tanh(nx + r * nh)
            states = [(1 - z) * n + z * states[0]]
        ys.append(states[0])
    found = {"y": np.stack(ys)} | {f"{name} final": value for name, value in zip(CELLS[cell].states, states, strict=True)}
    wanted = gpu_worker.reference(case, "numpy", str(GENERATED)).outputs
    assert gpu_worker.difference(found, wanted)["norm"] < 1e-13
    again = cells.unfused(cell, given)
    assert all(np.array_equal(again[kind], data[kind]) for kind in "WUb")


def test_difference_sees_what_is_missing_and_what_is_not_finite() -> None:
    wanted = {"a": np.array([3.0, 4.0]), "b": np.zeros(0)}
    assert gpu_worker.difference({"a": np.array([3.0, 4.5]), "b": np.zeros(0)}, wanted) == {"norm": 0.1, "largest": 0.125}
    for other in ({"a": wanted["a"]}, wanted | {"a": np.array([3.0, np.nan])}, wanted | {"a": np.array([3.0])}):
        assert gpu_worker.difference(other, wanted) == {"norm": float("inf"), "largest": float("inf")}


# --- peers on the CPU --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_torch_loops_are_our_cells(cell: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    case = Case(cell, **SMALL, dtype="float64")
    wanted = gpu_worker.reference(case, "numpy", str(GENERATED))
    for found in (gpu_worker.reference(case, "torch", "", device="cpu"), run_on_cpu(case, gpu_worker.TorchLoop)):
        assert gpu_worker.difference(found.outputs, wanted.outputs)["norm"] < 1e-12
        assert gpu_worker.difference(found.gradients, wanted.gradients)["norm"] < 1e-11


@pytest.mark.parametrize("cell", ["lstm", "gru_after"])
def test_torch_layers_are_our_cells(cell: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    case = Case(cell, **SMALL, dtype="float64")
    wanted = gpu_worker.reference(case, "numpy", str(GENERATED))
    found = run_on_cpu(case, gpu_worker.TorchFused)
    assert gpu_worker.difference(found.outputs, wanted.outputs)["norm"] < 1e-12
    assert gpu_worker.difference(found.gradients, wanted.gradients)["norm"] < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_compiled_steps(cell: str) -> None:
    """In one graph, at every step, with and without gradients: nothing is compiled anew for each step."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    case = Case(cell, **SMALL | {"T": 20})
    wanted = gpu_worker.reference(case, "torch", "", device="cpu")
    found = run_on_cpu(case, gpu_worker.compiled)
    assert gpu_worker.difference(found.outputs, wanted.outputs)["norm"] < 1e-5
    assert gpu_worker.difference(found.gradients, wanted.gradients)["norm"] < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("cell", CELLS)
def test_torch_loops_in_narrow_dtypes(cell: str, dtype: str) -> None:
    """The reference takes the numbers that the dtype holds: what is left is rounding."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    case = Case(cell, **SMALL, dtype=dtype)
    wanted = gpu_worker.reference(case, "torch", "", device="cpu")
    found = run_on_cpu(case, gpu_worker.TorchLoop)
    assert wanted.gradients["x"].dtype == np.float64
    assert 0 < gpu_worker.difference(found.outputs, wanted.outputs)["norm"] < gpu_report.TOLERANCES[dtype]
    assert 0 < gpu_worker.difference(found.gradients, wanted.gradients)["norm"] < gpu_report.TOLERANCES[dtype]


def test_a_layer_that_torch_has_not() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(ValueError, match=r"torch\.nn has no peephole"):
        gpu_worker.TorchFused(Case("peephole", **SMALL))


def run_on_cpu(case: Case, model: Any) -> Any:
    """The outcome of a peer on the CPU; its forward pass alone gives the same."""
    contender = gpu_worker.peer(case, model, device="cpu")
    assert gpu_worker.measure(contender, gpu_worker.FORWARD, 0, 1)[0] > 0
    found = contender.outcome(contender.run[gpu_worker.BOTH]())
    alone = contender.run[gpu_worker.FORWARD]()
    assert not alone[0].requires_grad
    for value, y in zip(alone, found.outputs.values(), strict=True):
        np.testing.assert_allclose(value.float().numpy(), y, rtol=2e-2, atol=2e-2)
    return found


# --- statistics and report ---------------------------------------------------------------------------------


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that slows down from round to round disturbs the times, not the ratios."""
    case = Case("lstm", 100, 1, 2, 3)
    turns = {"ours": [[1.0, 1.0, 9.0], [2.0], [4.0]], "ours graph": [[0.5], [1.0], [2.0]], "torch.nn": [[3.0], [6.0], [12.0]]}
    errors = {"forward": {"norm": 1e-7, "largest": 2e-7}, "gradients": {"norm": 1.0, "largest": 1.0}}
    details = {"torch.nn": {"note": "a note", "error": errors}}
    found = {result.contender: result for result in gpu_report.results_of(case, "forward", turns, {}, details)}
    assert list(found) == list(turns)
    peer = found["torch.nn"]
    assert peer.ms == (6.0, 4.5, 9.0) and peer.us_per_step == 60.0 and (peer.rounds, peer.least) == (3, 3.0)
    assert peer.ratios == {"ours graph": (6.0, 6.0, 6.0), "ours": (3.0, 3.0, 3.0)}
    assert (peer.error, peer.error_largest, peer.note, peer.wrong) == (1e-7, 2e-7, "a note", False)
    assert found["ours"].calls == 5 and found["ours"].ratios == {"ours graph": (2.0, 2.0, 2.0)}
    (both, *_) = gpu_report.results_of(case, "forward + backward", {"torch.nn": [[3.0]]}, {}, details)
    assert both.error == 1.0 and both.wrong and both.ratios == {} and both.ms == (3.0, 3.0, 3.0)


def test_who_failed_is_in_the_table() -> None:
    case = Case("lstm", 100, 1, 2, 3)
    turns: dict[str, list[list[float]]] = {"ours": [[1.0]], "torch loop": [[2.0]], "torch.nn": []}
    found = gpu_report.results_of(case, "forward", turns, {"torch.nn": "out of memory"}, {})
    assert [(result.contender, result.reason) for result in found if result.ms is None] == [("torch.nn", "out of memory")]
    table = gpu_report.case_table(case, found)
    assert list(table.columns[1].cells) == ["1.00 (1.00-1.00)", "2.00 (2.00-2.00)", "[red]failed[/]"]
    assert list(table.columns[3].cells) == ["", "[green]x2.00 (2.00-2.00)[/]", ""]
    assert list(gpu_report.summary(found, "forward").columns[5].cells) == ["failed"]


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.json"
    gpu_report.write(file, {"ms": gpu_report.Spread(1.0, 0.5, 2.0), "error": float("inf")})
    assert json.loads(file.read_text()) == {"ms": {"median": 1.0, "q1": 0.5, "q3": 2.0}, "error": "inf"}
    with pytest.raises(TypeError):
        gpu_report.write(file, {"first": 1, "second": object()})
    assert json.loads(file.read_text())["error"] == "inf" and list(file.parent.iterdir()) == [file]


def test_what_was_measured_is_kept_when_a_run_is_cut_short(tmp_path: Path) -> None:
    options = gpu.parse(["--quick", "--cells", "lstm,gru_after", "--json", str(tmp_path / "report.json")])
    cases = gpu.cases_of(options)

    def run(case: Case) -> Any:
        if case.cell != "lstm":
            raise KeyboardInterrupt
        return gpu_report.results_of(case, "forward", {"ours": [[1.0]]}, {}, {}), "torch"

    benchmark = SimpleNamespace(
        options=options, run=run, contenders=lambda case: ["ours"], console=SimpleNamespace(print=lambda *a, **k: None)
    )
    report: dict[str, Any] = {"references": []}
    with pytest.raises(KeyboardInterrupt):
        gpu.measured(benchmark, cases, report)  # type: ignore[arg-type]
    kept = json.loads(options.json.read_text())
    assert [result["cell"] for result in kept["results"]] == ["lstm"]
    assert kept["references"] == [{"cell": "lstm", "shape": [256, 16, 768, 768], "dtype": "float32", "float64 by": "torch"}]
    assert len(kept["not reached"]) == len(cases) - 1 and kept["not reached"][0][0] == "gru_after"


def test_cases() -> None:
    cases = gpu.cases_of(gpu.parse([]))
    assert len(cases) == len(set(cases)) == 5 * 6 * 4
    assert {case.cell for case in cases[:5]} == {"lstm", "gru_after", "peephole", "indrnn", "mingru"}
    assert {(case.B, case.H) for case in cases} == {(16, 768), (8, 1024), (64, 1024), (128, 1024), (32, 128), (1, 512)}
    assert all(case.I == case.H for case in cases) and Case("lstm", 1024, 16, 768, 768, dtype="tf32") in cases
    quick = gpu.parse(["--quick", "--rounds", "5"])
    assert (quick.rounds, quick.minutes, quick.dtypes) == (5, 3.6, ["float32", "bfloat16"])
    assert max(case.T for case in gpu.cases_of(quick)) == 256


# --- whole runs --------------------------------------------------------------------------------------------


def test_report(stand_in: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = stand_in({"lstm": "pass", "elman": "pass"}, "--dtypes", "float32,float64", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "skipped: torch loop: no module named torch (pip install torch)" in done.stdout and "\x1b" not in done.stdout
    report = json.loads(file.read_text())
    assert set(report) == {
        *("about", "date", "command", "machine", "settings", "skipped", "not reached", "references", "results", "seconds")
    }
    assert report["machine"]["gpu"] == "no GPU, a stand-in" and "cupy" in report["machine"]["versions"]
    assert (
        "gpu.py" in report["command"]
        and report["not reached"] == []
        and set(report["skipped"]) == set(gpu.CONTENDERS) - {*gpu_report.OURS}
    )
    found = [(r["cell"], r["dtype"], r["direction"], r["contender"]) for r in report["results"]]
    assert found == [
        (cell, dtype, direction, name)
        for dtype in ("float32", "float64")
        for cell in ("lstm", "elman")
        for direction in gpu_worker.PASSES
        for name in ("ours", "ours graph")
    ]
    for result in report["results"]:
        assert result["shape"] == [5, 3, 4, 7] and result["rounds"] == 2 and 2 <= result["calls"] <= 6
        assert 0 < result["ms"]["q1"] <= result["ms"]["median"] <= result["ms"]["q3"]
        assert result["us_per_step"] == pytest.approx(result["ms"]["median"] * 1e3 / 5, rel=1e-5)
        assert (0 <= result["error"] < 1e-12) if result["dtype"] == "float64" else (0 < result["error"] < 1e-5)
    assert {reference["float64 by"] for reference in report["references"]} == {"numpy"}


@pytest.mark.parametrize(
    ("in_graph", "reason"),
    [
        ("raise RuntimeError('cudaErrorStreamCaptureUnsupported: no\\nsecond line')", "RuntimeError: cudaErrorStream"),
        ("import os; os._exit(3)", "its process ended with status 3"),
        ("import time; time.sleep(60)", "no answer within 4 s"),
    ],
)
def test_one_failure_leaves_the_others(stand_in: Any, tmp_path: Path, in_graph: str, reason: str) -> None:
    file = tmp_path / "report.json"
    done = stand_in({"lstm": in_graph, "mingru": "pass"}, "--dtypes", "float32", "--patience", "4", "--json", str(file))
    assert done.returncode == 1
    assert f"failed: ours graph, lstm (5, 3, 4, 7) float32: {reason}" in done.stdout and "second line" not in done.stdout
    results = json.loads(file.read_text())["results"]
    failed = [(r["cell"], r["contender"], r.get("ms")) for r in results if "reason" in r]
    assert failed == [("lstm", "ours graph", None)] * 2 and len(results) == 8


def test_wrong_results_are_said_to_be_wrong(stand_in: Any) -> None:
    done = stand_in({"lstm": "x = x + 1"}, "--dtypes", "float32")
    assert done.returncode == 1
    assert "differs: ours graph, lstm (5, 3, 4, 7) float32:" in done.stdout and "from the reference" in done.stdout
    assert "differs: ours," not in done.stdout


def test_cells_that_are_not_generated(stand_in: Any) -> None:
    done = stand_in({"lstm": "pass"}, "--dtypes", "float32", "--cells", "lstm,gru_after")
    assert done.returncode == 0 and "skipped: ours: no gru_after_cupy.py in generated" in done.stdout


@pytest.mark.parametrize(
    ("cupy", "why"),
    [
        ("raise ModuleNotFoundError('no cupy', name='cupy')", "no module named cupy (pip install 'cellspec[cuda13x]' or"),
        (CUPY + NO_DEVICE, "cupy 0 (a stand-in on the host) finds no CUDA device (cudaErrorNoDevice: none)"),
    ],
    ids=["no cupy", "no device"],
)
def test_skips_visibly(tmp_path: Path, cupy: str, why: str) -> None:
    """Without PyTorch, and without CuPy or a GPU: a sentence, and nothing is written."""
    (tmp_path / "cupy.py").write_text(cupy)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "") and not (tmp_path / "report.json").exists()
    assert done.stdout.startswith(f"skipped: 120 cases built, none run: no GPU to run them on: cupy: {why}")
    assert "torch: no module named torch (pip install torch)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cells", "nosuch"), "gpu.py: error: --cells: there is no nosuch_cupy.py in generated, and no peer knows 'nosuch'"),
        (("--dtypes", "int8"), "gpu.py: error: --dtypes: 'int8' is none of float32, tf32, float16, bfloat16, float64"),
        (("--shape", "1,2,3"), "gpu.py: error: argument --shape: '1,2,3' is not four sizes T,B,I,H"),
        (("--rounds", "0"), "gpu.py: error: --rounds and --calls start at 1, --seconds at 0"),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.parse(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err.splitlines()[-1] == message


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    """Every contender that is installed runs at a small shape, captured and compiled, and is right."""
    file = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--shape", "6,8,32,64", "--rounds", "1", "--json", str(file)]
    command += ["--dtypes", "float32,bfloat16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    if "no GPU to run them on" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout
    failed = [
        (r["cell"], r["dtype"], r["contender"], r["reason"]) for r in json.loads(file.read_text())["results"] if "reason" in r
    ]
    assert failed == []
