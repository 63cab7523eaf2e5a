"""Expressions back to source text, for messages and for the equations of loops."""

from __future__ import annotations

from cellspec.language.spec import (
    Assignment,
    Binary,
    Call,
    Compare,
    Expr,
    Inlined,
    Listed,
    Name,
    Number,
    Subscript,
    Transposed,
    Unary,
    Unread,
)

LONGEST = 60
_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "**": 4}
_UNARY, _ATOM = 3, 5


def source(expr: Expr) -> str:
    """The text of ``expr`` on one line, parentheses where they are needed; the middle of a long one is left out."""
    text = written(expr)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2].rstrip()} … {text[-LONGEST // 3 :].lstrip()}"


def label(equation: Assignment) -> str:
    """The left side as the file writes it: ``i``, ``h[t]`` or ``s[l+1]``."""
    if equation.index is not None:
        return f"{equation.target}[{_compact(equation.index)}]"
    return f"{equation.target}[t]" if equation.is_state else equation.target


def written(expr: Expr) -> str:
    """The whole text of ``expr`` on one line."""
    return _text(expr, 0)


def _text(expr: Expr, level: int) -> str:
    """``expr`` as an operand that binds at least as tightly as ``level``."""
    match expr:
        case Number(value=value):
            return str(value)
        case Name(id=name):
            return name
        case Unread():
            return "…"
        case Subscript(id=name, index=index):
            return f"{name}[{_compact(index)}]"
        case Call(function=function, args=args):
            return f"{function}({_texts(args)})"
        case Listed(items=items):
            return f"[{_texts(items)}]"
        case Inlined(call=call):
            return _text(call, level)
        case Transposed(operand=operand):
            return f"{_text(operand, _ATOM)}.T"
        case Unary(op=op, operand=operand):
            return _wrap(f"{op}{_text(operand, _UNARY)}", _UNARY, level)
        case Compare(op=op, left=left, right=right):
            return _wrap(f"{_text(left, 1)} {op} {_text(right, 1)}", 0, level)
        case Binary(op="**", left=left, right=right):
            return _wrap(f"{_text(left, _ATOM)}**{_text(right, _UNARY)}", _LEVEL["**"], level)
        case Binary(op=op, left=left, right=right):
            own = _LEVEL[op]
            gap = "" if op in "*/" else " "
            return _wrap(f"{_text(left, own)}{gap}{op}{gap}{_text(right, own + 1)}", own, level)


def _texts(items: tuple[Expr, ...]) -> str:
    return ", ".join(_text(item, 0) for item in items)


def _wrap(text: str, own: int, level: int) -> str:
    return f"({text})" if own < level else text


def _compact(index: Expr) -> str:
    """An index without blanks: ``t-1``."""
    return _text(index, 0).replace(" ", "")
