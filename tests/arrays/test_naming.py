"""Identifiers for values: readable, and each handed out once."""

from __future__ import annotations

import pytest

from cellspec.backends.naming import Like, Names, Wishes, identifier


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h", "h"),
        ("h[t]", "h"),
        ("h[t-1]", "h_prev"),
        ("h[t-12]", "h_lag12"),
        ("d:h[t-2]<-3", "d_h_lag2_next3"),
        ("d:i.pre", "d_i_pre"),
        ("c*", "c_factor"),
        ("c*2", "c_factor2"),
        ("a*b", "a_b"),
        ("x2", "x2"),
        ("W.T@h", "WT_h"),
        ("U/2", "U_half"),
        ("d:W total", "d_W_total"),
        ("h ~raw", "h_allraw"),
        ("(a + b)", "a_base_b"),
        ("%17", "tmp"),
        ("2h", "v_2h"),
        ("for", "v_for"),
        ("σ", "σ"),
        ("a[t-b]", "a_t_b"),
    ],
)
def test_identifiers(name: str, expected: str) -> None:
    assert identifier(name) == expected
    assert identifier(name).isidentifier()


def test_each_name_is_handed_out_once() -> None:
    names = Names(["x"])
    assert [names.get(key, "x") for key in (1, 2, 1)] == ["x_2", "x_3", "x_2"]
    assert names.get(3, "y") == "y"


def test_wishes_are_told_apart_before_they_are_granted() -> None:
    wishes = Wishes()
    assert [wishes.get(key, "y") for key in (1, 2, 1)] == ["y", "y_2", "y"]
    assert wishes.get(3, Like("y", "_T")) == "y_T"
    assert wishes.get(4, Like("other", "_T")) == "other_T"
    assert wishes.granted([]) == {"y": "y", "y_2": "y_2", "y_T": "y_T", "other_T": "other_T"}


def test_what_is_taken_is_not_granted_and_what_is_like_it_follows() -> None:
    wishes = Wishes()
    first, second = wishes.get(1, "y"), wishes.get(2, "y")
    like = wishes.get(3, Like(first, "_T"))
    assert wishes.granted(["y", "y_3"]) == {first: "y_2", second: "y_4", like: "y_2_T"}
