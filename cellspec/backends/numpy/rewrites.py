"""The passes of the NumPy backend: what it has the programs look like before and after scheduling."""

from __future__ import annotations

from dataclasses import replace

from cellspec.backends.numpy.instructions import keep_carries
from cellspec.backends.numpy.one_step import one_step
from cellspec.backends.numpy.origins import marked
from cellspec.passes.forms import mixtures, tanh_form
from cellspec.passes.policy import SchedulePolicy
from cellspec.pipeline import BACKWARD, Compiled, Pass

POLICY = SchedulePolicy(block_products=True)


def single_step(state: Compiled) -> Compiled:
    """A step alone, which gives out results and states and nothing for a backward pass."""
    labels = tuple(output.label for output in state.cell.outputs)
    return replace(state, single=one_step(replace(state.forward, outputs=labels)))


def tanh_forms(state: Compiled) -> Compiled:
    """Logistic functions as hyperbolic tangents; what is kept for the backward pass alone need be no value of its own yet."""
    labels = tuple(output.label for output in state.cell.outputs)
    forward = tanh_form(replace(state.forward, outputs=labels), state.stash, state.delicate)
    forward = replace(forward, outputs=tuple(dict.fromkeys((*labels, *state.kept))))
    return replace(state, forward=forward, single=tanh_form(state.single, (), state.delicate))


def again(state: Compiled) -> Compiled:
    """What the backward pass repeats of the forward pass is told apart from the adjoints of its equations."""
    return replace(state, backward=marked(state.backward, state.again))


def with_mixtures(state: Compiled) -> Compiled:
    """Mixtures in three calls, in every direction."""
    made = {
        name: mixtures(schedule, state.facts, () if name == BACKWARD else state.delicate, backwards=name == BACKWARD)
        for name, schedule in state.schedules.items()
    }
    return replace(state, schedules=made)


def kept_carries(state: Compiled) -> Compiled:
    """What is read after the loop of memory that the next step overwrites is copied at every step."""
    return replace(state, schedules={**state.schedules, BACKWARD: keep_carries(state.schedules[BACKWARD])})


REWRITES = (Pass("single step", single_step), Pass("tanh form", tanh_forms), Pass("mark what is repeated", again))
FINISH = (
    Pass("mixtures", with_mixtures),
    Pass("keep carries", kept_carries),
)
