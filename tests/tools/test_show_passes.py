"""``cellspec show SPEC --passes``: what each pass has changed, as differences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import ROOT, cell_from, cell_of

from cellspec.backends import registry
from cellspec.cli import main
from cellspec.ir.text import program_text
from cellspec.pipeline import compile_cell, passes
from cellspec.tools.passes import BEGINS_AS, changes

BACKENDS = tuple(registry.BUILT_IN)

GRU = ROOT / "specs" / "gru.yaml"

TEXT = """\
name: tiny
inputs: {x: H}
states: {h: H}
params: {U: [H, H], b: H}
equations: |
  h[t] = tanh(U @ h[t-1] + x[t] + b)
"""

HOIST = """\
hoist: forward
@@ -3,5 +3,6 @@
 carried   h[t-1]: [H]
   U@h[t-1]: [H] = U @ h[t-1]
-  h.pre: [H] = U@h[t-1] + b + x[t]
+  `h.pre+`: [H] = b + x[t]
+  h.pre: [H] = U@h[t-1] + `h.pre+`
   h[t]: [H] = tanh(h.pre)
 carry     h[t-1] <- h[t]"""


def show(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["show", *arguments, "--passes"])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_hunks_stand_under_the_pass_and_the_program() -> None:
    told = list(map(str, changes(cell_from(TEXT), "speed", "numpy")))
    assert told[0].startswith("lower: equations\n@@ -0,0 +1,8 @@\n+constant  U: [H, H], b: [H]\n")
    assert HOIST in told
    assert not any(text.startswith(("stack operands:", "live:")) for text in told)  # they have changed nothing


@pytest.mark.parametrize("backend", BACKENDS)
def test_differences_lead_from_nothing_to_the_schedules(backend: str) -> None:
    """Whoever applies them one after the other has every program as the last pass has left it."""
    cell = cell_of(GRU)
    target = registry.backend(backend)
    names = [one.name for one in passes(target)]
    found: dict[str, list[str]] = {}
    at = 0
    for change in changes(cell, "speed", backend):
        at = names.index(change.by, at)  # in the order of the passes
        before = found.get(change.program) or found.get(BEGINS_AS.get(change.program, ""), [])
        found[change.program] = patched(before, change.lines)
    final = compile_cell(cell, "speed", target).programs
    written = {name: program_text(program) for name, program in final.items() if program.ops}
    assert found == {name: [re.sub(" +=", " =", line, count=1) for line in text.split("\n")] for name, text in written.items()}


def patched(lines: list[str], difference: tuple[str, ...]) -> list[str]:
    """``lines`` with a unified diff applied, all of whose context must be there."""
    result: list[str] = []
    at = 0
    for line in difference:
        if head := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+.*@@", line):
            start = int(head[1]) - (head[2] != "0")
            result += lines[at:start]
            at = start
        elif line[0] == "+":
            result.append(line[1:])
        else:
            assert lines[at] == line[1:]
            at += 1
            result += [line[1:]] * (line[0] == " ")
    return result + lines[at:]


def test_of_a_file_a_policy_and_a_backend(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT)
    path = str(tmp_path / "tiny.yaml")
    usual = show(path)
    assert HOIST in usual and usual == show(path, "--backend", "numpy")
    assert "\nmasks: backward\n@@ " in show(path, "--backend", "cupy") and "masks: " not in usual
    frugal = show("gru", "--residuals", "memory")
    assert "+  r.pre: [H] = " in frugal.split("choose residuals: backward\n")[1].split("\n\n")[0]
    assert frugal != show("gru")
