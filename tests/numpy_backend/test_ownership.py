"""Whose memory an array is: copies, results that share nothing, interrupted calls, arguments that lie where results go."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from layer_support import arguments, layer
from layer_support import module as module_named
from random_language import RandomLanguage
from support import ROOT, cell_from, cell_of, close, copied, draw, leaves, module_of, same_bits

import cellspec
from cellspec import layers
from cellspec.verification.sampling import Sample, pack

MASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"lengths": np.array([3, 2]), "resets": np.array([[0, 1], [1, 0], [0, 0]], bool), "reverse": True},
}
COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@cache
def drawn_for(path: Path, steps: int = 3) -> Sample:
    """Arguments for a cell, drawn once."""
    return draw(cell_of(path), steps=steps)


def asked(module: Any, drawn: Sample) -> dict[str, int]:
    """The dims that no parameter tells, and that functions of the module ask for."""
    return {name: drawn.dims[name] for name in inspect.signature(module.init_state).parameters if name in module.DIMS}


def first_step(module: Any, drawn: Sample) -> Any:
    """The input of one step."""
    return pack(module, "Inputs", [stream[0] for stream in drawn.x.values()])


def given(module: Any, drawn: Sample) -> tuple[Any, Any, Any]:
    """The arguments of ``forward``."""
    return drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)


# --- copies ------------------------------------------------------------------------------------------------------


def test_copies_of_packed_parameters_step_alike(path: Path) -> None:
    module, drawn = module_of(path), drawn_for(path)
    params, _, state = given(module, drawn)
    packed, x_t = module.pack(params, **asked(module, drawn)), first_step(module, drawn)
    expected = module.step(packed, x_t, state)
    few = (pack(module, "Inputs", [stream[:1] for stream in leaves(x_t)]), type(state)(*(each[:1] for each in state)))
    for how in COPIES.values():
        other = how(packed)
        assert same_bits(module.step(other, x_t, state), expected)
        module.step(other, *few)
        assert same_bits(module.step(packed, x_t, state), expected)


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_copies_of_a_workspace_are_memory_of_their_own(path: Path, checkpoint: int | None) -> None:
    module, drawn = module_of(path), drawn_for(path)
    arguments, upstream = given(module, drawn), drawn.upstream(module)
    workspace = module.Workspace(drawn.steps, drawn.batch, arguments[0], **asked(module, drawn), checkpoint=checkpoint)
    y, final, tape = module.forward(*arguments, workspace=workspace)
    expected = copied((y, final))
    moved = pack(module, "Inputs", [np.concatenate([stream[1:], stream[:1]]) for stream in leaves(arguments[1])])
    others = [how(workspace) for how in COPIES.values()]
    for other in others:
        module.forward(arguments[0], moved, arguments[2], workspace=other)
    assert same_bits((y, final), expected), "a copy writes into the workspace"
    grads = copied(module.backward(arguments[0], tape, *upstream, workspace=workspace))
    for other in others:
        y, final, tape = module.forward(*arguments, workspace=other)
        assert same_bits((y, final), expected)
        assert same_bits(module.backward(arguments[0], tape, *upstream, workspace=other), grads)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_copies_of_a_tape_keep_their_numbers(path: Path, masks: str, checkpoint: int | None) -> None:
    """Also of one that lies in a workspace: a deep copy and a pickle are memory of their own, and stale is stale.

    Products may round otherwise where a copy is contiguous, as the original was not.
    """
    module, drawn = module_of(path), drawn_for(path)
    arguments, upstream = given(module, drawn), drawn.upstream(module)
    _, _, tape = module.forward(*arguments, checkpoint=checkpoint, **MASKS[masks])
    expected = module.backward(arguments[0], tape, *upstream)
    for how in COPIES.values():
        assert close(module.backward(arguments[0], how(tape), *upstream), expected)

    workspace = module.Workspace(drawn.steps, drawn.batch, arguments[0], **asked(module, drawn), checkpoint=checkpoint)
    _, _, tape = module.forward(*arguments, workspace=workspace, **MASKS[masks])
    others = [COPIES["deepcopy"](tape), COPIES["pickle"](tape)]
    module.forward(*arguments, workspace=workspace)
    for other in others:
        assert close(module.backward(arguments[0], other, *upstream, workspace=workspace), expected)
    for how in COPIES.values():
        with pytest.raises(ValueError, match=r"^tape is stale"):
            module.backward(arguments[0], how(tape), *upstream)


def test_layers_can_be_copied() -> None:
    inner = layer("gru", 4, 4, learn_state=True)
    tested = layers.Layout(layers.Stack(layer("lstm", 3, 4), layers.Residual(inner), dropout=0.25), batch_first=True)
    params, x, _ = arguments(tested)
    expected = tested.forward(params, x, None, rng=np.random.default_rng(1))[:2]
    for how in COPIES.values():
        other, own = how((tested, params))
        y, final, tape = other.forward(own, x, None, rng=np.random.default_rng(1))
        assert same_bits((y, final), expected)
        grads = other.backward(own, how(tape), y)
        assert same_bits(tuple(grads), tuple(other.backward(own, tape, y)))
        assert other.layer.layers[0].module is tested.layer.layers[0].module  # type: ignore[attr-defined]
    packed, x_t, state = tested.pack(params), x[:, 0], tested.init_state(params, len(x))
    for how in COPIES.values():
        assert same_bits(tested.step(how(packed), x_t, state), tested.step(packed, x_t, state))


READER = """
import pickle, sys
import cellspec
data = open(sys.argv[1], "rb").read()
try:
    pickle.loads(data)
except LookupError as error:
    print(error)
module = cellspec.build(cellspec.load("gru"))
params, layer = pickle.loads(data)
print(type(params) is module.Params, layer.module is module, params.Ur.sum())
"""


def test_what_is_built_can_be_read_in_another_process(tmp_path: Path) -> None:
    """Where the same cell has been built; elsewhere a sentence says so."""
    module = module_named("gru")
    params = module.init_params(np.random.default_rng(0), I=3, H=4)
    (tmp_path / "pickled").write_bytes(pickle.dumps((params, layers.Layer(module, I=3, H=4))))
    run = [sys.executable, "-c", READER, str(tmp_path / "pickled")]
    said, found = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert said.startswith("gru_numpy_") and "build the same cell here" in said
    assert found == f"True True {params.Ur.sum()}"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_built_is_pickled_with_any_protocol(protocol: int) -> None:
    """Those before the fourth know no names with points."""
    module = module_named("gru")
    params = module.init_params(np.random.default_rng(0), I=3, H=4)
    x = np.random.default_rng(1).normal(size=(5, 2, 3))
    y, final, tape = module.forward(params, x, checkpoint=2)
    given = (params, final, tape, module.pack(params), module.Workspace(5, 2, params), layers.Layer(module, I=3, H=4))
    own, state, other, packed, workspace, single = pickle.loads(pickle.dumps(given, protocol))
    assert type(own) is module.Params and single.module is module
    assert close(module.backward(own, other, y), module.backward(params, tape, y))
    assert close(module.step(packed, x[0], state), module.step(params, x[0], final))
    assert close(module.forward(own, x, workspace=workspace)[:2], (y, final))


def test_modules_of_one_text_are_told_apart_and_forgotten() -> None:
    import gc
    import weakref

    cell = cell_from("name: one\ninputs: {x: H}\nstates: {h: H}\nparams: {w: H}\nequations: |\n  h[t] = w*x[t] + h[t-1]\n")
    modules = [cellspec.build(cell) for _ in range(3)]
    for module in modules:
        params = module.Params(np.ones(2))
        assert type(pickle.loads(pickle.dumps(params))) is module.Params
    params, alive = modules[0].Params(np.ones(2)), [weakref.ref(module) for module in modules]
    modules.clear()
    del module
    gc.collect()
    assert [ref() is None for ref in alive] == [False, True, True]
    assert type(pickle.loads(pickle.dumps(params))) is type(params)


# --- results share no memory ---------------------------------------------------------------------------------------


def check_apart(results: Any, taken: Any, said: str) -> None:
    """No array among the results lies in another one, or in what was taken."""
    arrays = [array for array in leaves(results) if array.size]
    for one, other in [*itertools.combinations(arrays, 2), *itertools.product(arrays, leaves(taken))]:
        assert not np.shares_memory(one, other), said


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_results_share_no_memory(path: Path, steps: int) -> None:
    module, drawn = module_of(path), drawn_for(path, steps)
    params, x, state = given(module, drawn)
    upstream = drawn.upstream(module)
    taken = (params, x, state, upstream)
    checkpointed: list[dict[str, Any]] = [{}, {"checkpoint": 1}]
    for own, options in itertools.product((True, False), checkpointed):
        workspace = (
            {} if own else {"workspace": module.Workspace(steps, drawn.batch, params, **asked(module, drawn), **options)}
        )
        y, final, tape = module.forward(params, x, state, **options, **workspace)
        grads = module.backward(params, tape, *upstream, **workspace)
        check_apart((y, final, tuple(grads)), taken, f"forward and backward, {options}, {workspace}")
    if steps:
        x_t, packed = first_step(module, drawn), module.pack(params, **asked(module, drawn))
        for kind in (params, packed):
            results = module.step(kind, x_t, state)
            check_apart(results, taken, "step")
            check_apart(module.step(kind, x_t, results[1]), (taken, results), "step")
    check_apart(tuple(module.trace(params, x, state).values()), taken, "trace")
    check_apart(module.init_state(params, drawn.batch, **asked(module, drawn)), taken, "init_state")


def test_results_of_layers_share_no_memory() -> None:
    tested = layers.Stack(layer("lstm", 3, 4), layers.Residual(layer("gru", 4, 4)), layer("mingru", 4, 5, learn_state=True))
    params, x, state = arguments(tested)
    for kind in (params, tested.pack(params)):
        check_apart(tested.step(kind, x[0], state), (params, x, state), "step")
    y, final, tape = tested.forward(params, x)
    check_apart((y, final, tuple(tested.backward(params, tape, y))), (params, x), "forward and backward")
    check_apart(tested.init_state(params, 3), params, "init_state")


@pytest.mark.parametrize("seed", [0, 2, 5, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_random_cells_keep_memory_apart(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above, of a cell drawn from the whole language."""
    cell = cell_from(RandomLanguage(seed).text())
    module = cellspec.build(cell)
    monkeypatch.setattr(sys.modules[__name__], "module_of", lambda path: module)
    monkeypatch.setattr(sys.modules[__name__], "drawn_for", lambda path, steps=3: draw(cell, steps=steps, seed=seed))
    for steps in (0, 3):
        test_results_share_no_memory(Path(), steps)
    test_copies_of_packed_parameters_step_alike(Path())
    for masks in MASKS:
        test_copies_of_a_tape_keep_their_numbers(Path(), masks, 2)
    test_gradients_may_be_the_next_parameters(Path())
    test_named_tuples_are_taken_by_name(Path())


# --- interrupted calls ---------------------------------------------------------------------------------------------


class Stop(KeyboardInterrupt):
    """Comes in the middle of a call."""


def interrupted(call: Callable[[], Any], file: str, line: int) -> bool:
    """Whether ``call`` was stopped: before line number ``line`` that it runs of the module whose source is ``file``."""
    count = 0

    def local(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == line:
                raise Stop
        return local

    def start(frame: Any, event: str, arg: Any) -> Any:
        return local if frame.f_code.co_filename == file else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        call()
    except Stop:
        return True
    finally:
        sys.settrace(before)
    return False


SOME = ("lstm", "mingru", "slstm", "qrnn_fo")
"""Two states, no products in the loop, heads, lags."""


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_interrupted_calls_leave_no_wrong_numbers(name: str, masks: str, checkpoint: int | None) -> None:
    """Wherever one stops, a tape gives the right gradients or is refused, and the workspace can be used as before."""
    path = ROOT / "specs" / f"{name}.yaml"
    module, drawn = module_of(path), drawn_for(path)
    arguments, upstream, options = given(module, drawn), drawn.upstream(module), MASKS[masks]
    file, params = module.forward.__code__.co_filename, arguments[0]
    negative = pack(module, "Inputs", [-stream for stream in leaves(arguments[1])])
    workspace = module.Workspace(drawn.steps, drawn.batch, params, **asked(module, drawn), checkpoint=checkpoint)

    def forward() -> Any:
        return module.forward(*arguments, workspace=workspace, **options)

    y, final, tape = forward()
    expected = copied((y, final, module.backward(params, tape, *upstream, workspace=workspace)))
    refused = accepted = 0
    for line in range(5, 2000, 17):
        *_, tape = forward()
        if not interrupted(lambda tape=tape: module.backward(params, tape, *upstream, workspace=workspace), file, line):  # type: ignore[misc]
            break
        assert same_bits(module.backward(params, tape, *upstream, workspace=workspace), expected[2])
    assert line > 100
    for line in range(5, 2000, 17):
        y, final, tape = forward()
        assert same_bits((y, final), expected[:2])
        if not interrupted(lambda: module.forward(params, negative, arguments[2], workspace=workspace), file, line):
            break
        try:
            assert same_bits(module.backward(params, tape, *upstream), expected[2])
            accepted += 1
        except ValueError as error:
            assert str(error).startswith("tape is stale")
            refused += 1
    assert accepted and refused, "no call was stopped before it wrote, or none after"


@pytest.mark.parametrize("name", SOME)
def test_interrupted_steps_leave_no_wrong_numbers(name: str) -> None:
    path = ROOT / "specs" / f"{name}.yaml"
    module, drawn = module_of(path), drawn_for(path)
    params, _, state = given(module, drawn)
    packed, x_t = module.pack(params, **asked(module, drawn)), first_step(module, drawn)
    few = (pack(module, "Inputs", [stream[:1] for stream in leaves(x_t)]), type(state)(*(each[:1] for each in state)))
    expected = copied((module.step(packed, *few), module.step(packed, x_t, state)))
    for line in itertools.count(1, 2):
        stopped = interrupted(lambda: module.step(packed, *few), module.step.__code__.co_filename, line)
        assert same_bits((module.step(packed, *few), module.step(packed, x_t, state)), expected)
        if not stopped:
            break
    assert line > 20


def test_a_floating_point_error_makes_older_tapes_stale() -> None:
    path = ROOT / "specs" / "irnn.yaml"
    module, drawn = module_of(path), drawn_for(path)
    params, x, state = given(module, drawn)
    workspace = module.Workspace(drawn.steps, drawn.batch, params, **asked(module, drawn))
    y, _, tape = module.forward(params, x, state, workspace=workspace)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        module.forward(params, np.full_like(x, 1e308), state, workspace=workspace)
    with pytest.raises(ValueError, match=r"^tape is stale"):
        module.backward(params, tape, np.ones_like(y), workspace=workspace)


# --- arguments that lie in the workspace, and other parameters -----------------------------------------------------


ECHO = """
name: echo
inputs: {x: H}
states: {h: H}
params: {W: [H, H], U: [H, H]}
equations: |
  h[t] = tanh(W @ x[t] + U @ h[t-1])
"""


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("masks", MASKS)
def test_arguments_may_lie_in_the_workspace(checkpoint: int | None, masks: str) -> None:
    """What is given back goes in again, whole and as views: the results are those of copies."""
    module, options = cellspec.build(cell_from(ECHO)), MASKS[masks]
    rng = np.random.default_rng(0)
    params, x = module.Params(*(rng.normal(size=(3, 3)) for _ in "WU")), rng.normal(size=(3, 2, 3))

    def run(separate: Callable[[Any], Any]) -> Any:
        workspace = module.Workspace(3, 2, params, checkpoint=checkpoint)
        results, own, y, state = [], params, x, module.init_state(params, 2)
        for k in range(3):
            given = (separate(own), separate(y), separate(state))
            y, state, tape = module.forward(*given, workspace=workspace, **options)
            # By way of another library, a view does not tell where it comes from.
            dy = np.frombuffer(memoryview(np.ascontiguousarray(y)), y.dtype).reshape(y.shape) if k == 1 else y
            grads = module.backward(given[0], tape, separate(dy), state, workspace=workspace)
            results.append(copied((y, state, tuple(grads))))
            own, y, state = (grads.params, y, state) if k else (params, grads.x[::-1], grads.state)
        return tuple(results)

    assert same_bits(run(lambda value: value), run(copied))


def test_gradients_may_be_the_next_parameters(path: Path) -> None:
    """They lie where the next gradients go, and so do the inputs that they are given back for."""
    module, drawn = module_of(path), drawn_for(path)
    params, x, state = given(module, drawn)
    upstream, results = drawn.upstream(module), []
    for separate in (lambda value: value, copied):
        workspace, own = module.Workspace(drawn.steps, drawn.batch, params, **asked(module, drawn)), params
        for _ in range(2):
            y, final, tape = module.forward(own, x, state, workspace=workspace)
            grads = module.backward(own, tape, *upstream, workspace=workspace)
            own, x = separate(grads.params), separate(grads.x)
        results.append(copied((y, final, tuple(grads))))
        x = given(module, drawn)[1]
    assert same_bits(*results)


def test_a_stale_tape_of_other_masks_is_refused() -> None:
    """A call with resets takes other memory, but the inputs of both lie in the same."""
    path = ROOT / "specs" / "gru.yaml"
    module, drawn = module_of(path), drawn_for(path)
    params, x, state = given(module, drawn)
    workspace = module.Workspace(drawn.steps, drawn.batch, params, **asked(module, drawn))
    y, _, tape = module.forward(params, x, state, lengths=[3, 1], workspace=workspace)
    module.forward(params, -x, state, **MASKS["masked"], workspace=workspace)
    with pytest.raises(ValueError, match=r"^tape is stale"):
        module.backward(params, tape, np.ones_like(y))


def test_gradients_are_those_of_the_parameters_of_the_tape(path: Path) -> None:
    """Equal ones are as good; others, or the same changed in place, are refused."""
    module, drawn = module_of(path), drawn_for(path)
    params, x, state = given(module, drawn)
    upstream = drawn.upstream(module)
    _, _, tape = module.forward(params, x, state)
    expected = module.backward(params, tape, *upstream)
    assert same_bits(module.backward(copied(params), tape, *upstream), expected)
    for name, value in params._asdict().items():
        with pytest.raises(ValueError, match=rf"^params\.{name} has other values than in forward"):
            module.backward(params._replace(**{name: value + 0.125}), tape, *upstream)
        before = value.copy()
        value *= 0.5
        value += 0.25
        with pytest.raises(ValueError, match=r"^params have been changed since forward"):
            module.backward(params, tape, *upstream)
        value[...] = before
    assert same_bits(module.backward(params, tape, *upstream), expected)


def test_parameters_that_are_no_numbers_are_the_same_ones() -> None:
    module = module_named("gru")
    params = module.init_params(np.random.default_rng(0), I=3, H=4)
    params.Ur[...] = np.nan
    y, _, tape = module.forward(params, np.ones((3, 2, 3)))
    module.backward(params, tape, y)
    module.backward(copied(params), tape, y)


# --- named tuples, and arrays of other kinds -------------------------------------------------------------------------


def renamed(value: Any) -> Any:
    """The same shapes under other names."""
    return namedtuple(type(value).__name__, [f"{field}_" for field in value._fields])(*value)


def turned(value: Any) -> Any:
    """The same fields in reverse order."""
    return namedtuple(type(value).__name__, value._fields[::-1])(*value[::-1])


def calls(module: ModuleType, drawn: Sample) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Every argument that is a named tuple or an array, and what may be called with it."""
    params, x, state = given(module, drawn)
    dy, dfinal = drawn.upstream(module)
    x_t, packed = first_step(module, drawn), module.pack(params, **asked(module, drawn))
    _, _, tape = module.forward(params, x, state)
    dims = asked(module, drawn)
    return {
        "forward params": (params, lambda p: module.forward(p, x, state)[:2]),
        "forward x": (x, lambda v: module.forward(params, v, state)[:2]),
        "forward state": (state, lambda s: module.forward(params, x, s)[:2]),
        "backward params": (params, lambda p: module.backward(p, tape, dy, dfinal)),
        "backward dy": (dy, lambda d: module.backward(params, tape, d, dfinal)),
        "backward dfinal": (dfinal, lambda d: module.backward(params, tape, dy, d)),
        "step params": (params, lambda p: module.step(p, x_t, state)),
        "step x_t": (x_t, lambda v: module.step(params, v, state)),
        "step state": (state, lambda s: module.step(params, x_t, s)),
        "packed step x_t": (x_t, lambda v: module.step(packed, v, state)),
        "packed step state": (state, lambda s: module.step(packed, x_t, s)),
        "pack params": (params, lambda p: module.step(module.pack(p, **dims), x_t, state)),
        "trace params": (params, lambda p: tuple(module.trace(p, x, state).values())),
        "trace x": (x, lambda v: tuple(module.trace(params, v, state).values())),
        "trace state": (state, lambda s: tuple(module.trace(params, x, s).values())),
        "init_state params": (params, lambda p: module.init_state(p, drawn.batch, **dims)),
        "Workspace params": (params, lambda p: module.Workspace(3, 2, p, **dims) and ()),
    }


def test_named_tuples_are_taken_by_name(path: Path) -> None:
    module, drawn = module_of(path), drawn_for(path)
    for said, (value, call) in calls(module, drawn).items():
        if not isinstance(value, tuple):
            continue
        expected = copied(call(value))
        for other in (turned(value), tuple(value), cellspec_twin(value)):
            assert same_bits(call(other), expected), said
        if value:
            with pytest.raises(TypeError, match=rf"^\w+ must be \w+\(.*\), got \w+ with {value._fields[0]}_"):
                call(renamed(value))


def cellspec_twin(value: Any) -> Any:
    """The named tuple of another module of the same cell."""
    return namedtuple(type(value).__name__, value._fields)(*value)


class Quantity(np.ndarray):
    """An array of another library."""


def test_other_kinds_of_arrays_are_refused_everywhere(path: Path, tmp_path: Path) -> None:
    module, drawn = module_of(path), drawn_for(path)

    def in_file(array: Any) -> Any:
        if not array.size:
            return array
        found = np.memmap(tmp_path / "array", array.dtype, "w+", shape=array.shape)
        found[...] = array
        return found

    for said, (value, call) in calls(module, drawn).items():
        arrays = list(value) if isinstance(value, tuple) else [value]
        for k, array in enumerate(arrays):
            if k not in (0, len(arrays) - 1):
                continue

            def put(other: Any, k: int = k, value: Any = value) -> Any:
                return value._replace(**{value._fields[k]: other}) if isinstance(value, tuple) else other

            kinds = [np.ma.masked_array(array, np.zeros(array.shape, bool)), array.view(Quantity)]
            for other in kinds + ([np.asmatrix(array)] if array.ndim == 2 else []):
                with pytest.raises(TypeError, match=rf"must be a NumPy array.*, got {type(other).__name__}$"):
                    call(put(other))
            assert same_bits(call(put(in_file(array))), call(value)), said


def test_masked_lengths_are_refused() -> None:
    module = module_named("gru")
    params = module.init_params(np.random.default_rng(0), I=3, H=4)
    for name, value in (("lengths", np.ma.masked_array([1, 2])), ("resets", np.asmatrix(np.zeros((3, 2), bool)))):
        with pytest.raises(TypeError, match=rf"^{name} must be a NumPy array or a list, got (MaskedArray|matrix)$"):
            module.forward(params, np.ones((3, 2, 3)), **{name: value})


def test_layers_take_tuples_by_name_and_no_masked_arrays() -> None:
    both = layers.Bidirectional(layer("gru", 3, 4), layer("gru", 3, 4))
    learnt = layer("lstm", 3, 4, learn_state=True)
    for tested in (both, learnt):
        params, x, _ = arguments(tested)
        expected = tested.forward(params, x)[:2]
        assert same_bits(tested.forward(turned(params), x)[:2], expected)
        with pytest.raises(TypeError, match=r"^params must be \w+\(\w+, \w+\), got \w+\(\w+_, \w+_\)$"):
            tested.forward(renamed(params), x)
        with pytest.raises(TypeError, match=r"^x must be an array \[T, B, input_size\], got MaskedArray$"):
            tested.forward(params, np.ma.masked_array(x))
        total = layers.tree_map(np.add, params, turned(params))
        assert same_bits(total, layers.tree_map(np.add, params, params))
        with pytest.raises(ValueError, match=r"^the trees differ in structure"):
            layers.tree_map(np.add, params, renamed(params))
