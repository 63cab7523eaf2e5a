"""One step alone, before it is text: what is done once, what at every step, and what that mentions."""

from __future__ import annotations

from pathlib import Path

import cellspec
from cellspec.backends import registry
from cellspec.backends.arrays.expressions import Local
from cellspec.backends.arrays.statements import Bind, BindAll, Comment, reads, writes
from cellspec.backends.memory.model import Owner
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.module import design
from cellspec.backends.numpy.one_step import Alone, alone
from cellspec.pipeline import compile_cell

VALID = Path(__file__).parents[1] / "valid"


def step_of(source: str | Path) -> Alone:
    made = design(compile_cell(cellspec.load(source), "speed", registry.backend("numpy")))
    return alone(made.setting, Wishes(), made.earlier)


def test_memory_of_a_batch_size_is_read_at_every_step_and_parameters_once() -> None:
    step = step_of("lstm")
    parameters = set(step.buffers(parameters=True))
    assert parameters and not parameters & set(step.buffers(parameters=False))
    assert {buffer for statement in step.once for buffer in reads(statement) | writes(statement)} <= parameters
    assert all(buffer.owner is Owner.ALONE for buffer in step.text.buffers)


def test_constants_are_bound_once_and_read_at_every_step() -> None:
    step = step_of("lstm")
    bound = {statement.name for statement in step.once if isinstance(statement, Bind)}
    assert step.constants and set(step.constants) <= bound
    assert any(isinstance(statement, BindAll) for statement in step.every)


def test_results_are_given_out_once_and_copied_otherwise() -> None:
    step = step_of("lstm")
    arrays = [value for value in (*step.outputs, *(value for _, value in step.states)) if isinstance(value, Local)]
    assert len(arrays) == len(set(arrays))
    assert {name for name, _ in step.states} == {"h", "c"}


def test_a_dim_in_a_comment_is_not_mentioned() -> None:
    step = step_of(VALID / "constants.yaml")
    assert any(isinstance(statement, Comment) and "H*I" in statement.text for statement in step.every)
    assert step.dims == frozenset()
