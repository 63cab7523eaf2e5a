"""CuPy modules: whose memory an array is, in copies, results, workspaces and threads. NumPy's are in test_ownership.py."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from cupy_support import BY_ID, cells, on_device
from support import cell_of, copied, draw, same_bits

from cellspec.cell import Cell

USUAL = ("lstm", "gru_before", "mingru", "qrnn_fo", "skip_gru", "valid-favourites", "valid-stretch")
some_cells = cells(*USUAL)
MASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"lengths": [3, 2], "resets": np.array([[0, 1], [1, 0], [0, 0]], bool), "reverse": True},
}
COPIES = (copy.deepcopy, copy.copy, lambda value: pickle.loads(pickle.dumps(value)))


class Call:
    """A module on the machine, and arguments that lie there."""

    def __init__(self, module: Any, cell: Cell, steps: int = 3) -> None:
        self.device, self.module, drawn = module, module.module, draw(cell, steps=steps)
        self.drawn = drawn
        self.params, self.x, self.state, self.dy, self.dfinal = module.there(
            (drawn.module_params(module), drawn.module_x(module), drawn.module_state(module), *drawn.upstream(module))
        )

    @property
    def x_t(self) -> Any:
        """The input of one step."""
        first = [stream[0] for stream in leaves_of(self.x)]
        return first[0] if len(first) == 1 else self.module.Inputs(*first)

    def forward(self, **options: Any) -> Any:
        return self.module.forward(self.params, self.x, self.state, **options)

    def backward(self, tape: Any, **options: Any) -> Any:
        return self.module.backward(self.params, tape, self.dy, self.dfinal, **options)

    def workspace(self) -> Any:
        return self.module.Workspace(self.drawn.steps, self.drawn.batch, self.params)

    def here(self, value: Any) -> Any:
        """Numbers of arrays on the machine."""
        return copied(self.device.here(value))


def leaves_of(value: Any) -> list[Any]:
    """The arrays on the machine in nested tuples."""
    return [leaf for part in value for leaf in leaves_of(part)] if isinstance(value, tuple) else [value]


@contextmanager
def called(cell: Cell, machine: str, steps: int = 3) -> Iterator[Call]:
    with on_device(cell, machine=machine) as module:
        import sys

        name = module.module.__name__
        sys.modules[name] = module.module  # as if it were imported: pickles find its classes
        try:
            yield Call(module, cell, steps)
        finally:
            del sys.modules[name]


@some_cells
@pytest.mark.parametrize("masks", MASKS)
def test_copies(cell: Cell, machine: str, masks: str) -> None:
    with called(cell, machine) as call:
        packed = call.module.pack(call.params)
        expected = call.here(call.module.step(packed, call.x_t, call.state))
        for how in COPIES:
            assert same_bits(call.here(call.module.step(how(packed), call.x_t, call.state)), expected)
        ws = call.workspace()
        y, final, tape = call.forward(workspace=ws, **MASKS[masks])
        expected = call.here((y, final, call.backward(tape)))
        for how in COPIES:
            y, final, own = call.forward(workspace=how(ws), **MASKS[masks])
            assert same_bits(call.here((y, final, call.backward(own))), expected)
        others = [tape, copy.copy(tape)], [copy.deepcopy(tape), COPIES[2](tape)]
        call.forward(workspace=ws)
        for other in others[1]:
            assert same_bits(call.here(call.backward(other, workspace=ws)), expected[2])
        for other in others[0]:
            with pytest.raises(ValueError, match=r"^tape is stale"):
                call.backward(copy.deepcopy(other))


def check_apart(call: Call, results: Any, said: str) -> None:
    """Each array of the results can be filled with a number of its own, which changes no other, and no argument."""
    given = (call.params, call.x, call.state, call.dy, call.dfinal)
    before, arrays = call.here(given), leaves_of(results)
    for number, array in enumerate(arrays):
        array[...] = float(number)
    for number, array in enumerate(arrays):
        assert (call.here(array) == number).all(), said
    assert same_bits(call.here(given), before), said


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in USUAL)) for name in BY_ID])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_results_share_no_memory(name: str, machine: str, steps: int) -> None:
    with called(cell_of(BY_ID[name]), machine, steps) as call:
        for options in ({}, {"workspace": call.workspace()}):
            y, final, tape = call.forward(**options)
            check_apart(call, (y, final, tuple(call.backward(tape, **options))), f"forward and backward, {options}")
        check_apart(call, tuple(call.module.trace(call.params, call.x, call.state).values()), "trace")
        for kind in (call.params, call.module.pack(call.params)) if steps else ():
            check_apart(call, call.module.step(kind, call.x_t, call.state), "step")
        # What is done to the results does nothing to the tape.
        y, final, tape = call.forward()
        expected = call.here(call.backward(tape))
        check_apart(call, (y, final), "forward")
        assert same_bits(call.here(call.backward(tape)), expected)


@cells("gru_before", "valid-favourites")
@pytest.mark.parametrize("masks", MASKS)
def test_arguments_may_lie_in_the_workspace(cell: Cell, machine: str, masks: str) -> None:
    with called(cell, machine) as call:

        def run(apart: bool) -> Any:
            def separate(value: Any) -> Any:
                return call.device.there(call.here(value)) if apart else value

            ws, x, params, results = call.workspace(), call.x, call.params, []
            for _ in range(3):
                given = separate(params), separate(x)
                y, final, tape = call.module.forward(*given, call.state, workspace=ws, **MASKS[masks])
                grads = call.module.backward(given[0], tape, separate(y), call.dfinal, workspace=ws)
                results.append(call.here((y, final, grads)))
                x, params = grads.x, grads.params
            return tuple(results)

        assert same_bits(run(False), run(True))


@some_cells
def test_other_parameters_are_refused(cell: Cell, machine: str) -> None:
    """Equal ones are as good, and the same memory costs no waiting."""
    with called(cell, machine) as call:
        _, _, tape = call.forward()
        expected = call.here(call.backward(tape))
        params = call.params
        call.params = type(params)(*(value.copy() for value in params))
        assert same_bits(call.here(call.backward(tape)), expected)
        for name, value in params._asdict().items():
            call.params = params._replace(**{name: value + 0.125})
            with pytest.raises(ValueError, match=rf"^params\.{name} has other values than in forward"):
                call.backward(tape)


@cells("lstm", "skip_gru")
def test_named_tuples_are_taken_by_name(cell: Cell, machine: str) -> None:
    with called(cell, machine) as call:
        expected = call.here(call.forward()[:2])
        for attribute in ("params", "state"):
            value = getattr(call, attribute)
            kind, fields = type(value).__name__, value._fields
            setattr(call, attribute, namedtuple(kind, fields[::-1])(*value[::-1]))
            assert same_bits(call.here(call.forward()[:2]), expected)
            setattr(call, attribute, namedtuple(kind, [f"{field}_" for field in fields])(*value))
            with pytest.raises(TypeError, match=rf"^{attribute} must be {kind}\(.*\), got {kind} with {fields[0]}_"):
                call.forward()
            setattr(call, attribute, value)


@cells("lstm")
def test_masked_lengths_are_refused(cell: Cell, machine: str) -> None:
    with called(cell, machine) as call:
        for name, value in (("lengths", np.ma.masked_array([1, 2])), ("resets", np.asmatrix(np.zeros((3, 2), bool)))):
            with pytest.raises(TypeError, match=rf"^{name} must be an array or a list, got (MaskedArray|matrix)$"):
                call.forward(**{name: value})


@cells("lstm", "mingru")
def test_one_call_at_a_time(cell: Cell, machine: str) -> None:
    """As if another thread's call were at work."""
    with called(cell, machine) as call:
        ws, packed = call.workspace(), call.module.pack(call.params)
        _, _, tape = call.forward(workspace=ws)
        expected = call.here(call.backward(tape, workspace=ws))
        ws.owner.thread["id"] = packed.owner.thread["id"] = -1
        for busy in (lambda: call.forward(workspace=ws), lambda: call.backward(tape, workspace=ws)):
            with pytest.raises(RuntimeError, match=r"^workspace is in use by a call in another thread"):
                busy()
        with pytest.raises(RuntimeError, match=r"^packed parameters are in use by a call in another thread"):
            call.module.step(packed, call.x_t, call.state)
        assert same_bits(call.here(call.backward(tape)), expected)
        ws.owner.free()
        assert same_bits(call.here(call.backward(tape, workspace=ws)), expected)


@cells("lstm", "qrnn_fo")
def test_an_interrupted_call_makes_older_tapes_stale(cell: Cell, machine: str) -> None:
    with called(cell, machine) as call:
        ws = call.workspace()
        y, final, tape = call.forward(workspace=ws)
        expected = call.here((y, final))
        sound = call.module._derived if hasattr(call.module, "_derived") else call.module._last

        def stop(*_: Any) -> Any:
            raise KeyboardInterrupt

        setattr(call.module, sound.__name__, stop)
        try:
            with pytest.raises(KeyboardInterrupt):
                call.forward(workspace=ws, **MASKS["masked"])
        finally:
            setattr(call.module, sound.__name__, sound)
        with pytest.raises(ValueError, match=r"^tape is stale"):
            call.backward(tape, workspace=ws)
        assert same_bits(call.here(call.forward(workspace=ws)[:2]), expected)
