"""Shapes and rules: what an expression is made of operands, and what is said where they do not fit together."""

from __future__ import annotations

import pytest
import sympy
from spec_support import expression, said, scope

from cellspec.language.check.product_rules import along, concat, inverse, outer, product, rolled, transposed
from cellspec.language.check.scope import Role
from cellspec.language.check.typed import Clash, Typed
from cellspec.language.check.typing_rules import Typer
from cellspec.model.nodes import Concat, Const, DimValue, Kind, MatMul, Member, Node, Ref, Shape

H, I, K, N = sympy.symbols("H I K N")  # noqa: E741
ONE = sympy.Integer(1)


def given(name: str, *shape: sympy.Expr, varies: bool = False) -> Typed:
    """An operand of this shape."""
    return Typed(expression(name), Ref(name, Kind.VALUE if varies else Kind.PARAM, shape), varies)


W, U, b, v = given("W", H, I), given("U", H, H), given("b", H), given("v", I, varies=True)
HEADS, EACH = given("Q", N, H, I), given("g", N, I, varies=True)
STATE = Typed(expression("C[t-1]"), Ref("C", Kind.PREVIOUS, (H, I)), True)
NUMBER = Typed(expression("2"), Const(2), False)

# --- what is not pointwise ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "shape"),
    [
        (W, v, (H,)),
        (HEADS, v, (N, H)),
        (HEADS, EACH, (N, H)),
        (U, W, (H, I)),
        (STATE, v, (H,)),
    ],
)
def test_products(left: Typed, right: Typed, shape: Shape) -> None:
    assert product(left, right) == MatMul(left.node, right.node, shape)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (W, b, "cannot multiply 'W' of shape [H, I] and 'b' of shape [H] with '@': I is not H"),
        (b, W, "with '@': the left side must be a matrix; write 'W.T @ b'"),
        (v, W, "with '@': the left side must be a matrix; write 'W @ v'"),
        (b, b, "the left side must be a matrix; products of vectors are written with * or dot(a, b)"),
        (W, NUMBER, "the right side must be a vector or a matrix; write * for numbers"),
        (W, HEADS, "the right side has more than two axes"),
        (HEADS, given("g", K, I), "N is not K"),
        (HEADS, given("g", N, K), "I is not K"),
        (U, STATE, "a product of two matrices is for params and derived params, but 'C[t-1]' changes from step to step"),
        (W, given("X", K, I, varies=True), "for each of K heads the matrix needs an axis of its own"),
    ],
)
def test_products_that_do_not_fit(left: Typed, right: Typed, message: str) -> None:
    with pytest.raises(Clash) as clash:
        product(left, right)
    assert message in str(clash.value)


def test_matrices_made_of_params() -> None:
    assert transposed(W).shape == (I, H) and inverse(U).shape == (H, H)
    assert outer(b, v).shape == (H, I)


@pytest.mark.parametrize(
    ("rule", "operands", "message"),
    [
        (transposed, (b,), "'.T' needs a matrix, but 'b' of shape [H] is none"),
        (transposed, (HEADS,), "'.T' needs a matrix"),
        (transposed, (STATE,), "a matrix state can be kept transposed, with outer(v, u) for outer(u, v)"),
        (inverse, (W,), "inv needs a square matrix, but 'W' of shape [H, I] is none"),
        (inverse, (given("M", H, H, varies=True),), "inv is for params and derived params, but 'M' changes from step to step"),
        (outer, (W, b), "outer needs two vectors, but 'W' of shape [H, I] is none"),
        (outer, (b, NUMBER), "outer needs two vectors, but '2' of shape [] is none"),
    ],
)
def test_operands_that_are_none(rule: object, operands: tuple[Typed, ...], message: str) -> None:
    with pytest.raises(Clash) as clash:
        rule(*operands)  # type: ignore[operator]
    assert message in str(clash.value)


@pytest.mark.parametrize(
    ("function", "args", "shape"),
    [
        ("sum", (b,), (ONE,)),
        ("mean", (EACH,), (N, ONE)),
        ("softmax", (b,), (H,)),
        ("cumsum", (EACH,), (N, I)),
        ("dot", (b, given("s", ONE)), (ONE,)),
    ],
)
def test_functions_along_the_last_axis(function: str, args: tuple[Typed, ...], shape: Shape) -> None:
    assert along(function, args).shape == shape


def test_a_number_has_no_axis() -> None:
    with pytest.raises(Clash, match="sum runs along the last axis, but '2' is a number and has none"):
        along("sum", (NUMBER,))
    with pytest.raises(Clash, match="roll needs a vector"):
        rolled(NUMBER, 1)
    with pytest.raises(Clash, match=r"dot cannot combine 'b' of shape \[H\] and 'v' of shape \[I\]"):
        along("dot", (b, v))


def test_lists() -> None:
    whole = expression("[b, v]")
    assert concat((b, v), whole) == Concat((b.node, v.node), (H + I,))
    assert concat((b,), whole) == b.node, "a list of one is that one"
    assert concat((EACH, given("k", N, K)), whole).shape == (N, I + K)
    with pytest.raises(Clash, match="only their last axes may differ"):
        concat((EACH, b), whole)
    with pytest.raises(Clash, match="a list is made of vectors, but '2' of shape"):
        concat((b, NUMBER), whole)


# --- expressions ----------------------------------------------------------------------------------------------------------


def typed(text: str) -> tuple[Typed | None, list[str]]:
    """The type of an expression over what :data:`spec_support.DECLARED` declares and a value ``y: [H]``, and what is said."""
    names = scope()
    entry = names.declare("y", Role.VALUE, names.entries["W"].at)
    assert entry is not None
    entry.shape, entry.varies = (H,), True
    return Typer(names).type(expression(text)), said(names)


@pytest.mark.parametrize(
    ("text", "shape", "varies"),
    [
        ("W @ x[t] + b", (H,), True),
        ("U @ b", (H,), False),
        ("2*b + n", (H,), False),
        ("y**2", (H,), True),
        ("sigma(y)", (H,), True),
        ("where(y > 0, 1, 2)", (H,), True),
        ("where(n > 1, b, x[t])", (H,), False),
        ("sum(y)*c[t-1]", (H, K), True),
        ("R[1] @ h[t-1]", (H,), True),
        ("E @ x[t]", (K, H), True),
        ("h[t-2]", (H,), True),
        ("t_now", (ONE,), True),
        ("eye(2*H)", (2 * H, 2 * H), False),
        ("roll(y, n - 1)", (H,), True),
        ("stop_gradient(y)", (H,), True),
        ("outer(y, x[t])", (H, I), True),
        ("[y, b]", (2 * H,), True),
        ("sqrt(H)", (), False),
    ],
)
def test_shapes(text: str, shape: Shape, varies: bool) -> None:
    found, messages = typed(text)
    assert found is not None and (found.shape, found.varies, messages) == (shape, varies, [])


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("-2", Const(-2)),
        ("n", Const(2)),
        ("H", DimValue(H)),
        ("b", Ref("b", Kind.PARAM, (H,))),
        ("y", Ref("y", Kind.VALUE, (H,))),
        ("h[t]", Ref("h", Kind.STATE, (H,))),
        ("h[t-1]", Ref("h", Kind.PREVIOUS, (H,))),
        ("x[t]", Ref("x", Kind.INPUT, (I,))),
        ("R[n - 1]", Member(Ref("R", Kind.PARAM, (sympy.Integer(2), H, H)), 1, (H, H))),
    ],
)
def test_nodes(text: str, node: Node) -> None:
    found, messages = typed(text)
    assert found is not None and found.node == node and not messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b + x[t]", "cannot add 'b' of shape [H] and 'x[t]' of shape [I]"),
        ("x[t] - b", "cannot subtract 'b' of shape [H] from 'x[t]' of shape [I]"),
        ("max(b, x[t])", "max cannot combine 'b' of shape [H] and 'x[t]' of shape [I]"),
        ("y/0", "division by zero"),
        ("y/(n - 2)", "division by zero"),
        ("0**-1", "division by zero"),
        ("y**b", "the exponent 'b' is not a constant"),
        ("y**(50*n)", "the exponent '50*n' is beyond 64"),
        ("y < 2", "a comparison stands only as the condition of where(condition, a, b)"),
        ("where(y, 1, 2)", "the condition of where is a comparison such as 'a < b', not 'y'"),
        ("where(b > x[t], 1, 2)", "cannot compare 'b' of shape [H] and 'x[t]' of shape [I]"),
        ("where(y > 0, b, x[t])", "where cannot combine 'y > 0' of shape [H] and 'x[t]' of shape [I]"),
        ("tanh(y, y)", "'tanh' takes 1 argument, not 2"),
        ("max(y)", "'max' takes 2 arguments, not 1"),
        ("log(0)", "'log(0)' is a constant, but no finite real number"),
        ("h[t+1]", "'h[t+1]' lies in the future: an equation reads h[t] at the latest"),
        ("y[t-1]", "'y' is an intermediate, which lasts one step: declare it as a state to read y[t-1]"),
        ("W[t]", "'W' is a param and takes no [t]: write W"),
        ("h[0]", "'h' is a state: write h[t] or h[t-1], not h[0]"),
        ("W[0]", "'W' is a param and no family: write W, not W[0]"),
        ("R[2]", "there is no R[2]: 'R' has R[0] and R[1]"),
        ("R[-1]", "'R[-1]' is no member of 'R': members are counted 0, 1, 2 and so on"),
        ("R[y]", "the index of 'R[y]' is no constant"),
        ("h[2*t]", "the subscript of 'h[2*t]' is neither t nor a constant number of steps before it, as in t-1"),
        ("h[t-2000]", "'h[t-2000]' reaches too far back: all lags of a cell together are 1000 steps at most"),
        ("eye(0)", "an axis has at least size 1, but '0' is 0"),
        ("roll(y, 0.5)", "roll shifts by a constant whole number, not by '0.5'"),
    ],
)
def test_what_has_no_type(text: str, message: str) -> None:
    found, messages = typed(text)
    assert found is None and len(messages) == 1 and messages[0].startswith(message)


def test_a_mistake_is_told_once() -> None:
    """Whatever contains an expression without a type is silent."""
    found, messages = typed("tanh(2*(b + x[t])) @ (b + x[t])")
    assert found is None and messages == ["cannot add 'b' of shape [H] and 'x[t]' of shape [I]"] * 2


def test_nothing_is_said_of_unknown_names() -> None:
    """They have been reported before."""
    assert typed("q + unknown(b)*r[t]") == (None, [])
