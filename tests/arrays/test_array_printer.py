"""The printer of array code: how each part is spelt, and whose a buffer is where."""

from __future__ import annotations

import pytest
import sympy

from cellspec import ir
from cellspec.backends.arrays.expressions import (
    ELLIPSIS,
    EVERYTHING,
    NONE,
    REVERSED,
    SAMPLES,
    TRUE,
    Apply,
    Attribute,
    Binary,
    Choice,
    Expression,
    Formula,
    Helper,
    Index,
    Items,
    Library,
    Literal,
    Local,
    Method,
    Not,
    Number,
    OfMemory,
    Stretch,
    Table,
    View,
    Word,
    reshaped,
)
from cellspec.backends.arrays.printer import Printer, Seat
from cellspec.backends.arrays.statements import (
    Bind,
    BindAll,
    Call,
    Comment,
    Copy,
    Increase,
    Out,
    Perform,
    Statement,
    Store,
    When,
)
from cellspec.backends.memory.model import B, Buffer, Owner, Place, T
from cellspec.ir import Program, Value

H = sympy.Symbol("H")
A = Buffer("a", (T, H, B), Owner.FORWARD)
X, W = Local("x"), Attribute(Word("params"), "W")
SEAT = Seat(Owner.FORWARD, "ws", {Owner.FORWARD: "ws", Owner.TAPE: "saved"})


def printer(**lies: Owner) -> Printer:
    return Printer({"T": "T_", "H": "H"}, SEAT, {A: lies["a"]} if lies else {})


def formula(expr: sympy.Expr) -> Formula:
    values = {"W": Value("W", (H,), ""), "V": Value("V", (H,), "")}
    op = ir.Pointwise("V", expr)
    program = Program(values, ("W",), (), (), (op,), ("V",))
    return Formula("V", op, program, (("W", W),))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (X, "x"),
        (A, "ws.a"),
        (View("low", A, A), "ws.low"),
        (W, "params.W"),
        (OfMemory("apart"), "ws.apart"),
        (reshaped(A, SAMPLES, 4 * H, -1), "ws.a.reshape(T*B, 4*H, -1)"),
        (Index(X, (Stretch(H, 2 * H), EVERYTHING, None, ELLIPSIS, 0)), "x[H:2*H, :, None, ..., 0]"),
        (Index(X, (REVERSED, Stretch(stop=-1), Stretch(sympy.S.Zero, H))), "x[::-1, :-1, 0:H]"),
        (Items((X,)), "(x,)"),
        (Items((T + 1, B, H)), "(T + 1, B, H)"),
        (Table(((1, A), (3, X))), "{1: ws.a, 3: x}"),
        (Literal("ij->i"), '"ij->i"'),
        (Literal(float("inf")), "np.inf"),
        (TRUE, "True"),
        (Number(sympy.Rational(1, 4)), "0.25"),
        (Number(2 * sympy.Symbol("T")), "2*T_"),
        (Apply(Library("roll"), (X, 1), (("axis", -1),)), "np.roll(x, 1, axis=-1)"),
        (Binary("+", X, W), "x + params.W"),
        (Binary("*", X, W), "x*params.W"),
        (Choice(Not(OfMemory("apart")), A, NONE), "ws.a if not ws.apart else None"),
    ],
)
def test_expressions(expression: Expression, text: str) -> None:
    assert printer().text(expression) == text


TOTAL = Call(Local("total"), (X,), A, keywords=(("axis", 0),), options=(("keepdims", TRUE),))
FUNCTIONS = BindAll((Local("add"), Local("total")), (Library("add"), Library("add.reduce")))


@pytest.mark.parametrize(
    ("statement", "lines"),
    [
        (Comment("h = x"), ["# h = x"]),
        (Bind(X, Method(A, "copy")), ["x = ws.a.copy()"]),
        (FUNCTIONS, ["add, total = np.add, np.add.reduce"]),
        (Call(Local("add"), (X, X), A, Out.LAST), ["add(x, x, ws.a)"]),
        (Call(Library("sum"), (X,), A, keywords=(("axis", 0),)), ["np.sum(x, axis=0, out=ws.a)"]),
        (TOTAL, ["total(x, axis=0, out=ws.a, keepdims=True)"]),
        (Copy(A, X), ["np.copyto(ws.a, x)"]),
        (Store(Index(A, (0,)), X), ["ws.a[0] = x"]),
        (Increase(A, X), ["ws.a += x"]),
        (Perform(Apply(X, (A,)), (A,)), ["x(ws.a)"]),
        (When(OfMemory("apart"), (Copy(A, X), Increase(A, 1))), ["if ws.apart:", "    np.copyto(ws.a, x)", "    ws.a += 1"]),
    ],
)
def test_statements(statement: Statement, lines: list[str]) -> None:
    assert printer().statement(statement) == lines


def test_a_buffer_is_spelt_by_whose_it_is() -> None:
    low = View("low", A, Index(A, (0,)))
    spelt = printer(a=Owner.TAPE)
    assert (spelt.text(A), spelt.text(low)) == ("saved.a", "saved.low")
    with pytest.raises(KeyError):  # a part of the memory that is not seen from there
        printer(a=Owner.SCRATCH).text(A)


def test_names_are_those_that_the_printer_has_been_given() -> None:
    names = {Owner.FORWARD: {"x": "x_2", "a": "a_2", "low": "low_2"}, Owner.BACKWARD: {"x": "x_3"}}
    spelt = Printer({}, SEAT, {A: Owner.TAPE}, names)
    low = View("low", A, Index(A, (0,)))
    assert spelt.text(Items((X, Word("x"), A, low))) == "(x_2, x, saved.a_2, saved.low_2)"
    assert spelt.attribute(low) == "low_2"
    behind = Printer({}, Seat(Owner.BACKWARD, "ws", {Owner.TAPE: "saved"}), {A: Owner.TAPE}, names)
    assert behind.text(Items((X, A))) == "(x_3, saved.a_2)"  # a buffer is called as its maker calls it


def test_a_place_is_a_buffer_from_somewhere_on() -> None:
    assert printer().place(Place(A)) == "ws.a"
    assert printer().place(Place(A, 2 * H)) == "ws.a[2*H:]"


def test_a_formula_stands_in_parentheses_inside_others() -> None:
    half = formula(ir.symbol("W") / 2)
    assert printer().text(Index(half, (None,))) == "(0.5*params.W)[None]"
    assert printer().statement(Bind(X, half)) == ["x = 0.5*params.W"]


def test_helpers_are_noted_where_they_are_printed() -> None:
    spelt = printer()
    assert spelt.text(Apply(Helper("columns"), (X, A))) == "_columns(x, ws.a)"
    sigmoid = sympy.Function("sigmoid")
    spelt.text(formula(sigmoid(ir.symbol("W"))))
    assert spelt.helpers == {"columns", "sigmoid"}
