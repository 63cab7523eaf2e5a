"""The cells that ONNX has an operator for, run by ONNX Runtime: forward passes only, ONNX Runtime has no others.

The operators ``LSTM``, ``GRU`` and ``RNN`` take the gates in orders of their own, and a GRU whose z is 1 - u. A coupled LSTM
(``input_forget``) is one whose forget gate is 1 - i, so that i is 1 - f with f's parameters negated.
Both packages, onnx and onnxruntime, are imported when the first cell is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS, Arrays, Case
from numpy.typing import NDArray

Values = tuple[Any, ...]


class Operator(NamedTuple):
    """An operator, its gates in order as ours with the sign of their parameters, and its attributes."""

    name: str
    gates: tuple[tuple[str, int], ...]
    attributes: tuple[tuple[str, int], ...] = ()


LSTM_GATES = (("i", 1), ("o", 1), ("f", 1), ("g", 1))
GRU_GATES = (("u", -1), ("r", 1), ("n", 1))
OPERATORS = {
    "elman": Operator("RNN", (("", 1),)),
    "lstm": Operator("LSTM", LSTM_GATES),
    "peephole": Operator("LSTM", LSTM_GATES),
    "cifg": Operator("LSTM", (("f", -1), ("o", 1), ("f", 1), ("g", 1)), (("input_forget", 1),)),
    "gru": Operator("GRU", GRU_GATES, (("linear_before_reset", 0),)),
    "gru_after": Operator("GRU", GRU_GATES, (("linear_before_reset", 1),)),
}
PEEPHOLES = "iof"  # the order of the operator's input P


def weights(cell: str, data: Arrays) -> Arrays:
    """The operator's inputs W, R, B and P, for one direction; the second bias is zero."""
    layout, gates = CELLS[cell], OPERATORS[cell].gates

    def rows(kind: str) -> NDArray[Any]:
        return np.concatenate([sign * data[kind][layout.kinds[kind].index(gate)] for gate, sign in gates])[None]

    bias = rows("b")
    found = {"W": rows("W"), "R": rows("U"), "B": np.concatenate([bias, np.zeros_like(bias)], axis=1)}
    if "p" in layout.kinds:
        found["P"] = np.concatenate([data["p"][layout.kinds["p"].index(gate)] for gate in PEEPHOLES])[None]
    return found


class OnnxCell:
    """A case in ONNX Runtime, with the calls of ``torch_cells.Model`` that need no gradients."""

    def __init__(self, case: Case) -> None:
        self.runtime: Any = importlib.import_module("onnxruntime")
        self.onnx: Any = importlib.import_module("onnx")
        self.case, self.states = case, CELLS[case.cell].states
        data = case.data()
        self.weights, self.x = weights(case.cell, data), data["x"]
        self.initial = {f"initial_{name}": data[f"{name}0"][None] for name in self.states}

    def session(self) -> Any:
        """A session with as many threads as the case has, for sequences of any length."""
        helper, float32, numpy_helper = self.onnx.helper, self.onnx.TensorProto.FLOAT, self.onnx.numpy_helper
        case, operator = self.case, OPERATORS[self.case.cell]

        def tensor(name: str, *shape: int | str) -> Any:
            return helper.make_tensor_value_info(name, float32, shape)

        initial, final = list(self.initial), [f"final_{name}" for name in self.states]
        inputs = ["x", "W", "R", "B", "", *initial, *(["P"] if "P" in self.weights else [])]
        node = helper.make_node(operator.name, inputs, ["y", *final], hidden_size=case.H, **dict(operator.attributes))
        graph = helper.make_graph(
            [node],
            case.cell,
            [tensor("x", "T", case.B, case.I), *(tensor(name, 1, case.B, case.H) for name in initial)],
            [tensor("y", "T", 1, case.B, case.H), *(tensor(name, 1, case.B, case.H) for name in final)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
        return self.runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def whole(self) -> Callable[[], Values]:
        """Makes ready a call over the sequence."""
        session, given = self.session(), {"x": self.x, **self.initial}

        def run() -> Values:
            return tuple(session.run(None, given))

        return run

    def step_by_step(self) -> Callable[[], Values]:
        session, inputs, names = self.session(), [x_t[None] for x_t in self.x], list(self.initial)

        def run() -> Values:
            state, ys = self.initial, []
            for x_t in inputs:
                y, *final = session.run(None, {"x": x_t, **state})
                state = dict(zip(names, final, strict=True))
                ys.append(y[0])
            return ys, *state.values()

        return run

    def outputs(self, found: Values) -> Arrays:
        """What a call returned, without the axis of directions."""
        y, *final = found
        values = {f"{name} final": value[0] for name, value in zip(self.states, final, strict=True)}
        return {"y": np.asarray(y)[:, 0]} | values
