"""The tests tested: generated code with one mistake in it must fail verification, whatever and wherever the mistake is.

A module's text is parsed, and every statement of its numeric functions is spoilt in every way that applies: a sign flipped, a
statement dropped (a cotangent term, a hoisted term, an initial value), a state read one step too late, the sources of two
statements swapped (two gates' weights). Each mutant is one mistake; none may survive. New buffers are filled with NaN,
so that a dropped statement does not find the right numbers in memory by luck.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import ROOT, cell_of, draw

import cellspec
from cellspec.cell import Cell
from cellspec.verification.check import verify, verify_sample
from cellspec.verification.sampling import Sample

FUNCTIONS = ("_forward", "_backward", "_equations", "_derived")
CELLS = [ROOT / "specs" / f"{name}.yaml" for name in ("lstm", "gru", "gru_after", "peephole", "lstm_concat")]
CELLS += [ROOT / "tests" / "valid" / f"{name}.yaml" for name in ("derived", "stretch", "elementwise")]


class Poisoned:
    """NumPy, but with NaN in new buffers."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(shape: Any, dtype: Any = float) -> Any:
        return np.full(shape, np.nan, dtype)

    @staticmethod
    def empty_like(array: Any) -> Any:
        return np.full_like(array, np.nan)


def compiled(tree: ast.Module) -> ModuleType:
    """The module of a syntax tree, whose NumPy is poisoned from the start."""
    module = ModuleType("mutant")
    module.np = Poisoned()  # type: ignore[attr-defined]
    body = [node for node in tree.body if not isinstance(node, ast.Import)]
    exec(compile(ast.Module(body, tree.type_ignores), "<mutant>", "exec"), vars(module))
    return module


@dataclass(frozen=True)
class Mutant:
    """A module's tree with one mistake: its kind, and the statement that has it."""

    kind: str
    where: str
    tree: ast.Module


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of a module, one after the other in the same tree: each is gone when the next is asked for."""
    tree = ast.parse(text)
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS):
        for block, index in list(statements(function)):
            original = block[index]
            where = f"{function.name}: {ast.unparse(original)}"
            follower = block[index + 1] if index + 1 < len(block) else None
            for kind, changed in [*spoilt(original), *swapped(original, follower)]:
                block[index] = ast.fix_missing_locations(ast.copy_location(changed, original))
                yield Mutant(kind, f"{where}  ->  {ast.unparse(changed)}", tree)
                block[index] = original


def statements(function: ast.FunctionDef) -> Iterator[tuple[list[ast.stmt], int]]:
    """The statements that compute: calls of NumPy, and assignments of arithmetic or to parts of arrays."""
    blocks = [function.body]
    while blocks:
        block = blocks.pop()
        for index, statement in enumerate(block):
            if isinstance(statement, ast.For):
                blocks.append(statement.body)
            elif numeric(statement):
                yield block, index


def numeric(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="np")) | ast.Name())):
            return True
        case ast.Assign(targets=[ast.Subscript()]):
            return True
        case ast.Assign(value=ast.BinOp() | ast.Call(func=ast.Attribute(value=ast.Name(id="np")))):
            return True
        case _:
            return False


OPPOSITE = {"add": "subtract", "subtract": "add"}


def spoilt(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """``statement`` with one mistake, in every way that applies."""
    if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
        yield "statement dropped", ast.Pass()
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name in OPPOSITE:
                yield "sign flipped", replaced(statement, node, ast.Attribute(node.value, OPPOSITE[name], node.ctx))
            case ast.Call(func=ast.Name(id=name) as function) if name in OPPOSITE:  # a loop's local name
                opposite = ast.Attribute(ast.Name("np", ast.Load()), OPPOSITE[name], ast.Load())
                yield "sign flipped", replaced(statement, function, opposite)
            case ast.BinOp(op=ast.Add() | ast.Sub() as op):
                other = ast.Sub() if isinstance(op, ast.Add) else ast.Add()
                if not in_slice(statement, node):
                    yield "sign flipped", replaced(statement, node, ast.BinOp(node.left, other, node.right))
            case ast.Constant(value=float() as value) if value and not in_slice(statement, node):
                yield "sign flipped", replaced(statement, node, ast.UnaryOp(ast.USub(), node))
            case ast.Attribute(attr=name) if name.endswith("_prev"):
                now = name.removesuffix("_prev")
                yield "h[t] for h[t-1]", replaced(statement, node, ast.Attribute(node.value, now, node.ctx))
            case ast.Name(id=name) if name.endswith("_prev") and isinstance(statement, ast.Expr):
                yield "h[t] for h[t-1]", replaced(statement, node, ast.Name(name.removesuffix("_prev"), node.ctx))


def in_slice(statement: ast.stmt, node: ast.AST) -> bool:
    """Whether ``node`` is part of an index or a shape."""
    inside = [n.slice for n in ast.walk(statement) if isinstance(n, ast.Subscript)]
    inside += [a for n in ast.walk(statement) if isinstance(n, ast.Call) and method(n) in ("reshape", "empty") for a in n.args]
    return any(node is part for whole in inside for part in ast.walk(whole))


def method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def replaced(statement: ast.stmt, old: ast.AST, new: ast.AST) -> ast.stmt:
    """A copy of ``statement`` with ``new`` in the place of ``old``."""

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return new if node is old else super().visit(node)

    shallow = copy.copy(statement)
    for name, value in ast.iter_fields(statement):
        if isinstance(value, ast.AST):
            setattr(shallow, name, Replace().visit(spine(value, old)))
        elif isinstance(value, list):
            setattr(shallow, name, [Replace().visit(spine(item, old)) for item in value])
    return shallow


def spine(node: ast.AST, old: ast.AST) -> ast.AST:
    """A copy of ``node`` down to ``old``, which stays itself."""
    if node is old:
        return node
    new = copy.copy(node)
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            setattr(new, name, spine(value, old))
        elif isinstance(value, list):
            setattr(new, name, [spine(item, old) if isinstance(item, ast.AST) else item for item in value])
    return new


def swapped(statement: ast.stmt, follower: ast.stmt | None) -> Iterator[tuple[str, ast.stmt]]:
    """``statement`` reading the parameter that the next statement should read, ``params.Ui`` for ``params.Uf``."""
    mine, theirs = reads(statement), reads(follower) if follower is not None else []
    if len(mine) == 1 and len(theirs) == 1 and mine[0].attr[0] == theirs[0].attr[0] and mine[0].attr != theirs[0].attr:
        yield "gates swapped", replaced(statement, mine[0], theirs[0])


def reads(statement: ast.stmt) -> list[ast.Attribute]:
    """The parameters that a statement reads."""
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Attribute)]
    return [node for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "params"]


def outcome(cell: Cell, mutant: Mutant, drawn: Sample) -> str:
    """``survives``; ``differs`` where verification fails; ``raises`` where the mutant itself does."""
    module = compiled(mutant.tree)
    try:
        with np.errstate(all="ignore"):
            same = verify_sample(cell, module, drawn).ok and verify(cell, module, dtypes=(np.float64,)).ok
    except (ArithmeticError, AttributeError, NameError, TypeError, ValueError):
        return "raises"
    return "survives" if same else "differs"


CASES = [pytest.param(path, "speed", id=path.stem) for path in CELLS]
CASES.append(pytest.param(ROOT / "specs" / "gru.yaml", "memory", id="gru-memory"))


@pytest.mark.parametrize(("path", "residuals"), CASES)
def test_every_mutant_dies(path: Path, residuals: str) -> None:
    cell = cell_of(path)
    text = cellspec.generate(cell, residuals=residuals)
    drawn = draw(cell, steps=3, batch=2)
    sound = compiled(ast.parse(text))
    assert verify_sample(cell, sound, drawn).ok, "the module is wrong before it is spoilt"
    found = [(outcome(cell, mutant, drawn), f"{mutant.kind}: {mutant.where}") for mutant in mutants(text)]
    survivors = [what for result, what in found if result == "survives"]
    assert not survivors, "\n".join(["mutants that survive:", *survivors])
    results = Counter(result for result, _ in found)
    print(dict(results))
    assert results["differs"] >= 50 and results["differs"] >= 5 * results["raises"], "most die by their numbers"


def test_the_mutants_are_of_every_kind() -> None:
    """Over all cells, every kind of mistake is made at several sites."""
    kinds = Counter(mutant.kind for path in CELLS[:4] for mutant in mutants(cellspec.generate(cell_of(path))))
    assert set(kinds) == {"sign flipped", "statement dropped", "h[t] for h[t-1]", "gates swapped"}
    assert min(kinds.values()) >= 10, kinds
