"""What generated modules have in common, whatever they run on: the names, the header, the arguments, derived parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import jinja2

from cellspec import ir
from cellspec.backends import included, initial
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.spelling import NUMPY, Spelling
from cellspec.backends.dims import bracket, dim_lines, dim_texts, input_texts, length, other_dims, step_texts, tuple_text
from cellspec.backends.equations import unpack
from cellspec.backends.naming import Groups, Names, identifier
from cellspec.backends.plain import Mentioned, Noted, dim_text, float_text
from cellspec.backends.wrap import wrapped
from cellspec.cell import Cell
from cellspec.language.read.paths import shipped_dir
from cellspec.model.equations import State
from cellspec.model.nodes import Kind, Shape
from cellspec.pipeline import Compiled


@cache
def environment(*folders: str) -> jinja2.Environment:
    """The templates of a backend, behind them those that it shares with others, and those that all share; likewise sources."""
    own = [jinja2.PackageLoader(f"cellspec.backends.{folder}", "templates") for folder in folders]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*own, jinja2.PackageLoader("cellspec.backends", "templates")]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    for function in (included.source, included.texts_of):
        made.globals[function.__name__] = partial(function, folders)
    made.filters |= {"row": row, "each": each}
    return made


def row(items: Iterable[str]) -> str:
    """What stands between the parentheses of a tuple."""
    texts = list(items)
    return ", ".join(texts) + "," * (len(texts) == 1)


def each(items: Iterable[str], template: str) -> list[str]:
    """``template`` with each of ``items`` in the place of ``%s``."""
    return [template % item for item in items]


class Common:
    """The parts of a module that do not depend on the backend; ``taken`` are the names with a meaning inside it.

    Dims stand in more functions than values do: ``elsewhere`` are the names with a meaning in those.
    """

    def __init__(self, compiled: Compiled, taken: Sequence[str], elsewhere: Collection[str] = ()) -> None:
        self.compiled, self.cell = compiled, compiled.cell
        self.dims = {d: d if d not in taken and d not in elsewhere else f"{d}_" for d in self.cell.dims}
        self.groups = Groups(frozenset(param.name for param in self.cell.params))
        self.names = Names([*taken, *self.dims.values()], self.groups)
        written = [e.target.name for e in self.cell.assignments if e.target.kind is Kind.DERIVED]
        read = [n for n in compiled.epilogue.residuals if n not in compiled.prologue.constants]
        derived = dict.fromkeys((*written, *compiled.prologue.outputs, *read))
        self.derived = {n: self.names.get(("derived", n), identifier(n)) for n in derived}
        self.constants = {p.name: f"params.{p.name}" for p in self.cell.params} | self.derived
        self.reserved = [*taken, *self.dims.values()]
        self.inputs = [
            {
                "name": item.name,
                "value": text,
                "step": step,
                "axes": bracket(item.shape, 2),
                "step_axes": bracket(item.shape, 1),
                "shape": self.batched(item.shape, "T, B"),
                "step_shape": self.batched(item.shape),
                "ndim": len(item.shape) + 2,
                "matrix": "x_2d" if text == "x" else self.names.get(("matrix", item.name), f"{item.name}_2d"),
                "size": self.size(item.shape),
            }
            for item, text, step in zip(self.cell.inputs, input_texts(self.cell), step_texts(self.cell), strict=True)
        ]

    def context(self, runs_on: str) -> dict[str, object]:
        """What the shared templates need; ``runs_on`` names the array library."""
        cell = self.cell
        # Dims are arguments of init_params, where they hide what has their name.
        numpy, rng = "numpy" if "np" in cell.dims else "np", "rng_" if "rng" in cell.dims else "rng"
        return {
            "cell": cell,
            "summary": f"{quotable(cell.title or cell.name)}: forward and backward passes in {runs_on}.",
            "about": [quotable(line) for line in about(cell)],
            "equations": [e.text for e in cell.assignments],
            "settings": [f"{name} = {value}" for name, value in (*cell.activations, *cell.hyper)],
            "dims": [{"name": d, "local": self.dims[d]} for d in cell.dims],
            "unpack": unpack(self.dims.values()),
            "rng": rng,
            "numpy": numpy,
            "shapes": {
                "INPUT_SHAPES": {item.name: dim_texts(item.shape) for item in cell.inputs},
                "OUTPUT_SHAPES": {item.name: dim_texts(item.shape) for item in cell.outputs},
                "PARAM_SHAPES": {item.name: dim_texts(item.shape) for item in cell.params},
                "STATE_SHAPES": {item.name: dim_texts(item.shape) for item in cell.states},
            },
            "params": [{"name": p.name, "shape": bracket(p.shape), "init": initial.call(p, rng, numpy)} for p in cell.params],
            "initialisers": initial.needed(cell.params),
            "states": [self.state(s) for s in cell.states],
            "outputs": [{"name": o.name, "axes": bracket(o.shape, 2)} for o in cell.outputs],
            "inputs": self.inputs,
            "x_doc": "; ".join(f"{i['value']}: {i['axes']}" for i in self.inputs),
            "x_t_doc": "; ".join(f"{i['step']}: {i['step_axes']}" for i in self.inputs),
            "dim_lines": dim_lines(cell, self.dims, with_arguments=False),
            "all_dim_lines": dim_lines(cell, self.dims, with_arguments=True),
            "other_dims": other_dims(cell),
            "checks": [{"name": p.name, "shape": self.axes(p.shape), "spec": bracket(p.shape)} for p in cell.params],
        }

    def command(self, options: str = "") -> str:
        """The command that makes this module again, or the Python for a cell that no file states."""
        if self.cell.made_by:
            return self.cell.made_by
        settings = "".join(f" --set {name}={value}" for name, value in self.cell.settings)
        shipped = Path(self.cell.path).resolve().parent == shipped_dir().resolve()
        return f"cellspec generate {self.cell.name}{'' if shipped else '.yaml'}{settings}{options}"

    def state(self, state: State) -> dict[str, str]:
        """A state: its name, its shape, and the number that it starts from."""
        return {
            "name": state.name,
            "axes": self.batched(state.shape),
            "fresh": self.batched(state.shape, "batch"),
            "spec": bracket(state.shape, 1),
            "init": float_text(float(state.init)),
            "holds": _holds(state),
        }

    def batched(self, shape: Shape, lead: str = "B") -> str:
        """The shape of an array with ``lead`` axes in front, as a Python tuple."""
        return f"({lead}, {', '.join(dim_text(s, self.dims) for s in shape)})"

    def flat(self, text: str, shape: Shape, lead: str = "B") -> str:
        """An array with its own axes flattened to one behind those of ``lead``."""
        return text if len(shape) == 1 else f"{text}.reshape({lead}, {self.size(shape)})"

    def shaped(self, text: str, shape: Shape, lead: str = "B") -> str:
        """An array with the one axis behind those of ``lead`` unfolded to its own."""
        return text if len(shape) == 1 else f"{text}.reshape{self.batched(shape, lead)}"

    def size(self, shape: Shape) -> str:
        """The number of a value's elements, as Python."""
        return length(shape, self.dims)

    def axes(self, shape: Shape) -> str:
        """A shape as a Python tuple."""
        return tuple_text(shape, self.dims)

    def derived_lines(self, dtype: str = "dtype", spelling: Spelling = NUMPY) -> tuple[dict[str, object], set[str]]:
        """What the function that computes derived parameters needs, and the helper functions that it calls.

        ``dtype`` is what it calls the dtype that it computes in, or an array of it, ``spelling`` the words of its library.
        """
        program = self.compiled.prologue
        names = Names([*self.reserved, *self.derived.values()])
        dims = Mentioned(self.dims)
        kind = Noted(dtype)
        plain = Plain(program.values, dict(self.constants), dims, batched=False, dtype=kind, spelling=spelling)
        lines = []
        for op in program.ops:
            (out,) = ir.outs(op)
            shape = program.shape(out)
            axes = Noted(self.axes(shape))
            text = plain.whole(op, shape, axes, kind)
            if axes.written:
                dims.mentioned |= {symbol.name for axis in shape for symbol in axis.free_symbols}
            plain.texts[out] = self.derived.get(out) or names.get(out, identifier(out))
            lines.append(f"{plain.texts[out]} = {text}")
        context: dict[str, object] = {
            "lines": lines,
            "names": list(self.derived.values()),
            "unpack": unpack(self.derived.values()),
            "dims": [self.dims[d] for d in self.cell.dims if d in dims.mentioned],
            "dtype": kind.written,
        }
        return context, plain.helpers


def _holds(state: State) -> str:
    """What the rows of a state of several are."""
    if not state.rows or state.lag_of is None:
        return ""
    name, farthest = state.lag_of
    return f": {name}[t-{farthest - state.rows + 1}], ... {name}[t-{farthest}]"


def gather(arrays: Sequence[str], kind: str = "Outputs") -> str:
    """One array as it is; several as the module's named tuple ``kind``."""
    return arrays[0] if len(arrays) == 1 else f"{kind}({', '.join(arrays)})"


def strings(lines: object) -> list[str]:
    """A template's list, as what it is: lines of text."""
    assert isinstance(lines, list)
    return [str(line) for line in lines]


def about(cell: Cell) -> list[str]:
    """The doc, and where the cell comes from."""
    lines = [line for paragraph in cell.doc.split("\n") for line in (textwrap.wrap(paragraph, 116) or [""])]
    while lines and not lines[-1]:
        lines.pop()
    for cite in cell.cite:
        parts = [cite.authors, cite.title, cite.year, f"doi:{cite.doi}" if cite.doi else "", cite.url, cite.note]
        lines += ["", *textwrap.wrap("Source: " + ". ".join(p.rstrip(".") for p in parts if p) + ".", 116)]
    return lines


def quotable(text: str) -> str:
    """``text`` as it can stand within a docstring, on one line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', "'")


LEGEND = "# (legend)"
"""The line of a template that gives way to the legend of a module, if it has one."""


def tidy(text: str, legend: Iterable[str] = ()) -> str:
    """No blank line twice, no trailing space, no long line, and the ``legend`` where it belongs."""
    told = "".join(f"# {line}\n" for line in legend)
    text = text.replace(f"{LEGEND}\n", told) if told else text.replace(f"{LEGEND}\n\n", "")
    lines = [line.rstrip() for line in text.split("\n")]
    kept: list[str] = []
    for line in lines:
        if line or kept[-2:] != ["", ""]:
            kept.append(line)
    return wrapped("\n".join(kept).rstrip("\n") + "\n")
