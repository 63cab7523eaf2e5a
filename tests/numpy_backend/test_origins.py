"""Where values come from: places among neighbours; and the backend's passes, which tell steps and repetitions apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy
from program_support import program
from support import ROOT, cell_from, cell_of

from cellspec.backends.common import Common
from cellspec.backends.numpy.backend import BACKEND
from cellspec.backends.numpy.origins import AGAIN, marked, ranks
from cellspec.backends.numpy.rewrites import FINISH, POLICY, REWRITES, kept_carries, single_step, tanh_forms
from cellspec.backends.numpy.segments import segments
from cellspec.ir import Pointwise
from cellspec.pipeline import BACKWARD, compile_cell

PLAIN = """
    constant  U: [H, H]
    sequence  x[t]: [H], y[t]: [H]
      n: [H] = tanh(y[t])
      f: [H] = sigmoid(x[t])
      g: [H] = sigmoid(y[t])
      e: [H] = exp(x[t])
      a: [H] = n*f
      b: [H] = a*g
      m: [H] = U @ b
    give out  m, e
"""


def ranked(text: str) -> list[str]:
    """The values in the order of their equations' places, each an equation of its own."""
    step = program(text)
    values = {name: replace(value, origin=name) for name, value in step.values.items()}
    found = ranks(replace(step, values=values))
    return sorted(found, key=found.__getitem__)


def test_logistic_gates_come_first_the_latest_used_foremost() -> None:
    """Then hyperbolic tangents, other functions, and all else in its order."""
    assert ranked(PLAIN) == ["g", "f", "n", "e", "a", "b", "m"]
    sooner = PLAIN.replace("a: [H] = n*f", "a: [H] = n*g").replace("b: [H] = a*g", "b: [H] = a*f")
    assert ranked(sooner)[:2] == ["f", "g"]


def test_an_equation_of_several_values_has_the_place_of_its_function() -> None:
    step = program(PLAIN)
    values = {n: replace(v, origin="f" if n in ("f", "a") else n) for n, v in step.values.items()}
    found = ranks(replace(step, values=values))
    assert found["f"][0] == 0 and "a" not in found


def test_what_is_computed_again_is_told_apart() -> None:
    step = program(PLAIN)
    step = replace(step, values={n: replace(v, origin=n) for n, v in step.values.items()})
    found = marked(step, ["f"])
    assert found.values["f"].origin == f"f{AGAIN}" and found.values["g"].origin == "g"
    assert found.ops == step.ops and marked(step, []) == step


# --- the passes of the backend ----------------------------------------------------------------------------------------

LSTM = cell_of(ROOT / "specs" / "lstm.yaml")


def test_names_of_passes_are_those_that_people_are_shown() -> None:
    assert (*BACKEND.rewrites, *BACKEND.finish) == (*REWRITES, *FINISH) and BACKEND.policy == POLICY
    assert POLICY.block_products, "weights of several operands are one matrix"


def test_a_step_alone_keeps_nothing_for_a_backward_pass() -> None:
    state = compile_cell(LSTM)
    assert state.kept, "the forward pass keeps gates"
    given_out = (*state.forward.outputs, *state.kept)
    single = single_step(replace(state, forward=replace(state.forward, outputs=given_out))).single
    assert set(single.outputs) == {"h[t]", "c[t]"} and not single.carries, "and it hands on nothing"


def test_logistic_functions_are_hyperbolic_tangents_where_nothing_is_lost() -> None:
    before = single_step(compile_cell(LSTM))
    after = tanh_forms(before)
    assert functions(before.forward) >= {"sigmoid", "tanh"}
    assert functions(after.forward) == functions(after.single) == {"tanh"}
    assert set(after.forward.outputs) >= set(after.kept), "what is kept is there again"


def functions(step: object) -> set[str]:
    """The functions that a program calls."""
    ops = step.ops  # type: ignore[attr-defined]
    found = {type(node).__name__ for op in ops if isinstance(op, Pointwise) for node in op.expr.atoms(sympy.Function)}
    return found


def test_carries_that_are_read_late_are_copied_in_the_backward_pass() -> None:
    """The forward pass has them all."""
    cell = cell_from(
        """name: late
inputs: {x: H}
states: {h: H}
params: {b: H, a: H}
equations: h[t] = a*h[t-1] + b*x[t]
"""
    )
    state = compile_cell(cell, target=BACKEND)
    schedule = state.schedules[BACKWARD]
    late = {name for name in schedule.program.values if name.endswith(" kept")}
    again = kept_carries(state).schedules[BACKWARD]
    assert again == schedule, "once is enough"
    ends = {end for carry in schedule.program.carries for end in (carry.before, carry.after)}
    read = {g.right for g in schedule.gradients} | {total.value for total in schedule.sums}
    assert not ends & read and all(schedule.program.values[name].shape for name in late)


# --- segments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (
            "{x: H}", "[h]",
            {
                "x_part": "x[start:stop]", "dy_part": "dy[start:stop]", "y": "empty((T, B, H), dtype)",
                "y_parts": [("y", "y_part")], "d_x_parts": [("d_x", "grads.x")],
            },
        ),
        (
            "{x: H, m: [H, H]}", "[h, g]",
            {
                "x_part": "Inputs(*(each[start:stop] for each in x))",
                "dy_part": "Outputs(*(each[start:stop] for each in dy))",
                "y": "Outputs(empty((T, B, H), dtype), empty((T, B, H), dtype))",
                "d_x": "Inputs(empty((T, B, H), dtype), empty((T, B, H, H), dtype))",
                "y_parts": [("y.h", "y_part.h"), ("y.g", "y_part.g")],
                "d_x_parts": [("d_x.x", "grads.x.x"), ("d_x.m", "grads.x.m")],
            },
        ),
    ],
    ids=["one", "several"],
)  # fmt: skip
def test_arrays_in_segments(inputs: str, outputs: str, expected: dict[str, object]) -> None:
    """One array is taken apart by its steps, several are each of them."""
    summed = "" if inputs == "{x: H}" else " + m[t] @ x[t]"
    cell = cell_from(f"""name: parts
inputs: {inputs}
states: {{h: H, g: H}}
outputs: {outputs}
params: {{b: H}}
equations: |
  g[t] = b*x[t] + g[t-1]
  h[t] = tanh(g[t]) + h[t-1]{summed}
""")
    found = segments(cell, Common(compile_cell(cell), ()))
    assert {key: found[key] for key in expected} == expected
    assert found["starts"] == [(name, "(len(self.bounds), B, H)") for name in ("h", "g")]
