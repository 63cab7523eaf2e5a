"""Threads: what they may share gives right numbers, and what one call at a time may use raises for the others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_support import arguments, layer
from layer_support import module as module_named
from support import ROOT, cell_of, copied, draw, leaves, module_of, same_bits
from test_ownership import MASKS, first_step, given

from cellspec import layers

THREADS = 4


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Threads take turns at nearly every instruction."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], Any], rounds: int) -> list[Any]:
    """What ``work`` gives, or the exception that it raises, in every round of every thread."""
    start, found = threading.Barrier(THREADS), []

    def run(number: int) -> None:
        start.wait()
        for _ in range(rounds):
            try:
                found.append(work(number))
            except Exception as error:  # what the test looks at
                found.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == THREADS * rounds
    return found


@pytest.mark.parametrize("name", ["gru", "mingru", "qrnn_fo"])
@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("masks", MASKS)
def test_parameters_and_tapes_may_be_shared(name: str, checkpoint: int | None, masks: str) -> None:
    path = ROOT / "specs" / f"{name}.yaml"
    module, drawn = module_of(path), draw(cell_of(path), steps=5 if masks == "plain" else 3)
    arguments, upstream = given(module, drawn), drawn.upstream(module)
    options = {"checkpoint": checkpoint, **MASKS[masks]}
    y, final, tape = module.forward(*arguments, **options)
    expected = copied((y, final)), copied(module.backward(arguments[0], tape, *upstream))

    def work(number: int) -> bool:
        if number % 2:
            return same_bits(module.forward(*arguments, **options)[:2], expected[0])
        return same_bits(module.backward(arguments[0], tape, *upstream), expected[1])

    assert all(found is True for found in together(work, 60))


def told(found: Any, said: str) -> bool:
    """Whether that is the sentence for a second thread."""
    return (
        isinstance(found, RuntimeError)
        and str(found) == f"{said} in use by a call in another thread: each thread needs its own"
    )


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_a_workspace_serves_one_call_at_a_time(checkpoint: int | None) -> None:
    """Results lie there, so that each thread looks at what it got only if nobody came meanwhile: the count tells."""
    module = module_named("gru")
    rng = np.random.default_rng(0)
    params, xs = module.init_params(rng, I=3, H=4), rng.normal(size=(THREADS, 5, 2, 3))
    workspace = module.Workspace(5, 2, params, checkpoint=checkpoint)
    expected = []
    for x in xs:
        y, _, tape = module.forward(params, x, checkpoint=checkpoint)
        expected.append((y, module.backward(params, tape, np.ones_like(y))))

    def work(number: int) -> Any:
        y, _, tape = module.forward(params, xs[number], workspace=workspace)
        right = same_bits(y, expected[number][0])
        grads = copied(module.backward(params, tape, np.ones_like(y)))
        return workspace.owner.use != tape.use or (right and same_bits(grads, expected[number][1]))

    found = together(work, 100)
    stale = [isinstance(one, ValueError) and str(one).startswith("tape is stale") for one in found]
    busy = [told(one, "workspace is") for one in found]
    assert all(one is True or was_stale or was_busy for one, was_stale, was_busy in zip(found, stale, busy, strict=True))
    assert any(one is True for one in found)
    y, _, _ = module.forward(params, xs[0], workspace=workspace)
    assert same_bits(y, expected[0][0]), "the workspace is left in use"


@pytest.mark.parametrize("name", ["gru", "mingru", "slstm"])
def test_packed_parameters_serve_one_step_at_a_time(name: str) -> None:
    """With batches of several sizes, for which the memory is taken anew."""
    path = ROOT / "specs" / f"{name}.yaml"
    module, drawn = module_of(path), draw(cell_of(path), batch=THREADS)
    params, _, state = given(module, drawn)
    packed, x_t = module.pack(params), first_step(module, drawn)
    calls = [(x_t[: n + 1], type(state)(*(each[: n + 1] for each in state))) for n in range(THREADS)]
    expected = [copied(module.step(packed, *call)) for call in calls]
    found = together(lambda number: same_bits(module.step(packed, *calls[number]), expected[number]), 400)
    busy = [told(one, "packed parameters are") for one in found]
    assert all(one is True or was_busy for one, was_busy in zip(found, busy, strict=True))
    assert any(one is True for one in found)
    assert same_bits(module.step(packed, *calls[0]), expected[0]), "the parameters are left in use"


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_a_call_meets_another_in_its_midst(checkpoint: int | None) -> None:
    """While one call is at work, another thread is refused, but may read a tape that lies there."""
    module = module_named("gru")
    rng = np.random.default_rng(0)
    params, x = module.init_params(rng, I=3, H=4), rng.normal(size=(5, 2, 3))
    workspace = module.Workspace(5, 2, params, checkpoint=checkpoint)
    y, _, tape = module.forward(params, x, workspace=workspace)
    dy = np.ones_like(y)
    expected = copied(module.backward(params, tape, dy))
    packed, state = module.pack(params), module.init_state(params, 2)
    with workspace.owner, packed.owner:
        found = together(lambda number: module.forward(params, x, workspace=workspace), 1)
        found += together(lambda number: module.backward(params, tape, dy, workspace=workspace), 1)
        assert all(told(one, "workspace is") for one in found)
        assert all(same_bits(one, expected) for one in together(lambda number: module.backward(params, tape, dy), 1))
        found = together(lambda number: module.step(packed, x[0], state), 1)
        assert all(told(one, "packed parameters are") for one in found)

    def afterwards(number: int) -> Any:
        return number or (module.step(packed, x[0], state), module.backward(params, tape, dy, workspace=workspace))[1]

    (grads,) = [one for one in together(afterwards, 1) if not isinstance(one, int)]
    assert same_bits(grads, expected)


def test_a_backward_pass_that_reads_what_is_overwritten_is_refused() -> None:
    """It needs no workspace, but the tape lies in one that another call takes meanwhile."""
    module = module_named("gru")
    rng = np.random.default_rng(0)
    params, x = module.init_params(rng, I=3, H=4), rng.normal(size=(5, 2, 3))
    workspace = module.Workspace(5, 2, params)
    y, _, tape = module.forward(params, x, workspace=workspace)
    sound = module._backward

    def late(*args: Any) -> Any:
        workspace.owner.use += 1
        return sound(*args)

    try:
        module._backward = late
        with pytest.raises(ValueError, match=r"^tape is stale"):
            module.backward(params, tape, np.ones_like(y))
    finally:
        module._backward = sound


def test_a_shared_tape_is_not_written_to() -> None:
    """A second thread runs the segments of a checkpointed tape again in memory of its own."""
    module = module_named("gru")
    rng = np.random.default_rng(0)
    params, x = module.init_params(rng, I=3, H=4), rng.normal(size=(5, 2, 3))
    y, _, tape = module.forward(params, x, checkpoint=2)
    expected = copied(module.backward(params, tape, y))
    with tape.buffers.owner:
        tape.buffers.present = -2  # nothing may be relied on
        kept = [copied(memory.saved.h_all) for memory in tape.buffers.forward.values()]
        for memory in tape.buffers.forward.values():
            memory.saved.h_all[...] = np.nan
        assert all(same_bits(found, expected) for found in together(lambda number: module.backward(params, tape, y), 1))
        assert all(np.isnan(memory.saved.h_all).all() for memory in tape.buffers.forward.values()) and kept


def test_layers_may_be_shared() -> None:
    tested = layers.Stack(layers.Bidirectional(layer("gru", 3, 4), layer("lstm", 3, 4)), layer("mingru", 8, 4), dropout=0.25)
    params, x, _ = arguments(tested)
    y, _, tape = tested.forward(params, x, rng=np.random.default_rng(1))
    expected = copied((y, tuple(tested.backward(params, tape, y))))

    def work(number: int) -> bool:
        y, _, own = tested.forward(params, x, rng=np.random.default_rng(1))
        return same_bits((y, tuple(tested.backward(params, tape if number % 2 else own, y))), expected)

    assert all(found is True for found in together(work, 15))


@pytest.mark.parametrize("masks", MASKS)
def test_copies_may_be_made_meanwhile(masks: str, path: Path = ROOT / "specs" / "gru.yaml") -> None:
    """A copy of a tape that a call overwrites is stale, or whole."""
    import copy

    module, drawn = module_of(path), draw(cell_of(path))
    arguments, upstream = given(module, drawn), drawn.upstream(module)
    workspace = module.Workspace(drawn.steps, drawn.batch, arguments[0])
    expected = module.backward(arguments[0], module.forward(*arguments, **MASKS[masks])[2], *upstream)
    negative = -leaves(arguments[1])[0]

    def work(number: int) -> bool:
        if number:
            module.forward(arguments[0], negative, arguments[2], workspace=workspace)
            return True
        _, _, tape = module.forward(*arguments, workspace=workspace, **MASKS[masks])
        return same_bits(module.backward(arguments[0], copy.deepcopy(tape), *upstream), expected)

    for found in together(work, 60):
        assert found is True or told(found, "workspace is") or str(found).startswith("tape is stale"), found
