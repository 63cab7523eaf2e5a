"""Lengths, resets and reverse of CuPy modules: every batch against its episodes, which the same module runs one by one."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import Mutant
from cuda_host.mutants import changed
from cupy_jobs import fault
from cupy_support import BY_ID, OnDevice, cells, needs_substitute, on_device, watch
from episodes import Masks, alone, masked, random_masks
from support import cell_of, close, copied, draw, generator, leaves, module_of, part, same_bits
from test_cupy_arguments import fails, good
from test_cupy_sanitize import calls, cuda_in, with_cuda
from test_cupy_sanitize import text_of as text_at
from test_cupy_storage import allowed, cast, small_floats
from test_masks import KINDS, NOTHING, WRONG, agree, spoilt

from cellspec.cell import Cell
from cellspec.verification.sampling import Sample

# Products, products whose operand is also the output, two of them one after the other, heads, functions along units, a loop
# within the kernel, matrix states, no loop; lags of inputs and states, the step's index, initial states that are not 0.
EACH_KIND = (
    "lstm", "elman", "gru_before", "slstm", "valid-normed", "indrnn", "mlstm_xlstm", "valid-parallel", "qrnn_fo",
    "dilated_rnn", "clockwork", "skip_gru", "valid-stretch", "valid-joined", "valid-constants",
)  # fmt: skip


def both(module: OnDevice, drawn: Sample, masks: Masks, **options: Any) -> Any:
    """``(y, final, grads)`` of one call of each pass, both with the same options."""
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, final, tape = module.forward(params, x, state, **masks.options(), **options)
    return copied((y, final, module.backward(params, tape, *drawn.upstream(module), **options)))


def check_episodes(cell: Cell, machine: str) -> None:
    rng = generator(3)
    with on_device(cell, "random", machine=machine, seed=3) as module:
        for steps, batch, kinds in ((7, 4, KINDS[-1]), (11, 2, "lengths resets")):
            masks = random_masks(rng, steps, batch, kinds)
            got = masked(module, spoilt(draw(cell, steps=steps, batch=batch), masks), masks)
            agree(got, alone(module, draw(cell, steps=steps, batch=batch), masks))
            assert masks.lengths is not None
            behind = np.arange(steps)[:, None] >= masks.lengths
            assert not any(array[behind].any() for array in (*got.y.values(), *got.x.values()))


@cells(*EACH_KIND)
def test_a_batch_is_its_episodes(cell: Cell, machine: str) -> None:
    check_episodes(cell, machine)


@pytest.mark.slow
def test_any_batch_is_its_episodes(path: Path, machine: str) -> None:
    check_episodes(cell_of(path), machine)


@cells("lstm", "indrnn", "qrnn_fo")
def test_each_kind_alone_and_with_the_others(cell: Cell, machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        for seed, kinds in enumerate(KINDS):
            masks = random_masks(generator(seed), 6, 5, kinds)
            got = masked(module, spoilt(draw(cell, steps=6, batch=5, seed=seed), masks), masks)
            agree(got, alone(module, draw(cell, steps=6, batch=5, seed=seed), masks))


@cells("lstm", "indrnn", "qrnn_fo", "clockwork")
def test_whole_lengths_and_no_resets_change_no_bit(cell: Cell, machine: str) -> None:
    drawn = draw(cell, steps=4, batch=3)
    with on_device(cell, machine=machine) as module:
        expected = both(module, drawn, Masks())
        assert same_bits(both(module, drawn, Masks(np.array([4, 4, 4]), np.zeros((4, 3), bool))), expected)
        assert module.forward(drawn.module_params(module), drawn.module_x(module))[2].masks is None


@cells("lstm", "qrnn_fo")
@pytest.mark.parametrize("steps", [1, 5])
def test_few_samples_and_few_steps(cell: Cell, steps: int, machine: str) -> None:
    with on_device(cell, machine=machine) as module:
        for batch in (0, 1, 2):
            none, every = np.zeros(batch, np.int64), np.ones((steps, batch), bool)
            for masks in (Masks(none), Masks(none + steps, every, True), Masks(none, every), Masks(resets=every)):
                drawn = draw(cell, steps=steps, batch=batch)
                agree(masked(module, spoilt(drawn, masks), masks), alone(module, draw(cell, steps=steps, batch=batch), masks))


@cells("lstm", "qrnn_fo", "mlstm_xlstm")
def test_chunks_with_masks_are_the_whole(cell: Cell, machine: str) -> None:
    drawn, masks = draw(cell, steps=9, batch=4), random_masks(generator(7), 9, 4, "lengths resets")
    assert masks.lengths is not None and masks.resets is not None
    with on_device(cell, machine=machine) as module:
        params, state, parts = drawn.module_params(module), drawn.module_state(module), []
        whole = module.forward(params, drawn.module_x(module), state, **masks.options())[:2]
        for start, stop in ((0, 4), (4, 9)):
            x = part(drawn, slice(start, stop), 0).module_x(module)
            lengths = np.clip(masks.lengths - start, 0, stop - start)
            y, state, _ = module.forward(params, x, state, lengths=lengths, resets=masks.resets[start:stop])
            parts.append(leaves(y))
    assert close((*(np.concatenate(pair) for pair in zip(*parts, strict=True)), *state), tuple(leaves(whole)), 1e-13)


# --- memory that is used again -----------------------------------------------------------------------------------


@cells("lstm", "indrnn", "qrnn_fo")
@pytest.mark.parametrize("graph", [False, True])
def test_a_workspace_serves_calls_of_every_kind_in_turn(cell: Cell, graph: bool, machine: str) -> None:
    drawn, options = draw(cell, steps=6, batch=4), {"graph": True} if graph else {}
    with on_device(cell, machine=machine) as module:
        ws = module.Workspace(6, 4, drawn.module_params(module))
        for kinds in ("", "lengths", "", "lengths resets", "", "resets reverse", "lengths"):
            masks = random_masks(generator(5), 6, 4, kinds) if kinds else Masks()
            expected = both(module, drawn, masks)
            got = both(module, drawn, masks, workspace=ws, **options)
            assert close(got, expected, 1e-13) if graph else same_bits(got, expected)


@cells("lstm")
def test_a_tape_is_used_as_often_as_one_likes(cell: Cell, machine: str) -> None:
    drawn, masks = draw(cell, steps=6, batch=4), random_masks(generator(5), 6, 4)
    with on_device(cell, machine=machine) as module:
        params = drawn.module_params(module)
        tape = module.forward(params, drawn.module_x(module), drawn.module_state(module), **masks.options())[2]
        first = copied(module.backward(params, tape, *drawn.upstream(module)))
        assert same_bits(module.backward(params, tape, *drawn.upstream(module)), first)
        assert not close(module.backward(params, tape, drawn.upstream(module)[0]), first, 1e-3), "dfinal is not read"


# --- other types -------------------------------------------------------------------------------------------------


@cells("lstm", "elman", "qrnn_fo", "clockwork", "indrnn")
@small_floats
def test_errors_are_those_of_rounding_to_storage(cell: Cell, dtype: Any, u: float, machine: str) -> None:
    few, masks = cast(draw(cell, steps=6, batch=3), dtype), random_masks(generator(4), 6, 3)
    wide = cast(few, np.float64)

    def run(drawn: Sample) -> list[Any]:
        return results(alone(module_of(BY_ID[cell.name]), drawn, masks))

    expected = run(wide)
    limits = allowed(run, wide, expected, u)
    with on_device(cell, "random", machine=machine, seed=5) as module:
        got = results(masked(module, spoilt(few, masks), masks))
    for one, other, limit in zip(got, expected, limits, strict=True):
        assert one.dtype == few.dtype and np.abs(one.astype(np.float64) - other).max() <= limit


def results(found: Any) -> list[Any]:
    """All arrays of results, in order."""
    return [array for arrays in asdict(found).values() for array in arrays.values()]


@cells("lstm")
def test_masks_lie_where_one_likes(cell: Cell, machine: str) -> None:
    """On the device, as the only thing that the host waits for; on the host, as lists too."""
    drawn, masks = draw(cell, steps=5, batch=4), random_masks(generator(4), 5, 4)
    assert masks.lengths is not None and masks.resets is not None
    with on_device(cell, machine=machine) as module:
        expected = both(module, drawn, masks)
        there = Masks(module.cupy.asarray(masks.lengths), module.cupy.asarray(masks.resets), True)
        listed = Masks(masks.lengths.tolist(), masks.resets.tolist(), True)  # type: ignore[arg-type]
        arguments = module.there((drawn.module_params(module), drawn.module_x(module)))
        for given, waits in ((masks, 0), (listed, 0), (there, 2)):
            assert same_bits(both(module, drawn, given), expected)
            with watch(module.cupy) as seen:
                module.module.forward(*arguments, **given.options())
            assert machine == "device" or len(seen.synchronisations) == waits


@needs_substitute
@cells("lstm")
def test_a_wrong_mask_is_one_sentence_before_any_work(cell: Cell) -> None:
    with on_device(cell) as module:
        ok = good(module, cell)
        x = module.cupy.zeros((4, *ok.x.shape[1:]), ok.x.dtype)
        for options, kind, message in WRONG:
            fails(module, kind, re.escape(message), module.module.forward, ok.params, x, **options)
        message = r"lengths\[1\] is 1, expected 0 to T = 0"
        fails(module, ValueError, message, module.module.forward, ok.params, x[:0], lengths=[0, 1])


@cells("lstm", "qrnn_fo", "clockwork")
def test_where_there_is_no_step_nothing_is_computed(cell: Cell, machine: str) -> None:
    """Results are empty or zero, and the final state the given one."""
    with on_device(cell, machine=machine) as module:
        for steps, batch, masks in NOTHING:
            drawn = draw(cell, steps=steps, batch=batch)
            ws = module.Workspace(steps, batch, drawn.module_params(module))
            found = masked(module, spoilt(drawn, masks), masks, workspace=ws)
            for arrays, like in ((found.y, drawn.dy), (found.x, drawn.x), (found.params, drawn.params)):
                assert all(array.shape == like[name].shape and not array.any() for name, array in arrays.items())
            assert same_bits(tuple(found.final.values()), tuple((drawn.state or {}).values()))
            assert same_bits(tuple(found.state.values()), tuple(drawn.dfinal.values()))


# --- mutants -----------------------------------------------------------------------------------------------------

TESTS = re.compile(r"cut_\w+ == \d")
SLOTS = re.compile(r"cuts\[row( \+ B)?\]")


def mutants(cuda: str) -> list[Mutant]:
    """The text with one cut dropped, always made, or read on the other side of its step.

    But for what a state is put back to behind an end, which must not matter (``test_cupy_padding.py`` does find that).
    """
    found = []
    for match in TESTS.finditer(cuda):
        ways = ("false",) if match[0].endswith("1") else ("false", "true")
        found += [changed(cuda, "a cut", *match.span(), now) for now in ways]
    for match in SLOTS.finditer(cuda):
        found.append(changed(cuda, "a slot", *match.span(), "cuts[row]" if match[1] else "cuts[row + B]"))
    return found


# Of the others some cuts mean nothing: where m is put back to -inf, exp(m) forgets whatever else there is.
MORE = ("lstm", "elman", "gru_before", "valid-normed", "qrnn_fo", "dilated_rnn", "clockwork", "valid-stretch")


@needs_substitute
@pytest.mark.parametrize("name", ["indrnn", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_cut_that_is_dropped_is_found(name: str) -> None:
    path = BY_ID[name]
    text, given = text_at(path), calls(path, ((20, 12, 13, "masks"),), "float64")
    assert fault(text, given) == ""
    found = mutants(cuda_in(text))
    assert len(found) >= 2
    assert [str(mutant) for mutant in found if not fault(with_cuda(text, mutant.text), given)] == []
