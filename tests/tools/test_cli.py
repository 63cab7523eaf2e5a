"""The commands as a user meets them: what they print, where, and with which exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cellspec import cli
from cellspec.backends.registry import BUILT_IN, STANDING
from cellspec.cli import main
from cellspec.language.read.loader import shipped_names
from cellspec.verification import check

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
name: {name}
inputs: {{x: I}}
states: {{h: H}}
params: {{W: [H, I], U: [H, H], b: H}}
activations: {{phi: tanh}}
hyper: {{k: 0.5}}
equations: |
  h[t] = phi(W @ x[t] + U @ h[t-1] + k*b)
expect: {{params: "H*(I + H + 1)", stages: 1}}
"""
BAD = GOOD.replace("U @ h[t-1]", "Uu @ h").replace("phi(", "ph(")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ``mine.yaml``, which is right, and ``wrong.yaml``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(GOOD.format(name="mine"))
    (tmp_path / "wrong.yaml").write_text(BAD.format(name="wrong"))
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m cellspec`` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, "-m", "cellspec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **options)


def fails(status: int, message: str, *arguments: str) -> None:
    """The command ends with this status, one sentence on stderr, and nothing on stdout."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"cellspec: {message}\n")


# --- check -------------------------------------------------------------------------------------------


def test_check(folder: Path) -> None:
    result = run("check", "mine.yaml", "lstm")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines()[0] == "mine.yaml: ok" and result.stdout.splitlines()[1].endswith("lstm.yaml: ok")


def test_check_reports_every_error_of_every_file(folder: Path) -> None:
    (folder / "other.yaml").write_text(GOOD.format(name="another"))
    result = run("check", "wrong.yaml", "mine.yaml", "other.yaml")
    assert result.exit_code == 1 and result.stdout == "mine.yaml: ok\n"
    assert result.stderr == (
        "wrong.yaml:8:10: error: unknown function 'ph'; did you mean 'phi'?\n"
        "      h[t] = ph(W @ x[t] + Uu @ h + k*b)\n"
        "             ^\n"
        "wrong.yaml:8:24: error: unknown name 'Uu'; did you mean 'U'?\n"
        "      h[t] = ph(W @ x[t] + Uu @ h + k*b)\n"
        "                           ^\n"
        "wrong.yaml:8:29: error: 'h' is a state: write h[t-1] for its value before the step or h[t] after it\n"
        "      h[t] = ph(W @ x[t] + Uu @ h + k*b)\n"
        "                                ^\n"
        "other.yaml:1:7: error: the name 'another' must equal the file's stem, 'other'\n"
        "    name: another\n"
        "          ^\n"
        "4 errors\n"
    )


def test_check_includes_expectations(folder: Path) -> None:
    (folder / "mine.yaml").write_text(GOOD.format(name="mine").replace("stages: 1", "stages: 2"))
    result = run("check", "mine.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("mine.yaml:9:43: error: expected 2 stages, but the cell has 1\n")


def test_check_json(folder: Path) -> None:
    result = run("check", "wrong.yaml", "mine.yaml", "--json")
    assert result.exit_code == 1 and result.stderr == ""
    found = json.loads(result.stdout)
    assert [(entry["file"], entry["line"], entry["column"]) for entry in found] == [
        ("wrong.yaml", 8, 10),
        ("wrong.yaml", 8, 24),
        ("wrong.yaml", 8, 29),
    ]
    assert found[1]["message"] == "unknown name 'Uu'; did you mean 'U'?"
    result = run("check", "mine.yaml", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_shipped_cells_check() -> None:
    """A few of them, as a user checks them; test_expect checks them all."""
    names = shipped_names()[::12]
    result = run("check", *names)
    assert (result.exit_code, result.stderr, result.stdout.count(": ok\n")) == (0, "", len(names))


# --- generate ----------------------------------------------------------------------------------------------


def test_generate_and_import(folder: Path) -> None:
    result = run("generate", "mine.yaml", "lstm")
    assert result.exit_code == 0 and result.stderr == ""
    names = ["__init__.py", "lstm_numpy.py", "mine_numpy.py"]
    assert result.stdout == "".join(f"wrote {Path('generated', name)}\n" for name in names)
    code = "from generated import lstm_numpy, mine_numpy; print(lstm_numpy.CELL, mine_numpy.CELL)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=folder)
    assert (done.stdout, done.stderr) == ("lstm mine\n", "")
    assert run("generate", "mine.yaml", "lstm").stdout == "2 modules in generated already up to date\n"


def test_generate_all_and_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a SPEC, all that is shipped; here as if that were three cells."""
    names = ("elman", "gru", "lstm")
    monkeypatch.setattr("cellspec.language.read.paths.shipped_names", lambda: names)
    assert run("generate", "--out", "all").exit_code == 0
    result = run("generate", "--out", "all", "--check")
    assert (result.exit_code, result.stdout) == (0, f"{len(STANDING) * len(names)} modules in all up to date\n")
    assert sorted(path.name for path in (folder / "all").iterdir()) == sorted(
        ["__init__.py", *(f"{name}_{backend}.py" for name in names for backend in STANDING)]
    )


def test_check_of_generated(folder: Path) -> None:
    """Stale, missing and orphaned files are named, and nothing is written."""
    run("generate", "mine.yaml", "lstm")
    folder = folder / "generated"
    (folder / "lstm_numpy.py").write_text((folder / "lstm_numpy.py").read_text() + "\n")
    (folder / "gone_numpy.py").write_text((folder / "mine_numpy.py").read_text())
    (folder / "helpers.py").write_text("# the user's own\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = run("generate", "mine.yaml", "lstm", "gru", "--check")
    assert result.exit_code == 1 and result.stdout == ""
    where = [line.replace("generated" + os.sep, "") for line in result.stderr.splitlines()]
    assert where[:3] == ["stale: lstm_numpy.py", "missing: gru_numpy.py", "orphaned: gone_numpy.py"] and len(where) == 4
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    # What lies beside a named spec, or is shipped, is no orphan though it is not named.
    (folder / "gone_numpy.py").unlink()
    assert run("generate", "mine.yaml", "--check").exit_code == 0


def test_nothing_is_written_if_a_spec_is_wrong(folder: Path) -> None:
    result = run("generate", "mine.yaml", "wrong.yaml")
    assert (result.exit_code, result.stdout) == (1, "") and "wrong.yaml:8:10: error:" in result.stderr
    assert not (folder / "generated").exists()


def test_set(folder: Path) -> None:
    run("generate", "mine.yaml", "--out", "one")
    run("generate", "mine.yaml", "--out", "two", "--set", "phi=relu", "--set", "k=0.25")
    one, two = ((folder / name / "mine_numpy.py").read_text() for name in ("one", "two"))
    assert one != two and "np.maximum" in two and "--set k=0.25 --set phi=relu" in two


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("unknown backend 'nunpy'; did you mean 'numpy'?", "generate lstm --backend nunpy"),
        ("unknown backend 'nunpy'; did you mean 'numpy'?", "show lstm --backend nunpy"),
        (f"unknown backend 'all'; there is {', '.join(BUILT_IN)}", "show lstm --backend all"),
        (f"unknown backend 'x'; there is {', '.join(BUILT_IN)}, all", "generate lstm --backend x"),
        (
            "--residuals memory is for the NumPy, PyTorch and JAX backends alone: --backend numpy, torch or jax",
            "show lstm --backend cupy --residuals memory",
        ),
        ("unknown cell 'lstmm'; did you mean 'lstm'?", "generate lstmm"),
        ("unknown cell 'lstmm'; did you mean 'lstm'?", "check lstmm"),
        ("unknown cell 'mine'; did you mean 'mine.yaml'?", "check mine"),
        ("there is no file 'no/such.yaml'", "show no/such.yaml"),
        (f"'.' is a folder; a spec is a file, such as {str(Path('name.yaml'))!r}", "verify ."),
        ("--set needs a SPEC, as cells differ in what can be set", "generate --set phi=relu"),
        ("--set takes name=value, such as sigma=hard_sigmoid, not 'phi'", "generate mine.yaml --set phi"),
        ("--set phi is given twice", "generate mine.yaml --set phi=relu --set phi=tanh"),
        ("'mine' has no hyperparameter or activation 'phj'; did you mean 'phi'?", "generate mine.yaml --set phj=relu"),
        ("'rely' is no pointwise function of one argument; did you mean 'relu'?", "show mine.yaml --set phi=rely"),
        ("'k' is a hyperparameter and needs a number, not 'half'", "verify mine.yaml --set k=half"),
        ("cannot read 'mine.yaml/__init__.py': not a directory", "generate lstm --out mine.yaml"),
        ("--latex shows the equations; it cannot be combined with --stage ir", "show lstm --latex --stage ir"),
        ("--passes shows all programs; it cannot be combined with --stage code", "show lstm --passes --stage code"),
        ("--latex and --passes exclude each other", "show lstm --latex --passes"),
        ("'mine.yaml' exists already; nothing was written", "new mine"),
        ("there is a shipped cell called 'lstm'; take another name", "new lstm"),
        ("'my-cell' cannot name a cell; a name is made of letters, digits and '_'", "new my-cell"),
        ("unknown cell 'lstmm'; did you mean 'lstm'?", "new other --extends lstmm"),
        ("--extends names a cell in this folder or a shipped one, which '../lstm' does not", "new other --extends ../lstm"),
    ],
)
def test_usage(folder: Path, message: str, arguments: str) -> None:
    before = sorted(folder.iterdir())
    fails(2, message, *arguments.split())
    assert sorted(folder.iterdir()) == before


def test_two_specs_of_one_name(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.yaml").write_text(GOOD.format(name="mine"))
    other = str(Path("sub", "mine.yaml"))
    fails(2, f"'mine.yaml' and {other!r} both describe a cell named 'mine'", "generate", "mine.yaml", other)
    assert run("generate", "mine.yaml", str(folder / "mine.yaml")).exit_code == 0  # one file, named twice


def test_an_output_folder_that_cannot_be_is_told_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellspec.tools.jobs.made", None)
    result = run("generate", "lstm", "--out", "n" * 300)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("cellspec: cannot reach '") and result.stderr.endswith("…': file name too long\n")
    assert result.stderr.count("\n") == 1


def test_two_specs_whose_names_differ_by_case_alone(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "Mine.yaml").write_text(GOOD.format(name="Mine"))
    other = str(Path("sub", "Mine.yaml"))
    told = f"'mine.yaml' and {other!r} both describe a cell named 'Mine', or 'mine' in other letters"
    fails(2, told, "generate", "mine.yaml", other)
    assert not (folder / "generated").exists()


@pytest.mark.skipif(os.name != "posix", reason="other limits")
def test_what_the_system_refuses_is_a_sentence(folder: Path) -> None:
    result = run("new", "fresh", "--extends", "n" * 300)
    assert result.exit_code == 1 and result.stderr.startswith("cellspec: file name too long: 'nnn")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_without_permission(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    fails(2, "cannot write to 'locked': permission denied", "generate", "lstm", "--out", "locked")


# --- show, verify, new -------------------------------------------------------------------------------------


def test_show_equations(folder: Path) -> None:
    text = run("show", "gru").stdout
    assert "  nₜ = tanh(Wn xₜ + Un (rₜ ⊙ hₜ₋₁) + bn)\n" in text
    for line in ("  Ur  [H, H]  orthogonal", "state     h      [H]      starts at 0", "stages      2", "recurrence  dense"):
        assert line in text.splitlines()
    assert "1406.1078" in text


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("ir", ["Un@n.part: [H] = Un @ n.part", "carry     h[t-1] <- h[t]"]),
        ("adjoint", ["stashed by the forward step\n  ", "total     d:Wr = sum of "]),
        ("schedule", ["FORWARD\n\nonce a sequence\n", "\nbefore the loop, for all steps together\n"]),
        ("schedule", ["level 2: after 2 products in a row", "policy of the NumPy backend\n  operands of a sum's products"]),
        ("schedule", ["on a GPU\n  class step: ", "  exchanges per step: 2\n    1 carries h[t-1]: [H], for Ur@h[t-1]"]),
        ("code", ['CELL = "gru"', "def backward("]),
    ],
)
def test_show_stages(stage: str, parts: list[str]) -> None:
    result = run("show", "gru", "--stage", stage)
    assert result.exit_code == 0
    for part in parts:
        assert part in result.stdout


def test_show_of_another_backend() -> None:
    text = run("show", "gru", "--stage", "code", "--backend", "cupy").stdout
    assert text == (ROOT / "generated" / "gru_cupy.py").read_text("utf-8")
    text = run("show", "gru", "--stage", "schedule", "--backend", "cupy").stdout
    assert text.startswith("policy of the CuPy backend\n  operands of a sum's products, head by head        stacked\n")
    assert "on a GPU\n  class step: " in text and "on a CPU" not in text
    assert "memory in bytes" not in run("show", "gru", "--backend", "cupy").stdout


@pytest.mark.parametrize("stage", cli.STAGES)
def test_show_every_stage_of_derived_parameters(stage: str) -> None:
    result = run("show", str(ROOT / "tests" / "valid" / "antisymmetric.yaml"), "--stage", stage)
    assert result.exit_code == 0 and result.stdout.endswith("\n")
    if stage not in ("equations", "code"):
        assert "derived parameters, once a sequence" in result.stdout


def test_show_latex() -> None:
    assert r"h_t &= o_t \odot \tanh(c_t)" in run("show", "lstm", "--latex").stdout


def test_verify(folder: Path) -> None:
    result = run("verify", "mine.yaml", "--set", "phi=softsign")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "mine: every quantity within its tolerance"
    quantities = {line.split("  ")[0] for line in lines[2:]}
    assert {"y h", "final h", "trace h", "step h", "d W", "d U", "d b", "d x", "d h[0]"} <= quantities


def test_verify_json(folder: Path) -> None:
    (report,) = json.loads(run("verify", "mine.yaml", "--json").stdout)
    assert (report["cell"], report["ok"], report["faults"]) == ("mine", True, [])
    assert all(row["ok"] and row["error"] <= row["tolerance"] for row in report["worst"])
    assert {row["dtype"] for row in report["worst"]} == {"float64", "float32"}


def test_verify_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong module exits 1 and names what is wrong."""
    rows = (
        check.Row("d W", "T=1", "float64", 0.5, 1e-11),
        check.Row("d U", "T=1", "float64", float("nan"), 1e-11),
        check.Row("y h", "T=1", "float64", 0.0, 1e-11),
    )
    report = check.Report("mine", 0, rows, ("trace gives no 'f'",))
    monkeypatch.setattr("cellspec.verification.check.verify", lambda *_, **__: report)
    result = run("verify", "mine.yaml")
    assert result.exit_code == 1 and result.stdout.startswith("mine: FAILED\n")
    assert "5.0e-01 of 1.0e-11 FAILED at T=1" in result.stdout
    assert "trace gives no 'f'\nd W (T=1, float64): error 5.0e-01 > 1.0e-11\n" in result.stderr
    result = run("verify", "mine.yaml", "--json")
    (found,) = json.loads(result.stdout)
    assert result.exit_code == 1 and not found["ok"]
    assert [row["error"] for row in found["worst"]] == [0.5, None, 0.0]


@pytest.mark.parametrize("arguments", [(), ("--extends", "lstm"), ("--extends", "mine")])
def test_new(folder: Path, arguments: tuple[str, ...]) -> None:
    """A starter passes `check`, generates, and verifies, as it is."""
    result = run("new", "fresh", *arguments)
    assert result.stdout == "wrote fresh.yaml; next: cellspec check fresh.yaml, then cellspec generate fresh.yaml\n"
    assert run("check", "fresh.yaml").exit_code == 0
    assert run("generate", "fresh.yaml").exit_code == 0
    assert run("verify", "fresh.yaml").exit_code == 0


def test_new_variant_shows_the_parents_equations(folder: Path) -> None:
    run("new", "fresh", "--extends", "gru")
    assert "#   n = phi(Wn @ x[t] + Un @ (r*h[t-1]) + bn)\n" in (folder / "fresh.yaml").read_text()


def test_new_extends_a_wrong_spec(folder: Path) -> None:
    result = run("new", "fresh", "--extends", "wrong")
    assert result.exit_code == 1 and result.stderr.startswith("wrong.yaml:8:10: error:")
    assert not (folder / "fresh.yaml").exists()


# --- the program -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_is_quick(arguments: list[str]) -> None:
    """Neither SymPy nor NumPy is loaded to say what there is."""
    code = f"import sys; from cellspec.cli import main; main({arguments!r}, standalone_mode=False)\n"
    code += "print(sorted({'sympy', 'numpy', 'yaml', 'jinja2', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_plain_when_piped(folder: Path) -> None:
    for line in (
        "list",
        "generate lstm gru --out new",
        "show lstm --stage code",
        "show mine.yaml --passes",
        "verify mine.yaml",
    ):
        done = program(*line.split(), cwd=folder)
        assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr and "\r" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of another kind")
def test_broken_pipe(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cellspec", "show", "lstm", "--stage", "code"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
    assert "Traceback" not in done.stderr


def test_narrow_encoding(folder: Path) -> None:
    """Where the terminal cannot show a character, another stands in its place."""
    done = program("show", "mine.yaml", cwd=folder, env={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0 and "h? = tanh(W x?" in done.stdout
    assert program("list", cwd=folder, env={"PYTHONIOENCODING": "ascii"}).returncode == 0


def test_module_is_the_program() -> None:
    done = program("--version")
    assert done.stdout.startswith("cellspec, version ") and done.returncode == 0
    assert program().returncode == 2


def test_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there are rules and bold heads, but with NO_COLOR no colours."""

    def printed(command: Callable[[], object]) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FORCE_COLOR", "1")
            patch.setenv("TERM", "xterm-256color")
            return str(command())

    for shown in (("--stage", "code"), ("--passes",)):
        assert "\x1b[" in printed(lambda shown=shown: run("show", "lstm", *shown).stdout)  # type: ignore[misc]
    assert "─" in printed(lambda: run("list").stdout)
    monkeypatch.setenv("NO_COLOR", "1")
    for shown in (("--stage", "code"), ("--passes",)):
        assert "\x1b[" not in printed(lambda shown=shown: run("show", "lstm", *shown).stdout)  # type: ignore[misc]
