"""One contender in a process of its own: reads requests from stdin, answers on stdout, one line of JSON each.

    {"do": "prepare", "contender": "torch.nn", "cell": "lstm", "T": 100, "B": 32, "I": 64, "H": 128, "threads": 2, "seed": 0}
        -> {"versions": {"torch": "2.13.0"}, "note": ""}
    {"do": "time", "seconds": 0.3, "most": 50}   -> {"seconds": [0.0085, …]}, each a warm forward + backward
    {"do": "gradients", "file": "….npz"}         -> {}: the gradients in the common layout, for the cross-check

An answer ``{"error": …, "missing": true}`` says that the contender is not installed, without ``missing`` that it failed.

Every contender makes the same numbers from the seed, in a common layout: W [G, H, I], U [G, H, H], b [G, H] with the gates in
the order of ``GATES``, x [T, B, I], one initial value [B, H] for each state, a cotangent for every output and every final
state. The work of one call is the same for all: forward over the sequence, then the gradients of W, U, b, x and the initial
state. This file needs NumPy and the contender's own library, nothing else of this project: it also runs in other interpreters.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]

GATES = {"lstm": "ifgo", "gru": "run", "gru_after": "run"}  # the cells that peers know, and their gates
STATES = {"lstm": ("h", "c"), "gru": ("h",), "gru_after": ("h",)}


class Case(NamedTuple):
    """What is computed: a cell and the sizes."""

    cell: str
    T: int
    B: int
    I: int  # noqa: E741
    H: int
    seed: int = 0
    threads: int = 1

    def data(self) -> Arrays:
        """Weights, inputs and cotangents of a cell that the peers know, in the common layout."""
        rng = np.random.default_rng(self.seed)
        gates, states = len(GATES[self.cell]), STATES[self.cell]

        def draw(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
            return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

        data = {
            "W": draw(gates, self.H, self.I, scale=self.I**-0.5),
            "U": draw(gates, self.H, self.H, scale=self.H**-0.5),
            "b": draw(gates, self.H, scale=0.1),
            "x": draw(self.T, self.B, self.I),
            "dy": draw(self.T, self.B, self.H),
        }
        for state in states:
            data[f"{state}0"] = draw(self.B, self.H, scale=0.5)
            data[f"d{state}"] = draw(self.B, self.H)
        return data


class Contender(NamedTuple):
    """``run()`` is one forward + backward; ``gradients()`` the same, as W, U, b, x, h0 (and c0) in the common layout."""

    run: Callable[[], object]
    gradients: Callable[[], Arrays]
    versions: dict[str, str]
    note: str = ""  # how its formula differs from the cell's: then gradients are not compared


# --- this project ------------------------------------------------------------------------------------------


def ours(case: Case, workspace: bool) -> Contender:
    """``generated/<cell>_numpy.py``; cells that the peers do not know start from ``init_params`` and random inputs."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    module = importlib.import_module(f"generated.{case.cell}_numpy")
    if case.cell in GATES:
        data = case.data()
        gates = GATES[case.cell]
        params = module.Params(**{kind + gate: data[kind][g] for kind in "WUb" for g, gate in enumerate(gates)})
        x, dy = data["x"], data["dy"]
        state = module.State(*(data[f"{name}0"] for name in STATES[case.cell]))
        dfinal = module.State(*(data[f"d{name}"] for name in STATES[case.cell]))
    else:
        rng = np.random.default_rng(case.seed)
        params = module.init_params(rng, **{dim: case.I if dim == "I" else case.H for dim in module.DIMS}, dtype=np.float32)
        x = rng.standard_normal((case.T, case.B, case.I), dtype=np.float32)
        state = module.init_state(params, case.B)
        y, final, _ = module.forward(params, x, state)
        dy = rng.standard_normal(y.shape, dtype=np.float32)
        dfinal = type(final)(*(rng.standard_normal(value.shape, dtype=np.float32) for value in final))
    ws = module.Workspace(case.T, case.B, params) if workspace else None

    def run() -> Any:
        _, _, tape = module.forward(params, x, state, workspace=ws)
        return module.backward(params, tape, dy, dfinal, workspace=ws)

    def gradients() -> Arrays:
        grads = run()
        found: Arrays = {"x": grads.x} | {f"{name}0": value for name, value in grads.state._asdict().items()}
        if case.cell not in GATES:
            return {**found, **grads.params._asdict()}
        gates = GATES[case.cell]
        return found | {kind: np.stack([getattr(grads.params, kind + gate) for gate in gates]) for kind in "WUb"}

    return Contender(run, gradients, {"numpy": np.__version__})


# --- peers -------------------------------------------------------------------------------------------------


def torch_fused(case: Case) -> Contender:
    """torch.nn.LSTM or torch.nn.GRU, one layer.

    The GRU keeps z*h + (1 - z)*n, so z = 1 - u: its z is our u with the parameters negated. Of its two biases, the second
    stays at zero for every gate: then r*(U@h + 0) is gru_after.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(case.threads)
    data = case.data()
    gates, states = GATES[case.cell], STATES[case.cell]
    sign = np.array([-1.0 if gate == "u" else 1.0 for gate in gates], np.float32)
    layer = {"lstm": torch.nn.LSTM}.get(case.cell, torch.nn.GRU)(case.I, case.H)
    rows = len(gates) * case.H
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy((data["W"] * sign[:, None, None]).reshape(rows, case.I)))
        layer.weight_hh_l0.copy_(torch.from_numpy((data["U"] * sign[:, None, None]).reshape(rows, case.H)))
        layer.bias_ih_l0.copy_(torch.from_numpy((data["b"] * sign[:, None]).reshape(rows)))
        layer.bias_hh_l0.zero_()
    x = torch.from_numpy(data["x"]).requires_grad_()
    initial = [torch.from_numpy(data[f"{name}0"])[None].requires_grad_() for name in states]
    cotangents = [torch.from_numpy(data["dy"]), *(torch.from_numpy(data[f"d{name}"])[None] for name in states)]
    leaves = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0, x, *initial]

    def run() -> Any:
        y, final = layer(x, tuple(initial) if len(initial) > 1 else initial[0])
        finals = final if len(initial) > 1 else (final,)
        return torch.autograd.grad([y, *finals], leaves, cotangents)

    def gradients() -> Arrays:
        W, U, b, _, dx, *d_initial = (grad.numpy() for grad in run())
        shape = (len(gates), case.H, -1)
        found = {
            "W": W.reshape(shape) * sign[:, None, None],
            "U": U.reshape(shape) * sign[:, None, None],
            "b": b.reshape(shape[:2]) * sign[:, None],
            "x": dx,
        }
        return found | {f"{name}0": value[0] for name, value in zip(states, d_initial, strict=True)}

    note = "torch.nn.GRU resets after the product" if case.cell == "gru" else ""
    return Contender(run, gradients, {"torch": torch.__version__}, note)


def torch_loop(case: Case) -> Contender:
    """A loop over time in PyTorch, as written for a cell that PyTorch does not have: packed gates, input product hoisted."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(case.threads)
    data = case.data()
    gates, states, H = GATES[case.cell], STATES[case.cell], case.H
    leaves = {name: torch.from_numpy(data[name]) for name in ("W", "U", "b", "x", *(f"{name}0" for name in states))}
    leaves["W"] = leaves["W"].reshape(len(gates) * H, case.I)
    leaves["U"] = leaves["U"].reshape(len(gates) * H, H)
    leaves["b"] = leaves["b"].reshape(len(gates) * H)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    cotangents = [torch.from_numpy(data["dy"]), *(torch.from_numpy(data[f"d{name}"]) for name in states)]

    def lstm(z: Any, U: Any, h: Any, c: Any) -> tuple[Any, ...]:
        i, f, g, o = (z + h @ U.T).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def gru(z: Any, U: Any, h: Any) -> tuple[Any, ...]:
        r, u = torch.sigmoid(z[:, : 2 * H] + h @ U[: 2 * H].T).chunk(2, dim=1)
        n = torch.tanh(z[:, 2 * H :] + (r * h) @ U[2 * H :].T)
        return (u * n + (1 - u) * h,)

    def gru_after(z: Any, U: Any, h: Any) -> tuple[Any, ...]:
        hU = h @ U.T
        r, u = torch.sigmoid(z[:, : 2 * H] + hU[:, : 2 * H]).chunk(2, dim=1)
        n = torch.tanh(z[:, 2 * H :] + r * hU[:, 2 * H :])
        return (u * n + (1 - u) * h,)

    step: Any = {"lstm": lstm, "gru": gru, "gru_after": gru_after}[case.cell]

    def run() -> Any:
        z = leaves["x"] @ leaves["W"].T + leaves["b"]
        state, ys = tuple(leaves[f"{name}0"] for name in states), []
        for t in range(case.T):
            state = step(z[t], leaves["U"], *state)
            ys.append(state[0])
        return torch.autograd.grad([torch.stack(ys), *state], list(leaves.values()), cotangents)

    def gradients() -> Arrays:
        found = dict(zip(leaves, (grad.numpy() for grad in run()), strict=True))
        return found | {kind: found[kind].reshape(data[kind].shape) for kind in "WUb"}

    return Contender(run, gradients, {"torch": torch.__version__})


def jax_scan(case: Case) -> Contender:
    """jax.lax.scan with its vjp, all of it under one jit: packed gates, input product hoisted."""
    jax: Any = importlib.import_module("jax")
    jnp = jax.numpy
    data = case.data()
    gates, states, H = GATES[case.cell], STATES[case.cell], case.H
    packed = {name: data[name].reshape(len(gates) * H, -1) for name in "WU"} | {"b": data["b"].ravel(), "x": data["x"]}
    arguments = {name: jnp.asarray(value) for name, value in packed.items()}
    arguments |= {f"{name}0": jnp.asarray(data[f"{name}0"]) for name in states}
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

    def forward(arguments: dict[str, Any]) -> Any:
        z = arguments["x"] @ arguments["W"].T + arguments["b"]
        initial = tuple(arguments[f"{name}0"] for name in states)
        final, y = jax.lax.scan(lambda state, z_t: step(arguments["U"], state, z_t), initial, z)
        return y, final

    @jax.jit  # type: ignore[untyped-decorator]
    def forward_backward(arguments: dict[str, Any], cotangents: Any) -> Any:
        value, vjp = jax.vjp(forward, arguments)
        return value, vjp(cotangents)[0]

    def run() -> Any:
        return jax.block_until_ready(forward_backward(arguments, cotangents))

    def gradients() -> Arrays:
        found = {name: np.asarray(value) for name, value in run()[1].items()}
        return found | {kind: found[kind].reshape(data[kind].shape) for kind in "WUb"}

    return Contender(run, gradients, {"jax": jax.__version__, "jaxlib": importlib.import_module("jaxlib").__version__})


CONTENDERS: dict[str, Callable[[Case], Contender]] = {
    "ours": lambda case: ours(case, workspace=True),
    "ours, no workspace": lambda case: ours(case, workspace=False),
    "torch.nn": torch_fused,
    "jax.lax.scan": jax_scan,
    "torch loop": torch_loop,
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


def answer(request: dict[str, Any], contender: Contender | None) -> tuple[dict[str, Any], Contender | None]:
    """The answer to one request, and the contender from now on."""
    match request["do"]:
        case "prepare":
            case = Case(**{key: request[key] for key in Case._fields})
            contender = CONTENDERS[request["contender"]](case)
            contender.run()
            return {"versions": contender.versions, "note": contender.note}, contender
        case "time" if contender is not None:
            return {"seconds": measure(contender.run, request["seconds"], request["most"])}, contender
        case "gradients" if contender is not None:
            np.savez(request["file"], **contender.gradients())  # type: ignore[arg-type]
            return {}, contender
        case other:
            return {"error": f"unexpected request {other!r}"}, contender


def main() -> int:
    """Answers until stdin ends. Whatever a library prints goes to stderr: stdout holds answers and nothing else."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    contender: Contender | None = None
    for line in sys.stdin:
        try:
            reply, contender = answer(json.loads(line), contender)
        except ModuleNotFoundError as error:
            reply = {"error": f"no module named {error.name}", "missing": True}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
