"""One contender of ``masks.py`` in a process of its own; requests and answers are those of ``worker.py``.

A pass is forward + backward over a batch in one of the ways of ``WAYS``. Lengths and resets come from the case's seed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cells import Case, arguments, load_module
from numpy.typing import NDArray
from process import serve
from torch_cells import TorchFused
from worker import Call, measure

RESETS = 0.01  # the part of all steps before which a sample begins anew
WAYS = {
    "ours": ("whole", "lengths", "resets", "lengths, resets", "reverse"),
    "torch.nn": ("padded", "packed"),
}


class Given(NamedTuple):
    """What a case adds to its numbers."""

    lengths: NDArray[np.int64]  # [B], from 1 to T, one of them T
    resets: NDArray[np.bool_]  # [T, B]


def given(case: Case) -> Given:
    """Lengths of every size, and resets here and there."""
    rng = np.random.default_rng(case.seed)
    lengths = rng.integers(1, case.T + 1, case.B)
    lengths[0] = case.T
    return Given(lengths, rng.random((case.T, case.B)) < RESETS)


def ours(case: Case) -> dict[str, Call]:
    """A generated module, with a workspace for each way."""
    module: Any = load_module(case.cell, "numpy")
    numbers, masks = arguments(case, module), given(case)
    params, state = module.Params(**numbers.params), module.State(**numbers.state)
    dfinal = module.State(**numbers.dfinal)

    def call(**options: Any) -> Call:
        workspace = module.Workspace(case.T, case.B, params)

        def run() -> Any:
            y, final, tape = module.forward(params, numbers.x, state, workspace=workspace, **options)
            return y, final, module.backward(params, tape, numbers.dy, dfinal, workspace=workspace)

        return run

    options: list[dict[str, Any]] = [
        {},
        {"lengths": masks.lengths},
        {"resets": masks.resets},
        masks._asdict(),
        {"reverse": True},
    ]
    return {way: call(**each) for way, each in zip(WAYS["ours"], options, strict=True)}


class TorchPacked(TorchFused):
    """``torch.nn.LSTM`` and its like over a ``PackedSequence``, which is packed and padded again in every call."""

    def forward(self) -> Any:
        rnn = self.torch.nn.utils.rnn
        lengths = self.torch.from_numpy(given(self.case).lengths)
        packed = rnn.pack_padded_sequence(self.leaves["x"], lengths, enforce_sorted=False)
        initial = tuple(self.leaves[f"{name}0"][None] for name in self.layout.states)
        y, final = self.layer(packed, initial if len(initial) > 1 else initial[0])
        y, _ = rnn.pad_packed_sequence(y, total_length=self.case.T)
        return y, *(value[0] for value in (final if len(initial) > 1 else (final,)))


def torch_nn(case: Case) -> dict[str, Call]:
    """PyTorch's own layer."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(case.threads)
    return {"padded": TorchFused(case).both, "packed": TorchPacked(case).both}


CONTENDERS: dict[str, Callable[[Case], dict[str, Call]]] = {"ours": ours, "torch.nn": torch_nn}


class Answers:
    """The answers to one request after another."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "prepare":
                case = Case(**{key: value for key, value in request.items() if key in Case._fields})
                self.calls = CONTENDERS[request["contender"]](case)
                return {}
            case "time":
                return {"seconds": measure(self.calls[request["pass"]], request["seconds"], request["most"])}
            case other:
                return {"error": f"unexpected request {other!r}"}


if __name__ == "__main__":
    sys.exit(serve(Answers()))
