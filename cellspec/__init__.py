"""cellspec: recurrent cells from their equations to fast, verified forward and backward code.

>>> import cellspec
>>> cell = cellspec.load("lstm")
>>> module = cellspec.build(cell)

Importing the package loads nothing else; its functions and errors do.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import ModuleType
    from typing import Any

    from cellspec.cell import Cell
    from cellspec.errors import CellspecError, CompilerError, Diagnostic, Location, SpecError
    from cellspec.verification.comparison import Report

__version__ = "0.1.0"

__all__ = [
    "RESIDUALS",
    "CellspecError",
    "CompilerError",
    "Diagnostic",
    "Location",
    "SpecError",
    "build",
    "generate",
    "load",
    "regularise",
    "verify",
]

RESIDUALS = ("speed", "memory")
"""What is kept between the passes: what saves work, or the states alone, from which the rest is computed again."""


def __getattr__(name: str) -> Any:
    """The errors, when they are first asked for."""
    if name in ("CellspecError", "CompilerError", "Diagnostic", "Location", "SpecError"):
        from cellspec import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'cellspec' has no attribute {name!r}")


def load(source: str | Path, settings: Mapping[str, str] | None = None) -> Cell:
    """The cell that a spec describes.

    ``source`` is a path or the name of a shipped cell; ``settings`` replaces hyperparameters and activations by name
    (``{"phi": "relu"}``). Raises :class:`SpecError` with every mistake of the file, :class:`CompilerError` for a bug.
    """
    from cellspec.errors import Reporter, blamed
    from cellspec.language.check.elaborate import elaborate
    from cellspec.language.read.loader import load_spec

    report = Reporter()
    spec = load_spec(source, settings, report)
    with blamed(f"cell {spec.name!r}"):
        return elaborate(spec, report)


def regularise(cell: Cell, *, zoneout: Collection[str] = (), state_dropout: Collection[str] = ()) -> Cell:
    """The cell with masks for zoneout and dropout of the states of these names: see :mod:`cellspec.passes.regularisers`."""
    from cellspec.passes import regularisers

    return regularisers.regularise(cell, zoneout=zoneout, state_dropout=state_dropout)


def generate(cell: Cell, backend: str = "numpy", residuals: str = "speed") -> str:
    """The text of a module that runs ``cell``; ``residuals`` is one of :data:`RESIDUALS`.

    Raises ValueError for an unknown ``backend``, and for ``residuals`` that are unknown or not for the backend;
    :class:`CompilerError` for a bug of the compiler.
    """
    from cellspec.backends import registry
    from cellspec.errors import blamed
    from cellspec.pipeline import compile_cell

    if residuals not in RESIDUALS:
        raise ValueError(f"unknown residuals {residuals!r}; there is {', '.join(RESIDUALS)}")
    chosen = registry.backend(backend)
    if residuals not in chosen.residual_policies:
        own = ", ".join(map(repr, chosen.residual_policies))
        able = registry.told(registry.able(residuals))
        raise ValueError(f"residuals={residuals!r} is for the {able}; the {chosen.title} backend has {own} alone")
    with blamed(f"cell {cell.name!r}"):
        return chosen.text(compile_cell(cell, residuals, chosen))


def build(cell: Cell, backend: str = "numpy", residuals: str = "speed") -> ModuleType:
    """A module that runs ``cell``, made in memory; the arguments and errors are those of :func:`generate`.

    Where a package is missing that modules of the backend need, it is a ModuleNotFoundError. Tracebacks show the module's
    source. What it makes can be pickled, and read where the same cell has been built; elsewhere reading it is a LookupError.
    """
    import linecache
    from types import ModuleType

    from cellspec import built
    from cellspec.backends import registry
    from cellspec.errors import blamed

    text = generate(cell, backend, residuals)
    told = (ModuleNotFoundError,) if registry.lacking(backend) else ()  # the module says itself what to install
    name = f"{cell.name}_{backend}" + (f"_{residuals}" if residuals != "speed" else "")
    module = ModuleType(name)
    file = f"<cellspec {name} {cell.sha256[:12]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    with blamed(f"cell {cell.name!r}", *told):
        exec(compile(text, file, "exec"), vars(module))  # the text is the compiler's own, made of checked names
    return built.register(module, text)


def verify(cell: Cell, module: ModuleType, *, seed: int = 0, exact: bool = True) -> Report:
    """What the equations of ``cell`` say of ``module``, generated from it for any backend, on random inputs.

    Results and every gradient, in float64 and float32, with lengths and resets; ``exact`` adds exact gradients.
    The report is ``ok`` or not, and prints as a table of the worst errors beside what is allowed. Arrays are NumPy's; other
    libraries' modules are held to the equations by ``cellspec verify --backend``. Raises nothing; what is tried is listed at
    :func:`cellspec.verification.check.verify`.
    """
    from cellspec.verification import check

    return check.verify(cell, module, seed=seed, exact=exact)
