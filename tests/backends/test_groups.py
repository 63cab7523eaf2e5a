"""Words for values side by side, and words for numbers."""

from __future__ import annotations

import pytest
import sympy

from cellspec.backends.naming import Groups, Names, number_name


def test_one_value_has_its_own_name() -> None:
    groups = Groups()
    assert groups.name(["Uo"]) == "Uo" and not groups.words


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["bu", "br", "bn"], "bu_br_bn"),
        (["d_u_pre", "d_r_pre"], "d_u_r_pre"),
        (["Uu_half", "Ur_half"], "Uu_Ur_half"),
        (["Uu_half", "Un"], "Uu_Un"),
    ],
)
def test_few_are_named_one_by_one(names: list[str], name: str) -> None:
    groups = Groups()
    assert groups.name(names) == name and not groups.words


def test_many_are_a_word_and_what_they_have_in_common() -> None:
    groups = Groups()
    assert groups.name(["Uo", "Ui", "Uf", "Ug"]) == "U_gates"
    assert groups.name(["o", "i", "f", "g"]) == "gates"
    assert groups.name(["d_o_pre", "d_i_pre", "d_f_pre", "d_g_pre"]) == "d_gates_pre"
    assert groups.name(["bo_half", "bi_half", "bf_half", "bg"]) == "b_gates"
    assert groups.name([f"b{gate}_half" for gate in "oifg"]) == "b_gates_half"
    assert groups.words == {("o", "i", "f", "g"): "gates"}


def test_words_are_not_cut_where_they_have_little_in_common() -> None:
    groups = Groups()
    assert groups.name(["sqrt_rx_pre", "sum_rx_part_2", "sum_rx_part_3", "sum_rx_part_4"]) == "gates"
    assert list(groups.words) == [("sqrt_rx_pre", "sum_rx_part_2", "sum_rx_part_3", "sum_rx_part_4")]


def test_a_series_is_a_plural() -> None:
    groups = Groups()
    assert groups.name(["rh_part", "rh_part_2", "rh_part_3", "rh_part_4"]) == "rh_parts"
    assert groups.name(["tmp_3", "tmp_4", "tmp_5", "tmp_7"]) == "tmps" and not groups.words


def test_another_order_is_another_word() -> None:
    groups = Groups()
    assert groups.name(["Uo", "Ui", "Uf", "Ug"]) == "U_gates"
    assert groups.name(["Ui", "Uf", "Ug", "Uo"]) == "U_gates2"
    assert groups.used(["U_gates2_T", "x"]) == {"gates2": ("i", "f", "g", "o")}
    assert groups.used(["U_gates_2"]) == {"gates": ("o", "i", "f", "g")}  # the second of that name
    assert groups.used(["agates", "gates3"]) == {}


def test_whole_parameters_are_weights() -> None:
    groups = Groups(("Wu", "Uu", "Wr", "Ur"))
    assert groups.name(["Wu", "Uu", "Wr", "Ur"]) == "weights"
    assert groups.name(["Uu", "Wu", "Ur", "Wr"]) == "weights2"
    assert groups.name(["Wa", "Ub", "Wc", "Ud"]) == "gates"


def test_no_name_is_long() -> None:
    names = Names(())
    long = ["_".join([name] * 9) for name in ("alpha", "beta")]
    for key in (0, 1):
        name = names.get(key, names.together(long))
        assert len(name) <= 30 and name.isidentifier()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("0", "zero"),
        ("-1", "minus_one"),
        ("1/2", "half"),
        ("0.5", "half"),
        ("-0.25", "minus_quarter"),
        ("0.2", "fifth"),
        ("1/3", "third"),
        ("3/4", "three_quarters"),
        ("0.05", "c_0_05"),
        ("-0.05", "c_minus_0_05"),
        ("1.0e-8", "c_1e_minus_08"),
        ("7", "c_7"),
        ("sqrt(H)", "sqrt_H"),
        ("oo", "c_inf"),
        ("0.1234567890123456", "c_0_1234567890123456"),
        ("-0.000012345678901234567", "number"),
    ],
)
def test_numbers_are_called_by_their_value(value: str, name: str) -> None:
    assert number_name(sympy.sympify(value, locals={"H": sympy.Symbol("H")})) == name
