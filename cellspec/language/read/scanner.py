"""Text -> tokens, cut into equations; refuses, with a sentence of its own, whatever lies outside the language.

The scanner bounds the nesting before Python's parser sees the text, and one mistake does not hide those of other equations.
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cellspec.errors import Location, Reporter, shorten
from cellspec.language.names import MAX_NAME

MAX_NESTING = 100
MAX_TOKENS = 5000
MAX_ALL_TOKENS = 60_000
MAX_TEXT = 20_000

Place = Callable[[int, int], Location]
"""(line, column), both from 0 and relative to the text -> its place in the file."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\f\r]+|\\\r?\n|\#[^\n]*)|(?P<newline>\n)
    |(?P<number>(?:[0-9][0-9_]*(?:\.(?![A-Za-z_])[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?\w*)
    |(?P<name>[^\W\d]\w*)
    |(?P<op>\*\*=|//=|<<=|>>=|\*\*|//|<<|>>|[-+*/%@&|^:<>=!]=|->|\.\.\.|[-+*/@<>=(),.\[\]])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_LITERAL = re.compile(r"(?:0+|[1-9][0-9]*|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_FRESH = re.compile(r"[ \t]*(?:for\b|[^\W\d]\w*[ \t]*(\[[^\]\n]*\][ \t]*)?=(?!=))")
_BINARY = {"+", "-", "*", "/", "@", "**", "<", "<=", ">", ">=", "==", "!="}
_OPENER = {")": "(", "]": "["}

LOOP = "for l in range(0, L):"

_HEAD = ("for", "", "in", "range", "(")

_KEYWORDS = {
    "for": f"'for' begins a loop over equations, on a line of its own: {LOOP}",
    "lambda": "'lambda' is not allowed; write the expression itself",
    "if": "'if' is not allowed; a condition is written where(condition, a, b)",
    "else": "'else' is not allowed; a condition is written where(condition, a, b)",
    "and": "'and' is not allowed; nest where(condition, a, b) instead",
    "or": "'or' is not allowed; nest where(condition, a, b) instead",
    "not": "'not' is not allowed; use the opposite comparison",
    "while": "'while' is not allowed; a spec holds equations only",
    "True": "'True' is not allowed; write 1",
    "False": "'False' is not allowed; write 0",
}
_SYMBOLS = {
    "%": "'%' is not allowed; a remainder is written mod(a, b)",
    "//": "'//' is not allowed; the floor of a quotient is written floor(a/b)",
    "^": "'^' is not allowed; a power is written 'a**b'",
    "&": "'&' is not allowed; bitwise operators do not exist here",
    "|": "'|' is not allowed; bitwise operators do not exist here",
    "~": "'~' is not allowed; bitwise operators do not exist here",
    "<<": "'<<' is not allowed; bitwise operators do not exist here",
    ">>": "'>>' is not allowed; bitwise operators do not exist here",
    ":=": "':=' (an assignment inside an expression) is not allowed; give it an equation of its own",
    ":": "':' (a slice or an annotation) is not allowed",
    ";": "';' is not allowed; put each equation on a line of its own",
    "'": "text in quotes is not allowed in an expression",
    '"': "text in quotes is not allowed in an expression",
    "{": "'{' is not allowed in an expression; braces expand names where they are declared",
    "}": "'}' is not allowed in an expression; braces expand names where they are declared",
    "...": "'...' is not allowed; write the expression out",
    "\\": "a backslash is allowed at the end of a line only",
    "\u00b7": "'\u00b7' is not allowed; a matrix product is written '@', a pointwise product '*'",
    "\u2299": "'\u2299' is not allowed; a pointwise product is written '*'",
    "\u2218": "'\u2218' is not allowed; a pointwise product is written '*'",
    "\u00d7": "'\u00d7' is not allowed; a pointwise product is written '*'",
    "\u2212": "'\u2212' is not allowed; a minus is written '-'",
}


@dataclass(frozen=True)
class Token:
    kind: str  # name, number, op; attr for the T of M.T
    text: str
    start: int
    line: int
    column: int


@dataclass
class Statement:
    """The tokens of one equation, of the head of a loop up to its ':', or of a whole expression."""

    tokens: list[Token] = field(default_factory=list)
    equals: int | None = None  # index of the token '=' at depth 0
    is_loop: bool = False
    broken: bool = False


class Scanner:
    """Cuts a text into statements and reports, once a statement, what is outside the language."""

    def __init__(self, text: str, place: Place, report: Reporter, equations: bool) -> None:
        self.text, self.place, self.report, self.equations = text, place, report, equations
        self.current = Statement()
        self.brackets: list[tuple[str, Token]] = []  # kind (call, group, subscript, list), opener
        self.cut = False  # whether some of the text was too much to look at

    def fail(self, token: Token, message: str) -> None:
        if not self.current.broken:
            self.report.error(self.place(token.line, token.column), message)
        self.current.broken = True

    def scan(self) -> Iterator[Statement]:
        line, line_start, position = 0, 0, 0
        count = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            assert match is not None  # 'other' takes any character
            kind, text = str(match.lastgroup), match.group()
            token = Token(kind, text, position, line, position - line_start)
            position = match.end()
            if kind in ("space", "newline"):
                if "\n" in text:
                    line, line_start = line + 1, position
                if kind == "newline" and self.ends(position):
                    yield self.finish()
                continue
            self.current.tokens.append(token)
            count += 1
            if count > MAX_ALL_TOKENS:
                self.fail(token, f"the equations have more than {MAX_ALL_TOKENS} names, numbers and operators in all")
                self.brackets, position, self.cut = [], len(self.text), True
                continue
            if not self.current.broken:
                self.take(token)
            else:
                self.skip(token)
            if self.current.is_loop and text == ":" and not self.current.broken:
                yield self.finish()
            if len(self.current.tokens) > MAX_TOKENS:  # told by now: on to the next line
                newline = self.text.find("\n", position)
                self.brackets, position, self.cut = [], newline if newline >= 0 else len(self.text), True
        if self.current.tokens:
            yield self.finish()

    def ends(self, position: int) -> bool:
        """Whether the line break before ``position`` ends the statement; an unclosed bracket must not swallow the block."""
        if not self.current.tokens:
            return False
        if self.brackets and self.equations:
            fresh = _FRESH.match(self.text, position)
            if fresh is None:
                return False
            margin = len(fresh.group()) - len(fresh.group().lstrip())
            return margin <= self.current.tokens[0].column
        return self.equations

    def finish(self) -> Statement:
        statement = self.current
        last = statement.tokens[-1]
        if not statement.broken:
            if self.brackets:
                opener = self.brackets[-1][1]
                self.fail(opener, f"{opener.text!r} is never closed")
            elif statement.is_loop:
                if last.text != ":":
                    self.fail(last, f"a ':' is missing: a loop is written {LOOP!r}")
            elif self.equations and statement.equals is None:
                self.fail(statement.tokens[0], "an equation is written 'name = expression', but there is no '=' here")
            elif self.equations and statement.equals == len(statement.tokens) - 1:
                self.fail(last, "the right side of this equation is missing")
            elif _wants_value(last):
                self.fail(last, f"a value is expected after {last.text!r}")
            elif last.start + len(last.text) - statement.tokens[0].start > MAX_TEXT:
                self.fail(statement.tokens[0], f"this equation is longer than {MAX_TEXT} characters")
        self.current, self.brackets = Statement(), []
        return statement

    def skip(self, token: Token) -> None:
        """Keep track of brackets in a broken statement, to find its end."""
        if token.text in ("(", "["):
            if len(self.brackets) < MAX_NESTING:
                self.brackets.append(("", token))
        elif token.text in (")", "]") and self.brackets:
            self.brackets.pop()

    def take(self, token: Token) -> None:
        """Check one token against what came before it."""
        tokens = self.current.tokens
        before = tokens[-2] if len(tokens) > 1 else None
        value_expected = before is None or _wants_value(before)
        text = token.text
        if self.equations and before is None and text == "for":
            self.current.is_loop = True
        elif self.current.is_loop and not self.brackets:
            self.take_head(token, len(tokens) - 1)
        elif len(tokens) > MAX_TOKENS:
            self.fail(tokens[0], f"this equation has more than {MAX_TOKENS} names, numbers and operators")
        elif before is not None and before.text == "." and before.kind == "op":
            if text != "T":
                self.fail(token, f"{shorten('.' + text)} is not allowed; the only attribute is '.T', the transpose")
            tokens[-1] = Token("attr", text, token.start, token.line, token.column)
        elif token.kind == "name":
            self.take_name(token, None if value_expected else before)
        elif token.kind == "number":
            self.take_number(token, None if value_expected else before)
        elif text in ("(", "["):
            self.open(token, before, value_expected)
        elif text in (")", "]"):
            self.close(token, before, value_expected)
        elif text == ",":
            self.comma(token, value_expected)
        elif text == "=":
            self.equal(token, value_expected)
        elif text in _BINARY or text == ".":
            if value_expected and text not in ("+", "-"):
                hint = "unpacking with '*' is not allowed" if text in ("*", "**") and self.brackets else "a value is expected"
                self.fail(token, f"{hint} before {text!r}" if hint.startswith("a ") else hint)
        elif len(text) > 1 and text.endswith("=") and text != ":=":
            self.fail(token, f"{text!r} (an augmented assignment) is not allowed; a name is assigned once, with '='")
        else:
            self.fail(token, _SYMBOLS.get(text, f"the character {shorten(text)} has no meaning in an expression"))

    def take_head(self, token: Token, position: int) -> None:
        """Check one token of the head of a loop, outside the brackets of its range."""
        if position == 1 and token.kind == "name":
            return  # whether it can name a variable is checked with the other names
        if position < len(_HEAD) and token.text == _HEAD[position]:
            self.brackets += [("call", token)] * (token.text == "(")
        elif position < len(_HEAD) or token.text != ":":
            self.fail(token, f"a loop is written {LOOP!r}")

    def take_name(self, token: Token, before: Token | None) -> None:
        if keyword.iskeyword(token.text):
            message = _KEYWORDS.get(token.text, f"'{token.text}' is a Python keyword and cannot be used")
            if token.text == "for" and self.brackets:
                message = "a comprehension ('for' inside brackets) is not allowed"
            self.fail(token, message)
        elif len(token.text) > MAX_NAME:
            self.fail(token, f"the name {shorten(token.text)} is longer than {MAX_NAME} characters")
        elif not unicodedata.normalize("NFKC", token.text).isidentifier():
            self.fail(token, f"{shorten(token.text)} is not an identifier")
        elif before is not None:
            self.fail(token, f"an operator is missing between {shorten(before.text)} and {shorten(token.text)}")

    def take_number(self, token: Token, before: Token | None) -> None:
        if before is not None:
            self.fail(token, f"an operator is missing between {shorten(before.text)} and {shorten(token.text)}")
        elif _LITERAL.fullmatch(token.text) is None:
            self.fail(token, f"{shorten(token.text)} is not a number; write it like 2, 0.5 or 1e-3, and a product with '*'")
        elif math.isinf(float(token.text)):
            self.fail(token, f"the number {shorten(token.text)} is out of range")

    def open(self, token: Token, before: Token | None, value_expected: bool) -> None:
        call = token.text == "("
        if len(self.brackets) >= MAX_NESTING:
            self.fail(token, f"brackets are nested deeper than {MAX_NESTING} levels; name a part in an equation of its own")
        elif not value_expected and (before is None or before.kind != "name"):
            self.fail(token, "only a function's name can be called" if call else "only a name can take a subscript '[…]'")
        if value_expected:
            self.brackets.append(("group" if call else "list", token))
        else:
            self.brackets.append(("call" if call else "subscript", token))

    def close(self, token: Token, before: Token | None, value_expected: bool) -> None:
        if not self.brackets:
            self.fail(token, f"{token.text!r} closes nothing")
            return
        kind, opener = self.brackets.pop()
        if opener.text != _OPENER[token.text]:
            self.fail(token, f"{token.text!r} does not close {opener.text!r}")
        elif before is opener:
            if kind != "call":
                self.fail(opener, f"'{opener.text}{token.text}' is empty; a value is expected inside")
        elif value_expected and before is not None and not (before.text == "," and kind in ("call", "list")):
            self.fail(token, f"a value is expected after {before.text!r}")

    def comma(self, token: Token, value_expected: bool) -> None:
        if not self.brackets or self.brackets[-1][0] in ("group", "subscript"):
            self.fail(token, "',' is allowed between the arguments of a function and inside [a, b] only")
        elif value_expected:
            self.fail(token, "a value is expected before ','")

    def equal(self, token: Token, value_expected: bool) -> None:
        if self.brackets:
            self.fail(token, "'=' inside brackets (a keyword argument) is not allowed")
        elif not self.equations:
            self.fail(token, "'=' is not allowed here; an expression is expected")
        elif self.current.equals is not None:
            self.fail(token, "a second '=' is not allowed; one equation assigns one name")
        elif value_expected:
            self.fail(token, "a name is expected before '='")
        else:
            self.current.equals = len(self.current.tokens) - 1


def _wants_value(token: Token) -> bool:
    """Whether a value must follow ``token``."""
    return token.kind == "op" and token.text not in (")", "]")
