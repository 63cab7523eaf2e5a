"""Other layouts of sequences, for the outermost layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cellspec.layers.around import Around
from cellspec.layers.protocol import AnyLayer, Gradients, Tree
from cellspec.layers.trees import tree_map


class Tape(NamedTuple):
    """The layer's tape, and whether it ran on a single sample without a batch axis."""

    run: Any
    single: bool


class Layout(Around):
    """A layer that also takes one sample by itself, and with ``batch_first`` sequences of a batch as ``[B, T, n]``.

    x ``[T, I]`` gives y ``[T, H]`` and states ``[n]``; ``resets`` is then ``[T]`` and ``lengths`` a number. With
    ``batch_first`` x, y, their gradients and ``resets`` have the batch in front; states are ``[B, n]`` as ever. Parameters are
    the layer's own.
    """

    def __init__(self, layer: AnyLayer, *, batch_first: bool = False) -> None:
        super().__init__(layer)
        self.batch_first = batch_first

    def init_state(self, params: Tree, batch: int | None = None) -> Tree:
        """The state of ``batch`` samples; without a number that of a single one, without a batch axis."""
        state = self.layer.init_state(params, 1 if batch is None else batch)
        return _first(state) if batch is None else state

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
        single = getattr(x, "ndim", None) == 2
        if single:
            state, lengths = _batched(state), None if lengths is None else [lengths]
        y, final, run = self.layer.forward(
            params,
            self._inwards(x, single),
            state,
            lengths=lengths,
            resets=None if resets is None else self._inwards(resets, single),
            reverse=reverse,
            rng=rng,
            workspace=workspace,
        )
        return self._outwards(y, single), _first(final) if single else final, Tape(run, single)

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients by the parameters, x and the initial state."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward of this layer returned, got {type(tape).__name__}")
        dstate = _batched(dstate) if tape.single else dstate
        d_params, d_x, d_state = self.layer.backward(params, tape.run, self._inwards(dy, tape.single), dstate)
        return Gradients(d_params, self._outwards(d_x, tape.single), _first(d_state) if tape.single else d_state)

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """One step, of x_t ``[B, I]`` or ``[I]``."""
        if getattr(x_t, "ndim", None) != 1:
            return self.layer.step(params, x_t, state)
        y, state = self.layer.step(params, x_t[None], _batched(state))
        return y[0], _first(state)

    def _inwards(self, value: Any, single: bool) -> Any:
        """[T, …] or [B, T, …] as [T, B, …]; what is no such array the layer inside refuses."""
        if single:
            return value[:, None]
        return _turned(value) if self.batch_first and getattr(value, "ndim", 0) > 1 else value

    def _outwards(self, value: Any, single: bool) -> Any:
        """The reverse."""
        if single:
            return value[:, 0]
        return _turned(value) if self.batch_first else value


def _turned(value: Any) -> Any:
    """``value`` with its first two axes exchanged."""
    return value.transpose(1, 0, *range(2, value.ndim))


def _batched(state: Tree | None) -> Tree | None:
    return None if state is None else tree_map(lambda value: value[None], state)


def _first(state: Tree) -> Tree:
    return tree_map(lambda value: value[0], state)
