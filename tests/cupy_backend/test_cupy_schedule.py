"""How the CuPy backend runs a cell: the class of each loop and why, what a step's exchanges carry; and ``show`` says so."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from cupy_support import BY_ID, OnDevice, cupy_on
from support import ROOT, SPECS, cell_from, cell_of, draw, spec_id

import cellspec
from cellspec.backends.cupy.backend import BACKEND
from cellspec.backends.cupy.module import plans
from cellspec.backends.dims import bracket
from cellspec.backends.fused import loop_kinds
from cellspec.backends.fused.loop_kinds import Kind
from cellspec.cell import Cell
from cellspec.passes.exchanges import exchanges
from cellspec.passes.schedule import schedule
from cellspec.pipeline import compile_cell, scheduled
from cellspec.tools.show import text_of
from cellspec.verification.check import verify, verify_sample


def on_a_gpu(cell: Cell) -> tuple[str, str]:
    """What ``cellspec show --stage schedule`` says of either direction on a GPU."""
    parts = text_of(cell, "schedule").split("\n\n")
    forward, backward = (part for part in parts if part.startswith("on a GPU\n"))
    return forward, backward


def carried(cell: Cell) -> list[list[str]]:
    """For either direction what each exchange carries."""
    compiled = compile_cell(cell)
    found = (exchanges(schedule(program)) for program in (compiled.forward, compiled.backward))
    return [[", ".join(f"{name}{bracket(shape)}" for name, shape in e.carries) for e in direction] for direction in found]


@pytest.mark.parametrize(
    ("name", "kind", "forward", "backward"),
    [
        ("lstm", "step", ["h[t-1][H]"], ["d:o.pre[H], d:g.pre[H], d:f.pre[H], d:i.pre[H]"]),
        ("peephole", "step", ["h[t-1][H]"], ["d:o.pre[H], d:g.pre[H], d:f.pre[H], d:i.pre[H]"]),
        ("gru_after", "step", ["h[t-1][H]"], ["d:Un@h[t-1][H], d:u.pre[H], d:r.pre[H]"]),
        ("gru_before", "step", ["h[t-1][H]", "n.part[H]"], ["d:n.pre[H]", "d:u.pre[H], d:r.pre[H]"]),
        ("indrnn", "sequence", [], []),
        ("mingru", "sequence", [], []),
        ("valid-elementwise", "sequence", [], []),
        ("valid-scan", "sequence", [], []),
        ("valid-parallel", "parallel", [], []),
        ("valid-joined", "step", ["c[t-1][2*H], h[t-1][H]", "z[2*H]", "c[t][2*H]"], None),
    ],
)
def test_classes_and_what_exchanges_carry(name: str, kind: str, forward: list[str], backward: list[str] | None) -> None:
    cell = cell_of(BY_ID[name])
    assert [choice.kind.value for _, choice in plans(compile_cell(cell, target=BACKEND))] == [kind, kind]
    found = carried(cell)
    assert found[0] == forward and backward in (None, found[1])
    for text, here in zip(on_a_gpu(cell), found, strict=True):
        assert f"  class {kind}: " in text and f"  exchanges per step: {len(here)}\n" in text
        assert all(f"    {number} carries " in text for number in range(1, len(here) + 1))


def test_where_units_keep_to_themselves_nothing_is_exchanged() -> None:
    for path in SPECS:
        compiled = compile_cell(cell_of(path))
        for (_, choice), program in zip(
            plans(scheduled(compiled, BACKEND)), (compiled.forward, compiled.backward), strict=True
        ):
            assert choice.kind is Kind.STEP or exchanges(schedule(program)) == (), spec_id(path)
            assert [kind for kind, _ in choice.against] == list(Kind)[: len(choice.against)]
            assert list(Kind)[len(choice.against)] is choice.kind


def test_show_says_why_it_is_no_faster_class() -> None:
    forward, backward = on_a_gpu(cell_of(BY_ID["lstm"]))
    expected = """\
on a GPU
  class step: products and fused kernels, step by step
    not parallel: a step reads what the step before has left
    not sequence: the loop holds the product Ui@h[t-1], Uf@h[t-1], Ug@h[t-1], Uo@h[t-1]
  exchanges per step: 1
    1 carries h[t-1]: [H], for Ui@h[t-1], Uf@h[t-1], Ug@h[t-1], Uo@h[t-1]
  before the loop: product: Wi@x[t], Wf@x[t], Wg@x[t], Wo@x[t]
  in the loop: product: Ui@h[t-1], Uf@h[t-1], Ug@h[t-1], Uo@h[t-1]
  in the loop: kernel over H units, 18 of 96 values a thread: i, f, g, o, c[t], tanh(c[t]), h[t], h[t] next, h[t] last"""
    assert forward == expected
    assert "    1 carries d:o.pre: [H], d:g.pre: [H], d:f.pre: [H], d:i.pre: [H], for d:h[t-1]\n" in backward


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("valid-stretch", "not sequence: the loop looks across units for sum(d:h[t]*g')"),
        ("mingru", "not parallel: a step reads what the step before has left"),
    ],
)
def test_show_names_what_is_in_the_way(name: str, reason: str) -> None:
    assert f"\n    {reason}\n" in on_a_gpu(cell_of(BY_ID[name]))[1]


# --- what a thread can hold --------------------------------------------------------------------------------------


def wide(count: int) -> Cell:
    """An elementwise recurrence with ``count`` vectors, 20 in an equation."""
    groups = [range(start, min(start + 20, count)) for start in range(0, count, 20)]
    parts = [f"  p{n} = " + " + ".join(f"tanh(a{k}*h[t-1])" for k in group) for n, group in enumerate(groups)]
    total = " + ".join(f"p{n}" for n in range(len(groups)))
    equations = "\n".join([*parts, f"  h[t] = W @ x[t] + ({total})/{count}"])
    params = ", ".join(f"a{k}: H" for k in range(count))
    return cell_from(
        f"name: wide\ninputs: {{x: I}}\nstates: {{h: H}}\nparams: {{W: [H, I], {params}}}\nequations: |\n{equations}\n"
    )


def test_a_cell_that_asks_too_much_of_a_thread_goes_step_by_step(machine: str) -> None:
    """It is decided when the module is made, shown, and as right as any other."""
    few, many = wide(20), wide(loop_kinds.BUDGET + 4)
    assert [choice.kind for _, choice in plans(compile_cell(few, target=BACKEND))] == [Kind.SEQUENCE, Kind.SEQUENCE]
    assert [choice.kind for _, choice in plans(compile_cell(many, target=BACKEND))] == [Kind.STEP, Kind.STEP]
    for text in on_a_gpu(many):
        assert "\n    not sequence: a thread would hold " in text and f", and there is room for {loop_kinds.BUDGET}\n" in text
    with cupy_on(machine) as cupy:
        module = OnDevice(cellspec.build(many, "cupy"), cupy)
        report = verify_sample(many, module, draw(many))
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["mingru", "valid-elementwise", "valid-scan"])
def test_every_sequence_cell_also_runs_step_by_step(name: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(BY_ID[name])
    monkeypatch.setattr(loop_kinds, "BUDGET", 3)
    assert [choice.kind for _, choice in plans(compile_cell(cell, target=BACKEND))] == [Kind.STEP, Kind.STEP]
    with cupy_on(machine) as cupy:
        module = OnDevice(cellspec.build(cell, "cupy"), cupy)
        report = verify(cell, module, seed=3, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


# --- the same bytes ----------------------------------------------------------------------------------------------

DIGEST = """\
import cellspec, hashlib, sys
for path in sys.argv[1:]:
    print(hashlib.sha256(cellspec.generate(cellspec.load(path), "cupy").encode()).hexdigest())
"""


def test_same_bytes_under_every_hash_seed() -> None:
    names = ("valid-joined", "valid-stretch", "peephole", "mingru")
    expected = [hashlib.sha256(cellspec.generate(cell_of(BY_ID[name]), "cupy").encode()).hexdigest() for name in names]
    for seed in ("0", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", DIGEST, *(str(BY_ID[name]) for name in names)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
        assert done.stdout.split() == expected, f"PYTHONHASHSEED={seed}"
