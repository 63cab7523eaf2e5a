"""Long lines of modules are broken, and say afterwards what they have said before."""

from __future__ import annotations

import ast

import pytest

from cellspec.backends.wrap import COLUMNS, wrapped

NAMES = [f"variable_{number}" for number in range(20)]
LONG = {
    "call": f"result = function({', '.join(NAMES)})\n",
    "call in a call": f"result = outer(first, inner({', '.join(NAMES)}), last)\n",
    "tuples": f"{', '.join(NAMES)} = {', '.join(NAMES[::-1])}\n",
    "loop": f"def f():\n    for {', '.join(NAMES)} in zip({', '.join(NAMES)}):\n        pass\n",
    "sum": f"total = ({' + '.join(NAMES)})\n",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_code_stays_what_it_is(text: str) -> None:
    assert max(map(len, text.splitlines())) > COLUMNS
    found = wrapped(text)
    assert max(map(len, found.splitlines())) <= COLUMNS
    assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(text))
    assert wrapped(found) == found


def test_a_comment_behind_code_comes_before_it() -> None:
    found = wrapped(f"x = 1  # {'word ' * 40}\n")
    *comments, code = found.splitlines()
    assert code == "x = 1" and len(comments) == 2 and all(line.startswith("# word") for line in comments)


def test_words_of_docstrings_go_to_the_next_line() -> None:
    text = f'def f():\n    """{"word " * 30}end.\n\n    Another.\n    """\n'
    found = wrapped(text)
    assert max(map(len, found.splitlines())) <= COLUMNS
    before, after = (ast.get_docstring(ast.parse(each).body[0]) for each in (text, found))  # type: ignore[arg-type]
    assert before is not None and after is not None and before.split() == after.split()


def test_what_is_short_stays() -> None:
    text = 'x = [1,\n     2]\n"""Text."""\n'
    assert wrapped(text) == text
