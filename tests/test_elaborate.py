"""Elaboration: what a right spec becomes. What a wrong one is told stands in ``tests/invalid/elab_*.yaml``."""

from __future__ import annotations

import dataclasses
import random
import time
from pathlib import Path

import pytest
import sympy

from cellspec.cell import (
    Apply,
    Cell,
    Concat,
    Const,
    DimValue,
    Equation,
    Eye,
    Kind,
    MatMul,
    Node,
    Ref,
    Roll,
    StopGradient,
    Transpose,
    children,
    refs,
)
from cellspec.elaborate import elaborate
from cellspec.errors import SpecError
from cellspec.loader import load_spec, parse_spec
from cellspec.shapes import broadcast
from cellspec.spec import Initialiser
from cellspec.unparse import source

ROOT = Path(__file__).resolve().parent.parent
SPECS = [*sorted((ROOT / "specs").glob("*.yaml")), *sorted((ROOT / "tests" / "valid").glob("*.yaml"))]
H, IN = sympy.symbols("H I")
HEAD = """
name: cell
inputs: {x: I}
states: {h: H}
params: {W: [H, I], U: [H, H], b: H, k: 1}
"""


def cell(equations: str, head: str = HEAD, **settings: str) -> Cell:
    """The cell of a text; ``h[t]`` reads every param and the input, so that nothing is unused."""
    block = "\n".join(f"  {line.strip()}" for line in equations.strip().splitlines())
    return elaborate(parse_spec(f"{head}equations: |\n{block}\n", settings=settings))


def value(expression: str, **settings: str) -> Node:
    """The typed form of ``expression`` among equations that use all the names."""
    head = HEAD + "outputs: [v]\nhyper: {n: 2, eps: 0.5}\nactivations: {sigma: sigmoid}\n"
    text = f"v = ({expression}) + 0*h[t]\nh[t] = sigma(W @ x[t] + U @ h[t-1] + b*k*n*eps)"
    typed = equation(cell(text, head, **settings), "v").value
    assert isinstance(typed, Apply) and typed.function == "add"
    return typed.args[0]


def equation(cell: Cell, label: str) -> Equation:
    """The equation with this left side."""
    return next(equation for equation in cell.assignments if equation.target.label == label)


def messages(equations: str, head: str = HEAD) -> list[str]:
    """What is reported for a text."""
    with pytest.raises(SpecError) as caught:
        cell(equations, head)
    return [diagnostic.message for diagnostic in caught.value.diagnostics]


# --- whole cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_cell_is_well_typed_and_ordered(path: Path) -> None:
    made = elaborate(load_spec(path))
    known = {Ref(p.name, Kind.PARAM, p.shape) for p in made.params} | {Ref(i.name, Kind.INPUT, i.shape) for i in made.inputs}
    known |= {Ref(s.name, Kind.PREVIOUS, s.shape) for s in made.states}
    seen_step = False
    for one in made.assignments:
        assert set(refs(one.value)) <= known, one.text
        assert broadcast(one.value.shape, one.target.shape) == one.target.shape
        assert one.text.startswith(one.target.label) and "\n" not in one.text
        derived = one.target.kind is Kind.DERIVED
        assert not (derived and seen_step), "derived parameters come first"
        seen_step = seen_step or not derived
        moving = {ref.kind for ref in refs(one.value)} & {Kind.INPUT, Kind.PREVIOUS, Kind.STATE, Kind.VALUE}
        assert derived == (not moving and one.target.kind is not Kind.STATE)
        check_shapes(one.value)
        known.add(one.target)
    assert set(made.outputs) <= known and made.outputs
    shapes = [p.shape for p in made.params] + [i.shape for i in made.inputs] + [s.shape for s in made.states]
    assert {symbol.name for shape in shapes for axis in shape for symbol in axis.free_symbols} == set(made.dims)


def check_shapes(node: Node) -> None:
    """The shape that each node carries is the one that its operands give it."""
    for child in children(node):
        check_shapes(child)
    match node:
        case Const() | DimValue():
            assert node.shape == ()
        case Apply(args=args, shape=shape):
            assert all(broadcast(arg.shape, shape) == shape for arg in args)
        case MatMul(left=left, right=right, shape=shape):
            assert left.shape[1] == right.shape[0] and shape == (left.shape[0], *right.shape[1:])
        case Transpose(operand=operand, shape=shape):
            assert shape == operand.shape[::-1] and len(shape) == 2
        case Concat(parts=parts, shape=shape):
            assert shape == (sympy.expand(sympy.Add(*(part.shape[0] for part in parts))),) and len(parts) > 1
        case Roll(operand=operand, shape=shape) | StopGradient(operand=operand, shape=shape):
            assert shape == operand.shape
        case Eye(shape=shape):
            assert len(set(shape)) == 1 and len(shape) == 2


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_order_of_the_file_does_not_matter(path: Path) -> None:
    spec = load_spec(path)
    expected = {(one.target, one.value) for one in elaborate(spec).assignments}
    for seed in range(3):
        shuffled = list(spec.equations)
        random.Random(seed).shuffle(shuffled)
        made = elaborate(dataclasses.replace(spec, equations=tuple(shuffled)))
        assert {(one.target, one.value) for one in made.assignments} == expected


def test_a_sorted_file_keeps_its_order() -> None:
    made = cell("z = W @ x[t]\na = U @ h[t-1]\nm = z + a + b\nh[t] = tanh(m)*k")
    assert [one.target.label for one in made.assignments] == ["z", "a", "m", "h[t]"]


def test_derived_parameters_come_first_each_after_what_it_reads() -> None:
    made = cell("z = W @ x[t]\nh[t] = A @ h[t-1] + z + s*b\nA = B - B.T\nB = U*s\ns = sigmoid(k) + 0*c\nc = sqrt(k*k)")
    assert [one.target.label for one in made.assignments] == ["c", "s", "B", "A", "z", "h[t]"]
    assert [one.target.kind for one in made.assignments] == [Kind.DERIVED] * 4 + [Kind.VALUE, Kind.STATE]


def test_what_a_file_leaves_out_has_its_default() -> None:
    made = elaborate(
        parse_spec(
            "name: cell\ninputs: {x: I}\nstates: {h: H, c: {shape: H, init: -.inf}}\n"
            "params: {W: [H, I], b: H, f: {shape: H, init: {chrono: 9}, trainable: false}}\n"
            "equations: |\n  h[t] =   tanh(W @ x[t]\n     + b)\n  c[t] = max(c[t-1], h[t]*f)\n"
        )
    )
    assert made.dims == ("I", "H")
    assert made.outputs == (Ref("h", Kind.STATE, (H,)),)
    assert [state.init for state in made.states] == [0.0, float("-inf")]
    inits = [Initialiser("glorot_uniform"), Initialiser("constant", (0.0,)), Initialiser("chrono", (9,))]
    assert [param.init for param in made.params] == inits
    assert [param.trainable for param in made.params] == [True, True, False]
    assert equation(made, "h[t]").text == "h[t] = tanh(W @ x[t] + b)"


def test_settings_change_hyperparameters_and_activations() -> None:
    head = HEAD + "hyper: {n: 2}\nactivations: {sigma: sigmoid}\n"
    made = cell("h[t] = sigma(W @ x[t] + U @ h[t-1])**n + b*k", head, sigma="hard_sigmoid", n="3")
    assert made.hyper == (("n", 3),) and made.activations == (("sigma", "hard_sigmoid"),)
    assert made.settings == (("n", "3"), ("sigma", "hard_sigmoid"))
    power = equation(made, "h[t]").value
    assert isinstance(power, Apply) and isinstance(power.args[0], Apply)
    base, exponent = power.args[0].args
    assert isinstance(base, Apply) and base.function == "hard_sigmoid" and exponent == Const(3)


# --- expressions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "shape"),
    [
        ("1", ()),
        ("H/I + n", ()),
        ("k", (1,)),
        ("k*2", (1,)),
        ("b*k", (H,)),
        ("W @ x[t]", (H,)),
        ("W.T @ b", (IN,)),
        ("U @ W", (H, IN)),
        ("(U @ U - U.T*k + eye(H)/2) @ h[t-1]", (H,)),
        ("[h[t-1], x[t]]", (H + IN,)),
        ("[b, [x[t], b], k]", (2 * H + IN + 1,)),
        ("roll(x[t], 1 - n)", (IN,)),
        ("stop_gradient(W)", (H, IN)),
        ("where(k < b, 1, 0)", (H,)),
        ("clip(1, k, b)", (H,)),
        ("eye(2*I + 1)", (2 * IN + 1, 2 * IN + 1)),
        ("eye(n)", (2, 2)),
        ("U**2", (H, H)),
    ],
)
def test_shapes(expression: str, shape: tuple[sympy.Expr, ...]) -> None:
    head = HEAD + "outputs: [v]\nhyper: {n: 2, eps: 0.5}\n"
    made = cell(f"z = {expression}\nv = h[t]\ny = where(1 > 0, b, z)\nh[t] = W @ x[t] + U @ y*k*n*eps + h[t-1]", head)
    assert equation(made, "z").target.shape == shape


def test_names_are_resolved() -> None:
    b = Ref("b", Kind.PARAM, (H,))
    assert value("b") == b
    assert value("h[t-1]") == value("h[t - 1]") == value("h[t-n+1]") == Ref("h", Kind.PREVIOUS, (H,))
    assert value("h[t]") == value("h[t+0]") == Ref("h", Kind.STATE, (H,))
    product = MatMul(Ref("W", Kind.PARAM, (H, IN)), Ref("x", Kind.INPUT, (IN,)), (H,))
    assert value("W @ x[t]") == product
    assert value("n") == Const(2) and value("eps", eps="0.25") == Const(0.25)
    assert value("H") == DimValue(H)
    assert value("sigma(b)") == Apply("sigmoid", (b,), (H,))
    assert value("-2") == Const(-2) and value("-b") == Apply("neg", (b,), (H,))


def test_exponents_are_folded() -> None:
    b = Ref("b", Kind.PARAM, (H,))
    for text, exponent in [("2", 2), ("-n", -2), ("(n + 1)", 3), ("(1/n)", 0.5), ("eps", 0.5), ("(n*eps)", 1), ("n**2", 4)]:
        node = value(f"b**{text}")
        assert node == Apply("pow", (b, Const(exponent)), (H,)), text
        assert isinstance(node, Apply) and type(node.args[1].value) is type(exponent)  # type: ignore[union-attr]


def test_constants_decide_conditions() -> None:
    b = Ref("b", Kind.PARAM, (H,))
    assert value("where(n > 1, b, W @ x[t])") == b
    assert value("where(n > 1, b, W @ x[t])", n="0") != b
    assert value("where(n - 2 == 0, where(1 >= n, U @ U, b), U)") == b
    condition = value("where(b != k, 1, b)")
    assert condition == Apply("where", (Apply("ne", (b, Ref("k", Kind.PARAM, (1,))), (H,)), Const(1), b), (H,))


def test_a_branch_that_is_not_taken_makes_no_cycle() -> None:
    made = cell("h[t] = W @ x[t] + U @ h[t-1] + a + b*k\na = where(1 < 0, c, 2)*b\nc = a + 1")
    assert [one.target.label for one in made.assignments] == ["a", "c", "h[t]"]


# --- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_mistake_is_told_once() -> None:
    text = "a = W @ x[t] + missing\nc = a*2 + U @ a\nd = [a, c]\nh[t] = d + U @ h[t-1] + b*k"
    assert messages(text) == ["unknown name 'missing'"]


def test_a_suggested_name_is_not_unused_too() -> None:
    assert messages("h[t] = WW @ x[t] + U @ h[t-1] + b*k") == ["unknown name 'WW'; did you mean 'W'?"]


def test_assigned_twice_within_a_spec_made_by_hand() -> None:
    spec = parse_spec(HEAD + "equations: |\n  h[t] = W @ x[t] + U @ h[t-1] + b*k\n")
    with pytest.raises(SpecError, match=r"'h\[t\]' is assigned twice; first in line 7"):
        elaborate(dataclasses.replace(spec, equations=spec.equations * 2))


def test_many_equations_are_quick() -> None:
    chain = [f"v{k} = U @ v{k - 1} + b*k" for k in range(990, 0, -1)]
    start = time.process_time()
    made = cell("\n".join(["h[t] = v990", *chain, "v0 = h[t-1] + W @ x[t]"]))
    assert made.assignments[-1].target.label == "h[t]" and len(made.assignments) == 992
    assert len(messages("\n".join(["h[t] = W @ x[t]", *(f"w{k} = u{k} + f{k}(g{k})" for k in range(990))]))) > 3 * 990
    circle = messages("\n".join(["h[t] = W @ x[t] + v990", *chain, "v0 = v990"]))
    assert len(circle) == 1 and circle[0].startswith("cycle within one step: v990 -> v989 -> ") and len(circle[0]) < 200
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "text",
    [
        "a + b*(c - d)",
        "a - b - (c - d) + (e + f)",
        "-(a + b)*c",
        "(-a)**2",
        "a**-2",
        "a/b/(c*d)*e",
        "W @ [h[t-1], x[t]] + b",
        "W @ U @ (U.T @ h[t-1])",
        "where(a < b + 1, sigma(c), 0.5)",
        "(W + U).T",
    ],
)
def test_messages_quote_the_source(text: str) -> None:
    spec = parse_spec(f"{HEAD}equations: |\n  h[t] = {text}\n")
    assert source(spec.equations[0].value) == text


def test_a_long_source_is_cut() -> None:
    spec = parse_spec(f"{HEAD}equations: |\n  h[t] = {' + '.join(['something'] * 50)}\n")
    text = source(spec.equations[0].value)
    assert len(text) < 65 and " … " in text
