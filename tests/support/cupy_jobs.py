"""Calls of generated CuPy modules as jobs for the sanitizers: a module's text, arrays, and nothing of cellspec, which is slow
to import there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda_host import import_text, substitute

Arrays = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Call:
    """The arguments of one forward and backward call, field by field, and all that it should give, in order."""

    what: str
    params: Arrays
    inputs: Arrays
    state: Arrays
    dy: Arrays
    dfinal: Arrays
    graph: bool  # whether the loop is captured
    masks: dict[str, Any]  # lengths, resets and reverse
    expected: Arrays
    tolerance: float  # relative to the largest of an array and 1


def fault(text: str, calls: Sequence[Call], schedule: str = "random") -> str:
    """What a module gives that it should not; nothing if all is right."""
    with substitute(schedule, seed=1, seconds=10) as cupy:
        module = import_text(text)
        for call in calls:
            for number, (got, expected) in enumerate(zip(results(cupy, module, call), call.expected, strict=True)):
                error = np.max(np.abs(got.astype(np.float64) - expected), initial=0.0)
                if not error <= call.tolerance * np.max(np.abs(expected), initial=1.0):
                    return f"{call.what}: result {number} is off by {error:.2g}"
    return ""


def results(cupy: Any, module: Any, call: Call) -> list[npt.NDArray[Any]]:
    """Everything that one forward and backward call returns."""
    params, inputs, state, dy, dfinal = (
        [cupy.asarray(array) for array in arrays] for arrays in (call.params, call.inputs, call.state, call.dy, call.dfinal)
    )
    given, x = module.Params(*params), packed(module, "Inputs", inputs)
    options: dict[str, Any] = {}
    if call.graph:
        options = {"workspace": module.Workspace(*inputs[0].shape[:2], given), "graph": True}
    y, final, tape = module.forward(given, x, module.State(*state), **call.masks, **options)
    grads = module.backward(given, tape, packed(module, "Outputs", dy), module.State(*dfinal), **options)
    return [array.get() for array in leaves((y, final, grads))]


def packed(module: Any, kind: str, arrays: Sequence[Any]) -> Any:
    """One array as it is, several as the module's named tuple."""
    return arrays[0] if len(arrays) == 1 else getattr(module, kind)(*arrays)


def leaves(result: Any) -> list[Any]:
    """All arrays in nested tuples, from left to right."""
    return [leaf for item in result for leaf in leaves(item)] if isinstance(result, tuple) else [result]
