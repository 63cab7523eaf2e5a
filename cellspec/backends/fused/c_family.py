"""SymPy → expressions of a language of the C family, over variables of one type of numbers, and the functions that they call.

What tells one language of the family from another is a :class:`Dialect`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from string import Formatter

import sympy
from sympy.printing.str import StrPrinter

from cellspec.backends.fused.code import Code, names_in
from cellspec.backends.plain import bare
from cellspec.model.primitive import divides, divisors
from cellspec.model.primitives import PRIMITIVES

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

LIBRARY = ("exp", "log", "sqrt", "sin", "cos", "tanh", "erf", "erfc", "floor", "fabs", "expm1", "log1p", "pow", "fmod")
"""The functions of ``math.h`` that expressions call."""

_AUXILIARY = {
    "square": "square(a) = a*a",
    "logistic": "logistic(a, e) = (a > 0 ? {1} : e)*(1/(1 + e))",
    "signed_as": "signed_as(b, r) = r != 0 && (r < 0) != (b < 0) ? r + b : r",
}
"""Functions that are no primitives, spelt like these; ``e`` of the logistic function is exp(-|a|), at most 1."""

BOUNDARIES = {
    "next_state": "{0} == 0 ? {2} : {0} == 1 ? {1} : {3}",
    "state_at_end": "{1}",
    "cotangent_at": "{0} == 0 ? {1} : {0} == 2 ? {2} : 0",
}
"""The functions of :mod:`cellspec.passes.masks`: what is not chosen is not read."""


@dataclass(frozen=True)
class Function:
    """A function ``name(arguments)`` with the value ``body``, in which braces hold what it calls and numbers, ``{exp}``,
    ``{0.5}``: those are spelt as the language has them.
    """

    name: str
    arguments: tuple[str, ...]
    body: str

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The body as text and what stands in braces behind it, empty at the end."""
        return tuple((text, field or "") for text, field, _, _ in Formatter().parse(self.body))

    @property
    def calls(self) -> tuple[str, ...]:
        """The functions that it calls."""
        return tuple(field for _, field in self.parts if field.isidentifier())

    def value(self, real: str) -> str:
        """The body; ``real`` is how a number is written."""
        return "".join(
            text + (field if field.isidentifier() or not field else real.format(field)) for text, field in self.parts
        )


def function(spelling: str) -> Function | None:
    """What a spelling defines, ``relu(a) = a < 0 ? 0 : a``; None for one that is only the name of a function of the library."""
    head, _, body = spelling.partition(" = ")
    if not body:
        return None
    name, arguments = head.removesuffix(")").split("(")
    return Function(name, tuple(arguments.split(", ")), body)


def called(primitive: str) -> str:
    """The function that computes a primitive."""
    spelling = PRIMITIVES[primitive].cuda
    defined = function(spelling)
    return spelling if defined is None else defined.name


def _functions() -> dict[str, Function]:
    spellings = [*(row.cuda for row in PRIMITIVES.values() if row.cuda), *_AUXILIARY.values()]
    return {defined.name: defined for defined in map(function, spellings) if defined is not None}


FUNCTIONS: Mapping[str, Function] = _functions()
"""Every function that expressions may call and that the library does not have, by its name."""


def defined(used: Iterable[str]) -> list[Function]:
    """The functions to define for those in ``used``: each behind those that it calls."""
    found: dict[str, Function] = {}

    def add(name: str) -> None:
        if name in FUNCTIONS and name not in found:
            for other in FUNCTIONS[name].calls:
                add(other)
            found[name] = FUNCTIONS[name]

    for name in sorted(used):
        add(name)
    return list(found.values())


@dataclass(frozen=True)
class Dialect:
    """What one language of the family is like.

    ``real`` turns a number into one of the type in which expressions are computed, ``infinity`` is the largest of them.
    ``definition`` is how a function is defined: of its ``name``, ``arguments`` (each an ``argument`` of its own) and
    ``value``.
    """

    real: str
    infinity: str
    argument: str
    definition: str

    def number(self, value: sympy.Expr) -> str:
        """A number: ``2``, ``real(0.5)``."""
        if value.is_Integer and abs(int(value)) < 2**24:
            return str(int(value))
        text = self.infinity if value in (sympy.oo, -sympy.oo) else repr(abs(float(value)))
        return f"{'-' if value < 0 else ''}{self.real.format(text)}"

    def define(self, function: Function) -> str:
        """The definition of a function, on one line."""
        arguments = ", ".join(self.argument.format(name) for name in function.arguments)
        return self.definition.format(name=function.name, arguments=arguments, value=function.value(self.real))


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
        return self.call(called(function), *arguments)
