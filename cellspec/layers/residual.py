"""A layer, and around it a way straight through."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cellspec.layers.around import Around
from cellspec.layers.masks import within
from cellspec.layers.protocol import AnyLayer, Gradients, Tree


class Tape(NamedTuple):
    """The layer's tape, and where its samples have steps, None if all have all."""

    run: Any
    valid: Any


class Residual(Around):
    """y + x, of a layer with as many outputs as inputs; parameters and states are that layer's own (He et al., 2016)."""

    def __init__(self, layer: AnyLayer) -> None:
        if layer.input_size != layer.output_size:
            raise ValueError(f"Residual adds x to y: the layer reads {layer.input_size} numbers, but gives {layer.output_size}")
        super().__init__(layer)

    def facts(self) -> dict[str, str]:
        """Those of the layer, and that there is a way around it."""
        return {"residual": "yes"} | self.layer.facts()

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
        valid = None if lengths is None else within(lengths, len(x), self.xp)
        return y + self._through(x, valid), final, Tape(tape, valid)

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients by the parameters, x and the initial state."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward of this layer returned, got {type(tape).__name__}")
        grads = self.layer.backward(params, tape.run, dy, dstate)
        return grads._replace(x=grads.x + self._through(dy, tape.valid))

    def _through(self, value: Any, valid: Any) -> Any:
        """``value`` where there are steps, and zeros behind them, where anything may stand."""
        return value if valid is None else self.xp.where(valid[:, :, None], value, self.xp.zeros_like(value))

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """One step of the layer, and x_t added."""
        y, state = self.layer.step(params, x_t, state)
        return y + x_t, state
