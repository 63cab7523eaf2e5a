"""What ``verify`` allows: right cells pass however they cancel, wrong modules fail wherever numbers are well conditioned."""

from __future__ import annotations

import dataclasses
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support import ROOT, cell_from, cell_of, draw, generator, module_of
from test_verify import equations, module

import cellspec
from cellspec import oracle
from cellspec.cell import Cell
from cellspec.cli import main
from cellspec.verification.check import ENOUGH, LARGE, fitting, tolerance, verify, verify_sample
from cellspec.verification.expected import Expected
from cellspec.verification.sampling import RANGES, NoFiniteSample, sample

HEAD = "inputs: {x: I}\nstates: {h: H}\nparams: {W: [H, I], U: [H, H], b: H}\n"


def spec(name: str, *lines: str, head: str = HEAD) -> Cell:
    return cell_from(f"name: {name}\n{head}equations: |\n" + "".join(f"  {line}\n" for line in lines))


def checked(cell: Cell, module: ModuleType | None = None, **options: Any) -> Any:
    return verify(cell, module or cellspec.build(cell), seed=3, **options)


CANCELLING = {
    "unit": ("u = W @ x[t] + U @ h[t-1] + b", "h[t] = u/norm(u)"),
    "sign": ("u = W @ x[t] + U @ h[t-1] + b", "h[t] = u/abs(u) + u/sqrt(dot(u, u))"),
    "standard": ("u = W @ x[t] + U @ h[t-1] + b", "h[t] = (u - mean(u))/sqrt(var(u) + 1e-12)"),
    "cosine": ("u = W @ x[t] + b", "v = U @ h[t-1] + b", "h[t] = tanh(dot(u, v)/(norm(u)*norm(v)))*u"),
    "kept": ("u = tanh(W @ x[t] + U @ h[t-1] + b)", "h[t] = (h[t-1] + 300*u) - 300*u"),
    "naive": ("u = exp(W @ x[t] + U @ h[t-1] + b)", "h[t] = u/sum(u) + log(1 + exp(-u)) + 1 - tanh(u)**2"),
    "wild": ("h[t] = sin(30*(W @ x[t]) + 30*(U @ h[t-1]) + 30*b)",),
    "steep": ("u = W @ x[t] + U @ h[t-1] + b", "h[t] = tanh(u*exp(5))*8"),
    "jumps": ("u = W @ x[t] + U @ h[t-1] + b", "h[t] = tanh(where(u/norm(u) < 1, u, 0*b) + max(u/abs(u), 1))"),
}


@pytest.mark.parametrize("name", CANCELLING)
def test_right_cells_that_cancel_pass(name: str) -> None:
    report = checked(spec(name, *CANCELLING[name]), exact=name in ("unit", "cosine"))
    assert report.ok, str(report)


def test_a_gradient_that_cancels_needs_the_spread() -> None:
    """That of ``u/sqrt(u*u)`` is exactly 0, but rounding errors divided by ``u`` in a program."""
    cell = spec("unit", *(line.replace("norm(u)", "sqrt(dot(u, u))") for line in CANCELLING["unit"]))
    drawn = sample(cell, {"I": 1, "H": 1}, 3, 2, generator(4), np.float32)
    near = dataclasses.replace(drawn, params={name: np.float32(1e-5) * array for name, array in drawn.params.items()})
    report = verify_sample(cell, cellspec.build(cell), near)
    assert report.ok, str(report)
    assert max(row.tolerance for row in report.rows if row.quantity.startswith("d ")) > 100 * tolerance(cell, near)
    assert max(row.tolerance for row in report.rows if not row.quantity.startswith("d ")) < 2 * tolerance(cell, near)


def test_the_spread_of_ordinary_cells_is_next_to_nothing() -> None:
    for name in ("lstm", "gru"):
        expected = Expected(cell_of(ROOT / "specs" / f"{name}.yaml"), draw(cell_of(ROOT / "specs" / f"{name}.yaml")))
        spreads = [
            expected.spread("outputs", "h"),
            expected.spread("final", "h"),
            *map(expected.pairing_spread, expected.moving),
        ]
        assert 0 < max(spread.max() for spread in spreads) < 1e-12
        again = Expected(expected.cell, expected.drawn)
        again.drawn.rng.normal(size=7)
        np.testing.assert_array_equal(again.spread("final", "h"), expected.spread("final", "h"))


SATURATED = ("i = sigmoid(W @ x[t] + U @ h[t-1] + b)", "h[t] = i/sum(i)")


def test_a_form_that_loses_accuracy_where_gates_saturate_is_found() -> None:
    """``tanh(z/2)/2 + 1/2`` is a logistic function for most, but not for a normaliser."""
    cell = spec("normal", *SATURATED)
    half = "i = 0.5*tanh(0.5*(W @ x[t]) + 0.5*(U @ h[t-1]) + 0.5*b) + 0.5"
    report = checked(cell, cellspec.build(spec("normal", half, SATURATED[1])), exact=False)
    wrong = {row.setting for row in report.rows if not row.ok and row.quantity.startswith(("y", "step", "packed", "trace"))}
    assert "low range" in wrong and wrong <= {f"{name} range" for name in RANGES}, str(report)


def test_gains_and_biases_are_drawn_over_the_whole_range() -> None:
    cell = cell_of(ROOT / "specs" / "lstm.yaml")
    for name, (least, largest, signs) in RANGES.items():
        drawn = sample(cell, {"I": 5, "H": 7}, 3, 2, generator(5), np.float64, gains=name)
        sizes = np.abs([drawn.params[bias] for bias in ("bi", "bf", "bg", "bo")])
        assert 0.9 * least <= sizes.min() and sizes.max() <= 1.1 * largest
        assert {np.sign(one) for bias in ("bi", "bf", "bg", "bo") for one in drawn.params[bias]} <= set(signs)
        assert np.abs(drawn.params["Wi"]).max() < 3


def test_what_underflows_or_overflows_in_the_dtype_is_not_asked_for() -> None:
    """``log(sigmoid(z))`` below -104 is minus infinity in float32, as the logistic function is 0 there; not so in float64."""
    cell = spec("gone", "h[t] = log(sigmoid(w*x[t])) + 0*h[t-1]", head="inputs: {x: H}\nstates: {h: H}\nparams: {w: H}\n")
    arguments = {"w": np.array([1.0, 1.0])}, {"x": np.array([[[-120.0, -1.0]]])}, {"h": np.zeros((1, 2))}
    for dtype, lost in ((np.float32, True), (np.float64, False)):
        others = [
            oracle.rounded_forward(cell, *arguments, oracle.Rounding(np.dtype(dtype), generator(seed)), dims={"H": 2})
            for seed in range(4)
        ]
        found = np.array([other.final["h"][0] for other in others])
        assert np.isinf(found[:, 0]).any() == lost and np.isfinite(found[:, 1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_moves_numbers_by_units_in_their_last_place(dtype: Any) -> None:
    rounding = oracle.Rounding(np.dtype(dtype), generator(6))
    numbers = np.array([0.0, 1.0, -1e-20, 1e20, np.inf, -np.inf])
    moved = rounding(np.broadcast_to(numbers, (200, 6)))
    assert (moved[:, [0, 4, 5]] == numbers[[0, 4, 5]]).all()
    far = np.abs(moved[:, 1:4] / numbers[1:4] - 1) / np.finfo(dtype).eps
    assert 10 < far.max() <= 17 and far.min() < 1
    assert rounding.arguments({"t_now": np.array([3.0])})["t_now"] == 3.0


# --- what prevents a comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("h[t] = exp(exp(exp(W @ x[t] + U @ h[t-1] + b)))",), r"h\[t\] at step \d leaves the range of float64"),
        (("h[t] = U @ h[t-1] + exp(W @ x[t] + 100*b*b + 95)",), r"h\[t\] at step 0 leaves the range of float32"),
        (("u = W @ x[t] + b", "v = sqrt(-1 - u*u)", "h[t] = v + U @ h[t-1]"), r"v at step 0 leaves the range of float64"),
    ],
)
def test_values_that_leave_the_floats(tmp_path: Any, lines: tuple[str, ...], told: str) -> None:
    report = checked(spec("grows", *lines))
    assert not report.ok and any(re.match(told, fault) for fault in report.faults), str(report)
    path = tmp_path / "grows.yaml"
    path.write_text(f"name: grows\n{HEAD}equations: |\n" + "".join(f"  {line}\n" for line in lines))
    result = CliRunner().invoke(main, ["verify", str(path)])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert re.search(told, result.stderr) and "with every set of random arguments that was tried" in result.stderr


def test_a_derived_parameter_that_leaves_the_floats() -> None:
    cell = spec("far", "A = exp(exp(exp(2 + b*b)))", "h[t] = tanh(W @ x[t] + U @ h[t-1] + A)")
    with pytest.raises(NoFiniteSample, match=r"^the derived parameter A leaves the range of float64"):
        draw(cell)


@pytest.mark.parametrize("function", ["forward", "backward", "step", "trace", "pack", "init_state"])
def test_a_module_that_raises_is_told_in_a_sentence(function: str) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("by nought\nand more")

    report = verify(equations(), module(**{function: raises}), dtypes=(np.float64,), exact=False)
    assert len(report.faults) == 1 and report.faults[0].startswith(f"{function} raises ZeroDivisionError: by nought (")
    drawn = draw(equations())
    if function != "init_state":  # which is not asked where a state is given
        assert verify_sample(equations(), module(**{function: raises}), drawn).faults == (
            f"{function} raises ZeroDivisionError: by nought (given)",
        )


def test_a_module_that_lacks_a_function() -> None:
    lacking = module()
    del lacking.trace
    assert verify_sample(equations(), lacking, draw(equations())).faults == ("the module has no trace (given)",)


def test_an_interrupt_goes_on_its_way() -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(equations(), module(forward=interrupted))


# --- sizes ---------------------------------------------------------------------------------------------------

PRODUCTS = "dims: [D, E, N]\ninputs: {x: D}\nstates: {h: [E*D, N]}\nparams: {V: [E*D, D], S: [E*D, E*D], B: [N, E*D]}\n"


def test_dims_that_are_multiplied_are_small() -> None:
    cell = spec("products", "u = S @ silu(V @ x[t])", "h[t] = 0.5*h[t-1] + outer(u, B @ u)", head=PRODUCTS)
    dims = fitting(cell, LARGE)
    assert len(set(dims.values())) == 3 and (dims["D"] * dims["E"]) ** 2 <= ENOUGH
    assert fitting(cell_of(ROOT / "specs" / "lstm.yaml"), LARGE) == {"I": 17, "H": 19}
    report = checked(cell)
    assert report.ok, str(report)


def test_equal_elements_are_differentiated_once() -> None:
    from cellspec.oracle.scalars import Writer

    cell = cell_of(ROOT / "specs" / "lstm.yaml")
    (gate,) = (e for e in cell.assignments if e.target.name == "i")
    (_, few), (_, many) = (Writer({"I": 2, "H": count}).block(gate)[-1] for count in (3, 9))
    assert len({id(scalar.formula) for scalar in few.flat}) == len({id(scalar.formula) for scalar in many.flat}) == 1


def test_lengths_alone_are_tried_whole_in_segments_and_in_a_workspace() -> None:
    path = ROOT / "specs" / "elman.yaml"
    settings = {row.setting for row in verify(cell_of(path), module_of(path), exact=False).rows}
    wanted = {"lengths, T=53", "lengths, T=53, checkpoint=7", "lengths, T=53, workspace", "lengths, T=20, reverse", "resets"}
    assert wanted <= settings
