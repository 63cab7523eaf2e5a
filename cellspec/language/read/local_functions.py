"""``functions``: the heads and bodies of local functions, read from YAML nodes."""

from __future__ import annotations

import yaml

from cellspec.errors import Location
from cellspec.language.names import check_name
from cellspec.language.read.expressions import parse_expression
from cellspec.language.read.scanner import MAX_TEXT
from cellspec.language.read.yaml_values import NodeReader
from cellspec.language.spec import Call, Macro, Name, Unread


def read_macros(reader: NodeReader, node: yaml.Node) -> tuple[Macro, ...]:
    """The functions under ``functions``; a body that cannot be read is Unread."""
    if not reader.mapping(node, "'functions'"):
        reader.skip(node)
        return ()
    if sum(len(part.value) for pair in node.value for part in pair if isinstance(part, yaml.ScalarNode)) > MAX_TEXT:
        reader.report.error(reader.source.at(node), f"the functions are longer than {MAX_TEXT} characters in all")
        reader.skip(node)
        return ()
    found: dict[str, Macro] = {}
    for key, value in node.value:
        at = reader.source.at(key)
        head = _head(reader, key)
        body = reader.expression(value, "the body of a function")
        if head is None or body is None:
            reader.skip(key, value)
        if head is None:
            continue
        if head[0] in found:
            first = found[head[0]].at.line
            reader.report.error(at, f"{head[0]!r} is declared twice in 'functions'; it first stands in line {first}")
            reader.skip(value)
        else:
            found[head[0]] = Macro(*head, body or Unread((), at), at)
    return tuple(found.values())


def _head(reader: NodeReader, key: yaml.Node) -> tuple[str, tuple[str, ...]] | None:
    """The name of a function and its arguments; None after reporting what is wrong with them."""
    at, report = reader.source.at(key), reader.report
    text = reader.text(key, "a function")
    if not text:
        return None
    head = parse_expression(text, at, report)
    match head:
        case None:
            return None
        case Call(function=function, args=args) if all(isinstance(arg, Name) for arg in args):
            names = [(arg.id, arg.at) for arg in args if isinstance(arg, Name)]
        case _:
            report.error(at, "a function is written 'name(a, b): expression'")
            return None
    checked = [check_name(function, at, report, "a function"), *(_argument(reader, *name) for name in names)]
    repeated = [(name, place) for k, (name, place) in enumerate(names) if name in [earlier for earlier, _ in names[:k]]]
    for name, place in repeated:
        report.error(place, f"the argument {name!r} stands twice in the head of {function!r}")
    return None if None in checked or repeated else (function, tuple(name for name, _ in names))


def _argument(reader: NodeReader, name: str, at: Location) -> str | None:
    return check_name(name, at, reader.report, "an argument of a function")
