"""Equivalences that the literature or a spec's doc states, of gated cells: GRUs, LSTMs and what lies near them."""

from __future__ import annotations

import numpy as np
import pytest
from fact_support import BIG, Call, changed, drawn, near, same, same_values, shipped
from support import Array

Params = dict[str, Array]


def renamed(call: Call, names: str, negated: str = "") -> Params:
    """Parameters under other names: ``f:u h:n`` makes Wf, Uf, bf into Wu, Uu, bu; gates among ``negated`` change their sign."""
    gates = dict(pair.split(":") for pair in names.split())
    return {
        f"{name[0]}{gates[name[1:]]}": -array if name[1:] in negated.split() else array
        for name, array in call.params.items()
        if name[1:] in gates
    }


def gate(call: Call, letter: str, like: str, bias: float) -> Params:
    """A gate that reads nothing: matrices as those of ``like``, but zero, and a bias."""
    return {f"{kind}{letter}": np.zeros_like(call.params[f"{kind}{like}"]) for kind in "WU"} | {
        f"b{letter}": np.full_like(call.params[f"b{like}"], bias)
    }


# --- one gate and two --------------------------------------------------------------------------------------


def test_mgu_is_a_gru_whose_gates_are_one() -> None:
    """r = f and u = f, or u = 1 - f where u is the share of the old state."""
    mgu = drawn("mgu")
    shared = renamed(mgu, "f:r h:n")
    same(mgu, mgu.of("gru", shared | renamed(mgu, "f:u")))
    same(mgu, mgu.of("gru_before", shared | renamed(mgu, "f:u", negated="f")))


def test_ugrnn_is_a_gru_without_reset() -> None:
    ugrnn = drawn("ugrnn")
    same(ugrnn, ugrnn.of("gru_before", renamed(ugrnn, "g:u c:n") | gate(ugrnn, "r", "g", BIG)))


def test_ugrnn_is_janet_with_beta_zero() -> None:
    ugrnn = drawn("ugrnn")
    same(ugrnn, ugrnn.of(changed("janet", beta=0), renamed(ugrnn, "g:f c:g"), c=ugrnn.state["h"]))


def test_ugrnn_is_a_highway_of_depth_one_with_the_gate_negated() -> None:
    ugrnn = drawn("ugrnn")
    p = ugrnn.params
    highway = {"Wh": p["Wc"], "Wu": -p["Wg"], "Rh": p["Uc"], "Ru": -p["Ug"], "bh": p["bc"], "bu": -p["bg"]}
    families = {name: array if name[0] == "W" else array[None] for name, array in highway.items()}
    same(ugrnn, ugrnn.of(changed("rhn", L=1), families))


def test_lightru_is_ugrnn_whose_candidate_reads_the_input_alone() -> None:
    light = drawn("lightru")
    nothing = {"Uc": np.zeros_like(light.params["Uf"]), "bc": np.zeros_like(light.params["bf"])}
    same(light, light.of("ugrnn", renamed(light, "f:g", negated="f") | {"Wc": light.params["Wh"]} | nothing))


def test_the_state_of_the_intersection_network_is_that_of_ugrnn() -> None:
    both = drawn("intersection_rnn")
    same_values(both, both.of("ugrnn", renamed(both, "gh:g h:c")), [("h", "h")])


# --- GRUs --------------------------------------------------------------------------------------------------


def test_the_second_bias_is_all_that_the_library_form_adds() -> None:
    library = drawn("gru_cudnn").zeroing("cn")
    negated = {name: -array if name[1:] == "u" else array for name, array in library.params.items() if name != "cn"}
    same(library, library.of("gru_after", negated))


@pytest.mark.parametrize(
    ("slim", "full"), [("gru1", "gru"), ("gru2", "gru"), ("gru3", "gru"), ("mgu1", "mgu"), ("mgu2", "mgu"), ("mgu3", "mgu")]
)
def test_slimmed_cells_are_the_full_ones_with_zeros(slim: str, full: str) -> None:
    call = drawn(slim)
    whole = drawn(full)
    zeros = {name: np.zeros_like(array) for name, array in whole.params.items() if name not in call.params}
    assert zeros
    same(call, call.of(full, zeros | dict(call.params)))


def test_the_second_mutant_is_a_gru() -> None:
    mutant = drawn("mut2")
    same(mutant, mutant.of("gru", renamed(mutant, "z:u h:n r:r") | {"Wr": mutant.params["E"]}))


def test_ligru_is_a_gru_without_reset_and_with_rectified_candidates() -> None:
    light = drawn("ligru")
    same(light, light.of(changed("gru_before", phi="relu"), dict(light.params) | gate(light, "r", "u", BIG)))


def test_gru_d_is_a_gru_where_nothing_is_missing() -> None:
    """With m = 1 and no decay; the mask, a constant then, adds to the biases."""
    call = drawn("gru_d").zeroing("Wd", "bd")
    call = Call(call.module, call.params, {**call.x, "m": np.ones_like(call.x["m"])}, call.state)
    plain = {name: call.params[name] for name in shipped("gru").Params._fields}
    plain |= {f"b{letter}": call.params[f"b{letter}"] + call.params[f"V{letter}"].sum(axis=1) for letter in "run"}
    same(call, call.of("gru", plain, h=call.state["h"]))


def test_skip_gru_that_never_skips_is_a_gru() -> None:
    call = drawn("skip_gru").zeroing("wp").saturating("bp")
    call = call.of(call.module, h=call.state["h"], p=np.ones_like(call.state["p"]))
    plain = {name: call.params[name] for name in shipped("gru").Params._fields}
    same_values(call, call.of("gru", plain, h=call.state["h"]), [("h", "h")])


def test_bistable_cell_is_the_neuromodulated_one_with_diagonal_matrices() -> None:
    brc = drawn("brc")
    diagonals = {name.replace("w", "U"): np.diag(array) if name[0] == "w" else array for name, array in brc.params.items()}
    same(brc, brc.of("nbrc", diagonals))


# --- LSTMs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ablation", "letter"), [("nig", "i"), ("nog", "o")])
def test_a_gate_that_is_removed_is_open(ablation: str, letter: str) -> None:
    call = drawn(ablation)
    same(call, call.of("lstm", dict(call.params) | gate(call, letter, "g", BIG)))


def test_without_peepholes_and_forget_gate_the_ablation_is_the_lstm_of_1997() -> None:
    call = drawn("nfg").zeroing("pi", "po")
    same(call, call.of("lstm_1997", {name: array for name, array in call.params.items() if name[0] != "p"}))


def test_without_its_matrices_full_gate_recurrence_is_peephole() -> None:
    call = drawn("fgr")
    call = call.zeroing(*(name for name in call.params if name[0] == "R"))
    kept = {name: array for name, array in call.params.items() if name[0] != "R"}
    same(call, call.of("peephole", kept, h=call.state["h"], c=call.state["c"]))


def test_without_their_matrices_working_memory_connections_are_none() -> None:
    call = drawn("wmclstm").zeroing("Vi", "Vf", "Vo")
    same(call, call.of("lstm", {name: array for name, array in call.params.items() if name[0] != "V"}))


def test_indylstm_is_an_lstm_with_diagonal_matrices() -> None:
    call = drawn("indylstm")
    same(call, call.of("lstm", {n.replace("u", "U"): np.diag(a) if n[0] == "u" else a for n, a in call.params.items()}))


def test_the_projection_may_be_the_identity() -> None:
    lstm = drawn("lstm")
    same(lstm, lstm.of("lstmp", dict(lstm.params) | {"Wp": np.eye(len(lstm.params["bi"]))}))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_mogrifier_without_its_matrices_is_an_lstm(rounds: int) -> None:
    lstm = drawn("lstm")
    hidden, inputs = lstm.params["Wi"].shape
    gating = {"Q": np.zeros((rounds, inputs, hidden)), "R": np.zeros((rounds, hidden, inputs))}
    same(lstm, lstm.of(changed("mogrifier", rounds=rounds), dict(lstm.params) | gating))


def test_time_aware_lstm_is_an_lstm_where_no_time_passes() -> None:
    call = drawn("time_aware_lstm")
    call = Call(call.module, call.params, {**call.x, "dt": np.zeros_like(call.x["dt"])}, call.state)
    same(call, call.of("lstm", {name: array for name, array in call.params.items() if name[1:] != "d"}))


def test_phased_lstm_is_an_lstm_at_the_peak_of_its_clocks() -> None:
    """In the middle of the open phase the time gate is 1."""
    call = drawn("phased_lstm")
    like = call.params["tau"]
    call = call.changing(tau=np.full_like(like, 4), sh=np.zeros_like(like), ron=np.ones_like(like))
    call = Call(call.module, call.params, {**call.x, "time": np.full_like(call.x["time"], 2)}, call.state)
    same(call, call.of("lstm", {n: a for n, a in call.params.items() if n not in ("tau", "sh", "ron")}))


def test_ordered_neurons_with_open_master_gates_are_an_lstm() -> None:
    """mf = 1 from the first unit on; mi = 1 for all units but the last, which is only kept."""
    call = drawn("on_lstm")
    units = np.eye(len(call.params["bmf"]))
    call = call.zeroing("Wmf", "Umf", "Wmi", "Umi").changing(bmf=BIG * units[0], bmi=BIG * units[-1])
    plain = {name: array for name, array in call.params.items() if name[1:] not in ("mf", "mi")}
    one, other = call.trace(), call.of("lstm", plain).trace()
    near(one["mf"], np.ones_like(one["mf"]))
    near(one["c"][0, :, :-1], other["c"][0, :, :-1])
    near(one["c"][:, :, -1], np.broadcast_to(call.state["c"][:, -1], one["c"][:, :, -1].shape))


def test_layer_norm_of_the_cell_state_is_carried_on_in_one_form_only() -> None:
    """TensorFlow's form carries the normalised state; the paper's normalises it on its way to the output."""
    tensorflow, paper = drawn("ln_lstm").trace(), drawn("ln_lstm_ba").trace()
    scale, shift = drawn("ln_lstm").params["sc"], drawn("ln_lstm").params["bc"]
    near(((tensorflow["c"] - shift) / scale).mean(axis=-1), np.zeros(tensorflow["c"].shape[:-1]))
    assert np.abs(paper["c"].mean(axis=-1)).max() > 1e-3


# --- exponential gates -------------------------------------------------------------------------------------


def slstm() -> Call:
    call = drawn("slstm")
    return call.of(call.module, **{**call.state, "n": np.abs(call.state["n"]) + 1})


def shifted(call: Call, matrix: str, by: float) -> Call:
    """The same memory on another scale: m + by, and the sums times exp(-by)."""
    m, total, n = call.state["m"], call.state[matrix], call.state["n"]
    return call.of(call.module, **{**call.state, "m": m + by, matrix: total * np.exp(-by), "n": n * np.exp(-by)})


def test_the_scale_of_exponential_gates_cancels() -> None:
    for call, sums in ((slstm(), "c"), (drawn("mlstm_xlstm"), "C")):
        same(call, shifted(call, sums, 3.7))
        same(call, shifted(call, sums, -1.2))


def test_the_stabiliser_changes_nothing() -> None:
    """The paper's equations without m, in plain NumPy, where nothing overflows: c*exp(m) and n*exp(m) are their states."""
    call = slstm()
    p, s = call.params, call.state
    h, c, n = s["h"], s["c"] * np.exp(s["m"]), s["n"] * np.exp(s["m"])
    for t, x in enumerate(call.x["x"]):
        before = {
            k: np.einsum("ndi,bi->bnd", p[f"W{k}"], x) + np.einsum("nij,bnj->bni", p[f"R{k}"], h) + p[f"b{k}"] for k in "ifzo"
        }
        f, i, o = 1 / (1 + np.exp(-before["f"])), np.exp(before["i"]), 1 / (1 + np.exp(-before["o"]))
        c, n = f * c + i * np.tanh(before["z"]), f * n + i
        h = o * c / n
        near(call.trace()["h"][t], h)


def test_from_an_empty_memory_the_scale_that_it_starts_from_does_not_matter() -> None:
    call = slstm()
    empty = {name: np.zeros_like(array) for name, array in call.state.items()}
    for start in (-np.inf, -1e30, 0.0):
        same(call.of(call.module, **empty), call.of(call.module, **empty | {"m": np.full_like(empty["m"], start)}))
