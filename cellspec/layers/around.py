"""What layers around one other layer have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellspec.layers.protocol import AnyLayer, Tree


class Around(AnyLayer):
    """A layer with the sizes and parameters of the one inside."""

    def __init__(self, layer: AnyLayer) -> None:
        self.layer, self.causal = layer, layer.causal
        self.input_size, self.output_size = layer.input_size, layer.output_size

    @property
    def xp(self) -> Any:
        """That of the layer inside."""
        return self.layer.xp

    @property
    def template(self) -> Tree:
        """That of the layer inside."""
        return self.layer.template

    def flops(self, T: int, B: int) -> int:
        """Those of the layer inside."""
        return self.layer.flops(T, B)

    def facts(self) -> dict[str, str]:
        """Those of the layer inside."""
        return self.layer.facts()

    def init_params(self, rng: np.random.Generator) -> Tree:
        """Those of the layer inside."""
        return self.layer.init_params(rng)

    def init_state(self, params: Tree, batch: int) -> Tree:
        """That of the layer inside."""
        return self.layer.init_state(params, batch)

    def pack(self, params: Tree) -> Tree:
        """As the layer inside packs them."""
        return self.layer.pack(params)

    def workspace(self, params: Tree, T: int, B: int) -> Any:
        """That of the layer inside."""
        return self.layer.workspace(params, T, B)
