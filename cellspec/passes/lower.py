"""Lowering: Cell → two Programs in A-normal form, the prologue (parameters → derived parameters) and the step.

Every nonlinear subexpression becomes a value of its own, named after what it computes, so that the adjoint can write
derivatives in terms of it. What reads only parameters goes to the prologue. A product with a concatenation,
``W @ [h, x]``, becomes a sum of products with column blocks of ``W``, so that each part is scheduled by what it depends on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

import sympy

from cellspec import ir
from cellspec.cell import Cell
from cellspec.ir import Op, Program, Value, symbol
from cellspec.model import nodes as c
from cellspec.model.equations import Equation
from cellspec.model.folding import folded, is_finite, number
from cellspec.model.primitive import divides
from cellspec.model.primitives import PRIMITIVES
from cellspec.passes.along import along

_LONGEST_NAME = 40
ONE = sympy.Integer(1)
CONSTANT = (c.Kind.PARAM, c.Kind.DERIVED)


@dataclass(frozen=True)
class Lowered:
    """A cell as programs; the value of each equation is called by its label (``i``, ``h[t]``)."""

    prologue: Program
    step: Program


def lower(cell: Cell) -> Lowered:
    """Lower ``cell``; the step computes every equation, also those that nothing but a trace reads."""
    names = {param.name: Value(param.name, param.shape, param.name) for param in cell.params}
    prologue = _Builder(dict(names))
    for item in cell.inputs:
        names[f"{item.name}[t]"] = Value(f"{item.name}[t]", item.shape, item.name)
    for state in cell.states:
        if state.rows:
            continue
        names[f"{state.name}[t-1]"] = Value(f"{state.name}[t-1]", state.shape, state.name)
    for ref in cell.distant:
        names[ref.label] = Value(ref.label, ref.shape, ref.name)
    step = _Builder(names, outer=prologue)
    for equation in cell.assignments:
        builder = prologue if equation.target.kind is c.Kind.DERIVED else step
        builder.equation(equation)

    derived = tuple(name for op in prologue.ops for name in ir.outs(op))
    params = tuple(param.name for param in cell.params)
    read = {name for op in step.ops for name in ir.operands(op)}
    step_program = Program(
        values=MappingProxyType({**prologue.values, **step.values}),
        constants=tuple(name for name in (*params, *derived) if name in read),
        sequences=(*(f"{item.name}[t]" for item in cell.inputs), *(r.label for r in cell.distant if r.kind is c.Kind.INPUT)),
        carries=tuple(ir.Carry(f"{state.name}[t-1]", f"{state.name}[t]") for state in cell.states if not state.rows),
        ops=(),
        outputs=tuple(ref.label for ref in cell.outputs),
        delays=tuple(ir.Delay(r.label, f"{r.name}[t]", r.steps) for r in cell.distant if r.kind is c.Kind.PREVIOUS),
    ).with_ops(step.ops, step.values)
    prologue_program = Program(
        values=MappingProxyType(prologue.values),
        constants=params,
        sequences=(),
        carries=(),
        ops=tuple(prologue.ops),
        outputs=tuple(name for name in derived if name in read),
    )
    return Lowered(ir.typecheck(prologue_program), ir.typecheck(step_program))


@dataclass
class _Builder:
    """Collects the operations of one program; equal operations are made once.

    ``origin`` is the equation being lowered, ``label`` its target and ``stem`` what its unnamed parts are called after.
    """

    values: dict[str, Value]
    outer: _Builder | None = None
    ops: list[Op] = field(default_factory=list)
    made: dict[object, str] = field(default_factory=dict)
    by_out: dict[str, Op] = field(default_factory=dict)
    copies: dict[str, sympy.Symbol] = field(default_factory=dict)
    origin: str = ""
    stem: str = ""
    label: str = ""

    def equation(self, equation: Equation) -> None:
        """Add ``equation``: whatever SymPy makes of its right side, one operation defines its label, in its own shape.

        That is the right side's last operation where this has the shape already; else a pointwise one, which stretches it, or
        copies an equal value made before.
        """
        self.origin = self.stem = equation.target.name
        label, shape = equation.target.label, equation.target.shape
        self.label = label
        expr = self.expr(equation.value, label if equation.value.shape == shape else None)
        if expr == symbol(label):  # the last operation was given the equation's name
            return
        known = self.made.get((ir.Pointwise("", expr), shape))
        if known is not None:
            expr = symbol(known)
        if expr.is_Symbol and self.is_value(expr.name, shape):
            self.copies[label] = expr
        self.add(ir.Pointwise(label, expr), shape)

    def emit(self, op: Op, shape: c.Shape) -> str:
        """Add ``op``, or find the value of an equal operation made before; the name of its value.

        What has come to read parameters alone, whatever the spec has written, goes to the prologue under a name of its own.
        """
        outer = self.outer
        reads = [name for name in ir.operands(op) if name in self.values or (outer is not None and name in outer.values)]
        if outer is not None and reads and outer.values.keys() >= set(reads):
            outer.origin, outer.stem = self.origin, f"{self.stem}.constant"
            (out,) = ir.outs(op)
            return outer.emit(ir.with_out(op, outer.stem) if out == self.label or out in self.values else op, shape)
        key = (ir.with_out(op, ""), shape)
        return self.made[key] if key in self.made and not _is_copy(op) else self.add(op, shape)

    def add(self, op: Op, shape: c.Shape) -> str:
        """Add ``op``; the name of its value, which is that of ``op`` unless it is taken."""
        (out,) = ir.outs(op)
        unique, number = out, 2
        while unique in self.values or (self.outer is not None and unique in self.outer.values):
            unique, number = f"{out}#{number}", number + 1
        self.values[unique] = Value(unique, shape, self.origin)
        self.by_out[unique] = ir.with_out(op, unique)
        self.ops.append(self.by_out[unique])
        self.made[ir.with_out(op, ""), shape] = unique
        return unique

    def lookup(self, name: str) -> Value:
        """The value called ``name``, here or among the derived parameters."""
        return self.values[name] if name in self.values or self.outer is None else self.outer.values[name]

    def expr(self, node: c.Node, label: str | None = None) -> sympy.Expr:
        """``node`` as a pointwise expression over values.

        What is not pointwise is emitted as a value, called ``label`` where ``node`` is the whole right side of an equation.
        """
        if self.outer is not None and _reads_parameters_only(node):
            self.outer.origin, self.outer.stem = self.origin, f"{self.origin}.constant"
            return symbol(self.outer.atom(node))
        match node:
            case c.Const(value=value):
                return number(value)
            case c.DimValue(value=value):
                return value
            case c.Ref():
                return self.copies.get(node.label, symbol(node.label))
            case c.Apply(function=function, args=args):
                return self.applied(function, args, node.shape, label)
            case c.MatMul(left=left, right=right) if _is_constant(left):
                return self.weighted(self.atom(left), self.atom(right), node.shape, label)
            case c.MatMul(left=left, right=right):  # a matrix of the sample's own: no weights, a sum of pointwise products
                matrix, vector = self.atom(left), self.atom(right)
                ones = (ONE,) * (len(left.shape) - len(right.shape) - 1)
                across = self.reshape(vector, (*ones, *right.shape[:-1], ONE, right.shape[-1]), "row")
                each = self.emit(ir.Pointwise(f"{matrix}*{vector}", symbol(matrix) * symbol(across)), left.shape)
                column = self.emit(ir.SumTo(f"sum({each})", each), (*left.shape[:-1], ONE))
                return symbol(self.reshape(column, node.shape, "vector", label))
            case c.OuterProduct(left=left, right=right):
                (*heads, m), n = left.shape, right.shape[-1]
                column = self.reshape(self.atom(left), (*heads, m, ONE), "column")
                return symbol(column) * symbol(self.reshape(self.atom(right), (*heads, ONE, n), "row"))
            case c.Along(function=function, args=args):
                return along(self, function, tuple(map(self.atom, args)), args[0].shape, node.shape, label)
            case c.Member(family=family, index=index):
                return symbol(self.emit(ir.Index(f"{family.name}[{index}]", family.name, index), node.shape))
            case c.Inverse(operand=operand):
                a = self.atom(operand)
                return symbol(self.emit(ir.Inverse(label or f"inv({a})", a), node.shape))
            case c.Transpose(operand=operand):
                a = self.atom(operand)
                return symbol(self.emit(ir.Transpose(label or f"{a}.T", a), node.shape))
            case c.Eye():
                return symbol(self.emit(ir.Eye(label or f"eye({node.shape[0]})"), node.shape))
            case c.Concat(parts=parts):
                names = tuple(map(self.atom, parts))
                return symbol(self.emit(ir.Concat(label or f"[{', '.join(names)}]", names), node.shape))
            case c.Roll(operand=operand, shift=shift):
                a = self.atom(operand)
                return symbol(self.emit(ir.Roll(label or f"roll({a}, {shift})", a, shift), node.shape))
            case c.StopGradient(operand=operand):
                a = self.atom(operand)
                return symbol(self.emit(ir.Stop(label or f"stop_gradient({a})", a), node.shape))

    def applied(self, function: str, args: tuple[c.Node, ...], shape: c.Shape, label: str | None) -> sympy.Expr:
        """A pointwise function: of constants their constant, else an expression that holds no number which is none.

        Where arithmetic would hold one, as in ``1/(a - a)``, its operands are values, of which it is computed like any other.
        """
        row = PRIMITIVES[function]
        pure = not any(ref for arg in args for ref in c.refs(arg))  # made of numbers and dims
        exprs = [self.expr(arg) if pure or not row.derivatives else self.argument(arg) for arg in args]
        if pure or all(expr.is_number for expr in exprs) or (function == "where" and exprs[0].is_number):
            whole = folded(function, exprs)
        else:
            whole = None if row.derivatives else row.definition(*exprs)
        if whole is not None and is_finite(whole):
            return self.quotient(whole, shape, label) if function in ("div", "pow") else whole
        if not row.derivatives or all(expr.is_number for expr in exprs):
            exprs = [e if isinstance(arg, c.Const) else symbol(self.value(arg, e)) for arg, e in zip(args, exprs, strict=True)]
        if not row.derivatives:
            whole = row.definition(*exprs)
            return self.quotient(whole, shape, label) if function in ("div", "pow") else whole
        name = label or self.described(f"{function}({', '.join(map(_short, exprs))})", function)
        return symbol(self.emit(ir.Pointwise(name, row.symbol(*exprs)), shape))

    def quotient(self, expr: sympy.Expr, shape: c.Shape, label: str | None) -> sympy.Expr:
        """``expr``, as a value of its own if it divides by one.

        For the derivative of ``q = a/b`` by ``b`` is ``-q/b``, while ``a/b**2`` leaves the range where the derivative does not.
        """
        if not any(factor.free_symbols and divides(factor) for factor in sympy.Mul.make_args(expr)):
            return expr
        if not any(self.known(s.name) for s in expr.free_symbols):  # a number made of dims
            return expr
        name = label or self.described(_quotient_name(expr, self.stem), "quotient")
        return symbol(self.emit(ir.Pointwise(name, expr), shape))

    def described(self, name: str, kind: str) -> str:
        """What an unnamed value is called: ``name``, or where that is long, the equation and the ``kind`` of the value."""
        return name if len(name) <= _LONGEST_NAME else f"{self.stem}.{kind}"

    def atom(self, node: c.Node) -> str:
        """The name of a value that holds ``node``."""
        return self.value(node, self.expr(node))

    def value(self, node: c.Node, expr: sympy.Expr) -> str:
        """The name of a value that holds ``node``, which is ``expr``."""
        if expr.is_Symbol and self.is_value(expr.name, node.shape):
            return str(expr.name)
        return self.emit(ir.Pointwise(f"{self.stem}.part", expr), node.shape)

    def argument(self, node: c.Node) -> sympy.Expr:
        """An argument of a nonlinear function: a number, or the symbol of a value."""
        expr = self.expr(node)
        if expr.is_number or (expr.is_Symbol and self.is_value(expr.name, node.shape)):
            return expr
        return symbol(self.emit(ir.Pointwise(f"{self.stem}.pre", expr), node.shape))

    def is_value(self, name: str, shape: c.Shape) -> bool:
        """Whether ``name`` is a value of this shape (and not a dim, or a value yet to be stretched)."""
        return self.known(name) and self.lookup(name).shape == shape

    def known(self, name: str) -> bool:
        """Whether ``name`` is a value, and not a dim."""
        return name in self.values or (self.outer is not None and name in self.outer.values)

    def reshape(self, name: str, shape: c.Shape, kind: str, label: str | None = None) -> str:
        """The elements of a value in another shape, of which ``kind`` is the name: ``k.row``."""
        return self.emit(ir.Reshape(label or f"{name}.{kind}", name), shape)

    def weighted(self, left: str, right: str, shape: c.Shape, label: str | None = None) -> sympy.Expr:
        """``left @ right`` of constant weights; where all heads share a vector, all their rows make one matrix."""
        weights, vector = self.lookup(left), self.lookup(right)
        if len(weights.shape) < 3 or len(vector.shape) > 1:
            return self.product(left, right, shape, label)
        rows = sympy.expand(weights.shape[0] * weights.shape[1])
        flat = self.product(self.reshape(left, (rows, weights.shape[2]), "rows"), right, (rows,))
        if not flat.is_Symbol:  # a sum over the parts of a concatenation
            flat = symbol(self.emit(ir.Pointwise(f"{self.stem}.rows", flat), (rows,)))
        return symbol(self.reshape(str(flat.name), shape, "heads", label))

    def product(self, left: str, right: str, shape: c.Shape, label: str | None = None) -> sympy.Expr:
        """``left @ right``; a sum over column blocks of ``left`` where ``right`` is a concatenation."""
        match self.by_out.get(right):
            case ir.Concat(parts=parts) if self.outer is not None:
                start: sympy.Expr = sympy.Integer(0)
                terms = []
                for part in parts:
                    stop = sympy.expand(start + self.lookup(part).shape[-1])
                    terms.append(self.product(self.outer.columns(left, part, start, stop), part, shape))
                    start = stop
                return sympy.Add(*terms)
        return symbol(self.emit(ir.MatMul(label or f"{left}@{right}", left, right), shape))

    def columns(self, matrix: str, part: str, start: sympy.Expr, stop: sympy.Expr) -> str:
        """Columns ``start:stop`` of a matrix, which meet ``part`` in a product."""
        self.origin = self.values[matrix].origin
        shape = (*self.values[matrix].shape[:-1], sympy.expand(stop - start))
        return self.emit(ir.Slice(f"{matrix}|{part}", matrix, start, stop), shape)


def _short(atom: sympy.Expr) -> str:
    return repr(float(atom)) if atom.is_Float else str(atom)


def _quotient_name(expr: sympy.Expr, stem: str) -> str:
    """``a/b`` for two values, otherwise by what it belongs to."""
    above, below = expr.as_numer_denom()
    return f"{above}/{below}" if above.is_Symbol and below.is_Symbol else f"{stem}.quotient"


def _is_copy(op: Op) -> bool:
    return isinstance(op, ir.Pointwise) and bool(op.expr.is_Symbol)


def _is_constant(node: c.Node) -> bool:
    """Whether ``node`` is the same at every step."""
    return all(ref.kind in CONSTANT for ref in c.refs(node))


def _reads_parameters_only(node: c.Node) -> bool:
    """Whether ``node`` computes something, and from parameters alone."""
    if isinstance(node, c.Ref | c.Const | c.DimValue):
        return False
    return (any(c.refs(node)) or isinstance(node, c.Eye)) and _is_constant(node)
