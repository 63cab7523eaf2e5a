"""Equivalences that the literature or a spec's doc states, of simple networks, linear recurrences and memories."""

from __future__ import annotations

import numpy as np
from fact_support import BIG, Call, changed, drawn, near, same, same_values, shipped

# --- simple recurrent networks -----------------------------------------------------------------------------


def test_indrnn_is_a_rectified_network_with_a_diagonal_matrix() -> None:
    call = drawn("indrnn")
    diagonal = {"W": call.params["W"], "U": np.diag(call.params["u"]), "b": call.params["b"]}
    same(call, call.of("irnn", diagonal))
    same(call, call.of(changed("elman", g="relu"), diagonal))


def test_cells_that_add_to_elman_are_elman_without_what_they_add() -> None:
    elman = drawn("elman")
    p, h = dict(elman.params), elman.state["h"]
    zeros, ones = np.zeros_like(p["b"]), np.ones_like(p["b"])
    same(elman, elman.of("mirnn", p | {"alpha": zeros, "beta1": ones, "beta2": ones}))
    same(elman, elman.of(changed("momentum_rnn", mu=0, eps=1), h=h, v=np.ones_like(h)))
    same(elman, elman.of(changed("dilated_rnn", skip=1)))
    same(elman, elman.of(changed("horn", N=1), p | {"U": p["U"][None]}))
    same(elman, elman.of(changed("clockwork", G=1), p | {"one": ones}, h=h, t_now=np.zeros((2, 1))))


def test_cells_without_a_bias_are_elman_without_one() -> None:
    elman = drawn("elman").zeroing("b")
    weights = {name: elman.params[name] for name in "WU"}
    same(elman, elman.of(changed("esn", leak=1), weights))
    units = len(elman.params["b"])
    plastic = weights | {"alpha": np.zeros((units, units)), "eta": np.full(1, 0.1)}
    same(elman, elman.of("plastic_rnn", plastic, h=elman.state["h"], hebb=np.ones((2, units, units))))


def test_states_further_back_may_be_all_that_is_read() -> None:
    """Matrices of zeros for h[t-1] and h[t-3] leave h[t-2]."""
    elman = drawn("elman")
    p, h = dict(elman.params), elman.state["h"]
    dilated = elman.of(changed("dilated_rnn", skip=2), h=h, h_lag2=h)
    nothing = np.zeros_like(p["U"])
    same(dilated, elman.of("horn", p | {"U": np.stack([nothing, p["U"], nothing])}, h=h, h_lag2=h, h_lag3=h))


def test_a_closed_form_cell_whose_gate_is_closed_is_elman() -> None:
    elman = drawn("elman")
    p = elman.params
    first = np.hstack([p["W"], p["U"]])
    other = {"W2": np.ones_like(first), "c2": np.ones_like(p["b"]), "Wa": 0 * first, "ca": 0 * p["b"]}
    closed = {"W1": first, "c1": p["b"], "Wb": 0 * first, "cb": np.full_like(p["b"], -BIG)} | other
    call = Call(elman.module, p, {**elman.x, "dt": np.ones((6, 2, 1))}, elman.state)
    same(call, call.of("cfc", closed))


def test_without_context_the_hidden_units_are_a_simple_network() -> None:
    call = drawn("scrn").zeroing("P")
    plain = {"W": call.params["A"], "U": call.params["R"], "b": np.zeros(len(call.params["A"]))}
    same_values(call, call.of("elman_logistic", plain, h=call.state["h"]), [("h", "h")])


def test_an_open_gate_leaves_the_antisymmetric_network() -> None:
    call = drawn("antisymmetric")
    p = call.params
    gated = {"Wz": 0 * p["W"], "bz": np.full_like(p["b"], BIG), "Wh": p["W"], "bh": p["b"], "M": p["M"]}
    same(call, call.of("gated_antisymmetric", gated))


def test_the_lipschitz_network_may_be_antisymmetric() -> None:
    plain = drawn("antisymmetric")
    undamped = plain.of(changed("antisymmetric", gam=0))
    p = plain.params
    matrices = {"MA": 0 * p["M"], "MR": p["M"], "W": p["W"], "b": p["b"]}
    same(undamped, plain.of(changed("lipschitz", beta=1, gam=0, eps=0.1), matrices))


def test_the_scaled_cayley_transform_is_orthogonal() -> None:
    call = drawn("scornn")
    found = call.trace()["Q"]
    near(found @ found.T, np.eye(len(found)))
    start = call.zeroing("M", "b").changing(d=np.ones_like(call.params["d"]))
    sums = np.cumsum(call.x["x"] @ call.params["W"].T, axis=0)
    near(start.trace()["h"], call.state["h"] + sums)


def test_clocks_and_modules_of_the_clockwork_network() -> None:
    """Eight units in four modules of periods 1, 2, 4 and 8; each reads itself and the slower ones."""
    module = shipped("clockwork")
    params = module.init_params(np.random.default_rng(0), I=3, H=8, dtype=np.float64)
    values = module.trace(params, np.zeros((17, 1, 3)))
    assert values["period"].tolist() == [1, 1, 2, 2, 4, 4, 8, 8]
    assert values["mask"].tolist() == [[float(to // 2 >= unit // 2) for to in range(8)] for unit in range(8)]
    assert values["due"][:, 0, -1].nonzero()[0].tolist() == [0, 8, 16]


# --- linear recurrences ------------------------------------------------------------------------------------


def test_equal_gates_of_minlstm_are_a_half() -> None:
    call = drawn("minlstm")
    call = call.changing(Wi=call.params["Wf"], bi=call.params["bf"])
    half = {"Wz": 0 * call.params["Wf"], "bz": 0 * call.params["bf"], "Wh": call.params["Wh"], "bh": call.params["bh"]}
    same(call, call.of("mingru", half))


def test_minlstm_is_the_quotient_of_its_gates() -> None:
    call = drawn("minlstm")
    p, x = call.params, call.x["x"]
    f, i = (1 / (1 + np.exp(-(x @ p[f"W{gate}"].T + p[f"b{gate}"]))) for gate in "fi")
    near(call.trace()["f"], f / (f + i))


def test_the_strongly_typed_network_is_mingru_with_the_gate_negated() -> None:
    call = drawn("trnn")
    p = call.params
    same(call, call.of("mingru", {"Wz": -p["Wf"], "bz": -p["bf"], "Wh": p["Wz"], "bh": 0 * p["bf"]}))


def test_the_second_sru_without_peepholes_is_the_first_with_the_identity() -> None:
    call = drawn("sru").zeroing("vf", "vr")
    same(call, call.of(changed("sru_v1", g="identity"), {n: a for n, a in call.params.items() if n[0] != "v"}))


def test_ways_of_pooling() -> None:
    """i = 1 - f makes the last way the second one; the average is the same in the first two."""
    call = drawn("qrnn_ifo")
    call = call.changing(Wi=-call.params["Wf"], Vi=-call.params["Vf"])
    coupled = call.of("qrnn_fo", {name: array for name, array in call.params.items() if name[1:] != "i"})
    same(call, coupled)
    plain = {name: array for name, array in coupled.params.items() if name[1:] != "o"}
    lag = {name: array for name, array in call.state.items() if name != "c"}
    same_values(coupled, coupled.of("qrnn_f", plain, h=call.state["c"], **lag), [("c", "h")])


def test_gilr_is_pooling_without_a_convolution() -> None:
    call = drawn("gilr").zeroing("bg", "bz")
    p = call.params
    pooled = {"Wf": p["Wg"], "Wz": p["Wz"], "Vf": 0 * p["Wg"], "Vz": 0 * p["Wz"]}
    same(call, call.of("qrnn_f", pooled, h=call.state["h"], x_lag1=np.ones_like(call.x["x"][0])))


def test_a_constant_gate_makes_gated_linear_attention_retention() -> None:
    """exp(logsigmoid(ba)/16) is the decay."""
    call = drawn("retention")
    keys, inputs = call.params["Wq"].shape
    decay = 0.96875**16
    bias = np.full(keys, np.log(decay / (1 - decay)))
    gate = {"Wa": np.ones((2, inputs)), "Va": np.zeros((keys, 2)), "ba": bias, "one": np.ones(len(call.params["Wv"]))}
    same(call, call.of("gla", dict(call.params) | gate), 1e-10)


def test_the_complex_recurrence_in_complex_numbers() -> None:
    call = drawn("lru")
    p, s = call.params, call.state
    eigenvalues = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    h = s["hr"] + 1j * s["hi"]
    for t, x in enumerate(call.x["x"]):
        h = eigenvalues * h + np.exp(p["gamma"]) * (x @ (p["Br"] + 1j * p["Bi"]).T)
        near(call.trace()["y"][t], (h @ (p["Cr"] + 1j * p["Ci"]).T).real + p["d"] * x)


# --- memories ----------------------------------------------------------------------------------------------


def test_the_legendre_memory_computes_its_constants() -> None:
    """F by the paper's formula, A and B by the bilinear rule; with these as constants it is lmu."""
    call = drawn("lmu_legendre").changing(one=np.ones(len(drawn("lmu_legendre").params["one"])))
    size, theta = len(call.params["one"]), 100.0
    sign = [[-1.0 if row < column else (-1.0) ** (row - column + 1) for column in range(size)] for row in range(size)]
    odd = 2 * np.arange(size) + 1
    F, B = odd[:, None] / theta * np.array(sign), odd * (-1.0) ** np.arange(size) / theta
    values, left = call.trace(), np.eye(size) - F / 2
    near(values["F"], F)
    near(values["A"], np.linalg.solve(left, np.eye(size) + F / 2))
    near(values["B"], np.linalg.solve(left, B))
    plain = {name: array for name, array in call.params.items() if name != "one"}
    same(call, call.of("lmu", plain | {"A": values["A"], "B": values["B"][:, None]}))


def test_linear_attention_is_attention() -> None:
    """From an empty memory: a mean of all values so far, weighted by the products of keys and query."""
    call = drawn("linear_attention")
    values = call.of(call.module, **{name: np.zeros_like(array) for name, array in call.state.items()}).trace()
    weights = np.einsum("tbd,sbd->bts", values["q"], values["k"]) * np.tril(np.ones((6, 6)))
    sums = np.einsum("bts,sbm->tbm", weights, values["v"])
    near(values["y"], sums / (weights.sum(axis=2).T[:, :, None] + 1e-6))


def test_the_time_mixing_of_rwkv_is_a_weighted_mean() -> None:
    call = drawn("rwkv4")
    module, (_, x, _) = shipped("rwkv4"), call.arguments()
    values = module.trace(module.Params(**call.params), x)
    k, v = values["k"], values["v"]
    for t in range(6):
        weights = [np.exp(-(t - 1 - n) * np.exp(call.params["w"]) + k[n]) for n in range(t)] + [np.exp(call.params["u"] + k[t])]
        near(values["wkv"][t], sum(w * v[n] for n, w in enumerate(weights)) / sum(weights))
