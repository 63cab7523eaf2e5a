"""What statements read: buffers where a value has one to itself, views of them where not, and what comes from outside."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy
from numpy_support import emitter_of, printer, spelt
from test_emit import BACK, LATE
from test_emit import GATES as BIASED
from test_packing import GATES, KEPT

from cellspec.backends.arrays.expressions import Attribute, Index, Local, Stretch, Word
from cellspec.backends.memory.model import B, Buffer, Home, Owner, Phase, T
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.orientation import BATCH_MAJOR, FEATURE_MAJOR
from cellspec.backends.numpy.products import Products
from cellspec.backends.numpy.views import Views

H, I = sympy.symbols("H I")  # noqa: E741


def views(text: str = GATES, **options: object) -> Views:
    emitter = emitter_of(text, **options)  # type: ignore[arg-type]
    emitter.run()
    return emitter.views


def text_of(made: Views, *names: str, phase: Phase = Phase.AFTER, split: tuple[sympy.Expr, ...] = ()) -> str:
    """What statements of a phase call neighbours, and what that is a name of."""
    made.phase = phase
    found, spell = made.operand(names, split), printer(made.around.owner).text
    over = {name: expression for name, expression in made.text.steps}
    return spell(over[found]) if isinstance(found, Local) and found in over else spell(found)


# --- memory ------------------------------------------------------------------------------------------------------


def test_a_value_with_a_buffer_to_itself_has_no_view() -> None:
    made = views(LATE)
    assert text_of(made, "b") == "ws.b" and "b" not in {view.name for view in made.text.views}


def test_neighbours_are_views_of_their_buffer() -> None:
    made = views(keep=KEPT)
    spell = printer().text
    assert {view.name: spell(view.expression) for view in made.text.views if view.buffer.name == "i_f_z"} == {
        "i": "ws.i_f_z[:, :H]", "f": "ws.i_f_z[:, H:2*H]", "z": "ws.i_f_z[:, 2*H:]", "i_f": "ws.i_f_z[:, :2*H]",
    }  # fmt: skip
    assert text_of(made, "i", "f", "z") == "ws.i_f_z"


def test_a_state_before_a_step_is_the_row_before() -> None:
    """Forwards it may be another in a call with masks; backwards steps go the other way."""
    made = views(LATE)
    (before,) = [view for view in made.text.views if view.name == "h_prev"]
    assert printer().text(before.expression) == "ws.h_all[:-1] if not ws.apart else empty((T, H, B), dtype)"
    assert text_of(made, "h[t-1]", phase=Phase.LOOP) == "ws.h_all[:-1]"
    assert text_of(made, "h[t]") == "ws.h"
    (buffer,) = [b for b in made.text.buffers if b.home is Home.HISTORY]
    assert buffer.axes == (T + 1, H, B)


def test_a_backward_carry_has_one_place_for_all_steps() -> None:
    made = views(BACK, owner=Owner.BACKWARD)
    assert made.storage.home("p") is Home.STEP
    assert all(b.home is not Home.HISTORY for b in made.text.buffers)


@pytest.mark.parametrize(
    ("orientation", "axes"),
    [
        (FEATURE_MAJOR, {"b": (T, H, B), "h_all": (T + 1, H, B)}),
        (BATCH_MAJOR, {"b": (T, B, H), "h_all": (T + 1, B, H)}),
    ],
    ids=["feature-major", "batch-major"],
)
def test_axes(orientation: object, axes: dict[str, tuple[sympy.Expr, ...]]) -> None:
    made = views(LATE.replace("b: [H]    = a", "b: [H] = 2*a"), orientation=orientation)
    found = {b.name: b.axes for b in made.text.buffers}
    assert {name: found[name] for name in axes} == axes


def test_a_product_over_all_steps_has_its_rows_first() -> None:
    """And is read as any sequence."""
    made = views()
    (flat,) = [b for b in made.text.buffers if b.home is Home.FLAT]
    assert flat.axes == (3 * H, T, B) and flat.name.endswith("_flat")
    assert any(printer().text(view.expression).endswith(".transpose(1, 0, 2)") for view in made.text.views)


# --- what comes from outside -----------------------------------------------------------------------------------------

GIVEN = """
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      h[t]: [H] = h[t-1]*x[t]
    carry     h[t-1] <- h[t]
    give out  h[t]
"""


def test_the_callers_arrays_are_brought_into_the_layout_once() -> None:
    """Where samples come first they have it, and are run over with the call; what outlives a call with the memory."""
    found = spelt(emitter_of(GIVEN))
    assert found["before"] == ["np.copyto(ws.x_rows, x)"] and "x_t in ws.x_rows" in found["over"]
    found = spelt(emitter_of(GIVEN, orientation=BATCH_MAJOR))
    assert "before" not in found and "x_t in x" in found["over"]
    fixed = emitter_of(GIVEN, fixed=("x[t]",)).run()
    assert [name.name for name, _ in fixed.steps].count("x") == 1 and not fixed.fresh and not fixed.before


def test_names_of_what_is_given() -> None:
    made = views()
    assert made.called(Attribute(Word("dy"), "h")) == "dy_h"
    assert made.called(Buffer("h_all", (T, H, B), Owner.FORWARD)) == "h_all"
    assert made.called(Buffer("h_all", (T, H, B), Owner.TAPE)) == "saved_h_all"


# --- constants -------------------------------------------------------------------------------------------------------


def test_a_constant_is_spread_over_samples_once() -> None:
    """However often it is read: ufuncs are faster on arrays of equal shapes."""
    found = spelt(emitter_of(BIASED.replace("+ Uf@h", "+ Uf@h*b")))
    assert found["prologue"].count("np.copyto(b_batch, b[:, None])") == 1
    assert any("b_batch" in line for line in found["loop"])
    single = emitter_of(GIVEN.replace("*x[t]", "*x[t]*s").replace("sequence", "constant s: [1]\n    sequence"))
    assert not any("batch" in line for lines in spelt(single).values() for line in lines), "a number stretches by itself"


def test_a_scaled_parameter_is_multiplied_into_its_place() -> None:
    step = LATE.replace("tanh(x[t]) + k", "tanh(x[t])*k")
    assert "np.multiply(c[:, None], 3, out=k_batch)" in [
        line.replace(name, "k_batch")
        for line in spelt(emitter_of(step))["prologue"]
        for name in ("c_scaled_batch", "k_batch")
        if name in line
    ]


# --- weights and matrices ----------------------------------------------------------------------------------------------


def products(text: str, **options: object) -> tuple[Emitter, Products]:
    emitter = emitter_of(text, **options)  # type: ignore[arg-type]
    return emitter, emitter.products


def test_weights_of_one_stack_are_filled_once() -> None:
    lines = spelt(emitter_of(GATES, keep=KEPT))["prologue"]
    fills = [line for line in lines if line.startswith("np.copyto(U")]
    assert len(fills) == len(set(fills)) == 3
    emitter, made = products(GATES, keep=KEPT)
    emitter.run()
    (product,) = [step for step in emitter.views.storage.steps[Phase.LOOP] if hasattr(step, "weights")]
    count = len(emitter.text.buffers)
    assert made.weights(product) == made.weights(product) and len(emitter.text.buffers) == count


def test_a_matrix_alone_is_read_where_it_is() -> None:
    _, made = products(LATE)
    emitter = emitter_of(LATE)
    found = spelt(emitter)
    assert any(line.startswith("np.matmul(W, ") for line in found["after"])
    assert not any(b.axes == (I, H) for b in emitter.text.buffers)
    assert made.flats == {}


def test_stretches_follow_one_another() -> None:
    _, made = products(GATES)
    found = made.stretches([H, I, 2 * H])
    assert [(s.start, s.stop) for s in found] == [(0, H), (H, H + I), (H + I, 3 * H + I)]


def test_a_sequence_as_a_matrix_is_copied_once() -> None:
    """Its gradients, its sum and the product of a part of it read the same copy."""
    emitter, made = products(BACK, owner=Owner.BACKWARD)
    emitter.run()
    totals = {total.target: Local(total.target) for total in emitter.views.program.totals}
    made.gradients(totals)
    lines = printer(Owner.BACKWARD).lines(emitter.text.after)
    assert sum("_columns(" in line for line in lines) == 1
    assert made.flats["e",] == Index(made.flats["e", "f"], (Stretch(sympy.S.Zero, H),))
    gradient = [line for line in lines if line.startswith("np.matmul(") and "x_2d" in line]
    assert len(gradient) == 1, "cotangents side by side share one product"
    assert {"dV", "dW", "db", "dc"} == {line.partition(" = ")[0] for line in lines if line[0] == "d"}


def test_one_total_of_several_parts_adds_up() -> None:
    text = BACK.replace("total     dW", "total     dV")
    emitter, made = products(text, owner=Owner.BACKWARD)
    emitter.run()
    made.gradients({target: Local(target) for target in ("db", "dc", "dV")})
    lines = printer(Owner.BACKWARD).lines(emitter.text.after)
    assert sum(line.startswith("dV = ") for line in lines) == 2
    assert sum(line.startswith("dV = dV + ") for line in lines) == 1


def test_names_are_granted_by_wishes() -> None:
    """Two values that want one name have two; a block is called after its members."""
    made = views(keep=KEPT)
    block = made.storage.block(["i", "f"])
    assert block is not None and made.block_name(block) == "i_f"
    assert made.block_name(replace(block, stop=block.start + 1)) == "i"
