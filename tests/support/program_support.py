"""Helpers of the tests of passes: programs from text, their text, and what they compute, on NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy

from cellspec import ir
from cellspec.ir import Op, Program
from cellspec.ir.parse import parse_program
from cellspec.ir.text import program_text
from cellspec.model.nodes import Shape
from cellspec.model.primitives import PRIMITIVES
from cellspec.passes.policy import SchedulePolicy
from cellspec.passes.schedule import Schedule, schedule

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

DIMS = {"H": 3, "I": 2, "N": 2, "K": 4}
"""The sizes at which programs are run."""


def program(text: str) -> Program:
    """The program that ``text`` states, which must be well formed."""
    return ir.typecheck(parse_program(text))


def told(stated: Program | str) -> str:
    """The text of a program, or of what a text states: texts that differ in spaces and in the order of sums are the same."""
    text = program_text(parse_program(stated) if isinstance(stated, str) else stated)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


# --- what a program computes, by the definitions of its operations ---------------------------------------------------


def run(step: Program, given: Mapping[str, Array], dims: Mapping[str, int] = DIMS) -> Arrays:
    """All values of one step, from those of its constants, its sequences and what it reads of other steps."""
    values = {name: given[name] for name in (*step.constants, *step.sequences, *step.befores)}
    for op in step.ops:
        results = _results(step, op, values, dims)
        for out, result in zip(ir.outs(op), results, strict=True):
            assert result.shape == size_of(step.shape(out), dims), f"{op} gives {result.shape}"
            values[out] = result
    return values


def drawn(step: Program, seed: int = 0, dims: Mapping[str, int] = DIMS) -> Arrays:
    """Random values for what a step is given, all of about 1."""
    rng = np.random.default_rng(seed)
    names = (*step.constants, *step.sequences, *step.befores)
    return {name: rng.normal(size=size_of(step.shape(name), dims)) for name in names}


def results(step: Program, values: Mapping[str, Array]) -> Arrays:
    """What a step is run for: outputs, what it hands on by what reads it, and totals by their targets."""
    links = {f"{link.before} <-": values[link.after] for link in step.links}
    return {**{name: values[name] for name in step.outputs}, **links, **{t.target: values[t.value] for t in step.totals}}


def assert_same_numbers(one: Program, other: Program, dims: Mapping[str, int] = DIMS) -> None:
    """Both programs have the same results, of the same names, for the same arguments."""
    given = drawn(one, 0, dims)
    before = results(one, run(one, given, dims))
    after = results(other, run(other, given, dims))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


def size_of(shape: Shape, dims: Mapping[str, int] = DIMS) -> tuple[int, ...]:
    """A shape in numbers."""
    return tuple(int(axis.subs(dims)) for axis in map(sympy.sympify, shape))


def evaluate(expr: sympy.Expr, values: Mapping[str, Any]) -> Any:
    """An expression over values and dims, its functions by the definitions in the table."""
    match expr:
        case sympy.Symbol(name=name):
            return values[name]
        case sympy.Add(args=args):
            return sum(evaluate(arg, values) for arg in args)
        case sympy.Mul(args=args):
            return math.prod(evaluate(arg, values) for arg in args)
        case sympy.Pow(base=base, exp=exponent):
            return np.float_power(evaluate(base, values), evaluate(exponent, values))
        case sympy.Function(args=args):
            return _defined(type(expr).__name__)(*(evaluate(arg, values) for arg in args))
        case _:
            return float(expr)


@cache
def _defined(function: str) -> Any:
    if function == "expm1":  # its definition cancels, which it is there to avoid
        return np.expm1
    row = PRIMITIVES[function]
    args = sympy.symbols(f"u:{row.arity}")
    errors = {name: np.vectorize(getattr(math, name), otypes=[float]) for name in ("erf", "erfc")}
    return sympy.lambdify(args, sympy.sympify(row.definition(*args)), [{**errors, "_Floor": np.floor}, "numpy"])


def _results(step: Program, op: Op, values: Mapping[str, Array], dims: Mapping[str, int]) -> Iterable[Array]:
    """What ``op`` makes, in NumPy's words."""
    match op:
        case ir.Product(weights=weights, operands=vectors, transposed=transposed):
            return [
                sum((_product(values[w], values[v], transposed) for w, v in zip(row, vectors, strict=True)), np.zeros(()))
                for row in weights
            ]
        case _:
            return [_result(op, values, size_of(step.shape(op.out), dims), dims)]


def _product(left: Array, right: Array, left_t: bool = False, right_t: bool = False) -> Any:
    left = left.swapaxes(-1, -2) if left_t else left
    right = right.swapaxes(-1, -2) if right_t else right
    return np.einsum("nmk,nk->nm", left, right) if left.ndim == 3 else left @ right


def _result(op: Op, values: Mapping[str, Array], shape: tuple[int, ...], dims: Mapping[str, int]) -> Any:
    match op:
        case ir.Pointwise(expr=expr):
            return np.broadcast_to(np.asarray(evaluate(expr, {**dims, **values}), float), shape)
        case ir.MatMul(left=left, right=right, left_t=left_t, right_t=right_t):
            return _product(values[left], values[right], left_t, right_t)
        case ir.Outer(left=left, right=right):
            return values[left][..., :, None] * values[right][..., None, :]
        case ir.Concat(parts=parts):
            return np.concatenate([values[part] for part in parts], axis=-1)
        case ir.Slice(operand=operand, start=start, stop=stop):
            return values[operand][..., slice(*size_of((start, stop), dims))]
        case ir.Transpose(operand=operand):
            return values[operand].T
        case ir.Eye():
            return np.eye(shape[0])
        case ir.Inverse(operand=operand):
            return np.linalg.inv(values[operand])
        case ir.Index(operand=operand, index=index):
            return values[operand][index]
        case ir.Stack(parts=parts):
            return np.stack([values[part] for part in parts])
        case ir.Reshape(operand=operand):
            return values[operand].reshape(shape)
        case ir.Largest(operand=operand):
            return values[operand].max(axis=-1, keepdims=True)
        case ir.CumSum(operand=operand, reverse=reverse):
            turned = values[operand][..., :: -1 if reverse else 1]
            return turned.cumsum(axis=-1)[..., :: -1 if reverse else 1]
        case ir.Roll(operand=operand, shift=shift):
            return np.roll(values[operand], shift, axis=-1)
        case ir.SumTo(operand=operand):
            return _summed(values[operand], shape)
        case ir.Stop(operand=operand):
            return values[operand]
    raise NotImplementedError(op)


def _summed(array: Array, shape: tuple[int, ...]) -> Any:
    """``array`` summed over the axes along which something of this shape stretches to it."""
    if all(axis == 1 for axis in shape):
        return array.sum().reshape(shape)
    axes = tuple(k for k, (small, large) in enumerate(zip(shape, array.shape, strict=True)) if small != large)
    return array.sum(axis=axes, keepdims=True)


# --- schedules -------------------------------------------------------------------------------------------------------


def scheduled(step: Program | str, *, alone: bool = False, heads: bool = False, blocks: bool = False) -> Schedule:
    """The schedule of a step, or of the text of one."""
    policy = SchedulePolicy(stack_heads=heads, block_products=blocks, single_step=alone)
    return schedule(program(step) if isinstance(step, str) else step, policy)


def in_order(plan: Schedule) -> Program:
    """One step of a schedule as a program again: its operations in the order in which they happen, gradients last."""
    outer = (op for op in plan.program.ops if isinstance(op, ir.Outer))
    return replace(plan.program, ops=(*plan.prologue, *plan.before, *plan.loop, *plan.after, *outer))


def happens(plan: Schedule) -> dict[str, str]:
    """The operations of each part of a schedule that has any, as text; the levels of the loop are parts ``0``, ``1``, …"""
    levels = {str(number): level for number, level in enumerate(plan.levels)}
    parts = {"prologue": plan.prologue, "before": plan.before, **levels, "after": plan.after}
    return {part: told(_alone(plan.program, ops)) for part, ops in parts.items() if ops}


def operations(step: Program) -> str:
    """The operations and totals of a program, without what is around them."""
    return told(replace(step, constants=(), sequences=(), carries=(), delays=(), outputs=()))


def _alone(step: Program, ops: tuple[Op, ...]) -> Program:
    return Program(step.values, (), (), (), ops, ())
