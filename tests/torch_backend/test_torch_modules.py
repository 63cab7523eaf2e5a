"""PyTorch modules: against the equations, and as PyTorch's users call them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks_support import SOME, bridge, cell, everything, masks, module
from support import SHIPPED, call, cell_of, close, draw, generator, leaves

import cellspec
from cellspec.backends import registry
from cellspec.verification.check import verify
from cellspec.verification.sampling import sample

torch = pytest.importorskip("torch", reason="needs PyTorch")
torch.set_num_threads(1)  # tests run beside one another


def arguments(name: str, *, grad: bool = True, **options: Any) -> tuple[Any, Any, Any]:
    """Parameters, input and state of a call, as tensors."""
    built, drawn = module(name, "torch"), draw(cell(name), **options)

    def tensors(tree: Any) -> Any:
        if isinstance(tree, tuple):
            return type(tree)(*map(tensors, tree))
        return torch.tensor(tree, requires_grad=grad)

    return tensors(drawn.module_params(built)), tensors(drawn.module_x(built)), tensors(drawn.module_state(built))


@pytest.mark.parametrize("name", SOME)
def test_against_the_equations(name: str) -> None:
    report = verify(cell(name), bridge(name, "torch"), dtypes=(np.float64,), exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["gru_before", "far"])
def test_against_exact_gradients_and_in_float32(name: str) -> None:
    report = verify(cell(name), bridge(name, "torch"), dtypes=(np.float32,))
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_cell(path: Path) -> None:
    found = cell_of(path)
    report = verify(found, registry.backend("torch").on_host(cellspec.build(found, "torch")), exact=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", SOME)
def test_the_plain_form_is_the_same_function(name: str) -> None:
    drawn = draw(cell(name), steps=6, batch=4)
    for given in ({}, masks(6, 4)):
        one, other = (everything(bridge(name, "torch", plain=plain), drawn, given) for plain in (False, True))
        assert close(one, other, tolerance=1e-10)


@pytest.mark.parametrize("name", ["lstm", "mlstm_xlstm", "far"])
def test_memory_keeps_less_and_computes_the_same(name: str) -> None:
    drawn = draw(cell(name), steps=4)
    speed, memory = (call(bridge(name, "torch", residuals), drawn) for residuals in ("speed", "memory"))
    assert close(speed[0], memory[0]) and close(speed[2].params, memory[2].params, tolerance=1e-10)
    text = cellspec.generate(cell(name), "torch", "memory")
    assert " --backend torch --residuals memory``." in text and "# again: " in text


def test_what_lies_behind_an_end_is_not_computed_with() -> None:
    params, x, state = arguments("gru_before", steps=5, batch=3)
    spoilt = x.detach().clone()
    spoilt[2:, 0] = torch.nan
    spoilt[:, 1] = torch.inf
    spoilt.requires_grad_()
    y, final = module("gru_before", "torch").forward(params, spoilt, state, lengths=[2, 0, 5])
    (y.sum() + final.h.sum()).backward()
    assert all(torch.isfinite(one.grad).all() for one in (*params, spoilt, *state))
    assert not y[2:, 0].any() and not y[:, 1].any() and not spoilt.grad[2:, 0].any()
    assert torch.equal(final.h[1], state.h[1])


def test_no_sample_has_a_step() -> None:
    params, x, state = arguments("lstm", steps=3)
    y, final = module("lstm", "torch").forward(params, torch.full_like(x, torch.nan), state, lengths=[0, 0])
    (y.sum() + final.h.sum()).backward()
    assert not y.any() and torch.equal(final.c, state.c) and torch.equal(state.h.grad, torch.ones_like(state.h))


# --- derivatives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gru_before", "qrnn_fo"])
def test_gradcheck(name: str) -> None:
    built, drawn = module(name, "torch"), sample(cell(name), {"I": 1, "H": 2}, 2, 2, generator(1), np.float64)
    trees = (drawn.module_params(built), (drawn.module_x(built),), drawn.module_state(built))
    tensors = [torch.tensor(each, requires_grad=True) for tree in trees for each in tree]

    def run(*tensors: Any) -> Any:
        n = len(trees[0])
        y, final = built.forward(built.Params(*tensors[:n]), tensors[n], built.State(*tensors[n + 1 :]), lengths=[2, 1])
        return y, *final

    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)


def test_second_derivatives_are_those_of_the_plain_form() -> None:
    built = module("gru_before", "torch")
    found = []
    for forward in (built.forward, built.forward_plain):
        params, x, state = arguments("gru_before")
        y, _ = forward(params, x, state)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), (*params, x)))
    assert any(each.abs().max() > 0 for each in found[0])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_forward_mode_is_refused_but_for_the_plain_form() -> None:
    built = module("lstm", "torch")
    params, x, state = arguments("lstm", grad=False)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.func.jvp(lambda x: built.forward(params, x, state)[0], (x,), (torch.ones_like(x),))
    _, tangent = torch.func.jvp(lambda x: built.forward_plain(params, x, state)[0], (x,), (torch.ones_like(x),))
    assert tangent.abs().max() > 0


def test_a_weight_that_is_changed_in_between_is_noticed() -> None:
    params, x, state = arguments("lstm")
    y, _ = module("lstm", "torch").forward(params, x, state)
    with torch.no_grad():
        params.Ui.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# --- kinds of tensors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_and_devices(dtype: Any) -> None:
    built = module("lstm", "torch")
    params = built.init_params(torch.Generator().manual_seed(0), I=3, H=4, dtype=dtype, device="cpu")
    y, final = built.forward(params, torch.ones(5, 2, 3, dtype=dtype))
    assert {each.dtype for each in (*params, y, *final)} == {dtype}
    shapes = built.forward(built.Params(*(each.to("meta") for each in params)), torch.ones(5, 2, 3, dtype=dtype, device="meta"))
    assert shapes[0].device.type == "meta" and shapes[0].shape == (5, 2, 4)


def test_initial_parameters() -> None:
    built = module("lstm", "torch")
    one, same, other = (built.init_params(torch.Generator().manual_seed(n), I=3, H=6, dtype=torch.float64) for n in (1, 1, 2))
    assert all(map(torch.equal, one, same)) and not torch.equal(one.Wi, other.Wi)
    torch.testing.assert_close(one.Ui @ one.Ui.T, torch.eye(6, dtype=torch.float64))
    assert torch.equal(one.bf, torch.ones(6, dtype=torch.float64)) and one.Wi.abs().max() <= (6 / 9) ** 0.5


def test_steps_give_the_sequence() -> None:
    built = module("far", "torch")
    params, x, state = arguments("far", grad=False, steps=9)
    y, final = built.forward(params, x, state)
    for t in range(9):
        given, state = built.step(params, built.Inputs(*(each[t] for each in x)), state)
        torch.testing.assert_close(given.h, y.h[t])
    assert close(tuple(map(np.asarray, leaves(state))), tuple(map(np.asarray, leaves(final))))


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, r"^x has shape \(3, 2, 4\), expected \[T, B, I\] = \(3, 2, 5\)$", {"x": lambda x: x[..., :4]}),
        (ValueError, r"^x has shape \(3, 5\), expected \[T, B, I\]$", {"x": lambda x: x[:, 0]}),
        (TypeError, r"^x has dtype torch.float32, expected torch.float64$", {"x": lambda x: x.float()}),
        (TypeError, r"^x must be a tensor of shape \[T, B, I\], got ndarray$", {"x": lambda x: x.detach().numpy()}),
        (TypeError, r"^state must be State\(h, c\), got Tensor$", {"state": lambda state: state.h}),
        (ValueError, r"^lengths\[1\] is 4, expected 0 to T = 3$", {"lengths": lambda _: [3, 4]}),
        (TypeError, r"^lengths has dtype torch.float32, expected integers$", {"lengths": lambda _: [3.0, 1.0]}),
        (ValueError, r"^lengths has shape \(3,\), expected \[B\] = \(2,\)$", {"lengths": lambda _: [3, 1, 1]}),
        (TypeError, r"^resets has dtype torch.int64, expected bool$", {"resets": lambda _: [[0, 1]] * 3}),
        (TypeError, r"^reverse must be True or False, got int$", {"reverse": lambda _: 1}),
    ],
)  # fmt: skip
def test_arguments(error: type[Exception], message: str, change: dict[str, Any]) -> None:
    params, x, state = arguments("lstm")
    given: dict[str, Any] = {"x": x, "state": state, "lengths": None, "resets": None, "reverse": False}
    given |= {name: make(given[name]) for name, make in change.items()}
    for forward in (module("lstm", "torch").forward, module("lstm", "torch").forward_plain):
        with pytest.raises(error, match=message):
            forward(params, **given)


def test_the_module_imports_pytorch_alone() -> None:
    for name in ("lstm", "mlstm_xlstm", "far"):
        tree = ast.parse(cellspec.generate(cell(name), "torch"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"__future__", "math", "typing", "torch", "torch.nn"}
