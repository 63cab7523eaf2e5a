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
Step = Callable[[Any, Tensors], Tensors]


class Loop(NamedTuple):
    """``before`` makes of W @ x + b [T, B, G*H] what steps read; ``step`` makes of a step of that, weights and state the next.

    ``before`` also takes a single step [B, G*H].
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
        return tuple(z.split((z.shape[-1] // 3 * 2, z.shape[-1] // 3), dim=-1))

    def elman(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h,), (z,), (U,) = state, at, weights
        return (tanh(z + h @ U.T),)

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

    def cifg(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h, c), (z,), (U,) = state, at, weights
        f, g, o = (z + h @ U.T).chunk(3, dim=1)
        f = sigmoid(f)
        c = f * c + (1 - f) * tanh(g)
        return sigmoid(o) * tanh(c), c

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
        z, candidate = both.chunk(2, dim=-1)
        z = sigmoid(z)
        return 1 - z, z * candidate

    def mingru(at: Tensors, weights: Tensors, state: Tensors) -> Tensors:
        (h,), (keep, new) = state, at
        return (torch.addcmul(new, keep, h),)

    def recurrent(leaves: dict[str, Any]) -> Tensors:
        return (leaves["U"],)

    return {
        "elman": Loop(whole, elman, recurrent),
        "lstm": Loop(whole, lstm, recurrent),
        "peephole": Loop(whole, peephole, lambda leaves: (leaves["U"], *leaves["p"].unbind(0))),
        "cifg": Loop(whole, cifg, recurrent),
        "gru": Loop(last_apart, gru, lambda leaves: tuple(leaves["U"].split((2 * leaves["U"].shape[1], leaves["U"].shape[1])))),
        "gru_after": Loop(whole, gru_after, recurrent),
        "indrnn": Loop(whole, indrnn, lambda leaves: (leaves["u"],)),
        "mingru": Loop(mingru_before, mingru, lambda leaves: ()),
    }[cell]


class Model:
    """A case in PyTorch. ``forward()`` gives y and the final states, ``both()`` these and the gradient of every leaf.

    ``step_by_step()`` makes ready a call that gives what ``forward()`` gives, from inputs that arrive one at a time.
    """

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

    def inference(self) -> Tensors:
        """The forward pass alone, in the mode that PyTorch has for it."""
        with self.torch.inference_mode():
            return self.forward()

    def one_step(self) -> Step:
        """What makes of an input [B, I] and states the next states."""
        raise NotImplementedError

    def step_by_step(self) -> Callable[[], Tensors]:
        step, inputs = self.one_step(), self.leaves["x"].detach().unbind(0)
        initial = tuple(self.leaves[f"{name}0"].detach() for name in self.layout.states)

        def run() -> Tensors:
            state, ys = initial, []
            with self.torch.inference_mode():
                for x_t in inputs:
                    state = step(x_t, state)
                    ys.append(state[0])
            return ys, *state

        return run

    def both(self) -> tuple[Tensors, Tensors]:
        outputs = self.forward()
        return outputs, self.torch.autograd.grad(outputs, list(self.leaves.values()), self.cotangents)

    def outcome(self, found: tuple[Tensors, Tensors]) -> Outcome:
        """What ``both`` returned, in the common layout."""
        named = dict(zip(self.leaves, map(self.array, found[1]), strict=True))
        inputs = {name: named[name] for name in ("x", *(f"{state}0" for state in self.layout.states))}
        return Outcome(self.outputs(found[0]), self.common(named) | inputs)

    def outputs(self, found: Tensors) -> Arrays:
        """What a call without gradients returned, by name."""
        y, *final = found
        values = [self.array(y if isinstance(y, self.torch.Tensor) else self.torch.stack(y)), *map(self.array, final)]
        return dict(zip(("y", *(f"{state} final" for state in self.layout.states)), values, strict=True))

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
        self.loop, self.compiled = loop_of(self.torch, case.cell), compiled
        self.step = self.maybe_compiled(self.loop.step)

    def maybe_compiled(self, function: Callable[..., Tensors]) -> Callable[..., Tensors]:
        return self.torch.compile(function, fullgraph=True, dynamic=False) if self.compiled else function

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

    def one_step(self) -> Step:
        linear, before, step = self.torch.nn.functional.linear, self.loop.before, self.loop.step
        leaves = {name: leaf.detach() for name, leaf in self.leaves.items()}
        weights, input_weights = self.loop.weights(leaves), (leaves["W"], leaves["b"])

        def whole(x_t: Any, input_weights: Tensors, weights: Tensors, state: Tensors) -> Tensors:
            return step(before(linear(x_t, *input_weights)), weights, state)

        run = self.maybe_compiled(whole)
        return lambda x_t, state: run(x_t, input_weights, weights, state)


class TorchFused(Model):
    """``torch.nn.LSTM``, ``nn.GRU`` or ``nn.RNN``, one layer: cuDNN on a GPU, oneDNN for the LSTM on a CPU.

    A step is ``torch.nn.LSTMCell`` and its like.
    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        if case.cell not in FUSED:
            raise ValueError(f"torch.nn has no {case.cell}")
        super().__init__(case, device)
        self.kind = {"lstm": "LSTM", "elman": "RNN"}.get(case.cell, "GRU")
        self.layer = getattr(self.torch.nn, self.kind)(case.I, case.H, **self.place)
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

    def one_step(self) -> Step:
        cell = getattr(self.torch.nn, f"{self.kind}Cell")(self.case.I, self.case.H, **self.place)
        with self.torch.no_grad():
            for name, parameter in cell.named_parameters():
                parameter.copy_(self.leaves[f"{name}_l0"])
        return cell if self.kind == "LSTM" else lambda x_t, state: (cell(x_t, *state),)
