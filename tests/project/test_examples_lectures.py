"""The lectures, shortened: tasks are what their heads say, cells learn them, the figure is drawn."""

from __future__ import annotations

import ast
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def lecture(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def run(module: ModuleType, folder: Path, *arguments: str) -> tuple[Any, str]:
    """What the program found, and all that it printed."""
    file = io.StringIO()
    drawing = folder / "figure.svg"
    found = module.run(module.PARSER.parse_args([*arguments, "--figure", str(drawing)]), Console(file=file, width=80))
    assert drawing.read_text("utf-8").startswith("<?xml")
    assert "…" not in file.getvalue()  # the table is as wide as a terminal
    return found, file.getvalue()


def test_adding_problem(lecture: Any, tmp_path: Path) -> None:
    module = lecture("adding_problem")
    x, targets, _ = module.draw(np.random.default_rng(0), 500, 11)
    marked = x[:, :, 1] > 0
    assert (marked[:5].sum(axis=0) == 1).all() and (marked[5:].sum(axis=0) == 1).all()
    np.testing.assert_allclose((x[:, :, 0] * marked).sum(axis=0), targets[:, 0], rtol=1e-6, atol=1e-7)
    assert marked.any(axis=1).all() and targets.var() == pytest.approx(2 / 3, rel=0.2)
    runs, printed = run(
        module, tmp_path, "--cell", "lstm", "elman", "--length", "16", "--steps", "400", "--seeds", "1", "--rate", "0.03"
    )
    assert [run.cell for run in runs] == ["lstm", "elman"] and runs[0].curve[-1][1] < 0.1
    assert "0.6667" in printed and "361" in printed


def test_temporal_order(lecture: Any, tmp_path: Path) -> None:
    module = lecture("temporal_order")
    x, targets, _ = module.draw(np.random.default_rng(0), 200, 50)
    for symbols, target in zip(x.argmax(axis=2).T, targets, strict=True):
        text = "".join(module.SYMBOLS[symbol] for symbol in symbols)
        assert re.fullmatch("B[abcd]*[XY][abcd]*[XY][abcd]*E", text)
        assert re.sub("[^XY]", "", text) == ["XX", "XY", "YX", "YY"][target]
    runs, printed = run(module, tmp_path, "--cell", "gru", "--length", "20", "--hidden", "8", "--steps", "1000", "--seeds", "1")
    assert runs[0].solved and runs[0].curve[-1][0] < 1000
    assert "1 of 1" in printed


def test_embedded_reber(lecture: Any, tmp_path: Path) -> None:
    module = lecture("embedded_reber")
    rng = np.random.default_rng(0)
    late = "(XT*VP)*(S|XT*VV)"  # from the fourth node on
    strings = [module.embedded(rng)[0] for _ in range(300)]
    assert all(re.fullmatch(f"B([TP])B(TS*X{late}|PT*V(V|P{late}))E\\1E", string) for string in strings)
    assert len(set(strings)) > 50
    x, targets, lengths = module.draw(rng, 50)
    inside = np.arange(len(x))[:, None] < lengths
    assert np.array_equal(inside, targets.following >= 0) and np.array_equal(inside, x.any(axis=2))
    assert np.take_along_axis(targets.allowed, np.maximum(targets.following, 0)[..., None], axis=2)[inside].all()
    assert set(targets.allowed.sum(axis=2)[inside]) == {1, 2}
    perfect = targets.allowed.astype(np.float32)
    assert module.share_wrong(perfect, targets) == 0
    perfect[1, 7] = 0
    assert module.share_wrong(perfect, targets) == 1 / 50
    runs, _ = run(module, tmp_path, "--cell", "lstm", "--steps", "300", "--seeds", "1", "--rate", "0.03")
    assert runs[0].curve[0][1] > 0.9 and runs[0].curve[-1][1] < 0.7


def test_window_or_memory(lecture: Any, tmp_path: Path) -> None:
    module = lecture("window_or_memory")
    x, targets, _ = module.draw(np.random.default_rng(0), 400, 4)
    cues = x[:, :, :2]
    assert np.array_equal(cues.sum(axis=0).argmax(axis=1), targets) and (cues.sum(axis=(0, 2)) == 1).all()
    assert set(cues.sum(axis=2).argmax(axis=0)) == {0, 1, 2, 3}  # the cue is never the last symbol
    assert [module.least_error(window, 4) for window in (1, 3, 5, 6)] == [0.5, 0.25, 0, 0]
    small = ["--memory", "4", "--window", "1", "3", "5", "--cell", "elman", "--seeds", "1", "--steps", "400", "--rate", "0.03"]
    rows, printed = run(module, tmp_path, *small)
    assert [row.window for row in rows] == [1, 3, 5, None]
    for row in rows:
        assert row.error == pytest.approx(row.least, abs=0.06)
    inside = 8 * (4 * np.array([1, 3, 5]) + 1)
    assert np.array_equal([row.parameters for row in rows[:3]], inside + 8 * 2 + 2)
    assert printed.count("feed-forward") == 3


def test_teacher_forcing(lecture: Any, tmp_path: Path) -> None:
    module = lecture("teacher_forcing")
    rng = np.random.default_rng(0)
    params = module.CELL.init_params(rng, I=1, H=4, dtype=np.float32)
    points = module.waves(rng, 3, 31)
    free, _ = module.predict(params, points, 0.0, rng)
    assert np.array_equal(free[:20], module.predict(params, points, 1.0, rng)[0][:20])  # the first are given to all
    fed = np.concatenate([points[:20], free[19:]])  # its own predictions, read as true ones
    np.testing.assert_allclose(module.predict(params, fed, 1.0, rng)[0], free, rtol=1e-5, atol=1e-6)
    assert [module.SCHEDULES["scheduled sampling"](spent) for spent in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0], abs=0.01)
    found, printed = run(module, tmp_path, "--seeds", "1", "--steps", "150", "--hidden", "12", "--test", "50", "--ahead", "20")
    teacher, *others = found
    assert teacher.one_step < min(other.one_step for other in others) < 0.2
    assert len(teacher.ahead) == 20 and "scheduled sampling" in printed


SOURCE = """if x:  # a comment
    return_ = f"{x!r} and" + 'if' + 0x1F
"""


def test_kinds_of_tokens(lecture: Any) -> None:
    module = lecture("tagger")
    letters = "".join(" knNsco"[kind] for kind in module.kinds_of(SOURCE))  # N: a number
    first, second = SOURCE.splitlines()
    assert letters[: len(first)] == "kk no  ccccccccccc"
    assert letters[len(first) + 1 : -1] == "    nnnnnnn o ssssssssssss o ssss o NNNN"
    assert len(second) == len(letters) - len(first) - 2
    text = 'a = """one\ntwo"""\n\nb = 2\n'
    assert "".join(str(kind) for kind in module.kinds_of(text)) == "2060444444444444400206030"


def test_tagger(lecture: Any, tmp_path: Path) -> None:
    module = lecture("tagger")
    train, held_out = module.load(16, 3)
    assert len(held_out) > 10 and len(train) > 4 * len(held_out)
    _, kinds, lengths = module.batch(held_out[:9])
    assert np.array_equal(kinds >= 0, np.arange(len(kinds))[:, None] < lengths)
    assert all(np.array_equal(kinds[:n, b], held_out[b].kinds) for b, n in enumerate(lengths))
    results, printed = run(
        module, tmp_path, "--files", "8", "--lines", "1", "--steps", "90", "--hidden", "12", "--test", "100", "--rate", "0.02"
    )
    baseline, forwards, both = results
    assert baseline.accuracy < 0.55 < both.accuracy and forwards.accuracy > 0.45
    assert forwards.parameters == pytest.approx(both.parameters, rel=0.03)
    assert "keyword" in printed


def test_reading_both_ways_sees_what_comes(lecture: Any) -> None:
    """What follows changes what is said of a character; reading forwards it does not."""
    module, common = lecture("tagger"), lecture("lecture")
    cell = common.load_cell("gru")
    x, _, lengths = module.batch([module.Sample(*np.ones((2, n), int)) for n in (9, 6)])
    changed = x.copy()
    changed[5] = np.roll(x[5], 1, axis=1)
    for make, sees in ((module.forwards, False), (module.both_ways, True)):
        net = common.Net(make(cell, 4), np.random.default_rng(0), 7)
        before, after = (net.forward(text, lengths)[0] for text in (x, changed))
        assert np.array_equal(before[4], after[4]) is not sees
        changed_behind = x.copy()
        changed_behind[6:, 1] = 7  # behind the second sample's end
        assert np.array_equal(net.forward(changed_behind, lengths)[0], before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adding_problem", "temporal_order", "embedded_reber"])
def test_published_outcomes(lecture: Any, tmp_path: Path, name: str) -> None:
    """As the programs stand: the LSTM solves the task with every seed."""
    runs, _ = run(lecture(name), tmp_path, "--cell", "lstm", "--seeds", "3")
    assert all(run.solved for run in runs)


def test_softmax_cross_entropy(lecture: Any) -> None:
    """Its gradient, where it asks and where it does not."""
    module, rng = lecture("lecture"), np.random.default_rng(0)
    z, targets = rng.standard_normal((3, 2, 4)), rng.integers(-1, 4, size=(3, 2))
    _, dz = module.softmax_cross_entropy(z, targets)
    assert (dz[targets < 0] == 0).all()
    for place in np.ndindex(z.shape):
        moved = np.zeros_like(z)
        moved[place] = 1e-6
        slope = (
            module.softmax_cross_entropy(z + moved, targets)[0] - module.softmax_cross_entropy(z - moved, targets)[0]
        ) / 2e-6
        assert dz[place] == pytest.approx(slope, abs=1e-8)


def test_one_sentence_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "adding_problem.py"), "--cell", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("adding_problem: there is no module generated.nosuch_numpy") and done.stderr.count("\n") == 1


def keeps_to_one_thread(file: Path) -> bool:
    """Whether the first module that it imports, and Python does not bring, is ``lecture``, or imports that first."""
    imports = [node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    first = next(name for name in names if name not in sys.stdlib_module_names and name != "collections.abc")
    inner = file.with_name(f"{first}.py")
    return first == "lecture" or (inner.exists() and keeps_to_one_thread(inner))


def test_blas_is_kept_to_one_thread() -> None:
    """That works before NumPy is loaded and not after."""
    programs = [file for file in EXAMPLES.glob("*.py") if "__main__" in file.read_text("utf-8")]
    assert len(programs) == 7
    for file in programs:
        assert keeps_to_one_thread(file), f"{file.name} loads NumPy before lecture.py has set the number of threads"
