"""Text of equations and shapes -> the expression trees of :mod:`cellspec.spec`. Nothing is ever evaluated.

What the scanner lets through goes to :func:`ast.parse`, and the tree is copied node by node against a whitelist.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence

from cellspec.errors import Location, Reporter
from cellspec.names import words
from cellspec.scanner import MAX_NESTING, Place, Scanner, Statement, Token
from cellspec.spec import Assignment, Binary, Call, Compare, Expr, Listed, Name, Number, Subscript, Transposed, Unary, Unread

MAX_EXPONENT = 64
MAX_EQUATIONS = 1000

_BLOCKS = {"for", "while", "if", "def", "class", "with", "try", "async"}


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
    return None if statement.broken else _convert(text, statement.tokens, place, report)


def parse_equations(
    block: str, places: Sequence[Location], report: Reporter, unread: list[Assignment] | None = None
) -> tuple[Assignment, ...]:
    """The equations of ``block``; ``places[k]`` is where the first character of its line ``k`` stands in the file.

    The others go to ``unread``: their value is Unread, and the target is empty where the left side could not be read either.
    A block that is too large gives nothing at all.
    """

    def place(line: int, column: int) -> Location:
        start = places[min(line, len(places) - 1)]
        return Location(start.file, start.line, start.column + column, start.text)

    found: list[Assignment] = []
    broken: list[Assignment] = []
    margin: int | None = None  # the first equation's indentation
    body: int | None = None  # indentation of a block statement ('for') whose body is skipped
    scanner = Scanner(block, place, report, equations=True)
    for count, statement in enumerate(scanner.scan()):
        first = statement.tokens[0]
        if count >= MAX_EQUATIONS:
            report.error(place(first.line, first.column), f"there are more than {MAX_EQUATIONS} equations")
            return ()
        skipped = body is not None and first.column > body
        if not skipped:
            body = first.column if first.text in _BLOCKS else None
            margin = first.column if margin is None else margin
            if first.column != margin and not statement.broken:
                report.error(place(first.line, first.column), "this equation is not indented like the first one")
        assignment = None if skipped or statement.broken else _assignment(block, statement, place, report)
        if assignment is None:
            broken.append(_unread(statement, place, skipped))
        else:
            found.append(assignment)
    if scanner.cut:
        return ()
    if unread is not None:
        unread.extend(broken)
    return tuple(found)


def _unread(statement: Statement, place: Place, skipped: bool) -> Assignment:
    """What is known of an equation that could not be read, or that stands in a block statement."""
    first = statement.tokens[0]
    at = place(first.line, first.column)
    names = words(" ".join(token.text for token in statement.tokens if token.kind == "name"))
    left = [token.text for token in statement.tokens[: statement.equals or 0]]
    is_state = left[1:] == ["[", "t", "]"]
    readable = first.kind == "name" and (is_state or len(left) == 1) and not skipped
    return Assignment(names[0] if readable else "", is_state, Unread(names, at), "", at)


def _assignment(block: str, statement: Statement, place: Place, report: Reporter) -> Assignment | None:
    """One equation: a target ``name`` or ``name[t]``, and its value; None after reporting what is wrong with it."""
    assert statement.equals is not None
    tokens = statement.tokens
    left = _convert(block, tokens[: statement.equals], place, report)
    value = _convert(block, tokens[statement.equals + 1 :], place, report)
    if left is None:
        return None
    match left:
        case Name(id=name):
            is_state = False
        case Subscript(id=name, index=Name(id="t")):
            is_state = True
        case Subscript(id=name, index=index) if any(isinstance(e, Name) and e.id == "t" for e in walk(index)):
            report.error(left.at, f"only '{name}[t]' can be assigned; other steps of {name!r} can only be read")
            return None
        case Subscript(id=name):
            report.error(left.at, f"a family of values ('{name}[…]' without t) is not supported yet")
            return None
        case _:
            report.error(left.at, "the left side of an equation is 'name' or 'name[t]'")
            return None
    if value is None:
        return None
    lines = block[tokens[0].start : tokens[-1].start + len(tokens[-1].text)].split("\n")
    kept = (re.sub(r"#.*|\\\r?$", "", line).strip() for line in lines)
    return Assignment(name, is_state, value, " ".join(part for part in kept if part), left.at)


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


def _convert(text: str, tokens: list[Token], place: Place, report: Reporter) -> Expr | None:
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


def walk(expr: Expr) -> Iterator[Expr]:
    """``expr`` and everything inside it, from left to right."""
    yield expr
    match expr:
        case Subscript(index=index):
            yield from walk(index)
        case Unary(operand=operand) | Transposed(operand=operand):
            yield from walk(operand)
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            yield from walk(left)
            yield from walk(right)
        case Call(args=parts) | Listed(items=parts):
            for part in parts:
                yield from walk(part)
