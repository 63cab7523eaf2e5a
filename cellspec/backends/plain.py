"""Plain NumPy expressions: what a person would write for an equation, without buffers. For ``step``, ``trace`` and parameters.

Batched values are ``[B, n]``, so a matrix product ``W @ v`` is written ``v @ W.T``; among parameters it is written as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sympy
from sympy.printing.str import StrPrinter

from cellspec import ir
from cellspec.ir import Op, Value
from cellspec.model.nodes import Shape
from cellspec.model.primitive import divides, divisors
from cellspec.model.primitives import COMPARISONS, PRIMITIVES


def number_text(value: sympy.Expr) -> str:
    """A number as a Python literal: ``2``, ``0.5``, ``-np.inf``."""
    if value.is_Integer:
        return str(int(value))
    return float_text(float(value))


def float_text(value: float) -> str:
    """A float as a Python literal."""
    if value in (float("inf"), float("-inf")):
        return "np.inf" if value > 0 else "-np.inf"
    return repr(value)


def dim_text(expr: sympy.Expr, dims: Mapping[str, str]) -> str:
    """A dim expression as Python: ``4*H``."""
    renamed = expr.xreplace({s: sympy.Symbol(dims.get(s.name, s.name)) for s in expr.free_symbols})
    return str(sympy.sstr(renamed, order="lex"))


def bare(text: str) -> str:
    """``text`` without a pair of parentheses around the whole of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for k, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and k < len(text) - 1:
            return text
    return text[1:-1]


class _Printer(StrPrinter):  # type: ignore[misc]
    """SymPy → NumPy; symbols through a table of texts, numbers as Python floats."""

    def __init__(self, owner: Plain) -> None:
        super().__init__({"order": "none"})
        self.owner = owner

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.owner.symbol_text(expr.name)

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return number_text(expr)

    def _print_Half(self, expr: sympy.Expr) -> str:
        return "0.5"

    def _print_Float(self, expr: sympy.Float) -> str:
        return number_text(expr)

    def _print_NumberSymbol(self, expr: sympy.Expr) -> str:
        return number_text(expr)

    _print_Pi = _print_NumberSymbol

    def _print_Infinity(self, expr: sympy.Expr) -> str:
        return "np.inf"

    def _print_NegativeInfinity(self, expr: sympy.Expr) -> str:
        return "-np.inf"

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        if expr.is_number:
            return number_text(expr)
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
    """Prints expressions over ``values``; ``texts`` gives each value's own text."""

    def __init__(
        self,
        values: Mapping[str, Value],
        texts: Mapping[str, str],
        dims: Mapping[str, str],
        batched: bool,
        constants: Iterable[str] = (),
        dtype: str = "dtype",
    ) -> None:
        self.values, self.texts, self.dims, self.batched = values, dict(texts), dims, batched
        self.constants, self.dtype = frozenset(constants), dtype
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
            return f"{self.texts[name]}[{':, ' + ', '.join(['None'] * missing)}]"
        return self.texts[name]

    def scalar(self, expr: sympy.Expr) -> str:
        """A number, or an expression over the dims, as Python."""
        return number_text(expr) if expr.is_number else self.text(expr)

    def text(self, expr: sympy.Expr) -> str:
        """An expression as NumPy."""
        return str(self.printer.doprint(expr))

    def call(self, name: str, args: Sequence[sympy.Expr]) -> str:
        """A function application; among dims alone a Python float, since a NumPy scalar would decide the dtype."""
        text = self.array_call(name, args)
        if not any(map(self.holds_values, args)):
            return f"float({bare(text)})"
        return f"{text}.astype({self.dtype})" if name in COMPARISONS.values() else text  # the sum of two truths is no 2

    def array_call(self, name: str, args: Sequence[sympy.Expr]) -> str:
        texts = [bare(self.text(a)) for a in args]
        if name not in PRIMITIVES:  # a ufunc, of which a row makes its function
            return f"np.{name}({', '.join(texts)})"
        if name == "where":
            return self.where(args, texts)
        row = PRIMITIVES[name]
        if "numpy" not in row.spellings:
            return f"({self.text(row.numpy(*args))})"
        spelling = row.spellings["numpy"]
        if spelling.function.startswith("_"):
            self.helpers.add(spelling.function.removeprefix("_"))
        return spelling(texts)

    def where(self, args: Sequence[sympy.Expr], texts: Sequence[str]) -> str:
        """A choice. A comparison is a condition as it is; two numbers to choose from need a dtype."""
        compared = type(args[0]).__name__ in COMPARISONS.values() and self.holds_values(args[0])
        condition = self.array_call(type(args[0]).__name__, args[0].args) if compared else f"np.asarray({texts[0]}) != 0"
        yes = texts[1] if any(map(self.holds_values, args[1:])) else f"{self.dtype}.type({texts[1]})"
        return f"np.where({condition}, {yes}, {texts[2]})"

    def op(self, op: Op, shape: Shape) -> str:
        """The right side of ``op``."""
        text = self.symbol_text
        match op:
            case ir.Pointwise(expr=expr):
                self.axes = len(shape)
                result, self.axes = self.text(expr), 0
                return result
            case ir.MatMul(left=left, right=right, left_t=left_t) if len(self.values[left].shape) == 3:
                return f"({text(left)}{'.transpose(0, 2, 1)' * left_t} @ {text(right)}[..., None])[..., 0]"
            case ir.Outer(left=left, right=right) if len(shape) == 3:
                return f"{text(left)}[..., None]*{text(right)}[..., None, :]"
            case ir.MatMul(left=left, right=right, left_t=left_t, right_t=right_t):
                if self.batched:
                    return f"{text(right)} @ {text(left)}{'' if left_t else '.T'}"
                return f"{text(left)}{'.T' * left_t} @ {text(right)}{'.T' * right_t}"
            case ir.Outer(left=left, right=right):
                return f"np.outer({text(left)}, {text(right)})"
            case ir.Concat(parts=parts):
                return f"np.concatenate(({', '.join(self.full(p) for p in parts)}), axis=-1)"
            case ir.Slice(operand=operand, start=start, stop=stop):
                return f"{text(operand)}[..., {dim_text(start, self.dims)}:{dim_text(stop, self.dims)}]"
            case ir.Transpose(operand=operand):
                return f"{text(operand)}.T"
            case ir.Eye():
                return f"np.eye({dim_text(shape[0], self.dims)}, dtype={self.dtype})"
            case ir.Roll(operand=operand, shift=shift):
                return f"np.roll({text(operand)}, {shift}, axis=-1)"
            case ir.Stop(operand=operand):
                return text(operand)
            case ir.Inverse(operand=operand):
                return f"np.linalg.inv({text(operand)})"
            case ir.Index(operand=operand, index=index):
                return f"{text(operand)}[{index}]"
            case ir.Stack(parts=parts):
                return f"np.stack(({', '.join(map(text, parts))},))"
            case ir.Reshape(operand=operand):
                batch = ["B"] if self.batched and operand not in self.constants else []
                return f"{text(operand)}.reshape({', '.join([*batch, *(dim_text(s, self.dims) for s in shape)])})"
            case ir.Largest(operand=operand):
                self.helpers.add("largest")
                return f"_largest({text(operand)}, axis=-1)"
            case ir.CumSum(operand=operand, reverse=reverse):
                if reverse:
                    return f"np.cumsum({text(operand)}[..., ::-1], axis=-1)[..., ::-1]"
                return f"np.cumsum({text(operand)}, axis=-1)"
            case ir.SumTo(operand=operand) if self.batched:
                return f"np.sum({bare(text(operand))}, axis=-1, keepdims=True)"
            case ir.SumTo(operand=operand):
                axes = self.summed_axes(self.values[operand].shape, shape)
                tail = f".reshape({', '.join(dim_text(s, self.dims) for s in shape)})" if shape else ""
                return f"np.sum({text(operand)}, axis={axes}){tail}"
            case _:
                raise NotImplementedError(f"the NumPy backend has no plain code for {op}")

    def whole(self, op: Op, shape: Shape, axes: str, dtype: str) -> str:
        """The right side of ``op`` as an array of its whole shape ``axes``, also where its arguments are smaller."""
        text = bare(self.op(op, shape))
        if not shape and isinstance(op, ir.Pointwise) and op.expr.has(sympy.Function):
            return text if text.startswith("float(") and bare(text[5:]) != text[5:] else f"float({text})"
        if shape and isinstance(op, ir.Pointwise) and not self.spans(op, shape):
            return f"np.full({axes}, {text}, {dtype})"
        return text

    def spans(self, op: ir.Pointwise, shape: Shape) -> bool:
        """Whether the values in ``op`` together have this shape (and not one that stretches to it)."""
        names = (s.name for s in op.expr.free_symbols if s.name in self.values)
        return ir.stretched(self.values[name].shape for name in names) == shape

    def full(self, name: str) -> str:
        """A part of a concatenation; constants are stretched over the batch."""
        if self.batched and name in self.constants:
            axes = ", ".join(dim_text(s, self.dims) for s in self.values[name].shape)
            return f"np.broadcast_to({self.texts[name]}, (B, {axes}))"
        return self.symbol_text(name)

    @staticmethod
    def summed_axes(large: Shape, small: Shape) -> tuple[int, ...]:
        """The axes of ``large`` along which ``small`` was stretched."""
        padded = (sympy.Integer(1),) * (len(large) - len(small)) + small
        return tuple(k for k, (a, b) in enumerate(zip(large, padded, strict=True)) if a != b or k < len(large) - len(small))
