"""Modules built in memory: their classes are found by name, as long as somebody uses them."""

from __future__ import annotations

import gc
from types import ModuleType

import pytest

from cellspec import built


def made(text: str, name: str = "made_numpy") -> ModuleType:
    """A module of this text, registered."""
    module = ModuleType(name)
    exec(text, vars(module))
    return built.register(module, text)


TEXT = "from collections import namedtuple\nclass Params: pass\nPair = namedtuple('Pair', 'a b', module=__name__)\n"


def test_a_class_is_found_by_one_name_that_tells_its_text() -> None:
    module = made(TEXT)
    kind = module.Params
    assert kind.__module__ == "cellspec.built" and ":" in kind.__qualname__ and "." not in kind.__qualname__
    assert getattr(built, kind.__qualname__) is kind and built.module_of(kind) is module
    other = made(TEXT + "# another")
    assert other.Params.__qualname__ != kind.__qualname__


def test_two_modules_of_one_text_have_numbers() -> None:
    first, second = made(TEXT), made(TEXT)
    assert first.Params.__qualname__ != second.Params.__qualname__
    assert getattr(built, first.Params.__qualname__) is first.Params
    assert getattr(built, second.Params.__qualname__) is second.Params


def test_what_is_gone_is_found_in_one_of_the_same_text() -> None:
    first = made(TEXT)
    name = first.Params.__qualname__
    second = made(TEXT)
    del first
    gc.collect()
    assert getattr(built, name) is second.Params


def test_a_class_of_a_module_that_nobody_uses_is_not_found() -> None:
    name = made(TEXT + "# gone").Params.__qualname__
    gc.collect()
    with pytest.raises(LookupError, match="build the same cell here before what it pickled is read"):
        getattr(built, name)


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Params'"):
        _ = built.Params
    assert built.module_of(ModuleType).__name__ == "builtins", "an imported class has its module"


def test_a_class_that_a_module_only_imports_stays_where_it_is() -> None:
    module = made("from fractions import Fraction\nclass Own: pass\n")
    assert module.Fraction.__module__ == "fractions" and module.Own.__module__ == "cellspec.built"
