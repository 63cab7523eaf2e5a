"""Bytes -> YAML nodes with their places; hostile files are refused before anything recursive or exponential sees them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from cellspec.errors import Location, Reporter

MAX_BYTES = 1_000_000
MAX_NESTING = 100
MAX_NODES = 10_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_BREAK = re.compile(r"\r\n|\r|\n")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")

_ADVICE = {
    "mapping values are not allowed": "a ':' is not expected here; quote a text that contains one",
    "unexpected ':'": "a ':' is not expected here; quote a text that contains one",
    "mapping keys are not allowed": "a key is not expected here; check the indentation",
    "could not find expected ':'": "a ':' is expected after this key",
    "expected key": "a key is expected here; check the indentation",
    "expected ',' or '}'": "this '{…}' does not close; separate its entries by ',' and quote names with braces: \"W{i,f}\"",
    "expected ',' or ']'": "this '[…]' does not close; separate its entries by ','",
    "expected <block end>": "this does not belong here; check the indentation",
    "'-' indicator": "a '-' is not expected here; check the indentation",
    "expected node content": "a value is expected here",
    "unexpected end of stream": "the quote that opens here is never closed",
    "unknown escape character": "this escape is unknown; write the text in single quotes",
}


@dataclass(frozen=True)
class Source:
    """A file's name and lines, and the places of its nodes."""

    file: str
    lines: tuple[str, ...]

    def place(self, line: int, column: int) -> Location:
        """The location of a line and a column that count from 0."""
        text = self.lines[line] if 0 <= line < len(self.lines) else ""
        return Location(self.file, line + 1, column + 1, text)

    def at(self, node: yaml.Node) -> Location:
        """Where ``node`` begins; within quotes where it is quoted."""
        quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')
        return self.place(node.start_mark.line, node.start_mark.column + quoted)

    def block(self, node: yaml.ScalarNode) -> list[Location]:
        """Where each line of a scalar's value begins in the file; exact for literal blocks and for what stands on one line."""
        if node.style != "|":
            return [self.at(node)]
        first, places = node.start_mark.line + 1, []
        for offset, line in enumerate(node.value.split("\n")):
            here = self.place(first + offset, 0)
            indent = len(here.text) - len(line) if here.text.endswith(line) else 0
            places.append(self.place(first + offset, indent))
        return places


def read_bytes(path: Path, report: Reporter, at: Location) -> bytes | None:
    """The bytes of a spec; None after reporting that the file cannot be read or is too large."""
    try:
        if not path.exists():
            report.error(at, f"there is no file {str(path)!r}")
        elif not path.is_file():
            report.error(at, f"{str(path)!r} is not a file")
        else:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) <= MAX_BYTES:
                return data
            report.error(at, f"the file is larger than {MAX_BYTES // 1_000_000} MB")
    except (OSError, ValueError) as error:
        report.error(at, f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
    return None


def decode(data: bytes, file: str, report: Reporter) -> str | None:
    """The text of a spec; None after reporting an encoding other than plain UTF-8."""
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        report.error(Location(file, 1, 1), "the file begins with a byte-order mark; save it as plain UTF-8")
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = _BREAK.split(data[: error.start].decode("utf-8"))
        at = Location(file, len(before), len(before[-1]) + 1)
        report.error(at, f"the file is not UTF-8 (byte 0x{data[error.start]:02x})")
        return None


def compose(text: str, file: str, report: Reporter) -> tuple[Source, yaml.MappingNode | None]:
    """The top-level mapping of ``text``; None after reporting why there is none."""
    source = Source(file, tuple(_BREAK.split(text)))
    if len(text) > MAX_BYTES:
        report.error(source.place(0, 0), f"the file is larger than {MAX_BYTES // 1_000_000} MB")
        return source, None
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        before = _BREAK.split(text[: forbidden.start()])
        at = source.place(len(before) - 1, len(before[-1]))
        report.error(at, f"the character U+{ord(forbidden.group()):04X} is not allowed in a spec")
        return source, None
    try:
        if not _screened(text, source, report):
            return source, None
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        _explain(error, source, report)
        return source, None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        report.error(source.place(0, 0), f"the file is not YAML: {str(error).splitlines()[0]}")
        return source, None
    if isinstance(node, yaml.MappingNode):
        return source, node
    if node is None:
        report.error(source.place(0, 0), "the file is empty; a mapping with 'name', 'inputs', 'states' … is expected")
    else:
        report.error(source.at(node), "a spec is a mapping of keys such as 'name: mine' at its top level")
    return source, None


def _screened(text: str, source: Source, report: Reporter) -> bool:
    """Walk the events, without recursion, and refuse what a spec never needs: anchors, tags, several documents, depth, bulk."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        message = ""
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                message = "a spec file holds one YAML document, and a second one begins here"
        elif isinstance(event, yaml.AliasEvent):
            message = "aliases ('*name') are not allowed in a spec; write the value out"
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            message = "anchors ('&name') are not allowed in a spec"
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            message = f"tags are not allowed in a spec, but this value has the tag '{event.tag[:60]}'"
        elif isinstance(event, yaml.ScalarEvent) and _FORBIDDEN.search(event.value):
            message = "this text contains a control character"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_NESTING:
                message = f"the file is nested deeper than {MAX_NESTING} levels"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if count > MAX_NODES:
            message = f"the file has more than {MAX_NODES} keys and values"
        if message:
            mark = event.start_mark
            report.error(source.place(mark.line, mark.column) if mark else source.place(0, 0), message)
            return False
    return True


def _explain(error: yaml.MarkedYAMLError, source: Source, report: Reporter) -> None:
    """Tell a YAML syntax error in one sentence, at the place that has to change."""
    problem = error.problem or "it cannot be read"
    mark = error.problem_mark or error.context_mark
    advice = next((text for part, text in _ADVICE.items() if part in problem), None)
    opened = ("expected ':'", "expected ',' or", "end of stream")
    if error.context_mark is not None and any(part in problem for part in opened):
        mark = error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    while line > 0 and (line >= len(source.lines) or not source.lines[line].strip()):
        line, column = line - 1, MAX_BYTES  # a blank line at the end: point behind the last word instead
    column = min(column, len(source.lines[line]))
    if source.lines[line][column : column + 1] == "\t":
        advice = "a tab cannot indent YAML; use spaces"
    report.error(source.place(line, column), f"this is not YAML: {advice or problem}")


def number(text: str) -> int | float | None:
    """The number that ``text`` writes (``1``, ``0.5``, ``1e-3``, ``-.inf``), or None. Out of range gives an infinity."""
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if _NUMBER.fullmatch(text) is None:
        return None
    value = float(text)
    return int(value) if text.lstrip("+-").isdigit() and abs(value) < 2**53 else value
