"""Equivalences that hold between published cells, through the generated modules of the shipped specs.

Two cells that are the same function of renamed, split or negated parameters give the same outputs, final states and gradients.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from support import ROOT, Array, cell_of, draw, module_of

from cellspec.verification.sampling import Sample


def shipped(name: str) -> ModuleType:
    """The module of a shipped cell."""
    return module_of(ROOT / "specs" / f"{name}.yaml")


def drawn_for(name: str, seed: int = 21) -> Sample:
    """Random arguments for a shipped cell."""
    return draw(cell_of(ROOT / "specs" / f"{name}.yaml"), steps=5, batch=3, seed=seed)


def run(module: ModuleType, params: dict[str, Array], drawn: Sample, order: tuple[str, ...]) -> tuple[Any, ...]:
    """y, final, gradients by x and state, and the gradients by parameters as a mapping; states given in ``order``."""
    state = module.State(*((drawn.state or {})[name] for name in order))
    dfinal = module.State(*(drawn.dfinal[name] for name in order))
    y, final, tape = module.forward(module.Params(**params), drawn.module_x(module), state)
    grads = module.backward(module.Params(**params), tape, next(iter(drawn.dy.values())), dfinal)
    return y, tuple(final), grads.x, tuple(grads.state), grads.params._asdict()


def agree(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """All but the parameters' gradients agree."""
    for a, b in zip(one[:4], other[:4], strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-11, atol=1e-13)


def same(gradient: Array, other: Array) -> None:
    np.testing.assert_allclose(gradient, other, rtol=1e-11, atol=1e-13)


def test_the_concatenated_lstm_is_the_split_one() -> None:
    drawn = drawn_for("lstm")
    gates = {"i": "i", "f": "f", "g": "C", "o": "o"}
    concat = {f"W{b}": np.hstack([drawn.params[f"U{a}"], drawn.params[f"W{a}"]]) for a, b in gates.items()}
    concat |= {f"b{b}": drawn.params[f"b{a}"] for a, b in gates.items()}
    one, other = run(shipped("lstm"), drawn.params, drawn, ("h", "c")), run(shipped("lstm_concat"), concat, drawn, ("h", "c"))
    agree(one, other)
    for a, b in gates.items():
        same(other[4][f"W{b}"], np.hstack([one[4][f"U{a}"], one[4][f"W{a}"]]))
        same(other[4][f"b{b}"], one[4][f"b{a}"])


def test_the_transposed_notation_is_the_split_lstm() -> None:
    drawn = drawn_for("lstm")
    gates = {"i": "i", "f": "e", "g": "", "o": "o"}
    names = {"W": "W", "U": "V", "b": "b"}
    zse = {f"{names[k]}{b}": drawn.params[f"{k}{a}"].T for a, b in gates.items() for k in names}
    one, other = run(shipped("lstm"), drawn.params, drawn, ("h", "c")), run(shipped("lstm_zse"), zse, drawn, ("h", "c"))
    agree(one, other)
    for a, b in gates.items():
        for k, new in names.items():
            same(other[4][f"{new}{b}"], one[4][f"{k}{a}"].T)


def test_coupled_gates_are_an_lstm_whose_input_gate_has_the_negated_parameters() -> None:
    """1 - sigmoid(z) = sigmoid(-z)."""
    for coupled, free, bound in (("cifg", "f", "i"), ("cifg_input", "i", "f")):
        drawn = drawn_for(coupled)
        full = drawn.params | {f"{k}{bound}": -drawn.params[f"{k}{free}"] for k in "WUb"}
        one = run(shipped(coupled), drawn.params, drawn, ("h", "c"))
        other = run(shipped("lstm"), full, drawn, ("h", "c"))
        agree(one, other)
        for k in "WUb":
            same(one[4][f"{k}{free}"], other[4][f"{k}{free}"] - other[4][f"{k}{bound}"])
            same(one[4][f"{k}o"], other[4][f"{k}o"])


def test_the_two_couplings_differ_by_the_sign_of_the_gate() -> None:
    drawn = drawn_for("cifg")
    other_params = {name.replace("f", "i"): -array if name.endswith("f") else array for name, array in drawn.params.items()}
    one = run(shipped("cifg"), drawn.params, drawn, ("h", "c"))
    other = run(shipped("cifg_input"), other_params, drawn, ("h", "c"))
    agree(one, other)
    for k in "WUb":
        same(other[4][f"{k}i"], -one[4][f"{k}f"])


def test_without_peepholes_the_peephole_lstm_is_the_lstm() -> None:
    drawn = drawn_for("peephole")
    params = drawn.params | {name: np.zeros_like(drawn.params[name]) for name in ("pi", "pf", "po")}
    plain = {name: array for name, array in params.items() if name not in ("pi", "pf", "po")}
    one, other = run(shipped("peephole"), params, drawn, ("h", "c")), run(shipped("lstm"), plain, drawn, ("h", "c"))
    agree(one, other)
    for name in plain:
        same(one[4][name], other[4][name])
    assert all(np.abs(one[4][name]).max() > 1e-3 for name in ("pi", "pf", "po")), "they have gradients at zero"


def test_diagonal_peepholes_are_full_ones_with_diagonal_blocks() -> None:
    drawn = drawn_for("peephole")
    gates = {"i": "i", "f": "f", "o": "o"}
    full = {f"W{g}": np.hstack([np.diag(drawn.params[f"p{g}"]), drawn.params[f"U{g}"], drawn.params[f"W{g}"]]) for g in gates}
    full |= {"WC": np.hstack([drawn.params["Ug"], drawn.params["Wg"]]), "bC": drawn.params["bg"]}
    full |= {f"b{g}": drawn.params[f"b{g}"] for g in gates}
    one = run(shipped("peephole"), drawn.params, drawn, ("h", "c"))
    other = run(shipped("peephole_concat"), full, drawn, ("h", "c"))
    agree(one, other)
    for g in gates:
        same(np.diag(other[4][f"W{g}"][:, : len(full["bC"])]), one[4][f"p{g}"])


def test_holding_the_forget_gate_open_gives_the_lstm_of_1997() -> None:
    """sigmoid(1000) is 1 exactly."""
    drawn = drawn_for("lstm_1997")
    size = len(drawn.params["bi"])
    held = {"Wf": np.zeros_like(drawn.params["Wi"]), "Uf": np.zeros((size, size)), "bf": np.full(size, 1000.0)}
    one = run(shipped("lstm_1997"), drawn.params, drawn, ("h", "c"))
    other = run(shipped("lstm"), drawn.params | held, drawn, ("h", "c"))
    agree(one, other)
    assert not any(other[4][name].any() for name in held)


def test_the_update_conventions_of_the_gru_differ_by_the_sign_of_the_gate() -> None:
    drawn = drawn_for("gru")
    negated = {name: -array if name.endswith("u") else array for name, array in drawn.params.items()}
    one, other = run(shipped("gru"), drawn.params, drawn, ("h",)), run(shipped("gru_before"), negated, drawn, ("h",))
    agree(one, other)
    for name in drawn.params:
        same(other[4][name], -one[4][name] if name.endswith("u") else one[4][name])


def test_the_concatenated_gru_is_the_split_one_without_biases() -> None:
    drawn = drawn_for("gru")
    gates = {"r": "r", "u": "z", "n": ""}
    split = drawn.params | {f"b{a}": np.zeros_like(drawn.params[f"b{a}"]) for a in gates}
    concat = {f"W{b}": np.hstack([split[f"U{a}"], split[f"W{a}"]]) for a, b in gates.items()}
    one, other = run(shipped("gru"), split, drawn, ("h",)), run(shipped("gru_concat"), concat, drawn, ("h",))
    agree(one, other)
    for a, b in gates.items():
        same(other[4][f"W{b}"], np.hstack([one[4][f"U{a}"], one[4][f"W{a}"]]))


def test_with_a_diagonal_matrix_the_reset_may_come_before_or_after_the_product() -> None:
    """U @ (r*h) = r*(U @ h) for diagonal U, and for no other: the two differ otherwise."""
    drawn = drawn_for("gru")
    diagonal = drawn.params | {"Un": np.diag(np.diag(drawn.params["Un"]))}
    one, other = run(shipped("gru"), diagonal, drawn, ("h",)), run(shipped("gru_after"), diagonal, drawn, ("h",))
    agree(one, other)
    for name in drawn.params:
        if name != "Un":
            same(one[4][name], other[4][name])
    same(np.diag(one[4]["Un"]), np.diag(other[4]["Un"]))
    before, after = run(shipped("gru"), drawn.params, drawn, ("h",)), run(shipped("gru_after"), drawn.params, drawn, ("h",))
    assert np.abs(before[0] - after[0]).max() > 1e-3


def test_the_logistic_network_is_the_tanh_network_rescaled() -> None:
    """sigmoid(z) = (1 + tanh(z/2))/2: with h = (1 + k)/2 a tanh network of halved and shifted parameters."""
    drawn = drawn_for("elman_logistic")
    W, U, b = (drawn.params[name] for name in "WUb")
    tanh = {"W": W / 2, "U": U / 4, "b": b / 2 + U.sum(axis=1) / 4}
    start = (drawn.state or {})["h"]
    logistic, hyperbolic = shipped("elman_logistic"), shipped("elman")
    y, _, _ = logistic.forward(logistic.Params(**drawn.params), drawn.module_x(logistic), logistic.State(start))
    k, _, _ = hyperbolic.forward(hyperbolic.Params(**tanh), drawn.module_x(hyperbolic), hyperbolic.State(2 * start - 1))
    same(y, (1 + k) / 2)


def test_an_open_forget_gate_and_a_closed_input_gate_keep_the_cell_state_bit_by_bit() -> None:
    for dtype in (np.float64, np.float32):
        for name in ("lstm", "peephole", "lstm_hard"):
            module, drawn = shipped(name), draw(cell_of(ROOT / "specs" / f"{name}.yaml"), steps=50, batch=3, dtype=dtype)
            size = len(drawn.params["bf"])
            held = {"bf": np.full(size, 1000.0, dtype), "bi": np.full(size, -1000.0, dtype)}
            params = module.Params(**(drawn.params | held))
            state = drawn.module_state(module)
            _, final, tape = module.forward(params, drawn.module_x(module), state)
            assert np.array_equal(final.c, state.c)
            zeros = module.State(np.zeros_like(final.h), np.zeros_like(final.c))
            dfinal = zeros._replace(c=drawn.dfinal["c"])
            grads = module.backward(params, tape, np.zeros_like(drawn.dy["h"]), dfinal)
            assert np.array_equal(grads.state.c, dfinal.c), "nor is its cotangent changed on the way back"


def test_a_closed_update_gate_keeps_the_state_of_a_gru_bit_by_bit() -> None:
    drawn = drawn_for("gru")
    for name, sign in (("gru", -1.0), ("gru_after", -1.0), ("gru_before", 1.0)):
        module = shipped(name)
        params = module.Params(**(drawn.params | {"bu": np.full_like(drawn.params["bu"], sign * 1000.0)}))
        state = drawn.module_state(module)
        assert np.array_equal(module.forward(params, drawn.module_x(module), state)[1].h, state.h)


def test_the_hard_gates_are_the_piecewise_linear_function() -> None:
    """Where every gate is within its linear part, sigma(z) = z/6 + 1/2; checked against plain NumPy for one step."""
    module, drawn = shipped("lstm_hard"), drawn_for("lstm_hard")
    p, x, state = drawn.params, drawn.x["x"][0], drawn.state or {}
    z = {g: x @ p[f"W{g}"].T + state["h"] @ p[f"U{g}"].T + p[f"b{g}"] for g in "ifgo"}
    gate = {g: np.clip(z[g] / 6 + 0.5, 0, 1) for g in "ifo"}
    c = gate["f"] * state["c"] + gate["i"] * np.tanh(z["g"])
    h, final = module.step(drawn.module_params(module), x, drawn.module_state(module))
    same(final.c, c)
    same(h, gate["o"] * np.tanh(c))
