"""Both directions of a cell: what comes from outside, what the one leaves to the other, and where earlier values lie."""

from __future__ import annotations

from support import cell_from

from cellspec.backends import registry
from cellspec.backends.fused.directions import Directions, boundaries_in, results
from cellspec.backends.fused.lagged import of_steps
from cellspec.backends.fused.loop_kinds import Kind
from cellspec.backends.fused.memory import Columns, Memory
from cellspec.backends.memory.model import Element, Home, Owner
from cellspec.passes.masks import BOUNDARY_AFTER, BOUNDARY_BEFORE
from cellspec.pipeline import compile_cell

GATED = """
name: gated
inputs: {x: I}
states: {h: H}
outputs: [y]
params: {W: [H, I], U: [H, H], b: H}
equations: |
  f = sigmoid(W @ x[t] + U @ h[t-1])
  h[t] = f*h[t-1] + (1 - f)*tanh(b)
  y = h[t]*f
"""

APART = """
name: apart
inputs: {x: H}
states: {h: H}
params: {a: H}
equations: |
  h[t] = sigmoid(a)*h[t-1] + x[t]
"""

FAR = """
name: far
inputs: {x: I}
states: {h: {shape: H, init: 0.5}}
params: {W: [H, I], V: [H, I], a: H}
equations: |
  h[t] = tanh(W @ x[t-1] + V @ x[t] + a*h[t-7])/t_now
"""


def directions(text: str) -> Directions:
    compiled = compile_cell(cell_from(text), "speed", registry.backend("cupy"))
    return Directions(compiled, {f"{item.name}[t]": item.name for item in compiled.cell.inputs}, ["j"], ["cuts"])


def both(text: str) -> tuple[Memory, Memory]:
    made = directions(text)
    forward, _ = made.forward_memory()
    backward, _ = made.backward_memory(forward)
    return forward, backward


def places(memory: Memory, owner: Owner) -> dict[str, tuple[str, Home]]:
    """Where what is read of one owner's lies."""
    return {name: (at.buffer.name, at.buffer.home) for name, at in memory.reads.items() if at.buffer.owner is owner}


def test_each_direction_has_its_own_kind_of_loop() -> None:
    def kinds(text: str) -> tuple[Kind, Kind]:
        made = directions(text)
        forward, ahead = made.forward_memory()
        return ahead.kind, made.backward_memory(forward)[1].kind

    assert kinds(GATED) == (Kind.STEP, Kind.STEP)
    assert kinds(APART) == (Kind.SEQUENCE, Kind.SEQUENCE)


def test_what_the_forward_step_gives_out() -> None:
    assert results(directions(GATED).compiled) == ("y", "h[t] last")
    assert results(directions(APART).compiled) == ("h[t]",), "of a state that is reset where it is read, its history tells"


def test_the_backward_direction_reads_what_the_forward_one_has_left() -> None:
    """On its tape, in the buffers that the forward direction has written; boundaries too."""
    forward, backward = both(GATED)
    tape = places(backward, Owner.TAPE)
    assert {"f", "h[t-1]"} <= tape.keys() <= {*forward.reads, "f", BOUNDARY_BEFORE, BOUNDARY_AFTER}
    assert all(forward.reads[name].buffer.name == called for name, (called, _) in tape.items())
    assert {home for _, home in tape.values()} <= {Home.SEQUENCE, Home.HISTORY}, "for every step"
    assert places(backward, Owner.BACKWARD)["d:y given"] == ("dy_all", Home.SEQUENCE)


def test_names_of_the_backward_direction_stay_clear_of_the_tape() -> None:
    forward, backward = both(GATED)
    left = {buffer.name for buffer in forward.buffers if buffer.home in (Home.SEQUENCE, Home.HISTORY)}
    own = {buffer.name for buffer in backward.buffers}
    assert left and own and not left & own


def test_the_final_states_cotangents_are_read_where_a_sample_ends() -> None:
    _, backward = both(APART)
    final = {name: at for name, at in backward.reads.items() if at.buffer.home is Home.FINAL}
    assert {at.buffer.name for at in final.values()} == {"d_h_final"}
    assert {at.buffer.element for at in final.values()} == {Element.EXACT}


def test_constants_are_loaded_where_kernels_read_them() -> None:
    """A matrix that products alone read is none of their business."""
    forward, _ = both(GATED)
    constants = {name for name, (_, home) in places(forward, Owner.FORWARD).items() if home is Home.CONSTANT}
    assert constants and not constants & {"W", "U"}


def test_inputs_that_products_read_lie_where_the_caller_has_them() -> None:
    forward, _ = both(GATED)
    assert places(forward, Owner.CALLER)["x[t]"] == ("x", Home.SEQUENCE)
    copied, _ = both(APART)
    assert places(copied, Owner.FORWARD)["x[t]"] == ("x_all", Home.SEQUENCE), "a kernel reads a copy"


def test_boundaries_are_a_slot_before_and_behind_each_step() -> None:
    forward, backward = both(APART)
    for memory in (forward, backward):
        found = boundaries_in(memory.flow)
        assert found and {at.buffer.name for at in found.values()} == {"cuts"}
        assert all(at.late == (name == BOUNDARY_AFTER) for name, at in found.items())


# --- earlier values ----------------------------------------------------------------------------------------------------


def test_streams_are_read_of_memory_of_their_own() -> None:
    """Earlier inputs are multiplied; the index of the step is kept in the type in which it is exact."""
    lagged = directions(FAR.replace("h[t-7]", "h[t-1]")).lagged
    assert lagged.lags and lagged.counts and not lagged.far
    found = {name: (at.buffer.name, at.buffer.home, at.buffer.element) for name, at in lagged.places.items()}
    assert found == {
        "x_lag1[t-1]": ("x_lag1_all", Home.HISTORY, Element.STORED),
        "t_now[t-1]": ("t_now_all", Home.HISTORY, Element.EXACT),
    }
    assert lagged.matrices.keys() == {"x_lag1[t-1]"}


def test_without_earlier_values_there_is_nothing_to_hold() -> None:
    lagged = directions(GATED).lagged
    assert not (lagged.far or lagged.lags or lagged.counts or lagged.places or lagged.attributes)


def test_a_far_state_is_read_by_rows_of_its_history() -> None:
    """What lies before the first row is the initial value."""
    made = directions(FAR)
    (each,) = made.lagged.far
    (ref,) = each.refs
    forward, _ = made.forward_memory()
    at = made.lagged.forward(forward.flow)[ref.label]
    assert forward.reads[ref.label] == at
    assert at.buffer.name == made.lagged.history(each) == "h_history" and at.otherwise == 0.5
    assert at.rows is not None and (at.rows.name, at.rows.element) == (made.lagged.rows(ref), Element.ROW)


def test_what_comes_back_from_a_lag_lies_in_rows_too() -> None:
    made = directions(FAR)
    forward, _ = made.forward_memory()
    backward, _ = made.backward_memory(forward)
    ((before, at),) = made.lagged.backward(backward.flow).items()
    assert before in backward.flow.program.befores and isinstance(at, Columns)
    (ref,) = made.lagged.far[0].refs
    assert (at.buffer.name, at.buffer.owner, at.buffer.element) == (made.lagged.back(ref), Owner.BACKWARD, Element.EXACT)
    assert at.rows is not None and at.rows.name == of_steps(made.lagged.back_rows(ref))


def test_the_memory_knows_the_names_of_both_directions_lags() -> None:
    made = directions(FAR)
    (each,) = made.lagged.far
    (ref,) = each.refs
    own = [made.lagged.history(each), made.lagged.rows(ref), made.lagged.back(ref), made.lagged.back_rows(ref)]
    assert set(own) <= set(made.lagged.attributes) <= set(made.attributes)
    assert {of_steps(name) for name in own} <= set(made.attributes)
