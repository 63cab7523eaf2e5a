"""YAML text -> :class:`~cellspec.language.spec.Spec`. Reads keys and values, expands braces and shorthands, merges ``extends``.

Every mistake goes to one Reporter. What is broken is Unread or a gap, so that elaboration can check the rest in the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import yaml

from cellspec.errors import Location, Reporter, SpecError, did_you_mean, shorten
from cellspec.language.keys import ACTIVATIONS, CITE_KEYS, EXPECT_KEYS, KEYS, RECURRENCES
from cellspec.language.names import RESERVED, check_name, expand_braces, words
from cellspec.language.read.equation_block import parse_equations
from cellspec.language.read.extends import apply_settings, check_whole, merge
from cellspec.language.read.local_functions import read_macros
from cellspec.language.read.paths import find, parent_path, resolve, shipped_dir, shipped_names
from cellspec.language.read.source import compose, decode, read_bytes
from cellspec.language.read.variables import VariableReader
from cellspec.language.spec import Assignment, Cite, Expect, Gaps, Mention, Setting, Spec, Unread
from cellspec.model.nodes import of_family

MAX_CHAIN = 16

_T = TypeVar("_T")


def load_spec(source: str | Path, settings: Mapping[str, str] | None = None, report: Reporter | None = None) -> Spec:
    """The spec at a path or of a shipped name, with ``settings`` (``--set``) in force; SpecError with every mistake.

    With a ``report``, mistakes go there, and what could be read is given; SpecError only where that is nothing.
    """
    found = report or Reporter()
    path = find(source, found)
    data = None if path is None else read_bytes(path, found, Location(str(path), 1, 1))
    text = None if data is None else decode(data, str(path), found)
    if path is None or data is None or text is None:
        raise SpecError(found.diagnostics)
    spec = _finish(_Reader(text, data, str(path), found, (path.resolve(),), stem=path.stem).spec(), settings, found)
    if report is None:
        found.raise_if_any()
    return spec


def parse_spec(
    text: str, file: str = "<spec>", settings: Mapping[str, str] | None = None, report: Reporter | None = None
) -> Spec:
    """The spec that ``text`` writes; ``file`` names it in messages, and parents are looked for beside it."""
    found = report or Reporter()
    data = text.encode("utf-8", errors="replace")
    spec = _finish(_Reader(text, data, file, found, (Path(file).absolute(),)).spec(), settings, found)
    if report is None:
        found.raise_if_any()
    return spec


def _finish(spec: Spec | None, settings: Mapping[str, str] | None, report: Reporter) -> Spec:
    if spec is None:
        raise SpecError(report.diagnostics)
    return apply_settings(check_whole(spec, report), settings or {}, ACTIVATIONS, report)


class _Reader(VariableReader):
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
        nodes = {key: node for key, (_, node) in values.items() if not self.blank(key, node)}
        self.parts.update(values.keys() - nodes.keys())
        remove = self.part(nodes, "remove", self.mentions, "", True)
        own = self.own(nodes)
        if "extends" not in values:
            for mention in remove:
                self.report.error(mention.at, f"there is nothing to remove {mention.name!r} from, as this spec extends none")
            return own
        parent = self.parent(nodes["extends"]) if "extends" in nodes else None
        if parent is None:
            return replace(own, gaps=own.gaps | Gaps(parts=frozenset(("extends",))))
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
            dims=self.part(nodes, "dims", self.mentions, "a dim"),
            hyper=self.part(nodes, "hyper", self.settings, "a hyperparameter", self.hyper_value),
            inputs=self.part(nodes, "inputs", self.variables, "an input"),
            states=self.part(nodes, "states", self.variables, "a state"),
            outputs=self.part(nodes, "outputs", self.mentions),
            params=self.part(nodes, "params", self.variables, "a param"),
            activations=self.part(nodes, "activations", self.settings, "an activation", self.activation_value),
            functions=self.part(nodes, "functions", lambda node, key: read_macros(self, node)),
            equations=self.part(nodes, "equations", self.equations),
            expect=self.expect(nodes["expect"]) if "expect" in nodes else Expect(),
            gaps=self.gaps,
        )

    def part(
        self, nodes: Mapping[str, yaml.Node], key: str, read: Callable[..., tuple[_T, ...]], *details: object
    ) -> tuple[_T, ...]:
        """What ``read`` finds under a key; where that is nothing but mistakes, the part is a gap."""
        if key not in nodes:
            return ()
        before = len(self.report.diagnostics)
        found = read(nodes[key], key, *details)
        if not found and len(self.report.diagnostics) > before:
            self.parts.add(key)
        return found

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

    def mentions(self, node: yaml.Node, key: str, kind: str = "", braces: bool = False) -> tuple[Mention, ...]:
        """A list of names."""
        if not isinstance(node, yaml.SequenceNode):
            self.report.error(self.source.at(node), f"{key!r} must be a list of names, such as [h, c]")
            self.skip(node)
            return ()
        found: dict[str, Mention] = {}
        for item in node.value:
            at, text = self.source.at(item), self.text(item, f"an entry of {key!r}")
            names = (expand_braces(text, at, self.report) if braces else (text,)) if text else ()
            if not names:
                self.skip(item)
            for written in names:
                name = None
                if of_family(written):
                    what = f"{written!r} is a member of a family: give it a name of its own, as in y = {written}"
                    self.report.error(at, what)
                else:
                    name = check_name(written, at, self.report, kind or f"an entry of {key!r}")
                if name is None:
                    self.names.update(words(written))
                elif name in found:
                    self.report.error(at, f"{name!r} stands twice in {key!r}")
                else:
                    found[name] = Mention(name, at)
        return tuple(found.values())

    def settings(
        self, node: yaml.Node, key: str, kind: str, read: Callable[[yaml.Node], float | int | str | None]
    ) -> tuple[Setting, ...]:
        """``hyper`` or ``activations``."""
        return tuple(Setting(name, read(value), at) for name, at, value in self.named(node, key, kind))

    def hyper_value(self, node: yaml.Node) -> float | int | None:
        return self.number(node, "a hyperparameter")

    def activation_value(self, node: yaml.Node) -> str:
        """The name of a function; ``identity``, which changes no shape either, after reporting that there is none."""
        text = self.text(node, "an activation")
        if text in ACTIVATIONS:
            return text
        if text:
            hint = did_you_mean(text, ACTIVATIONS) or "; expected one such as 'sigmoid' or 'tanh'"
            self.report.error(self.source.at(node), f"{shorten(text)} is no pointwise function of one argument{hint}")
        return "identity"

    def equations(self, node: yaml.Node, key: str) -> tuple[Assignment, ...]:
        at = self.source.at(node)
        if not isinstance(node, yaml.ScalarNode) or node.style == ">" or (node.style != "|" and "\n" in str(node.value)):
            self.report.error(at, "'equations' must be a literal block: 'equations: |' and one equation a line below it")
            return ()
        if node.style != "|" and not at.text.startswith(node.value, at.column - 1):
            self.report.error(at, "'equations' must be a literal block: 'equations: |' and one equation a line below it")
            return ()
        found: dict[object, Assignment] = {}
        unread: list[Assignment] = []
        read = parse_equations(node.value, self.source.block(node), self.report, unread)
        for equation in sorted((*read, *unread), key=lambda equation: equation.at):
            if equation.target and self.assignable(equation, found.get(equation.left)):
                found[equation.left] = equation
            else:
                self.names.update(equation.value.names if isinstance(equation.value, Unread) else words(equation.text))
        return tuple(found.values())

    def assignable(self, equation: Assignment, earlier: Assignment | None) -> bool:
        """Whether the left side is a name that can be assigned, and that no ``earlier`` equation assigns."""
        name = check_name(equation.target, equation.at, self.report, "the left side of an equation")
        if name is not None and earlier is not None:
            text = f"{name}[t]" if equation.is_state else name
            self.report.error(equation.at, f"{text!r} is assigned twice, first in line {earlier.at.line}")
        return name is not None and earlier is None

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
