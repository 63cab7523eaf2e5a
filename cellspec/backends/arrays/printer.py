"""Statements → lines of Python: the one place that spells what array code is made of, and whose a buffer is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import sympy

from cellspec.backends.arrays.expressions import (
    Apply,
    Attribute,
    Binary,
    Choice,
    EllipsisType,
    Expression,
    Formula,
    Helper,
    Index,
    Items,
    Library,
    Literal,
    Local,
    Merged,
    Method,
    Not,
    Number,
    OfMemory,
    Stretch,
    Table,
    View,
    Word,
)
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.statements import (
    Bind,
    BindAll,
    Call,
    Comment,
    Copy,
    Increase,
    Out,
    Perform,
    Statement,
    Store,
    When,
)
from cellspec.backends.dims import tuple_text
from cellspec.backends.memory.model import Axes, Buffer, Owner, Place
from cellspec.backends.plain import bare, dim_text, float_text

INDENT = "    "


@dataclass(frozen=True)
class Seat:
    """Where code runs: whose it is, what it calls the parts of the memory that it sees, and the part that is its own."""

    owner: Owner
    own: str
    parts: Mapping[Owner, str]


@dataclass
class Printer:
    """Spells statements.

    ``dims`` are what the module calls the dims, ``names`` what it calls values and their buffers, by whose they are; ``lies``
    says whose a buffer is where it is not its maker's. The helper functions that have been printed are noted in ``helpers``.
    """

    dims: Mapping[str, str]
    seat: Seat
    lies: Mapping[Buffer, Owner] = field(default_factory=dict)
    names: Mapping[Owner, Mapping[str, str]] = field(default_factory=dict)
    library: str = "np"
    helpers: set[str] = field(default_factory=set)

    # --- expressions ------------------------------------------------------------------------------------------

    def text(self, expression: Expression) -> str:
        """An expression, as it can stand in any other."""
        match expression:
            case Word(name=name):
                return name
            case Local(name=name):
                return self.called(name, self.seat.owner)
            case Buffer() | View():
                return f"{self.part(expression)}.{self.attribute(expression)}"
            case OfMemory(name=name):
                return f"{self.seat.own}.{name}"
            case Attribute(of=of, name=name):
                return f"{self.text(of)}.{name}"
            case Method(of=of, name=name, args=args):
                return f"{self.text(of)}.{name}({self.row(args)})"
            case Index(of=of, items=items):
                return f"{self.text(of)}[{', '.join(map(self.item, items))}]"
            case Library(name=name):
                return f"{self.library}.{name}"
            case Helper(name=name):
                self.helpers.add(name)
                return f"_{name}"
            case Formula():
                text = self.formula(expression)
                return text if bare(text) != text or text.isidentifier() else f"({text})"
            case Apply(function=function, args=args, keywords=keywords):
                return f"{self.text(function)}({', '.join([*map(self.text, args), *self.pairs(keywords)])})"
            case Binary() | Not() | Choice():
                return self.operation(expression)
            case _:
                return self.constant(expression)

    def operation(self, expression: Binary | Not | Choice) -> str:
        """What stands between operands."""
        match expression:
            case Binary(op="*", left=left, right=right):
                return f"{self.text(left)}*{self.text(right)}"
            case Binary(op=op, left=left, right=right):
                return f"{self.text(left)} {op} {self.text(right)}"
            case Not(condition=condition):
                return f"not {self.text(condition)}"
            case Choice(condition=condition, yes=yes, no=no):
                return f"{self.text(yes)} if {self.text(condition)} else {self.text(no)}"

    def constant(self, expression: Expression) -> str:
        """What depends on nothing but the dims, and what is put together of several expressions."""
        match expression:
            case Literal(value=str() as value):
                return f'"{value}"'
            case Literal(value=float() as value):
                return float_text(value)
            case Literal(value=value):
                return str(value)
            case Number(value=value):
                return Plain({}, {}, self.dims, batched=False).scalar(value)
            case Items(items=items):
                return f"({self.row(items)}{',' * (len(items) == 1)})"
            case Table(entries=entries):
                return f"{{{', '.join(f'{key}: {self.text(entry)}' for key, entry in entries)}}}"
            case Merged(axes=axes):
                return "*".join(map(self.text, axes))
            case int():
                return str(expression)
            case sympy.Expr():
                return dim_text(expression, {})
        raise NotImplementedError(f"no spelling for {expression}")

    def formula(self, formula: Formula) -> str:
        """An operation among parameters."""
        texts = {name: self.text(operand) for name, operand in formula.operands}
        plain = Plain(formula.program.values, texts, self.dims, batched=False)
        text = plain.whole(formula.op, formula.shape, tuple_text(formula.shape, self.dims), "dtype")
        self.helpers |= plain.helpers
        return text

    def called(self, name: str, owner: Owner) -> str:
        """The identifier for a name that values of a part of the module have."""
        return self.names.get(owner, {}).get(name, name)

    def attribute(self, array: Buffer | View) -> str:
        """What the memory calls a buffer or a view."""
        return self.called(array.name, _buffer(array).owner)

    def part(self, array: Buffer | View) -> str:
        """What the part of the memory that holds a buffer is called here."""
        buffer = _buffer(array)
        return self.seat.parts[self.lies.get(buffer, buffer.owner)]

    def row(self, items: Iterable[Expression]) -> str:
        return ", ".join(map(self.text, items))

    def pairs(self, keywords: Iterable[tuple[str, Expression]]) -> list[str]:
        return [f"{name}={self.text(value)}" for name, value in keywords]

    def item(self, item: Expression | Stretch | EllipsisType | None) -> str:
        """One item of an index."""
        match item:
            case None:
                return "None"
            case EllipsisType():
                return "..."
            case Stretch(start=start, stop=stop, step=step):
                ends = ":".join("" if end is None else self.text(end) for end in (start, stop))
                return ends if step is None else f"{ends}:{step}"
            case _:
                return self.text(item)

    def shape(self, axes: Axes) -> str:
        """The axes of an array, as a tuple."""
        return self.text(Items(axes))

    def place(self, place: Place) -> str:
        """The memory that begins at a place."""
        return self.text(place.buffer if place.start == 0 else Index(place.buffer, (Stretch(place.start),)))

    # --- statements -------------------------------------------------------------------------------------------

    def lines(self, statements: Iterable[Statement]) -> list[str]:
        """Statements as lines."""
        return [line for statement in statements for line in self.statement(statement)]

    def statement(self, statement: Statement) -> list[str]:
        """One statement: a line, or several where some stand under a condition."""
        match statement:
            case When(condition=condition, body=body):
                return [f"if {self.text(condition)}:", *(INDENT + line for line in self.lines(body))]
            case Comment(text=text):
                return [f"# {text}"]
            case Bind(name=name, expression=expression):
                return [f"{self.text(name)} = {self.value(expression)}"]
            case BindAll(names=names, functions=functions):
                return [f"{self.row(names)} = {self.row(functions)}"]
            case Call():
                return [self.call(statement)]
            case Copy(target=target, source=source):
                return [f"{self.library}.copyto({self.text(target)}, {self.text(source)})"]
            case Store(target=target, value=value):
                return [f"{self.text(target)} = {self.value(value)}"]
            case Increase(target=target, value=value):
                return [f"{self.text(target)} += {self.value(value)}"]
            case Perform(call=call):
                return [self.text(call)]

    def value(self, expression: Expression) -> str:
        """An expression that stands alone."""
        return self.formula(expression) if isinstance(expression, Formula) else self.text(expression)

    def call(self, call: Call) -> str:
        """A call with the place of its result."""
        out = ("out=" if call.how is Out.KEYWORD else "") + self.text(call.out)
        operands = map(self.text, call.operands)
        keywords, options = self.pairs(call.keywords), self.pairs(call.options)
        return f"{self.text(call.function)}({', '.join([*operands, *keywords, out, *options])})"


def _buffer(array: Buffer | View) -> Buffer:
    return array.buffer if isinstance(array, View) else array
