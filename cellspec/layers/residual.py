"""A layer, and around it a way straight through."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellspec.layers.protocol import AnyLayer, Gradients, Tree


class Residual(AnyLayer):
    """y + x, of a layer with as many outputs as inputs; parameters, states and tapes are that layer's own (He et al., 2016)."""

    def __init__(self, layer: AnyLayer) -> None:
        if layer.input_size != layer.output_size:
            raise ValueError(f"Residual adds x to y: the layer reads {layer.input_size} numbers, but gives {layer.output_size}")
        self.layer, self.xp, self.causal = layer, layer.xp, layer.causal
        self.input_size = self.output_size = layer.input_size

    @property
    def template(self) -> Tree:
        """That of the layer."""
        return self.layer.template

    def flops(self, T: int, B: int) -> int:
        """Those of the layer."""
        return self.layer.flops(T, B)

    def facts(self) -> dict[str, str]:
        """Those of the layer, and that there is a way around it."""
        return {"residual": "True"} | self.layer.facts()

    def init_params(self, rng: np.random.Generator) -> Tree:
        """Those of the layer."""
        return self.layer.init_params(rng)

    def init_state(self, params: Tree, batch: int) -> Tree:
        """That of the layer."""
        return self.layer.init_state(params, batch)

    def pack(self, params: Tree) -> Tree:
        """As the layer packs them."""
        return self.layer.pack(params)

    def workspace(self, params: Tree, T: int, B: int) -> Any:
        """That of the layer."""
        return self.layer.workspace(params, T, B)

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
        """``(y, final state, tape)``; see :meth:`AnyLayer.forward`."""
        y, final, tape = self.layer.forward(
            params, x, state, lengths=lengths, resets=resets, reverse=reverse, rng=rng, workspace=workspace
        )
        return y + x, final, tape

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients by the parameters, x and the initial state."""
        grads = self.layer.backward(params, tape, dy, dstate)
        return grads._replace(x=grads.x + dy)

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """One step of the layer, and x_t added."""
        y, state = self.layer.step(params, x_t, state)
        return y + x_t, state
