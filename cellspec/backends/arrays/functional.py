"""Functional array code: what a person would write for an equation, without buffers, in the words of a library.

Batched values are ``[B, n]``, or ``[T, B, n]`` for all steps, so a matrix product ``W @ v`` is written ``v @ W.T``; among
parameters it is written as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sympy
from sympy.printing.str import StrPrinter

from cellspec import ir
from cellspec.backends.arrays.spelling import NUMPY, Spelling, own_functions
from cellspec.backends.plain import Noted, bare, dim_text, number_text
from cellspec.ir import Op, Value
from cellspec.model.nodes import Shape
from cellspec.model.primitive import divides, divisors
from cellspec.model.primitives import COMPARISONS, PRIMITIVES


class _Printer(StrPrinter):  # type: ignore[misc]
    """SymPy → array code; symbols through a table of texts, numbers as Python floats."""

    def __init__(self, owner: Plain) -> None:
        super().__init__({"order": "none"})
        self.owner = owner

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.owner.symbol_text(expr.name)

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return number_text(expr, self.owner.infinity)

    def _print_Half(self, expr: sympy.Expr) -> str:
        return "0.5"

    def _print_Float(self, expr: sympy.Float) -> str:
        return number_text(expr, self.owner.infinity)

    def _print_NumberSymbol(self, expr: sympy.Expr) -> str:
        return number_text(expr, self.owner.infinity)

    _print_Pi = _print_NumberSymbol

    def _print_Infinity(self, expr: sympy.Expr) -> str:
        return self.owner.infinity

    def _print_NegativeInfinity(self, expr: sympy.Expr) -> str:
        return f"-{self.owner.infinity}"

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        if expr.is_number:
            return number_text(expr, self.owner.infinity)
        if not self.owner.holds_values(expr):
            return f"float({self._print(expr.base)})**{number_text(expr.exp)}"
        if divides(expr):
            return "1" + "".join(f"/{self.parenthesize(b, 60)}" for b in divisors(expr))
        return str(super()._print_Pow(expr, rational=True))

    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
        terms = sorted(
            expr.args, key=lambda t: (t.could_extract_minus_sign(), t.is_number, self.owner.is_constant(t), self.owner.rank(t))
        )
        if terms[0].could_extract_minus_sign():
            terms.sort(key=lambda t: not t.is_number)
        text = bare(self._print(terms[0]))
        for term in terms[1:]:
            minus = term.could_extract_minus_sign()
            part = self._print(-term if minus else term)
            text += (
                f" - {self.parenthesize(-term, 50) if isinstance(-term, sympy.Add) else bare(part)}"
                if minus
                else f" + {bare(part)}"
            )
        return text

    def _print_Mul(self, expr: sympy.Mul) -> str:
        number, rest = expr.as_coeff_Mul()
        factors = sorted(sympy.Mul.make_args(rest), key=self.owner.rank)
        over = [f for f in factors if divides(f)]
        parts = [self.parenthesize(f, 50) for f in factors if f not in over]
        if number not in (1, -1) or not parts:
            parts.insert(0, number_text(abs(number)))
        text = "*".join(parts) + "".join(f"/{self.parenthesize(b, 60)}" for f in over for b in divisors(f))
        return f"-{text}" if number < 0 else text

    def _print_Function(self, expr: sympy.Function) -> str:
        return self.owner.call(type(expr).__name__, expr.args)


class Plain:
    """Prints expressions over ``values``; ``texts`` gives each value's own text, ``spelling`` the library's words.

    ``lead`` are the axes in front of each value's own; none if not ``batched``. ``constants`` are without them.
    """

    def __init__(
        self,
        values: Mapping[str, Value],
        texts: Mapping[str, str],
        dims: Mapping[str, str],
        batched: bool,
        constants: Iterable[str] = (),
        dtype: str | Noted = "dtype",
        spelling: Spelling = NUMPY,
        lead: str = "B",
    ) -> None:
        self.values, self.texts, self.dims, self.batched = values, dict(texts), dims, batched
        self.constants, self.dtype, self.spelling, self.lead = frozenset(constants), dtype, spelling, lead
        self.infinity = spelling.operations["infinity"]
        self.order = {name: k for k, name in enumerate(values)}
        self.helpers: set[str] = set()
        self.printer = _Printer(self)
        self.axes = 0  # of the expression that is being printed

    def rank(self, expr: sympy.Expr) -> tuple[int, str]:
        """Terms and factors are written in the order in which their values are defined."""
        return max((self.order.get(s.name, -1) for s in expr.free_symbols), default=-1), str(expr)

    def is_constant(self, expr: sympy.Expr) -> bool:
        return all(s.name in self.constants or s.name not in self.values for s in expr.free_symbols)

    def holds_values(self, expr: sympy.Expr) -> bool:
        return any(s.name in self.values for s in expr.free_symbols)

    def symbol_text(self, name: str) -> str:
        if name not in self.values:
            return self.dims.get(name, name)
        missing = self.axes - len(self.values[name].shape)  # axes of size 1 that come behind the batch
        if self.batched and missing > 0 and name not in self.constants and self.values[name].shape:
            before = ":, " * len(self.lead.split(", "))
            return f"{self.texts[name]}[{before}{', '.join(['None'] * missing)}]"
        return self.texts[name]

    def scalar(self, expr: sympy.Expr) -> str:
        """A number, or an expression over the dims, as Python."""
        return number_text(expr, self.infinity) if expr.is_number else self.text(expr)

    def text(self, expr: sympy.Expr) -> str:
        """An expression as array code."""
        return str(self.printer.doprint(expr))

    def call(self, name: str, args: Sequence[sympy.Expr]) -> str:
        """A function application; among dims alone a Python float, since an array would decide the dtype."""
        if not any(map(self.holds_values, args)):
            return self.number_call(name, args)
        text = self.array_call(name, args)
        return self.word("cast", value=text, dtype=self.dtype) if name in COMPARISONS.values() else text

    def number_call(self, name: str, args: Sequence[sympy.Expr]) -> str:
        """A function application to numbers."""
        if not self.spelling.numbers:
            return f"float({bare(self.array_call(name, args))})"
        if name in self.spelling.numbers:
            texts = [bare(self.text(a)) for a in args]
            return self.spelling.numbers[name].format(*texts, all=", ".join(texts))
        return f"({self.text(PRIMITIVES[name].numpy(*args))})"

    def array_call(self, name: str, args: Sequence[sympy.Expr]) -> str:
        texts = [bare(self.text(a)) for a in args]
        if name not in PRIMITIVES:  # a ufunc, of which a row makes its function
            return self.spelling.operation("ufunc", function=name, args=", ".join(texts))
        if name == "where":
            return self.where(args, texts)
        if name not in self.spelling.functions:
            return f"({self.text(PRIMITIVES[name].numpy(*args))})"
        spelled = self.spelling.functions[name]
        self.helpers |= own_functions(spelled.text)
        return spelled(texts)

    def is_closed(self, expr: sympy.Expr) -> bool:
        """Whether the text of ``expr`` can stand inside any other: a name, a number, or a call, be it of a row's ufuncs."""
        if not isinstance(expr, sympy.Function):
            return bool(expr.is_Atom)
        name = type(expr).__name__
        if name not in PRIMITIVES or not any(map(self.holds_values, expr.args)):
            return True
        if name in self.spelling.functions:
            return not self.spelling.functions[name].is_negation
        return name == "where" or self.is_closed(PRIMITIVES[name].numpy(*expr.args))

    def where(self, args: Sequence[sympy.Expr], texts: Sequence[str]) -> str:
        """A choice. A comparison is a condition as it is; two numbers to choose from need a dtype."""
        compared = type(args[0]).__name__ in COMPARISONS.values() and self.holds_values(args[0])
        condition = self.array_call(type(args[0]).__name__, args[0].args) if compared else self.word("truth", value=texts[0])
        yes = texts[1] if any(map(self.holds_values, args[1:])) else self.word("number", value=texts[1], dtype=self.dtype)
        return self.word("where", condition=condition, yes=yes, no=texts[2])

    def word(self, name: str, **parts: object) -> str:
        """An operation in the library's words."""
        self.helpers |= own_functions(self.spelling.operations[name])
        return self.spelling.operation(name, **parts)

    def op(self, op: Op, shape: Shape) -> str:
        """The right side of ``op``."""
        text, word = self.symbol_text, self.word
        match op:
            case ir.Pointwise(expr=expr):
                self.axes = len(shape)
                result, self.axes = self.text(expr), 0
                return result
            case ir.MatMul(left=left, right=right, left_t=left_t) if len(self.values[left].shape) == 3:
                return word("heads transposed" if left_t else "heads", left=text(left), right=text(right))
            case ir.Outer(left=left, right=right) if len(shape) == 3:
                return f"{text(left)}[..., None]*{text(right)}[..., None, :]"
            case ir.MatMul(left=left, right=right, left_t=left_t, right_t=right_t):
                if self.batched:
                    return f"{text(right)} @ {text(left)}{'' if left_t else '.T'}"
                return f"{text(left)}{'.T' * left_t} @ {text(right)}{'.T' * right_t}"
            case ir.Outer(left=left, right=right):
                return word("outer", left=text(left), right=text(right))
            case ir.Concat(parts=parts):
                return word("concat", parts=", ".join(self.full(p) for p in parts), axis=-1)
            case ir.Slice(operand=operand, start=start, stop=stop):
                return f"{text(operand)}[..., {dim_text(start, self.dims)}:{dim_text(stop, self.dims)}]"
            case ir.Transpose(operand=operand):
                return f"{text(operand)}.T"
            case ir.Eye():
                return word("eye", size=dim_text(shape[0], self.dims), dtype=self.dtype)
            case ir.Roll(operand=operand, shift=shift):
                return word("roll", value=text(operand), shift=shift)
            case ir.Stop(operand=operand):
                return word("stop", value=text(operand))
            case ir.Inverse(operand=operand):
                return word("inverse", value=text(operand))
            case ir.Index(operand=operand, index=index):
                return f"{text(operand)}[{index}]"
            case ir.Stack(parts=parts):
                return word("stack", parts=", ".join(map(text, parts)))
            case ir.Reshape(operand=operand):
                batch = [self.lead] if self.batched and operand not in self.constants else []
                return f"{text(operand)}.reshape({', '.join([*batch, *(dim_text(s, self.dims) for s in shape)])})"
            case ir.Largest(operand=operand):
                return word("largest", value=text(operand))
            case ir.CumSum(operand=operand, reverse=reverse):
                return word("cumsum reversed" if reverse else "cumsum", value=text(operand))
            case ir.SumTo(operand=operand):
                return self.sum_to(operand, shape)
            case _:
                raise NotImplementedError(f"there is no functional code for {op}")

    def sum_to(self, operand: str, shape: Shape) -> str:
        """``operand`` summed to ``shape``; each of a batch for itself."""
        text, large = self.symbol_text(operand), self.values[operand].shape
        axes = self.summed_axes(large, shape)
        if not self.batched:
            tail = f".reshape({', '.join(dim_text(s, self.dims) for s in shape)})" if shape else ""
            return f"{self.word('sum', value=text, axes=axes)}{tail}"
        behind = tuple(axis - len(large) for axis in axes)
        summed = self.word("sum kept", value=bare(text), axes=behind[0] if len(behind) == 1 else behind)
        return f"{summed}[..., {', '.join(['0'] * dropped)}]" if (dropped := len(large) - max(1, len(shape))) else summed

    def whole(self, op: Op, shape: Shape, axes: str | Noted, dtype: str | Noted) -> str:
        """The right side of ``op`` as an array of its whole shape ``axes``, also where its arguments are smaller."""
        text = bare(self.op(op, shape))
        if not shape and isinstance(op, ir.Pointwise) and op.expr.has(sympy.Function) and not self.spelling.numbers:
            is_number = isinstance(op.expr, sympy.Function) and not any(map(self.holds_values, op.expr.args))
            return text if is_number else f"float({text})"  # a function of numbers is one
        if shape and isinstance(op, ir.Pointwise) and not self.spans(op, shape):
            return self.word("full", shape=axes, value=text, dtype=dtype)
        return text

    def spans(self, op: ir.Pointwise, shape: Shape) -> bool:
        """Whether the values in ``op`` together have this shape (and not one that stretches to it)."""
        names = (s.name for s in op.expr.free_symbols if s.name in self.values)
        return ir.stretched(self.values[name].shape for name in names) == shape

    def full(self, name: str) -> str:
        """A part of a concatenation; constants are stretched over the batch."""
        if self.batched and name in self.constants:
            axes = ", ".join(dim_text(s, self.dims) for s in self.values[name].shape)
            return self.word("stretch", value=self.texts[name], shape=f"({self.lead}, {axes})")
        return self.symbol_text(name)

    @staticmethod
    def summed_axes(large: Shape, small: Shape) -> tuple[int, ...]:
        """The axes of ``large`` along which ``small`` was stretched."""
        padded = (sympy.Integer(1),) * (len(large) - len(small)) + small
        return tuple(k for k, (a, b) in enumerate(zip(large, padded, strict=True)) if a != b or k < len(large) - len(small))
