"""Values of YAML nodes, each with its mistakes told: texts, numbers, mappings with known keys, mappings of names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TypeGuard

import yaml

from cellspec.errors import Location, Reporter, closest, shorten
from cellspec.language.names import check_name, expand_braces, words
from cellspec.language.read.expressions import parse_expression
from cellspec.language.read.source import Source, number
from cellspec.language.spec import Expr, Gaps

CLOSE = 0.75
"""How like a key of the language an unknown one must be to be read as that."""

_BRACE = re.compile("[{}]")


class NodeReader:
    """Reads the nodes of one source; what is wrong with them goes to the Reporter, and what is lost with it to the gaps."""

    def __init__(self, source: Source, report: Reporter) -> None:
        self.source, self.report = source, report
        self.names, self.stems, self.parts = set[str](), set[str](), set[str]()

    @property
    def gaps(self) -> Gaps:
        """What could not be read so far."""
        return Gaps(frozenset(self.names), frozenset(self.stems), frozenset(self.parts))

    def skip(self, *nodes: yaml.Node) -> None:
        """Note the names in nodes that are not read."""
        waiting = list(nodes)
        while waiting:
            match waiting.pop():
                case yaml.MappingNode(value=pairs):
                    waiting.extend(part for pair in pairs for part in pair)
                case yaml.SequenceNode(value=items):
                    waiting.extend(items)
                case yaml.ScalarNode(value=str(text)) if "{" in text or "}" in text:
                    self.stems.add("".join(words(_BRACE.split(text)[0])[:1]))
                case yaml.ScalarNode(value=text):
                    self.names.update(words(str(text)))

    def entries(self, node: yaml.MappingNode, keys: tuple[str, ...], what: str) -> Iterator[tuple[str, Location, yaml.Node]]:
        """The entries of a mapping whose keys are known: (key, its place, value); one that is all but known counts as that."""
        written = {key_node.value for key_node, _ in node.value if isinstance(key_node, yaml.ScalarNode)}
        seen: dict[str, Location] = {}
        for key_node, value in node.value:
            at = self.source.at(key_node)
            key = self.text(key_node, "a key")
            if not key:
                self.skip(value)
                continue
            if key in seen:
                self.report.error(at, f"the key {shorten(key)} is repeated; it first stands in line {seen[key].line}")
                self.skip(value)
            elif key not in keys:
                meant = closest(key[:100], keys)
                hint = f"; did you mean {meant!r}?" if meant else f"; expected one of {', '.join(keys)}"
                self.report.error(at, f"unknown key {shorten(key)} in {what}{hint}")
                if meant is not None and meant not in written and closest(key[:100], (meant,), CLOSE):
                    written.add(meant)
                    yield meant, at, value
                else:
                    self.skip(value)
            else:
                yield key, at, value
            seen.setdefault(key, at)

    def named(self, node: yaml.Node, key: str, kind: str, field: bool = False) -> Iterator[tuple[str, Location, yaml.Node]]:
        """The entries of a mapping whose keys are names that the spec declares; braces expand where names become fields."""
        if not self.mapping(node, f"{key!r}"):
            self.skip(node)
            return
        seen: dict[str, Location] = {}
        for key_node, value in node.value:
            at = self.source.at(key_node)
            text = self.text(key_node, "a name")
            names = (expand_braces(text, at, self.report) if field else (text,)) if text else ()
            lost: tuple[yaml.Node, ...] = () if names else (key_node, value)
            for written in names:
                name = check_name(written, at, self.report, kind, field=field)
                if name is None:
                    self.names.update(words(written))
                elif name in seen:
                    self.report.error(at, f"{name!r} is declared twice in {key!r}; it first stands in line {seen[name].line}")
                else:
                    seen[name] = at
                    yield name, at, value
                    continue
                lost = (value,)
            self.skip(*lost)

    def mapping(self, node: yaml.Node, what: str) -> TypeGuard[yaml.MappingNode]:
        """Whether ``node`` is a mapping; reported where it is not."""
        if isinstance(node, yaml.MappingNode):
            return True
        self.report.error(self.source.at(node), f"{what} must be a mapping, such as {{x: I}}")
        return False

    def blank(self, key: str, node: yaml.Node) -> bool:
        """Whether nothing stands after ``key``, which is reported."""
        if isinstance(node, yaml.ScalarNode) and not node.value.strip():
            self.report.error(self.source.at(node), f"{key!r} has no value")
            return True
        return False

    def text(self, node: yaml.Node, what: str) -> str:
        """A scalar's text; empty after reporting that there is none."""
        if isinstance(node, yaml.ScalarNode):
            text = str(node.value)
            if not text.strip():
                self.report.error(self.source.at(node), f"{what} has no value")
            return text.strip()
        self.report.error(self.source.at(node), f"{what} must be plain text, not a list or a mapping")
        return ""

    def number(self, node: yaml.Node, what: str) -> int | float | None:
        """A finite number; None after reporting that it is none."""
        text = self.text(node, what)
        value = number(text)
        if value is not None and math.isinf(value):
            self.report.error(self.source.at(node), f"the number {shorten(text)} is out of range")
            return None
        if value is None and text:
            self.report.error(self.source.at(node), f"{what} must be a number, not {shorten(text)}")
        return value

    def expression(self, node: yaml.Node, what: str) -> Expr | None:
        """The tree of a scalar's text; None after reporting a mistake."""
        if not isinstance(node, yaml.ScalarNode):
            self.report.error(self.source.at(node), f"{what} must be an expression such as 2*H, not a list or a mapping")
            return None
        return parse_expression(node.value, self.source.at(node), self.report)
