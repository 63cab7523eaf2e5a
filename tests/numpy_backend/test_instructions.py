"""Pointwise operations → ufunc calls: what is computed once, in which form, and what is read after the loop."""

from __future__ import annotations

import pytest
from numpy_support import code_of, shown
from program_support import scheduled

from cellspec.backends.numpy.instructions import HELPERS, Contraction, Elementwise, keep_carries, reads, writes
from cellspec.passes.accuracy import Fact

GIVEN = """
    constant  M: [N, H]
    sequence  x[t]: [H], y[t]: [H], z[t]: [H], m[t]: [N, H], q[t]: [1, H]
"""


def lines(*body: str, **options: object) -> list[str]:
    """The instructions of a step without a loop; what it defines, it gives out."""
    outs = ", ".join(line.partition(":")[0] for line in body)
    (found,) = shown(code_of("\n".join([GIVEN, *body, f"give out {outs}"]), **options)).values()  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2*x[t] + 1", ["%1 = multiply(x[t], 2)", "v = add(%1, 1)"]),
        ("x[t]*H", ["v = multiply(x[t], H)"]),
        ("-x[t] - y[t]", ["%1 = negative(x[t])", "v = subtract(%1, y[t])"]),
        ("1 - x[t]", ["v = subtract(1, x[t])"]),
        ("x[t] - 1", ["v = subtract(x[t], 1)"]),
        ("x[t]/y[t]/z[t]", ["%1 = divide(x[t], y[t])", "v = divide(%1, z[t])"]),
        ("3/x[t]", ["v = divide(3, x[t])"]),
        ("x[t]", ["v = copyto(x[t])"]),
        ("x[t]**2", ["v = square(x[t])"]),
        ("x[t]**5", ["%1 = square(x[t])", "%2 = square(%1)", "v = multiply(%2, x[t])"]),
        ("x[t]**8", ["%1 = square(x[t])", "%2 = square(%1)", "v = square(%2)"]),
        ("x[t]**(1/2)", ["v = sqrt(x[t])"]),
        ("x[t]**9", ["v = power(x[t], 9)"]),
    ],
)
def test_arithmetic(expression: str, expected: list[str]) -> None:
    assert lines(f"v: [H] = {expression}") == expected


def test_a_sum_of_a_value_and_a_number_has_no_call_of_its_own_for_the_sign() -> None:
    assert lines("v: [H] = -2*x[t] + y[t]") == ["%1 = multiply(x[t], 2)", "v = subtract(y[t], %1)"]


def test_what_is_there_already_is_not_computed_again() -> None:
    """Also where it has got a name of its own in the meantime."""
    assert lines("v: [H] = x[t]*y[t]", "w: [H] = x[t]*y[t] + z[t]") == ["v = multiply(x[t], y[t])", "w = add(v, z[t])"]
    assert lines("v: [H] = x[t]*y[t] + 1", "w: [H] = tanh(x[t]*y[t])") == [
        "%1 = multiply(x[t], y[t])", "v = add(%1, 1)", "w = tanh(%1)",
    ]  # fmt: skip


def test_an_equation_that_states_a_value_again_is_a_copy() -> None:
    """Each has a place of its own, as each may be given out."""
    found = lines("v: [H] = x[t]*y[t]", "w: [H] = x[t]*y[t]")
    assert found == ["v = multiply(x[t], y[t])", "w = copyto(v)"]


def test_regions_share_nothing() -> None:
    """What a step makes on the way is gone after the loop: it is made again for all steps at once."""
    found = shown(
        code_of(
            """
            sequence x[t]: [H]
            carried  h[t-1]: [H]
              h[t]: [H] = (h[t-1] + x[t])**2 + x[t]
              e: [H]    = (h[t-1] + x[t])**2 + 3
            carry    h[t-1] <- h[t]
            give out e
            """
        )
    )
    assert found == {
        "loop": ["%1 = add(x[t], h[t-1])", "%2 = square(%1)", "h[t] = add(x[t], %2)"],
        "after": ["%3 = add(x[t], h[t-1])", "%4 = square(%3)", "e = add(%4, 3)"],
    }


def test_numbers_among_constants_are_written_where_they_are_read() -> None:
    """They have no array; those of parameters have."""
    found = shown(
        code_of(
            """
            constant b: [H]
            sequence x[t]: [H]
              s: [1] = 1/2
              c: [H] = 3*b
              v: [H] = s*x[t] + c
            give out v
            """
        )
    )
    assert found in [
        {"after": [f"%1 = multiply({one})", f"v = add({both})"]}
        for one in ("1/2, x[t]", "x[t], 1/2")
        for both in ("c, %1", "%1, c")
    ]


def test_a_mixture_has_one_product_where_nothing_cancels() -> None:
    """With 1 - g of g next to 1, or where the value must be accurate beside itself, it keeps both."""
    mixed = "v: [H] = x[t]*y[t] + (1 - x[t])*z[t]"
    assert lines(mixed) == ["%1 = subtract(y[t], z[t])", "%2 = multiply(x[t], %1)", "v = add(z[t], %2)"]
    assert lines(mixed, careful=["v"]) == [
        "%1 = multiply(x[t], y[t])", "%2 = subtract(1, x[t])", "%3 = multiply(%2, z[t])", "v = add(%1, %3)",
    ]  # fmt: skip
    assert lines(mixed, known={"z[t]": Fact(huge=True)}) == lines(mixed, careful=["v"])


def test_a_function_without_a_ufunc_is_its_definition() -> None:
    (first, *_, last) = lines("v: [H] = silu(x[t])")
    assert not any("silu" in line for line in lines("v: [H] = silu(x[t])")) and last.startswith("v = ")
    assert first.endswith("(x[t])")
    assert "erf" in HELPERS and lines("v: [H] = erf(x[t])") == ["v = erf(x[t])"]


def test_a_product_that_is_only_summed_is_never_made() -> None:
    assert lines("v: [N, H] = m[t]*q[t]", "w: [N, 1] = sum_to(v)")[0].startswith("v = multiply"), "it is given out"
    step = f"{GIVEN} v: [N, H] = m[t]*q[t]\n w: [N, 1] = sum_to(v)\n give out w"
    (instruction,) = code_of(step).regions[2]
    assert isinstance(instruction, Contraction) and instruction.out == "w"
    assert {instruction.left, instruction.right} == {"m[t]", "q[t]"} == set(reads(instruction))
    assert tuple(map(str, instruction.shape)) == ("N", "H") and writes(instruction) == ("w",)


@pytest.mark.parametrize(
    "body",
    [
        "v: [N, H] = m[t]*q[t]\n w: [N, 1] = sum_to(v)\n u: [N, H] = tanh(v)\n give out w, u",  # it is read elsewhere
        "v: [H] = x[t]*y[t]\n w: [1] = sum_to(v)\n give out w",  # one axis
        "v: [N, H] = m[t]*2\n w: [N, 1] = sum_to(v)\n give out w",  # one factor
        "v: [N, H] = m[t] + q[t]\n w: [N, 1] = sum_to(v)\n give out w",  # no product
    ],
)
def test_other_sums_are_of_what_is_made(body: str) -> None:
    region = code_of(f"{GIVEN} {body}").regions[2]
    assert not any(isinstance(instruction, Contraction) for instruction in region)
    assert "v" in {name for instruction in region for name in writes(instruction)}


def test_every_value_has_a_shape() -> None:
    """Those made in between too, of what they stretch to, and they belong to the equation that they serve."""
    code = code_of(f"{GIVEN} v: [N, H] = tanh(m[t]*q[t] + 1)*2\n give out v")
    made = [i for region in code.regions for i in region if isinstance(i, Elementwise)]
    assert len(made) == 4 and made[-1].out == "v"
    for instruction in made:
        assert tuple(map(str, code.values[instruction.out].shape)) == ("N", "H")


# --- what is read after the loop --------------------------------------------------------------------------------------

CARRIED = """
    constant  U: [H, H]
    sequence  dy: [H], x[t]: [H]
    carried   p: [H], q: [H]
      d: [H]    = dy + p
      n: [H]    = U.T @ d
      m: [H]    = q + x[t]
      O: [H, H] = outer(p, x[t])
    carry     p <- n
    carry     q <- m
    total     dU = sum of O
    total     db = sum of m
    total     dc = sum of d
"""


def test_ends_of_carries_that_are_read_late_are_copied() -> None:
    """Of one before a step at its beginning, of one after it at its end; gradients read the copies."""
    schedule = keep_carries(scheduled(CARRIED, blocks=True))
    first, *_, last = schedule.levels
    assert (first[0].out, last[-1].out) == ("p kept", "m kept")  # type: ignore[union-attr]
    (gradient,) = schedule.gradients
    assert gradient.rows == (("dU", "p kept"),) and gradient.right == "x[t]"
    assert {total.target: total.value for total in schedule.sums} == {"db": "m kept", "dc": "d"}
    assert schedule.program.shape("p kept") == schedule.program.shape("p")


def test_nothing_is_copied_twice_or_for_nothing() -> None:
    once = keep_carries(scheduled(CARRIED, blocks=True))
    assert keep_carries(once) == once
    idle = scheduled(CARRIED.replace("outer(p", "outer(d").replace("sum of m", "sum of d"), blocks=True)
    assert keep_carries(idle) is idle
