"""The scanner: text into statements, each mistake one sentence at its place, and none hides those of other equations."""

from __future__ import annotations

import pytest
from spec_support import said

from cellspec.errors import Location, Reporter
from cellspec.language.read.scanner import MAX_NESTING, MAX_TOKENS, Scanner, Statement


def scanned(text: str, *, equations: bool = True) -> tuple[list[Statement], Reporter]:
    report = Reporter()
    lines = text.split("\n")

    def place(line: int, column: int) -> Location:
        return Location("f.yaml", line + 1, column + 1, lines[line])

    return list(Scanner(text, place, report, equations).scan()), report


def tokens(text: str) -> list[str]:
    """The tokens of each statement, with a space between them."""
    statements, report = scanned(text)
    assert not report.diagnostics
    return [" ".join(token.text for token in statement.tokens) for statement in statements]


def test_an_equation_a_line() -> None:
    assert tokens("a = b**2\n\nh[t] = a.T@x # a comment\n") == ["a = b ** 2", "h [ t ] = a . T @ x"]


def test_an_equation_goes_on_within_brackets_and_behind_a_backslash() -> None:
    assert tokens("a = (b\n    + c)\nd = e \\\n    + f") == ["a = ( b + c )", "d = e + f"]


def test_the_head_of_a_loop_is_a_statement() -> None:
    statements, report = scanned("for k in range(0, 2):\n  s[k] = k\nfor k in range(0, 2): r[k] = k")
    assert [statement.is_loop for statement in statements] == [True, False, True, False] and not report.diagnostics


def test_where_tokens_stand() -> None:
    (_, second), _ = scanned("a = b\n  cd = e")
    assert [(token.text, token.line, token.column) for token in second.tokens] == [("cd", 1, 2), ("=", 1, 5), ("e", 1, 7)]
    assert second.equals == 1


def test_an_unclosed_bracket_does_not_swallow_the_block() -> None:
    statements, report = scanned("a = (b + c\nd = e\nf = [g, h\n  + k]\n")
    assert [" ".join(token.text for token in s.tokens) for s in statements if not s.broken] == ["d = e", "f = [ g , h + k ]"]
    assert said(report) == ["'(' is never closed"]


def test_what_stands_further_in_goes_on_with_the_bracket() -> None:
    _, report = scanned("a = [b,\n  c = d]\ne = f")
    assert said(report) == ["'=' inside brackets (a keyword argument) is not allowed"]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a = b c", 7, "an operator is missing between 'b' and 'c'"),
        ("a = 2b", 5, "'2b' is not a number; write it like 2, 0.5 or 1e-3, and a product with '*'"),
        ("a = 1e999", 5, "the number '1e999' is out of range"),
        ("a = 007", 5, "'007' is not a number"),
        ("a = b +", 7, "a value is expected after '+'"),
        ("a = * b", 5, "a value is expected before '*'"),
        ("a = f(*b)", 7, "unpacking with '*' is not allowed"),
        ("a = f(b=2)", 8, "'=' inside brackets (a keyword argument) is not allowed"),
        ("a = b = c", 7, "a second '=' is not allowed; one equation assigns one name"),
        ("= b", 1, "a name is expected before '='"),
        ("a =", 3, "the right side of this equation is missing"),
        ("a + b", 1, "an equation is written 'name = expression', but there is no '=' here"),
        ("a += b", 3, "'+=' (an augmented assignment) is not allowed"),
        ("a = b if c", 7, "'if' is not allowed; a condition is written where(condition, a, b)"),
        ("a = [f for f]", 8, "a comprehension ('for' inside brackets) is not allowed"),
        ("a = class", 5, "'class' is a Python keyword and cannot be used"),
        ("a = b.real", 7, "'.real' is not allowed; the only attribute is '.T', the transpose"),
        ("a = (b]", 7, "']' does not close '('"),
        ("a = b)", 6, "')' closes nothing"),
        ("a = ()", 5, "'()' is empty; a value is expected inside"),
        ("a = b[]", 6, "'[]' is empty; a value is expected inside"),
        ("a = b, c", 6, "',' is allowed between the arguments of a function and inside [a, b] only"),
        ("a = f(,b)", 7, "a value is expected before ','"),
        ("a = (b)(c)", 8, "only a function's name can be called"),
        ("a = 2[c]", 6, "only a name can take a subscript '[…]'"),
        ("a = b % c", 7, "'%' is not allowed; a remainder is written mod(a, b)"),
        ("a = b ^ c", 7, "'^' is not allowed; a power is written 'a**b'"),
        ("a = 'b'", 5, "text in quotes is not allowed in an expression"),
        ("a = b ⊙ c", 7, "'⊙' is not allowed; a pointwise product is written '*'"),
        ("a = b € c", 7, "the character '€' has no meaning in an expression"),
        ("for k in 3: a = b", 10, "a loop is written 'for l in range(0, L):'"),
        ("for k in range(0, 2)", 20, "a ':' is missing: a loop is written 'for l in range(0, L):'"),
        ("a = " + "n" * 101, 5, "the name 'nnnnnnnn"),
    ],
)
def test_what_lies_outside_the_language(text: str, column: int, message: str) -> None:
    statements, report = scanned(text + "\nz = 1")
    (diagnostic,) = report.diagnostics
    assert diagnostic.message.startswith(message) and (diagnostic.location.line, diagnostic.location.column) == (1, column)
    assert statements[0].broken and not statements[-1].broken, "the next equation is read"


def test_an_expression_is_no_equation() -> None:
    _, report = scanned("a = b", equations=False)
    assert said(report) == ["'=' is not allowed here; an expression is expected"]
    (whole,), report = scanned("a +\nb", equations=False)
    assert len(whole.tokens) == 3 and not report.diagnostics, "lines mean nothing in one"


def test_what_is_deep_or_long_is_refused() -> None:
    _, report = scanned("a = " + "(" * (MAX_NESTING + 1) + "b" + ")" * (MAX_NESTING + 1) + "\nc = ((d))")
    assert said(report) == [f"brackets are nested deeper than {MAX_NESTING} levels; name a part in an equation of its own"]
    _, report = scanned("a = b" + " + b" * MAX_TOKENS + "\nc = d")
    assert said(report) == [f"this equation has more than {MAX_TOKENS} names, numbers and operators"]
