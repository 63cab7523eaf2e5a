"""Trees of arrays: nested tuples, mostly named ones, as parameters and states are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


def made_like(node: tuple[Any, ...], parts: Sequence[Any]) -> tuple[Any, ...]:
    """A tuple of ``parts`` of the type of ``node``."""
    return type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of ``function(leaf, …)`` over the leaves of trees of the same structure, named tuples by their fields."""
    if not isinstance(tree, tuple):
        return function(tree, *others)
    for other in others:
        if not isinstance(other, tuple) or len(other) != len(tree):
            raise ValueError(
                f"the trees differ in structure: one has {type(tree).__name__} of {len(tree)} where another has not"
            )
    others = tuple(_in_order(tree, other) for other in others)
    return made_like(tree, [tree_map(function, *each) for each in zip(tree, *others, strict=True)])


def _in_order(tree: Any, other: Any) -> Any:
    """The parts of ``other`` in the order of ``tree``'s fields, where both have some."""
    fields, own = getattr(tree, "_fields", None), getattr(other, "_fields", None)
    if fields == own or fields is None or own is None:
        return other
    if set(fields) != set(own):
        raise ValueError(f"the trees differ in structure: one has the fields {', '.join(fields)}, another {', '.join(own)}")
    return tuple(getattr(other, field) for field in fields)


def leaves(tree: Any) -> list[Any]:
    """The arrays of a tree, from left to right."""
    return list(named(tree).values())


def named(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths: ``0.forward.Wi``."""
    return dict(_walk(tree, ()))


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, tuple):
        yield ".".join(path), tree
        return
    for name, part in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True):
        yield from _walk(part, (*path, str(name)))


def rebuilt(tree: Any, arrays: Sequence[Any]) -> Any:
    """A tree of the structure of ``tree`` with other leaves, given from left to right."""
    remaining = iter(arrays)
    return tree_map(lambda _: next(remaining), tree)


def flatten(tree: Any, xp: Any = np) -> tuple[Any, Callable[[Any], Any]]:
    """``(vector, unflatten)``: a copy of all leaves in one vector, and what makes such a vector a tree of views into it.

    An optimiser then knows nothing of layers: what it does to the vector in place happens to the tree, as long as the vector
    lies in one piece. ``xp`` is the array library (``layer.xp``). Raises TypeError for leaves of several dtypes, and from
    ``unflatten`` ValueError for a vector of another length.
    """
    arrays = leaves(tree)
    dtypes = {str(array.dtype) for array in arrays}
    if len(dtypes) != 1:
        raise TypeError(f"flatten takes a tree of arrays of one dtype, got {', '.join(sorted(dtypes)) or 'no array'}")
    shapes = [array.shape for array in arrays]
    ends = [0, *np.cumsum([array.size for array in arrays]).tolist()]

    def unflatten(vector: Any) -> Any:
        if vector.shape != (ends[-1],):
            raise ValueError(f"the vector has shape {vector.shape}, expected {(ends[-1],)}")
        spans = zip(ends, ends[1:], shapes, strict=False)
        return rebuilt(tree, [vector[start:end].reshape(shape) for start, end, shape in spans])

    return xp.concatenate([array.reshape(-1) for array in arrays]), unflatten


def clip_by_global_norm(tree: Any, max_norm: float) -> tuple[Any, float]:
    """``(tree, norm)``: the tree scaled to a norm of at most ``max_norm``, and its norm before (Pascanu et al., 2013).

    The norm is that of all leaves as one vector, summed in float64. A tree within it is returned as it is, and so is one with
    a norm that is not finite: look at ``norm``. Raises ValueError unless ``max_norm`` is positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}, expected a positive number")
    norm = math.sqrt(sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in leaves(tree)))
    if not max_norm < norm < math.inf:
        return tree, norm
    return tree_map(lambda leaf: leaf * leaf.dtype.type(max_norm / norm), tree), norm
