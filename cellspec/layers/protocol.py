"""What every layer offers, so that they nest at will."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from cellspec.layers.trees import leaves

Tree = Any
"""An array, or a tuple of trees, mostly a named one."""


class Gradients(NamedTuple):
    """A loss's gradients, in the shapes of what they belong to; ``state`` is that of the initial state."""

    params: Tree
    x: Any
    state: Tree


class AnyLayer(Protocol):
    """A map from sequences to sequences, with parameters and a state that are given at each call.

    Arrays are time-major and of ``xp``, the array library: x ``[T, B, input_size]``, y ``[T, B, output_size]``.
    A layer is ``causal`` if y[t] depends on nothing after x[t].
    """

    input_size: int
    output_size: int
    causal: bool

    @property
    def xp(self) -> Any:
        """The array library."""
        ...

    @property
    def template(self) -> Tree:
        """The tree of parameters with arrays that have their shapes and dtypes and take no memory."""
        ...

    @property
    def parameter_count(self) -> int:
        """How many numbers the parameters are."""
        return sum(leaf.size for leaf in leaves(self.template))

    def flops(self, T: int, B: int) -> int:
        """Operations of the matrix products of ``forward``, 2 for a multiplication and its addition."""
        ...

    def facts(self) -> dict[str, str]:
        """What parameters must have been made for, by name; saved with them and compared when they are loaded."""
        ...

    def init_params(self, rng: np.random.Generator) -> Tree:
        """Parameters as the specs initialise them."""
        ...

    def init_state(self, params: Tree, batch: int) -> Tree:
        """The state from which ``batch`` samples start."""
        ...

    def pack(self, params: Tree) -> Tree:
        """Parameters for many calls of ``step``, copied and laid out for speed."""
        ...

    def workspace(self, params: Tree, T: int, B: int) -> Any:
        """Memory for ``forward(…, workspace=…)``: what that call and its ``backward`` return is overwritten by the next."""
        ...

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
        """``(y, final state, tape)`` of a sequence ``x``, from ``state`` or the initial one.

        ``lengths`` [B], ``resets`` [T, B] and ``reverse`` mean what they mean to a generated module. With ``rng`` dropout and
        its like are active, drawn from it; without, nothing is random. Raises TypeError or ValueError for what does not fit.
        """
        ...

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients of a loss from those by y and by the final state (zeros if omitted); ``params`` as at ``forward``."""
        ...

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """One step of a causal layer, nothing random: x_t ``[B, input_size]`` to y_t ``[B, output_size]`` and the next state.

        ``params`` as they are or packed. Raises TypeError if the layer is not causal.
        """
        ...


def parts(name: str, value: Any, count: int, kind: Any = None) -> tuple[Any, ...]:
    """``value`` as the ``count`` parts of nested layers; None is None for each.

    With a named tuple ``kind``, another named tuple is taken by the names of its fields, and must have the same.
    """
    if value is None:
        return (None,) * count
    if not isinstance(value, tuple) or len(value) != count:
        got = f"{len(value)} parts" if isinstance(value, tuple) else type(value).__name__
        raise TypeError(f"{name} must be a tuple of {count} parts, one for each layer, got {got}")
    fields = getattr(value, "_fields", None)
    if kind is None or fields is None or fields == kind._fields:
        return value
    if set(fields) != set(kind._fields):
        expected = f"{kind.__name__}({', '.join(kind._fields)})"
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}({', '.join(fields)})")
    return tuple(getattr(value, field) for field in kind._fields)


def expect_shape(name: str, value: Any, shape: tuple[int, ...], axes: str) -> None:
    """``value`` must be an array of this shape; ``axes`` says what the axes are."""
    found = getattr(value, "shape", None)
    if found is None or (isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap)):
        raise TypeError(f"{name} must be an array {axes}, got {type(value).__name__}")
    if found != shape:
        raise ValueError(f"{name} has shape {found}, expected {axes} = {shape}")
