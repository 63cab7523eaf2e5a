"""The memory of two passes: what the tape holds, what each pass has to itself, and what shares a block."""

from __future__ import annotations

import sympy

from cellspec.backends.arrays.expressions import Index, Library, Local, Method, Stretch, View, Word, reshaped
from cellspec.backends.arrays.statements import Bind, Call, Comment, Copy, Store, When
from cellspec.backends.memory.model import B, Buffer, Home, Owner, T
from cellspec.backends.numpy.direction import Boundary, Direction
from cellspec.backends.numpy.layout import lay_out
from cellspec.backends.numpy.text import Text

H = sympy.Symbol("H")
X = Word("x")


def sequence(name: str, owner: Owner) -> Buffer:
    return Buffer(name, (T, H, B), owner, Home.SEQUENCE)


STATE = Buffer("h_all", (T + 1, H, B), Owner.FORWARD, Home.HISTORY)
KEPT, LOST, OUT = (sequence(name, Owner.FORWARD) for name in ("kept", "lost", "out"))
BACK, D_X, D_W = (sequence(name, Owner.BACKWARD) for name in ("back", "d_x", "tmp"))
SMALL = Buffer("small", (H, B), Owner.BACKWARD)
BEFORE = View("h_prev", STATE, Index(STATE, (Stretch(stop=-1),)))

FORWARD = Direction(
    Text(
        buffers=[STATE, KEPT, LOST, OUT],
        views=[BEFORE],
        steps=[(Local("h"), STATE), (Local("k"), KEPT)],
        before=[Copy(LOST, X), Comment("k = x"), Copy(KEPT, LOST)],
        loop=[Call(Local("add"), (Local("h"),), Local("k"))],
        after=[Copy(OUT, STATE)],
    ),
    True,
    (Boundary(("h", Method(Index(STATE, (T,)), "copy")), (Store(Index(STATE, (0,)), X),)),),
    (reshaped(OUT, T, B, H),),
)
BACKWARD = Direction(
    Text(
        buffers=[BACK, D_X, D_W, SMALL],
        before=[Copy(BACK, Word("dy"))],
        steps=[(Local("h_prev"), BEFORE)],
        loop=[Copy(Local("h_prev"), SMALL)],
        after=[When(X, (Copy(D_W, BACK),)), Bind(Local("d_w"), D_W), Call(Library("add"), (KEPT, Local("d_w")), D_X)],
    ),
    False,
    (),
    (D_X,),
)
LAYOUT = lay_out(FORWARD, BACKWARD)


def test_the_tape_holds_what_the_backward_pass_reads() -> None:
    assert LAYOUT.saved.own == (STATE, KEPT)
    assert LAYOUT.saved.views == (BEFORE,)
    assert LAYOUT.lies == {STATE: Owner.TAPE, KEPT: Owner.TAPE}
    assert LAYOUT.saved.size() == sympy.expand((2 * T + 1) * H * B)


def test_results_and_what_does_not_grow_lie_in_their_pass() -> None:
    assert LAYOUT.forward.own == (OUT,)
    assert LAYOUT.backward.own == (D_X, SMALL)


def test_what_is_never_needed_at_once_shares_a_block() -> None:
    """What the forward pass alone needs is gone when the backward pass begins."""
    guests = {buffer: place.buffer.name for room in (LAYOUT.forward, LAYOUT.backward) for buffer, place in room.guests}
    assert set(guests) == {LOST, BACK, D_W}
    assert guests[LOST] in (guests[BACK], guests[D_W])
    assert guests[BACK] != guests[D_W]  # one is copied into the other
    assert {buffer for block in LAYOUT.guests for buffer in block} == set(guests)
    assert LAYOUT.scratch() == 2 * T * H * B


def test_moments_are_statements_one_by_one_and_the_loop_as_a_whole() -> None:
    moments = [list(items) for items in FORWARD.moments()]
    assert moments[0] == [Store(Index(STATE, (0,)), X)]
    assert moments[1:3] == [[Copy(LOST, X)], [Copy(KEPT, LOST)]]
    assert STATE in moments[3] and KEPT in moments[3]
    assert moments[-1] == [Method(Index(STATE, (T,)), "copy"), reshaped(OUT, T, B, H)]
    assert LAYOUT.steps == (2, 1)
