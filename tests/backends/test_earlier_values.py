"""Earlier values as backends see them: streams behind one another, and states that hold several."""

from __future__ import annotations

import pytest
from support import cell_from

from cellspec.backends.lags import counts, far, far_inputs, far_states, follower, streams
from cellspec.cell import Cell

HEAD = """
name: earlier
inputs: {x: I, u: H}
states: {h: H}
params: {W: [H, I], U: [H, H]}
"""


def cell(equation: str) -> Cell:
    return cell_from(HEAD + f"equations: |\n  {equation}\n")


def test_a_stream_follows_an_input_or_another_stream() -> None:
    found = streams(cell("h[t] = tanh(W @ x[t] + W @ x[t-2] + u[t-1] + U @ h[t-1])"))
    one, two, other = found
    assert [stream.value for stream in found] == ["x_lag1[t-1]", "x_lag2[t-1]", "u_lag1[t-1]"]
    assert (one.follows, two.follows, other.follows) == ("x", one, "u")
    assert follower(found, "x") is one and follower(found, one) is two and follower(found, two) is None


def test_the_index_of_the_step_follows_nothing() -> None:
    (index,) = streams(cell("h[t] = tanh(W @ x[t] + u[t] + U @ h[t-1])/t_now"))
    assert counts((index,)) and not counts(()) and index.follows is None and index.value == "t_now[t-1]"
    assert follower((index,), "x") is None


def test_earlier_states_are_no_streams() -> None:
    """They are known step by step alone."""
    found = cell("h[t] = tanh(W @ x[t] + u[t] + U @ h[t-2])")
    assert streams(found) == () and far(found) == ()


@pytest.mark.parametrize("reach", [9, 500])
def test_far_states_hold_several_values_however_many(reach: int) -> None:
    """Those of states first; with the references that are read, the nearest first."""
    found = cell(f"h[t] = tanh(W @ x[t-{reach}] + W @ x[t-1] + u[t] + U @ h[t-{reach}])")
    of_state, of_input = far(found)
    assert (of_state.source, of_state.reach, of_state.of_input) == ("h", reach, False)
    assert (of_input.source, of_input.reach, of_input.of_input) == ("x", reach, True)
    assert far_states(found) == {"h": of_state} and far_inputs(found) == {"x": of_input}
    assert of_input.farthest == of_input.refs[-1] and of_state.farthest.steps == reach
    assert [ref.back for ref in of_input.refs] == [1, reach] and of_input.state.rows == reach
    assert streams(found) == (), "a state of several rows is none"
