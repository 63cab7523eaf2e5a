"""The names that a module uses itself, read off the templates and sources that it is made from: values are not called by them.

A template is Python with gaps. A word in it is a name where it is no keyword, and stands in no comment or string and behind no
dot, but for attributes of ``self``. Names are known by the function or class in which they stand, so that a value need only
keep clear of those that are where it is.
"""

from __future__ import annotations

import keyword
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import jinja2

from cellspec.backends import included
from cellspec.backends.common import environment

GAP = "__gap__"
"""What stands for all that a template leaves open."""


@dataclass(frozen=True)
class Skeleton:
    """The names in each function and class of a backend's templates, those of them in which something is ``open``, and
    ``outermost`` ones, of the module itself.
    """

    scopes: dict[str, frozenset[str]]
    open: frozenset[str]
    outermost: frozenset[str]

    def names(self, scopes: Iterable[str]) -> frozenset[str]:
        """The names with a meaning in some functions and classes, those of the module included."""
        return self.outermost.union(*(self.scopes[scope] for scope in scopes))


@cache
def skeleton(*folders: str) -> Skeleton:
    """The skeleton of a backend's modules, of its own folder and those that it shares with others."""
    templates = environment(*folders)
    assert templates.loader is not None
    found: defaultdict[str, set[str]] = defaultdict(set)
    outermost: set[str] = set()
    for template in templates.list_templates(filter_func=lambda name: name.endswith(".py.jinja")):
        source, _, _ = templates.loader.get_source(templates, template)
        for scope, name in names(_with_gaps(templates, source)):
            (found[scope] if scope else outermost).add(name)
    for source in included.sources(folders):
        for scope, name in names(source):
            (found[scope] if scope else outermost).add(name)
    opened = frozenset(scope for scope, inside in found.items() if GAP in inside)
    scopes = {scope: frozenset(inside - {GAP}) for scope, inside in found.items()}
    return Skeleton(scopes, opened, frozenset(outermost.union(scopes) - {GAP}))


def _with_gaps(templates: jinja2.Environment, source: str) -> str:
    """A template's Python, with a word for each expression and nothing for what chooses between parts."""
    parts = []
    for _, kind, text in templates.lex(source):
        if kind == "data":
            parts.append(text)
        elif kind == "variable_begin":
            parts.append(f" {GAP} ")
    return "".join(parts)


def names(source: str) -> Iterator[tuple[str, str]]:
    """Every name in Python text, and the function or class at the outermost level in which it stands, "" in none."""
    scope = before = ""
    for word, column, behind in _words(source):
        if before in ("def", "class") and column == len(before) + 1:
            scope = word
        elif column == 0 and word not in ("def", "class"):
            scope = ""
        if not keyword.iskeyword(word) and (behind != "." or before == "self"):
            yield scope, word
        before = word


def _words(source: str) -> Iterator[tuple[str, int, str]]:
    """The words of Python text outside strings and comments, the columns in which they begin, and what stands before each."""
    k = line = 0
    while k < len(source):
        char = source[k]
        if char == "\n":
            line = k + 1
        if char == "#":
            k = _end(source, "\n", k)
        elif char in "\"'":
            quotes = char * 3 if source.startswith(char * 3, k) else char
            k = _end(source, quotes, k + len(quotes)) + len(quotes)
        elif char.isalnum() or char == "_":
            start = k
            while k < len(source) and (source[k].isalnum() or source[k] == "_"):
                k += 1
            if char.isidentifier() and source[k : k + 1] not in ("'", '"'):  # neither a number nor a string's prefix
                yield source[start:k], start - line, source[start - 1 : start] if start else ""
        else:
            k += 1


def _end(source: str, mark: str, start: int) -> int:
    """Where ``mark`` stands next, not behind a backslash."""
    k = start
    while k < len(source) and not source.startswith(mark, k):
        k += 2 if source[k] == "\\" else 1
    return k
