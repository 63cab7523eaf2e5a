"""The list of shipped cells: families, JSON, Markdown; and what ``show`` says of a cell's memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import sympy
from support import ROOT, SHIPPED, cell_of, draw, module_of
from test_jobs import run

from cellspec import load
from cellspec.language.read.loader import shipped_names
from cellspec.pipeline import compile_cell
from cellspec.tools import memory
from cellspec.tools.headings import families
from cellspec.tools.listing import surnames


def shipped(name: str) -> Path:
    return ROOT / "specs" / f"{name}.yaml"


# --- families ----------------------------------------------------------------------------------------------


def family_of() -> dict[str, str]:
    found = families(cell_of(path) for path in SHIPPED)
    return {cell.name: family for family, members in found.items() for cell in members}


def test_every_cell_has_one_family() -> None:
    assert sorted(family_of()) == list(shipped_names())


def test_a_family_is_a_line_of_descent_or_a_kind_of_recurrence() -> None:
    found = family_of()
    assert {found[name] for name in ("lstm", "peephole", "fgr", "nfg")} == {"lstm"}, "also those that extend an heir"
    assert {found[name] for name in ("gru", "gru_before", "gru_cudnn")} == {"gru"}
    assert found["brc"] == "elementwise" and found["nbrc"] == "dense, one state", "two are no family"
    assert found["mingru"] == found["qrnn_fo"] == "linear"
    assert found["horn" if "horn" in found else "clockwork"] == "dense, one state", "lags and the step's index are no states"
    assert found["lem"] == "dense, several states"


def test_families_are_told_apart_wherever_the_spec_lies(tmp_path: Path) -> None:
    for name, parent in (("a", "lstm"), ("b", "a"), ("c", "b")):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nextends: {parent}\n")
    cells = [load(tmp_path / f"{name}.yaml") for name in "abc"]
    assert list(families(cells)) == ["lstm"]
    assert list(families(cells[:2])) == ["dense, several states"]


def test_the_root_comes_first() -> None:
    members = families(cell_of(path) for path in SHIPPED)["lstm"]
    rest = [cell.name for cell in members[1:]]
    assert members[0].name == "lstm" and rest == sorted(rest)


# --- list --------------------------------------------------------------------------------------------------


def test_list() -> None:
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["cell", "title", "parameters", "stages", "recurrence"]
    assert sorted(line.split()[0] for line in lines if line.startswith("  ")) == list(shipped_names())
    heads = [line.strip() for line in lines[1:] if not line.startswith("  ")]
    assert heads[:2] == ["lstm", "gru"] and heads[-4:] == ["dense, one state", "dense, several states", "elementwise", "linear"]
    (row,) = (line for line in lines if line.startswith("  lstm "))
    assert "4*H*(H + I + 1)" in row and row.split()[-2:] == ["1", "dense"]


def test_list_json() -> None:
    found = json.loads(run("list", "--json").stdout)
    assert sorted(cell["name"] for cell in found) == list(shipped_names())
    assert {"family": "gru", "title": "Gated recurrent unit"} | {"name": "gru"} | GRU in found


GRU: dict[str, Any] = {"parameters": "3*H*(H + I + 1)", "stages": 2, "recurrence": "dense"}


def test_list_takes_one_form() -> None:
    result = run("list", "--json", "--markdown")
    assert (result.exit_code, result.stderr) == (2, "cellspec: --json and --markdown exclude each other\n")


def test_list_markdown() -> None:
    """That docs/cells.md has this table is tested with the other pages."""
    lines = run("list", "--markdown").stdout.splitlines()
    assert lines[:2] == ["| cell | what it is | source |", "| --- | --- | --- |"] and "| **gru** | | |" in lines
    assert sorted(found[1] for line in lines if (found := re.match(r"\| `(\w+)` \|", line))) == list(shipped_names())


@pytest.mark.parametrize(
    ("authors", "names"),
    [
        ("Jos van der Westhuizen, Joan Lasenby", ["van der Westhuizen", "Lasenby"]),
        ("Alexander G. Ororbia II, Tomas Mikolov", ["Ororbia", "Mikolov"]),
        ("Klaus Greff and others", ["Greff", "", ""]),
        ("Marc'Aurelio Ranzato", ["Ranzato"]),
        ("", []),
    ],
)
def test_surnames(authors: str, names: list[str]) -> None:
    assert surnames(authors) == names


# --- memory ------------------------------------------------------------------------------------------------


def test_what_is_kept_is_counted() -> None:
    """The LSTM keeps both states, four gates and tanh(c): seven numbers a unit."""
    compiled = compile_cell(cell_of(shipped("lstm")))
    assert list(memory.kept(compiled)) == ["h", "c", "i", "f", "g", "o", "tanh(c[t])"]
    assert memory.numbers(compiled) == 7 * sympy.Symbol("H")


def test_a_state_is_kept_once_and_the_input_not_at_all() -> None:
    compiled = compile_cell(cell_of(shipped("qrnn_fo")))
    assert {"c[t-1]", "c[t]", "x[t]"} <= set(compiled.stash)
    assert list(memory.kept(compiled)) == ["c", "x_lag1", "z", "f", "o"]


def test_show_tells_the_memory() -> None:
    lines = run("show", "lstm").stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("stash "))
    assert lines[start].endswith("h [H], c [H], i [H], f [H], g [H], o [H], tanh(c[t]) [H]")
    assert lines[start + 1].strip() == "28*H bytes a step and sample in float32"
    assert lines[start + 2].strip() == "3,584 where every dim is 128, 28 a unit of h"


@pytest.mark.parametrize("name", ["lstm", "gru", "lem"])
def test_a_forward_pass_holds_what_is_told(name: str) -> None:
    """The tape's buffers hold at least that much, and no more than twice as much: some are scratch."""
    from test_numeric import buffers

    cell, module = cell_of(shipped(name)), module_of(shipped(name))
    drawn = draw(cell, steps=60, batch=8)
    _, _, tape = module.forward(drawn.module_params(module), drawn.module_x(module), drawn.module_state(module))
    owned = {id(array): array for array in buffers(tape.buffers) if array.base is None}
    held = sum(array.size for array in owned.values()) / (60 * 8)
    told = float(memory.numbers(compile_cell(cell)).subs(drawn.dims))
    assert told <= held <= 2.5 * told


# --- what every shipped spec tells -------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_spec_says_what_it_is(path: Path) -> None:
    cell = cell_of(path)
    assert cell.title and len(cell.doc) > 60 and cell.cite
    assert all(cite.key and cite.title for cite in cell.cite)
    assert all(re.fullmatch(r"10\.\d{4,}/\S+", cite.doi) for cite in cell.cite if cite.doi)
    assert all(cite.url.startswith("https://") for cite in cell.cite if cite.url)
    assert cell.expect.params is not None and cell.expect.stages is not None and cell.expect.recurrence is not None
    assert path.read_text("utf-8").startswith("# yaml-language-server: $schema=../cellspec/cell.schema.json\nname: ")
