"""Elaboration: what a right spec becomes. What a wrong one is told stands in ``tests/invalid/elab_*.yaml``."""

from __future__ import annotations

import dataclasses
import random
import time
from pathlib import Path

import pytest
import sympy
from support import clock

from cellspec.cell import Cell
from cellspec.errors import SpecError
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import load_spec, parse_spec
from cellspec.language.spec import Initialiser
from cellspec.language.unparse import source
from cellspec.model.equations import Equation
from cellspec.model.nodes import (
    Along,
    Apply,
    Concat,
    Const,
    DimValue,
    Eye,
    Inverse,
    Kind,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    StopGradient,
    Transpose,
    children,
    refs,
)
from cellspec.model.shapes import broadcast

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "specs", ROOT / "tests" / "valid", ROOT / "tests" / "valid_language")
SPECS = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]
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
        kinds = {ref.kind for ref in refs(one.value)}
        moving = bool(kinds & {Kind.INPUT, Kind.PREVIOUS, Kind.STATE, Kind.VALUE})
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
            heads = left.shape[:-2] if len(right.shape) == len(left.shape) - 1 else ()
            assert left.shape[-1] == right.shape[len(heads)] and heads == right.shape[: len(heads)]
            assert shape == (*left.shape[:-1], *right.shape[len(heads) + 1 :])
        case Along(function=function, args=args, shape=shape):
            longest = max((arg.shape[-1:] for arg in args), key=lambda axis: axis not in ((), (1,)))
            axes = shape if function in ("softmax", "cumsum") else (*shape[:-1], *longest)
            assert all(broadcast(arg.shape, axes) == axes for arg in args) and (shape == axes or shape[-1] == 1)
        case OuterProduct(left=left, right=right, shape=shape):
            assert shape == (*left.shape, *right.shape) and len(shape) == 2
        case Member(family=family, shape=shape):
            assert shape == family.shape[1:]
        case Inverse(operand=operand, shape=shape):
            assert shape == operand.shape and len(shape) == 2 and shape[0] == shape[1]
        case Transpose(operand=operand, shape=shape):
            assert shape == operand.shape[::-1] and len(shape) == 2
        case Concat(parts=parts, shape=shape):
            assert shape[-1] == sympy.expand(sympy.Add(*(part.shape[-1] for part in parts))) and len(parts) > 1
            assert {part.shape[:-1] for part in parts} == {shape[:-1]}
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


# --- loops and families ------------------------------------------------------------------------------------------------

DEEP = """
name: deep
inputs: {x: I}
states: {h: H}
params: {W: [H, I], R: {shape: [H, H], repeat: L, init: identity}, b: {shape: H, repeat: 2}}
hyper: {L: 2}
equations: |
  s[0] = W @ x[t]
  for l in range(0, L):
      s[l+1] = tanh(R[l] @ s[l])
  h[t] = s[L] + b[0]*b[1]*h[t-1]
"""


def labels(cell: Cell) -> list[str]:
    return [one.target.label for one in cell.assignments]


def test_families_of_params_have_their_length_in_front() -> None:
    made = elaborate(parse_spec(DEEP))
    W, R, b = made.params
    assert (W.shape, W.repeat, R.shape, R.repeat, b.shape, b.repeat) == ((H, IN), None, (2, H, H), 2, (2, H), 2)
    assert (R.init, b.init) == (Initialiser("identity"), Initialiser("constant", (0.0,)))
    family = Ref("R", Kind.PARAM, (sympy.Integer(2), H, H))
    product = MatMul(Member(family, 1, (H, H)), Ref("s[1]", Kind.VALUE, (H,)), (H,))
    assert equation(made, "s[2]").value == Apply("tanh", (product,), (H,))
    assert equation(made, "s[2]").text == "s[2] = tanh(R[1] @ s[1])"


def test_hyperparameters_unroll() -> None:
    made = elaborate(parse_spec(DEEP, settings={"L": "4"}))
    assert labels(made) == ["s[0]", "s[1]", "s[2]", "s[3]", "s[4]", "h[t]"] and made.params[1].repeat == 4


def test_a_loop_of_no_turn_uses_its_names() -> None:
    made = elaborate(parse_spec(DEEP.replace("range(0, L)", "range(2, L)").replace("s[L]", "s[0]")))
    assert labels(made) == ["s[0]", "h[t]"]


def test_the_turns_of_a_loop_keep_their_order() -> None:
    head = HEAD.replace("U: [H, H], b: H, k: 1", "")
    lines = "for l in range(2):\n  a[l] = W @ x[t]\n  for k in range(l, 3):\n    c[3*l + k] = a[l]*k\nh[t] = h[t-1]"
    text = f"{head}equations: |\n" + "".join(f"  {line}\n" for line in lines.split("\n"))
    made = elaborate(parse_spec(text.replace("h[t] = h[t-1]", "h[t] = c[0] + c[1] + c[2] + c[4] + c[5] + a[0]")))
    assert labels(made) == ["a[0]", "c[0]", "c[1]", "c[2]", "a[1]", "c[4]", "c[5]", "h[t]"]


@pytest.mark.parametrize(
    ("equations", "own"),
    [
        ("s[0] = h[t-1] + W @ x[t]", {"s[0]"}),
        ("s[2] = W @ x[t]\n  h[t] = s[2] + b[0]*b[1]*s[1]", {"s[2]", "h[t]"}),
        ("for k in range(0, L): s[k+1] = sigmoid(R[k] @ s[k])", {"s[1]", "s[2]"}),
        ("for l in range(0, 3): s[l] = R[1] @ R[0] @ (W @ x[t])*l", {"s[0]", "s[1]", "s[2]"}),
        ("s[3] = s[2]*2\n  h[t] = s[3] + b[0]*b[1]*h[t-1]", {"s[3]", "h[t]"}),
    ],
)
def test_an_heir_replaces_members(equations: str, own: set[str], tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text(DEEP)
    (tmp_path / "heir.yaml").write_text(f"name: heir\nextends: deep\nequations: |\n  {equations}\n")
    made = elaborate(load_spec(tmp_path / "heir.yaml"))
    origins = {one.target.label: Path(one.at.file).stem for one in made.assignments}
    assert origins == dict.fromkeys(("s[0]", "s[1]", "s[2]", "h[t]"), "deep") | dict.fromkeys(own, "heir")


def test_what_only_replaced_members_read_is_unused(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text(DEEP)
    (tmp_path / "heir.yaml").write_text("name: heir\nextends: deep\nequations: |\n  for l in range(2): s[l+1] = 2*s[l]\n")
    with pytest.raises(SpecError) as caught:
        elaborate(load_spec(tmp_path / "heir.yaml"))
    assert [diagnostic.message for diagnostic in caught.value.diagnostics] == ["param 'R' is not used by any equation"]


def test_a_family_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text(DEEP)
    text = "name: heir\nextends: deep\nremove: [s, R]\nequations: |\n  h[t] = W @ x[t] + b[0]*b[1]\n"
    (tmp_path / "heir.yaml").write_text(text)
    assert labels(elaborate(load_spec(tmp_path / "heir.yaml"))) == ["h[t]"]


def test_an_equation_in_a_loop_may_stand_on_several_lines() -> None:
    text = DEEP.replace("tanh(R[l] @ s[l])", "tanh(R[l]  # first\n          @ s[l]\n     )")
    assert equation(elaborate(parse_spec(text)), "s[1]").text == "s[1] = tanh(R[0] @ s[0])"


def nested(depth: int, turns: int) -> str:
    """Loops within loops."""
    heads = [f"{' ' * k}for a{k} in range({turns}):" for k in range(depth)]
    return "\n".join([*heads, f"{' ' * depth}s[0] = x[t]"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("for a in range(0, 2000): s[a] = x[t]", "more than 1000 equations, with the loops unrolled"),
        ("for a in range(0, 10**15): s[a] = x[t]", "more than 1000 equations, with the loops unrolled"),
        ("for a in range(0, 10**15):\n    for b in range(0, 0): s[a] = x[t]", "more than 10000 turns"),
        ("for a in range(0, 99):\n   for b in range(0, 99): s[a] = x[t]", "more than 1000 equations, with the loops unrolled"),
        (f"for a in range(0, 900): s[a] = {' + '.join(['x[t]'] * 90)}", "more than 60000 names, numbers and operators"),
        (nested(120, 2), "deeper than 100"),
        (nested(90, 2), "more than 1000 equations"),
        (nested(90, 1), "family 's' is read by no equation"),
        (f"for a in range(0, 500): s[a] = x[t-999]*a*{'(' * 90}x[t]{')' * 90}\n", "family 's' is read by no equation"),
    ],
)
def test_hostile_loops_are_refused_quickly(body: str, message: str) -> None:
    lines = "".join(f"  {line}\n" for line in body.split("\n"))
    start = clock()
    with pytest.raises(SpecError) as caught:
        elaborate(parse_spec(f"name: c\ninputs: {{x: H}}\nstates: {{h: H}}\nequations: |\n  h[t] = x[t] + h[t-1]\n{lines}"))
    assert time.process_time() - start < 2
    assert len(caught.value.diagnostics) == 1 and message in caught.value.diagnostics[0].message


# --- local functions ---------------------------------------------------------------------------------------------------


def calling(equation: str, *functions: tuple[str, str]) -> str:
    """A spec with one equation and its functions."""
    block = "".join(f'  "{head}": {body}\n' for head, body in functions)
    return f"name: c\ninputs: {{x: H}}\nstates: {{h: H}}\nfunctions:\n{block}equations: |\n  h[t] = {equation}\n"


def test_a_call_is_the_body_with_the_arguments_in_it() -> None:
    made = elaborate(parse_spec(calling("gated(x[t], h[t-1])", ("gated(v, w)", "sigmoid(v)*w + v"))))
    plain = elaborate(parse_spec(calling("sigmoid(x[t])*h[t-1] + x[t] + f()*0", ("f()", "0"))))
    value = plain.assignments[0].value
    assert isinstance(value, Apply) and made.assignments[0].value == value.args[0]
    assert made.assignments[0].text == "h[t] = gated(x[t], h[t-1])"


def test_an_argument_is_typed_once_and_shared() -> None:
    made = elaborate(parse_spec(calling("double(tanh(x[t])) + h[t-1]", ("double(v)", "v*v + v"))))
    body = made.assignments[0].value.args[0]  # type: ignore[union-attr]
    square, single = body.args  # type: ignore[union-attr]
    assert square.args[0] is square.args[1] is single


def test_arguments_hide_names_of_the_spec_and_nothing_else_does() -> None:
    """The v of ``inner`` is the spec's, also where it is inlined into a function that has an argument of that name."""
    functions = '  "inner(a)": a + v\n  "outer_(v)": inner(v)*2\n  "hidden(h, x)": h - x\n'
    head = "name: c\ninputs: {x: H}\nstates: {h: H}\nparams: {v: H}\n"
    lines = "  h[t] = outer_(x[t]) + hidden(x[t], h[t-1])\n"
    made = elaborate(parse_spec(f"{head}functions:\n{functions}equations: |\n{lines}"))
    plain = elaborate(parse_spec(f"{head}equations: |\n  h[t] = (x[t] + v)*2 + (x[t] - h[t-1])\n"))
    assert made.assignments[0].value == plain.assignments[0].value


def test_functions_are_inherited_key_by_key(tmp_path: Path) -> None:
    functions = (("f(v)", "g(v) + 1"), ("g(v)", "2*v"), ("k(v, w)", "v + w"))
    (tmp_path / "base.yaml").write_text(calling("k(f(x[t]), h[t-1])", *functions).replace("name: c", "name: base"))
    heir = 'name: heir\nextends: base\nfunctions: {"g(a)": 3*a, "n(v)": tanh(v)}\nequations: |\n  h[t] = n(f(x[t])) + h[t-1]\n'
    (tmp_path / "heir.yaml").write_text(heir)
    made = elaborate(load_spec(tmp_path / "heir.yaml"))
    plain = elaborate(parse_spec(calling("tanh(3*x[t] + 1) + h[t-1] + f()*0", ("f()", "0"))))
    assert made.assignments[0].value == plain.assignments[0].value.args[0]  # type: ignore[union-attr]


def test_an_inherited_function_that_is_not_called_need_not_make_sense(tmp_path: Path) -> None:
    base = calling("f(x[t]) + h[t-1]", ("f(v)", "g(v)*b"), ("g(v)", "v")).replace("name: c", "name: base\nparams: {b: H}")
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "heir.yaml").write_text("name: heir\nextends: base\nremove: [b]\nequations: |\n  h[t] = x[t] + h[t-1]\n")
    assert len(elaborate(load_spec(tmp_path / "heir.yaml")).assignments) == 1


def chain(length: int, body: str, first: str) -> list[tuple[str, str]]:
    """Functions of which each calls the one before."""
    return [("f0(v)", first), *((f"f{k}(v)", body.format(f"f{k - 1}")) for k in range(1, length))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (calling("f39(x[t])", *chain(40, "{0}(v) + {0}(v)", "v + v")), "'f11' comes to more than 5000"),
        (calling("f39(x[t])", *chain(40, "{0}({0}(v))", "v*v")), "'f3' comes to more than 5000"),
        (calling(f"{'f(' * 90}x[t]{')' * 90}", ("f(v)", "v*v")), "'f' comes to more than 5000"),
        (calling("f299()", ("f0()", "x[t]"), *((f"f{k}()", f"f{k - 1}()") for k in range(1, 300))), "deeper than 100"),
        (calling("f299(x[t])", *chain(300, "-{0}(v)", "v")), "nested deeper than 100"),
        (calling("+".join(["f(x[t])"] * 90), ("f(v)", "+".join(["v"] * 90))), "more than 5000"),
        (calling(f"{'k(' * 80}b(b(x[t])){')' * 80}", ("b(v)", "+".join(["v"] * 60)), ("k(v)", "1 + b(v) - b(v)")), "than 5000"),
        (calling("f(x[t])", ("f(v)", " + ".join(["v"] * 9000))), "longer than 20000 characters"),
    ],
)
def test_functions_that_grow_are_refused_quickly(text: str, message: str) -> None:
    start = clock()
    with pytest.raises(SpecError) as caught:
        elaborate(parse_spec(text.replace("h[t] = ", "h[t] = h[t-1] + ")))
    assert time.process_time() - start < 2
    assert len(caught.value.diagnostics) == 1 and message in caught.value.diagnostics[0].message


def test_many_calls_are_refused_quickly() -> None:
    lines = "".join(f"  s[{k}] = {' + '.join(['f(x[t], 1)'] * 60)}\n" for k in range(900))
    text = calling("h[t-1] + s[0]", ("f(v, w)", "+".join(["v*w"] * 40)))
    start = clock()
    with pytest.raises(SpecError, match="more than 60000 names, numbers and operators in all") as caught:
        elaborate(parse_spec(text + lines[: len(lines) // 9]))
    assert len(caught.value.diagnostics) == 1 and time.process_time() - start < 2


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
    start = clock()
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
