"""What a generated module tells of itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast

import numpy as np

from cellspec.built import module_of
from cellspec.model.generated import CONSTANTS, FUNCTIONS, TYPES, GeneratedModule, Shapes


def checked(module: object) -> GeneratedModule:
    """``module``, which must be a generated one, of this version."""
    if not isinstance(module, ModuleType) or not hasattr(module, "SPEC_SHA256"):
        raise TypeError(f"Layer takes a generated module, got {getattr(module, '__name__', type(module).__name__)}")
    found = cast(GeneratedModule, module)
    if missing := [name for name in (*CONSTANTS, *TYPES, *FUNCTIONS) if not hasattr(module, name)]:
        raise ValueError(
            f"{module.__name__} is of an older version and has no {', '.join(missing)}: cellspec generate {found.CELL}"
        )
    return found


class Held:
    """A generated module that a layer holds: copies of the layer hold the same, and a pickle names one of its classes."""

    def __init__(self, module: GeneratedModule) -> None:
        self.module = module

    def __copy__(self) -> Held:
        return self

    def __deepcopy__(self, memo: Any) -> Held:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _held, (self.module.Params,)


def _held(params: type) -> Held:
    """What holds the module whose ``Params`` this is."""
    module = module_of(params)
    assert module is not None, "a class that a pickle names can be found"
    return Held(cast(GeneratedModule, module))


def array_library(module: GeneratedModule) -> Any:
    """NumPy, or CuPy, whichever the module runs on."""
    return getattr(module, "cp", np)


def check_dims(module: GeneratedModule, dims: Mapping[str, Any]) -> dict[str, int]:
    """The dims in the module's order: each one, and no other, a positive integer."""
    if set(dims) != set(module.DIMS):
        names = ", ".join(sorted(dims)) or "none"
        raise TypeError(f"the dims of {module.CELL} are {', '.join(module.DIMS)}; got {names}")
    for name, value in dims.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected an integer, 1 or more")
    return {name: int(dims[name]) for name in module.DIMS}


def shapes_of(shapes: Shapes, dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of one of a module's tables, by name: ``{"Wi": (128, 64), …}``."""
    # The texts are polynomials over the dims, in a module that has been imported: nothing runs that has not run already.
    return {name: tuple(eval(axis, {"__builtins__": {}}, dict(dims)) for axis in axes) for name, axes in shapes.items()}


def untold_dims(function: Callable[..., Any], dims: Mapping[str, int]) -> dict[str, int]:
    """The dims that a function of the module asks for, as no parameter's shape tells them."""
    return {name: dims[name] for name in inspect.signature(function).parameters if name in dims}
