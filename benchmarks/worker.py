"""One contender in a process of its own: reads requests from stdin, answers on stdout, one line of JSON each.

    {"do": "prepare", "contender": "torch.nn", "cell": "lstm", "T": 100, "B": 32, "I": 64, "H": 128, "threads": 2, "seed": 0}
        -> {"versions": {"torch": "2.13.0"}, "note": ""}
    {"do": "time", "seconds": 0.3, "most": 50}   -> {"seconds": [0.0085, …]}, each a warm forward + backward
    {"do": "gradients", "file": "….npz"}         -> {}: the gradients in the common layout, for the cross-check

``process.py`` has the protocol, ``cells.py`` the numbers that every contender makes from the seed. The work of one call is the
same for all: forward over the sequence, then the gradients of every parameter, of x and of the initial state. This file and
those beside it need NumPy and the contender's own library, nothing else: they also run in other interpreters.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS, FUSED, Arrays, Case, arguments, kinds, load_module, packed
from process import serve
from torch_cells import Model, TorchFused, TorchLoop

KNOWN = {"torch.nn": FUSED, "jax.lax.scan": FUSED, "torch loop": tuple(CELLS)}  # the peers and their cells


class Contender(NamedTuple):
    """``run()`` is one forward + backward; ``gradients()`` the same, as W, U, b, x, h0 (and c0) in the common layout."""

    run: Callable[[], object]
    gradients: Callable[[], Arrays]
    versions: dict[str, str]
    note: str = ""  # how its formula differs from the cell's: then gradients are not compared


# --- this project ------------------------------------------------------------------------------------------


def ours(case: Case, workspace: bool) -> Contender:
    """``generated/<cell>_numpy.py``; cells that the peers do not know start from ``init_params`` and random inputs."""
    module = load_module(case.cell, "numpy")
    given = arguments(case, module)
    params, state = module.Params(**given.params), module.State(**given.state)
    dfinal = module.State(**given.dfinal)
    ws = module.Workspace(case.T, case.B, params) if workspace else None

    def run() -> Any:
        _, _, tape = module.forward(params, given.x, state, workspace=ws)
        return module.backward(params, tape, given.dy, dfinal, workspace=ws)

    def gradients() -> Arrays:
        grads = run()
        found: Arrays = {"x": grads.x} | {f"{name}0": value for name, value in grads.state._asdict().items()}
        parameters = grads.params._asdict()
        return found | (kinds(case.cell, parameters) if case.cell in CELLS else parameters)

    return Contender(run, gradients, {"numpy": np.__version__})


# --- peers -------------------------------------------------------------------------------------------------


def torch_model(case: Case, model: type[Model]) -> Contender:
    """``torch.nn.LSTM`` or ``torch.nn.GRU``, or a loop over time in PyTorch."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(case.threads)
    made = model(case)
    note = "torch.nn.GRU resets after the product" if case.cell == "gru" and model is TorchFused else ""
    return Contender(made.both, lambda: made.outcome(made.both()).gradients, {"torch": torch.__version__}, note)


def jax_scan(case: Case) -> Contender:
    """jax.lax.scan with its vjp, all of it under one jit: packed gates, input product hoisted."""
    jax: Any = importlib.import_module("jax")
    jnp = jax.numpy
    data = case.data()
    states, H = CELLS[case.cell].states, case.H
    given = packed(case.cell, data) | {name: data[name] for name in ("x", *(f"{state}0" for state in states))}
    leaves = {name: jnp.asarray(value) for name, value in given.items()}
    cotangents = (jnp.asarray(data["dy"]), tuple(jnp.asarray(data[f"d{name}"]) for name in states))

    def lstm(U: Any, state: Any, z: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = jnp.split(z + h @ U.T, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(U: Any, state: Any, z: Any) -> tuple[Any, Any]:
        (h,) = state
        r, u = jnp.split(jax.nn.sigmoid(z[:, : 2 * H] + h @ U[: 2 * H].T), 2, axis=1)
        n = jnp.tanh(z[:, 2 * H :] + (r * h) @ U[2 * H :].T)
        h = u * n + (1 - u) * h
        return (h,), h

    def gru_after(U: Any, state: Any, z: Any) -> tuple[Any, Any]:
        (h,) = state
        hU = h @ U.T
        r, u = jnp.split(jax.nn.sigmoid(z[:, : 2 * H] + hU[:, : 2 * H]), 2, axis=1)
        n = jnp.tanh(z[:, 2 * H :] + r * hU[:, 2 * H :])
        h = u * n + (1 - u) * h
        return (h,), h

    step = {"lstm": lstm, "gru": gru, "gru_after": gru_after}[case.cell]

    def forward(leaves: dict[str, Any]) -> Any:
        z = leaves["x"] @ leaves["W"].T + leaves["b"]
        initial = tuple(leaves[f"{name}0"] for name in states)
        final, y = jax.lax.scan(lambda state, z_t: step(leaves["U"], state, z_t), initial, z)
        return y, final

    @jax.jit  # type: ignore[untyped-decorator]
    def forward_backward(leaves: dict[str, Any], cotangents: Any) -> Any:
        value, vjp = jax.vjp(forward, leaves)
        return value, vjp(cotangents)[0]

    def run() -> Any:
        return jax.block_until_ready(forward_backward(leaves, cotangents))

    def gradients() -> Arrays:
        found = {name: np.asarray(value) for name, value in run()[1].items()}
        return found | {kind: found[kind].reshape(data[kind].shape) for kind in "WUb"}

    return Contender(run, gradients, {"jax": jax.__version__, "jaxlib": importlib.import_module("jaxlib").__version__})


CONTENDERS: dict[str, Callable[[Case], Contender]] = {
    "ours": lambda case: ours(case, workspace=True),
    "ours, no workspace": lambda case: ours(case, workspace=False),
    "torch.nn": lambda case: torch_model(case, TorchFused),
    "jax.lax.scan": jax_scan,
    "torch loop": lambda case: torch_model(case, TorchLoop),
}


# --- the protocol ------------------------------------------------------------------------------------------


def measure(run: Callable[[], object], seconds: float, most: int) -> list[float]:
    """Times of single calls for ``seconds``, at least two and at most ``most``, after a quarter of that time to warm up."""
    clock = time.perf_counter
    warm = clock() + seconds / 4
    run()
    while clock() < warm:
        run()
    times: list[float] = []
    end = clock() + seconds
    while len(times) < 2 or (clock() < end and len(times) < most):
        start = clock()
        run()
        times.append(clock() - start)
    return times


class Answers:
    """The answers to one request after another."""

    def __init__(self) -> None:
        self.contender: Contender | None = None

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        contender = self.contender
        match request["do"]:
            case "prepare":
                self.contender = None
                case = Case(**{key: value for key, value in request.items() if key in Case._fields})
                self.contender = contender = CONTENDERS[request["contender"]](case)
                contender.run()
                return {"versions": contender.versions, "note": contender.note}
            case "time" if contender is not None:
                return {"seconds": measure(contender.run, request["seconds"], request["most"])}
            case "gradients" if contender is not None:
                np.savez(request["file"], **contender.gradients())
                return {}
            case other:
                return {"error": f"unexpected request {other!r}"}


if __name__ == "__main__":
    sys.exit(serve(Answers()))
