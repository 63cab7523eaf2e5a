"""SymPy → CUDA C++: expressions over ``real`` variables, and the functions that they call."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import sympy
from sympy.printing.str import StrPrinter

from cellspec.backends.plain import bare, dim_text
from cellspec.model.primitive import divides, divisors
from cellspec.model.primitives import column
from cellspec.model.spelling import Definition

KEYWORDS = [
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "atomic",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "compl",
    "concept",
    "const",
    "consteval",
    "constexpr",
    "constinit",
    "const_cast",
    "continue",
    "co_await",
    "co_return",
    "co_yield",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "register",
    "reinterpret_cast",
    "requires",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "struct",
    "switch",
    "template",
    "this",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
    "linux",
    "unix",
    "main",
    "NULL",
    "INFINITY",
    "NAN",
    "half",
    "assert",
    "errno",
    "threadIdx",
    "blockIdx",
    "blockDim",
    "gridDim",
    "warpSize",
    "dim3",
    "real",
    "stored",
    "number",
    "keep",
    "T",
    "B",
    "cuts",
    "t",
    "k",
    "sample",
    "j",
    "row",
    "rows",
    "at",
    "sum_row",
    "sum_of_column",
    "largest_of_row",
    "running_sums",
]
"""Names that mean something in the text of a kernel."""

CHOICES = {
    "put_back": "{0} == 0 ? {2} : {0} == 1 ? {1} : {3}",
    "ended": "{1}",
    "handed_back": "{0} == 0 ? {1} : {0} == 2 ? {2} : 0",
}
"""The functions of :mod:`cellspec.backends.cupy.cuts`: what is not chosen is not read."""

_CALLS = {
    "square": "__device__ inline real square(real a) { return a*a; }",
    "logistic": "__device__ inline real logistic(real a, real e) { return (a > 0 ? real(1) : e)*(1/(1 + e)); }",
    "signed_as": "__device__ inline real signed_as(real b, real r) { return r != 0 && (r < 0) != (b < 0) ? r + b : r; }",
}
"""Functions that are no primitives: ``e`` of the logistic function is exp(-|a|), which never leaves the range."""


_SPELLINGS = column("cuda")
"""The primitives that are functions in CUDA: its own, or defined by their rows."""

_CALLED = {call for spelling in _SPELLINGS.values() if spelling.definition for call in spelling.definition.calls}
BUILT_IN = sorted({"pow"} | {spelling.function for spelling in _SPELLINGS.values()} | _CALLED)
"""The functions that kernels call: CUDA's own, and those that kernels define."""


def _defined(definition: Definition) -> str:
    """The text of a function of the kernels' own."""
    typed = ", ".join(f"real {a}" for a in definition.arguments)
    locals_ = "".join(f"const real {name} = {value}; " for name, value in definition.locals)
    return f"__device__ inline real {definition.name}({typed}) {{ {locals_}return {definition.value}; }}"


def definitions(used: set[str]) -> list[str]:
    """The definitions of the functions in ``used``, those that they call first."""
    known = {s.function: _defined(s.definition) for s in _SPELLINGS.values() if s.definition} | _CALLS
    found: dict[str, str] = {}

    def add(function: str) -> None:
        text = known.get(function, "")
        if text and function not in found:
            for other in re.findall(r"(\w+)\(", text.split("{", 1)[1]):
                if other != function:
                    add(other)
            found[function] = text

    for function in sorted(used):
        add(function)
    return list(found.values())


def reserved() -> list[str]:
    """Names that a kernel's variables cannot have."""
    return [*KEYWORDS, *BUILT_IN, *_CALLS]


def plain_name(name: str) -> str:
    """``name`` in letters that every C++ compiler takes."""
    return "".join(c if c.isascii() else f"u{ord(c):04X}" for c in name)


def number(value: sympy.Expr) -> str:
    """A number as C++: ``2``, ``real(0.5)``."""
    if value.is_Integer and abs(int(value)) < 2**24:
        return str(int(value))
    if value in (sympy.oo, -sympy.oo):
        return "real(INFINITY)" if value > 0 else "-real(INFINITY)"
    text = repr(float(value))
    return f"-real({text[1:]})" if text.startswith("-") else f"real({text})"


def length(expr: sympy.Expr, dims: Mapping[str, str]) -> str:
    """A number of units as C++, which has no powers."""
    return re.sub(r"(\w+)\*\*(\d+)", lambda power: "*".join([power[1]] * int(power[2])), dim_text(expr, dims))


class Printer(StrPrinter):  # type: ignore[misc]
    """Prints expressions; ``texts`` gives each value's variable, ``dims`` each dim's. ``used`` collects the functions."""

    def __init__(
        self, texts: Mapping[str, str], dims: Mapping[str, str], order: Mapping[str, int], constants: Collection[str]
    ) -> None:
        super().__init__({"order": "none"})
        self.texts, self.dims, self.places, self.constants = texts, dims, order, constants
        self.used: set[str] = set()

    def text(self, expr: sympy.Expr) -> str:
        """``expr`` as C++."""
        return bare(str(self.doprint(expr)))

    def rank(self, expr: sympy.Expr) -> tuple[int, str]:
        """Terms and factors are written in the order in which their values are defined."""
        return max((self.places.get(s.name, -1) for s in expr.free_symbols), default=-1), str(expr)

    def is_constant(self, expr: sympy.Expr) -> bool:
        """Whether ``expr`` is the same at every step: biases stand last in a sum."""
        return all(s.name in self.constants or s.name not in self.texts for s in expr.free_symbols)

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.texts[expr.name] if expr.name in self.texts else f"real({self.dims[expr.name]})"

    def _print_Number(self, expr: sympy.Expr) -> str:
        return number(expr)

    _print_Rational = _print_Integer = _print_Float = _print_Half = _print_Number
    _print_One = _print_Zero = _print_NegativeOne = _print_NumberSymbol = _print_Pi = _print_Exp1 = _print_Number
    _print_Infinity = _print_NegativeInfinity = _print_Number

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.as_base_exp()
        if expr.is_number:
            return number(expr)
        if exponent.could_extract_minus_sign():
            return "1" + "".join(f"/{self.parenthesize(b, 60)}" for b in divisors(expr))
        if exponent == 1:
            return str(self._print(base))
        if exponent == sympy.Rational(1, 2):
            return f"sqrt({self.text(base)})"
        if exponent == 2:
            self.used.add("square")
            return f"square({self.text(base)})"
        return f"pow({self.text(base)}, {self.text(exponent) if not exponent.is_Integer else f'real({exponent})'})"

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
        number_, rest = expr.as_coeff_Mul()
        factors = sorted(sympy.Mul.make_args(rest), key=self.rank)
        over = [f for f in factors if divides(f)]
        parts = [self.parenthesize(f, 50) for f in factors if f not in over]
        below = [self.parenthesize(b, 60) for f in over for b in divisors(f)]
        if number_.is_Rational and not number_.is_Integer and abs(number_.p) == 1 and number_.q < 2**24 and parts:
            below.append(str(number_.q))
        elif number_ not in (1, -1) or not parts:
            parts.insert(0, number(abs(number_)))
        text = "*".join(parts) + "".join(f"/{b}" for b in below)
        return f"-{text}" if number_ < 0 else text

    def _print_Function(self, expr: sympy.Function) -> str:
        if type(expr).__name__ in CHOICES:
            return "(" + CHOICES[type(expr).__name__].format(*(self.text(a) for a in expr.args)) + ")"
        spelling = _SPELLINGS[type(expr).__name__]
        self.used.add(spelling.function)
        return spelling([self.text(a) for a in expr.args])
