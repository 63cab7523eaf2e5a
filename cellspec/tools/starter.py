"""The text of a new spec, complete enough to pass ``cellspec check``, with hints for what comes next."""

from __future__ import annotations

import os
from pathlib import Path

from cellspec import load
from cellspec.errors import Location, Reporter, SpecError
from cellspec.language.names import RESERVED, check_name
from cellspec.language.read.paths import shipped_dir, shipped_names
from cellspec.language.schema import PATH as SCHEMA
from cellspec.render.unicode import assignments
from cellspec.tools.arguments import UsageMistake
from cellspec.tools.write import reason

WHOLE = """\
name: {name}
title: A leaky unit with one gate
doc: |
  The gate f decides how much of the state h is kept; what is not kept is filled with the candidate n.
inputs: {{x: I}}
states: {{h: H}}
params:
  W{{f,n}}: [H, I]                 # braces expand: Wf, Wn
  U{{f,n}}: {{shape: [H, H], init: orthogonal}}
  bf: {{shape: H, init: 1}}
  bn: H
activations: {{sigma: sigmoid, phi: tanh}}
equations: |
  f = sigma(Wf @ x[t] + Uf @ h[t-1] + bf)
  n = phi(Wn @ x[t] + Un @ h[t-1] + bn)
  h[t] = f*h[t-1] + (1 - f)*n
expect: {{params: "2*(H*I + H*H + H)", stages: 1}}
"""

VARIANT = """\
name: {name}
title: A variant of {parent}
extends: {parent}
doc: |
  Say here how it differs. What is not written below is as in {parent}.
# An equation replaces the parent's equation with the same left side; a new one is added.
# What is no longer needed is dropped: 'remove: [bf]'. The parent's equations:
#
# equations: |
{equations}
"""


def write_starter(folder: Path, name: str, parent: str | None = None) -> Path:
    """Write ``name.yaml`` into ``folder``, a variant of ``parent`` if that is given; the path of the file.

    Raises :class:`~cellspec.tools.arguments.UsageMistake` for a name that no cell can have, an unknown parent, or a
    file that exists.
    """
    name = _checked(name)
    path = folder / f"{name}.yaml"
    text = _schema_line(folder) + (WHOLE.format(name=name) if parent is None else _variant(name, parent, folder))
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageMistake(f"{path.name!r} exists already; nothing was written") from None
    except OSError as error:
        raise UsageMistake(f"cannot write {path.name!r}: {reason(error)}") from None
    return path


def _checked(name: str) -> str:
    """The name as Python normalises it."""
    report = Reporter()
    checked = name if name in RESERVED and name.isidentifier() else check_name(name, Location(name, 1, 1), report, "a cell")
    if checked is None:
        raise UsageMistake("; ".join(diagnostic.message for diagnostic in report.diagnostics))
    if checked in shipped_names():
        raise UsageMistake(f"there is a shipped cell called {checked!r}; take another name")
    return checked


def _variant(name: str, parent: str, folder: Path) -> str:
    """A spec that extends ``parent``, which stands in ``folder`` or among the shipped ones."""
    parent = parent.removesuffix(".yaml")
    beside = Path(os.path.relpath(folder / f"{parent}.yaml"))
    if not parent.isidentifier():
        raise UsageMistake(f"--extends names a cell in this folder or a shipped one, which {parent!r} does not")
    try:
        cell = load(beside if beside.is_file() else parent)
    except SpecError as error:
        if beside.is_file() or (shipped_dir() / beside.name).is_file():
            raise
        raise UsageMistake("; ".join(diagnostic.message for diagnostic in error.diagnostics)) from None
    equations = "\n".join(f"#   {equation.text}" for equation in assignments(cell))
    return VARIANT.format(name=name, parent=parent, equations=equations)


def _schema_line(folder: Path) -> str:
    """A line by which editors find the schema, if it lies so near that a relative path can be relied on."""
    try:
        path = Path(os.path.relpath(SCHEMA, folder))
    except ValueError:  # another drive
        return ""
    return "" if path.parts.count("..") > 1 else f"# yaml-language-server: $schema={path.as_posix()}\n"
