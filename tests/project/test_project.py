"""The repository as a whole: names, determinism, the committed modules, versions."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import COMMON, ROOT, SHIPPED, SPECS

from cellspec import generate, load
from cellspec.backends.registry import STANDING
from cellspec.language.read.loader import shipped_names
from cellspec.tools import write
from cellspec.tools.arguments import known_cells, shipped_paths

# --- no cell is special ------------------------------------------------------------------------------------


def code_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, without the strings that are statements of their own (docstrings)."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text("utf-8").splitlines(), 1)
        return
    tree = ast.parse(path.read_bytes())
    prose = {
        (node.lineno, node.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type != tokenize.ENCODING and token.start not in prose:
                yield token.start[0], token.string


def mentions(path: Path) -> list[str]:
    """Where a file mentions a shipped cell outside docstrings; ``_`` parts words, so that ``is_lstm`` is a mention."""
    names = "|".join(name for name in shipped_names() if len(name) > 2)
    pattern = re.compile(rf"(?<![A-Za-z0-9])({names})(?![A-Za-z0-9])", re.IGNORECASE)
    return [f"{path.name}:{line}: {found[0]}" for line, text in code_of(path) for found in pattern.finditer(text)]


def test_compiler_knows_no_cell() -> None:
    files = [path for suffix in ("*.py", "*.pyi", "*.jinja", "*.cu") for path in (ROOT / "cellspec").rglob(suffix)]
    assert len(files) > 30
    assert [mention for path in sorted(files) for mention in mentions(path)] == []


def test_mentions_are_found(tmp_path: Path) -> None:
    code = '"""An LSTM."""\ndef is_lstm(cell):\n    """As an LSTM."""\n    # for the gru\n    return cell == "peephole"\n'
    (tmp_path / "code.py").write_text(code)
    assert mentions(tmp_path / "code.py") == ["code.py:2: lstm", "code.py:4: gru", "code.py:5: peephole"]
    (tmp_path / "text.jinja").write_text("{% if cell.name == 'elman' %}\n")
    assert mentions(tmp_path / "text.jinja") == ["text.jinja:1: elman"]


# --- the same bytes ----------------------------------------------------------------------------------------

DIGEST = """\
import cellspec, hashlib, sys
for path in sys.argv[1:]:
    print(hashlib.sha256(cellspec.generate(cellspec.load(path)).encode()).hexdigest())
"""


def test_same_bytes_under_every_hash_seed() -> None:
    paths = [str(path) for path in SPECS if path not in SHIPPED or path.stem in COMMON]
    expected = [hashlib.sha256(generate(load(path)).encode()).hexdigest() for path in paths]
    for seed in ("4242",):  # beside the one of this process
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", DIGEST, *reversed(paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        different = [Path(p).name for p, a, b in zip(paths, expected, reversed(done.stdout.split()), strict=True) if a != b]
        assert different == [], f"PYTHONHASHSEED={seed}"


def test_same_bytes_again(path: Path) -> None:
    assert generate(load(path)) == generate(load(path))


def test_text_does_not_depend_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = (ROOT / "specs" / "gru.yaml").read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(spec.replace("name: gru\n", "name: mine\n"), "utf-8")
    text = generate(load(tmp_path / "mine.yaml"))
    monkeypatch.chdir(tmp_path)
    assert generate(load("mine.yaml")) == text and str(tmp_path) not in text


@pytest.mark.slow
def test_committed_modules_are_fresh() -> None:
    """If this fails: ``cellspec generate``, and delete what is orphaned. ``make test`` asks ``cellspec generate --check``."""
    modules = write.modules((load(path) for path in shipped_paths()), STANDING)
    assert write.compare(ROOT / "generated", modules, known_cells(shipped_paths()), STANDING) == write.Comparison((), (), ())
