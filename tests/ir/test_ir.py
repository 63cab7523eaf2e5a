"""Operations, programs, and what makes a program well formed."""

from __future__ import annotations

import pytest
import sympy
from program_support import operations, program

from cellspec import ir
from cellspec.ir import Program, symbol
from cellspec.ir.ops import operands, outs, rename, with_out
from cellspec.ir.parse import parse_program
from cellspec.ir.program import Carry, Delay
from cellspec.ir.shapes import TypecheckError, is_one, outer, product, size, stretched, stretches, turned
from cellspec.ir.typecheck import typecheck
from cellspec.model.nodes import Shape

H, I, N = map(symbol, "HIN")  # noqa: E741
ONE = sympy.Integer(1)

# --- operations -------------------------------------------------------------------------------------------------------

OPERATIONS = {
    "z: [H] = b*tanh(a) + H": (["H", "a", "b"], "z: [H] = b*tanh(A) + H"),
    "z: [H] = a @ b": (["a", "b"], "z: [H] = A @ b"),
    "z: [H] = b.T @ a": (["b", "a"], "z: [H] = b.T @ A"),
    "y: [H], z: [H] = [a, b; b, b] @ [a; c]": (["a", "b", "b", "b", "a", "c"], "y: [H], z: [H] = [A, b; b, b] @ [A; c]"),
    "z: [H, H] = outer(b, a)": (["b", "a"], "z: [H, H] = outer(b, A)"),
    "z: [H] = [a, b, a]": (["a", "b", "a"], "z: [H] = [A, b, A]"),
    "z: [H] = stack(b, a)": (["b", "a"], "z: [H] = stack(b, A)"),
    "z: [H] = a[..., 0 : H]": (["a"], "z: [H] = A[..., 0 : H]"),
    "z: [H] = a.T": (["a"], "z: [H] = A.T"),
    "z: [H] = identity": ([], "z: [H] = identity"),
    "z: [H] = inv(a)": (["a"], "z: [H] = inv(A)"),
    "z: [H] = a[1]": (["a"], "z: [H] = A[1]"),
    "z: [H] = reshape(a)": (["a"], "z: [H] = reshape(A)"),
    "z: [H] = largest(a)": (["a"], "z: [H] = largest(A)"),
    "z: [H] = cumsum(a, reverse)": (["a"], "z: [H] = cumsum(A, reverse)"),
    "z: [H] = roll(a, 2)": (["a"], "z: [H] = roll(A, 2)"),
    "z: [H] = sum_to(a)": (["a"], "z: [H] = sum_to(A)"),
    "z: [H] = stop_gradient(a)": (["a"], "z: [H] = stop_gradient(A)"),
}
"""An operation, what it reads in its order, and what it is when ``a`` is called ``A``."""


@pytest.mark.parametrize("text", OPERATIONS)
def test_what_an_operation_reads_and_defines(text: str) -> None:
    (op,) = parse_program(text).ops
    reads, renamed = OPERATIONS[text]
    assert list(operands(op)) == reads
    assert rename(op, {"a": "A", "z": "other"}) == parse_program(renamed).ops[0]
    assert outs(op) == (("y", "z") if "y:" in text else ("z",))


@pytest.mark.parametrize("text", [text for text in OPERATIONS if "y:" not in text])
def test_another_result(text: str) -> None:
    (op,) = parse_program(text).ops
    (other,) = parse_program(text.replace("z:", "other:")).ops
    assert with_out(op, "other") == other


def test_names_may_change_places() -> None:
    (op,) = parse_program("z: [H] = a - 2*b").ops
    assert rename(op, {"a": "b", "b": "a"}) == parse_program("z: [H] = b - 2*a").ops[0]


# --- programs ---------------------------------------------------------------------------------------------------------

STEP = """
    constant  W: [H, H], k: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H], h[t-3]: [H]
      p: [H]    = W @ x[t]
      q: [H]    = p*H
      h[t]: [H] = h[t-1] + h[t-3]
      y: [H]    = p + 1
    carry     h[t-1] <- h[t]
    delay     h[t-3] <- h[t], 3 steps
    total     d:W = sum of p
    give out  y
"""


def test_what_a_program_is_asked() -> None:
    step = program(STEP)
    assert step.links == (Carry("h[t-1]", "h[t]"), Delay("h[t-3]", "h[t]", 3))
    assert step.befores == ("h[t-1]", "h[t-3]")
    assert step.afters == ("h[t]",), "once, though two read it"
    assert step.roots() == ("y", "h[t]", "p")
    assert step.shape("W") == (H, H)
    assert step.args(step.ops[1]) == ("p",), "a dim is no value"


def test_other_operations_and_their_values() -> None:
    """Values that nothing names any more go; what is given stays, read or not."""
    step = program(STEP)
    found = step.with_ops([op for op in step.ops if op.out != "q"])
    assert "q" not in found.values and "k" in found.values
    more = step.with_ops([*step.ops, ir.Pointwise("r", symbol("p"))], {"r": ir.Value("r", (H,), "")})
    assert more.shape("r") == (H,) and step.values.keys() | {"r"} == more.values.keys()
    assert operations(more).splitlines()[-2] == "r: [H] = p"


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert size((H, I + 1)) == H * I + H and size(()) == 1
    assert is_one(()) and is_one((ONE, ONE)) and not is_one((ONE, H))


@pytest.mark.parametrize(
    ("left", "right", "shape"),
    [
        ((H, I), (I,), (H,)),
        ((H, I), (I, N), (H, N)),
        ((N, H, I), (N, I), (N, H)),
        ((H, I), (H,), None),
        ((H, I), (), None),
        ((H,), (H,), None),
        ((N, H, I), (I,), None),
        ((N, H, I), (H, I), None),
    ],
)
def test_shapes_of_products(left: Shape, right: Shape, shape: Shape | None) -> None:
    assert product(left, right) == shape


def test_shapes_of_matrices() -> None:
    assert turned((H, I), True) == (I, H) and turned((H, I), False) == (H, I)
    assert turned((N, H, I), True) == (N, I, H), "each head's matrix"
    assert outer((H,), (I,)) == (H, I) and outer((N, H), (N, I)) == (N, H, I)


@pytest.mark.parametrize(
    ("small", "large", "fits"),
    [
        ((), (H,), True),
        ((ONE,), (H,), True),
        ((ONE,), (N, H), True),
        ((ONE, H), (N, H), True),
        ((H,), (H,), True),
        ((H,), (N, H), False),
        ((H,), (ONE,), False),
        ((ONE, ONE), (H,), False),
        ((I, H), (N, H), False),
    ],
)
def test_what_stretches(small: Shape, large: Shape, fits: bool) -> None:
    assert stretches(small, large) is fits


def test_what_values_stretch_to_together() -> None:
    assert stretched([(), (H,), (ONE,)]) == (H,)
    assert stretched([(H, ONE), (ONE, I)]) == (H, I)
    with pytest.raises(TypecheckError, match="shapes do not fit together"):
        stretched([(H,), (I,)])


# --- what is well formed ------------------------------------------------------------------------------------------------

HEAD = "constant W: [H, I], V: [3, H], K: [N, H, I], S: [H, H]\n sequence x[t]: [I], s: [H], g: [N, I], one: [1]"


def test_all_that_is_right() -> None:
    lines = """
        a: [H] = W @ x[t]
        b: [N, H] = K @ g
        c: [H] = a*one + H
        d: [H], e: [H] = [W, W; W, W] @ [x[t]; x[t]]
        f: [I] = W.T @ s
        i: [H, I] = outer(s, x[t])
        j: [H + I] = [s, x[t]]
        k: [I] = j[..., H : H + I]
        l: [I, H] = W.T
        m: [H, H] = inv(S)
        n: [H] = V[2]
        o: [2, H] = stack(s, s)
        p: [2*H] = reshape(o)
        q: [1] = largest(s)
        r: [1] = sum_to(s)
        u: [H] = roll(s, 3)
    """
    assert typecheck(parse_program(f"{HEAD}\n{lines}")).shape("u") == (H,)


@pytest.mark.parametrize(
    "line",
    [
        "a: [I] = W @ x[t]",
        "a: [H] = W.T @ x[t]",
        "a: [H] = K @ g",
        "a: [H] = s + x[t]",
        "a: [1] = s + one",
        "a: [H], b: [I] = [W; W] @ [x[t]]",
        "a: [H], b: [H] = [W.T; W.T] @ [x[t]]",
        "a: [I, H] = outer(s, x[t])",
        "a: [H] = [s, x[t]]",
        "a: [H] = s[..., 0 : I]",
        "a: [H, I] = W.T",
        "a: [H, I] = identity",
        "a: [H, I] = inv(W)",
        "a: [H] = V[3]",
        "a: [H] = V[-1]",
        "a: [3, H] = stack(s, s)",
        "a: [2*H] = reshape(s)",
        "a: [H] = largest(s)",
        "a: [1] = roll(s, 1)",
        "a: [I] = cumsum(s)",
        "a: [I] = stop_gradient(s)",
        "a: [I] = sum_to(s)",
    ],
)
def test_shapes_that_do_not_fit(line: str) -> None:
    with pytest.raises(TypecheckError, match="shapes do not fit in"):
        typecheck(parse_program(f"{HEAD}\n{line}"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a: [H] = b\n b: [H] = s", "'b' is read before it is defined"),
        ("a: [H] = roll(b, 1)", "'b' is read before it is defined"),
        ("a: [H] = `b c` + 1", "'b c' is read before it is defined"),
        ("a: [H] = s\n give out b", "values without a type: ['b']"),
        ("a: [H] = s\n carried h: [I]\n carry h <- a", "Carry(before='h', after='a') changes its shape"),
        ("give out y\n sequence y: [H]", None),
        ("total d:W = sum of q", "values without a type: ['q']"),
    ],
)
def test_what_is_not_well_formed(lines: str, message: str | None) -> None:
    step = parse_program(f"{HEAD}\n{lines}")
    if message is None:
        assert typecheck(step) == step
        return
    with pytest.raises(TypecheckError) as error:
        typecheck(step)
    assert message in str(error.value)


def twice(step: Program) -> Program:
    """The program with its operations once more."""
    return Program(step.values, step.constants, step.sequences, step.carries, step.ops * 2, step.outputs)


def test_each_value_is_defined_once() -> None:
    with pytest.raises(TypecheckError, match="'a' is defined twice"):
        typecheck(twice(parse_program(f"{HEAD}\n a: [H] = s")))


def test_a_result_must_be_defined() -> None:
    step = parse_program(f"{HEAD}\n a: [H] = s\n give out a")
    with pytest.raises(TypecheckError, match="the result 'a' is never defined"):
        typecheck(Program(step.values, step.constants, step.sequences, (), (), step.outputs))


def test_no_number_that_is_none() -> None:
    step = parse_program(f"{HEAD}\n a: [H] = s/0")
    with pytest.raises(TypecheckError, match="'a' is not a number"):
        typecheck(step)
