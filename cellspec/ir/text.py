"""Programs as text for people, an operation a line; nothing is read back from it."""

from __future__ import annotations

from cellspec.ir import (
    Concat,
    CumSum,
    Eye,
    Index,
    Inverse,
    Largest,
    MatMul,
    Op,
    Outer,
    Pointwise,
    Product,
    Program,
    Reshape,
    Roll,
    Slice,
    Stack,
    Stop,
    SumTo,
    Transpose,
    outs,
)


def program_text(program: Program) -> str:
    """The program as text, an operation a line, each value with its shape."""

    def typed(name: str) -> str:
        return f"{name}: [{', '.join(map(str, program.shape(name)))}]"

    lines = [f"{kind:9} {', '.join(map(typed, names))}" for kind, names in _heads(program) if names]
    width = max((len(typed(outs(op)[0])) for op in program.ops), default=0)
    for op in program.ops:
        lines.append(f"  {', '.join(map(typed, outs(op))):{width}} = {_right_side(op)}")
    lines += [f"carry     {c.before} <- {c.after}" for c in program.carries]
    lines += [f"delay     {d.before} <- {d.after}, {d.steps} steps" for d in program.delays]
    lines += [f"total     {t.target} = sum of {t.value}" for t in program.totals]
    if program.outputs:
        lines.append(f"give out  {', '.join(program.outputs)}")
    return "\n".join(lines)


def _heads(program: Program) -> tuple[tuple[str, tuple[str, ...]], ...]:
    before = program.befores
    return (("constant", program.constants), ("sequence", program.sequences), ("carried", before))


def _right_side(op: Op) -> str:
    match op:
        case Pointwise(expr=expr):
            return str(expr)
        case MatMul(left=left, right=right, left_t=left_t, right_t=right_t):
            return f"{left}{'.T' * left_t} @ {right}{'.T' * right_t}"
        case Product(weights=weights, operands=vectors, transposed=transposed):
            rows = "; ".join(", ".join(w + ".T" * transposed for w in row) for row in weights)
            return f"[{rows}] @ [{'; '.join(vectors)}]"
        case Outer(left=left, right=right):
            return f"outer({left}, {right})"
        case Concat(parts=parts):
            return f"[{', '.join(parts)}]"
        case Slice(operand=operand, start=start, stop=stop):
            return f"{operand}[..., {start}:{stop}]"
        case Transpose(operand=operand):
            return f"{operand}.T"
        case Eye():
            return "identity"
        case Inverse(operand=operand):
            return f"inv({operand})"
        case Index(operand=operand, index=index):
            return f"{operand}[{index}]"
        case Stack(parts=parts):
            return f"stack({', '.join(parts)})"
        case Reshape(operand=operand):
            return f"reshape({operand})"
        case Largest(operand=operand):
            return f"largest({operand})"
        case CumSum(operand=operand, reverse=reverse):
            return f"cumsum({operand}{', from the end' * reverse})"
        case Roll(operand=operand, shift=shift):
            return f"roll({operand}, {shift})"
        case SumTo(operand=operand):
            return f"sum_to({operand})"
        case Stop(operand=operand):
            return f"stop_gradient({operand})"
