"""Equations and shapes: what is read, where it stands, and that hostile text is refused quickly."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import clock

from cellspec.errors import Location, Reporter, SpecError
from cellspec.language.read.equation_block import parse_equations
from cellspec.language.read.expressions import parse_expression
from cellspec.language.read.loader import parse_spec
from cellspec.language.spec import (
    Assignment,
    Binary,
    Call,
    Compare,
    Expr,
    Listed,
    Name,
    Number,
    Subscript,
    Transposed,
    Unary,
    walk,
)

AT = Location("f.yaml", 3, 5)


def expression(text: str) -> Expr:
    report = Reporter()
    tree = parse_expression(text, Location("f.yaml", 3, 5, "    " + text), report)
    assert tree is not None, report.diagnostics
    assert not report.diagnostics
    return tree


def mistake(text: str) -> str:
    report = Reporter()
    assert parse_expression(text, AT, report) is None
    (diagnostic,) = report.diagnostics
    return diagnostic.message


def places(block: str, indent: int = 2) -> list[Location]:
    return [Location("f.yaml", 10 + k, indent + 1, " " * indent + line) for k, line in enumerate(block.split("\n"))]


def equations(block: str) -> tuple[tuple[Assignment, ...], list[tuple[int, int, str]]]:
    report = Reporter()
    found = parse_equations(block, places(block), report)
    return found, sorted((d.location.line, d.location.column, d.message) for d in report.diagnostics)


def sketch(expr: Expr) -> str:
    """A tree in one line, fully bracketed."""
    match expr:
        case Number(value=value):
            return str(value)
        case Name(id=name):
            return name
        case Subscript(id=name, index=index):
            return f"{name}[{sketch(index)}]"
        case Unary(op=op, operand=operand):
            return f"({op}{sketch(operand)})"
        case Binary(op=op, left=left, right=right) | Compare(op=op, left=left, right=right):
            return f"({sketch(left)} {op} {sketch(right)})"
        case Call(function=function, args=args):
            return f"{function}({', '.join(map(sketch, args))})"
        case Transposed(operand=operand):
            return f"{sketch(operand)}.T"
        case Listed(items=items):
            return f"[{', '.join(map(sketch, items))}]"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b*c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("-a**2", "(-(a ** 2))"),
        ("a**-2", "(a ** (-2))"),
        ("+a", "a"),
        ("W @ x[t] + U @ h[t-1]", "((W @ x[t]) + (U @ h[(t - 1)]))"),
        ("M - M.T - gam*eye(H)", "((M - M.T) - (gam * eye(H)))"),
        ("[h[t-1], x[t],]", "[h[(t - 1)], x[t]]"),
        ("where(a <= 0.5, a, 1e-3)", "where((a <= 0.5), a, 0.001)"),
        ("R[l+1]", "R[(l + 1)]"),
        ("h[t-1-d]", "h[((t - 1) - d)]"),
        ("2*H + 1.", "((2 * H) + 1.0)"),
        ("max(a, b) != .5", "(max(a, b) != 0.5)"),
        ("eye()", "eye()"),
        ("(a\n + b)", "(a + b)"),
        ("Ω(ﬁ)", "Ω(fi)"),
    ],
)
def test_trees(text: str, tree: str) -> None:
    assert sketch(expression(text)) == tree


def test_every_part_knows_its_column() -> None:
    tree = expression("sigma(Wi @ x[t] - β*b)")
    columns = {(type(part).__name__, getattr(part, "id", "")): part.at.column for part in walk(tree)}
    assert columns[("Call", "")] == 5
    assert columns[("Name", "Wi")] == 11
    assert columns[("Subscript", "x")] == 16
    assert columns[("Name", "β")] == 23
    assert columns[("Name", "b")] == 25  # columns count characters, not bytes
    assert {part.at.line for part in walk(tree)} == {3}


def test_a_place_that_is_not_exact_falls_back_to_the_start() -> None:
    report = Reporter()
    parse_expression("a % b", Location("f", 1, 4, "k: 'a \\x25 b'"), report)
    assert report.diagnostics[0].location.column == 4


def test_integers_stay_integers() -> None:
    assert isinstance(expression("2"), Number)
    assert repr(expression("2").value) == "2"  # type: ignore[union-attr]
    assert repr(expression("2.0").value) == "2.0"  # type: ignore[union-attr]
    assert repr(expression("9" * 30).value) == "1e+30"  # type: ignore[union-attr]


def test_equations_may_span_lines_within_brackets_and_carry_comments() -> None:
    block = "# the gates\n\ni = sigma(Wi @ x[t]  # input\n          + Ui @ h[t-1]\n  # all (\n          + bi)  # ' quote\n"
    block += "h[t] = \\\n  i\n"
    found, mistakes = equations(block)
    assert mistakes == []
    assert [(e.target, e.is_state, e.at.line, e.at.column) for e in found] == [("i", False, 12, 3), ("h", True, 16, 3)]
    assert found[0].text == "i = sigma(Wi @ x[t] + Ui @ h[t-1] + bi)"
    assert found[1].text == "h[t] = i"
    where = {part.id: (part.at.line, part.at.column) for part in walk(found[0].value) if isinstance(part, Name)}
    assert where["Ui"] == (13, 15)
    assert where["bi"] == (15, 15)


def test_one_mistake_hides_no_other() -> None:
    found, mistakes = equations("a = f(b\nc = (d\ne = g % h\ni = j\n")
    assert [e.target for e in found] == ["i"]
    assert mistakes == [
        (10, 8, "'(' is never closed"),
        (11, 7, "'(' is never closed"),
        (12, 9, "'%' is not allowed; a remainder is written mod(a, b)"),
    ]


def test_names_are_compared_as_python_normalises_them() -> None:
    found, _ = equations("ﬁ = ﬀ[t]\n")
    assert found[0].target == "fi"
    assert sketch(found[0].value) == "ff[t]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing here"),
        ("  ", "nothing here"),
        ("# comment", "nothing here"),
        ("a = b", "'=' is not allowed here"),
        ("1" * 5000, "out of range"),
        ("a**65", "beyond ±64"),
        ("a**-65", "beyond ±64"),
        ("(" * 10_000, "nested deeper than 100"),
        ("[" * 10_000 + "]" * 10_000, "nested deeper than 100"),
        ("tanh(" * 101 + "a" + ")" * 101, "nested deeper than 100"),
        ("-" * 4000 + "a", "nested deeper than 100"),
        ("-" * 1_000_000 + "a", "more than 5000"),
        ("+".join(["a"] * 1000), "nested deeper than 100"),
        ("+".join(["a"] * 500_000), "more than 5000"),
        ("a**" * 1000 + "a", "nested deeper than 100"),
        ("a" * 1_000_000, "longer than 100"),
        ("__import__('os').system('touch owned')", "text in quotes"),
        ("().__class__.__bases__[0].__subclasses__()", "is empty"),
        ("a.__class__", "the only attribute"),
        ("{{ config }}", "'{' is not allowed"),
        ("{% raw %}", "'{' is not allowed"),
        ("a\\b", "a backslash"),
        ("a\x00b", "has no meaning"),
        ("a\ud800", "has no meaning"),
        ("None", "'None' is a Python keyword"),
        ("True + 1", "'True' is not allowed"),
        ("x[t][0]", "only a name can take a subscript"),
        ("M.T[0]", "only a name can take a subscript"),
        ("a.T.x", "the only attribute"),
        ("f(a)(b)", "only a function's name"),
        ("f(**a)", "unpacking"),
        ("print(a, file=b)", "keyword argument"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_refused(text: str, message: str) -> None:
    start = clock()
    assert message in mistake(text)
    assert time.process_time() - start < 2


def test_limits_are_reached_exactly() -> None:
    assert expression("(" * 100 + "a" + ")" * 100)
    assert expression("tanh(" * 100 + "a" + ")" * 100)
    assert expression("+".join(["a"] * 101))
    assert expression("a**64 + a**-64")
    found, mistakes = equations("\n".join(f"a{k} = b" for k in range(1000)))
    assert len(found) == 1000
    assert mistakes == []


def test_long_lines_are_quick() -> None:
    start = clock()
    for line in (
        "a = " + "b" * 1_000_000,
        "a = b" + " " * 1_000_000 + "+ c",
        "a = f(" + "b, " * 330_000 + "c)",
        "= " * 500_000,
    ):
        _, mistakes = equations(line)
        assert len(mistakes) == 1
    assert time.process_time() - start < 4


WORDS = ["h[t-1]", "x[t]", "tanh(", "**", "1e9", "for ", "lambda ", " if ", "i = ", "\n"]
ALPHABET = st.sampled_from([*"abhxtWTI019.+-*/@<>=()[],# \n\\'\"{}%^&|~:;!?$_·Ωﬁ\t", *WORDS])


@given(st.one_of(st.text(), st.lists(ALPHABET, max_size=60).map("".join)))
@settings(max_examples=500, deadline=2000)
def test_no_text_escapes_as_another_exception(text: str) -> None:
    report = Reporter()
    tree = parse_expression(text, Location("f", 1, 1, text), report)
    assert (tree is None) == bool(report.diagnostics)
    report = Reporter()
    found = parse_equations(text, places(text), report)
    assert all(equation.target.isidentifier() for equation in found)
    for diagnostic in report.diagnostics:
        assert 10 <= diagnostic.location.line <= 10 + text.count("\n")
        assert 1 <= diagnostic.location.column <= len(diagnostic.location.text) + 1


def test_a_block_of_too_many_symbols_is_refused_quickly() -> None:
    """900 equations of 90 terms each: within every other limit, and too much together."""
    term = " + ".join("a*b" for _ in range(90))
    text = "".join(f"  v{k} = {term}\n" for k in range(900))
    spec = f"name: bulk\ninputs: {{x: I}}\nstates: {{h: I}}\nequations: |\n{text}  h[t] = x[t]\n"
    start = clock()
    with pytest.raises(SpecError, match="more than 60000 names, numbers and operators in all"):
        parse_spec(spec)
    assert time.process_time() - start < 2
