"""The text of modules for frameworks: what both have in common, without either of them."""

from __future__ import annotations

import ast

import pytest
import sympy
from frameworks_support import SAMPLE, cell

import cellspec
from cellspec import ir
from cellspec.backends import registry
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.spelling import MATH, NUMPY, Spelling, own_functions
from cellspec.backends.frameworks.directions import listed, unpacked, wrapped
from cellspec.backends.jax.spelling import JAX
from cellspec.backends.torch.spelling import TORCH
from cellspec.ir import Value
from cellspec.model.primitives import OPERATORS, PRIMITIVES
from cellspec.pipeline import compile_cell

H, N, D = sympy.symbols("H N D")
LIBRARIES = {"torch": TORCH, "jax": JAX}


def plain(spelling: Spelling, lead: str = "B", batched: bool = True) -> Plain:
    shapes = {"v": (H,), "w": (H,), "one": (sympy.Integer(1),), "M": (H, H), "heads": (N, D), "R": (N, D, D), "c": (H,)}
    values = {name: Value(name, shape, "") for name, shape in shapes.items()}
    return Plain(values, {name: name for name in values}, {}, batched, ("M", "R", "c"), "like", spelling, lead)


@pytest.mark.parametrize("spelling", LIBRARIES.values(), ids=LIBRARIES)
def test_every_primitive_and_operation_is_spelt(spelling: Spelling) -> None:
    pointwise = set(PRIMITIVES) - set(OPERATORS.values()) - {"neg", "identity", "where"}
    assert pointwise <= set(spelling.functions)
    assert set(NUMPY.operations) - {"ufunc"} <= set(spelling.operations), "what has words of its own is made of no ufuncs"
    assert set(TORCH.operations) == set(JAX.operations)


@pytest.mark.parametrize(
    ("op", "shape", "torch", "jax"),
    [
        (ir.MatMul("y", "M", "v"), (H,), "v @ M.T", "v @ M.T"),
        (ir.MatMul("y", "M", "v", left_t=True), (H,), "v @ M", "v @ M"),
        (
            ir.MatMul("y", "R", "heads"), (N, D),
            'torch.einsum("nmk,...nk->...nm", R, heads)', 'jnp.einsum("nmk,...nk->...nm", R, heads)',
        ),
        (
            ir.Concat("y", ("v", "c")), (2 * H,),
            "torch.cat((v, c.expand((T, B, H))), -1)", "jnp.concatenate((v, jnp.broadcast_to(c, (T, B, H))), -1)",
        ),
        (ir.Roll("y", "v", 2), (H,), "torch.roll(v, 2, -1)", "jnp.roll(v, 2, -1)"),
        (ir.CumSum("y", "v", True), (H,), "torch.cumsum(v.flip(-1), -1).flip(-1)", "jnp.cumsum(v[..., ::-1], -1)[..., ::-1]"),
        (ir.Largest("y", "v"), (1,), "_largest(v)", "_largest(v)"),
        (ir.Reshape("y", "v"), (H, 1), "v.reshape(T, B, H, 1)", "v.reshape(T, B, H, 1)"),
        (ir.SumTo("y", "v"), (1,), "torch.sum(v, -1, keepdim=True)", "jnp.sum(v, -1, keepdims=True)"),
        (ir.SumTo("y", "heads"), (1, D), "torch.sum(heads, -2, keepdim=True)", "jnp.sum(heads, -2, keepdims=True)"),
        (
            ir.SumTo("y", "heads"), (1,),
            "torch.sum(heads, (-2, -1), keepdim=True)[..., 0]", "jnp.sum(heads, (-2, -1), keepdims=True)[..., 0]",
        ),
        (ir.Stop("y", "v"), (H,), "v.detach()", "jax.lax.stop_gradient(v)"),
        (ir.Pointwise("y", ir.symbol("heads") * ir.symbol("one")), (N, D), "one[:, :, None]*heads", "one[:, :, None]*heads"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | tuple) else "",
)  # fmt: skip
def test_operations(op: ir.Op, shape: tuple[sympy.Expr, ...], torch: str, jax: str) -> None:
    shape = tuple(map(sympy.sympify, shape))
    assert [plain(spelling, "T, B").op(op, shape) for spelling in (TORCH, JAX)] == [torch, jax]


def test_numbers_stay_numbers() -> None:
    """A function of dims is Python's, which no array decides the dtype of."""
    root = PRIMITIVES["sqrt"].symbol(H)
    assert plain(TORCH).text(root * ir.symbol("v")) == "math.sqrt(H)*v"
    assert plain(NUMPY).text(root * ir.symbol("v")) == "float(np.sqrt(H))*v"
    for name in set(PRIMITIVES) - set(OPERATORS.values()) - {"neg", "identity"}:
        row = PRIMITIVES[name]
        text = plain(TORCH).number_call(name, [sympy.Rational(k + 1, 4) for k in range(row.arity)])
        value = eval(text, {"math": __import__("math")})
        expected = row.definition(*(sympy.Rational(k + 1, 4) for k in range(row.arity)))
        assert value == pytest.approx(float(expected)), name
    assert MATH


def test_helpers_are_noted() -> None:
    found = plain(TORCH)
    assert found.text(PRIMITIVES["clip"].symbol(ir.symbol("v"), 0, 1)) == "_minimum(_maximum(v, 0), 1)"
    assert found.helpers == {"maximum", "minimum"}
    assert own_functions("np.special_erf(_erf({0}))") == {"erf"}


def test_lines() -> None:
    assert wrapped("y = ", "a + b") == "y = a + b"
    long = " + ".join(f"value_{k}" for k in range(20))
    assert wrapped("y = ", long) == f"y = ({long})" and wrapped("y = ", f"f({long})") == f"y = f({long})"
    assert wrapped("y = ", f"f({long})*g({long})") == f"y = (f({long})*g({long}))"
    assert unpacked(["a"], "rows") == "(a,) = rows" and unpacked(["a", "b"], "rows") == "a, b = rows"
    assert listed(["a"]) == "(a,)" and listed([]) == "()"


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("name", SAMPLE)
def test_text(name: str, backend: str) -> None:
    """The same each time; equations in the loops; no long lines or names."""
    text = cellspec.generate(cell(name), backend)
    assert text == cellspec.generate(cell(name), backend)
    assert max(map(len, text.splitlines())) <= 120
    tree = ast.parse(text)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert max(map(len, names)) <= 40  # a derived parameter's name may be long
    forward, backward = text.split("def _backward(")[0], text.split("def _backward(")[1]
    for equation in cell(name).assignments:
        if equation.target.kind.name in ("STATE", "VALUE"):
            assert " ".join(equation.text.split())[:40] in " ".join(forward.replace("#", "").split())
    assert "# back " in backward


def test_a_delay_hands_on_by_rows() -> None:
    """To the backward step nothing comes by delays; what it hands on is added to rows, and the nearest row to the carry."""
    for backend, added in (("torch", "d_h_lags[:, 3] += d_h_lag5"), ("jax", "d_h_lags = d_h_lags.at[:, 3].add(d_h_lag5)")):
        compiled = compile_cell(cell("far"), "speed", registry.backend(backend))
        program = compiled.backward
        assert program.delays
        read = {name for op in program.ops for name in program.args(op)}
        assert not read & {delay.before for delay in program.delays}
        assert added in cellspec.generate(cell("far"), backend)
