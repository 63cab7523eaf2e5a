"""A JAX module over NumPy arrays: jitted, in float64 whatever is set elsewhere, with JAX's own gradients."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from frameworks_support import module

from cellspec.backends import registry

# A test extra, without wheels for some platforms; `make test` installs it.
jax = pytest.importorskip("jax", reason="needs JAX")

from cellspec.backends.jax.bridge import JaxBridge  # noqa: E402  # which imports it

Params = namedtuple("Params", "a idle")


def bridge(seen: list[Any] | None = None) -> JaxBridge:
    """A module that reads one of its parameters; ``seen`` notes what its functions are called with."""

    def forward(params: Any, x: Any, state: Any, *, reverse: bool = False, **options: Any) -> Any:
        if seen is not None:
            seen.append(x)
        return params.a * (x[::-1] if reverse else x) * state, state

    def step(params: Any, x: Any, state: Any) -> Any:
        assert seen is not None
        seen.append(x)
        return params.a * x, state

    return JaxBridge(SimpleNamespace(forward=forward, step=step, trace=lambda params, x, state: {"y": x + 1}))  # type: ignore[arg-type]


ARGUMENTS = Params(np.array([2.0, 3.0]), np.ones(3)), np.arange(4.0).reshape(2, 1, 2), np.array([5.0, 7.0])


def test_the_backend_makes_this_bridge() -> None:
    assert isinstance(registry.backend("jax").on_host(module("lstm", "jax")), JaxBridge)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_keep_their_dtype(dtype: Any) -> None:
    """Also where 64 bits are off, as JAX has it."""
    (params, x, state) = (
        Params(*(each.astype(dtype) for each in ARGUMENTS[0])),
        *(each.astype(dtype) for each in ARGUMENTS[1:]),
    )
    y, final, _ = bridge().forward(params, x, state)
    assert isinstance(y, np.ndarray) and y.dtype == final.dtype == dtype
    assert jax.numpy.ones(1).dtype == np.float32, "elsewhere they still are"


def test_gradients_are_jaxs() -> None:
    """Of the call with its options, zeros of what is not read."""
    params, x, state = ARGUMENTS
    made = bridge()
    for reverse in (False, True):
        _, _, tape = made.forward(params, x, state, reverse=reverse)
        dy, dfinal = np.array([0.5, 1.0, 2.0, 4.0]).reshape(2, 1, 2), np.ones(2)
        grads = made.backward(params, tape, dy, dfinal)
        used = x[::-1] if reverse else x
        back = (dy * params.a * state)[::-1] if reverse else dy * params.a * state
        np.testing.assert_allclose(grads.params.a, (dy * used * state).sum((0, 1)))
        np.testing.assert_allclose(grads.x, back)
        np.testing.assert_allclose(grads.state, (dy * used * params.a).sum((0, 1)) + dfinal)
        np.testing.assert_array_equal(grads.params.idle, np.zeros(3))


def test_functions_of_a_module_are_compiled_once() -> None:
    seen: list[Any] = []
    made = bridge(seen)
    params, x, state = ARGUMENTS
    first, _ = made.step(params, x[0], state)
    again, _ = made.step(params, x[0] + 1, state)
    assert len(seen) == 1 and isinstance(seen[0], jax.core.Tracer)
    np.testing.assert_array_equal(again - first, np.broadcast_to(params.a, (1, 2)))
    assert list(made.trace(params, x, state)) == ["y"]
