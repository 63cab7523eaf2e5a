"""One contender in a process of its own: reads requests from stdin, answers on stdout, one line of JSON each.

    {"do": "prepare", "contender": "torch.nn", "cell": "lstm", "T": 100, "B": 32, "I": 64, "H": 128, "threads": 2, "seed": 0}
        -> {"versions": {"torch": "2.13.0"}, "note": ""}
    {"do": "outcome", "pass": "forward", "file": "….npz"}    -> {}: outputs and gradients, for the cross-check
    {"do": "time", "pass": "forward", "seconds": 0.3, "most": 50}
        -> {"seconds": [0.0085, …], "peak": 12582912}: warm calls, and by how many bytes the process grew in them

A pass is ``forward``, ``forward + backward`` or ``step``: the sequence taken one step at a time; its time is that of one step.
What a pass needs, compiled code or buffers, is made by the first request for it. ``process.py`` has the protocol, ``cells.py``
the numbers that every contender makes from the seed. This file and those that it imports need NumPy and the contender's own
library, nothing else: they also run in other interpreters.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import process_memory
from cells import BOTH, CELLS, FORWARD, FUSED, Case, arguments, load_module
from jax_cells import JaxScan
from onnx_cells import OPERATORS, OnnxCell
from outcome import Outcome, outcome_of, save
from process import serve
from torch_cells import Model, TorchFused, TorchLoop

STEP = "step"
PASSES = (STEP, FORWARD, BOTH)  # what needs least memory comes first

Call = Callable[[], Any]


class Contender(NamedTuple):
    """``passes`` makes ready the call of each pass; ``outcome`` takes what a pass returned."""

    passes: dict[str, Callable[[], Call]]
    outcome: Callable[[str, Any], Outcome]
    base: int  # bytes that the process held with the library imported and the numbers made
    versions: dict[str, str]
    note: str = ""  # how its formula differs from the cell's: then nothing is compared


# --- this project ------------------------------------------------------------------------------------------


def ours(case: Case, workspace: bool) -> Contender:
    """``generated/<cell>_numpy.py``; cells that the peers do not know start from ``init_params`` and random inputs."""
    module: Any = load_module(case.cell, "numpy")
    given = arguments(case, module)
    params, state = module.Params(**given.params), module.State(**given.state)
    dfinal = module.State(**given.dfinal)
    inputs = list(given.x)
    base = process_memory.resident()

    @functools.cache
    def buffers() -> Any:
        return module.Workspace(case.T, case.B, params) if workspace else None

    def step_by_step() -> Call:
        packed = module.pack(params)

        def run() -> Any:
            now, ys = state, []
            for x_t in inputs:
                y, now = module.step(packed, x_t, now)
                ys.append(y)
            return ys, now

        return run

    def whole() -> Call:
        return lambda: module.forward(params, given.x, state, workspace=buffers())

    def both() -> Call:
        def run() -> Any:
            y, final, tape = module.forward(params, given.x, state, workspace=buffers())
            return y, final, module.backward(params, tape, given.dy, dfinal, workspace=buffers())

        return run

    def outcome(name: str, found: Any) -> Outcome:
        y, final, *grads = found
        return outcome_of(case.cell, np.asarray(y), final, *(grads if name == BOTH else ()))

    passes = {FORWARD: whole, BOTH: both} | ({STEP: step_by_step} if workspace else {})
    return Contender(passes, outcome, base, {"numpy": np.__version__})


# --- peers -------------------------------------------------------------------------------------------------


def torch_model(case: Case, model: Callable[[Case], Model]) -> Contender:
    """A layer of ``torch.nn``, or a loop over time in PyTorch."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(case.threads)
    made = model(case)
    note = "torch.nn.GRU resets after the product" if case.cell == "gru" and isinstance(made, TorchFused) else ""
    passes = {STEP: made.step_by_step, FORWARD: lambda: made.inference, BOTH: lambda: made.both}
    return peer(made, passes, {"torch": torch.__version__}, note)


def jax_scan(case: Case) -> Contender:
    """``jax.lax.scan`` and its ``vjp`` under one ``jit``."""
    made = JaxScan(case)
    passes = {STEP: made.step_by_step, FORWARD: lambda: made.inference, BOTH: lambda: made.both}
    return peer(made, passes, {"jax": made.jax.__version__, "jaxlib": importlib.import_module("jaxlib").__version__})


def onnx_runtime(case: Case) -> Contender:
    """ONNX Runtime, which has no backward pass."""
    made = OnnxCell(case)
    passes = {STEP: made.step_by_step, FORWARD: made.whole}
    return peer(made, passes, {"onnxruntime": made.runtime.__version__})


def peer(made: Any, passes: dict[str, Callable[[], Call]], versions: dict[str, str], note: str = "") -> Contender:
    """The contender of a model, which is ready but for what its passes need."""

    def outcome(name: str, found: Any) -> Outcome:
        named: Outcome = made.outcome(found) if name == BOTH else Outcome(made.outputs(found), {})
        return named

    return Contender(passes, outcome, process_memory.resident(), versions, note)


CONTENDERS: dict[str, Callable[[Case], Contender]] = {
    "ours": lambda case: ours(case, workspace=True),
    "ours, no workspace": lambda case: ours(case, workspace=False),
    "torch.nn": lambda case: torch_model(case, TorchFused),
    "torch loop": lambda case: torch_model(case, TorchLoop),
    "torch loop compiled": lambda case: torch_model(case, lambda case: TorchLoop(case, compiled=True)),
    "jax.lax.scan": jax_scan,
    "onnxruntime": onnx_runtime,
}
CELLS_OF = dict.fromkeys(CONTENDERS, tuple(CELLS)) | {"torch.nn": FUSED, "onnxruntime": tuple(OPERATORS)}  # the peers' cells


def takes_part(name: str, cell: str, direction: str) -> bool:
    """Whether a contender has a pass of a cell; ours have every generated cell."""
    if name.startswith("ours"):
        return direction != STEP or name == "ours"
    return cell in CELLS_OF[name] and (direction != BOTH or name != "onnxruntime")


# --- the protocol ------------------------------------------------------------------------------------------


def measure(run: Call, seconds: float, most: int) -> list[float]:
    """Times of single calls for ``seconds``, at least one and at most ``most``, after a quarter of that time to warm up."""
    clock = time.perf_counter
    warm = clock() + seconds / 4
    run()
    while clock() < warm:
        run()
    times: list[float] = []
    end = clock() + seconds
    while not times or (clock() < end and len(times) < most):
        start = clock()
        run()
        times.append(clock() - start)
    return times


class Answers:
    """The answers to one request after another."""

    def __init__(self) -> None:
        self.contender: Contender | None = None
        self.case: Case | None = None
        self.ready: dict[str, Call] = {}

    def call(self, contender: Contender, name: str) -> Call:
        """The call of a pass, made ready when it is first asked for."""
        if name not in self.ready:
            self.ready[name] = contender.passes[name]()
        return self.ready[name]

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        contender, case = self.contender, self.case
        match request["do"]:
            case "prepare":
                self.contender, self.ready = None, {}
                self.case = case = Case(**{key: value for key, value in request.items() if key in Case._fields})
                self.contender = contender = CONTENDERS[request["contender"]](case)
                return {"versions": contender.versions, "note": contender.note}
            case "outcome" if contender is not None:
                name = request["pass"]
                save(request["file"], contender.outcome(name, self.call(contender, name)()))
                return {}
            case "time" if contender is not None and case is not None:
                run = self.call(contender, request["pass"])
                process_memory.forget_peak()
                times = measure(run, request["seconds"], request["most"])
                steps = case.T if request["pass"] == STEP else 1
                return {"seconds": [taken / steps for taken in times], "peak": max(0, process_memory.peak() - contender.base)}
            case other:
                return {"error": f"unexpected request {other!r}"}


if __name__ == "__main__":
    sys.exit(serve(Answers()))
