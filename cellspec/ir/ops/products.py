"""Products of matrices, and what makes matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from cellspec.ir.ops.row import Backward, ErrorFlow, Move, Operation, Single, Traits, Unary
from cellspec.ir.shapes import outer, product, turned
from cellspec.model.nodes import Shape

_BY_PRODUCT = Traits(errors=ErrorFlow.PRODUCT, cheap=False, crosses_units=True)


@dataclass(frozen=True)
class _Pair(Single):
    """An operation of two operands."""

    left: str
    right: str

    traits = _BY_PRODUCT

    def reads(self) -> tuple[str, ...]:
        return (self.left, self.right)

    def reading(self, names: Mapping[str, str]) -> Self:
        return replace(self, left=names.get(self.left, self.left), right=names.get(self.right, self.right))


@dataclass(frozen=True)
class MatMul(_Pair):
    """``out = left @ right``, ``left`` transposed first if ``left_t``, ``right`` if ``right_t``.

    A ``left`` of three axes holds a matrix for each head, ``[n, m, k] @ [n, k]``, each of them transposed if ``left_t``.
    """

    left_t: bool = False
    right_t: bool = False

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        left, right = turned(shapes[self.left], self.left_t), turned(shapes[self.right], self.right_t)
        return product(left, right) == shapes[self.out]

    def transpose(self, back: Backward, d_out: str) -> None:
        if self.left_t or self.right_t:
            raise _never(self)
        left, right = self.left, self.right
        if back.wants(left):
            made: Operation = Outer(f"{d_out}⊗{right}", d_out, right)
            if len(back.shape(left)) == len(back.shape(right)) == 2:
                made = MatMul(f"{d_out}@{right}.T", d_out, right, right_t=True)
            back.add(left, back.emit(made, back.shape(left), self.out))
        if back.wants(right):
            made = MatMul(f"{left}.T@{d_out}", left, d_out, left_t=True)
            back.add(right, back.emit(made, back.shape(right), right))


@dataclass(frozen=True)
class Product(Operation):
    """Packed products, ``outs[r] = sum_k weights[r][k] @ operands[k]``: one block matrix times stacked vectors.

    With ``transposed``, every weight is transposed first.
    """

    outs: tuple[str, ...]
    weights: tuple[tuple[str, ...], ...]
    operands: tuple[str, ...]
    transposed: bool = False

    traits = _BY_PRODUCT

    def reads(self) -> tuple[str, ...]:
        return (*(weight for row in self.weights for weight in row), *self.operands)

    def samples(self) -> tuple[str, ...]:
        return self.operands

    def defines(self) -> tuple[str, ...]:
        return self.outs

    def reading(self, names: Mapping[str, str]) -> Product:
        weights = tuple(tuple(names.get(w, w) for w in row) for row in self.weights)
        return replace(self, weights=weights, operands=tuple(names.get(v, v) for v in self.operands))

    def defining(self, out: str) -> Product:
        return replace(self, outs=(out,))

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return all(
            product(turned(shapes[w], self.transposed), shapes[v]) == shapes[out]
            for out, row in zip(self.outs, self.weights, strict=True)
            for w, v in zip(row, self.operands, strict=True)
        )

    def transpose(self, back: Backward, d_out: str) -> None:
        raise _never(self)


@dataclass(frozen=True)
class Outer(_Pair):
    """``out = left rightᵀ``: what one step adds to the gradient of a matrix; of each head's matrix, if it has heads."""

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == outer(shapes[self.left], shapes[self.right])

    def transpose(self, back: Backward, d_out: str) -> None:
        raise _never(self)


@dataclass(frozen=True)
class Transpose(Move):
    """``out = operandᵀ``."""

    traits = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=False, view=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == shapes[self.operand][::-1]

    def transpose(self, back: Backward, d_out: str) -> None:
        back.add(self.operand, back.emit(Transpose(f"{d_out}.T", d_out), back.shape(self.operand), self.out))


@dataclass(frozen=True)
class Inverse(Unary):
    """``out``: the inverse of the matrix ``operand``."""

    traits = Traits(errors=ErrorFlow.RATIO, cheap=False, crosses_units=True)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return shapes[self.out] == shapes[self.operand] and _is_square(shapes[self.out])

    def transpose(self, back: Backward, d_out: str) -> None:
        """``dA = -Yᵀ dY Yᵀ`` for the inverse ``Y`` of ``A``."""
        out, shape = self.out, back.shape(self.out)
        left = back.emit(MatMul(f"{out}.T@{d_out}", out, d_out, left_t=True), shape, out)
        both = back.emit(MatMul(f"{left}@{out}.T", str(left.name), out, right_t=True), shape, out)
        back.add(self.operand, -both)


@dataclass(frozen=True)
class Eye(Single):
    """``out``: the identity matrix."""

    traits = Traits(errors=ErrorFlow.SAME, cheap=True, crosses_units=False)

    def reads(self) -> tuple[str, ...]:
        return ()

    def reading(self, names: Mapping[str, str]) -> Eye:
        return self

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        return _is_square(shapes[self.out])

    def transpose(self, back: Backward, d_out: str) -> None:
        """It reads nothing."""


def _is_square(shape: Shape) -> bool:
    return len(shape) == 2 and shape[0] == shape[1]


def _never(op: Operation) -> NotImplementedError:
    """Packed, outer and transposed products come into being after, or by, differentiation."""
    return NotImplementedError(f"no transpose rule for {op}")
