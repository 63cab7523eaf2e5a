"""PyTorch's and JAX's backends without either library: what the registry has, what a bridge hands over, what a module holds."""

from __future__ import annotations

import ast
from collections import namedtuple
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from frameworks_support import FAR
from program_support import program
from support import cell_from

from cellspec import ir
from cellspec.backends import registry
from cellspec.backends.frameworks.backend import ArrayBackend, hand_on_by_carries
from cellspec.backends.frameworks.bridge import Bridge, flat, mapped
from cellspec.backends.frameworks.module import EXPORTS, FOLDER, VALUES, Target, module_text
from cellspec.backends.jax import backend as jax
from cellspec.backends.skeleton import skeleton
from cellspec.backends.torch import backend as torch
from cellspec.pipeline import Compiled, compile_cell

TARGETS = {"torch": torch.TARGET, "jax": jax.TARGET}
Pair = namedtuple("Pair", "a b")

# --- what the registry has ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "made"), [("torch", torch), ("jax", jax)])
def test_the_registry_finds_what_the_target_says(name: str, made: Any) -> None:
    found = registry.backend(name)
    assert found is made.BACKEND and isinstance(found, ArrayBackend)
    assert (found.name, found.title, found.needs) == (name, made.TARGET.title, (name,))
    assert found.describe(compiled(FAR, name)) == () and found.footprint(compiled(FAR, name), 4) == ()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_arguments_of_a_target_reach_its_random_numbers(target: Target) -> None:
    """What ``init_params`` is given besides dims is handed on by name."""
    source = target.source.partition(":")[0]
    given = {part.partition(":")[0].strip() for part in target.options.split(",")}
    assert source in target.draws.format(source=source) and all(name in target.draws for name in given)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_names_of_a_module_are_those_of_its_templates(target: Target) -> None:
    """Its own library's among them, and those of functions that all such modules have."""
    taken = skeleton(target.folder, FOLDER).names(VALUES)
    assert {target.xp, "_scan", "_through", "_where", "_full", "Params", "params", "masks", "saved"} <= taken


def delayed(text: str) -> Compiled:
    return Compiled(cell=cell_from(FAR), backward=program(text))


def test_nothing_comes_to_a_backward_step_by_delays() -> None:
    """What they hand on stays; only what reads them reads nothing."""
    state = delayed(
        """
        sequence  x[t]: [H]
        carried   p: [H], q: [H]
          d: [H] = x[t] + p + q
          e: [H] = 2*d
        carry     p <- d
        delay     q <- e, 5 steps
        give out  d
        """
    )
    found = hand_on_by_carries(state).backward
    assert [op.expr for op in found.ops] == [ir.symbol("x[t]") + ir.symbol("p"), 2 * ir.symbol("d")]  # type: ignore[union-attr]
    assert found.delays == state.backward.delays
    without = delayed("sequence x[t]: [H]\n d: [H] = 2*x[t]\ngive out d")
    assert hand_on_by_carries(without) is without


# --- bridges -----------------------------------------------------------------------------------------------------------


class Wrapped:
    """An array of a library: NumPy's, but no NumPy array."""

    def __init__(self, value: Any) -> None:
        self.value, self.shape = np.asarray(value), np.shape(value)


class Library(Bridge):
    """A bridge to a library whose derivatives are 1, 2, 3, … of each argument."""

    def array(self, value: Any) -> Any:
        return Wrapped(value)

    def numpy(self, value: Any) -> Any:
        return value.value

    def pulled(self, arguments: Any, options: Any, cotangents: Any) -> Any:
        self.asked = (arguments, options, cotangents)
        numbers = iter(range(1, 100))
        return mapped(lambda array: Wrapped(np.full(array.shape, next(numbers))), arguments)


def library(**more: Any) -> Library:
    """A module that keeps to the contract: ``y`` is x and the state added up."""

    def forward(params: Any, x: Any, state: Any, **options: Any) -> Any:
        assert all(isinstance(each, Wrapped) for each in (params.a, params.b, x))
        start = 0 if state is None else state.a.value
        return Wrapped(x.value + start), Pair(x, x)

    def init_state(params: Any, batch: int, **dims: int) -> Any:
        return Pair(Wrapped(np.zeros((batch, 2))), Wrapped(np.zeros((batch, dims.get("H", 3)))))

    parts = {
        "forward": forward,
        "forward_plain": lambda *args, **options: ("plain", args),
        "init_state": init_state,
        "State": Pair,
    }
    return Library(SimpleNamespace(**parts, **more))  # type: ignore[arg-type]


def test_arrays_go_in_as_the_librarys_and_come_out_as_numpys() -> None:
    made = library(step=lambda params, x, state: (x, Pair(params.a, state.b)))
    params, x = Pair(np.ones(2), np.ones(3)), np.arange(6.0).reshape(3, 2)
    y, final, _ = made.forward(params, x, Pair(np.ones(2), np.ones(2)))
    np.testing.assert_array_equal(y, x + 1)
    assert isinstance(final, Pair) and isinstance(final.a, np.ndarray)
    y, state = made.step(params, x, Pair(x, x))
    assert isinstance(y, np.ndarray) and isinstance(state, Pair)
    assert made.State is Pair and not hasattr(made, "Inputs"), "what the module has of classes"


def test_gradients_of_what_was_called() -> None:
    """Of the state that the module starts from too, if none was given; lengths and resets are those of the call."""
    made = library()
    params, x = Pair(np.ones(2), np.ones(3)), np.ones((5, 4, 2))
    _, _, tape = made.forward(params, x, lengths=np.array([1, 2, 3, 4]), reverse=True)
    grads = made.backward(params, tape, np.ones((5, 4, 2)), None)
    assert (grads.params.a[0], grads.params.b[0], grads.x[0, 0, 0], grads.state.a[0, 0], grads.state.b[0, 0]) == (1, 2, 3, 4, 5)
    assert grads.state.a.shape == (4, 2) and isinstance(grads.params.a, np.ndarray)
    arguments, options, cotangents = made.asked
    assert isinstance(arguments[1], Wrapped) and options["reverse"] is True and options["resets"] is None
    assert isinstance(cotangents[0], Wrapped) and cotangents[1] is None


def test_the_plain_function_if_asked() -> None:
    assert Library(library().module, plain=True).run(1)[0] == "plain"


def test_trees_keep_their_form() -> None:
    tree = (Pair(np.ones(1), None), {"a": np.ones(2)}, 3)
    found = mapped(lambda array: array.shape, tree)
    assert found == (Pair((1,), None), {"a": (2,)}, 3) and isinstance(found[0], Pair)
    assert flat(Pair((1, 2), (3, (4,)))) == [1, 2, 3, 4] and flat(5) == [5]


# --- modules -------------------------------------------------------------------------------------------------------------

SMALL = """name: small
inputs: {x: I}
states: {h: H}
outputs: [y]
params: {W: [H, I], U: [H, H], b: {shape: H, init: 2}, frozen: {shape: H, trainable: false}}
equations: |
  z = W @ x[t] + U @ h[t-1]
  h[t] = tanh(z + b)*frozen
  y = h[t]*h[t]
"""


@cache
def compiled(text: str, backend: str) -> Compiled:
    return compile_cell(cell_from(text), "speed", registry.backend(backend))


@cache
def tree(text: str, backend: str) -> ast.Module:
    return ast.parse(module_text(compiled(text, backend), TARGETS[backend]))


def function(text: str, backend: str, name: str) -> ast.FunctionDef:
    (found,) = [node for node in ast.walk(tree(text, backend)) if isinstance(node, ast.FunctionDef) and node.name == name]
    return found


@pytest.mark.parametrize("text", [SMALL, FAR], ids=["small", "far"])
@pytest.mark.parametrize("backend", TARGETS)
def test_a_module_gives_what_it_says(backend: str, text: str) -> None:
    """``__all__`` are names that it defines, and those of every module."""
    (listed,) = [
        n.value for n in tree(text, backend).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    ]
    found = ast.literal_eval(listed)
    body = tree(text, backend).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {ast.unparse(target) for node in body if isinstance(node, ast.Assign) for target in node.targets}
    assert set(EXPORTS) <= set(found) <= defined
    assert ("Inputs" in found, "Outputs" in found) == ((False, False) if text == SMALL else (True, True))


@pytest.mark.parametrize("backend", TARGETS)
def test_imports_are_what_the_text_reads(backend: str) -> None:
    for text in (SMALL, FAR):
        names = {node.id for node in ast.walk(tree(text, backend)) if isinstance(node, ast.Name)}
        imports = [node for node in tree(text, backend).body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {(a.asname or a.name).partition(".")[0] for node in imports for a in node.names} - {"annotations"}
        assert found <= names


@pytest.mark.parametrize("backend", TARGETS)
def test_a_module_reads_no_name_that_it_has_not(backend: str) -> None:
    for text in (SMALL, FAR):
        nodes = list(ast.walk(tree(text, backend)))
        bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
        bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        bound |= {
            (a.asname or a.name).partition(".")[0] for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names
        }
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert read - bound <= set(dir(__builtins__)) | set(__builtins__ if isinstance(__builtins__, dict) else ())


@pytest.mark.parametrize("backend", TARGETS)
def test_parameters_start_as_the_spec_says(backend: str) -> None:
    text = ast.unparse(function(SMALL, backend, "init_params"))
    assert "b=draw.full((H,), 2)" in text and "W=_glorot_uniform(draw, (H, I))" in text
    assert TARGETS[backend].source.partition(":")[0] in [arg.arg for arg in function(SMALL, backend, "init_params").args.args]


@pytest.mark.parametrize("backend", TARGETS)
def test_frozen_parameters_are_stopped(backend: str) -> None:
    """An optimiser sees no gradient of them."""
    stop = TARGETS[backend].spelling.operation("stop", value="params.frozen")
    assert stop in ast.unparse(tree(SMALL, backend)) and "params.frozen" in stop


@pytest.mark.parametrize("backend", TARGETS)
def test_the_backward_pass_takes_what_the_forward_pass_keeps(backend: str) -> None:
    """The last that the one returns has as many values as the other unpacks."""
    back = function(SMALL, backend, "_backward")
    (unpack,) = [n for n in ast.walk(back) if isinstance(n, ast.Assign) and ast.unparse(n.value) == "saved"]
    (target,) = unpack.targets
    assert isinstance(target, ast.Tuple)
    returned = [n.value for n in ast.walk(function(SMALL, backend, "_forward")) if isinstance(n, ast.Return)]
    kept = [value.elts[-1] for value in returned if isinstance(value, ast.Tuple) and len(value.elts) == 3]
    assert any(isinstance(each, ast.Tuple) and len(each.elts) == len(target.elts) for each in kept)
