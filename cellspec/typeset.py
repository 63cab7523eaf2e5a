"""A cell's equations as a paper prints them: LaTeX for notebooks and papers, Unicode for terminals.

The text follows the spec term by term; nothing is rearranged. Hyperparameters stand as the numbers that they are, activations
as the functions that they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar, NamedTuple

import sympy

from cellspec.cell import (
    Along,
    Apply,
    Cell,
    Concat,
    Const,
    DimValue,
    Equation,
    Eye,
    Inverse,
    Kind,
    MatMul,
    Member,
    Node,
    OuterProduct,
    Ref,
    Roll,
    StopGradient,
    Transpose,
)
from cellspec.names import member, of_family

_NONE, _SUM, _TERM, _PRODUCT, _FACTOR, _ATOM = range(6)
"""How tightly a text binds: a sum, a term ``a ⊙ b``, a matrix product ``W x``, a power, an atom."""


def assignments(cell: Cell) -> tuple[Equation, ...]:
    """The typed equations of ``cell``, in dependency order, without those that the language adds for lags."""
    lags = {state.name for state in cell.states if state.lag_of is not None}
    return tuple(equation for equation in cell.assignments if equation.target.name not in lags)


def latex(cell: Cell) -> str:
    """The equations of ``cell`` as an ``aligned`` environment, to stand in a displayed formula."""
    writer = _Latex(cell)
    lines = [f"{writer.ref(equation.target)} &= {writer.text(equation.value)}" for equation in assignments(cell)]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def pretty(cell: Cell) -> str:
    """The equations of ``cell`` in Unicode, one a line, their equals signs in a column."""
    writer = _Plain(cell)
    pairs = [(writer.ref(equation.target), writer.text(equation.value)) for equation in assignments(cell)]
    width = max((len(left) for left, _ in pairs), default=0)
    return "\n".join(f"{left:>{width}} = {right}" for left, right in pairs)


class _Written(NamedTuple):
    text: str
    level: int


class _Writer:
    """What both notations share: where parentheses stand. A subclass spells the parts."""

    times, minus = "", "-"
    comparisons: ClassVar[dict[str, str]]

    def __init__(self, cell: Cell) -> None:
        self.lags = {state.name: state.lag_of for state in cell.states if state.lag_of is not None}

    def moment(self, ref: Ref) -> tuple[str, int]:
        """The name of a value before the step, and how many steps back it lies: ``h`` and 2 for ``h_lag2[t-1]``."""
        return self.lags.get(ref.name, (ref.name, 1))

    def text(self, node: Node, level: int = _NONE) -> str:
        """``node``, in parentheses unless it binds at least as tightly as ``level``."""
        text, own = self.write(node)
        return self.parentheses(text) if own < level else text

    def write(self, node: Node) -> _Written:
        match node:
            case Const(value=value):
                return _Written(self.number(value), _SUM if value < 0 else _ATOM)
            case DimValue(value=value):
                return _Written(self.dim(value), _ATOM if value.is_Atom else _NONE)
            case Ref():
                return _Written(self.ref(node), _ATOM)
            case MatMul(left=left, right=right):
                return _Written(f"{self.text(left, _PRODUCT)} {self.text(right, _PRODUCT)}", _PRODUCT)
            case OuterProduct(left=left, right=right):
                return _Written(f"{self.text(left, _PRODUCT)} {self.transposed(self.text(right, _ATOM))}", _PRODUCT)
            case Member(family=family, index=index):
                return _Written(self.ref(Ref(member(family.name, index), family.kind, node.shape)), _ATOM)
            case StopGradient(operand=Ref(name="t_now")):
                return _Written("t", _ATOM)
            case Inverse(operand=operand):
                return self.power(operand, Const(-1))
            case Along(function=function, args=args):
                return _Written(self.call(function, [self.text(arg) for arg in args]), _ATOM)
            case Transpose(operand=operand):
                return _Written(self.transposed(self.text(operand, _ATOM)), _ATOM)
            case Eye():
                return _Written(self.identity(), _ATOM)
            case Concat(parts=parts):
                return _Written(self.brackets("; ".join(self.text(part) for part in parts)), _ATOM)
            case Roll(operand=operand, shift=shift):
                return _Written(self.call("roll", [self.text(operand), self.number(shift)]), _ATOM)
            case StopGradient(operand=operand):
                return _Written(self.call("stop_gradient", [self.text(operand)]), _ATOM)
            case Apply():
                return self.apply(node)

    def apply(self, node: Apply) -> _Written:
        match node.function, node.args:
            case "add", (a, b):
                left, right = self.text(a, _SUM), self.text(b, _SUM)
                if right.startswith(self.minus):
                    return _Written(f"{left} {self.minus} {right.removeprefix(self.minus).lstrip()}", _SUM)
                return _Written(f"{left} + {right}", _SUM)
            case "sub", (a, b):
                return _Written(f"{self.text(a, _SUM)} {self.minus} {self.text(b, _TERM)}", _SUM)
            case "neg", (a,):
                return _Written(f"{self.minus}{self.text(a, _TERM)}", _SUM)
            case "mul", (a, b):
                return self.product(a, b)
            case "div", (a, b):
                return self.quotient(a, b)
            case "pow", (a, b):
                return self.power(a, b)
            case "identity", (a,):
                return self.write(a)
            case "where", (condition, a, b):
                return self.where(self.condition(condition), self.text(a), self.text(b))
            case name, args if name in self.comparisons:
                return _Written(self.condition(Apply(name, args, node.shape)), _NONE)
            case name, args:
                return _Written(self.call(name, [self.text(arg) for arg in args]), _ATOM)

    def product(self, a: Node, b: Node) -> _Written:
        """Elementwise; a number in front stands alone, as in ``0.5 c``."""
        if isinstance(a, Const) and not isinstance(b, Const):
            return _Written(f"{self.text(a, _TERM)} {self.text(b, _TERM)}", _TERM)
        scalar = any(all(axis == 1 for axis in part.shape) for part in (a, b))
        sign = self.dot if scalar else self.times
        # r ⊙ (U h): the parentheses tell it from (r ⊙ U) h at a glance.
        left, right = (self.text(part, _FACTOR if isinstance(part, MatMul | OuterProduct) else _TERM) for part in (a, b))
        return _Written(f"{left} {sign} {right}", _TERM)

    def condition(self, node: Node) -> str:
        if isinstance(node, Apply) and node.function in self.comparisons:
            a, b = node.args
            return f"{self.text(a, _SUM)} {self.comparisons[node.function]} {self.text(b, _SUM)}"
        return self.text(node)

    dot = ""

    def number(self, value: int | float) -> str:
        raise NotImplementedError

    def dim(self, value: sympy.Expr) -> str:
        raise NotImplementedError

    def ref(self, ref: Ref) -> str:
        raise NotImplementedError

    def parentheses(self, text: str) -> str:
        raise NotImplementedError

    def brackets(self, text: str) -> str:
        raise NotImplementedError

    def transposed(self, text: str) -> str:
        raise NotImplementedError

    def identity(self) -> str:
        raise NotImplementedError

    def call(self, name: str, args: list[str]) -> str:
        raise NotImplementedError

    def quotient(self, a: Node, b: Node) -> _Written:
        raise NotImplementedError

    def power(self, a: Node, b: Node) -> _Written:
        raise NotImplementedError

    def where(self, condition: str, a: str, b: str) -> _Written:
        raise NotImplementedError


class _Plain(_Writer):
    """Unicode on one line."""

    times, dot = "⊙", "·"
    comparisons: ClassVar = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    lowered = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

    def number(self, value: int | float) -> str:
        return _digits(value)

    def dim(self, value: sympy.Expr) -> str:
        return str(value)

    def ref(self, ref: Ref) -> str:
        match ref.kind:
            case Kind.PREVIOUS:
                name, back = self.moment(ref)
                return f"{name}ₜ₋{str(back).translate(self.lowered)}"
            case Kind.PARAM | Kind.DERIVED:
                return ref.name
            case _:
                return f"{ref.name}ₜ"

    def parentheses(self, text: str) -> str:
        return f"({text})"

    def brackets(self, text: str) -> str:
        return f"[{text}]"

    def transposed(self, text: str) -> str:
        return f"{text}ᵀ"

    def identity(self) -> str:
        return "I"

    def call(self, name: str, args: list[str]) -> str:
        spelled = {"sigmoid": "σ", "sqrt": "√"}.get(name, name)
        bars = {"abs": "|", "norm": "‖"}.get(name)
        return f"{spelled}({', '.join(args)})" if bars is None else f"{bars}{args[0]}{bars}"

    def quotient(self, a: Node, b: Node) -> _Written:
        return _Written(f"{self.text(a, _TERM)}/{self.text(b, _FACTOR)}", _TERM)

    def power(self, a: Node, b: Node) -> _Written:
        exponent = self.text(b)
        raised = exponent.translate(self.raised) if re.fullmatch(r"-?[0-9]+", exponent) else f"^{self.text(b, _ATOM)}"
        return _Written(f"{self.text(a, _ATOM)}{raised}", _FACTOR)

    def where(self, condition: str, a: str, b: str) -> _Written:
        return _Written(f"{{{a} if {condition}; else {b}}}", _ATOM)


GREEK = frozenset(
    [
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"),
        *("pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
        *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
    ]
)


class _Latex(_Writer):
    """LaTeX with amsmath."""

    times, dot = r"\odot", r"\cdot"
    comparisons: ClassVar = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
    functions = frozenset(("tanh", "exp", "log", "sin", "cos", "max", "min"))

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        names = (equation.target.name for equation in assignments(cell))
        values = ((of_family(name) or (name, 0))[0] for name in names)
        self.suffixes = {*values, *(stream.name for stream in cell.inputs)}

    def number(self, value: int | float) -> str:
        mantissa, _, exponent = _digits(value).partition("e")
        if not exponent:
            return mantissa
        power = f"10^{{{int(exponent)}}}"
        return power if mantissa == "1" else f"{mantissa} \\cdot {power}"

    def dim(self, value: sympy.Expr) -> str:
        return str(sympy.latex(value))

    def ref(self, ref: Ref) -> str:
        name, time = ref.name, "t"
        if ref.kind is Kind.PREVIOUS:
            name, back = self.moment(ref)
            time = f"t-{back}"
        fixed = ref.kind in (Kind.PARAM, Kind.DERIVED)
        family, index = of_family(name) or (name, None)
        base, below = self.split(family, parameter=fixed)
        lower = [below] if below else []
        lower += [] if index is None else [str(index)]
        lower += [] if fixed else [time]
        return f"{base}_{_group(','.join(lower))}" if lower else base

    def split(self, name: str, parameter: bool = False) -> tuple[str, str]:
        """A name as a symbol and what stands below it: ``Wi`` as ``W``, ``i``; ``s1`` as ``s``, ``1``."""
        head, _, tail = name.partition("_")
        if head and tail:
            return _symbol(head), tail.strip("_").replace("_", ",")
        rest = name[1:]
        if parameter and (rest in self.suffixes or (re.fullmatch(r"[A-Z][a-z0-9]{1,3}", name) and name not in GREEK)):
            return _symbol(name[0]), rest
        numbered = re.fullmatch(r"([^\d_]+)(\d+)", name)
        return (_symbol(numbered[1]), numbered[2]) if numbered else (_symbol(name), "")

    def parentheses(self, text: str) -> str:
        return _fenced("(", text, ")")

    def brackets(self, text: str) -> str:
        return _fenced("[", text, "]")

    def transposed(self, text: str) -> str:
        return f"{text}^{{\\top}}"

    def identity(self) -> str:
        return r"\mathrm{I}"

    def call(self, name: str, args: list[str]) -> str:
        inner = ", ".join(args)
        match name:
            case "sqrt":
                return rf"\sqrt{{{inner}}}"
            case "abs":
                return _fenced("|", inner, "|")
            case "norm":
                return _fenced(r"\lVert ", inner, r" \rVert")
            case "floor":
                return _fenced(r"\lfloor ", inner, r" \rfloor")
            case "sigmoid":
                return r"\sigma" + self.parentheses(inner)
            case _ if name in self.functions:
                return f"\\{name}" + self.parentheses(inner)
            case _:
                escaped = name.replace("_", r"\_")
                return rf"\operatorname{{{escaped}}}" + self.parentheses(inner)

    def quotient(self, a: Node, b: Node) -> _Written:
        return _Written(rf"\frac{{{self.text(a)}}}{{{self.text(b)}}}", _TERM)

    def power(self, a: Node, b: Node) -> _Written:
        base = self.text(a, _ATOM)
        # What carries an index of its own, as Mᵀ does, is braced, or LaTeX refuses the second one.
        return _Written(f"{{{base}}}^{{{self.text(b)}}}", _FACTOR)

    def where(self, condition: str, a: str, b: str) -> _Written:
        return _Written(rf"\begin{{cases}} {a} & \text{{if }} {condition} \\ {b} & \text{{otherwise}} \end{{cases}}", _ATOM)


def _digits(value: int | float) -> str:
    """``value`` in as few digits as tell it apart."""
    return f"{value:g}" if float(f"{value:g}") == value else str(value)


def _symbol(name: str) -> str:
    """A name without index: a letter, a Greek letter, a letter with an accent (``Chat``), or a word."""
    if name in GREEK:
        return f"\\{name}"
    if accented := re.fullmatch(r"([A-Za-z])(hat|bar|tilde)", name):
        return rf"\{accented[2]}{{{accented[1]}}}"
    escaped = name.replace("_", r"\_")
    return name if len(name) == 1 and name != "_" else rf"\mathit{{{escaped}}}"


def _group(text: str) -> str:
    return text if len(text) == 1 else f"{{{text}}}"


def _fenced(left: str, text: str, right: str) -> str:
    """``text`` between delimiters, which grow if it is tall."""
    tall: Collection[str] = (r"\frac", r"\begin", r"\sqrt")
    return rf"\left{left}{text}\right{right.strip()}" if any(part in text for part in tall) else f"{left}{text}{right}"
