"""Exchanges: what the parts of a machine that share a step tell one another, told from its schedule."""

from __future__ import annotations

import pytest
from program_support import scheduled

from cellspec.ir import outs
from cellspec.passes.exchanges import exchanges

HEAD = """
    constant  W: [H, H], U: [H, H], V: [H, H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
"""


def told(*lines: str) -> list[tuple[list[str], list[str]]]:
    """What each exchange of a step carries, and for what."""
    text = "\n".join((HEAD, *lines, "carry h[t-1] <- h[t]", "give out h[t]"))
    found = exchanges(scheduled(text))
    return [([name for name, _ in e.carries], [out for op in e.readers for out in outs(op)]) for e in found]


def test_products_of_one_state_are_one_exchange() -> None:
    found = told("a: [H] = W @ h[t-1]", "b: [H] = U @ h[t-1]", "h[t]: [H] = a*b + x[t]")
    assert found == [(["h[t-1]"], ["a", "b"])]


def test_a_product_of_a_product_waits_for_it() -> None:
    found = told("a: [H] = W @ h[t-1]", "r: [H] = tanh(a)", "b: [H] = U @ r", "h[t]: [H] = b*a")
    assert found == [(["h[t-1]"], ["a"]), (["r"], ["b"])]


def test_what_can_be_told_at_once_is_told_at_once() -> None:
    """``b`` needs nothing that ``a`` makes, though ``c`` comes after both."""
    found = told(
        "a: [H] = W @ h[t-1]",
        "s: [H] = h[t-1]**2",
        "b: [H] = U @ s",
        "r: [H] = a*b",
        "c: [H] = V @ r",
        "h[t]: [H] = c + h[t-1]",
    )
    assert found == [(["h[t-1]", "s"], ["a", "b"]), (["r"], ["c"])]


@pytest.mark.parametrize(
    "line", ["a: [1] = sum_to(h[t-1])", "a: [H] = roll(h[t-1], 1)"], ids=["a sum over units", "a roll of units"]
)
def test_other_units_values(line: str) -> None:
    assert told(line, "h[t]: [H] = a*h[t-1] + x[t]") == [(["h[t-1]"], ["a"])]


def test_none_for_what_a_unit_knows_itself() -> None:
    """Nor for products of inputs, which are computed for all steps together."""
    assert told("a: [H] = W @ x[t]", "b: [H] = tanh(h[t-1])", "h[t]: [H] = a*b") == []
