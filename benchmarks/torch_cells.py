"""The cells in PyTorch: ``torch.nn``'s layers, and loops over time as one writes them for a cell that PyTorch does not have.

A loop packs the gates, takes the product with x for all steps at once, and computes before the loop what does not need the
state. ``worker.py`` and ``gpu_worker.py`` measure these; PyTorch is imported when the first of them is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS, FUSED, Arrays, Case, fused, packed, unfused
from outcome import Outcome

Tensors = tuple[Any, ...]


class Loop(NamedTuple):
    """``before`` makes of W @ x + b [T, B, G*H] what steps read; ``step`` makes of a step of that, weights and state the next.

    ``weights`` takes what a step multiplies with from the leaves, once: parts of a leaf taken at every step would each add a
    gradient of the leaf's size.
    """

    before: Callable[[Any], Tensors]
    step: Callable[[Tensors, Tensors, Tensors], Tensors]
    weights: Callable[[dict[str, Any]], Tensors]


def loop_of(torch: Any, cell: str) -> Loop:
    """The loop of a cell that ``CELLS`` names."""
    sigmoid, tanh = torch.sigmoid, torch.tanh

    def whole(z: Any) -> Tensors:
        return (z,)

    def last_apart(z: Any) -> Tensors:
        return tuple(z.split((z.shape[2] // 3 * 2, z.shape[2] // 3), dim=2))

    def lstm(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h, c), (z,), (U,) = state, at, weights
        i, f, g, o = (z + h @ U.T).chunk(4, dim=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    def peephole(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h, c), (z,), (U, pi, pf, po) = state, at, weights
        i, f, g, o = (z + h @ U.T).chunk(4, dim=1)
        c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * tanh(g)
        return sigmoid(o + po * c) * tanh(c), c

    def gru(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h,), (z, z_n), (U, U_n) = state, at, weights
        r, u = sigmoid(z + h @ U.T).chunk(2, dim=1)
        n = tanh(z_n + (r * h) @ U_n.T)
        return (u * n + (1 - u) * h,)

    def gru_after(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h,), (z,), (U,) = state, at, weights
        two = 2 * h.shape[1]
        hU = h @ U.T
        r, u = sigmoid(z[:, :two] + hU[:, :two]).chunk(2, dim=1)
        n = tanh(z[:, two:] + r * hU[:, two:])
        return (u * n + (1 - u) * h,)

    def indrnn(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h,), (z,), (u,) = state, at, weights
        return (torch.relu(torch.addcmul(z, u, h)),)

    def mingru_before(both: Any) -> Tensors:
        z, candidate = both.chunk(2, dim=2)
        z = sigmoid(z)
        return 1 - z, z * candidate

    def mingru(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h,), (keep, new) = state, at
        return (torch.addcmul(new, keep, h),)

    return {
        "lstm": Loop(whole, lstm, lambda leaves: (leaves["U"],)),
        "gru": Loop(last_apart, gru, lambda leaves: tuple(leaves["U"].split((2 * leaves["U"].shape[1], leaves["U"].shape[1])))),
        "gru_after": Loop(whole, gru_after, lambda leaves: (leaves["U"],)),
        "peephole": Loop(whole, peephole, lambda leaves: (leaves["U"], *leaves["p"].unbind(0))),
        "indrnn": Loop(whole, indrnn, lambda leaves: (leaves["u"],)),
        "mingru": Loop(mingru_before, mingru, lambda leaves: ()),
    }[cell]


class Model:
    """A case in PyTorch. ``forward()`` gives y and the final states, ``both()`` these and the gradient of every leaf."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.torch: Any = importlib.import_module("torch")
        self.case, self.layout = case, CELLS[case.cell]
        self.place = {"device": device, "dtype": getattr(self.torch, case.storage)}
        data = case.data()
        self.leaves = {name: self.tensor(value).requires_grad_() for name, value in self.parameters(data).items()}
        self.leaves["x"] = self.tensor(data["x"]).requires_grad_()
        for name in self.layout.states:
            self.leaves[f"{name}0"] = self.tensor(data[f"{name}0"]).requires_grad_()
        self.cotangents = [self.tensor(data["dy"]), *(self.tensor(data[f"d{name}"]) for name in self.layout.states)]

    def tensor(self, value: Any) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(value)).to(copy=True, **self.place)

    def parameters(self, data: Arrays) -> Arrays:
        raise NotImplementedError

    def common(self, gradients: Arrays) -> Arrays:
        """The parameters' gradients in the common layout."""
        raise NotImplementedError

    def forward(self) -> Tensors:
        raise NotImplementedError

    def without_gradients(self) -> Tensors:
        """The forward pass alone: nothing is kept for a backward pass."""
        with self.torch.no_grad():
            return self.forward()

    def both(self) -> tuple[Tensors, Tensors]:
        outputs = self.forward()
        return outputs, self.torch.autograd.grad(outputs, list(self.leaves.values()), self.cotangents)

    def outcome(self, found: tuple[Tensors, Tensors]) -> Outcome:
        """What ``both`` returned, in the common layout."""
        outputs, gradients = (tuple(self.array(value) for value in values) for values in found)
        named = dict(zip(self.leaves, gradients, strict=True))
        inputs = {name: named[name] for name in ("x", *(f"{state}0" for state in self.layout.states))}
        names = ("y", *(f"{state} final" for state in self.layout.states))
        return Outcome(dict(zip(names, outputs, strict=True)), self.common(named) | inputs)

    def array(self, value: Any) -> Any:
        value = value.detach()
        return (value.float() if value.dtype in (self.torch.float16, self.torch.bfloat16) else value).cpu().numpy()


class TorchLoop(Model):
    """A loop over time; ``compiled``: with its step under ``torch.compile``.

    The steps are taken from the sequence by one ``unbind``: with ``z[t]`` the backward pass would add a gradient of the
    size of all of z at every step.
    """

    def __init__(self, case: Case, device: str = "cpu", compiled: bool = False) -> None:
        super().__init__(case, device)
        self.loop = loop_of(self.torch, case.cell)
        self.step = self.torch.compile(self.loop.step, fullgraph=True, dynamic=False) if compiled else self.loop.step

    def parameters(self, data: Arrays) -> Arrays:
        return packed(self.case.cell, data)

    def common(self, gradients: Arrays) -> Arrays:
        H, I = self.case.H, self.case.I  # noqa: E741
        shapes = {"W": (-1, H, I), "U": (-1, H, H)}
        return {kind: gradients[kind].reshape(shapes.get(kind, (-1, H))) for kind in self.layout.kinds}

    def forward(self) -> Tensors:
        leaves, step = self.leaves, self.step
        z = self.torch.nn.functional.linear(leaves["x"], leaves["W"], leaves["b"])
        weights = self.loop.weights(leaves)
        state, ys = tuple(leaves[f"{name}0"] for name in self.layout.states), []
        for at in zip(*(sequence.unbind(0) for sequence in self.loop.before(z)), strict=True):
            state = step(at, weights, state)
            ys.append(state[0])
        return self.torch.stack(ys), *state


class TorchFused(Model):
    """``torch.nn.LSTM`` or ``torch.nn.GRU``, one layer: cuDNN on a GPU, oneDNN for the LSTM on a CPU."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        if case.cell not in FUSED:
            raise ValueError(f"torch.nn has no {case.cell}")
        super().__init__(case, device)
        layer = self.torch.nn.LSTM if case.cell == "lstm" else self.torch.nn.GRU
        self.layer = layer(case.I, case.H, **self.place)
        with self.torch.no_grad():
            for name, parameter in self.layer.named_parameters():
                parameter.copy_(self.leaves[name])
                self.leaves[name] = parameter  # the layer's own lie in one piece, as cuDNN wants them

    def parameters(self, data: Arrays) -> Arrays:
        return fused(self.case.cell, data)

    def common(self, gradients: Arrays) -> Arrays:
        return unfused(self.case.cell, gradients)

    def forward(self) -> Tensors:
        initial = tuple(self.leaves[f"{name}0"][None] for name in self.layout.states)
        y, final = self.layer(self.leaves["x"], initial if len(initial) > 1 else initial[0])
        return y, *(value[0] for value in (final if len(initial) > 1 else (final,)))
