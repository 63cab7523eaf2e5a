"""SymPy → expressions of a language of the C family, over variables of one type of numbers, and the functions that they call.

What tells one language of the family from another is a :class:`Dialect`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy
from sympy.printing.str import StrPrinter

from cellspec.backends.fused.code import Code, names_in
from cellspec.backends.plain import bare
from cellspec.model.primitive import divides, divisors
from cellspec.model.primitives import column
from cellspec.model.spelling import Definition, spelling

_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const consteval constexpr
constinit const_cast continue co_await co_return co_yield decltype default delete do double dynamic_cast else enum explicit
export extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or
or_eq private protected public register reinterpret_cast requires restrict return short signed sizeof static static_assert
static_cast struct switch template this thread_local throw true try typedef typeid typename union unsigned using virtual void
volatile wchar_t while xor xor_eq linux unix main NULL INFINITY NAN assert errno
"""
KEYWORDS = tuple(_KEYWORDS.split())
"""Words of C and C++, and what their headers and compilers define without being asked."""

SQUARE = "square(a) = a*a"
"""What a power of two is: a function of the module's own, spelt as the rows of primitives spell theirs."""

BOUNDARIES = {
    "next_state": "{0} == 0 ? {2} : {0} == 1 ? {1} : {3}",
    "state_at_end": "{1}",
    "cotangent_at": "{0} == 0 ? {1} : {0} == 2 ? {2} : 0",
}
"""The functions of :mod:`cellspec.passes.masks`: what is not chosen is not read."""


@dataclass(frozen=True)
class Dialect:
    """What one language of the family is like.

    ``target`` is its column in the table of primitives, ``auxiliary`` are functions that spellings there call besides, spelt
    like them. ``real`` turns a number into one of the type in which expressions are computed, ``infinity`` is the largest of
    them. ``definition`` is how a function is defined: of its ``name``, ``arguments`` (each an ``argument`` of its own) and
    ``value``.
    """

    target: str
    auxiliary: tuple[str, ...]
    real: str
    infinity: str
    argument: str
    definition: str

    @cached_property
    def functions(self) -> dict[str, str]:
        """The function that is called for each primitive."""
        return {name: spelling.function for name, spelling in column(self.target).items()}

    @cached_property
    def own(self) -> dict[str, Definition]:
        """The functions that expressions may call and that a module must define, by name."""
        spellings = [*column(self.target).values(), *map(spelling, (SQUARE, *self.auxiliary))]
        return {each.definition.name: each.definition for each in spellings if each.definition is not None}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All functions that expressions call, whoever defines them."""
        called = (name for definition in self.own.values() for name in definition.calls)
        return tuple(sorted({"sqrt", "pow", self.infinity, *self.functions.values(), *self.own, *called}))

    def number(self, value: sympy.Expr) -> str:
        """A number: ``2``, ``real(0.5)``."""
        if value.is_Integer and abs(int(value)) < 2**24:
            return str(int(value))
        text = self.infinity if value in (sympy.oo, -sympy.oo) else repr(abs(float(value)))
        return f"{'-' if value < 0 else ''}{self.real.format(text)}"

    def definitions(self, used: Iterable[str]) -> list[str]:
        """The definitions of the functions in ``used``, a line each, behind those that they call."""
        found: dict[str, str] = {}

        def add(name: str) -> None:
            if name in self.own and name not in found:
                for other in self.own[name].calls:
                    add(other)
                found[name] = self.define(self.own[name])

        for name in sorted(used):
            add(name)
        return list(found.values())

    def define(self, function: Definition) -> str:
        """The definition of one function."""
        arguments = ", ".join(self.argument.format(name) for name in function.arguments)
        return self.definition.format(name=function.name, arguments=arguments, value=function.value)


def ascii_name(name: str) -> str:
    """``name`` in letters that every compiler takes."""
    return "".join(c if c.isascii() else f"u{ord(c):04X}" for c in name)


class _SizePrinter(StrPrinter):  # type: ignore[misc]
    """Sizes, in a language that has no powers."""

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        if not (expr.exp.is_Integer and expr.exp > 1):
            return str(super()._print_Pow(expr, rational))
        return "*".join([self.parenthesize(expr.base, 60)] * int(expr.exp))


_SIZES = _SizePrinter({"order": "lex"})


def size_text(expr: sympy.Expr, dims: Mapping[str, str]) -> Code:
    """A number of units; ``dims`` are the variables of the dims."""
    names = {s: dims.get(s.name, s.name) for s in expr.free_symbols}
    text = _SIZES.doprint(expr.xreplace({s: sympy.Symbol(name) for s, name in names.items()}))
    return Code(str(text), tuple(sorted(names.values())))


class Printer(StrPrinter):  # type: ignore[misc]
    """Prints expressions; ``texts`` gives each value's variable, ``dims`` each dim's, ``order`` each value's place, and
    ``constants`` are the values that are the same at every step. ``used`` collects the functions that are called,
    and the word for infinity.
    """

    def __init__(
        self,
        dialect: Dialect,
        texts: Mapping[str, Code],
        dims: Mapping[str, str],
        order: Mapping[str, int],
        constants: Collection[str],
    ) -> None:
        super().__init__({"order": "none"})
        self.dialect, self.texts, self.dims, self.places, self.constants = dialect, texts, dims, order, constants
        self.used: set[str] = set()

    def code(self, expr: sympy.Expr) -> Code:
        """``expr`` as text, with the variables in it."""
        return Code(self.text(expr), names_in(self.variable(name) for name in sorted(s.name for s in expr.free_symbols)))

    def text(self, expr: sympy.Expr) -> str:
        return bare(str(self.doprint(expr)))

    def variable(self, name: str) -> Code:
        """A value's variable, or a dim as a number."""
        if name in self.texts:
            return self.texts[name]
        dim = self.dims[name]
        return Code(self.dialect.real.format(dim), (dim,))

    def rank(self, expr: sympy.Expr) -> tuple[int, str]:
        """Terms and factors are written in the order in which their values are defined."""
        return max((self.places.get(s.name, -1) for s in expr.free_symbols), default=-1), str(expr)

    def is_constant(self, expr: sympy.Expr) -> bool:
        """Whether ``expr`` is the same at every step: biases stand last in a sum."""
        return all(s.name in self.constants or s.name not in self.texts for s in expr.free_symbols)

    def call(self, function: str, *arguments: str) -> str:
        self.used.add(function)
        return f"{function}({', '.join(arguments)})"

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.variable(expr.name).text

    def _print_Number(self, expr: sympy.Expr) -> str:
        if expr.is_infinite:
            self.used.add(self.dialect.infinity)
        return self.dialect.number(expr)

    _print_Rational = _print_Integer = _print_Float = _print_Half = _print_Number
    _print_One = _print_Zero = _print_NegativeOne = _print_NumberSymbol = _print_Pi = _print_Exp1 = _print_Number
    _print_Infinity = _print_NegativeInfinity = _print_Number

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.as_base_exp()
        if expr.is_number:
            return self.dialect.number(expr)
        if exponent.could_extract_minus_sign():
            return "1" + "".join(f"/{self.parenthesize(b, 60)}" for b in divisors(expr))
        if exponent == 1:
            return str(self._print(base))
        if exponent == sympy.Rational(1, 2):
            return self.call("sqrt", self.text(base))
        if exponent == 2:
            return self.call("square", self.text(base))
        return self.call("pow", self.text(base), self.real(exponent))

    def real(self, expr: sympy.Expr) -> str:
        """``expr`` as a number of the type in which expressions are computed, also where it is whole."""
        return self.dialect.real.format(str(expr)) if expr.is_Integer else self.text(expr)

    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
        terms = sorted(expr.args, key=lambda t: (t.could_extract_minus_sign(), t.is_number, self.is_constant(t), self.rank(t)))
        if terms[0].could_extract_minus_sign():
            terms.sort(key=lambda t: not t.is_number)
        text = bare(self._print(terms[0]))
        for term in terms[1:]:
            if term.could_extract_minus_sign():
                rest = -term
                part = self.parenthesize(rest, 50) if isinstance(rest, sympy.Add) else bare(self._print(rest))
                text += f" - {part}"
            else:
                text += f" + {bare(self._print(term))}"
        return text

    def _print_Mul(self, expr: sympy.Mul) -> str:
        number, rest = expr.as_coeff_Mul()
        factors = sorted(sympy.Mul.make_args(rest), key=self.rank)
        over = [f for f in factors if divides(f)]
        parts = [self.parenthesize(f, 50) for f in factors if f not in over]
        below = [self.parenthesize(b, 60) for f in over for b in divisors(f)]
        if number.is_Rational and not number.is_Integer and abs(number.p) == 1 and number.q < 2**24 and parts:
            below.append(str(number.q))
        elif number not in (1, -1) or not parts:
            parts.insert(0, self.dialect.number(abs(number)))
        text = "*".join(parts) + "".join(f"/{b}" for b in below)
        return f"-{text}" if number < 0 else text

    def _print_Function(self, expr: sympy.Function) -> str:
        function, arguments = type(expr).__name__, [self.text(a) for a in expr.args]
        if function in BOUNDARIES:
            return f"({BOUNDARIES[function].format(*arguments)})"
        return self.call(self.dialect.functions[function], *arguments)
