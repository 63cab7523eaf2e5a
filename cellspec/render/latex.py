"""A cell's equations in LaTeX, for notebooks and papers: :func:`latex`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar

import sympy

from cellspec.model.equations import Equations
from cellspec.model.nodes import Kind, Node, Ref, of_family
from cellspec.render.unicode import ATOM, FACTOR, TERM, Writer, Written, assignments, digits


def latex(cell: Equations) -> str:
    """The equations of ``cell`` as an ``aligned`` environment, to stand in a displayed formula."""
    writer = _Latex(cell)
    lines = [f"{writer.ref(equation.target)} &= {writer.text(equation.value)}" for equation in assignments(cell)]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


GREEK = frozenset(
    [
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"),
        *("pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
        *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
    ]
)


class _Latex(Writer):
    """LaTeX with amsmath."""

    times, dot = r"\odot", r"\cdot"
    comparisons: ClassVar = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
    functions = frozenset(("tanh", "exp", "log", "sin", "cos", "max", "min"))

    def __init__(self, cell: Equations) -> None:
        super().__init__(cell)
        names = (equation.target.name for equation in assignments(cell))
        values = ((of_family(name) or (name, 0))[0] for name in names)
        self.suffixes = {*values, *(stream.name for stream in cell.inputs)}

    def number(self, value: int | float) -> str:
        mantissa, _, exponent = digits(value).partition("e")
        if not exponent:
            return mantissa
        power = f"10^{{{int(exponent)}}}"
        return power if mantissa == "1" else f"{mantissa} \\cdot {power}"

    def dim(self, value: sympy.Expr) -> str:
        return str(sympy.latex(value))

    def ref(self, ref: Ref) -> str:
        name, time = ref.name, "t"
        if ref.steps:
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

    def quotient(self, a: Node, b: Node) -> Written:
        return Written(rf"\frac{{{self.text(a)}}}{{{self.text(b)}}}", TERM)

    def power(self, a: Node, b: Node) -> Written:
        base = self.text(a, ATOM)
        # What carries an index of its own, as Mᵀ does, is braced, or LaTeX refuses the second one.
        return Written(f"{{{base}}}^{{{self.text(b)}}}", FACTOR)

    def where(self, condition: str, a: str, b: str) -> Written:
        return Written(rf"\begin{{cases}} {a} & \text{{if }} {condition} \\ {b} & \text{{otherwise}} \end{{cases}}", ATOM)


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
