"""Two layers that read a sequence from both ends."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from cellspec.layers.masks import turned
from cellspec.layers.protocol import AnyLayer, Gradients, Tree, expect_shape, parts

Merge = Literal["concat", "sum"]


class Both(NamedTuple):
    """What there is of both directions: parameters, states, tapes."""

    forward: Any
    backward: Any


class Bidirectional(AnyLayer):
    """y[t] is made of what one layer gives when it has read x[0] to x[t], and another when it has read x[T-1] down to x[t].

    With ``merge`` "concat" these lie one behind the other, with "sum" they are added (Schuster and Paliwal, 1997). With
    ``lengths`` the second layer begins at each sample's own end, and ``resets`` cut the sequence for both. Parameters, states
    and gradients are ``Both``.
    Raises ValueError for sizes that do not fit.
    """

    causal = False

    def __init__(self, forward_layer: AnyLayer, backward_layer: AnyLayer, merge: Merge = "concat") -> None:
        if merge not in get_args(Merge):
            raise ValueError(f"merge is {merge!r}, expected 'concat' or 'sum'")
        sizes = [(layer.input_size, layer.output_size) for layer in (forward_layer, backward_layer)]
        if sizes[0][0] != sizes[1][0]:
            raise ValueError(f"both layers must read the same: one reads {sizes[0][0]} numbers, the other {sizes[1][0]}")
        if merge == "sum" and sizes[0][1] != sizes[1][1]:
            raise ValueError(
                f"outputs that are summed must agree: one layer gives {sizes[0][1]} numbers, the other {sizes[1][1]}"
            )
        self.layers, self.merge = Both(forward_layer, backward_layer), merge
        self.input_size, (first, second) = sizes[0][0], (sizes[0][1], sizes[1][1])
        self.output_size = first + second if merge == "concat" else first

    @property
    def xp(self) -> Any:
        """That of the layers."""
        return self.layers.forward.xp

    @property
    def template(self) -> Tree:
        """Both parts."""
        return Both(*(layer.template for layer in self.layers))

    def flops(self, T: int, B: int) -> int:
        """Those of both layers."""
        return sum(layer.flops(T, B) for layer in self.layers)

    def facts(self) -> dict[str, str]:
        """Those of both layers, behind their names, and how they are merged."""
        pairs = zip(Both._fields, self.layers, strict=True)
        return {"merge": self.merge} | {f"{way}.{name}": fact for way, layer in pairs for name, fact in layer.facts().items()}

    def init_params(self, rng: np.random.Generator) -> Tree:
        """Both parts, the forward layer's drawn first."""
        return Both(*(layer.init_params(rng) for layer in self.layers))

    def init_state(self, params: Tree, batch: int) -> Tree:
        """Both parts: that of the backward layer stands before the last step."""
        return Both(*(layer.init_state(own, batch) for layer, own in self._with("params", params)))

    def pack(self, params: Tree) -> Tree:
        """There is no step to pack for: a TypeError."""
        raise TypeError("Bidirectional reads the whole sequence and has no steps to pack parameters for")

    def workspace(self, params: Tree, T: int, B: int) -> Any:
        """One for each layer."""
        return Both(*(layer.workspace(own, T, B) for layer, own in self._with("params", params)))

    def _with(self, name: str, value: Any) -> zip[tuple[AnyLayer, Any]]:
        return zip(self.layers, parts(name, value, 2, Both), strict=True)

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
        """``(y, final states, tape)``; see :meth:`AnyLayer.forward`. The backward layer's final state is that after x[0]."""
        given = (("params", params), ("state", state), ("workspace", workspace))
        own, starts, spaces = (parts(name, value, 2, Both) for name, value in given)
        there, back = self.layers
        y, final, tape = there.forward(
            own[0], x, starts[0], lengths=lengths, resets=resets, reverse=reverse, rng=rng, workspace=spaces[0]
        )
        cuts = None if resets is None else turned(resets, lengths, reverse, self.xp)
        y_back, final_back, tape_back = back.forward(
            own[1], x, starts[1], lengths=lengths, resets=cuts, reverse=not reverse, rng=rng, workspace=spaces[1]
        )
        merged = self.xp.concatenate((y, y_back), axis=-1) if self.merge == "concat" else y + y_back
        return merged, Both(final, final_back), Both(tape, tape_back)

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients by the parameters, x and the initial states."""
        if not isinstance(tape, Both):
            raise TypeError(f"tape must be what forward of this layer returned, got {type(tape).__name__}")
        expect_shape("dy", dy, (*getattr(dy, "shape", ())[:2], self.output_size), "[T, B, output_size]")
        width = self.layers.forward.output_size
        dys = (dy[..., :width], dy[..., width:]) if self.merge == "concat" else (dy, dy)
        own, ends = parts("params", params, 2, Both), parts("dstate", dstate, 2, Both)
        first = self.layers.forward.backward(own[0], tape.forward, dys[0], ends[0])
        second = self.layers.backward.backward(own[1], tape.backward, dys[1], ends[1])
        return Gradients(Both(first.params, second.params), first.x + second.x, Both(first.state, second.state))

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """There is none: a TypeError."""
        raise TypeError("step needs a causal layer; Bidirectional reads the whole sequence before its first output")
