"""Programs as text: what is printed is read back as the program that it was, and what is no program is refused by line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import sympy
from program_support import in_order, program, scheduled
from support import COMMON, SPECS, cell_of, spec_id

from cellspec import ir
from cellspec.backends import registry
from cellspec.ir import Program, symbol
from cellspec.ir.parse import TextError, parse_program
from cellspec.ir.text import expression_text, program_text
from cellspec.model.folding import number
from cellspec.model.primitives import PRIMITIVES
from cellspec.pipeline import compile_cell

EVERYTHING = """
    constant  W: [H, I], V: [2, H, I], `W b`: [2*H, I], K: [N, H, I], one: []
    sequence  x[t]: [I], m[t]: [N, H, I]
    carried   h[t-1]: [H], h[t-3]: [H]
      `W.T`: [I, H]          = W.T
      W@x[t]: [H]            = W @ x[t]
      `W.T@d:h`: [I]         = W.T @ h[t-1]
      P: [I, I]              = W.T @ W.T
      a: [H], b: [H]         = [W, W; W, W] @ [x[t]; `W.T@d:h`]
      c: [I], d:h.pre: [I]   = [W.T; W.T] @ [a]
      d:W@x[t]⊗x[t]: [H, I]  = outer(h[t-1], x[t])
      `[h, a]`: [2*H]        = [h[t-1], a]
      whole: [H]             = [a]
      first: [H]             = `[h, a]`[..., 0 : H]
      last: [H]              = `[h, a]`[..., H : 2*H]
      `V[1]`: [H, I]         = V[1]
      E: [H, H]              = identity
      `inv(E)`: [H, H]       = inv(E)
      both: [2, H]           = stack(a, b)
      flat: [2*H]            = reshape(both)
      top: [1]               = largest(flat)
      up: [H]                = cumsum(a)
      down: [H]              = cumsum(a, reverse)
      left: [H]              = roll(a, -2)
      total: [1]             = sum_to(a)
      still: [H]             = stop_gradient(a)
      copy: [H]              = `W.T@d:h`
      tanh: [H]              = a*tanh(b) - `tanh(b)`/2
      h[t]: [H]              = (a - b)/(6*(H**2*b + a)) + 1e-12 + where(lt(a, 0.5), 1, -b)**(-2)
    carry     h[t-1] <- h[t]
    delay     h[t-3] <- h[t], 3 steps
    total     d:W = sum of d:W@x[t]⊗x[t]
    total     `d:W total` = sum of up
    give out  h[t], `[h, a]`
"""


def test_every_operation_is_read_and_printed_as_it_stands() -> None:
    words = [line.split() for line in EVERYTHING.strip().splitlines()]
    assert [line.split() for line in program_text(parse_program(EVERYTHING)).splitlines()] == words


def test_the_left_sides_stand_in_a_column() -> None:
    text = """
constant  b: [H]
  a: [H]           = b
  `tanh(a)`: [2*H] = [a, b]
give out  `tanh(a)`
"""
    assert program_text(parse_program(text)) == text.strip()
    assert parse_program(text.replace("\n", "\n\n    ")) == parse_program(text), "indented, with empty lines"


def test_the_text_of_everything_holds_every_operation() -> None:
    assert {type(op) for op in parse_program(EVERYTHING).ops} == set(get_args(ir.Op))


def test_what_a_program_consists_of() -> None:
    found = parse_program(EVERYTHING)
    assert found.constants == ("W", "V", "W b", "K", "one")
    assert found.sequences == ("x[t]", "m[t]")
    assert found.carries == (ir.Carry("h[t-1]", "h[t]"),)
    assert found.delays == (ir.Delay("h[t-3]", "h[t]", 3),)
    assert found.totals == (ir.Total("d:W", "d:W@x[t]⊗x[t]"), ir.Total("d:W total", "up"))
    assert found.outputs == ("h[t]", "[h, a]")
    assert found.shape("W b") == (2 * symbol("H"), symbol("I")) and found.shape("one") == ()
    made = {out: op for op in found.ops for out in ir.outs(op)}
    weights = (("W", "W"), ("W", "W"))
    assert made["b"] == ir.Product(("a", "b"), weights, ("x[t]", "W.T@d:h"))
    assert made["c"] == ir.Product(("c", "d:h.pre"), (("W",), ("W",)), ("a",), True)
    assert made["W.T@d:h"] == ir.MatMul("W.T@d:h", "W", "h[t-1]", True, False)
    assert made["last"] == ir.Slice("last", "[h, a]", symbol("H"), 2 * symbol("H"))
    assert made["down"] == ir.CumSum("down", "a", True) and made["up"] == ir.CumSum("up", "a", False)
    assert made["copy"] == ir.Pointwise("copy", symbol("W.T@d:h"))
    assert made["tanh"].expr == symbol("a") * PRIMITIVES["tanh"].symbol(symbol("b")) - symbol("tanh(b)") / 2


def test_a_name_that_looks_like_an_operation_is_told_from_it() -> None:
    """A product of two values, and the value that is called so, are different things."""
    text = """
        sequence  r: [H], h: [H]
          `r*h`: [H] = h*r
          y: [H]     = h*r + `r*h`
    """
    assert program(text).ops[1] == ir.Pointwise("y", symbol("r*h") + symbol("r") * symbol("h"))
    assert "= h*r + `r*h`" in program_text(program(text))


EXPRESSIONS = {
    "-x/6": -symbol("x") / 6,
    "-x*(y + z)": -symbol("x") * (symbol("y") + symbol("z")),
    "x - y*(1 - z)": symbol("x") - symbol("y") * (1 - symbol("z")),
    "(x + y)**2": (symbol("x") + symbol("y")) ** 2,
    "x**(1/2)": sympy.sqrt(symbol("x")),
    "sqrt(x)": PRIMITIVES["sqrt"].symbol(symbol("x")),
    "2*pi**(-1/2)": 2 / sympy.sqrt(sympy.pi),
    "`pi`*pi": symbol("pi") * sympy.pi,
    "x/(6*(y + z/6))": symbol("x") / (symbol("y") + symbol("z") / 6) / 6,
    "x/(y*z)**(1/2)": symbol("x") / sympy.sqrt(symbol("y") * symbol("z")),
    "x/y/z": symbol("x") / symbol("y") / symbol("z"),
    "x*y**-2": symbol("x") / symbol("y") ** 2,
    "0.1*x": number(0.1) * symbol("x"),
    "1e-12": number(1e-12),
    "2.718281828459045": number(2.718281828459045),
    "x**0.5": symbol("x") ** number(0.5),
    "-(x - y)": symbol("y") - symbol("x"),
    "max(x, -1)": PRIMITIVES["max"].symbol(symbol("x"), -1),
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text: str) -> None:
    def read(right: str) -> sympy.Expr:
        (op,) = parse_program(f"a: [H] = {right}").ops
        return op.expr

    assert read(text) == EXPRESSIONS[text]
    assert read(expression_text(EXPRESSIONS[text])) == EXPRESSIONS[text]


def test_a_number_that_no_float64_holds_is_all_there() -> None:
    between = number(0.1) * number(0.7)
    assert sympy.Float(float(between), 17) != between, "SymPy computes with a few bits more"
    (op,) = parse_program(f"a: [H] = x*{expression_text(between)}").ops
    assert op.expr == between * symbol("x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("constant W: [H]\n\n  a: [H] = W $ 2", "line 3: '$' is outside the language of programs"),
        ("a: [H] = x +", "line 1: a number, a name or '(' is expected, but there is the end of the line"),
        ("a: [H] = x y", "line 1: the end of the line is expected, but there is 'y'"),
        ("a: [H = x", "line 1: ']' is expected, but there is '='"),
        ("a: [H]\n", "line 1: '=' is expected, but there is the end of the line"),
        ("constnat W: [H]", "line 1: 'constnat' begins no line; did you mean 'constant'?"),
        ("constant W: [H], W: [H]", "line 1: 'W' has a shape already"),
        ("a: [H] = tahn(x)", "line 1: there is no function 'tahn'; did you mean 'tanh'?"),
        ("a: [H] = add(x, x)", "line 1: there is no function 'add'"),
        ("a: [H] = tanh(x, x)", "line 1: 'tanh' takes 1 arguments, not 2"),
        ("a: [H] = mixture(x, x)", "line 1: 'mixture' takes 3 arguments, not 2"),
        ("a: [H], b: [H] = tanh(x)", "line 1: 2 values are defined at once, which a product of '[' and ']' alone does"),
        ("a: [H] = [V; W]", "line 1: '@' is expected, but there is the end of the line"),
        ("a: [H] = [V, W] @ [x]", "line 1: a product that defines 1 of 1 has as many rows of as many weights"),
        ("a: [H] = [V.T, W] @ [x; y]", "line 1: either all weights of a product are transposed, or none"),
        ("a: [H] = x[0.5]", "line 1: 0.5 is no whole number"),
        ("a: [H] = roll(x)", "line 1: ',' is expected, but there is ')'"),
        ("a: [H] = cumsum(x, turned)", "line 1: 'reverse' is expected, but there is 'turned'"),
        ("carry h <- g", "line 1: 'h' is not among what is 'carried'"),
        ("total d:W = all of a", "line 1: 'sum' is expected, but there is 'all'"),
    ],
)
def test_what_is_no_program_is_refused_by_line(text: str, message: str) -> None:
    with pytest.raises(TextError) as error:
        parse_program(text)
    assert str(error.value).startswith(message)


def programs(spec: Path) -> dict[str, Program]:
    """Every program of a cell, by stage, and however it is scheduled."""
    made: dict[str, Program] = {}
    for policy in ("speed", "memory"):
        compiled = compile_cell(cell_of(spec), policy)
        made |= {f"{name}, {policy}": found for name, found in compiled.programs.items()}
        behind = compile_cell(cell_of(spec), policy, registry.backend("numpy"))
        made |= {f"{name} for NumPy, {policy}": found for name, found in behind.directions.items()}
        for direction in ("forward", "backward"):
            step = getattr(compiled, direction)
            for how in ({"blocks": True}, {"heads": True}, {"alone": True}):
                made[f"{direction} {', '.join(how)}, {policy}"] = in_order(scheduled(step, **how))
    return made


@pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, id=spec_id(spec), marks=() if spec.stem in COMMON[::3] else pytest.mark.slow) for spec in SPECS],
)
def test_every_program_of_a_cell_is_read_back(spec: Path) -> None:
    made = programs(spec)
    assert made.keys() >= {
        "equations, speed",
        "single step for NumPy, memory",
        "forward alone, speed",
        "backward blocks, memory",
    }
    for stage, found in made.items():
        silent = {name: replace(value, origin="") for name, value in found.values.items()}
        assert parse_program(program_text(found)) == replace(found, values=silent), stage
