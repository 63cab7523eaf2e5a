"""One contender on a GPU, in a process of its own (``process.py`` has the protocol).

    {"do": "probe", "library": "cupy"}                  -> {"gpu": …, "capability": …, "memory": …, "versions": {…}}
    {"do": "prepare", "contender": "ours", "generated": "generated", "cell": "lstm", "T": 1024, …, "dtype": "float32"}
        -> {"versions": {…}, "note": ""}; both passes are warm then
    {"do": "reference", "source": "torch", "file": "….npz", "generated": …, "cell": …}   -> {}: results in float64
    {"do": "compare", "file": "….npz"}                  -> {"forward": {"norm": …, "largest": …}, "gradients": {…}}
    {"do": "time", "pass": "forward", "seconds": 0.2, "most": 50}                -> {"ms": […]} by CUDA events
    {"do": "release"}                                   -> {}: the device memory is given back

Work is done on a stream of the contender's own, which is the current one of its library.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cells import BOTH, CELLS, FORWARD, Case, arguments, load_module
from outcome import Outcome, difference, load, outcome_of, save
from process import Failure, serve
from torch_cells import Model, TorchFused, TorchLoop

PASSES = (FORWARD, BOTH)
WARM = 3  # calls before a capture


class Contender(NamedTuple):
    """``run`` has a call for each pass, ``outcome`` takes what the call for both passes returned, ``clock`` times a call."""

    run: dict[str, Callable[[], Any]]
    outcome: Callable[[Any], Outcome]
    clock: Callable[[Callable[[], Any]], float]  # milliseconds
    versions: dict[str, str]
    note: str = ""


# --- this project ------------------------------------------------------------------------------------------


def ours(case: Case, generated: str, graph: bool) -> Contender:
    """``generated/<cell>_cupy.py`` with a workspace, step by step or as a captured graph."""
    cupy: Any = importlib.import_module("cupy")
    module: Any = load_module(case.cell, "cupy", generated)
    given = arguments(case, None if case.cell in CELLS else load_module(case.cell, "numpy", generated))
    bfloat16 = case.storage == "bfloat16"
    dtype = np.dtype(importlib.import_module("ml_dtypes").bfloat16 if bfloat16 else case.storage)
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.use()

    def array(value: Any) -> Any:
        return cupy.asarray(np.asarray(value).astype(dtype))

    params = module.Params(**{name: array(value) for name, value in given.params.items()})
    state, dfinal = (module.State(**{name: array(value) for name, value in s.items()}) for s in (given.state, given.dfinal))
    x, dy = array(given.x), array(given.dy)
    ws = module.Workspace(case.T, case.B, params)

    def forward() -> Any:
        return module.forward(params, x, state, workspace=ws, graph=graph)

    def both() -> Any:
        y, final, tape = forward()
        return y, final, module.backward(params, tape, dy, dfinal, workspace=ws, graph=graph)

    def host(value: Any) -> Any:
        return cupy.asnumpy(value).astype(np.float64 if dtype == np.float64 else np.float32)

    def outcome(found: Any) -> Outcome:
        y, final, grads = found
        params, state = (type(values)(*map(host, values)) for values in (grads.params, grads.state))
        return outcome_of(
            case.cell, host(y), type(final)(*map(host, final)), grads._replace(params=params, x=host(grads.x), state=state)
        )

    def clock(run: Callable[[], Any]) -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        run()
        end.record(stream)
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end))

    return Contender({FORWARD: forward, BOTH: both}, outcome, clock, {"cupy": cupy.__version__})


# --- peers -------------------------------------------------------------------------------------------------


def peer(case: Case, model: Callable[[Case, str], Model], graph: bool = False, device: str = "cuda") -> Contender:
    """A model in PyTorch; with ``graph``, each pass is captured once and replayed. On the CPU only for tests."""
    torch: Any = importlib.import_module("torch")
    versions = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if device == "cpu":
        made = model(case, device)
        return Contender({FORWARD: made.without_gradients, BOTH: made.both}, made.outcome, host_clock, versions)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = case.dtype == "tf32"
    stream = torch.cuda.Stream()
    torch.cuda.set_stream(stream)
    made = model(case, device)
    run: dict[str, Callable[[], Any]] = {FORWARD: made.without_gradients, BOTH: made.both}
    if graph:
        run = {name: captured(torch, stream, call) for name, call in run.items()}
    note = ""
    if isinstance(made, TorchFused):
        versions["cudnn"] = str(torch.backends.cudnn.version())
        if not torch.cudnn_is_acceptable(made.leaves["x"]):
            note = f"PyTorch gives cuDNN no {case.storage}: these are PyTorch's own kernels"

    def clock(call: Callable[[], Any]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(stream)
        call()
        end.record(stream)
        end.synchronize()
        return float(start.elapsed_time(end))

    return Contender(run, made.outcome, clock, versions, note)


def captured(torch: Any, stream: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    """A call that replays the kernels of ``call`` and returns the arrays that they write, the same ones every time."""
    for _ in range(WARM):
        call()
    stream.synchronize()
    gc.collect()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        found = call()

    def replay() -> Any:
        graph.replay()
        return found

    return replay


def compiled(case: Case, device: str) -> Model:
    return TorchLoop(case, device, compiled=True)


def host_clock(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


CONTENDERS: dict[str, Callable[[Case, str], Contender]] = {
    "ours": lambda case, generated: ours(case, generated, graph=False),
    "ours graph": lambda case, generated: ours(case, generated, graph=True),
    "torch.nn": lambda case, _: peer(case, TorchFused),
    "torch loop": lambda case, _: peer(case, TorchLoop),
    "torch loop compiled": lambda case, _: peer(case, compiled),
    "torch loop graph": lambda case, _: peer(case, TorchLoop, graph=True),
    "torch loop compiled graph": lambda case, _: peer(case, compiled, graph=True),
}


# --- the reference -----------------------------------------------------------------------------------------


def reference(case: Case, source: str, generated: str, device: str = "cuda") -> Outcome:
    """The case in float64: by the PyTorch loop, which nothing here generates, or by the NumPy module of the cell.

    The numbers are those of the case's dtype.
    """
    if source == "torch":
        model = TorchLoop(case, device)
        model.place["dtype"] = model.torch.float64
        model.leaves = {name: leaf.detach().double().requires_grad_() for name, leaf in model.leaves.items()}
        model.cotangents = [value.double() for value in model.cotangents]
        return model.outcome(model.both())
    module: Any = load_module(case.cell, "numpy", generated)
    given = arguments(case, module)
    params, state, dfinal = (
        kind(**{name: value.astype(np.float64) for name, value in values.items()})
        for kind, values in ((module.Params, given.params), (module.State, given.state), (module.State, given.dfinal))
    )
    y, final, tape = module.forward(params, given.x.astype(np.float64), state)
    grads = module.backward(params, tape, given.dy.astype(np.float64), dfinal)
    return outcome_of(case.cell, y, final, grads)


# --- the answers -------------------------------------------------------------------------------------------


def probe(library: str) -> dict[str, Any]:
    """The GPU that a library sees. A Failure where it sees none."""
    module: Any = importlib.import_module(library)
    if library == "torch":
        if not module.cuda.is_available():
            raise Failure(f"torch {module.__version__} finds no CUDA device")
        found = module.cuda.get_device_properties(0)
        name, capability, memory = found.name, f"{found.major}.{found.minor}", found.total_memory
        cuda = module.version.cuda
    else:
        try:
            found = module.cuda.runtime.getDeviceProperties(0)
        except module.cuda.runtime.CUDARuntimeError as error:
            raise Failure(f"cupy {module.__version__} finds no CUDA device ({error})") from None
        name, capability, memory = found["name"].decode(), f"{found['major']}.{found['minor']}", found["totalGlobalMem"]
        cuda = str(module.cuda.runtime.runtimeGetVersion())
    versions = {library: module.__version__, f"cuda of {library}": cuda, "numpy": np.__version__}
    return {"gpu": name, "capability": capability, "memory": memory, "versions": versions}


def measure(contender: Contender, name: str, seconds: float, most: int) -> list[float]:
    """Times of single calls for ``seconds``, at least one and at most ``most``, after a quarter of that time to warm up."""
    run, now = contender.run[name], time.perf_counter
    warm = now() + seconds / 4
    contender.clock(run)
    while now() < warm:
        contender.clock(run)
    times: list[float] = []
    end = now() + seconds
    while not times or (now() < end and len(times) < most):
        times.append(contender.clock(run))
    return times


class Answers:
    """The answers to one request after another."""

    def __init__(self) -> None:
        self.contender: Contender | None = None

    def release(self) -> None:
        """Gives the device memory back: the processes of the other contenders need it."""
        self.contender = None
        gc.collect()
        if (torch := sys.modules.get("torch")) is not None:
            if "torch._dynamo" in sys.modules:
                torch.compiler.reset()
            torch.cuda.empty_cache()
        if (cupy := sys.modules.get("cupy")) is not None:
            cupy.get_default_memory_pool().free_all_blocks()
            cupy.get_default_pinned_memory_pool().free_all_blocks()

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        case = Case(**{key: value for key, value in request.items() if key in Case._fields}) if "cell" in request else None
        contender = self.contender
        match request["do"]:
            case "probe":
                return probe(request["library"])
            case "release":
                contender = None
                self.release()
                return {}
            case "prepare" if case is not None:
                contender = None
                self.release()
                self.contender = contender = CONTENDERS[request["contender"]](case, request["generated"])
                for run in contender.run.values():
                    contender.clock(run)
                    contender.clock(run)
                return {"versions": contender.versions, "note": contender.note}
            case "reference" if case is not None:
                found = reference(case, request["source"], request["generated"])
                save(request["file"], found)
                del found
                self.release()
                return {}
            case "compare" if contender is not None:
                wanted, found = load(request["file"]), contender.outcome(contender.run[BOTH]())
                return {
                    "forward": difference(found.outputs, wanted.outputs),
                    "gradients": difference(found.gradients, wanted.gradients),
                }
            case "time" if contender is not None:
                return {"ms": measure(contender, request["pass"], request["seconds"], request["most"])}
            case other:
                return {"error": f"unexpected request {other!r}"}


if __name__ == "__main__":
    sys.exit(serve(Answers()))
