"""Text → Program, the inverse of :func:`cellspec.ir.text.program_text`: what a pass is tested with. Nothing is evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from textwrap import dedent
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import sympy

from cellspec.errors import CellspecError, did_you_mean
from cellspec.ir.forms import FORMS
from cellspec.ir.ops import Concat, Eye, Index, MatMul, Op, Pointwise, Product, Slice, Transpose
from cellspec.ir.ops.row import symbol
from cellspec.ir.program import Carry, Delay, Program, Total, Value
from cellspec.ir.text import CALLS, PLAIN
from cellspec.model.folding import FLOAT_DIGITS
from cellspec.model.nodes import Shape
from cellspec.model.primitives import PRIMITIVES

_TOKEN = re.compile(
    rf"""\s*(?: `(?P<quoted>[^`]+)` | (?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?) | (?P<name>{PLAIN})
    | (?P<mark>[*][*]|<-|[.]{{3}}|[.]T|[-+*/()\[\],:;@=]) )""",
    re.VERBOSE,
)
_Item = TypeVar("_Item")


class TextError(CellspecError):
    """What should be the text of a program is none; the message tells the line."""


def parse_program(text: str) -> Program:
    """The program of which ``text`` is :func:`~cellspec.ir.text.program_text`, up to the origins of values, which are ``""``.

    Lines may be indented and blank. Only the form is checked: whether the program makes sense asks
    :func:`~cellspec.ir.typecheck`.
    """
    reader = _Reader()
    for number, line in enumerate(dedent(text).splitlines(), start=1):
        if line.strip():
            reader.line(_Line(line, number))
    return reader.program()


class _Reader:
    """Collects what the lines of a program state."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.constants: list[str] = []
        self.sequences: list[str] = []
        self.carried: list[str] = []
        self.ops: list[Op] = []
        self.carries: list[Carry] = []
        self.delays: list[Delay] = []
        self.totals: list[Total] = []
        self.outputs: list[str] = []

    def program(self) -> Program:
        """The program of the lines so far."""
        return Program(
            MappingProxyType(self.values),
            tuple(self.constants),
            tuple(self.sequences),
            tuple(self.carries),
            tuple(self.ops),
            tuple(self.outputs),
            tuple(self.totals),
            tuple(self.delays),
        )

    def line(self, line: _Line) -> None:
        """Read one line: a value and what it is of, or one that begins with a word."""
        if line.follows("mark", ":", after=1):
            outs = tuple(line.separated(lambda: self.declared(line)))
            line.expect("=")
            self.ops.append(line.operation(outs))
        else:
            match line.name("a value, or a word like 'constant'"):
                case "constant":
                    self.constants += line.separated(lambda: self.declared(line))
                case "sequence":
                    self.sequences += line.separated(lambda: self.declared(line))
                case "carried":
                    self.carried += line.separated(lambda: self.declared(line))
                case "carry":
                    self.carries.append(Carry(*self.link(line)))
                case "delay":
                    before, after = self.link(line)
                    line.expect(",")
                    self.delays.append(Delay(before, after, line.integer()))
                    line.expect("steps", "name")
                case "total":
                    target = line.name()
                    line.expect("=")
                    line.expect("sum", "name")
                    line.expect("of", "name")
                    self.totals.append(Total(target, line.name()))
                case "give":
                    line.expect("out", "name")
                    self.outputs += line.separated(line.name)
                case word:
                    line.fail(f"{word!r} begins no line{did_you_mean(word, _WORDS)}")
        line.end()

    def declared(self, line: _Line) -> str:
        """``name: [shape]``, the value of which is noted; its name."""
        name = line.name()
        if name in self.values:
            line.fail(f"{name!r} has a shape already")
        line.expect(":")
        self.values[name] = Value(name, line.shape(), "")
        return name

    def link(self, line: _Line) -> tuple[str, str]:
        """``before <- after``, of which the first must be declared as carried."""
        before = line.name()
        if before not in self.carried:
            line.fail(f"{before!r} is not among what is 'carried'")
        line.expect("<-")
        return before, line.name()


_WORDS = ("constant", "sequence", "carried", "carry", "delay", "total", "give out")


class _Line:
    """The tokens of a line, read from left to right by recursive descent."""

    def __init__(self, text: str, number: int) -> None:
        self.number = number
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        place = 0
        text = text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                self.fail(f"{text[place:].split()[0]!r} is outside the language of programs")
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind]))
            place = found.end()

    # --- tokens

    def fail(self, message: str) -> NoReturn:
        raise TextError(f"line {self.number}: {message}")

    def unexpected(self, wanted: str) -> NoReturn:
        here = repr(self.tokens[self.at][1]) if self.at < len(self.tokens) else "the end of the line"
        self.fail(f"{wanted} is expected, but there is {here}")

    def follows(self, kind: str, text: str | None = None, after: int = 0) -> bool:
        """Whether the next token, or the one ``after`` it, is of this kind; and is this ``text``, if there is one."""
        return any(kind == k and text in (t, None) for k, t in self.tokens[self.at + after : self.at + after + 1])

    def accept(self, text: str, kind: str = "mark") -> bool:
        """Take the next token if it is ``text``."""
        found = self.follows(kind, text)
        self.at += found
        return found

    def expect(self, text: str, kind: str = "mark") -> None:
        if not self.accept(text, kind):
            self.unexpected(repr(text))

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][1]

    def name(self, wanted: str = "a name") -> str:
        return self.next() if self.follows("name") or self.follows("quoted") else self.unexpected(wanted)

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        text = self.next() if self.follows("number") else self.unexpected("a whole number")
        return sign * int(text) if text.isdigit() else self.fail(f"{text} is no whole number")

    def separated(self, item: Callable[[], _Item], mark: str = ",") -> list[_Item]:
        """One ``item`` or more, with ``mark`` between them."""
        items = [item()]
        while self.accept(mark):
            items.append(item())
        return items

    def end(self) -> None:
        if self.at < len(self.tokens):
            self.unexpected("the end of the line")

    # --- right sides

    def operation(self, outs: tuple[str, ...]) -> Op:
        """What follows the ``=``: the operation that defines ``outs``."""
        if self.accept("["):
            return self.bracketed(outs)
        (out, *others) = outs
        if others:
            self.fail(f"{len(outs)} values are defined at once, which a product of '[' and ']' alone does")
        if self.accept("identity", "name"):
            return Eye(out)
        if self.follows("name") and self.follows("mark", "(", after=1) and self.tokens[self.at][1] in CALLS:
            return self.call(out)
        start = self.at
        if self.follows("name") or self.follows("quoted"):
            left, turned = self.turned()
            if self.accept("@"):
                right, right_turned = self.turned()
                return MatMul(out, left, right, turned, right_turned)
            if turned:
                return Transpose(out, left)
            if self.accept("["):
                return self.indexed(out, left)
        self.at = start
        return Pointwise(out, self.sum())

    def bracketed(self, outs: tuple[str, ...]) -> Op:
        """``[a, b]``, the parts of one value, or ``[V.T, W.T; ...] @ [x; y]``, rows of weights and what they multiply."""
        rows = self.separated(lambda: self.separated(self.turned), ";")
        self.expect("]")
        turned = {turned for row in rows for _, turned in row}
        names = tuple(tuple(name for name, _ in row) for row in rows)
        if not self.accept("@"):
            if (len(outs), len(rows), turned) != (1, 1, {False}):
                self.unexpected("'@'")
            return Concat(outs[0], names[0])
        self.expect("[")
        vectors = tuple(self.separated(self.name, ";"))
        self.expect("]")
        if len(turned) != 1:
            self.fail("either all weights of a product are transposed, or none")
        if len(rows) != len(outs) or any(len(row) != len(vectors) for row in rows):
            self.fail(f"a product that defines {len(outs)} of {len(vectors)} has as many rows of as many weights")
        return Product(outs, names, vectors, turned == {True})

    def turned(self) -> tuple[str, bool]:
        """A name, and whether it is transposed."""
        name = self.name()
        return name, self.accept(".T")

    def indexed(self, out: str, operand: str) -> Op:
        """``x[2]`` or ``x[..., start : stop]``, from behind the bracket."""
        if self.accept("..."):
            self.expect(",")
            start = self.sum()
            self.expect(":")
            op: Op = Slice(out, operand, start, self.sum())
        else:
            op = Index(out, operand, self.integer())
        self.expect("]")
        return op

    def call(self, out: str) -> Op:
        """An operation of :data:`~cellspec.ir.text.CALLS`, with its fields in order."""
        kind = CALLS[self.next()]
        self.expect("(")
        arguments: dict[str, Any] = {}
        for field in fields(kind):
            if field.name == "out":
                continue
            if field.type == "bool":
                arguments[field.name] = self.accept(",")
                if arguments[field.name]:
                    self.expect(field.name, "name")
                continue
            if arguments:
                self.expect(",")
            match field.type:
                case "int":
                    arguments[field.name] = self.integer()
                case "tuple[str, ...]":
                    arguments[field.name] = tuple(self.separated(self.name))
                case _:
                    arguments[field.name] = self.name()
        self.expect(")")
        made: Op = kind(out, **arguments)
        return made

    # --- expressions

    def shape(self) -> Shape:
        self.expect("[")
        axes = () if self.follows("mark", "]") else tuple(self.separated(self.sum))
        self.expect("]")
        return axes

    def sum(self) -> sympy.Expr:
        """Terms with signs between them, put together at once: as SymPy's own, whatever would become of two of them."""
        return self.rest_of_sum(self.factors())

    def rest_of_sum(self, factors: list[sympy.Expr]) -> sympy.Expr:
        """A sum whose first term has these factors."""
        terms = [sympy.Mul(*factors)]
        while self.follows("mark", "+") or self.follows("mark", "-"):
            self.accept("+")
            terms.append(sympy.Mul(*self.factors()))
        return sympy.Add(*terms)

    def factors(self) -> list[sympy.Expr]:
        """The factors of a term. Of ``a/(6*(b + c))`` they are a, 1/6 and 1/(b + c): SymPy would expand ``6*(b + c)``."""
        factors = self.signed()
        while self.follows("mark", "*") or self.follows("mark", "/"):
            divides = self.next() == "/"
            more = self.divisor() if divides else self.signed()
            factors += (1 / factor for factor in more) if divides else more
        return factors

    def divisor(self) -> list[sympy.Expr]:
        if not self.accept("("):
            return self.signed()
        factors = self.factors()
        if self.follows("mark", "+") or self.follows("mark", "-"):
            factors = [self.rest_of_sum(factors)]
        self.expect(")")
        return [self.powered(sympy.Mul(*factors))] if self.follows("mark", "**") else factors

    def signed(self) -> list[sympy.Expr]:
        """The factors of a power with a sign: -1, if there is a minus, and the power."""
        minus = self.accept("-")
        power = self.powered(self.atom())
        return [sympy.Integer(-1), power] if minus else [power]

    def powered(self, base: sympy.Expr) -> sympy.Expr:
        """``base``, raised to the exponent that follows, if one does."""
        return sympy.Pow(base, sympy.Mul(*self.signed())) if self.accept("**") else base

    def atom(self) -> sympy.Expr:
        if self.accept("("):
            inner = self.sum()
            self.expect(")")
            return inner
        if self.follows("number"):
            return _number(self.next())
        if self.accept("pi", "name"):
            return sympy.pi
        if not self.follows("name") or not self.follows("mark", "(", after=1):
            return symbol(self.name("a number, a name or '('"))
        function = self.next()
        row = PRIMITIVES.get(function)
        made, arity = FORMS.get(function, (None, 0)) if row is None or not row.derivatives else (row.symbol, row.arity)
        if made is None:
            self.fail(f"there is no function {function!r}{did_you_mean(function, (*PRIMITIVES, *CALLS))}")
        self.expect("(")
        arguments = self.separated(self.sum)
        self.expect(")")
        if len(arguments) != arity:
            self.fail(f"{function!r} takes {arity} arguments, not {len(arguments)}")
        return made(*arguments)


def _number(text: str) -> sympy.Expr:
    if text.isdigit():
        return sympy.Integer(text)
    digits = text.partition("e")[0].replace(".", "").lstrip("0")
    return sympy.Float(text if len(digits) > FLOAT_DIGITS else float(text), FLOAT_DIGITS)
