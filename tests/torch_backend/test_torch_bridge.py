"""A PyTorch module over NumPy arrays: leaves of which autograd takes the gradients, whatever of them is read."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from frameworks_support import module

from cellspec.backends import registry

torch = pytest.importorskip("torch", reason="needs PyTorch")

from cellspec.backends.torch.bridge import TorchBridge  # noqa: E402  # which imports it

Params = namedtuple("Params", "a idle")


def bridge(**more: Any) -> TorchBridge:
    """A module that reads one of its parameters, and hands its state on as it is."""

    def forward(params: Any, x: Any, state: Any, **options: Any) -> Any:
        assert all(isinstance(each, torch.Tensor) for each in (params.a, x, state))
        return params.a * x * state, state.detach()

    return TorchBridge(SimpleNamespace(forward=forward, **more))  # type: ignore[arg-type]


def test_the_backend_makes_this_bridge() -> None:
    assert isinstance(registry.backend("torch").on_host(module("lstm", "torch")), TorchBridge)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_keep_their_dtype(dtype: Any) -> None:
    y, final, _ = bridge().forward(Params(np.ones(2, dtype), np.ones(1, dtype)), np.ones((3, 1, 2), dtype), np.ones(2, dtype))
    assert isinstance(y, np.ndarray) and y.dtype == final.dtype == dtype


def test_gradients_are_autograds() -> None:
    """Zeros of what is not read; of results without a gradient nothing is asked."""
    a, x, state = np.array([2.0, 3.0]), np.arange(4.0).reshape(2, 1, 2), np.array([5.0, 7.0])
    made = bridge()
    params = Params(a, np.ones(3))
    _, _, tape = made.forward(params, x, state)
    dy = np.full((2, 1, 2), 0.5)
    grads = made.backward(params, tape, dy, np.ones(2))
    np.testing.assert_allclose(grads.params.a, (dy * x * state).sum((0, 1)))
    np.testing.assert_allclose(grads.x, dy * a * state)
    np.testing.assert_allclose(grads.state, (dy * x * a).sum((0, 1)))
    np.testing.assert_array_equal(grads.params.idle, np.zeros(3))


def test_the_callers_arrays_stay_as_they_are() -> None:
    """A tensor has memory of its own: of a view with gaps too."""
    given = np.arange(6.0).reshape(2, 3)[:, ::2]
    made = bridge().array(given)
    made += 1
    np.testing.assert_array_equal(given, np.arange(6.0).reshape(2, 3)[:, ::2])
