"""One generated module as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np

from cellspec.layers.modules import Held, array_library, check_dims, checked, shapes_of, untold_dims
from cellspec.layers.noise import Rates, check_rate, check_rng, dropout, streams
from cellspec.layers.protocol import AnyLayer, Gradients, Tree, expect_shape, parts
from cellspec.layers.trees import tree_map
from cellspec.model.generated import GeneratedModule, SeveralInputs


class Learnt(NamedTuple):
    """The parameters of a layer that learns its initial state: those of the cell, and each state without a batch."""

    cell: Any
    state: Any


class Tape(NamedTuple):
    """What ``forward`` leaves for ``backward``: the module's tape, and what stood around the call."""

    run: Any
    shape: tuple[int, int]  # T, B
    x_mask: Any  # [B, I] or None
    param_masks: dict[str, Any]
    learnt: bool  # whether the run began with the learnt state
    workspace: Any


class Layer(AnyLayer):
    """The cell of a generated module.

    ``dims`` by the module's names. The module has one input, beside those of :func:`cellspec.regularise`, and one output. Their
    own axes, where they have several, become one.

    learn_state: the initial state is a parameter: ``[n]`` for each field of the module's State, from its own initial value on,
    the same for all samples. Resets would restore the spec's, not the learnt one, and are an error.

    What follows is active in ``forward(…, rng=…)``. A rate is the probability that a number is dropped (those that are kept are
    scaled to the same mean), or for zoneout that a state keeps its value.

    - input_dropout: x times a mask that is drawn once a sequence for each sample (Gal and Ghahramani, 2016).
    - drop_connect: by the name of a parameter, or what several names begin with, the rate at which its elements are dropped for
      the whole call, all samples alike (Merity et al., 2018, on recurrent matrices: ``{"U": 0.5}``).
    - state_dropout, zoneout: for modules of cells that :func:`cellspec.regularise` made; a rate for all states or by state.

    Raises TypeError for another module or other dims, ValueError for sizes, rates and cells that do not fit.
    """

    causal = True

    def __init__(
        self,
        module: GeneratedModule | ModuleType,
        /,
        *,
        dtype: Any = np.float32,
        learn_state: bool = False,
        input_dropout: float = 0.0,
        state_dropout: Rates = 0.0,
        zoneout: Rates = 0.0,
        drop_connect: Mapping[str, float] | None = None,
        **dims: int,
    ) -> None:
        cell = checked(module)
        self._held, self.dtype, self.learn_state = Held(cell), np.dtype(dtype), learn_state
        self.dims = check_dims(cell, dims)
        (_, self._x_shape), *others = shapes_of(cell.INPUT_SHAPES, self.dims).items()
        outputs = shapes_of(cell.OUTPUT_SHAPES, self.dims)
        if len(outputs) > 1:
            raise ValueError(f"Layer takes a cell with one output; {cell.CELL} gives {', '.join(outputs)}")
        (self._y_shape,) = outputs.values()
        self.input_size, self.output_size = math.prod(self._x_shape), math.prod(self._y_shape)
        self._shapes = shapes_of(cell.PARAM_SHAPES, self.dims)
        self._streams = streams(dict(others), zoneout, state_dropout, cell.CELL)
        self._input_dropout = check_rate("input_dropout", input_dropout)
        self._param_rates = _param_rates(self._shapes, drop_connect or {}, cell.CELL)

    @property
    def module(self) -> GeneratedModule:
        """The generated module."""
        return self._held.module

    @property
    def xp(self) -> Any:
        """The array library that the module runs on."""
        return array_library(self._held.module)

    @property
    def template(self) -> Tree:
        """The tree of parameters with arrays that take no memory."""
        cell = self.module.Params(*(self._blank(shape) for shape in self._shapes.values()))
        if not self.learn_state:
            return cell
        states = shapes_of(self.module.STATE_SHAPES, self.dims).values()
        return Learnt(cell, self.module.State(*(self._blank(shape) for shape in states)))

    def _blank(self, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to(np.zeros((), self.dtype), shape)

    def flops(self, T: int, B: int) -> int:
        """2 for each element of a parameter with two axes or more, step and sample: as if each were in one product a step."""
        return 2 * T * B * sum(math.prod(shape) for shape in self._shapes.values() if len(shape) > 1)

    def facts(self) -> dict[str, str]:
        """The cell, its spec's digest, and the dims."""
        dims = ", ".join(f"{name} = {value}" for name, value in self.dims.items())
        return {"CELL": self.module.CELL, "SPEC_SHA256": self.module.SPEC_SHA256, "dims": dims}

    # --- parameters and states -----------------------------------------------------------------------------------------

    def init_params(self, rng: np.random.Generator) -> Tree:
        """The module's Params as the spec initialises them; Learnt with ``learn_state``."""
        cell = self.module.init_params(rng, **self.dims, dtype=self.dtype)
        return Learnt(cell, tree_map(lambda value: value[0].copy(), self._own_state(cell, 1))) if self.learn_state else cell

    def init_state(self, params: Tree, batch: int) -> Tree:
        """The module's State for ``batch`` samples: the spec's own, or the learnt one."""
        if not self.learn_state:
            return self._own_state(params, batch)
        kind, shapes = self.module.State, shapes_of(self.module.STATE_SHAPES, self.dims)
        learnt = kind(*parts("params.state", parts("params", params, 2, Learnt)[1], len(shapes), kind))
        for (name, shape), value in zip(shapes.items(), learnt, strict=True):
            expect_shape(f"params.state.{name}", value, shape, "as a state without a batch")
        return tree_map(lambda value: self.xp.broadcast_to(value, (batch, *value.shape)).copy(), learnt)

    def _own_state(self, cell: Any, batch: int) -> Any:
        state = self.module.init_state(cell, batch, **untold_dims(self.module.init_state, self.dims))
        return tree_map(
            lambda value: value.astype(self.dtype, copy=False), state
        )  # without parameters it has a dtype of its own

    def _cell(self, params: Tree) -> Any:
        """The module's parameters."""
        return parts("params", params, 2, Learnt)[0] if self.learn_state else params

    def pack(self, params: Tree) -> Tree:
        """Parameters for many calls of ``step``."""
        cell = self._cell(params)
        packed = self.module.pack(cell, **untold_dims(self.module.pack, self.dims))
        return Learnt(packed, parts("params", params, 2, Learnt)[1]) if self.learn_state else packed

    def workspace(self, params: Tree, T: int, B: int) -> Any:
        """A Workspace of the module."""
        return self.module.Workspace(T, B, self._cell(params), **untold_dims(self.module.Workspace, self.dims))

    # --- runs ----------------------------------------------------------------------------------------------------------

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
        """``(y, final state, tape)``; see :meth:`AnyLayer.forward`. No step is a ValueError."""
        T, B = self._check(x, resets, rng)
        cell, learnt = self._cell(params), self.learn_state and state is None
        x_mask = (
            dropout(rng, (B, self.input_size), self._input_dropout, x.dtype, self.xp) if rng and self._input_dropout else None
        )
        inputs = self._inputs(x if x_mask is None else x * x_mask, T, B, rng)
        masks = self._param_masks(rng)
        options = {"lengths": lengths, "resets": resets, "reverse": reverse, "workspace": workspace}
        start = self.init_state(params, B) if state is None else state
        y, final, run = self.module.forward(_masked(cell, masks), inputs, start, **options)
        return y.reshape(T, B, self.output_size), final, Tape(run, (T, B), x_mask, masks, learnt, workspace)

    def backward(self, params: Tree, tape: Any, dy: Any, dstate: Tree | None = None) -> Gradients:
        """Gradients by the parameters, x and the initial state."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward of this layer returned, got {type(tape).__name__}")
        expect_shape("dy", dy, (*tape.shape, self.output_size), "[T, B, output_size]")
        options = {} if tape.workspace is None else {"workspace": tape.workspace}
        cell = _masked(self._cell(params), tape.param_masks)
        grads = self.module.backward(cell, tape.run, dy.reshape(*tape.shape, *self._y_shape), dstate, **options)
        d_x = (grads.x[0] if self._streams else grads.x).reshape(*tape.shape, self.input_size)
        d_params = _masked(grads.params, tape.param_masks)
        if self.learn_state:
            d_state = tree_map(lambda value: value.sum(axis=0) if tape.learnt else self.xp.zeros_like(value[0]), grads.state)
            d_params = Learnt(d_params, d_state)
        return Gradients(d_params, d_x if tape.x_mask is None else d_x * tape.x_mask, grads.state)

    def step(self, params: Tree, x_t: Any, state: Tree) -> tuple[Any, Tree]:
        """One step, nothing random."""
        if getattr(x_t, "ndim", None) != 2:
            raise TypeError(f"x_t must be an array [B, {self.input_size}], got {getattr(x_t, 'shape', type(x_t).__name__)}")
        B = x_t.shape[0]
        expect_shape("x_t", x_t, (B, self.input_size), "[B, input_size]")
        inputs = tree_map(lambda value: value[0], self._inputs(x_t[None], 1, B, None))
        y, state = self.module.step(self._cell(params), inputs, state)
        return y.reshape(B, self.output_size), state

    def _check(self, x: Any, resets: Any, rng: Any) -> tuple[int, int]:
        """T and B, or an error."""
        if getattr(x, "ndim", None) != 3:
            raise TypeError(f"x must be an array [T, B, {self.input_size}], got {getattr(x, 'shape', type(x).__name__)}")
        T, B, _ = x.shape
        expect_shape("x", x, (T, B, self.input_size), "[T, B, input_size]")
        if self.learn_state and resets is not None:
            raise ValueError("resets restore the spec's initial state, not the learnt one: learn_state takes none")
        check_rng(rng)
        return T, B

    def _inputs(self, x: Any, T: int, B: int, rng: np.random.Generator | None) -> Any:
        """What the module reads: x in the shape of its input, and the masks."""
        x = x.reshape(T, B, *self._x_shape)
        if not self._streams:
            return x
        module = cast(SeveralInputs, self.module)
        return module.Inputs(x, *(stream.values(T, B, x.dtype, self.xp, rng) for stream in self._streams))

    def _param_masks(self, rng: np.random.Generator | None) -> dict[str, Any]:
        """Masks of the parameters that are dropped, by name."""
        if rng is None:
            return {}
        return {
            name: dropout(rng, self._shapes[name], rate, self.dtype, self.xp)
            for name, rate in self._param_rates.items()
            if rate
        }


def _masked(cell: Any, masks: Mapping[str, Any]) -> Any:
    """Parameters, or their gradients, times their masks."""
    return cell._replace(**{name: getattr(cell, name) * mask for name, mask in masks.items()}) if masks else cell


def _param_rates(shapes: Mapping[str, Any], rates: Mapping[str, float], cell: str) -> dict[str, float]:
    """The rate of each parameter that a name or the beginning of names stands for."""
    found: dict[str, float] = {}
    for start, value in rates.items():
        names = [start] if start in shapes else [name for name in shapes if name.startswith(start)]
        if not names:
            raise ValueError(f"drop_connect: no parameter of {cell} begins with {start!r}; it has {', '.join(shapes)}")
        found |= dict.fromkeys(names, check_rate("drop_connect", value))
    return {name: found[name] for name in shapes if name in found}
