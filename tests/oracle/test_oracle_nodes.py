"""The oracle's reading of each node: against numbers worked out here, and its ways of differentiating against one another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy
from by_hand import (
    add,
    after,
    along,
    before,
    cell,
    concat,
    derived,
    eye,
    inverse,
    matmul,
    member,
    mul,
    op,
    outer,
    param,
    roll,
    stop,
    stream,
    transpose,
    value,
)
from support import Array, generator

from cellspec import oracle
from cellspec.cell import Cell
from cellspec.model.nodes import STEP_INDEX, DimValue, Node
from cellspec.oracle.primitives import rule
from cellspec.verification.sampling import CONDITION, MARGIN, Sample, sample

D, H, I, K, N = sympy.symbols("D H I K N")  # noqa: E741
SIZES = {"D": 3, "H": 4, "I": 2, "K": 5, "N": 2}

x, dt, h, m = stream("x", I), stream("dt", 1), before("h", H), before("m", 1)
W, U, b, M = param("W", H, I), param("U", H, H), param("b", H), param("M", H, H)
driven = add(matmul(W, x), matmul(U, h), b)
heads, C, q = before("n", N, D), before("C", H, H), value("q", H)
R, V, E = param("R", N, D, D), param("V", N, D, I), param("E", N, D)


def along_cell(function: str) -> Cell:
    inner = add(op("tanh", driven), 0.1)
    node: Node = along(function, inner, b) if function == "dot" else along(function, inner)
    return cell({after("h", H): op("tanh", add(mul(node, b), h))})


def along_heads(function: str) -> Cell:
    inner = add(matmul(R, heads), matmul(V, x))
    node: Node = along(function, inner, E) if function == "dot" else along(function, inner)
    return cell({after("n", N, D): op("tanh", add(mul(node, E), inner))})


def layer_norm() -> Cell:
    v = value("v", H)
    normed = op("div", op("sub", v, along("mean", v)), op("sqrt", add(along("var", v), 1e-5)))
    return cell({v: driven, after("h", H): op("tanh", add(mul(normed, b), h))})


def cayley() -> Cell:
    A, skew = derived("A", H, H), derived("S", H, H)
    half = mul(0.5, skew)
    return cell(
        {
            skew: op("sub", M, transpose(M)),
            A: matmul(inverse(add(eye(H), half)), op("sub", eye(H), half)),
            after("h", H): add(matmul(A, h), matmul(W, x)),
        }
    )


def inverted() -> Cell:
    return cell({derived("A", H, H): inverse(M), after("h", H): op("tanh", add(matmul(derived("A", H, H), h), matmul(W, x)))})


def matrix_state() -> Cell:
    """Linear attention with a normaliser: C += v kᵀ, h = C q / max(|n·q|, 1)."""
    k, v, n = value("k", H), value("v", H), before("n", H)
    P = param("P", H, I)
    now, length = after("C", H, H), after("n", H)
    divisor = op("max", op("abs", along("dot", length, q)), 0.7)
    return cell(
        {
            q: matmul(W, x),
            k: matmul(P, x),
            v: op("tanh", add(matmul(U, before("h", H)), b)),
            now: add(mul(op("sigmoid", dt), C), outer(v, k)),
            length: add(n, k),
            after("h", H): op("div", matmul(now, q), divisor),
        },
        outputs=(after("h", H), q, now),
    )


def before_matrix() -> Cell:
    """A product with the matrix state before the step, and its column stretched over the matrix."""
    column = param("c", H, 1)
    return cell({after("C", H, H): op("tanh", add(outer(matmul(C, matmul(W, x)), b), mul(C, column), mul(dt, C)))})


def head_products() -> Cell:
    n = after("n", N, D)
    inner = add(matmul(R, heads), matmul(V, x), E)
    return cell({value("i", N, D): inner, n: mul(op("tanh", value("i", N, D)), op("sigmoid", param("g", N, 1)))}, outputs=(n,))


def rolled_heads() -> Cell:
    both = concat(heads, mul(2, op("sin", heads)))
    F = param("F", N, D, 2 * D)
    return cell({after("n", N, D): add(op("tanh", matmul(F, both)), roll(heads, -1), mul(0.1, E), matmul(V, x))})


def stabilised() -> Cell:
    """Exponential gates with a running maximum that starts at minus infinity."""
    i, f, c = value("i", H), value("f", H), before("c", H)
    before_m, now_m, raised = before("s", H), after("s", H), value("r", H)
    P = param("P", H, I)
    return cell(
        {
            i: driven,
            f: op("logsigmoid", matmul(P, x)),
            raised: add(f, before_m),
            now_m: op("max", raised, i),
            after("c", H): add(mul(op("exp", op("sub", raised, now_m)), c), mul(op("exp", op("sub", i, now_m)), b)),
            after("h", H): op("tanh", after("c", H)),
        },
        outputs=(after("h", H),),
        init={"s": -math.inf},
    )


def family() -> Cell:
    F, g = param("F", 3, H, H), param("g", 3, H)
    node: Node = add(h, matmul(W, x))
    for layer in range(3):
        node = op("tanh", add(matmul(member(F, layer), node), member(g, layer)))
    return cell({after("h", H): node}, families=("F", "g"))


def clocked() -> Cell:
    now = stop(before("t_now", 1))
    phase = op("mod", now, 2)
    wave = op("where", op("lt", phase, 1), op("sin", mul(now, b)), matmul(W, x))
    ramp = op("div", now, add(now, op("exp", dt)))
    state = add(mul(h, ramp), mul(wave, add(value("p", 1), DimValue(H))))
    return cell({value("p", 1): phase, after("h", H): state, after("t_now", 1): add(now, 1)})


def several() -> Cell:
    """States of rank 0, 1 and 2, three inputs, one of rank 0; all-ones shapes stretch to any rank."""
    z, u = before("z", 1), stream("u", 1)
    return cell(
        {
            after("z", 1): op("tanh", add(mul(z, param("a", 1)), u)),
            after("m", 1): add(mul(m, dt), along("sum", h)),
            after("C", H, H): op("sin", add(mul(C, op("tanh", before("m", 1))), outer(h, b), param("o", 1, 1))),
            after("h", H): op("tanh", add(driven, mul(z, m), matmul(C, h))),
        },
        outputs=(after("h", H), after("z", 1)),
    )


FUNCTIONS = ("sum", "mean", "var", "norm", "softmax", "logsumexp", "cumsum", "dot")
CELLS = {
    **{function: along_cell(function) for function in FUNCTIONS},
    **{f"heads {function}": along_heads(function) for function in FUNCTIONS},
    **{make.__name__: make() for make in (layer_norm, cayley, inverted, matrix_state, before_matrix, head_products)},
    **{make.__name__: make() for make in (rolled_heads, stabilised, family, clocked, several)},
}


def drawn_for(one: Cell, seed: int, *, steps: int = 3, batch: int = 2, **options: Any) -> Sample:
    dims = {name: SIZES[name] for name in one.dims}
    return sample(one, dims, steps, batch, generator(seed), np.float64, **options)


def pairing(moved: Any, drawn: Sample) -> Array:
    """⟨ȳ, J v⟩ for each direction v."""
    terms = [(array * drawn.dy[name]).reshape(len(array), -1).sum(1) for name, array in moved.outputs.items()]
    terms += [(array * drawn.dfinal[name]).reshape(len(array), -1).sum(1) for name, array in moved.final.items()]
    return np.sum(terms, axis=0)


@pytest.mark.parametrize("name", CELLS)
def test_exact_gradients_duals_and_finite_differences_agree(name: str) -> None:
    one = CELLS[name]
    drawn = drawn_for(one, 31)
    params, streams, state = drawn.params, drawn.x, drawn.state
    assert state is not None
    found = oracle.forward(one, params, streams, state)
    exact = oracle.exact_gradients(one, params, streams, state, drawn.dy, drawn.dfinal)
    for key in found.outputs:
        np.testing.assert_allclose(found.outputs[key], exact.outputs[key], rtol=1e-12, atol=1e-13)
    for key in found.final:
        np.testing.assert_allclose(found.final[key], exact.final[key], rtol=1e-12, atol=1e-13)
    rng = generator(32)
    parts = {"params": (params, exact.params), "x": (streams, exact.x), "state": (state, exact.state)}
    for part, (arrays, gradients) in parts.items():
        for key, array in arrays.items():
            assert gradients[key].shape == array.shape
            v = rng.normal(size=(2, *array.shape))
            left = pairing(oracle.jvp(one, params, streams, state, oracle.Tangents(**{part: {key: v}})), drawn)
            right = (gradients[key] * v).reshape(2, -1).sum(axis=1)
            np.testing.assert_allclose(left, right, rtol=1e-11, atol=1e-11, err_msg=f"{part} {key}")

            def loss(step: float, part: str = part, key: str = key, array: Array = array, v: Array = v) -> float:
                given: dict[str, Any] = {"params": params, "x": streams, "state": state}
                given[part] = given[part] | {key: array + step * v[0]}
                at = oracle.forward(one, given["params"], given["x"], given["state"])
                total = sum((at.outputs[o] * drawn.dy[o]).sum() for o in at.outputs)
                return float(total + sum((at.final[s] * drawn.dfinal[s]).sum() for s in at.final))

            if key == STEP_INDEX:  # it is given: no derivative is taken by it
                continue
            slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
            assert left[0] == pytest.approx(slope, rel=1e-5, abs=1e-6), f"{part} {key}"


def test_nothing_passes_back_through_stop_gradient() -> None:
    one = cell({after("h", H): add(stop(h), matmul(W, x))})
    drawn = drawn_for(one, 33)
    moved = oracle.jvp(one, drawn.params, drawn.x, drawn.state, oracle.Tangents(state={"h": np.ones((1, 2, 4))}))
    assert not moved.final["h"].any()
    exact = oracle.exact_gradients(one, drawn.params, drawn.x, drawn.state, drawn.dy, drawn.dfinal)
    assert not exact.state["h"].any() and exact.params["W"].any()


# --- values --------------------------------------------------------------------------------------------------


def of(node: Node, **arrays: Any) -> Array:
    """The value of ``node`` where its parameters are ``arrays``."""
    one = cell(
        {value("y", *node.shape): node, after("unused", 1): add(stream("x", 1), before("unused", 1))}, outputs=(value("y"),)
    )
    params = {p.name: np.asarray(arrays[p.name]) for p in one.params}
    return oracle.forward(one, params, {"x": np.zeros((1, 1, 1))}, dims=SIZES).values["y"][0, 0]


a3, b3 = param("a", D), param("b", D)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (along("sum", a3), [-1.5]),
        (along("mean", a3), [-0.5]),
        (along("var", a3), [((1 + 0.5) ** 2 + (-4 + 0.5) ** 2 + (1.5 + 0.5) ** 2) / 3]),
        (along("norm", a3), [math.sqrt(1 + 16 + 2.25)]),
        (along("logsumexp", a3), [math.log(math.exp(1) + math.exp(-4) + math.exp(1.5))]),
        (along("softmax", a3), [math.exp(v) / (math.exp(1) + math.exp(-4) + math.exp(1.5)) for v in (1, -4, 1.5)]),
        (along("cumsum", a3), [1, -3, -1.5]),
        (along("dot", a3, b3), [1 * 2 - 4 * 3 + 1.5 * 5]),
        (along("dot", a3, param("one", 1)), [-1.5 * 7]),
        (outer(a3, b3), [[2, 3, 5], [-8, -12, -20], [3, 4.5, 7.5]]),
        (roll(a3, 1), [1.5, 1, -4]),
        (concat(a3, b3), [1, -4, 1.5, 2, 3, 5]),
        (along("cumsum", outer(a3, b3)), [[2, 5, 10], [-8, -20, -40], [3, 7.5, 15]]),
        (along("sum", outer(a3, b3)), [[10], [-40], [15]]),
        (roll(outer(a3, b3), -1), [[3, 5, 2], [-12, -20, -8], [4.5, 7.5, 3]]),
        (
            concat(outer(a3, b3), outer(a3, a3)),
            [[2, 3, 5, 1, -4, 1.5], [-8, -12, -20, -4, 16, -6], [3, 4.5, 7.5, 1.5, -6, 2.25]],
        ),
        (add(outer(a3, b3), param("one", 1)), [[9, 10, 12], [-1, -5, -13], [10, 11.5, 14.5]]),
        (add(param("column", D, 1), outer(a3, b3)), [[12, 13, 15], [12, 8, 0], [33, 34.5, 37.5]]),
    ],
    ids=str,
)
def test_values(node: Node, expected: Any) -> None:
    given = {"a": [1, -4, 1.5], "b": [2, 3, 5], "one": [7], "column": [[10], [20], [30]]}
    np.testing.assert_allclose(of(node, **given), expected, rtol=1e-15)


def test_products_of_heads_are_products_head_by_head() -> None:
    rng = generator(34)
    left, by_head, one = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 5)), rng.normal(size=5)
    A = param("A", N, D, K)
    found = of(matmul(A, param("v", N, K)), A=left, v=by_head)
    np.testing.assert_allclose(found, [left[0] @ by_head[0], left[1] @ by_head[1]], rtol=1e-14)
    found = of(matmul(A, param("v", K)), A=left, v=one)
    np.testing.assert_allclose(found, [left[0] @ one, left[1] @ one], rtol=1e-14)


def test_members_and_inverses() -> None:
    family = np.arange(12.0).reshape(3, 2, 2)
    assert of(member(param("F", 3, N, N), 2), F=family).tolist() == family[2].tolist()
    np.testing.assert_allclose(of(inverse(param("A", N, N)), A=[[2, 1], [4, 1]]), [[-0.5, 0.5], [2, -1]], rtol=1e-15)
    assert np.isnan(of(inverse(param("A", N, N)), A=[[2, 1], [4, 2]])).all()


def test_skew_matrices_have_inverses_though_their_diagonal_is_zero() -> None:
    skew = op("sub", M, transpose(M))
    one = cell({derived("A", H, H): inverse(skew), after("h", H): add(matmul(derived("A", H, H), h), matmul(W, x))})
    drawn = drawn_for(one, 35, steps=1, batch=1)
    exact = oracle.exact_gradients(one, drawn.params, drawn.x, drawn.state, drawn.dy, drawn.dfinal)
    A = np.linalg.inv(drawn.params["M"] - drawn.params["M"].T)
    assert drawn.state is not None
    seed = (drawn.dy["h"][0, 0] + drawn.dfinal["h"][0])[:, None] * drawn.state["h"][0]
    gradient = -A.T @ seed @ A.T
    np.testing.assert_allclose(exact.params["M"], gradient - gradient.T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [100.0, 1000.0])
@pytest.mark.parametrize("function", ["softmax", "logsumexp", "norm", "var"])
def test_functions_along_an_axis_are_finite_far_out(function: str, size: float) -> None:
    one = cell({after("h", D): add(along(function, stream("x", D)), before("h", D))})
    far = {"x": size * np.array([[[1.0, -1.0, 0.5]]])}
    start = {"h": np.zeros((1, 3))}
    found = oracle.forward(one, {}, far, start, dims=SIZES).final["h"]
    moved = oracle.jvp(one, {}, far, start, oracle.Tangents(x={"x": np.eye(3)[:, None, None]}), dims=SIZES).final["h"]
    seed = np.ones_like(found)
    exact = oracle.exact_gradients(one, {}, far, start, {"h": 0 * seed[None]}, {"h": seed}, dims=SIZES)
    assert np.isfinite(found).all() and np.isfinite(moved).all()
    np.testing.assert_allclose(found, exact.final["h"], rtol=1e-13)
    np.testing.assert_allclose(moved.reshape(3, -1).sum(axis=1), exact.x["x"].ravel(), rtol=1e-12, atol=1e-13)


def test_the_derivative_of_the_norm_at_zero_is_zero() -> None:
    one = cell({after("h", 1): add(along("norm", stream("x", D)), before("h", 1))})
    origin, start = {"x": np.zeros((1, 1, 3))}, {"h": np.zeros((1, 1))}
    moved = oracle.jvp(one, {}, origin, start, oracle.Tangents(x={"x": np.ones((1, 1, 1, 3))}))
    exact = oracle.exact_gradients(one, {}, origin, start, {"h": np.ones((1, 1, 1))}, {"h": np.ones((1, 1))})
    assert moved.final["h"].tolist() == [[[0.0]]] and exact.final["h"].tolist() == [[0.0]]
    assert not exact.x["x"].any() and exact.state["h"].tolist() == [[2.0]]


# --- infinite initial states ---------------------------------------------------------------------------------


def test_a_state_may_start_at_minus_infinity() -> None:
    one = CELLS["stabilised"]
    drawn = drawn_for(one, 36, default_state=True)
    found = oracle.forward(one, drawn.params, drawn.x)
    assert np.isneginf(found.values["r"][0]).all() and all(np.isfinite(array).all() for array in found.outputs.values())
    exact = oracle.exact_gradients(one, drawn.params, drawn.x, None, drawn.dy, drawn.dfinal)
    rng = generator(37)
    for part, group, gradients in (("params", drawn.params, exact.params), ("x", drawn.x, exact.x)):
        for key, array in group.items():
            v = rng.normal(size=(2, *array.shape))
            left = pairing(oracle.jvp(one, drawn.params, drawn.x, None, oracle.Tangents(**{part: {key: v}})), drawn)
            np.testing.assert_allclose(left, (gradients[key] * v).reshape(2, -1).sum(axis=1), rtol=1e-11, atol=1e-11)
    assert not exact.state["s"].any()
    moved = oracle.jvp(one, drawn.params, drawn.x, None, oracle.Tangents(state={"s": np.ones((1, 2, 4))}))
    assert not moved.final["h"].any()


@pytest.mark.parametrize(
    ("name", "far", "value", "slope"),
    [
        ("sigmoid", -math.inf, 0.0, 0.0),
        ("sigmoid", math.inf, 1.0, 0.0),
        ("logsigmoid", -math.inf, -math.inf, 1.0),
        ("softplus", math.inf, math.inf, 1.0),
        ("softsign", -math.inf, -1.0, 0.0),
        ("gelu", -math.inf, 0.0, 0.0),
        ("silu", -math.inf, 0.0, 0.0),
        ("exp", -math.inf, 0.0, 0.0),
        ("sin", math.inf, math.nan, math.nan),
    ],
)
def test_limits_at_infinity(name: str, far: float, value: float, slope: float) -> None:
    at = [np.array([far])]
    np.testing.assert_array_equal(rule(name).value(at), [value])
    np.testing.assert_array_equal(rule(name).partials[0](at), [slope])


# --- sampling ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inverted", "cayley"])
def test_inverted_matrices_are_well_conditioned(name: str) -> None:
    one = CELLS[name]
    for size in (1, 3, 19):
        drawn = sample(one, {"H": size, "I": 5}, 4, 2, generator(38), np.float64)
        assert oracle.probe(one, drawn.params, drawn.x, drawn.state, dims=drawn.dims).condition <= CONDITION


@pytest.mark.parametrize("function", ["log", "sqrt"])
def test_samples_stay_away_from_where_derivatives_grow(function: str) -> None:
    one = cell({after("h", H): add(op(function, matmul(W, x)), op("div", h, b))})
    drawn = drawn_for(one, 39)
    assert oracle.probe(one, drawn.params, drawn.x, drawn.state).nearest >= MARGIN
    assert np.abs(drawn.params["b"]).min() >= 100 * MARGIN


def test_a_condition_on_the_step_is_no_kink() -> None:
    one = CELLS["clocked"]
    drawn = drawn_for(one, 40)
    assert oracle.probe(one, drawn.params, drawn.x, drawn.state).nearest >= MARGIN
