"""Memory: residuals for memory, checkpoints, the formulas that ``show`` prints, and the layout of buffers behind them."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sympy
from click.testing import CliRunner
from random_cells import RandomCell
from support import (
    ROOT,
    SPECS,
    Array,
    call,
    cell_from,
    cell_of,
    close,
    copied,
    draw,
    generator,
    leaves,
    module_of,
    part,
    same_bits,
    spec_id,
)  # fmt: skip
from test_mutants import Poisoned
from test_numeric import buffers

import cellspec
from cellspec.backends.memory.arena import Need, arrange
from cellspec.backends.numpy.backend import BACKEND
from cellspec.backends.numpy.footprint import Footprint, footprints
from cellspec.cli import main
from cellspec.pipeline import Compiled, compile_cell, scheduled
from cellspec.tools import memory
from cellspec.verification.check import verify, verify_sample
from cellspec.verification.sampling import Sample, sample

STEPS = 7
INTERVALS = (1, 2, 3, STEPS, STEPS + 5)
"""Steps between checkpoints: of one, of a divisor of nothing, of all steps, of more than there are."""


def shipped(name: str) -> Path:
    return ROOT / "specs" / f"{name}.yaml"


USUAL = ("lstm", "gru_concat", "mingru", "qrnn_fo", "slstm", "valid-stretch", "valid-parallel", "valid-frozen")
"""Those tried each time: gates, concatenation, no product in the loop, lags, heads, stretching, no loop, frozen parameters."""


@pytest.fixture(params=[pytest.param(p, id=spec_id(p), marks=[pytest.mark.slow] * (spec_id(p) not in USUAL)) for p in SPECS])
def path(request: pytest.FixtureRequest) -> Path:
    """A spec file: every policy and interval is tried on few of them each time, on all in slow runs."""
    found: Path = request.param
    return found


@cache
def frugal(path: Path) -> ModuleType:
    """The module of a spec for which memory counts."""
    return cellspec.build(cell_of(path), residuals="memory")


@cache
def compiled_of(path: Path, residuals: str) -> Compiled:
    return compile_cell(cell_of(path), residuals)


def module_for(path: Path, residuals: str) -> ModuleType:
    return module_of(path) if residuals == "speed" else frugal(path)


class Checkpointed:
    """A module whose forward pass keeps the state every ``k`` steps."""

    def __init__(self, module: Any, k: int) -> None:
        self.module, self.k = module, k

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.module.forward(*args, checkpoint=self.k, **options)


def poison(workspace: Any) -> None:
    for array in buffers(workspace):
        if array.flags.writeable:
            array[...] = np.nan


# --- the same results ----------------------------------------------------------------------------------------


def test_modules_for_memory_give_what_modules_for_speed_give(path: Path) -> None:
    drawn = draw(cell_of(path), steps=STEPS)
    expected = call(module_of(path), drawn)
    module = frugal(path)
    assert close(call(module, drawn), expected)
    workspace = module.Workspace(STEPS, drawn.batch, drawn.module_params(module))
    for _ in range(2):
        poison(workspace)
        assert close(call(module, drawn, workspace=workspace), expected)


@pytest.mark.parametrize("residuals", cellspec.RESIDUALS)
def test_segments_give_what_the_whole_gives(path: Path, residuals: str) -> None:
    """Also in a workspace of other calls' numbers, and for every gradient of a tape that is used twice."""
    module, drawn = module_for(path, residuals), draw(cell_of(path), steps=STEPS)
    expected = copied(call(module, drawn))
    params, upstream = drawn.module_params(module), drawn.upstream(module)
    for k in INTERVALS:
        assert close(call(Checkpointed(module, k), drawn), expected), f"checkpoint={k}"
        workspace = module.Workspace(STEPS, drawn.batch, params, checkpoint=k)
        for turn in range(2):
            poison(workspace)
            y, final, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module), workspace=workspace)
            grads = module.backward(params, tape, *upstream, workspace=workspace)
            assert close((y, final, grads), expected), f"checkpoint={k}, turn {turn}"
            once = copied(grads)
            assert same_bits(module.backward(params, tape, *upstream, workspace=workspace), once), "the tape is used up"
            assert same_bits(module.backward(params, tape, *upstream), once), "with memory of its own"


def test_segments_are_those_of_the_equations(path: Path) -> None:
    module: Any = Checkpointed(module_of(path), 2)
    report = verify(cell_of(path), module, seed=5, dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 60))])
def test_random_cells_take_every_policy(seed: int) -> None:
    cell = cell_from(RandomCell(seed).text())
    speed, frugal_ = (cellspec.build(cell, residuals=residuals) for residuals in cellspec.RESIDUALS)
    drawn = draw(cell, steps=STEPS, seed=seed)
    expected = call(speed, drawn)
    for module in (Checkpointed(speed, 2), frugal_, Checkpointed(frugal_, 3)):
        assert close(call(module, drawn), expected, 1e-11)


@pytest.mark.parametrize("k", [1, 3])
def test_chunks_equal_one_run_in_segments(path: Path, k: int) -> None:
    """States between segments are those between chunks, lags and counts included."""
    module, drawn = module_of(path), draw(cell_of(path), steps=STEPS)
    params = drawn.module_params(module)
    y, final, grads = call(module, drawn)
    first, second = part(drawn, slice(0, 4), 0), part(drawn, slice(4, STEPS), 0)
    y1, middle, tape1 = module.forward(params, first.module_x(module), drawn.module_state(module), checkpoint=k)
    y2, last, tape2 = module.forward(params, second.module_x(module), middle, checkpoint=k)
    g2 = module.backward(params, tape2, second.upstream(module)[0], drawn.upstream(module)[1])
    g1 = module.backward(params, tape1, first.upstream(module)[0], g2.state)
    assert close(tuple(np.concatenate(pair) for pair in zip(leaves(y1), leaves(y2), strict=True)), tuple(leaves(y)))
    assert close((last, g1.state), (final, grads.state))
    assert close(tuple(a + b for a, b in zip(g1.params, g2.params, strict=True)), tuple(grads.params))
    assert close(tuple(np.concatenate(pair) for pair in zip(leaves(g1.x), leaves(g2.x), strict=True)), tuple(leaves(grads.x)))


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("residuals", cellspec.RESIDUALS)
def test_no_steps_and_no_samples(path: Path, residuals: str, steps: int, batch: int) -> None:
    module, drawn = module_for(path, residuals), draw(cell_of(path), steps=steps, batch=batch)
    expected = call(module, drawn)
    workspace = module.Workspace(steps, batch, drawn.module_params(module), checkpoint=2)
    poison(workspace)
    for result in (call(Checkpointed(module, 2), drawn), call(module, drawn, workspace=workspace)):
        assert [a.shape for a in leaves(result)] == [a.shape for a in leaves(expected)]
        assert close(result, expected)


def test_nothing_is_lost_of_what_checkpoints_share(path: Path) -> None:
    """Arguments are only read, results are the caller's own, and the same call gives the same bits."""
    module, drawn = Checkpointed(module_of(path), 3), draw(cell_of(path), steps=STEPS)
    for group in (drawn.params, drawn.x, drawn.state or {}, drawn.dy, drawn.dfinal):
        for array in group.values():
            array.flags.writeable = False
    first = call(module, drawn)
    kept = copied(first)
    call(module, draw(cell_of(path), steps=STEPS, seed=2))
    assert same_bits(first, kept), "a later call has changed an earlier result"
    assert same_bits(call(module, drawn), kept)
    params = drawn.module_params(module)
    y, final, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module))
    for array in leaves((y, final)):
        array[...] = np.nan
    assert same_bits(module.backward(params, tape, *drawn.upstream(module)), kept[2])


def test_an_interrupted_backward_pass_can_be_done_again() -> None:
    module, drawn = module_of(shipped("gru")), draw(cell_of(shipped("gru")), steps=STEPS)
    params = drawn.module_params(module)
    expected = call(Checkpointed(module, 2), drawn)[2]
    _, _, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module), checkpoint=2)
    sound = module._backward  # type: ignore[attr-defined]
    turns = iter([sound, sound])

    def breaks(*args: Any) -> Any:
        return next(turns, stop)(*args)

    def stop(*args: Any) -> Any:
        raise KeyboardInterrupt

    try:
        module._backward = breaks  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            module.backward(params, tape, *drawn.upstream(module))
    finally:
        module._backward = sound  # type: ignore[attr-defined]
    assert same_bits(module.backward(params, tape, *drawn.upstream(module)), expected)


# --- mistakes in segments are found --------------------------------------------------------------------------


MISTAKES = {
    "a segment's gradient is dropped": ("            total += part\n", "            pass\n"),
    "the last segment's gradient replaces the others": ("            total += part\n", "            total[...] = part\n"),
    "gradients are added to old ones": ("        total[...] = 0\n", "        pass\n"),
    "the state's gradient is not handed on": ("        dfinal = grads.state\n", ""),
    "every segment starts from the first state": ("(kept[number] for kept", "(kept[0] for kept"),
    "no state is kept": ("            kept[number] = now\n", "            pass\n"),
    "no segment is run again": ("        if present != number:\n", "        if False:\n"),
    "what is run again is not remembered": ("            present = number\n", "            pass\n"),
    "the output of a segment is dropped": ("        y[start:stop] = y_part\n", ""),
    "the gradient of x is dropped": ("        d_x[start:stop] = grads.x\n", ""),
    "segments begin one step late": ("range(0, max(T, 1), k)", "range(1, max(T, 1), k)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_segments_are_found(mistake: str) -> None:
    """As in test_mutants, but in what runs segments, which plain calls do not reach."""
    cell = cell_of(shipped("lstm"))
    text = cellspec.generate(cell).replace("import numpy as np\n", "")
    right, wrong = MISTAKES[mistake]
    assert text.count(right) == 1
    drawn, found = draw(cell, steps=5), []
    for source in (text, text.replace(right, wrong)):
        module = ModuleType("mutant")
        vars(module)["np"] = Poisoned()
        exec(compile(source, "<mutant>", "exec"), vars(module))
        spoilt: Any = Checkpointed(module, 2)
        try:
            with np.errstate(all="ignore"):
                found.append(verify_sample(cell, spoilt, drawn).ok and twice(spoilt, drawn))
        except ValueError:
            found.append(False)
    assert found == [True, False]


def twice(module: Any, drawn: Sample) -> bool:
    """Whether a tape gives the same gradients again."""
    params = drawn.module_params(module)
    _, _, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module))
    once = module.backward(params, tape, *drawn.upstream(module))
    return same_bits(module.backward(params, tape, *drawn.upstream(module)), once)


# --- errors --------------------------------------------------------------------------------------------------


def fails(kind: type[Exception], message: str, attempt: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        attempt()
    assert str(caught.value) == message


WRONG = [
    (0, ValueError, "checkpoint is 0, expected 1 or more"),
    (-3, ValueError, "checkpoint is -3, expected 1 or more"),
    (2.0, TypeError, "checkpoint must be an integer, got float"),
    (True, TypeError, "checkpoint must be an integer, got bool"),
    ("2", TypeError, "checkpoint must be an integer, got str"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG, ids=str)
def test_a_wrong_checkpoint_is_named(path: Path, wrong: Any, kind: type[Exception], message: str) -> None:
    module, drawn = module_of(path), draw(cell_of(path))
    params, x = drawn.module_params(module), drawn.module_x(module)
    fails(kind, message, lambda: module.forward(params, x, checkpoint=wrong))
    fails(kind, message, lambda: module.Workspace(drawn.steps, drawn.batch, params, checkpoint=wrong))


def test_a_workspace_knows_its_checkpoint() -> None:
    module, drawn = module_of(shipped("lstm")), draw(cell_of(shipped("lstm")))
    params, x, batch = drawn.module_params(module), drawn.module_x(module), drawn.batch
    segments = module.Workspace(drawn.steps, batch, params, checkpoint=np.int64(2))
    whole = module.Workspace(drawn.steps, batch, params)
    told = copied(module.forward(params, x, workspace=segments, checkpoint=2)[:2])
    assert same_bits(module.forward(params, x, workspace=segments)[:2], told)
    message = "checkpoint is 3, but workspace was made with checkpoint=2"
    fails(ValueError, message, lambda: module.forward(params, x, workspace=segments, checkpoint=3))
    message = "checkpoint is 2, but workspace was made with checkpoint=None"
    fails(ValueError, message, lambda: module.forward(params, x, workspace=whole, checkpoint=2))


@pytest.mark.parametrize("residuals", cellspec.RESIDUALS)
def test_a_tape_goes_stale_with_its_workspace(path: Path, residuals: str) -> None:
    module, drawn = module_for(path, residuals), draw(cell_of(path))
    params, x, upstream = drawn.module_params(module), drawn.module_x(module), drawn.upstream(module)
    expected = copied(call(module, dataclasses.replace(drawn, state=None))[2])
    for k in (None, 2):
        workspace = module.Workspace(drawn.steps, drawn.batch, params, checkpoint=k)
        _, _, old = module.forward(params, x, workspace=workspace)
        _, _, new = module.forward(params, x, workspace=workspace)
        message = "tape is stale: a later call of forward used its workspace"
        fails(ValueError, message, lambda old=old, ws=workspace: module.backward(params, old, *upstream, workspace=ws))  # type: ignore[misc]
        assert close(module.backward(params, new, *upstream, workspace=workspace), expected)
        _, _, other = module.forward(params, x, checkpoint=3 if k is None else None)  # of neither workspace nor its kind
        assert close(module.backward(params, other, *upstream, workspace=workspace), expected)
        assert close(module.backward(params, new, *upstream), expected)


def test_residuals_that_are_unknown_or_not_for_a_backend() -> None:
    cell = cell_of(shipped("lstm"))
    fails(ValueError, "unknown residuals 'little'; there is speed, memory", lambda: cellspec.generate(cell, residuals="little"))
    message = "residuals='memory' is for the NumPy, PyTorch and JAX backends; the CuPy backend has 'speed' alone"
    fails(ValueError, message, lambda: cellspec.build(cell, "cupy", residuals="memory"))


# --- what a tape holds ---------------------------------------------------------------------------------------


def owned(item: Any) -> list[Array]:
    """The arrays whose memory ``item`` keeps alive: those that own what its arrays are views of, each once."""
    found: dict[int, Array] = {}
    for array in buffers(item):
        while isinstance(array.base, np.ndarray):
            array = array.base
        found[id(array)] = array
    return list(found.values())


def numbers(arrays: list[Array]) -> int:
    return sum(array.size for array in arrays)


@cache
def sizes_of(path: Path, residuals: str) -> tuple[Footprint, Footprint]:
    """The footprint of a whole sequence and that of one in segments."""
    return footprints(scheduled(compiled_of(path, residuals), BACKEND))


def at(size: Any, found: Footprint, drawn: Sample, k: int = 1) -> int:
    """A formula's value, in numbers without Python's objects."""
    plain = dataclasses.replace(found, tape=dataclasses.replace(size, bytes=sympy.Integer(0)))
    return plain.at(1, drawn.steps, drawn.batch, drawn.dims, k)[0]


def test_a_tape_for_memory_holds_the_states_and_nothing_else(path: Path) -> None:
    cell, module = cell_of(path), frugal(path)
    drawn = draw(cell, steps=11, batch=3)
    params = drawn.module_params(module)
    _, _, tape = module.forward(params, drawn.module_x(module), drawn.module_state(module))
    held = owned(tape.buffers)
    allowed = [(drawn.steps + 1) * array.size for array in drawn.module_state(module)]
    for array in held:
        assert array.size in allowed, f"{array.shape} is no state's history"
        allowed.remove(array.size)
    assert not owned(tape.derived) or len(owned(tape.derived)) <= len(tape.derived)
    arguments = {id(array) for array in owned((drawn.params, drawn.x, drawn.state))}
    assert {id(array) for array in owned((tape.x, tape.state))} <= arguments


@pytest.mark.parametrize("residuals", cellspec.RESIDUALS)
def test_a_tape_holds_what_the_formula_says(path: Path, residuals: str) -> None:
    """Exactly; and it keeps nothing of the forward pass that the backward pass does not read."""
    module, drawn = module_for(path, residuals), draw(cell_of(path), steps=12, batch=3)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    whole, parts = sizes_of(path, residuals)
    _, _, tape = module.forward(params, x, state)
    derived = numbers([array for array in owned(tape.derived) if not any(array is p for p in owned(params))])
    scalars = len(tape.derived)  # which are no arrays
    assert 0 <= at(whole.tape, whole, drawn) - numbers(owned(tape.buffers)) - derived <= scalars
    compiled = compiled_of(path, residuals)
    assert float(memory.numbers(compiled).subs(drawn.dims)) * 12 * 3 <= numbers(owned(tape.buffers))
    _, _, tape = module.forward(params, x, state, checkpoint=4)
    assert 0 <= at(parts.tape, parts, drawn, 4) - numbers(owned(tape.buffers)) - derived <= scalars


@pytest.mark.parametrize("residuals", cellspec.RESIDUALS)
def test_a_workspace_holds_what_the_formula_says(path: Path, residuals: str) -> None:
    module, drawn = module_for(path, residuals), draw(cell_of(path), steps=12, batch=3)
    params = drawn.module_params(module)
    whole, parts = sizes_of(path, residuals)
    others = {d: drawn.dims[d] for d in drawn.dims if f"{d}: int" in (module.Workspace.__init__.__annotations__ or {})}
    assert numbers(owned(module.Workspace(12, 3, params, **others))) == at(whole.workspace, whole, drawn)
    for k in (1, 4, 12):
        workspace = module.Workspace(12, 3, params, checkpoint=k, **others)
        assert numbers(owned(workspace)) == at(parts.workspace, parts, drawn, k), f"checkpoint={k}"
    uneven = module.Workspace(12, 3, params, checkpoint=5, **others)  # the short last segment has no memory of its own
    states = numbers(owned(drawn.module_state(module)))
    assert numbers(owned(uneven)) <= at(parts.workspace, parts, drawn, 5) + states


SLACK, SHARE = 300_000, 1.05
"""Bytes beside the formula: Python's objects, and what NumPy takes within a call, for operands whose layouts differ."""


@cache
def large(path: Path) -> Sample:
    """Arguments beside which a workspace's views of steps are small."""
    cell = cell_of(path)
    return sample(cell, dict(zip(cell.dims, (24, 32, 6, 5, 4, 3), strict=False)), 24, 48, generator(1), np.float32)


@pytest.mark.parametrize("k", [None, 6])
@pytest.mark.parametrize("residuals", cellspec.RESIDUALS)
def test_the_peak_is_what_the_formula_says(path: Path, residuals: str, k: int | None) -> None:
    module, drawn = module_for(path, residuals), large(path)
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    whole, parts = sizes_of(path, residuals)
    used = whole if k is None else parts
    tape_bytes, workspace_bytes = used.at(4, drawn.steps, drawn.batch, drawn.dims, k or 1)
    gc.collect()
    tracemalloc.start()
    try:
        y, final, tape = module.forward(params, x, state, checkpoint=k)
        held = tracemalloc.get_traced_memory()[0] - sum(array.nbytes for array in leaves((y, final)))
        module.backward(params, tape, *drawn.upstream(module))
        peak = tracemalloc.get_traced_memory()[1]
        del y, final, tape
        gc.collect()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call(module, drawn, workspace=module.Workspace(drawn.steps, drawn.batch, params, checkpoint=k))
        reused = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # The formulas leave out single states: the final one, and gradients that go from segment to segment.
    states = 4 * sum(array.nbytes for array in drawn.dfinal.values())
    assert tape_bytes - 100 <= held <= SHARE * tape_bytes + SLACK
    assert peak <= SHARE * workspace_bytes + states + SLACK
    assert 0.99 * workspace_bytes <= reused <= SHARE * workspace_bytes + states + SLACK
    assert peak >= 0.75 * workspace_bytes  # less than a workspace: what the forward pass had to itself is gone by then


def test_checkpoints_take_memory_by_their_interval() -> None:
    """O(T/k + k): of a long sequence, 30 times less than the whole."""
    whole, parts = sizes_of(shipped("lstm"), "speed")
    dims = {"I": 64, "H": 64}
    assert 30 * parts.at(4, 12_000, 8, dims, 100)[0] < whole.at(4, 12_000, 8, dims)[0]


# --- what is computed again ----------------------------------------------------------------------------------


def test_for_memory_only_states_and_inputs_are_stashed(path: Path) -> None:
    cell, compiled = cell_of(path), compiled_of(path, "memory")
    states = {f"{state.name}[{when}]" for state in cell.states for when in ("t-1", "t")}
    assert set(compiled.stash) <= states | {f"{item.name}[t]" for item in cell.inputs}
    assert set(memory.kept(compiled)) <= {name for state in cell.states for name in (state.name, f"{state.name}[t]")}


def test_what_is_computed_again_is_computed_for_all_steps_at_once(path: Path) -> None:
    """Nothing of it stands in the backward loop: no step's result is needed for the next."""
    from cellspec import ir
    from cellspec.passes.schedule import schedule

    compiled = compiled_of(path, "memory")
    in_loop = {name for op in schedule(compiled.backward).loop for name in ir.outs(op)}
    assert not in_loop.intersection(compiled.again)


def test_speed_repeats_arithmetic_and_memory_repeats_products() -> None:
    speed, frugal_ = (compiled_of(shipped("gru"), residuals) for residuals in cellspec.RESIDUALS)
    assert memory.again(speed) == () or "n" not in memory.again(speed)
    assert {"r", "u", "n"} <= set(memory.again(frugal_))
    assert memory.kept(frugal_).keys() == {"h"}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def test_show_tells_the_formulas() -> None:
    lines = run("show", "lstm").stdout.splitlines()
    start = lines.index("memory in bytes for float32, of T steps of B samples")
    assert re.fullmatch(r"  speed +tape +4\*\(7\*H\*T\*B \+ 2\*H\*B\)", lines[start + 1])
    assert re.fullmatch(r" +workspace +4\*\(\(17\*H \+ I\)\*T\*B \+ .*\) \+ \d+\*T", lines[start + 2])
    assert lines[start + 3].startswith("  speed, checkpoint=k") and "*T/k*B + " in lines[start + 3]
    assert re.fullmatch(r"  memory +tape +4\*\(2\*H\*T\*B \+ 2\*H\*B\)", lines[start + 5])
    assert lines[start + 7].startswith("  memory, checkpoint=k")


def test_show_says_what_is_stashed_and_what_computed_again() -> None:
    speed = run("show", "gru", "--stage", "schedule").stdout
    assert "stashed for the backward pass, for speed\n  " in speed and "computed again by the backward pass\n  " in speed
    text = run("show", "gru", "--stage", "schedule", "--residuals", "memory").stdout
    assert "stashed for the backward pass, for memory\n  x[t], h[t-1]\n" in text
    assert "computed again by the backward pass\n  r, u, n.part, n\n" in text
    assert "on a GPU" not in text and "on a GPU" in speed
    assert run("show", "gru", "--residuals", "memory").stdout.count("stash       h [H]\n") == 1


def test_the_command_that_makes_a_module_again(tmp_path: Path) -> None:
    done = run("generate", "lstm", "--residuals", "memory", "--out", str(tmp_path))
    assert done.exit_code == 0
    text = (tmp_path / "lstm_numpy.py").read_text("utf-8")
    assert text == cellspec.generate(cell_of(shipped("lstm")), residuals="memory")
    assert "``cellspec generate lstm --residuals memory``." in text and "Residuals for memory: the tape holds" in text
    assert run("generate", "lstm", "--residuals", "memory", "--out", str(tmp_path), "--check").exit_code == 0
    assert run("generate", "lstm", "--out", str(tmp_path), "--check").exit_code == 1
    assert "--residuals" not in cellspec.generate(cell_of(shipped("lstm")))


@pytest.mark.parametrize("arguments", [("lstm", "--backend", "cupy"), ("lstm", "--backend", "all"), ()], ids=str)
def test_residuals_for_memory_are_for_numpy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run("generate", *arguments, "--residuals", "memory", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert (
        done.stderr
        == "cellspec: --residuals memory is for the NumPy, PyTorch and JAX backends alone: --backend numpy, torch or jax\n"
    )


def test_verify_takes_the_policy() -> None:
    done = run("verify", "lstm", "--residuals", "memory")
    assert done.exit_code == 0 and done.stdout.startswith("lstm: every quantity within its tolerance\n")


# --- blocks --------------------------------------------------------------------------------------------------


def test_arrays_that_are_needed_at_once_do_not_overlap() -> None:
    """Whatever the dims are: places of random arrays, taken at several sizes."""
    rng = generator(9)
    T, B, H, D = sympy.symbols("T B H D")
    for _ in range(30):
        needs = []
        for number in range(rng.integers(1, 12)):
            size = sympy.expand((T + rng.integers(0, 2)) * B * (rng.integers(0, 4) * H + rng.integers(0, 3) * D + 1))
            first = int(rng.integers(0, 10))
            needs.append(Need(str(number), size, first, first + int(rng.integers(0, 5))))
        arena = arrange(needs)
        assert set(arena.places) == {need.name for need in needs}
        for sizes in ({T: 5, B: 2, H: 3, D: 7}, {T: 1, B: 1, H: 9, D: 1}):
            taken: dict[tuple[str, int], set[int]] = {}
            for need in needs:
                place = arena.places[need.name]
                start = int(place.start.subs(sizes))
                mine = set(range(start, start + int(need.size.subs(sizes))))
                assert max(mine) < place.buffer.size.subs(sizes)
                for moment in range(need.first, need.last + 1):
                    present = taken.setdefault((place.buffer.name, moment), set())
                    assert not present & mine
                    present |= mine


# --- the benchmark -------------------------------------------------------------------------------------------


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_the_benchmark_reports(tmp_path: Path) -> None:
    file = tmp_path / "new" / "memory.json"
    done = benchmark("--cells", "lstm,qrnn_fo", "--shape", "36,64,24,32", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(file.read_text())
    assert report["about"].startswith("Bytes of ") and report["machine"]["numpy"] == np.__version__ and report["long"] is None
    found = [(r["cell"], r["residuals"], r["checkpoint"]) for r in report["results"]]
    assert found == [(c, p, k) for c in ("lstm", "qrnn_fo") for p in ("speed", "memory") for k in (None, 6)]
    for result in report["results"]:
        for measured, formula in (("tape", "tape_formula"), ("workspace", "workspace_formula")):
            assert 0.99 * result[formula] <= result[measured] <= SHARE * result[formula] + SLACK
        assert result["alone"] <= result["workspace"] + SLACK and result["milliseconds"] > 0
    assert len(done.stdout.splitlines()) == 2 + len(found)


@pytest.mark.slow
def test_a_long_sequence_trains_in_less_than_a_gigabyte() -> None:
    done = benchmark("--cells", "lstm", "--shape", "4,2,3,5", "--long")
    assert (done.returncode, done.stderr) == (0, "")
    assert "T=100000, B=8, I=64, H=64, float32, checkpoint=316" in done.stdout
