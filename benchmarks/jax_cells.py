"""The cells in JAX, as one writes them there: ``jax.lax.scan`` over the steps, everything under one ``jit``.

As in the PyTorch loops, the gates are packed, and the product with x and all that does not need the state come before the scan.
JAX is imported when the first cell is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS, Arrays, Case, packed
from outcome import Outcome

Values = tuple[Any, ...]


class Scan(NamedTuple):
    """``before`` makes what steps read of W @ x + b [..., G*H]; ``step`` makes the next state of parameters, that, a state."""

    before: Callable[[Any], Values]
    step: Callable[[dict[str, Any], Values, Values], Values]


def scan_of(jax: Any, cell: str) -> Scan:
    """The scan of a cell that ``CELLS`` names."""
    jnp = jax.numpy
    sigmoid, tanh, split = jax.nn.sigmoid, jnp.tanh, jnp.split

    def whole(z: Any) -> Values:
        return (z,)

    def elman(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h,), (z,) = state, at
        return (tanh(z + h @ given["U"].T),)

    def lstm(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h, c), (z,) = state, at
        i, f, g, o = split(z + h @ given["U"].T, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def peephole(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h, c), (z,), (pi, pf, po) = state, at, given["p"]
        i, f, g, o = split(z + h @ given["U"].T, 4, axis=1)
        c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * tanh(g)
        return sigmoid(o + po * c) * tanh(c), c

    def cifg(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h, c), (z,) = state, at
        f, g, o = split(z + h @ given["U"].T, 3, axis=1)
        f = sigmoid(f)
        c = f * c + (1 - f) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def gru(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h,), (z,), U = state, at, given["U"]
        two = 2 * h.shape[1]
        r, u = split(sigmoid(z[:, :two] + h @ U[:two].T), 2, axis=1)
        n = tanh(z[:, two:] + (r * h) @ U[two:].T)
        return (u * n + (1 - u) * h,)

    def gru_after(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h,), (z,) = state, at
        two = 2 * h.shape[1]
        hU = h @ given["U"].T
        r, u = split(sigmoid(z[:, :two] + hU[:, :two]), 2, axis=1)
        n = tanh(z[:, two:] + r * hU[:, two:])
        return (u * n + (1 - u) * h,)

    def indrnn(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h,), (z,), (u,) = state, at, given["u"]
        return (jax.nn.relu(z + u * h),)

    def mingru_before(both: Any) -> Values:
        z, candidate = split(both, 2, axis=-1)
        z = sigmoid(z)
        return 1 - z, z * candidate

    def mingru(given: dict[str, Any], at: Values, state: Values) -> Values:
        (h,), (keep, new) = state, at
        return (keep * h + new,)

    steps = {"elman": elman, "lstm": lstm, "peephole": peephole, "cifg": cifg, "gru": gru, "gru_after": gru_after}
    scans = {name: Scan(whole, step) for name, step in (steps | {"indrnn": indrnn}).items()}
    return (scans | {"mingru": Scan(mingru_before, mingru)})[cell]


class JaxScan:
    """A case in JAX, with the calls that ``torch_cells.Model`` has. Every call returns when its results are there."""

    def __init__(self, case: Case) -> None:
        self.jax: Any = importlib.import_module("jax")
        jnp = self.jax.numpy
        self.case, self.layout = case, CELLS[case.cell]
        self.scan = scan_of(self.jax, case.cell)
        data, states = case.data(), self.layout.states
        given = packed(case.cell, data) | {name: data[name] for name in ("x", *(f"{state}0" for state in states))}
        self.leaves = {name: jnp.asarray(value) for name, value in given.items()}
        self.cotangents = (jnp.asarray(data["dy"]), *(jnp.asarray(data[f"d{name}"]) for name in states))
        self.jitted, self.jitted_both = self.jax.jit(self.sequence), self.jax.jit(self.value_and_gradients)

    def sequence(self, leaves: dict[str, Any]) -> Values:
        """y and the final states, to be compiled."""

        def step(state: Values, at: Values) -> tuple[Values, Any]:
            state = self.scan.step(leaves, at, state)
            return state, state[0]

        initial = tuple(leaves[f"{name}0"] for name in self.layout.states)
        final, y = self.jax.lax.scan(step, initial, self.scan.before(leaves["x"] @ leaves["W"].T + leaves["b"]))
        return y, *final

    def value_and_gradients(self, leaves: dict[str, Any], cotangents: Values) -> tuple[Values, dict[str, Any]]:
        value, vjp = self.jax.vjp(self.sequence, leaves)
        return value, vjp(cotangents)[0]

    def inference(self) -> Values:
        found: Values = self.jax.block_until_ready(self.jitted(self.leaves))
        return found

    def both(self) -> tuple[Values, dict[str, Any]]:
        found: tuple[Values, dict[str, Any]] = self.jax.block_until_ready(self.jitted_both(self.leaves, self.cotangents))
        return found

    def step_by_step(self) -> Callable[[], Values]:
        inputs = list(self.leaves["x"])
        initial = tuple(self.leaves[f"{name}0"] for name in self.layout.states)
        parameters = {name: self.leaves[name] for name in self.layout.kinds}

        @self.jax.jit  # type: ignore[untyped-decorator]
        def step(given: dict[str, Any], x_t: Any, state: Values) -> Values:
            return self.scan.step(given, self.scan.before(x_t @ given["W"].T + given["b"]), state)

        def run() -> Values:
            state, ys = initial, []
            for x_t in inputs:
                state = step(parameters, x_t, state)
                ys.append(state[0].block_until_ready())
            return ys, *state

        return run

    def outputs(self, found: Values) -> Arrays:
        names = ("y", *(f"{state} final" for state in self.layout.states))
        return {name: np.array(value) for name, value in zip(names, found, strict=True)}

    def outcome(self, found: tuple[Values, dict[str, Any]]) -> Outcome:
        gradients = {name: np.asarray(value) for name, value in found[1].items()}
        H, I = self.case.H, self.case.I  # noqa: E741
        shapes = {"W": (-1, H, I), "U": (-1, H, H)}
        parameters = {kind: gradients[kind].reshape(shapes.get(kind, (-1, H))) for kind in self.layout.kinds}
        return Outcome(self.outputs(found[0]), gradients | parameters)
