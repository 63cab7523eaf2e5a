"""The cells that peers know, and the numbers that all contenders compute with. Needs NumPy and nothing else.

Numbers come in one common layout, in which a *kind* of parameter is one array with the gates as its first axis: W [G, H, I],
U [G, H, H], vectors [G, H]. A generated module has a field for each gate (``Wi``, ``Wf``, …): ``fields`` and ``kinds`` go
between the two, ``fused`` and ``unfused`` between the common layout and the parameters of ``torch.nn.LSTM`` and its like.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

GENERATED = Path(__file__).resolve().parents[1] / "generated"
FORWARD, BOTH = "forward", "forward + backward"  # the passes over a sequence
DTYPES = ("float32", "tf32", "float16", "bfloat16", "float64")  # tf32: float32 arrays, products rounded to TF32 allowed


class Layout(NamedTuple):
    """A cell's parameters, each kind with its gates in the order of the packed rows, and its states: y is the first."""

    kinds: dict[str, tuple[str, ...]]
    states: tuple[str, ...]

    @property
    def gates(self) -> tuple[str, ...]:
        return self.kinds["W"]


CELLS = {
    "elman": Layout(dict.fromkeys("WUb", ("",)), ("h",)),
    "lstm": Layout(dict.fromkeys("WUb", tuple("ifgo")), ("h", "c")),
    "peephole": Layout({**dict.fromkeys("WUb", tuple("ifgo")), "p": tuple("ifo")}, ("h", "c")),
    "cifg": Layout(dict.fromkeys("WUb", tuple("fgo")), ("h", "c")),
    "gru": Layout(dict.fromkeys("WUb", tuple("run")), ("h",)),
    "gru_after": Layout(dict.fromkeys("WUb", tuple("run")), ("h",)),
    "indrnn": Layout(dict.fromkeys("Wbu", ("",)), ("h",)),
    "mingru": Layout(dict.fromkeys("Wb", tuple("zh")), ("h",)),
}
FUSED = ("elman", "lstm", "gru", "gru_after")  # the cells that torch.nn has, gru with another formula


class Case(NamedTuple):
    """What is computed: a cell, the sizes and the precision."""

    cell: str
    T: int
    B: int
    I: int  # noqa: E741
    H: int
    seed: int = 0
    threads: int = 1
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.T, self.B, self.I, self.H

    @property
    def storage(self) -> str:
        """The dtype of the arrays."""
        return "float32" if self.dtype == "tf32" else self.dtype

    def data(self) -> Arrays:
        """Parameters, x, initial states, and cotangents for every output and final state, of a cell that the peers know.

        The numbers are exactly representable in the case's dtype, so that an error is one of arithmetic. They are float32
        arrays, float64 only for float64.
        """
        rng = np.random.default_rng(self.seed)
        layout = CELLS[self.cell]

        def draw(*shape: int, scale: float = 1.0) -> NDArray[Any]:
            return representable(rng.standard_normal(shape, dtype=np.float32) * np.float32(scale), self.storage)

        data: Arrays = {}
        for kind, gates in layout.kinds.items():
            size, H, I = len(gates), self.H, self.I  # noqa: E741
            match kind:
                case "W":
                    data[kind] = draw(size, H, I, scale=I**-0.5)
                case "U":
                    data[kind] = draw(size, H, H, scale=H**-0.5)
                case "u":  # a state decays, also after a thousand steps
                    values = rng.uniform(-0.9, 0.9, (size, H)).astype(np.float32)
                    data[kind] = representable(values, self.storage)
                case _:
                    data[kind] = draw(size, H, scale=0.1)
        data["x"] = draw(self.T, self.B, self.I)
        data["dy"] = draw(self.T, self.B, self.H)
        for state in layout.states:
            data[f"{state}0"] = draw(self.B, self.H, scale=0.5)
            data[f"d{state}"] = draw(self.B, self.H)
        return data


def representable(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """``values`` rounded to a dtype, ties to even, and kept as float32; float64 becomes float64."""
    match dtype:
        case "float64":
            return values.astype(np.float64)
        case "float16":
            return values.astype(np.float16).astype(np.float32)
        case "bfloat16":
            bits = values.view(np.uint32)
            return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
    return values


def fields(cell: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as a generated module names them, ``Wi`` and so on, from the common layout."""
    return {kind + gate: data[kind][g] for kind, gates in CELLS[cell].kinds.items() for g, gate in enumerate(gates)}


def kinds(cell: str, values: Mapping[str, NDArray[Any]]) -> Arrays:
    """The common layout of a generated module's parameters or their gradients."""
    return {kind: np.stack([values[kind + gate] for gate in gates]) for kind, gates in CELLS[cell].kinds.items()}


def packed(cell: str, data: Mapping[str, NDArray[Any]]) -> Arrays:
    """The parameters with the gates stacked in the rows: W [G*H, I], U [G*H, H], b [G*H]. Other vectors stay [G, H]."""
    found = {kind: data[kind] for kind in CELLS[cell].kinds}
    for kind in found.keys() & {"W", "U"}:
        found[kind] = found[kind].reshape(-1, found[kind].shape[-1])
    return found | {"b": found["b"].ravel()}


# --- torch.nn and cuDNN ------------------------------------------------------------------------------------


def _signs(cell: str) -> NDArray[np.float32]:
    """-1 for the rows whose gate is the other one's complement.

    The GRU of torch.nn keeps z*h + (1 - z)*n, so z = 1 - u: its z is our u with the parameters negated.
    """
    return np.array([-1.0 if gate == "u" else 1.0 for gate in CELLS[cell].gates], np.float32)


def fused(cell: str, data: Mapping[str, NDArray[Any]]) -> Arrays:
    """The parameters of ``torch.nn.LSTM`` (gates i, f, g, o), ``nn.GRU`` (r, z, n) or ``nn.RNN``, from the common layout.

    Of the two biases, the second is zero for every gate: then r*(U@h + 0) is gru_after.
    """
    sign = _signs(cell)
    rows = packed(cell, {kind: data[kind] * sign.reshape(-1, *[1] * (data[kind].ndim - 1)) for kind in "WUb"})
    return {
        "weight_ih_l0": rows["W"],
        "weight_hh_l0": rows["U"],
        "bias_ih_l0": rows["b"],
        "bias_hh_l0": np.zeros_like(rows["b"]),
    }


def unfused(cell: str, gradients: Mapping[str, NDArray[Any]]) -> Arrays:
    """The common layout of gradients by the parameters of ``torch.nn.LSTM``, ``nn.GRU`` or ``nn.RNN``."""
    sign = _signs(cell)
    W, U, b = (gradients[name] for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"))
    shape = (len(sign), len(b) // len(sign), -1)
    return {
        "W": W.reshape(shape) * sign[:, None, None],
        "U": U.reshape(shape) * sign[:, None, None],
        "b": b.reshape(shape[:2]) * sign[:, None],
    }


# --- this project ------------------------------------------------------------------------------------------


def module_file(cell: str, backend: str, folder: str | Path = GENERATED) -> Path:
    """Where the generated module of a cell lies."""
    return Path(folder, f"{cell}_{backend}.py")


def load_module(cell: str, backend: str, folder: str | Path = GENERATED) -> ModuleType:
    """The generated module of a cell, from a folder. Raises ModuleNotFoundError where there is none."""
    file = module_file(cell, backend, folder)
    name = f"generated.{file.stem}"
    if not file.exists():
        raise ModuleNotFoundError(f"no module named {name}", name=name)
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Arguments(NamedTuple):
    """What a generated module's ``forward`` and ``backward`` are given, as NumPy arrays, parameters and states by field."""

    params: Arrays
    x: NDArray[Any]
    state: Arrays
    dy: NDArray[Any]
    dfinal: Arrays


def arguments(case: Case, numpy_module: ModuleType | None = None) -> Arguments:
    """The case's numbers for a generated module; cells that the peers do not know start from the spec's own parameters.

    Only for those is ``numpy_module`` needed, the NumPy module of the cell. A ValueError for several inputs or outputs.
    """
    if case.cell in CELLS:
        data, states = case.data(), CELLS[case.cell].states
        initial, final = ({name: data[key.format(name)] for name in states} for key in ("{}0", "d{}"))
        return Arguments(fields(case.cell, data), data["x"], initial, data["dy"], final)
    assert numpy_module is not None
    if hasattr(numpy_module, "Inputs") or hasattr(numpy_module, "Outputs"):
        raise ValueError(f"{case.cell} has several inputs or outputs: the benchmarks have no numbers for it")
    rng = np.random.default_rng(case.seed)
    sizes = {dim: case.I if dim == "I" else case.H for dim in numpy_module.DIMS}
    params = numpy_module.init_params(rng, **sizes, dtype=np.float32)
    params = type(params)(*(representable(np.asarray(value, np.float32), case.storage) for value in params))

    def draw(like: NDArray[Any]) -> NDArray[Any]:
        return representable(rng.standard_normal(like.shape, dtype=np.float32), case.storage)

    x = draw(np.empty((case.T, case.B, case.I)))
    state = numpy_module.init_state(params, case.B)
    y, final, _ = numpy_module.forward(params, x[:1], state)
    dy = draw(np.empty((case.T, *y.shape[1:])))
    return Arguments(params._asdict(), x, state._asdict(), dy, {name: draw(value) for name, value in final._asdict().items()})
