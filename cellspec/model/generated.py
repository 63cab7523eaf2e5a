"""What every generated module offers, whatever it runs on: its types, its constants, its functions.

A module needs nothing of this package: it has these names with these signatures, and no more to do with them. Where a cell has
several inputs or outputs, x or y is a named tuple; arrays are of the library that the module runs on. A backend's own options,
such as ``checkpoint`` and ``graph``, come in addition, by keyword and not required.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Shapes = Mapping[str, tuple[str, ...]]
"""By the name of an array its own axes, without steps and samples: sums and products of dims, as text."""


class Gradients(Protocol):
    """What ``backward`` returns: each in the shapes of what it belongs to; ``state`` is that of the initial state."""

    @property
    def params(self) -> Any: ...

    @property
    def x(self) -> Any: ...

    @property
    def state(self) -> Any: ...


class GeneratedModule(Protocol):
    """A module that runs a cell.

    ``**dims`` are, by keyword, the dims that no array tells, mostly none, and for ``init_params`` all of them. ``*args`` are
    none: they let type checkers take functions that name their dims. Each function raises TypeError or ValueError for arguments
    that do not fit, before anything is computed.
    """

    __name__: str

    @property
    def CELL(self) -> str:
        """The cell's name."""
        ...

    @property
    def SPEC_SHA256(self) -> str:
        """The digest of what the spec says."""
        ...

    @property
    def DIMS(self) -> tuple[str, ...]:
        """The names of the dims, in the order in which they first appear."""
        ...

    @property
    def INPUT_SHAPES(self) -> Shapes: ...

    @property
    def OUTPUT_SHAPES(self) -> Shapes: ...

    @property
    def PARAM_SHAPES(self) -> Shapes: ...

    @property
    def STATE_SHAPES(self) -> Shapes: ...

    @property
    def Params(self) -> type[Any]:
        """A named tuple with a field for every parameter."""
        ...

    @property
    def State(self) -> type[Any]:
        """A named tuple with a field for every state, and for values that lags of more than a step read."""
        ...

    @property
    def Grads(self) -> type[Any]:
        """The named tuple that ``backward`` returns: see :class:`Gradients`."""
        ...

    @property
    def Tape(self) -> type[Any]:
        """What ``forward`` leaves for ``backward``."""
        ...

    @property
    def Packed(self) -> type[Any]:
        """Parameters laid out for ``step``."""
        ...

    def Workspace(self, T: int, B: int, params: Any, *args: Any, **dims: Any) -> Any:
        """Memory for both passes over T steps of B samples: what they return is overwritten by the next call with it."""
        ...

    def init_params(self, rng: np.random.Generator, /, *args: Any, **dims: Any) -> Any:
        """Params as the spec initialises them; ``dtype``, also by keyword, is float64 if nothing else is said."""
        ...

    def init_state(self, params: Any, batch: int, *args: Any, **dims: Any) -> Any:
        """The State from which ``batch`` samples start: the spec's own."""
        ...

    def forward(
        self,
        params: Any,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reverse: bool = False,
        workspace: Any = None,
    ) -> tuple[Any, Any, Any]:
        """The outputs at every step, the final state, and the tape for ``backward``."""
        ...

    def backward(self, params: Any, tape: Any, dy: Any, dfinal: Any = None, *, workspace: Any = None) -> Gradients:
        """The gradients of a loss from those by the outputs and by the final state, zeros if omitted."""
        ...

    def pack(self, params: Any, *args: Any, **dims: Any) -> Any:
        """Parameters for many calls of ``step``."""
        ...

    def step(self, params: Any, x_t: Any, state: Any) -> tuple[Any, Any]:
        """The outputs of one step, and the next state; ``params`` as they are, or packed."""
        ...

    def trace(self, params: Any, x: Any, state: Any = None) -> dict[str, Any]:
        """Every value that the equations name, at every step."""
        ...


class SeveralInputs(GeneratedModule, Protocol):
    """The module of a cell with several inputs."""

    @property
    def Inputs(self) -> type[Any]:
        """A named tuple with a field for every input."""
        ...


CONSTANTS = ("CELL", "DIMS", "INPUT_SHAPES", "OUTPUT_SHAPES", "PARAM_SHAPES", "SPEC_SHA256", "STATE_SHAPES")
TYPES = ("Grads", "Packed", "Params", "State", "Tape", "Workspace")
FUNCTIONS = ("backward", "forward", "init_params", "init_state", "pack", "step", "trace")
