"""No long lines, the same program: how a module's text is broken."""

from __future__ import annotations

import ast

import pytest
from support import VALID

import cellspec
from cellspec.backends.wrap import COLUMNS, wrapped

LONG = ", ".join(f"argument_{k}" for k in range(14))
NESTED = f"f(g({LONG}), [h({LONG})])"


def test_short_lines_stay() -> None:
    text = 'x = f(1)\n"""doc"""\n# comment\n'
    assert wrapped(text) == text


@pytest.mark.parametrize(
    "code",
    [
        f"y = f({LONG})",
        f"y = {NESTED}",
        f"y = dict(zip(({LONG}), rows))",
        f"{LONG} = y",
        f"y = {LONG}",
        f"({LONG}) = f({LONG})",
        f"for {LONG} in steps:\n    pass",
        f"for ({LONG}) in zip(steps, others):\n    pass",
        f"def f({LONG}):\n    return g({LONG})",
        f"class A:\n    def f(self):\n        self.x = {NESTED}  # {'why ' * 30}",
        f"y = ({' + '.join(f'f(value_{k})' for k in range(14))})",
        f"y = ({' and '.join(f'value_{k}' for k in range(14))})",
        f"y = a if f({LONG}) else b",
    ],
)
def test_code_is_broken_within_brackets(code: str) -> None:
    text = wrapped(f"{code}\n")
    assert max(map(len, text.splitlines())) <= COLUMNS < max(map(len, code.splitlines()))
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(code))


def test_a_comment_behind_a_long_line_comes_before_it() -> None:
    text = wrapped(f"    y = 1  # {'word ' * 30}\n")
    first, *_, last = text.splitlines()
    assert first.startswith("    # word word") and last == "    y = 1"


def test_docstrings_are_broken_between_words() -> None:
    words = " ".join(f"word{k}" for k in range(40))
    text = wrapped(f'def f():\n    """{words}\n\n    {words}\n    short\n    """\n')
    assert max(map(len, text.splitlines())) <= COLUMNS
    doc = ast.get_docstring(ast.parse(text).body[0])  # type: ignore[arg-type]
    assert doc is not None and doc.split() == [*words.split(), *words.split(), "short"]
    assert "\n\n" in doc


def test_cuda_within_a_string_is_broken_at_spaces() -> None:
    line = f"    const real x = f({LONG});"
    comment = f"    // {'word ' * 30}".rstrip()
    text = wrapped(f'SOURCE = r"""\n{line}\n{comment}\n"""\n')
    lines = text.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert all(each.startswith("    // ") for each in lines if "word" in each)
    (source,) = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    assert isinstance(source, str)
    assert source.replace("// ", "").split() == [*line.split(), *comment.replace("// ", "").split()]


def test_a_module_is_broken_without_a_change() -> None:
    """Broken once more nothing moves."""
    text = cellspec.generate(cellspec.load(VALID[0]))
    assert wrapped(text) == text
