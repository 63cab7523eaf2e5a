"""Values of YAML nodes, each with its mistakes told: texts, numbers, mappings with known keys, mappings of names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

import yaml

from cellspec.errors import Location, Reporter, did_you_mean
from cellspec.expressions import parse_expression
from cellspec.names import check_name, expand_braces
from cellspec.scanner import shorten
from cellspec.source import Source, number
from cellspec.spec import Expr


class NodeReader:
    """Reads the nodes of one source; what is wrong with them goes to the Reporter."""

    def __init__(self, source: Source, report: Reporter) -> None:
        self.source, self.report = source, report

    def entries(self, node: yaml.MappingNode, keys: tuple[str, ...], what: str) -> Iterator[tuple[str, Location, yaml.Node]]:
        """The entries of a mapping whose keys are known: (key, its place, value)."""
        seen: dict[str, Location] = {}
        for key_node, value in node.value:
            at = self.source.at(key_node)
            key = self.text(key_node, "a key")
            if not key:
                continue
            if key in seen:
                self.report.error(at, f"the key {shorten(key)} is repeated; it first stands in line {seen[key].line}")
            elif key not in keys:
                hint = did_you_mean(key[:100], keys) or f"; expected one of {', '.join(keys)}"
                self.report.error(at, f"unknown key {shorten(key)} in {what}{hint}")
            else:
                yield key, at, value
            seen.setdefault(key, at)

    def named(
        self, node: yaml.Node | None, key: str, kind: str, field: bool = False
    ) -> Iterator[tuple[str, Location, yaml.Node]]:
        """The entries of a mapping whose keys are names that the spec declares; braces expand where names become fields."""
        if node is None or not self.mapping(node, f"{key!r}"):
            return
        seen: dict[str, Location] = {}
        for key_node, value in node.value:
            at = self.source.at(key_node)
            text = self.text(key_node, "a name")
            for written in (expand_braces(text, at, self.report) if field else (text,)) if text else ():
                name = check_name(written, at, self.report, kind, field=field)
                if name is not None and name in seen:
                    self.report.error(at, f"{name!r} is declared twice in {key!r}; it first stands in line {seen[name].line}")
                elif name is not None:
                    seen[name] = at
                    yield name, at, value

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
