"""The rows of the table of operations: that there is one for each, and that what they say is true of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import sympy

from cellspec import ir
from cellspec.ir import Combine, ErrorFlow, Op, Operation, Program, Value, symbol
from cellspec.ir.text import program_text
from cellspec.model.nodes import Shape
from cellspec.passes.accuracy import delicate
from cellspec.passes.adjoint import adjoint_prologue, adjoint_step
from cellspec.passes.exchanges import exchanges
from cellspec.passes.residuals import select
from cellspec.passes.schedule import schedule
from cellspec.passes.simplify import simplify

Array = npt.NDArray[np.float64]
a, b = symbol("a"), symbol("b")


@dataclass(frozen=True)
class Example:
    """An operation that defines ``y``, what it computes, and the shapes of its operands."""

    op: Op
    meaning: Callable[..., Array]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.op.reads()))

    def arrays(self, seed: int = 0) -> list[Array]:
        rng = np.random.default_rng(seed)
        return [rng.uniform(0.5, 2.0, shape) for shape in self.shapes]

    def __call__(self, *arrays: Array) -> Array:
        return np.asarray(self.meaning(*arrays))

    def program(self) -> Program:
        """The operation alone, of constants."""
        shapes = {**dict(zip(self.names, self.shapes, strict=True)), "y": self(*self.arrays()).shape}
        return _program(shapes, self.names, (self.op,), ("y",))


def _program(shapes: Mapping[str, tuple[int, ...]], constants: tuple[str, ...], ops: tuple[Op, ...], outs: Any) -> Program:
    values = {name: Value(name, tuple(map(sympy.Integer, shape)), name) for name, shape in shapes.items()}
    return Program(MappingProxyType(values), constants, (), (), ops, outs)


def _outer(left: Array, right: Array) -> Array:
    return left[..., :, None] * right[..., None, :]


def _heads(left: Array, right: Array) -> Array:
    return np.einsum("nmk,nk->nm", left, right)


I = sympy.Integer  # noqa: E741 - as SymPy's own
EXAMPLES = {
    "Pointwise": Example(ir.Pointwise("y", a * b**2 / (a + b)), lambda a, b: a * b**2 / (a + b), ((3, 4), (3, 1))),
    "Pointwise copy": Example(ir.Pointwise("y", a), lambda a: a, ((3,),)),
    "MatMul": Example(ir.MatMul("y", "a", "b"), lambda a, b: a @ b, ((3, 4), (4,))),
    "MatMul of matrices": Example(ir.MatMul("y", "a", "b"), lambda a, b: a @ b, ((3, 4), (4, 2))),
    "MatMul by heads": Example(ir.MatMul("y", "a", "b"), _heads, ((2, 3, 4), (2, 4))),
    "MatMul transposed": Example(ir.MatMul("y", "a", "b", left_t=True), lambda a, b: a.T @ b, ((4, 3), (4,))),
    "Product": Example(
        ir.Product(("y",), (("a", "b"),), ("v", "w")), lambda a, b, v, w: a @ v + b @ w, ((3, 4), (3, 2), (4,), (2,))
    ),
    "Outer": Example(ir.Outer("y", "a", "b"), _outer, ((3,), (4,))),
    "Outer by heads": Example(ir.Outer("y", "a", "b"), _outer, ((2, 3), (2, 4))),
    "Concat": Example(ir.Concat("y", ("a", "b", "c")), lambda *p: np.concatenate(p, -1), ((3, 2), (3, 1), (3, 4))),
    "Slice": Example(ir.Slice("y", "a", I(1), I(3)), lambda a: a[..., 1:3], ((2, 5),)),
    "Transpose": Example(ir.Transpose("y", "a"), lambda a: a.T, ((2, 3),)),
    "Eye": Example(ir.Eye("y"), lambda: np.eye(3), ()),
    "Inverse": Example(ir.Inverse("y", "a"), np.linalg.inv, ((3, 3),)),
    "Index": Example(ir.Index("y", "a", 1), lambda a: a[1], ((3, 2, 2),)),
    "Stack": Example(ir.Stack("y", ("a", "b")), lambda *p: np.stack(p), ((2, 3), (2, 3))),
    "Reshape": Example(ir.Reshape("y", "a"), lambda a: a.reshape(2, 6), ((3, 4),)),
    "Largest": Example(ir.Largest("y", "a"), lambda a: a.max(-1, keepdims=True), ((2, 4),)),
    "CumSum": Example(ir.CumSum("y", "a"), lambda a: a.cumsum(-1), ((2, 4),)),
    "CumSum from the end": Example(ir.CumSum("y", "a", True), lambda a: a[..., ::-1].cumsum(-1)[..., ::-1], ((4,),)),
    "Roll": Example(ir.Roll("y", "a", 1), lambda a: np.roll(a, 1, -1), ((2, 4),)),
    "SumTo": Example(ir.SumTo("y", "a"), lambda a: a.sum((0, 2), keepdims=True), ((2, 3, 4),)),
    "SumTo a number": Example(ir.SumTo("y", "a"), lambda a: a.sum(keepdims=True), ((4,),)),
    "Stop": Example(ir.Stop("y", "a"), lambda a: a, ((3,),)),
}  # fmt: skip
every = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)


# --- the table -----------------------------------------------------------------------------------------------------


def _below(kind: Any) -> set[Any]:
    """All classes that derive from ``kind``."""
    return {kind}.union(*(_below(sub) for sub in kind.__subclasses__()))


def test_every_operation_is_a_row_and_every_row_is_whole() -> None:
    concrete = {
        kind for kind in _below(Operation) if not kind.__abstractmethods__ and kind.__module__.startswith("cellspec.")
    }  # fmt: skip
    assert concrete == set(get_args(Op))
    assert {kind.__name__ for kind in concrete} <= set(ir.__all__)
    for kind in concrete:
        assert isinstance(kind.traits, ir.Traits), kind
    assert {type(example.op) for example in EXAMPLES.values()} == concrete, "an operation without an example"


def test_traits_are_all_asked_of_a_new_operation() -> None:
    """What is False for most may be left out; what has no such answer may not."""
    assert {f.name for f in fields(ir.Traits)} == {"errors", "cheap", "crosses_units", "stops", "view"}
    with pytest.raises(TypeError, match=r"missing 3 required keyword-only arguments"):
        ir.Traits()  # type: ignore[call-arg]


@every
def test_names_are_read_defined_and_replaced(example: Example) -> None:
    op, names = example.op, {name: f"{name} new" for name in example.names}
    assert ir.rename(op, names).reads() == tuple(names[name] for name in op.reads())
    assert ir.rename(op, names).defines() == op.defines() == ("y",)
    assert ir.rename(op, {"other": "z"}) == op
    renamed = ir.with_out(op, "z")
    assert (renamed.defines(), renamed.reads(), type(renamed)) == (("z",), op.reads(), type(op))
    assert set(op.samples()) <= set(op.reads())


@every
def test_every_operation_has_a_text(example: Example) -> None:
    line = program_text(example.program()).splitlines()[-2]
    assert line.lstrip().startswith("y: [")
    assert all(name in line.split("=", 1)[1] for name in example.names)


# --- shapes --------------------------------------------------------------------------------------------------------


@every
def test_the_shape_rule_is_numpys(example: Example) -> None:
    """What NumPy makes of the operands fits, and nothing else does: neither another axis, nor a longer one."""
    program = example.program()
    assert ir.typecheck(program) is program
    shape = program.shape("y")
    wrong = [(*shape, I(7)), *((*shape[:k], n + 1, *shape[k + 1 :]) for k, n in enumerate(shape))]
    for other in wrong:
        if isinstance(example.op, ir.Eye) and len(set(other)) == 1:
            continue
        if isinstance(example.op, ir.Pointwise) and ir.stretches(program.shape("a"), other):
            continue
        if isinstance(example.op, ir.SumTo) and ir.stretches(other, program.shape("a")):
            continue
        values = {**program.values, "y": Value("y", other, "y")}
        with pytest.raises(ir.TypecheckError, match="shapes do not fit"):
            ir.typecheck(Program(MappingProxyType(values), program.constants, (), (), program.ops, ("y",)))


def test_a_pointwise_operation_is_a_number() -> None:
    program = _program({"a": (3,), "y": (3,)}, ("a",), (ir.Pointwise("y", a * sympy.zoo),), ("y",))
    with pytest.raises(ir.TypecheckError, match="'y' is not a number"):
        ir.typecheck(program)


# --- traits --------------------------------------------------------------------------------------------------------


@every
def test_views_share_memory(example: Example) -> None:
    arrays = example.arrays()
    shared = any(np.shares_memory(array, example(*arrays)) for array in arrays)
    assert shared == (example.op.traits.view or example.op.source() is not None)


@every
def test_moves_have_elements_of_their_operand(example: Example) -> None:
    op, arrays = example.op, example.arrays()
    result = example(*arrays)
    moved = len(arrays) == 1 and set(result.ravel()) <= set(arrays[0].ravel())
    assert moved == isinstance(op, ir.Move) or op.source() is not None or isinstance(op, ir.Largest)
    if isinstance(op, ir.Move):
        assert op.in_order == np.array_equal(result.ravel(), arrays[0].ravel())


@every
def test_joined_parts_are_one_after_the_other(example: Example) -> None:
    arrays = example.arrays()
    joined = len(arrays) > 1 and sorted(example(*arrays).ravel()) == sorted(x for array in arrays for x in array.ravel())
    assert joined == isinstance(example.op, ir.Joined)


@pytest.mark.parametrize("example", [e for e in EXAMPLES.values() if isinstance(e.op, ir.Along)], ids=lambda e: str(e.op))
def test_functions_along_an_axis_combine_its_elements(example: Example) -> None:
    op, arrays = example.op, example.arrays()
    assert isinstance(op, ir.Along)
    whole: Any = {Combine.SUM: np.sum, Combine.LARGEST: np.max}[op.combines]
    result = example(*arrays)
    assert op.reduces == (result.size < arrays[0].size)
    if op.reduces:
        axes = tuple(k for k, size in enumerate(result.shape) if size == 1)
        np.testing.assert_allclose(result, whole(arrays[0], axis=axes, keepdims=True))
    else:  # somewhere, all elements have been combined
        np.testing.assert_allclose(result.max(-1), whole(arrays[0], axis=-1))


@every
def test_errors_flow_as_numbers_do(example: Example) -> None:
    """Twice the operands make twice the result, four times a product, half an inverse."""
    arrays = example.arrays()
    doubled, result = example(*(2 * array for array in arrays)), example(*arrays)
    factor = {ErrorFlow.SAME: 2, ErrorFlow.PRODUCT: 4, ErrorFlow.RATIO: 0.5}
    if isinstance(example.op, ir.Pointwise):
        assert example.op.traits.errors is ErrorFlow.EXPRESSION
    elif arrays:
        np.testing.assert_allclose(doubled, factor[example.op.traits.errors] * result)


@every
def test_what_crosses_units_reads_others(example: Example) -> None:
    """A unit that reads another one of the same value crosses; but parts, views and joints only have other numbers."""
    op, arrays = example.op, example.arrays()
    result = example(*arrays)
    mixes = False
    for k, array in enumerate(arrays):
        for unit in (0, array.size - 1):
            changed = [other.copy() for other in arrays]
            changed[k].flat[unit] += 10.0
            there = np.flatnonzero(~np.isclose(example(*changed), result))
            mixes |= bool(set(there) - {unit}) if array.shape == result.shape else result.size != array.size
    numbers_only = isinstance(op, ir.Joined | ir.Pointwise) or op.traits.view
    assert op.traits.crosses_units == (mixes and not numbers_only)


@dataclass(frozen=True)
class Flip(ir.Move):
    """``out[j] = operand[-1 - j]``: an operation that nothing in the compiler knows."""

    traits = ir.Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == shapes[self.operand]

    def transpose(self, back: Any, d_out: str) -> None:
        back.add(self.operand, back.emit(Flip(f"flip({d_out})", d_out), back.shape(self.operand), self.out))


# --- transpose rules -----------------------------------------------------------------------------------------------


def _run(program: Program, given: Mapping[str, Array]) -> dict[str, Array]:
    """The values of a program: its operations by what they mean, told here once more."""
    found = dict(given)
    for op in program.ops:
        args = [found[name] for name in op.reads()]
        (out,) = op.defines()
        shape = tuple(map(int, program.shape(out)))
        match op:
            case ir.Pointwise(expr=expr):
                dummies = [sympy.Dummy() for _ in args]
                names = dict(zip(map(symbol, op.reads()), dummies, strict=True))
                value = sympy.lambdify(dummies, expr.xreplace(names))(*args)
            case ir.MatMul(left_t=left_t, right_t=right_t):
                left, right = (np.swapaxes(x, -1, -2) if t else x for x, t in zip(args, (left_t, right_t), strict=True))
                value = _heads(left, right) if left.ndim == 3 else left @ right
            case ir.Outer():
                value = _outer(*args)
            case ir.Concat():
                value = np.concatenate(args, -1)
            case ir.Slice(start=start, stop=stop):
                value = args[0][..., int(start) : int(stop)]
            case ir.Transpose():
                value = args[0].T
            case ir.Index(index=index):
                value = args[0][index]
            case ir.Stack():
                value = np.stack(args)
            case ir.Reshape():
                value = args[0].reshape(shape)
            case ir.CumSum(reverse=reverse):
                value = args[0][..., ::-1].cumsum(-1)[..., ::-1] if reverse else args[0].cumsum(-1)
            case ir.Roll(shift=shift):
                value = np.roll(args[0], shift, -1)
            case ir.SumTo():
                axes = tuple(k for k, size in enumerate(shape) if size != args[0].shape[k])
                value = args[0].sum(axes, keepdims=True)
            case ir.Inverse():
                value = np.linalg.inv(args[0])
            case Flip():
                value = args[0][..., ::-1]
            case _:
                raise NotImplementedError(op)
        found[out] = np.broadcast_to(value, shape)
    return found


def _check_transpose(program: Program, function: Callable[..., Array], names: tuple[str, ...], arrays: list[Array]) -> None:
    """``<dy, J v> = <Jᵀ dy, v>`` for the derivative J, by central differences, and for the program's adjoint."""
    adjoint = adjoint_prologue(program, names, ("y",)).program
    rng = np.random.default_rng(1)
    dy = rng.standard_normal(program.shape("y"))
    moves = [rng.standard_normal(array.shape) for array in arrays]
    given = {**dict(zip(names, arrays, strict=True)), "y": function(*arrays), "d:y total": dy}
    result = _run(adjoint, given)
    eps = 1e-6
    ahead, behind = (function(*(x + s * v for x, v in zip(arrays, moves, strict=True))) for s in (eps, -eps))
    expected = np.sum(dy * (ahead - behind) / (2 * eps))
    assert abs(expected) > 1e-3
    got = sum(np.sum(result[f"d:{name}"] * v) for name, v in zip(names, moves, strict=True))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


AFTERWARDS = (ir.Product, ir.Outer)
"""What only comes into being by or after differentiation."""


@every
def test_transpose_rules(example: Example) -> None:
    op = example.op
    if isinstance(op, AFTERWARDS) or (isinstance(op, ir.MatMul) and op.left_t):
        with pytest.raises(NotImplementedError, match="no transpose rule for"):
            adjoint_prologue(example.program(), example.names, ("y",))
    elif op.traits.stops or not example.names:
        assert adjoint_prologue(example.program(), example.names, ("y",)).program.outputs == ()
    else:
        _check_transpose(example.program(), example, example.names, example.arrays())


@pytest.mark.parametrize(
    "blocks",
    [((0, 2), (2, 5)), ((0, 2), (1, 5)), ((1, 3),), ((0, 5), (0, 5)), ((3, 5), (0, 3), (1, 2))],
    ids=["tiles", "overlap", "gaps", "twice", "tiles and one more"],
)
def test_cotangents_of_column_blocks(blocks: tuple[tuple[int, int], ...]) -> None:
    """Every block's cotangent comes where the block was, whatever the others cover."""
    parts = [ir.Slice(f"s{k}", "a", I(start), I(stop)) for k, (start, stop) in enumerate(blocks)]
    shapes = {"a": (2, 5), **{part.out: (2, stop - start) for part, (start, stop) in zip(parts, blocks, strict=True)}}
    shapes["y"] = (2, sum(stop - start for start, stop in blocks))
    program = _program(shapes, ("a",), (*parts, ir.Concat("y", tuple(part.out for part in parts))), ("y",))
    _check_transpose(
        program, lambda a: np.concatenate([a[:, start:stop] for start, stop in blocks], 1), ("a",), [np.ones((2, 5))]
    )


def test_cotangents_of_a_familys_members() -> None:
    """Members that nothing reads get zeros, those that are read twice both."""
    members = tuple(ir.Index(f"m{k}", "a", index) for k, index in enumerate((2, 0, 2)))
    shapes = {"a": (3, 2), **{m.out: (2,) for m in members}, "y": (6,)}
    program = _program(shapes, ("a",), (*members, ir.Concat("y", tuple(m.out for m in members))), ("y",))
    _check_transpose(program, lambda a: np.concatenate([a[2], a[0], a[2]]), ("a",), [np.ones((3, 2))])


# --- an operation that is new ------------------------------------------------------------------------------------------


def _with_a_flip() -> Program:
    """A step that divides by what it has turned round: ``h = 1/flip(W@h0*x) + W@h0 + x``."""
    step = _program(
        {"W": (3, 3), "x": (3,), "h0": (3,), "p": (3,), "s": (3,), "r": (3,), "a": (3,), "h": (3,)},
        ("W",),
        (
            ir.MatMul("p", "W", "h0"),
            ir.Pointwise("s", symbol("p") * symbol("x")),
            Flip("r", "s"),  # type: ignore[arg-type]
            ir.Pointwise("a", symbol("p") + symbol("x")),
            ir.Pointwise("h", 1 / symbol("r") + symbol("a")),
        ),
        ("h",),
    )
    return ir.typecheck(replace(step, sequences=("x",), carries=(ir.Carry("h0", "h"),)))


def test_passes_know_what_to_do_with_a_new_operation() -> None:
    """Its row tells them all: shapes, cotangents, errors, what to keep and what to tell other units."""
    step = _with_a_flip()
    assert {"r", "s"} <= delicate(step)  # it is divided by, and moving it hands that on
    adjoint = adjoint_step(step, ("x",), ("W",))
    assert any(isinstance(op, Flip) for op in adjoint.program.ops)
    kept = select(step, adjoint)
    assert "r" not in kept.stash and "r" in kept.again, "a move is cheap enough to be made again"
    rounds = exchanges(schedule(simplify(step)))
    assert [[type(op) for op in found.readers] for found in rounds] == [[ir.Product], [Flip]]

    rng = np.random.default_rng(3)
    given = {"W": rng.standard_normal((3, 3)), "x": rng.uniform(1, 2, 3), "h0": rng.uniform(1, 2, 3)}
    dy, move = rng.standard_normal(3), rng.standard_normal(3)
    ahead, behind = (_run(step, {**given, "x": given["x"] + e * move})["h"] for e in (1e-6, -1e-6))
    back = kept.backward
    seeds = {"d:h given": dy, "d:h<-": np.zeros(3)}
    result = _run(back, {**_run(step, given), **seeds})
    np.testing.assert_allclose(np.sum(result["d:x"] * move), np.sum(dy * (ahead - behind) / 2e-6), rtol=1e-6)


def test_a_function_along_an_axis_is_an_exchange() -> None:
    """What combines all units has to wait for them, whatever it makes of them."""
    step = _program(
        {"x": (3,), "h0": (3,), "top": (1,), "e": (3,), "sums": (3,), "h": (3,)},
        (),
        (
            ir.Largest("top", "h0"),
            ir.Pointwise("e", symbol("h0") - symbol("top") + symbol("x")),
            ir.CumSum("sums", "e"),
            ir.Pointwise("h", symbol("sums") + 1),
        ),
        ("h",),
    )
    step = ir.typecheck(replace(step, sequences=("x",), carries=(ir.Carry("h0", "h"),)))
    assert [found.carries for found in exchanges(schedule(step))] == [(("h0", (I(3),)),), (("e", (I(3),)),)]
