"""JAX modules: against the equations, and under JAX's transformations."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks_support import SOME, bridge, cell, everything, masks, module
from support import SHIPPED, cell_of, close, draw

import cellspec
from cellspec.backends import registry
from cellspec.verification.check import verify

# A test extra, without wheels for some platforms; `make test` installs it.
jax = pytest.importorskip("jax", reason="needs JAX")
jnp = jax.numpy
jax.config.update("jax_disable_most_optimizations", True)  # what runs once need not be fast, but compiled soon


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def arguments(name: str, **options: Any) -> tuple[Any, Any, Any]:
    """Parameters, input and state of a call, as JAX's arrays."""
    built, drawn = module(name, "jax"), draw(cell(name), **options)
    trees = drawn.module_params(built), drawn.module_x(built), drawn.module_state(built)
    return jax.tree.map(jnp.asarray, trees)


def loss(forward: Any, **given: Any) -> Any:
    """A number of a call's outputs and final state."""

    def run(params: Any, x: Any, state: Any) -> Any:
        return sum(jnp.sum(each**2) for each in jax.tree.leaves(forward(params, x, state, **given)))

    return run


def along_x(gradient: Any, params: Any, state: Any, x: Any) -> Any:
    return gradient(params, x, state)


@pytest.mark.parametrize("name", SOME)
def test_all_that_numpys_module_computes(name: str) -> None:
    """Whatever a call gives, masked or not, is what NumPy's module gives, which ``verify`` compares with the equations."""
    drawn = draw(cell(name), steps=5, batch=4)
    for given in ({}, masks(5, 4)):
        found = everything(bridge(name, "jax"), drawn, given)
        assert close(found, everything(module(name, "numpy"), drawn, given), tolerance=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru_before"])
def test_against_the_equations(name: str) -> None:
    report = verify(cell(name), bridge(name, "jax"), dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_cell(path: Path) -> None:
    found = cell_of(path)
    report = verify(found, registry.backend("jax").on_host(cellspec.build(found, "jax")), dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["scornn", "far"])
def test_the_plain_form_is_the_same_function(name: str) -> None:
    drawn, given = draw(cell(name), steps=4, batch=3), masks(4, 3)
    one, other = (everything(bridge(name, "jax", plain=plain), drawn, given) for plain in (False, True))
    assert close(one, other, tolerance=1e-10)


def test_steps_and_trace_give_the_sequence() -> None:
    built = module("far", "jax")
    params, x, state = arguments("far", steps=8)
    y, final = built.forward(params, x, state)
    assert close(tuple(map(np.asarray, (built.trace(params, x, state)["h"],))), (np.asarray(y.h),))
    step = jax.jit(built.step)
    for t in range(8):
        given, state = step(params, built.Inputs(*(each[t] for each in x)), state)
        np.testing.assert_allclose(given.h, y.h[t], rtol=1e-12)
    assert close(tuple(map(np.asarray, state)), tuple(map(np.asarray, final)))


# --- transformations -----------------------------------------------------------------------------------------


def test_grad_vmap_and_both() -> None:
    forward = module("gru_before", "jax").forward
    params, x, state = arguments("gru_before", steps=3, batch=2)
    many = jnp.stack([x, 2 * x])
    each = [jax.grad(loss(forward))(params, one, state) for one in many]
    together = jax.jit(jax.vmap(jax.grad(loss(forward)), (None, 0, None)))(params, many, state)
    for k, one in enumerate(each):
        for found, expected in zip(together, one, strict=True):
            np.testing.assert_allclose(found[k], expected, rtol=1e-10, atol=1e-12)


def test_second_derivatives() -> None:
    """Of the derived backward pass, reverse over reverse and forward over reverse, as of the plain form."""
    built = module("gru_before", "jax")
    params, x, state = arguments("gru_before", steps=2, batch=1)

    def curvature(forward: Any) -> Any:
        return jax.grad(lambda x: jnp.sum(jax.grad(loss(forward), 1)(params, x, state) ** 2))(x)

    plain = curvature(built.forward_plain)
    assert np.abs(plain).max() > 0
    np.testing.assert_allclose(curvature(built.forward), plain, rtol=1e-9)
    direction = jnp.ones_like(x)
    gradients = [jax.grad(loss(forward), 1) for forward in (built.forward, built.forward_plain)]
    found = [jax.jvp(partial(along_x, gradient, params, state), (x,), (direction,))[1] for gradient in gradients]
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_forward_mode_is_refused_but_for_the_plain_form() -> None:
    built = module("gru_before", "jax")
    params, x, state = arguments("gru_before")
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: built.forward(params, x, state), (x,), (x,))
    _, tangent = jax.jvp(lambda x: built.forward_plain(params, x, state)[0], (x,), (x,))
    assert np.abs(tangent).max() > 0


def test_lengths_may_be_traced() -> None:
    forward = module("gru_before", "jax").forward
    params, x, state = arguments("gru_before", steps=4, batch=3)
    lengths = jnp.array([0, 4, 2])
    found, _ = jax.jit(lambda lengths: forward(params, x, state, lengths=lengths))(lengths)
    np.testing.assert_allclose(found, forward(params, x, state, lengths=lengths)[0], rtol=1e-12)


def test_what_lies_behind_an_end_is_not_computed_with() -> None:
    forward = module("gru_before", "jax").forward
    params, x, state = arguments("gru_before", steps=4, batch=2)
    x = x.at[2:, 0].set(jnp.nan).at[:, 1].set(jnp.inf)
    grads = jax.grad(loss(forward, lengths=[2, 0]), (0, 1, 2))(params, x, state)
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(grads))


# --- arrays and mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtypes_and_initial_parameters(dtype: str) -> None:
    built = module("lstm", "jax")
    one, same, other = (built.init_params(jax.random.key(n), I=3, H=4, dtype=dtype) for n in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True)) and not (one.Wi == other.Wi).all()
    y, final = jax.eval_shape(built.forward, one, jnp.ones((5, 2, 3), dtype))
    assert {str(each.dtype) for each in (*one, y, *final)} == {dtype}
    wide = np.asarray(one.Ui, np.float64)
    np.testing.assert_allclose(wide @ wide.T, np.eye(4), atol={"bfloat16": 0.05, "float32": 1e-5, "float64": 1e-12}[dtype])


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, r"^x has shape \(3, 2, 6\), expected \[T, B, I\] = \(3, 2, 5\)$", {"x": lambda x: jnp.ones((3, 2, 6))}),
        (TypeError, r"^x has dtype float32, expected float64$", {"x": lambda x: x.astype("float32")}),
        (TypeError, r"^x must be a JAX array of shape \[T, B, I\], got ndarray$", {"x": np.asarray}),
        (ValueError, r"^lengths\[1\] is 4, expected 0 to T = 3$", {"lengths": lambda _: [3, 4]}),
        (TypeError, r"^lengths has dtype float64, expected integers$", {"lengths": lambda _: [3.0, 1.0]}),
        (TypeError, r"^resets has dtype int64, expected bool$", {"resets": lambda _: [[0, 1]] * 3}),
        (TypeError, r"^reverse must be True or False, got int$", {"reverse": lambda _: 1}),
    ],
)
def test_arguments(error: type[Exception], message: str, change: dict[str, Any]) -> None:
    params, x, state = arguments("lstm")
    given: dict[str, Any] = {"x": x, "state": state, "lengths": None, "resets": None, "reverse": False}
    given |= {name: make(given[name]) for name, make in change.items()}
    with pytest.raises(error, match=message):
        module("lstm", "jax").forward(params, **given)


def test_the_module_imports_jax_alone() -> None:
    for name in ("lstm", "mlstm_xlstm", "far"):
        tree = ast.parse(cellspec.generate(cell(name), "jax"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"__future__", "functools", "math", "typing", "jax"}
