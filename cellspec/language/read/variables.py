"""Declared inputs, states and params: their shapes, initialisers and options, read from YAML nodes."""

from __future__ import annotations

import math
from dataclasses import replace

import yaml

from cellspec.errors import Location, did_you_mean, shorten
from cellspec.language.keys import MATRIX_INITIALISERS, NUMBERED_INITIALISERS, PLAIN_INITIALISERS, VARIABLE_KEYS
from cellspec.language.names import check_name
from cellspec.language.read.source import number
from cellspec.language.read.yaml_values import NodeReader
from cellspec.language.spec import Expr, Initialiser, Name, Unread, Variable, walk


class VariableReader(NodeReader):
    """Reads the entries of ``inputs``, ``states`` and ``params``. A shape that cannot be read is Unread."""

    def variables(self, node: yaml.Node, key: str, kind: str) -> tuple[Variable, ...]:
        """``inputs``, ``states`` or ``params``; braces in names expand."""
        found: list[Variable] = []
        read: dict[int, Variable] = {}  # an entry with braces is read, and its mistakes told, once
        for name, at, value in self.named(node, key, kind, field=True):
            if id(value) not in read:
                read[id(value)] = self.variable(value, at, kind)
            found.append(replace(read[id(value)], name=name, at=at))
        return tuple(found)

    def variable(self, node: yaml.Node, at: Location, kind: str) -> Variable:
        """A shape, or a mapping with ``shape``, ``init`` and so on."""
        if not isinstance(node, yaml.MappingNode):
            return Variable("", self.shape(node), at)
        values = {key: (place, value) for key, place, value in self.entries(node, VARIABLE_KEYS[kind], kind)}
        unread: tuple[Expr, ...] = (Unread((), at),)
        shape, init, trainable = unread, None, True
        if "shape" in values:
            shape = self.shape(values["shape"][1])
        else:
            self.report.error(self.source.at(node), "'shape' is missing; expected a mapping such as {shape: [H, I]}")
        if "init" in values:
            axes = 0 if any(isinstance(axis, Unread) for axis in shape) else len(shape)
            init = self.initialiser(values["init"][1], kind, axes)
        if "trainable" in values:
            text = self.text(values["trainable"][1], "'trainable'")
            if text.lower() not in ("true", "false"):
                self.report.error(self.source.at(values["trainable"][1]), f"'trainable' is true or false, not {shorten(text)}")
            trainable = text.lower() != "false"
        repeat: Expr | None = None
        if "repeat" in values:
            number = values["repeat"][1]
            repeat = self.expression(number, "'repeat'") or Unread((), self.source.at(number))
        return Variable("", shape, at, init, trainable, repeat)

    def shape(self, node: yaml.Node) -> tuple[Expr, ...]:
        """An expression for each axis; Unread after reporting that there is none."""
        at = self.source.at(node)
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if isinstance(node, yaml.MappingNode):
            self.report.error(at, "a shape is a dim such as H, or a list of them such as [H, I]")
        elif not items:
            self.report.error(at, "a shape cannot be empty; a single number has the shape 1")
        else:
            return tuple(self.axis(item) for item in items)
        self.skip(node)
        return (Unread((), at),)

    def axis(self, node: yaml.Node) -> Expr:
        axis = self.expression(node, "a dim")
        if axis is not None:
            dims = [part for part in walk(axis) if isinstance(part, Name)]
            if None not in [check_name(dim.id, dim.at, self.report, "a dim") for dim in dims]:
                return axis
        self.skip(node)
        return Unread((), self.source.at(node))

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
