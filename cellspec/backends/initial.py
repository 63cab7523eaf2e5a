"""How parameters start: the initialiser functions that a module needs, and the calls of them."""

from __future__ import annotations

from collections.abc import Iterable

from cellspec.backends.dims import tuple_text
from cellspec.backends.plain import float_text
from cellspec.model.equations import Param


def call(param: Param, rng: str, numpy: str) -> str:
    """The expression that initialises ``param``, with the names of the generator and of NumPy; ``dtype`` is at hand."""
    shape = tuple_text(param.shape, {})
    numbers = ", ".join(float_text(n) for n in param.init.numbers)
    if param.init.kind == "constant":
        return f"{numpy}.full({shape}, {numbers}, dtype)"
    arguments = f"{rng}, {shape}, dtype" + (f", {numbers}" if numbers else "")
    return f"_{param.init.kind}({arguments})"


def needed(params: Iterable[Param]) -> list[str]:
    """The initialiser functions that the module defines."""
    return sorted({param.init.kind for param in params} - {"constant"})
