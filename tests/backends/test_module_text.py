"""What people read of a generated module: short lines and names, a legend of the words in it, remarks that are true."""

from __future__ import annotations

import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest
from support import SHIPPED, VALID, cell_from, cell_of, spec_id

import cellspec
from cellspec.backends import registry
from cellspec.backends.common import LEGEND, each, row, tidy
from cellspec.backends.legend import legend
from cellspec.backends.naming import Groups
from cellspec.backends.remarks import LONGEST, Account, Remark, Remarks
from cellspec.backends.wrap import COLUMNS
from cellspec.ir import Value
from cellspec.pipeline import compile_cell

SAMPLE = [path for path in SHIPPED if path.stem in ("gru", "lstm", "mamba", "mlstm_xlstm", "peephole", "phased_lstm", "rhn")]
BACKENDS = ("numpy", "cupy", "torch", "jax")


@cache
def text_of(path: Path, backend: str) -> str:
    return cellspec.generate(cell_of(path), backend)


def identifiers(text: str) -> set[str]:
    """The names in a module, also those in the CUDA that it holds."""
    found: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            found.add(token.string)
        elif token.type == tokenize.STRING and "__global__" in token.string:
            code = re.sub(r"//.*", "", token.string)
            found |= set(re.findall(r"[^\W\d]\w*", code))
    return found


def told(text: str) -> dict[str, str]:
    """The legend of a module: each word with its members."""
    match = re.search(r"# Side by side, in this order: ((?:.|\n# )*?)\.\n", text)
    return dict(each.split(" = ", 1) for each in match[1].replace("\n# ", " ").split("; ")) if match else {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [*SAMPLE, *VALID], ids=spec_id)
def test_lines_names_and_legend(path: Path, backend: str) -> None:
    text = text_of(path, backend)
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "\n\n\n\n" not in text and LEGEND not in text
    names = identifiers(text)
    cell = cell_of(path)
    own = {thing.name for things in (cell.params, cell.states, cell.inputs, cell.outputs) for thing in things}
    own |= {equation.target.name for equation in cell.assignments}
    assert [name for name in names if len(name) > 30 and name not in own and not name.startswith(("cublas", "CUBLAS"))] == []
    parts = {part for name in names for part in name.split("_")}
    words = {part for part in parts if re.fullmatch(r"(gates|weights)\d*", part)} - {"weights"} - own
    legend = told(text)
    assert words <= set(legend) and set(legend) <= parts
    assert all(members.startswith("[") and members.endswith("]") for members in legend.values())


def test_the_legend_of_the_lstm() -> None:
    (lstm,) = (path for path in SHIPPED if path.stem == "lstm")
    text = text_of(lstm, "numpy")
    assert told(text)["gates"] == "[o, i, f, g]"
    lines = text.splitlines()
    assert next(k for k, line in enumerate(lines, 1) if line.startswith("    for (")) < 150
    start = lines.index(next(line for line in lines if line.startswith("# --- the cell")))
    assert lines[start + 2].startswith("# Side by side")
    assert any("tanh(z/2)/2" in line for line in lines[start : start + 10])
    for gate, part in zip("oifg", ("0:H", "H:2*H", "2*H:3*H", "3*H:4*H"), strict=True):
        assert f"np.copyto(U_gates[{part}], params.U{gate})" in text


@pytest.mark.parametrize("backend", ["cupy", "torch"])
def test_only_the_backend_that_halves_weights_says_so(backend: str) -> None:
    (lstm,) = (path for path in SHIPPED if path.stem == "lstm")
    assert "tanh(z/2)" not in text_of(lstm, backend)


def test_what_is_not_used_is_not_told() -> None:
    groups = Groups()
    groups.name(list("oifg"))
    groups.name(list("ifgo"))
    source = "def f(ws):\n    U_gates2_T = ws.h_prev\n    x_sum = 1\n"
    lines = list(legend(groups, source, ("f",), "numpy"))
    assert lines == [
        "Side by side, in this order: gates2 = [i, f, g, o].",
        "Endings of names: _sum over all steps and samples; _T transposed.",
    ]
    assert list(legend(groups, source.replace("gates2", "x"), ())) == []


def test_the_legend_stands_where_the_template_has_it() -> None:
    text = f"a = 1\n\n{LEGEND}\n\n\nb = 2   \n"
    assert tidy(text, ["words"]) == "a = 1\n\n# words\n\n\nb = 2\n"
    assert tidy(text) == "a = 1\n\n\nb = 2\n"


def test_rows_of_tuples() -> None:
    assert (row([]), row(["a"]), row(["a", "b"])) == ("", "a,", "a, b")
    assert each(["a", "b"], "x.%s") == ["x.a", "x.b"]


# --- remarks -----------------------------------------------------------------------------------------------------------

CELL = """
name: told
dims: [I, H]
inputs: {x: [I]}
states: {h: [H], c: [H]}
params: {W: [H, I], U: [H, H], V: [H, H], b: [H]}
activations: {phi: tanh}
equations: |
  r = phi(U @ h[t-1] + b)
  n = phi(W @ x[t] + V @ (r*h[t-1]))
  c[t] = c[t-1]*r + n
  h[t] = phi(c[t])
outputs: [h]
"""


def remark(name: str, origin: str, forwards: bool = False) -> str | None:
    compiled = compile_cell(cell_from(CELL), "speed", registry.backend("torch"))
    found = Remarks.of(compiled, forwards).about(Value(name, (), origin))
    return found.text if found else None


@pytest.mark.parametrize(
    ("name", "origin", "text"),
    [
        ("d:h[t]", "h", "back to h[t], from the output and the next step"),
        ("d:c[t]", "c", "back to c[t], from the next step and h[t] = phi(c[t])"),
        ("d:c[t]*", "c", "for the way back to c[t], from h[t] = phi(c[t])"),
        ("d:r", "r", "back to r, from n and c[t]"),
        ("d:n.pre", "n", "back through n = phi(W @ x[t] + V @ (r*h[t-1]))"),
        ("d:n.pre*2", "n", "for the way back through n = phi(W @ x[t] + V @ (r*h[t-1]))"),
        ("d:c[t-1]", "c", "back to c[t-1], from c[t] = c[t-1]*r + n"),
        ("d:c[t-1] kept", "c", "back to c[t-1], from c[t] = c[t-1]*r + n"),
        ("d:h[t-1]", "h", "back to h[t-1], from r and n"),
        ("U.T@d:U@h[t-1]", "h", "back through U @ h[t-1]"),
        ("V.T@d:V@n.part", "n", "back through V @ (h[t-1]*r)"),
        ("d:h[t]<- here", "h", "what comes back from the next step, unless the sequence ends or is reset in between"),
        ("n again", "", None),
        ("r", "r again", "again: r = phi(U @ h[t-1] + b)"),
        ("n.part", "n again", "again: h[t-1]*r, in n"),
    ],
)
def test_a_remark_says_what_is_passed_back(name: str, origin: str, text: str | None) -> None:
    assert remark(name, origin) == text


def test_forwards_a_remark_is_the_equation() -> None:
    assert remark("n.pre", "n", forwards=True) == "n = phi(W @ x[t] + V @ (r*h[t-1]))"
    assert remark("x", "", forwards=True) is None
    assert remark("c[t-1] here", "c", forwards=True) == "the state before the step, put back where the sequence is reset"


def test_products_with_several_weights_are_one_remark() -> None:
    for name, backend in (("lstm", "numpy"), ("lstm", "cupy"), ("gru", "numpy")):
        (path,) = (path for path in SHIPPED if path.stem == name)
        stack = "[Ui; Uf; Ug; Uo]" if name == "lstm" else "[Ur; Uu]"
        assert f"# back through {stack} @ h[t-1]\n" in text_of(path, backend)


@pytest.mark.parametrize("path", SAMPLE, ids=spec_id)
def test_remarks_are_short_and_name_their_equations(path: Path) -> None:
    text = text_of(path, "numpy")
    equations = {equation.text for equation in cell_of(path).assignments}
    labels = {equation.target.label for equation in cell_of(path).assignments}
    lines = [line.strip()[2:] for line in text.split("def _backward(")[1].split("def step(")[0].splitlines() if " # " in line]
    remarks = [line for line in lines if line.startswith(("back ", "for the way back "))]
    assert remarks and max(map(len, remarks)) <= LONGEST + len("for the way ")
    for line in remarks:
        _, kind, rest = line.partition("back through ")
        if kind and " @ " not in rest.partition("=")[0]:
            assert rest in equations or rest.removesuffix(", continued") in labels, line


def test_what_has_been_said_is_not_said_again() -> None:
    account = Account()
    n, h, d = Remark("n = phi(x)", "", "n"), Remark("h = n", "", "h"), Remark("back to n, from h", "back to ", "n")
    assert account.lines([n]) == ["n = phi(x)"]
    assert account.lines([n, None]) == [] and account.lines([]) == []
    assert account.lines([h]) == ["h = n"]
    assert account.lines([n]) == ["n, continued"]
    assert account.lines([n, h]) == ["n and h, continued"]
    assert account.lines([d, n]) == ["back to n, from h", "n, continued"]
    assert account.lines([h, d, n]) == ["h and n, continued", "back to n, continued"]
