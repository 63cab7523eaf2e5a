"""Layers on top of one another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from cellspec.layers.noise import check_rate, check_rng, dropout
from cellspec.layers.protocol import AnyLayer, Gradients, Tree, parts


class Tape(NamedTuple):
    """The layers' tapes, and the masks of what goes from each layer to the next, None where nothing was dropped."""

    tapes: tuple[Any, ...]
    masks: tuple[Any, ...]


class Stack(AnyLayer):
    """Each layer reads what the one before it gives. Parameters, states and gradients are tuples, a part for each layer.

    ``dropout`` is the rate at which what goes from one layer to the next is dropped, each number by itself, in calls with
    ``rng`` (Zaremba et al., 2014). Raises ValueError for sizes that do not fit.
    """

    def __init__(self, *layers: AnyLayer, dropout: float = 0.0) -> None:
        if not layers:
            raise ValueError("Stack takes one layer or more")
        for k, (below, above) in enumerate(pairwise(layers)):
            if below.output_size != above.input_size:
                raise ValueError(f"layer {k + 1} reads {above.input_size} numbers, but layer {k} gives {below.output_size}")
        self.layers = layers
        self.input_size, self.output_size = layers[0].input_size, layers[-1].output_size
        self.causal = all(layer.causal for layer in layers)
        self._dropout = check_rate("dropout", dropout)

    @property
    def xp(self) -> Any:
        """That of the layers."""
        return self.layers[0].xp

    @property
    def template(self) -> Tree:
        """A part for each layer."""
        return tuple(layer.template for layer in self.layers)

    def flops(self, T: int, B: int) -> int:
        """Those of the layers."""
        return sum(layer.flops(T, B) for layer in self.layers)

    def facts(self) -> dict[str, str]:
        """Those of the layers, behind their numbers."""
        return {f"{k}.{name}": fact for k, layer in enumerate(self.layers) for name, fact in layer.facts().items()}

    def init_params(self, rng: np.random.Generator) -> Tree:
        """A part for each layer, drawn from the first on."""
        return tuple(layer.init_params(rng) for layer in self.layers)

    def init_state(self, params: Tree, batch: int) -> Tree:
        """A part for each layer."""
        return tuple(layer.init_state(own, batch) for layer, own in self._with("params", params))

    def pack(self, params: Tree) -> Tree:
        """A part for each layer."""
        return tuple(layer.pack(own) for layer, own in self._with("params", params))

    def workspace(self, params: Tree, T: int, B: int) -> Any:
        """One for each layer."""
        return tuple(layer.workspace(own, T, B) for layer, own in self._with("params", params))

    def _with(self, name: str, value: Any) -> zip[tuple[AnyLayer, Any]]:
        """The layers with their parts."""
        return zip(self.layers, parts(name, value, len(self.layers)), strict=True)

    def forward(
        self,
        params: Tree,
        x: Any,
        state: Tree | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reverse: bool = False,
        rng: np.random.Generator | None = None,
        workspace: Any = None,
    ) -> tuple[Any, Tree, Any]:
        """``(y, final states, tape)``; see :meth:`AnyLayer.forward`."""
        check_rng(rng)
        states = parts("state", state, len(self.layers))
        spaces = parts("workspace", workspace, len(self.layers))
        finals: list[Any] = []
        tapes: list[Any] = []
        masks: list[Any] = []
        for (layer, own), start, space in zip(self._with("params", params), states, spaces, strict=True):
            mask = None
            if tapes and rng is not None and self._dropout:
                mask = dropout(rng, x.shape, self._dropout, x.dtype, self.xp)
                x = x * mask
            x, final, tape = layer.forward(
                own, x, start, lengths=lengths, resets=resets, reverse=reverse, rng=rng, workspace=space
            )
            finals.append(final)
            tapes.append(tape)
            masks.append(mask)
        return x, tuple(finals), Tape(tuple(tapes), tuple(masks))

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients by the parameters, x and the initial states."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward of this stack returned, got {type(tape).__name__}")
        dstates = parts("dstate", dstate, len(self.layers))
        d_params, d_states = [], []
        for (layer, own), run, mask, d_final in reversed(list(zip(self._with("params", params), *tape, dstates, strict=True))):
            d_own, dy, d_start = layer.backward(own, run, dy, d_final)
            dy = dy if mask is None else dy * mask
            d_params.append(d_own)
            d_states.append(d_start)
        return Gradients(tuple(reversed(d_params)), dy, tuple(reversed(d_states)))

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """One step of every layer."""
        following = []
        for (layer, own), now in zip(self._with("params", params), parts("state", state, len(self.layers)), strict=True):
            x_t, after = layer.step(own, x_t, now)
            following.append(after)
        return x_t, tuple(following)
