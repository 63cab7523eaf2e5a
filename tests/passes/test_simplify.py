"""Simplification: fewer operations that compute the same, program text in, program text out."""

from __future__ import annotations

import pytest
from program_support import assert_same_numbers, program, told

from cellspec.ir import Pointwise, symbol
from cellspec.passes.simplify import fuse, live, merge, simplify

CHAIN = """
    sequence  x[t]: [H], g[t]: [H]
      a: [H]    = x[t]*g[t]
      b: [H]    = a*(1 - a)
      c: [H]    = b + 1
      y: [H]    = c*x[t]
    give out  y
"""


def test_what_is_read_once_is_fused_into_what_reads_it() -> None:
    """``b`` and ``c`` are; ``a``, which b reads twice, would be computed twice, so it stays."""
    found = fuse(program(CHAIN))
    assert told(found) == told(
        """
        sequence  x[t]: [H], g[t]: [H]
          a: [H]    = g[t]*x[t]
          y: [H]    = x[t]*(a*(1 - a) + 1)
        give out  y
        """
    )
    assert_same_numbers(program(CHAIN), found)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        (
            "an output is a value, though one operation alone reads it",
            """
            sequence x[t]: [H]
              a: [H] = x[t] + 1
              y: [H] = 2*a
            give out a, y
            """,
        ),
        (
            "what stretches is computed once, and not for each element of the result",
            """
            sequence x[t]: [H], s[t]: [1]
              a: [1] = s[t] + 1
              y: [H] = a*x[t]
            give out y
            """,
        ),
        (
            "an operation that is not pointwise reads values",
            """
            constant W: [I, H]
            sequence x[t]: [H]
              a: [H] = x[t] + 1
              y: [I] = W @ a
            give out y
            """,
        ),
        (
            "what is handed to the next step is a value",
            """
            sequence x[t]: [H]
            carried h[t-1]: [H]
              h[t]: [H] = h[t-1] + x[t]
              y: [H] = 2*h[t]
            carry h[t-1] <- h[t]
            give out y
            """,
        ),
        (
            "what is summed over the steps is a value",
            """
            sequence x[t]: [H]
              a: [H] = x[t]**2
              y: [H] = 2*a
            total d:b = sum of a
            give out y
            """,
        ),
    ],
)
def test_what_is_not_fused(why: str, text: str) -> None:
    assert told(fuse(program(text))) == told(text), why


def test_no_division_by_what_fusing_shows_to_be_0() -> None:
    """``1/(a - x)`` for an a that is x: a value is a number in another place than SymPy sees, so it is left alone."""
    text = """
        sequence x[t]: [H]
          a: [H] = x[t]
          b: [H] = a - x[t]
          y: [H] = 1/b
        give out y
    """
    assert not simplify(program(text)).ops[-1].expr.has(symbol("zoo"))
    assert told(simplify(program(text))) == told(text.replace("a - x[t]", "0").replace("a: [H] = x[t]\n          ", ""))


def test_equal_values_are_computed_once() -> None:
    text = """
        sequence x[t]: [H]
          a: [H] = tanh(x[t])
          b: [H] = tanh(x[t])
          c: [H] = a*b
          y: [H] = c + a
        give out y
    """
    found = merge(program(text))
    assert found.ops[1] == Pointwise("b", symbol("a"))
    assert told(live(found)) == told(
        """
        sequence x[t]: [H]
          a: [H] = tanh(x[t])
          c: [H] = a**2
          y: [H] = a + c
        give out y
        """
    )
    assert_same_numbers(program(text), live(found))


def test_equal_expressions_of_other_shapes_are_other_values() -> None:
    text = """
        sequence x[t]: [H]
          a: [H] = 0
          b: [2*H] = 0
          y: [3*H] = [a, b]
        give out y
    """
    assert told(merge(program(text))) == told(text)


def test_what_nothing_needs_is_dropped() -> None:
    text = """
        constant W: [H, H]
        sequence x[t]: [H]
        carried h[t-1]: [H]
          a: [H] = W @ x[t]
          b: [H] = tanh(a)
          h[t]: [H] = h[t-1] + x[t]
          d: [H] = 2*b
        carry h[t-1] <- h[t]
        total d:W = sum of h[t]
    """
    found = live(program(text))
    assert [op.out for op in found.ops] == ["h[t]"], "a carry needs it, and a total"
    assert set(found.values) == {"W", "x[t]", "h[t-1]", "h[t]"}


def test_copies_are_read_at_their_source() -> None:
    text = """
        constant W: [H, H]
        sequence x[t]: [H]
          a: [H] = x[t]
          b: [H] = a
          c: [H] = W @ b
          y: [H] = a + c
        total d:b = sum of b
        give out y
    """
    assert told(live(program(text))) == told(
        """
        constant W: [H, H]
        sequence x[t]: [H]
          c: [H] = W @ x[t]
          y: [H] = c + x[t]
        total d:b = sum of x[t]
        give out y
        """
    )


def test_a_copy_of_another_shape_is_none() -> None:
    text = """
        sequence s[t]: [1]
          a: [H] = s[t]
          b: [H] = cumsum(a)
        give out b
    """
    assert told(live(program(text))) == told(text)


def test_a_result_that_is_a_copy_gives_its_name_to_the_operation() -> None:
    text = """
        constant W: [H, H]
        sequence x[t]: [H]
          a: [H] = W @ x[t]
          y: [H] = a
          z: [H] = 2*a
        give out y, z
    """
    assert told(live(program(text))) == told(
        """
        constant W: [H, H]
        sequence x[t]: [H]
          y: [H] = W @ x[t]
          z: [H] = 2*y
        give out y, z
        """
    )


STOPPED = """
    sequence x[t]: [H]
      a: [H] = tanh(x[t])
      b: [H] = stop_gradient(a)
      y: [H] = b*x[t]
    give out y
"""


def test_a_stopped_gradient_is_a_copy_once_a_program_is_differentiated() -> None:
    assert told(live(program(STOPPED), keep_stops=True)) == told(STOPPED)
    assert told(live(program(STOPPED))) == told(
        """
        sequence x[t]: [H]
          a: [H] = tanh(x[t])
          y: [H] = a*x[t]
        give out y
        """
    )


def test_all_together() -> None:
    """Fusing shows what is equal, and what is equal is computed once."""
    text = """
        sequence  x[t]: [H], d[t]: [H]
          p: [H] = x[t] + 1
          r: [H] = x[t] + 1
          s: [H] = d[t]
          y: [H] = p*s
          q: [H] = d[t]*r
          z: [H] = roll(q, 1)
          w: [H] = y + q
        give out  y, z, w
    """
    found = simplify(program(text))
    assert told(found) == told(
        """
        sequence  x[t]: [H], d[t]: [H]
          y: [H] = d[t]*(x[t] + 1)
          z: [H] = roll(y, 1)
          w: [H] = 2*y
        give out  y, z, w
        """
    )
    assert_same_numbers(program(text), found)
