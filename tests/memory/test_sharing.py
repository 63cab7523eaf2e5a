"""Classes of values: what has been joined has one root, and keeps its members."""

from __future__ import annotations

from cellspec.backends.memory.sharing import Classes


def test_each_value_is_alone_at_first() -> None:
    classes = Classes.of("ab")
    assert (classes.root("a"), classes.together("b")) == ("a", ["b"])


def test_joined_classes_have_the_root_of_the_second() -> None:
    classes = Classes.of("abcd")
    assert classes.join("a", "b") == ("a", "b")
    assert classes.join("b", "c") == ("b", "c")
    assert {classes.root(name) for name in "abc"} == {"c"}
    assert classes.together("a") == ["c", "b", "a"]
    assert classes.together("d") == ["d"]


def test_what_is_joined_is_not_joined_again() -> None:
    classes = Classes.of("ab")
    classes.join("a", "b")
    assert classes.join("b", "a") is None
    assert classes.members == {"b": ["b", "a"]}


def test_a_value_may_come_later() -> None:
    classes = Classes.of("a")
    classes.add("b")
    classes.join("b", "a")
    assert classes.together("b") == ["a", "b"]
