"""Text of shapes and of the sides of equations -> expression trees (:mod:`cellspec.language.spec`). Nothing is ever evaluated.

What the scanner lets through goes to :func:`ast.parse`, and the tree is copied node by node against a whitelist.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable

from cellspec.errors import Location, Reporter
from cellspec.language.read.scanner import MAX_NESTING, Place, Scanner, Token
from cellspec.language.spec import Binary, Call, Compare, Expr, Listed, Name, Number, Subscript, Transposed, Unary

MAX_EXPONENT = 64


def parse_expression(text: str, at: Location, report: Reporter) -> Expr | None:
    """The tree of ``text``, whose first character stands at ``at``; None after reporting what is wrong with it."""
    exact = at.text.startswith(text, at.column - 1)

    def place(line: int, column: int) -> Location:
        return Location(at.file, at.line, at.column + column, at.text) if exact and line == 0 else at

    text = text.replace("\n", " ")
    statements = list(Scanner(text, place, report, equations=False).scan())
    if not statements:
        report.error(at, "an expression is expected, but there is nothing here")
        return None
    statement = statements[0]
    return None if statement.broken else convert(text, statement.tokens, place, report)


# --- Python's tree -> ours ---------------------------------------------------------------------------------

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.MatMult: "@",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def convert(text: str, tokens: list[Token], place: Place, report: Reporter) -> Expr | None:
    """Parse the tokens' stretch of ``text`` and copy the tree; None after reporting a mistake."""
    first, last = tokens[0], tokens[-1]
    source = text[first.start : last.start + len(last.text)]
    here = place(first.line, first.column)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, mode="eval").body
    except (RecursionError, MemoryError):
        tree = None
    except (SyntaxError, ValueError):
        report.error(here, "this is not an expression of the language")
        return None
    if tree is None or _too_deep(tree):
        report.error(here, f"this expression is nested deeper than {MAX_NESTING} levels; name a part in an equation of its own")
        return None
    lines = source.split("\n")

    def locate(node: ast.expr) -> Location:
        row = lines[node.lineno - 1]
        column = len(row.encode()[: node.col_offset].decode(errors="replace"))
        return place(first.line + node.lineno - 1, column + (first.column if node.lineno == 1 else 0))

    return _copy(tree, locate, report)


def _too_deep(tree: ast.expr) -> bool:
    """Whether a path through ``tree`` has more than MAX_NESTING inner nodes; no recursion."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_NESTING + 1):
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        if not level:
            return False
    return True


def _copy(node: ast.expr, locate: Callable[[ast.expr], Location], report: Reporter) -> Expr | None:
    """``node`` as a tree of ours; None after reporting what is not on the whitelist."""
    at = locate(node)

    def sub(child: ast.expr) -> Expr | None:
        return _copy(child, locate, report)

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return Number(value if isinstance(value, float) or value < 2**53 else float(value), at)
        case ast.Name(id=name):
            return Name(name, at)
        case ast.Subscript(value=ast.Name(id=name), slice=index_node):
            index = sub(index_node)
            return None if index is None else Subscript(name, index, at)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand_node):
            return sub(operand_node)
        case ast.UnaryOp(op=ast.USub(), operand=operand_node):
            operand = sub(operand_node)
            return None if operand is None else Unary("-", operand, at)
        case ast.BinOp(left=left_node, op=operator, right=right_node) if type(operator) in _OPERATORS:
            left, right = sub(left_node), sub(right_node)
            if left is None or right is None:
                return None
            if isinstance(operator, ast.Pow) and not _exponent_fits(right):
                report.error(right.at, f"an exponent beyond ±{MAX_EXPONENT} is not allowed")
                return None
            return Binary(_OPERATORS[type(operator)], left, right, at)
        case ast.Compare(left=left_node, ops=[comparison], comparators=[right_node]) if type(comparison) in _COMPARISONS:
            left, right = sub(left_node), sub(right_node)
            return None if left is None or right is None else Compare(_COMPARISONS[type(comparison)], left, right, at)
        case ast.Compare(ops=[_, _, *_]):
            report.error(at, "a chained comparison is not allowed; compare two values at a time")
            return None
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            args = [sub(argument) for argument in arguments]
            kept = tuple(arg for arg in args if arg is not None)
            return Call(name, kept, at) if len(kept) == len(args) else None
        case ast.Attribute(value=operand_node, attr="T"):
            operand = sub(operand_node)
            return None if operand is None else Transposed(operand, at)
        case ast.List(elts=elements):
            parts = [sub(element) for element in elements]
            items = tuple(part for part in parts if part is not None)
            return Listed(items, at) if len(items) == len(parts) else None
        case _:
            report.error(at, f"this is outside the language ({type(node).__name__})")
            return None


def _exponent_fits(exponent: Expr) -> bool:
    """Whether a literal exponent keeps the limit; what is no literal is judged later."""
    while isinstance(exponent, Unary):
        exponent = exponent.operand
    return not isinstance(exponent, Number) or exponent.value <= MAX_EXPONENT
