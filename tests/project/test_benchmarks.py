"""The benchmark's processes and its report, with our own contenders and tiny shapes. Times are not judged."""

from __future__ import annotations

import ast
import datetime
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import bound  # noqa: E402
import cpu as cpu_module  # noqa: E402
import cpu_report  # noqa: E402
import machine  # noqa: E402
import markdown_tables  # noqa: E402
import mask_worker  # noqa: E402
import masks  # noqa: E402
import memory  # noqa: E402
import onnx_cells  # noqa: E402
import outcome  # noqa: E402
import plot  # noqa: E402
import targets  # noqa: E402
import traffic  # noqa: E402
import worker as worker_module  # noqa: E402
from cells import CELLS, Case  # noqa: E402
from cpu_cases import SHAPES, SWEPT_SHAPES  # noqa: E402
from report import command, heading, text_of  # noqa: E402

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
    done = cpu("--cells", "lstm,mgu", "--peers", "none", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "no peer knows mgu" in done.stdout and "no peer knows lstm" not in done.stdout
    report = json.loads(file.read_text())
    assert set(report) == {"about", "date", "command", "machine", "settings", "versions", "results", "skipped", "seconds"}
    assert set(report["machine"]) == {
        *("cpu", "cores", "threads", "caches", "memory", "load", "system", "python", "numpy", "blas")
    }
    assert report["settings"]["rounds"] == 2 and report["skipped"] == {} and report["versions"] == {"numpy": np.__version__}
    assert "cpu.py" in report["command"] and str(tmp_path) not in file.read_text()
    passes = {"ours": ["step", "forward", "forward + backward"], "ours, no workspace": ["forward", "forward + backward"]}
    wanted = {(cell, name, one) for cell in ("lstm", "mgu") for name, some in passes.items() for one in some}
    assert {(result["cell"], result["contender"], result["direction"]) for result in report["results"]} == wanted
    for result in cpu_report.results_from(report):
        assert result.shape == (4, 2, 3, 5) and result.least <= result.ms.q1
        assert result.rounds == 2 and 2 <= result.calls <= 10 and 0 <= result.peak < 100
        assert 0 < result.ms.q1 <= result.ms.median <= result.ms.q3
        assert result.ratio.median > 0 if result.contender != "ours" else result.ratio == (1, 1, 1)
        assert result.error is None if result.contender == "ours" else result.error == 0


def test_nothing_is_written_unasked() -> None:
    before = set(BENCHMARKS.rglob("*.json"))
    assert cpu("--cells", "lstm", "--peers", "none", "--passes", "step").returncode == 0
    assert set(BENCHMARKS.rglob("*.json")) == before


def test_missing_peers_are_skipped_visibly(tmp_path: Path) -> None:
    """A peer's interpreter without the peers: modules that cannot be imported stand for it."""
    blocked = tmp_path / "python"
    text = "import os, runpy, sys; sys.modules |= dict.fromkeys(('torch', 'jax', 'onnxruntime')); "
    text += "sys.path[0] = os.path.dirname(sys.argv[1]); runpy.run_path(sys.argv[1], run_name='__main__')"
    blocked.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{text}" "$@"\n')
    blocked.chmod(0o755)
    file = tmp_path / "report.json"
    done = cpu("--cells", "lstm", "--passes", "step", "--peer-python", str(blocked), "--json", str(file))
    assert done.returncode == 0, done.stderr
    skipped = json.loads(file.read_text())["skipped"]
    assert set(skipped) == {"torch.nn", "torch loop", "torch loop compiled", "jax.lax.scan", "onnxruntime"}
    for name, why in skipped.items():
        assert why.startswith("no module named ") and f"skipped: {name}: {why}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cells", "../lstm"), "cpu.py: error: --cells: '../lstm' is not a cell's name"),
        (("--peers", "tensorflow"), "cpu.py: error: --peers: 'tensorflow' is none of torch, jax, onnx"),
        (("--passes", "backward"), "cpu.py: error: --passes: 'backward' is none of step, forward, forward + backward"),
        (("--sweep",), "cpu.py: error: --shape and --sweep exclude each other"),
        (("--from", "nosuch.json"), "cpu: [Errno 2] No such file or directory: 'nosuch.json'"),
        (("--shape", "1,2,3"), "cpu.py: error: argument --shape: '1,2,3' is not four sizes T,B,I,H"),
    ],
)
def test_one_sentence_and_status_2(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: Any = cpu_module.main([*QUICK, *arguments])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_a_cell_that_is_not_generated() -> None:
    done = cpu("--cells", "nosuch", "--peers", "none")
    assert (done.returncode, done.stderr) == (2, "cpu: no module named generated.nosuch_numpy\n")


def test_worker_answers_and_recovers(worker: Any, tmp_path: Path) -> None:
    assert "unexpected request 'time'" in worker(do="time", seconds=0, most=1)["error"]
    assert worker(**prepare(cell="nosuch"))["missing"]
    assert "error" in worker(**prepare(H=-1))
    prepared = worker(**prepare())
    assert prepared["note"] == "" and "numpy" in prepared["versions"]
    for name in ("step", "forward", "forward + backward"):
        timed = worker(**{"do": "time", "pass": name, "seconds": 0.01, "most": 3})
        assert 1 <= len(timed["seconds"]) <= 3 and min(timed["seconds"]) > 0 and timed["peak"] >= 0
        assert worker(**{"do": "outcome", "pass": name, "file": str(tmp_path / f"{name}.npz")}) == {}
    step, forward, both = (outcome.load(tmp_path / f"{name}.npz") for name in ("step", "forward", "forward + backward"))
    shapes = {name: value.shape for name, value in both.gradients.items()}
    assert shapes == {"W": (4, 5, 3), "U": (4, 5, 5), "b": (4, 5), "x": (4, 2, 3), "h0": (2, 5), "c0": (2, 5)}
    assert {name: value.shape for name, value in step.outputs.items()} == {"y": (4, 2, 5), "h final": (2, 5), "c final": (2, 5)}
    assert outcome.difference(step.outputs, both.outputs)["largest"] < 1e-6
    assert outcome.difference(forward.outputs, both.outputs)["largest"] == 0 and forward.gradients == {}


# --- peers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch.nn", "torch loop", "jax.lax.scan", "onnxruntime"])
@pytest.mark.parametrize("cell", CELLS)
def test_peers_are_our_cells(cell: str, name: str) -> None:
    """Every pass of every peer that is installed; compiled steps are those of the loop (``test_compiled_steps``)."""
    library = {"jax.lax.scan": "jax", "onnxruntime": "onnxruntime"}.get(name, "torch")
    pytest.importorskip(library, reason=f"{library} is not installed")
    case = Case(cell, 6, 3, 4, 7)
    passes = [one for one in worker_module.PASSES if worker_module.takes_part(name, cell, one)]
    if not passes:
        pytest.skip(f"{name} has no {cell}")
    ours, peer = worker_module.CONTENDERS["ours"](case), worker_module.CONTENDERS[name](case)
    for one in passes:
        found, wanted = (contender.outcome(one, contender.passes[one]()()) for contender in (peer, ours))
        assert (cpu_module.apart(found, wanted) < 1e-5) == (peer.note == "")
        assert set(found.gradients) == set(wanted.gradients) and set(found.outputs) == set(wanted.outputs)


def test_onnx_operators_take_the_gates_in_their_order() -> None:
    """With weights that say what they are: the coupled LSTM's input gate is the forget gate's complement."""
    data = {kind: np.arange(1.0, 4.0).reshape(3, *axes) for kind, axes in (("W", (1, 1)), ("U", (1, 1)), ("b", (1,)))}
    found = onnx_cells.weights("cifg", data)  # f, g, o are 1, 2, 3
    assert found["W"].ravel().tolist() == found["R"].ravel().tolist() == [-1, 3, 1, 2]
    assert found["B"].tolist() == [[-1, 3, 1, 2, 0, 0, 0, 0]]


# --- results -----------------------------------------------------------------------------------------------


def result(contender: str, times: list[float], **changes: Any) -> cpu_report.Result:
    case = Case("lstm", 200, 16, 32, 32)
    turns = {
        name: [{"seconds": [ms / 1e3], "peak": 2**20} for ms in some]
        for name, some in (("ours", [1.0, 2.0, 4.0]), (contender, times))
    }
    details = {name: {"note": ""} for name in turns}
    (*_, found) = cpu_report.results_of(case, "forward + backward", turns, {contender: 1e-6}, details)
    return found._replace(**changes)


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that slows down from round to round disturbs the times, not the ratios."""
    found = result("torch.nn", [3.0, 6.0, 12.0])
    assert found.ms == pytest.approx((6.0, 4.5, 9.0)) and found.ratio == pytest.approx((3.0, 3.0, 3.0))
    assert (found.calls, found.peak, found.error) == (3, 1.0, 1e-6) and found.ms.disturbed and not found.ratio.disturbed


def test_targets() -> None:
    least = {target.what: target for target in targets.TARGETS}
    three = [
        result("torch.nn", [ratio, 2 * ratio, 4 * ratio], shape=shape)
        for ratio, shape in zip((0.5, 1.0, 2.0), SHAPES, strict=False)
    ]
    mean = targets.judge(least["torch.nn.LSTM, the first three shapes, mean"], three)
    assert (mean.met, mean.found, mean.where) == ("yes", pytest.approx(1.0), "")
    fewer = targets.judge(mean.target, three[:1])
    assert (fewer.met, fewer.found) == ("1 of 3 measured", pytest.approx(0.5))
    assert targets.judge(mean.target, []).met == "not measured"
    assert targets.judge(mean.target, [one._replace(ratio=one.ratio._replace(median=0.5)) for one in three]).met == "no"
    large = [result("torch.nn", [1.0, 2.0, 4.0], shape=shape) for shape in SHAPES if shape[3] >= 512]
    each = targets.judge(least["torch.nn.LSTM, H ≥ 512, each"], large)
    assert (each.met, each.found, each.wanted) == ("yes", pytest.approx(1.0), 3)
    slow = result("torch.nn", [0.5, 1.0, 2.0], shape=SHAPES[3])
    assert targets.judge(each.target, [slow])[1:3] == (pytest.approx(0.5), "lstm 50, 20, 650, 650")
    assert targets.judge(each.target, [slow]).met == "no"  # whatever the others are
    step = least["torch.nn.LSTMCell, one step of B = 1, H = 128"]
    assert targets.judge(step, large).met == "not measured"
    one = result("torch.nn", [4.0, 8.0, 16.0], shape=(100, 1, 64, 128), direction="step")
    assert targets.judge(step, [one]).met == "yes"


def report_of(results: list[cpu_report.Result]) -> Any:
    machine = {"cpu": "a processor", "threads": 2, "blas": "a BLAS"}
    versions = {result.contender: "1" for result in results}
    return json.loads(text_of({"machine": machine, "settings": {"rounds": 3}, "versions": versions, "results": results}))


def test_markdown() -> None:
    found = [
        result(*who, shape=shape) for shape in SHAPES[:5] for who in (("ours", [1.0, 2.0, 4.0]), ("torch.nn", [2.0, 4.0, 8.0]))
    ]
    found.append(result("jax.lax.scan", [3.0, 6.0, 12.0], note="another formula"))
    text = markdown_tables.markdown(report_of(found), ["targets", "forward + backward", "step", "memory"])
    assert text.startswith(
        "a processor, 2 threads; ours 1, torch.nn 1, jax.lax.scan 1 (a BLAS). float32, medians of 3 rounds. "
    )
    assert "\\* jax.lax.scan for `lstm`: another formula.\n" in text and "microseconds" not in text
    assert "| torch.nn.LSTM, the first three shapes, mean | 0.6 | 2.00 | yes |" in text
    assert "| `lstm` | 200, 16, 32, 32 | 2.00 | 2.00 (2.00-2.00) | 3.00 (3.00-3.00)\\* |" in text
    assert "| `lstm` | geometric mean, first five |  | **2.00** |  |" in text
    assert "| `lstm` | 100, 1, 64, 128 | 1.00 | 1.00 |  |" in text


RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=[file.stem for file in RESULTS])
def test_committed_results_say_what_they_hold(file: Path) -> None:
    """The head that the benchmarks write; small, and of the form in which they would write it now."""
    text = file.read_text("utf-8")
    found = json.loads(text)
    assert list(found)[:5] == ["about", "date", "command", "machine", "settings"]
    scripts = {"bound": bound, "masks": masks, "memory": memory}
    assert found["about"] == scripts.get(file.stem, cpu_report).ABOUT and "benchmarks/" in str(found["command"])
    assert {"cpu", "cores", "threads", "numpy"} <= set(found["machine"])
    assert datetime.datetime.fromisoformat(found["date"]).tzinfo is not None
    assert len(text) < 2000 + 600 * len(found["results"]) and text_of(found) == text


def test_a_file_has_a_line_for_each_result() -> None:
    class Item(NamedTuple):
        name: str
        seconds: float = 0.0
        error: float | None = None

    made = heading("What it is.", {"cpu": "a processor"}, rounds=3) | {"results": [Item("a", 1 / 3), Item("b", 0.0, math.inf)]}
    lines = text_of(made | {"skipped": {}}).splitlines()
    assert lines[-6:] == [
        ' "results": [',
        '  {"name": "a", "seconds": 0.333333},',
        '  {"name": "b", "error": "inf"}',
        " ],",
        ' "skipped": {}',
        "}",
    ]
    assert lines[1] == ' "about": "What it is.",' and ' "settings": {' in lines and '  "rounds": 3' in lines


def test_the_command_of_a_file_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script, words = tmp_path / "benchmarks" / "cpu.py", ["--json", str(tmp_path / "a b.json"), f"--from={tmp_path}/c.json"]
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    assert command() == "OPENBLAS_CORETYPE=SkylakeX python benchmarks/cpu.py --json 'a b.json' --from=c.json"


def swept() -> list[cpu_report.Result]:
    shapes = [shape for shape in SWEPT_SHAPES if max(shape) <= 64]
    return [result(name, [1.0, 2.0, 3.0], shape=shape) for name in ("ours", "torch loop") for shape in shapes]


def test_points_along_an_axis() -> None:
    """A shape may lie on two axes; I is H."""
    assert {shape[2] == shape[3] for shape in SWEPT_SHAPES} == {True} and len(set(SWEPT_SHAPES)) == len(SWEPT_SHAPES)
    assert plot.points(swept(), "H") == {name: [(16, 2.0), (32, 2.0), (64, 2.0)] for name in ("ours", "torch loop")}
    assert [size for size, _ in plot.points(swept(), "B")["ours"]] == [1, 2, 4, 8, 16, 32, 64]
    assert [size for size, _ in plot.points(swept(), "T")["ours"]] == [25, 50]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plot_from_a_file(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    file = tmp_path / f"plot{suffix}"
    plot.draw(report_of(swept()), file)
    first = file.read_bytes()
    plot.draw(report_of(swept()), file)
    assert len(first) > 1000 and file.read_bytes() == first


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="measure with --sweep"):
        plot.draw(report_of([result("ours", [1.0, 2.0, 3.0])]), tmp_path / "plot.svg")


def test_cases() -> None:
    benchmark = cpu_module.Benchmark(options := cpu_module.parse([]), None)  # type: ignore[arg-type]
    cases = cpu_module.cases_of(options)
    assert len(cases) == len(set(cases)) == 8 * 7 and options.rounds >= 7
    assert {case.shape for case in cases if "step" in benchmark.passes(case)} == {(100, 1, 64, 128), (200, 16, 32, 32)}
    quick = cpu_module.parse(["--quick", "--cells", "lstm", "--rounds", "5"])
    assert [case.shape for case in cpu_module.cases_of(quick)] == list(SHAPES[:3]) and quick.rounds == 5
    assert "torch loop compiled" not in cpu_module.Benchmark(quick, None).contenders(cases[0])  # type: ignore[arg-type]
    sweep = cpu_module.parse(["--sweep"])
    assert {case.cell for case in cpu_module.cases_of(sweep)} == {"lstm", "gru"} and sweep.passes == ["forward + backward"]
    given = cpu_module.parse(["--shape", "1,2,3,4", "--passes", "forward + backward,step"])
    (case, *_) = cpu_module.cases_of(given)
    assert cpu_module.Benchmark(given, None).passes(case) == ["step", "forward + backward"]  # type: ignore[arg-type]


# --- the machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "kernels", "warned"), [
    ("avx2 avx512f", "Haswell kernels", True), ("avx2 avx512f", "SkylakeX kernels", False), ("avx2", "Haswell kernels", False),
    ("avx2 avx512f", "", False),
])  # fmt: skip
def test_kernels_without_the_processors_registers_are_told(
    monkeypatch: pytest.MonkeyPatch, flags: str, kernels: str, warned: bool
) -> None:
    monkeypatch.setattr(machine, "read_fields", lambda file: {"flags": flags})
    monkeypatch.setattr(machine, "kernels", lambda: kernels)
    assert bool(machine.held_back()) == warned == ("OPENBLAS_CORETYPE" in machine.held_back())


# --- what bounds a module ----------------------------------------------------------------------------------


def test_cost_of_masks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "masks.json"
    options = ["--cells", "lstm,mingru", "--shape", "4,3,2,5", "--rounds", "2", "--seconds", "0.005", "--no-peers"]
    assert masks.main([*options, "--json", str(file)]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| `")]
    assert [row.split("|")[1].strip() for row in rows] == ["`lstm`: 4, 3, 2, 5", "`mingru`: 4, 3, 2, 5"]
    report = json.loads(file.read_text())
    assert [result["way"] for result in report["results"]] == 2 * list(mask_worker.WAYS["ours"])
    assert report["results"][0]["ratio"]["median"] == 1


def test_a_packed_sequence_is_ours_with_lengths() -> None:
    pytest.importorskip("torch", reason="PyTorch, whose packed sequences are compared, is not installed")
    case = Case("lstm", 5, 3, 2, 4)
    y, final, grads = mask_worker.ours(case)["lengths"]()
    (packed, *last), gradients = mask_worker.torch_nn(case)["packed"]()
    np.testing.assert_allclose(packed.detach().numpy(), y, atol=1e-5)
    for found, value in zip(last, final, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), value, atol=1e-5)
    x = list(mask_worker.TorchPacked(case).leaves).index("x")
    np.testing.assert_allclose(gradients[x].numpy(), grads.x, atol=1e-5)


def test_bound(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bound, "SECONDS", 0.0)
    monkeypatch.setattr(bound, "SQUARE", 16)
    monkeypatch.setattr(traffic, "MOST", traffic.LEAST)
    assert bound.main(["cifg", "--shape", "6,2,3,5", "--seconds", "0", "--all"]) == 0
    text = capsys.readouterr().out
    assert "cifg, T=6 B=2 I=3 H=5\n" in text and "others" not in text
    assert "measured / sum" in text and "of two squares of 16: " in text
    assert "for h_prev," in text and "def " not in text
    assert bound.main(["gru_d"]) == 2
    assert capsys.readouterr().err == "bound: gru_d has several inputs or outputs: the benchmarks have no numbers for it\n"


def test_bounds_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bound, "SECONDS", 0.0)
    monkeypatch.setattr(traffic, "MOST", traffic.LEAST)
    file = tmp_path / "bound.json"
    shapes = ["--shape", "4,2,3,5", "--shape", "12,1,2,2"]
    assert bound.main(["lstm,indrnn", *shapes, "--seconds", "0", "--json", str(file)]) == 0
    assert "4, 2, 3, 5" in capsys.readouterr().out
    report = json.loads(file.read_text())
    assert [(r["cell"], r["shape"][0]) for r in report["results"]] == [(c, T) for c in ("lstm", "indrnn") for T in (4, 12)]
    for result in report["results"]:
        both = result["ms"]["both"]
        assert both["sum"] == pytest.approx(sum(both[part] for part in (*bound.KINDS, "moved")), rel=1e-5)
        assert both["sum"] > 0 and both["measured / sum"] == pytest.approx(both["measured"] / both["sum"], rel=1e-5)


def test_what_turns_share_is_refilled_between_pieces() -> None:
    """A recurrence begins anew every few turns, so that it does not end in denormal numbers."""
    text = "for (f, y) in steps:\n    multiply(f, state, state)\n    multiply(f, state, y)\n"
    (loop,) = ast.parse(text).body
    assert isinstance(loop, ast.For)
    f, state = np.full(3, 1e-4, np.float32), np.ones(3, np.float32)
    ys = np.zeros((20, 3), np.float32)
    scope = {"steps": [(f, y) for y in ys], "state": state, "multiply": np.multiply, "f": f, "y": ys[0]}
    same, each = loop.body
    assert ast.unparse(bound.written(same, loop)) == "(state,)" and ast.unparse(bound.written(each, loop)) == "()"
    assert bound.seconds_of(same, scope, {}, loop) >= 0 and state.tolist() == [1, 1, 1]
    assert bound.seconds_of(each, scope, {}, loop) >= 0 and not ys.any()


def test_every_statement_of_both_passes_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "SECONDS", 0.0)
    found, size = bound.costs(Case("lstm", 6, 2, 3, 5))
    assert {cost.direction for cost in found} == {"forward", "backward"} and {cost.kind for cost in found} == set(bound.KINDS)
    assert {cost.runs for cost in found if cost.text.startswith("dot(")} == {6} and all(cost.us >= 0 for cost in found)
    products = {
        cost.text.partition("(")[0]: cost.flops for cost in found if cost.kind == "product" and cost.direction == "forward"
    }
    assert products == {"np.matmul": 2 * 20 * 3 * 12, "dot": 2 * 20 * 5 * 2}
    assert sum(cost.touches.first for cost in found if cost.direction == "forward") <= size
    rows = bound.totals(bound.Round(found, size, {"forward": 1.0, "backward": 2.0}), walk_of({traffic.LEAST: 0.0}))
    assert rows["both"]["measured"] == 3.0 and set(rows) == {"forward", "backward", "both"}
    assert rows["both"]["sum"] == pytest.approx(sum(cost.ms for cost in found))


def walk_of(costs: dict[int, float]) -> traffic.Walk:
    walk = traffic.Walk()
    walk.sizes, walk.costs = list(costs), list(costs.values())
    return walk


def test_the_fastest_of_several_rounds_counts() -> None:
    """Of each statement and of each pass by itself, as they need not have been quick in the same round."""
    touches = traffic.Touches(0, 0)
    rounds = [
        bound.Round([bound.Cost("forward", text, "ufunc", 1, us, 0, touches) for text, us in times.items()], 1, whole)
        for times, whole in (
            ({"a": 1.0, "b": 4.0}, {"forward": 3.0, "backward": 5.0}),
            ({"a": 2.0, "b": 3.0}, {"forward": 4.0, "backward": 2.0}),
        )
    ]
    best = bound.fastest(rounds)
    assert [cost.us for cost in best.costs] == [1.0, 3.0] and best.whole == {"forward": 3.0, "backward": 2.0}


def test_first_touches_of_memory_are_counted() -> None:
    """A place counts for the statement that comes to it first, in each pass anew; a slice with gaps is its rows."""
    memory = np.zeros(8 * 4 * 1024 + 256, np.float32)
    start = -memory.ctypes.data % traffic.BLOCK // 4
    whole = memory[start : start + 8 * 4 * 1024].reshape(8, 4, 1024)  # rows of four blocks
    part = whole[:, 1]
    trace = traffic.Trace()
    for direction in ("forward", "backward"):
        trace.add(direction, "part", [part])
        trace.add(direction, "part", [part])
        trace.add(direction, "whole", [whole])
    objects = 2 * traffic.BLOCK  # at most, an array object and its shape
    for direction in ("forward", "backward"):
        part_touches, whole_touches = (trace.touches(direction, name) for name in ("part", "whole"))
        assert 0 < part_touches.own - part.nbytes <= objects and part_touches.first == part_touches.own
        assert 0 < whole_touches.own - whole.nbytes <= objects
        assert 0 <= whole_touches.first - (whole.nbytes - part.nbytes) <= objects
    assert 0 < trace.size() - whole.nbytes <= 2 * objects


def test_a_statement_pays_for_memory_what_it_does_not_pay_alone() -> None:
    walk = walk_of({2**20: 0.0, 2**22: 4e-11, 2**24: 2e-11, 2**26: 1e-10})
    assert walk.seconds(traffic.Touches(own=2**19, first=1000), 2**26) == pytest.approx(1e-7)
    assert walk.seconds(traffic.Touches(own=2**24, first=1000), 2**26) == pytest.approx(8e-8)
    assert walk.seconds(traffic.Touches(own=2**26, first=1000), 2**26) == 0
    assert walk.seconds(traffic.Touches(own=2**20, first=1000), 2**22) == pytest.approx(2e-8)  # not more than at 2**24


def test_walking_through_memory_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MOST", 2 * traffic.LEAST)
    walk = traffic.Walk()
    walk.measure(1)
    assert walk.sizes == [traffic.LEAST, 2 * traffic.LEAST] and all(0 <= cost < 1e-6 for cost in walk.costs)


def test_loops_in_functions_are_followed() -> None:
    """A function with a loop is taken apart where it is defined, not timed where it is called."""
    text = "def walk(xs):\n    for x in xs:\n        for y in x:\n            use(y)\n    return 1\n"
    text += "def other(x):\n    return x\ndef forward(xs):\n    walk(xs)\n    if xs:\n        other(xs)\n"
    probed = bound.Probed(tree := ast.parse(text))
    probed.visit(tree)
    heads = ["for x in xs:\n    pass", "for y in x:\n    pass"]
    assert [ast.unparse(statement) for statement in probed.statements] == [*heads, "use(y)", "1", "other(xs)"]


def test_statements_are_timed_on_the_values_that_they_meet() -> None:
    """However often a statement is run: afterwards its arrays are what they were."""
    scope = {"a": np.full(4, 0.5, np.float32), "at": SimpleNamespace(b=np.full(4, 1e-3, np.float32))}
    (statement,) = ast.parse("np.multiply(a, at.b, out=at.b)").body
    assert bound.seconds_of(statement, scope, {"np": np}) >= 0
    assert scope["at"].b.tolist() == np.full(4, 1e-3, np.float32).tolist()
    assert bound.kind_of(statement, scope | {"np": np}) == ("ufunc", 0)
    (reduced,) = ast.parse("total = np.add.reduce(a)").body
    assert bound.kind_of(reduced, scope | {"np": np})[0] == "ufunc"
