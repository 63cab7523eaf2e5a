"""Wrong arguments of generated modules: TypeError or ValueError, one sentence that names the argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import cell_of, draw, module_of

from cellspec.verification.sampling import Sample, pack


def good(path: Path) -> tuple[ModuleType, Sample, dict[str, Any]]:
    """A module and good arguments for all its functions."""
    module, drawn = module_of(path), draw(cell_of(path))
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    _, _, tape = module.forward(params, x, state)
    dy, dfinal = drawn.upstream(module)
    x_t = pack(module, "Inputs", [stream[0] for stream in drawn.x.values()])
    return module, drawn, {"params": params, "x": x, "x_t": x_t, "state": state, "tape": tape, "dy": dy, "dfinal": dfinal}


def fails(names: str, call: Callable[[], Any]) -> None:
    """``call`` raises TypeError or ValueError, one line that names one of the words in ``names``, separated by bars."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300, message
    assert re.search(rf"\b({names})\b", message), message


def replace_first(arrays: Any, new: Any) -> Any:
    """A named tuple with another first field."""
    return arrays._replace(**{arrays._fields[0]: new})


def test_a_wrong_input_is_named(path: Path) -> None:
    module, drawn, ok = good(path)
    params, state, x = ok["params"], ok["state"], next(iter(drawn.x.values()))
    for wrong in (
        x.tolist(),
        None,
        3.0,
        x[0],
        x[None],
        x.astype(np.float32),
        x.astype(np.int64),
        x.astype(complex),
        x.astype(object),
        x.astype(np.float16),
    ):
        fails("x", lambda wrong=wrong: module.forward(params, wrong, state))  # type: ignore[misc]
    for wrong in (x, x[0].tolist(), x[0].astype(np.float32), x[0, 0]):
        for given in (params, module.pack(params)):
            fails("x|x_t", lambda wrong=wrong, given=given: module.step(given, wrong, state))  # type: ignore[misc]
    fails("x", lambda: module.trace(params, x[0], state))
    # Two arguments contradict each other: either may be named.
    for wrong in (np.concatenate([x, x], axis=-1), x[..., :0], x[:, :1]):
        fails(r"x|state\.\w+|params\.\w+", lambda wrong=wrong: module.forward(params, wrong, state))  # type: ignore[misc]


def test_wrong_parameters_are_named(path: Path) -> None:
    module, _, ok = good(path)
    params, x, state = ok["params"], ok["x"], ok["state"]
    first = params._fields[0]
    one = params[0]
    larger = replace_first(params, np.concatenate([one, one], axis=-1))
    fails(r"x|state\.\w+|params\.\w+", lambda: module.forward(larger, x, state))
    for wrong in (one.tolist(), None, one[None], one.astype(np.int64)):
        bad = replace_first(params, wrong)
        fails(first, lambda bad=bad: module.forward(bad, x, state))  # type: ignore[misc]
        fails(first, lambda bad=bad: module.backward(bad, ok["tape"], ok["dy"], ok["dfinal"]))  # type: ignore[misc]
        fails(first, lambda bad=bad: module.step(bad, ok["x_t"], state))  # type: ignore[misc]
        fails(first, lambda bad=bad: module.pack(bad))  # type: ignore[misc]
    if len(params) > 1:
        mixed = replace_first(params, one.astype(np.float32))
        fails("|".join(params._fields), lambda: module.forward(mixed, x, state))
    for bad in (None, list(params), dict(params._asdict()), tuple(params)[:-1], params[0], state):
        fails("params", lambda bad=bad: module.forward(bad, x, state))  # type: ignore[misc]
        fails("params", lambda bad=bad: module.pack(bad))  # type: ignore[misc]


def test_a_wrong_state_is_named(path: Path) -> None:
    module, _, ok = good(path)
    params, x, state = ok["params"], ok["x"], ok["state"]
    name = f"state|{state._fields[0]}"
    one = state[0]
    for wrong in (one.tolist(), None, one[0], one[:1], one[:0], one[None], one.astype(np.float32), one.astype(int)):
        bad = replace_first(state, wrong)
        fails(name, lambda bad=bad: module.forward(params, x, bad))  # type: ignore[misc]
        for given in (params, module.pack(params)):
            fails(name, lambda bad=bad, given=given: module.step(given, ok["x_t"], bad))  # type: ignore[misc]
        fails(name, lambda bad=bad: module.trace(params, x, bad))  # type: ignore[misc]
    for bad in (one, list(state), dict(state._asdict()), (), 0.0):
        fails("state", lambda bad=bad: module.forward(params, x, bad))  # type: ignore[misc]


def test_wrong_cotangents_are_named(path: Path) -> None:
    module, drawn, ok = good(path)
    params, tape, dy, dfinal = ok["params"], ok["tape"], ok["dy"], ok["dfinal"]
    several = len(drawn.dy) > 1
    one = next(iter(drawn.dy.values()))
    for wrong in (one.tolist(), None, one[0], one[:1], one[:, :1], np.concatenate([one, one], axis=-1), one.astype(np.float32)):
        bad = replace_first(dy, wrong) if several else wrong
        names = f"dy|{dy._fields[0]}" if several else "dy"
        fails(names, lambda bad=bad: module.backward(params, tape, bad, dfinal))  # type: ignore[misc]
    last = dfinal[0]
    names = f"dfinal|{dfinal._fields[0]}"
    for wrong in (last.tolist(), None, last[0], last[:1], last.astype(np.float32)):
        bad = replace_first(dfinal, wrong)
        fails(names, lambda bad=bad: module.backward(params, tape, dy, bad))  # type: ignore[misc]
    for bad in (last, list(dfinal), dict(dfinal._asdict())):
        fails("dfinal", lambda bad=bad: module.backward(params, tape, dy, bad))  # type: ignore[misc]
    for bad in (None, (), [], {}, dy, 1):
        fails("tape", lambda bad=bad: module.backward(params, bad, dy, dfinal))  # type: ignore[misc]


def test_a_workspace_of_other_sizes_is_named(path: Path) -> None:
    module, drawn, ok = good(path)
    params, x, state = ok["params"], ok["x"], ok["state"]
    for steps, batch in ((drawn.steps + 1, drawn.batch), (drawn.steps, drawn.batch + 1), (drawn.steps - 1, drawn.batch)):
        workspace = module.Workspace(steps, batch, params)
        fails("workspace", lambda ws=workspace: module.forward(params, x, state, workspace=ws))  # type: ignore[misc]
        fails("workspace", lambda ws=workspace: module.backward(params, ok["tape"], ok["dy"], workspace=ws))  # type: ignore[misc]
    other = module.Params(*(array.astype(np.float32) for array in params))
    workspace = module.Workspace(drawn.steps, drawn.batch, other)
    fails("workspace", lambda: module.forward(params, x, state, workspace=workspace))
    for bad in (1, "ws", {}, params):
        fails("workspace", lambda bad=bad: module.forward(params, x, state, workspace=bad))  # type: ignore[misc]
    for steps, batch, names in ((-1, 2, "T"), (2, -1, "B"), (2.5, 2, "T"), (2, "3", "B")):
        fails(names, lambda a=steps, b=batch: module.Workspace(a, b, params))  # type: ignore[misc]


def test_wrong_dims_dtypes_and_batches_are_named(path: Path) -> None:
    cell, module = cell_of(path), module_of(path)
    dims = dict.fromkeys(cell.dims, 3)
    rng = np.random.default_rng(0)
    params = module.init_params(rng, **dims)
    name = cell.dims[0]
    for wrong in (0.5, -1, "3", None):
        fails(name, lambda wrong=wrong: module.init_params(rng, **(dims | {name: wrong})))  # type: ignore[misc]
    fails(name, lambda: module.init_params(rng, **{k: v for k, v in dims.items() if k != name}))
    fails("dtype", lambda: module.init_params(rng, **dims, dtype=np.int32))
    fails("dtype", lambda: module.init_params(rng, **dims, dtype=np.float16))
    fails("rng", lambda: module.init_params(0, **dims))
    for batch in (-1, 2.5, "2", None):
        fails("batch", lambda batch=batch: module.init_state(params, batch=batch))  # type: ignore[misc]
    fails("params", lambda: module.init_state(None, batch=2))


def test_a_missing_field_is_named(path: Path) -> None:
    module, _, ok = good(path)
    fields = ok["params"]._asdict()
    missing = next(iter(fields))
    fails(missing, lambda: module.Params(**{name: array for name, array in fields.items() if name != missing}))
