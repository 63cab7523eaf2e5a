"""YAML text -> :class:`~cellspec.spec.Spec`. Reads keys and values, expands braces and shorthands, merges ``extends``.

Every mistake goes to one Reporter, and a broken part is left out, so that one reading reports them all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from cellspec.errors import Location, Reporter, did_you_mean
from cellspec.expressions import parse_equations, walk
from cellspec.keys import (
    ACTIVATIONS,
    CITE_KEYS,
    EXPECT_KEYS,
    KEYS,
    LATER_KEYS,
    LATER_VARIABLE_KEYS,
    MATRIX_INITIALISERS,
    NUMBERED_INITIALISERS,
    PLAIN_INITIALISERS,
    RECURRENCES,
    VARIABLE_KEYS,
)
from cellspec.merge import apply_settings, check_whole, merge
from cellspec.names import RESERVED, check_name, expand_braces
from cellspec.nodes import NodeReader
from cellspec.paths import find, parent_path, resolve, shipped_dir, shipped_names
from cellspec.scanner import shorten
from cellspec.source import compose, decode, number, read_bytes
from cellspec.spec import Assignment, Cite, Expect, Expr, Initialiser, Mention, Name, Setting, Spec, Variable

MAX_CHAIN = 16


def load_spec(source: str | Path, settings: Mapping[str, str] | None = None) -> Spec:
    """The spec at a path or of a shipped name, with ``settings`` (``--set``) in force; SpecError with every mistake."""
    report = Reporter()
    path = find(source, report)
    report.raise_if_any()
    assert path is not None
    data = read_bytes(path, report, Location(str(path), 1, 1))
    text = None if data is None else decode(data, str(path), report)
    report.raise_if_any()
    assert data is not None and text is not None
    return _finish(_Reader(text, data, str(path), report, (path.resolve(),), stem=path.stem).spec(), settings, report)


def parse_spec(text: str, file: str = "<spec>", settings: Mapping[str, str] | None = None) -> Spec:
    """The spec that ``text`` writes; ``file`` names it in messages, and parents are looked for beside it."""
    report = Reporter()
    data = text.encode("utf-8", errors="replace")
    return _finish(_Reader(text, data, file, report, (Path(file).absolute(),)).spec(), settings, report)


def _finish(spec: Spec | None, settings: Mapping[str, str] | None, report: Reporter) -> Spec:
    if spec is not None:
        spec = apply_settings(check_whole(spec, report), settings or {}, ACTIVATIONS, report)
    report.raise_if_any()
    assert spec is not None
    return spec


class _Reader(NodeReader):
    """Reads one file; ``chain`` holds the paths of the files that extend one another down to this one."""

    def __init__(self, text: str, data: bytes, file: str, report: Reporter, chain: tuple[Path, ...], stem: str = "") -> None:
        source, self.top = compose(text, file, report)
        super().__init__(source, report)
        self.chain, self.stem, self.data = chain, stem, data

    def spec(self) -> Spec | None:
        """The file's spec, merged with its parents; None where there is no mapping to read."""
        if self.top is None:
            return None
        values = {key: (at, node) for key, at, node in self.entries(self.top, tuple(KEYS), "a spec")}
        for key in LATER_KEYS:
            if key in values:
                self.report.error(values[key][0], f"{key!r} is not supported yet")
        nodes = {key: node for key, (_, node) in values.items() if not self.blank(key, node)}
        own, remove = self.own(nodes), self.mentions(nodes, "remove", "", braces=True)
        if "extends" not in nodes:
            for mention in remove:
                self.report.error(mention.at, f"there is nothing to remove {mention.name!r} from, as this spec extends none")
            return own
        parent = self.parent(nodes["extends"])
        if parent is None:
            # What is missing here may be the parent's: nothing more can be told.
            return None
        return replace(merge(parent, own, remove, self.report), sha256=hashlib.sha256(self.data).hexdigest())

    def own(self, nodes: Mapping[str, yaml.Node]) -> Spec:
        """What this file itself says."""
        top = self.source.at(self.top) if self.top is not None else self.source.place(0, 0)
        return Spec(
            name=self.name(nodes, top),
            path=self.source.file,
            at=self.source.at(nodes["name"]) if "name" in nodes else top,
            sha256=hashlib.sha256(self.data).hexdigest(),
            title=" ".join(self.text(nodes["title"], "'title'").split()) if "title" in nodes else "",
            doc=self.text(nodes["doc"], "'doc'").strip() if "doc" in nodes else "",
            cite=tuple(self.cites(nodes["cite"])) if "cite" in nodes else (),
            extends=self.text(nodes["extends"], "'extends'") if "extends" in nodes else None,
            dims=self.mentions(nodes, "dims", "a dim"),
            hyper=self.settings(nodes, "hyper", "a hyperparameter", self.hyper_value),
            inputs=self.variables(nodes, "inputs", "an input"),
            states=self.variables(nodes, "states", "a state"),
            outputs=self.mentions(nodes, "outputs", ""),
            params=self.variables(nodes, "params", "a param"),
            activations=self.settings(nodes, "activations", "an activation", self.activation_value),
            equations=self.equations(nodes["equations"]) if "equations" in nodes else (),
            expect=self.expect(nodes["expect"]) if "expect" in nodes else Expect(),
        )

    def parent(self, node: yaml.Node) -> Spec | None:
        """The spec that this one extends."""
        at, name = self.source.at(node), self.text(node, "'extends'")
        path = parent_path(name, self.source.file, at, self.report) if name else None
        if path is None:
            return None
        resolved = path.resolve()
        if resolved in self.chain:
            names = [link.stem for link in (*self.chain[self.chain.index(resolved) :], resolved)]
            self.report.error(at, f"'extends' goes in a circle: {' -> '.join(names)}")
            return None
        if len(self.chain) >= MAX_CHAIN:
            self.report.error(at, f"'extends' is nested deeper than {MAX_CHAIN} files")
            return None
        data = read_bytes(path, self.report, at)
        text = None if data is None else decode(data, str(path), self.report)
        if data is None or text is None:
            return None
        reader = _Reader(text, data, str(path), self.report, (*self.chain, resolved), stem=path.stem)
        spec = reader.spec()
        self.data = reader.data + self.data
        return spec

    # --- parts ---------------------------------------------------------------------------------------------

    def name(self, nodes: Mapping[str, yaml.Node], top: Location) -> str:
        if "name" not in nodes:
            self.report.error(top, "'name' is missing")
            return ""
        at, text = self.source.at(nodes["name"]), self.text(nodes["name"], "'name'")
        if not text:
            return ""
        name = check_name(text, at, self.report, "a cell") if text not in RESERVED else text
        if name is not None and self.stem and name != self.stem:
            self.report.error(at, f"the name {name!r} must equal the file's stem, {shorten(self.stem)}")
        return name or ""

    def cites(self, node: yaml.Node) -> Iterator[Cite]:
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if self.mapping(part, "a source of 'cite'"):
                entries = self.entries(part, CITE_KEYS, "a source of 'cite'")
                yield Cite(**{key: " ".join(self.text(value, f"{key!r}").split()) for key, _, value in entries})

    def mentions(self, nodes: Mapping[str, yaml.Node], key: str, kind: str, braces: bool = False) -> tuple[Mention, ...]:
        """A list of names."""
        node = nodes.get(key)
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.report.error(self.source.at(node), f"{key!r} must be a list of names, such as [h, c]")
            return ()
        found: dict[str, Mention] = {}
        for item in node.value:
            at, text = self.source.at(item), self.text(item, f"an entry of {key!r}")
            for written in (expand_braces(text, at, self.report) if braces else (text,)) if text else ():
                name = check_name(written, at, self.report, kind or f"an entry of {key!r}")
                if name is not None and name in found:
                    self.report.error(at, f"{name!r} stands twice in {key!r}")
                elif name is not None:
                    found[name] = Mention(name, at)
        return tuple(found.values())

    def settings(
        self, nodes: Mapping[str, yaml.Node], key: str, kind: str, read: Callable[[yaml.Node], float | int | str | None]
    ) -> tuple[Setting, ...]:
        """``hyper`` or ``activations``."""
        found: list[Setting] = []
        for name, at, node in self.named(nodes.get(key), key, kind):
            value = read(node)
            if value is not None:
                found.append(Setting(name, value, at))
        return tuple(found)

    def hyper_value(self, node: yaml.Node) -> float | int | None:
        return self.number(node, "a hyperparameter")

    def activation_value(self, node: yaml.Node) -> str | None:
        text = self.text(node, "an activation")
        if text in ACTIVATIONS:
            return text
        if text:
            hint = did_you_mean(text, ACTIVATIONS) or "; expected one such as 'sigmoid' or 'tanh'"
            self.report.error(self.source.at(node), f"{shorten(text)} is no pointwise function of one argument{hint}")
        return None

    def variables(self, nodes: Mapping[str, yaml.Node], key: str, kind: str) -> tuple[Variable, ...]:
        """``inputs``, ``states`` or ``params``; braces in names expand."""
        found: list[Variable] = []
        shapes: dict[int, Variable | None] = {}  # an entry with braces is read, and its mistakes told, once
        for name, at, node in self.named(nodes.get(key), key, kind, field=True):
            if id(node) not in shapes:
                shapes[id(node)] = self.variable(node, at, kind)
            variable = shapes[id(node)]
            if variable is not None:
                found.append(replace(variable, name=name, at=at))
        return tuple(found)

    def variable(self, node: yaml.Node, at: Location, kind: str) -> Variable | None:
        """A shape, or a mapping with ``shape``, ``init`` and so on."""
        if not isinstance(node, yaml.MappingNode):
            shape = self.shape(node)
            return None if shape is None else Variable("", shape, at)
        values = {key: (place, value) for key, place, value in self.entries(node, VARIABLE_KEYS[kind], kind)}
        shape, init, trainable = None, None, True
        if "shape" in values:
            shape = self.shape(values["shape"][1])
        else:
            self.report.error(self.source.at(node), "'shape' is missing; expected a mapping such as {shape: [H, I]}")
        if "init" in values:
            init = self.initialiser(values["init"][1], kind, len(shape or ()))
        if "trainable" in values:
            text = self.text(values["trainable"][1], "'trainable'")
            if text.lower() not in ("true", "false"):
                self.report.error(self.source.at(values["trainable"][1]), f"'trainable' is true or false, not {shorten(text)}")
            trainable = text.lower() != "false"
        for key in LATER_VARIABLE_KEYS:
            if key in values:
                self.report.error(values[key][0], f"{key!r} is not supported yet")
        return None if shape is None else Variable("", shape, at, init, trainable)

    def shape(self, node: yaml.Node) -> tuple[Expr, ...] | None:
        if isinstance(node, yaml.MappingNode):
            self.report.error(self.source.at(node), "a shape is a dim such as H, or a list of them such as [H, I]")
            return None
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items:
            self.report.error(self.source.at(node), "a shape cannot be empty; a single number has the shape 1")
            return None
        axes = [self.expression(item, "a dim") for item in items]
        known = tuple(axis for axis in axes if axis is not None)
        dims = [part for axis in known for part in walk(axis) if isinstance(part, Name)]
        named = [check_name(dim.id, dim.at, self.report, "a dim") is not None for dim in dims]
        return known if len(known) == len(axes) and all(named) else None

    def initialiser(self, node: yaml.Node, kind: str, axes: int) -> Initialiser | None:
        """``init`` of a state (a constant) or of a param."""
        at = self.source.at(node)
        if isinstance(node, yaml.MappingNode):
            return self.numbered(node, kind)
        text = self.text(node, "'init'")
        value = number(text)
        if value is not None:
            if math.isinf(value) and not (kind == "a state" and text.lower() in (".inf", "-.inf", "+.inf")):
                self.report.error(at, f"the initial value {shorten(text)} is out of range")
                return None
            return Initialiser("constant", (value,))
        known = PLAIN_INITIALISERS.get(text)
        if known is not None and not (kind == "a state" and known.kind != "constant"):
            if text in MATRIX_INITIALISERS and axes == 1:
                self.report.error(at, f"{text!r} initialises a matrix, but this shape has one axis")
                return None
            return known
        if not text:
            return None
        if kind == "a state":
            self.report.error(at, f"a state starts from a number, not from {shorten(text)}")
        elif text in NUMBERED_INITIALISERS:
            self.report.error(at, f"{text!r} needs a number: {{{NUMBERED_INITIALISERS[text]}}}")
        else:
            names = (*PLAIN_INITIALISERS, *NUMBERED_INITIALISERS)
            hint = did_you_mean(text, names) or f"; expected a number or one of {', '.join(names)}"
            self.report.error(at, f"unknown initialiser {shorten(text)}{hint}")
        return None

    def numbered(self, node: yaml.MappingNode, kind: str) -> Initialiser | None:
        """``{normal: std}``, ``{uniform: [low, high]}``, ``{chrono: Tmax}``."""
        at = self.source.at(node)
        if kind == "a state":
            self.report.error(at, "a state starts from a number")
            return None
        entries = list(self.entries(node, tuple(NUMBERED_INITIALISERS), "an initialiser"))
        if len(entries) != 1:
            if len(node.value) != 1:
                self.report.error(at, "an initialiser is one entry, such as {normal: 0.1}")
            return None
        name, _, value = entries[0]
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if (name == "uniform") != isinstance(value, yaml.SequenceNode) or (name == "uniform" and len(items) != 2):
            self.report.error(self.source.at(value), f"this initialiser is written {{{NUMBERED_INITIALISERS[name]}}}")
            return None
        numbers = [self.number(item, f"{name!r}") for item in items]
        kept = tuple(value for value in numbers if value is not None)
        if len(kept) != len(numbers):
            return None
        wrong = {
            "normal": ("a standard deviation is not negative", kept[0] < 0),
            "uniform": ("the lower bound is above the upper", kept[0] > kept[-1]),
            "chrono": ("the longest time Tmax must be above 2", kept[0] <= 2),
        }[name]
        if wrong[1]:
            self.report.error(self.source.at(items[0]), wrong[0])
            return None
        return Initialiser(name, kept)

    def equations(self, node: yaml.Node) -> tuple[Assignment, ...]:
        at = self.source.at(node)
        if not isinstance(node, yaml.ScalarNode) or node.style == ">" or (node.style != "|" and "\n" in str(node.value)):
            self.report.error(at, "'equations' must be a literal block: 'equations: |' and one equation a line below it")
            return ()
        if node.style != "|" and not at.text.startswith(node.value, at.column - 1):
            self.report.error(at, "'equations' must be a literal block: 'equations: |' and one equation a line below it")
            return ()
        found: dict[tuple[str, bool], Assignment] = {}
        for equation in parse_equations(node.value, self.source.block(node), self.report):
            name, key = equation.target, (equation.target, equation.is_state)
            if check_name(name, equation.at, self.report, "the left side of an equation") is None:
                continue
            if key in found:
                left = f"{name}[t]" if equation.is_state else name
                self.report.error(equation.at, f"{left!r} is assigned twice, first in line {found[key].at.line}")
            else:
                found[key] = equation
        return tuple(found.values())

    def expect(self, node: yaml.Node) -> Expect:
        if not self.mapping(node, "'expect'"):
            return Expect()
        expect = Expect()
        for key, _, value in self.entries(node, EXPECT_KEYS, "'expect'"):
            at = self.source.at(value)
            if key == "params":
                expect = replace(expect, params=self.expression(value, "a formula"))
            elif key == "stages":
                stages = self.number(value, "'stages'")
                if isinstance(stages, int) and stages >= 0:
                    expect = replace(expect, stages=(stages, at))
                elif stages is not None:
                    self.report.error(at, "'stages' is a whole number, 0 or more")
            elif key == "recurrence":
                text = self.text(value, "'recurrence'")
                if text in RECURRENCES:
                    expect = replace(expect, recurrence=(text, at))
                elif text:
                    hint = did_you_mean(text, RECURRENCES)
                    self.report.error(at, f"'recurrence' is dense, elementwise or linear, not {shorten(text)}{hint}")
            elif self.mapping(value, "'bound'"):
                expect = replace(expect, bound=tuple(self.bounds(value)))
        return expect

    def bounds(self, node: yaml.Node) -> Iterator[tuple[str, float, Location]]:
        for name, at, value in self.named(node, "bound", "a bound"):
            bound = self.number(value, "a bound")
            if bound is not None and bound < 0:
                self.report.error(self.source.at(value), "a bound is the largest absolute value and cannot be negative")
            elif bound is not None:
                yield name, float(bound), at


__all__ = ["load_spec", "parse_spec", "resolve", "shipped_dir", "shipped_names"]
