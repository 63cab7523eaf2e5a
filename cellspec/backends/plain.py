"""Numbers and dims as Python text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sympy


def number_text(value: sympy.Expr, infinity: str = "np.inf") -> str:
    """A number as a Python literal: ``2``, ``0.5``, ``-np.inf``."""
    if value.is_Integer:
        return str(int(value))
    return float_text(float(value), infinity)


def float_text(value: float, infinity: str = "np.inf") -> str:
    """A float as a Python literal."""
    if value in (float("inf"), float("-inf")):
        return infinity if value > 0 else f"-{infinity}"
    return repr(value)


def dim_text(expr: sympy.Expr, dims: Mapping[str, str]) -> str:
    """A dim expression as Python: ``4*H``."""
    renamed = expr.xreplace({s: sympy.Symbol(dims.get(s.name, s.name)) for s in expr.free_symbols})
    return str(sympy.sstr(renamed, order="lex"))


@dataclass
class Noted:
    """A text that may or may not be written into others; ``written`` says whether it has been."""

    text: str
    written: bool = False

    def __str__(self) -> str:
        self.written = True
        return self.text


class Mentioned(Mapping[str, str]):
    """What the module calls the dims; ``mentioned`` are those that somebody has asked for."""

    def __init__(self, dims: Mapping[str, str]) -> None:
        self.dims = dims
        self.mentioned: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.mentioned.add(name)
        return self.dims[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.dims)

    def __len__(self) -> int:
        return len(self.dims)


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
