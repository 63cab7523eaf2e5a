"""Text of the C family: expressions as SymPy has them, sizes, functions; and the variables in each piece of text."""

from __future__ import annotations

import ctypes
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

from cellspec.backends.cupy.cuda import CUDA
from cellspec.backends.fused import c_family
from cellspec.backends.fused.c_family import KEYWORDS, Dialect, Printer, ascii_name, size_text
from cellspec.backends.fused.code import EMPTY, Code, code, in_parentheses, indented, joined, mentions, name, names_in
from cellspec.ir import symbol
from cellspec.model.primitives import PRIMITIVES

PLAIN_C = Dialect(
    target="cuda",
    auxiliary=CUDA.auxiliary,
    real="real({})",
    infinity="INFINITY",
    argument="double {}",
    definition="static double {name}({arguments}) {{ return {value}; }}",
)
"""C itself, with a macro ``real``: what the column of CUDA says is right wherever there is a compiler."""

a, b, c, h, w = map(symbol, ("a", "b", "c", "h[t-1]", "w"))
H = symbol("H")


def printer(dialect: Dialect = CUDA) -> Printer:
    texts = {"a": name("a"), "b": name("b"), "c": Code("cs[j]", ("cs", "j")), "h[t-1]": name("h_prev"), "w": name("w_j")}
    return Printer(dialect, texts, {"H": "H_"}, {n: k for k, n in enumerate(texts)}, {"w"})


def called(function: str, *args: sympy.Expr) -> sympy.Expr:
    return PRIMITIVES[function].symbol(*args)


EXPRESSIONS = {
    "a + b": b + a,
    "b - a": b - a,
    "(1 - a)*a": a * (1 - a),
    "a*b + w_j": w + a * b,  # what is the same at every step stands last
    "1 - a": 1 - a,
    "-a": -a,
    "a/2": a / 2,
    "real(0.6666666666666666)*a": 2 * a / 3,
    "3*a": 3 * a,
    "real(0.1)*a": sympy.Float(0.1) * a,
    "a/b/b": a / b**2,
    "1/b": 1 / b,
    "1/(a + b)": 1 / (a + b),
    "a/(sqrt(b + 1))": a / sympy.sqrt(b + 1),
    "square(a)": a**2,
    "pow(a, real(3))": a**3,
    "pow(a, b)": a**b,
    "sqrt(a)": sympy.sqrt(a),
    "real(1.4142135623730951)*a/2": a / sympy.sqrt(2),
    "sigmoid(a + b)": called("sigmoid", a + b),
    "fabs(a)": called("abs", a),
    "maximum(a, 0)": called("max", a, 0),
    "real(H_)*a": H * a,
    "a - cs[j]*h_prev": a - h * c,
    "-real(INFINITY)": -sympy.oo,
    "16777215*a": (2**24 - 1) * a,
    "real(16777216.0)*a": 2**24 * a,
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text: str) -> None:
    assert printer().text(EXPRESSIONS[text]) == text


def test_what_stands_in_an_expression() -> None:
    assert printer().code(a - c * h / H) == Code("a - cs[j]*h_prev/real(H_)", ("H_", "a", "cs", "j", "h_prev"))


def test_the_functions_that_expressions_call_are_noted() -> None:
    made = printer()
    made.text(called("silu", a) + sympy.sqrt(b) + c**2 + sympy.oo)
    assert made.used >= {"INFINITY"}
    made = printer()
    made.text(called("silu", a) + sympy.sqrt(b) + c**2)
    assert made.used == {"silu", "sqrt", "square"}


def test_boundaries_choose_without_reading_the_rest() -> None:
    from cellspec.passes.masks import cotangent_at, next_state, state_at_end

    text = printer().text
    assert text(next_state(a, 0, b, c)) == "a == 0 ? b : a == 1 ? 0 : cs[j]"
    assert text(cotangent_at(a, b, c)) == "a == 0 ? b : a == 2 ? cs[j] : 0"
    assert text(state_at_end(a, b) + c) == "b + cs[j]"
    assert text(2 * next_state(a, 0, b, c)) == "2*(a == 0 ? b : a == 1 ? 0 : cs[j])"


def test_sizes_have_no_powers() -> None:
    D = symbol("D")
    assert size_text(2 * H**2 * D + H, {"H": "n"}) == Code("2*D*n*n + n", ("D", "n"))
    assert size_text((H + 1) ** 2, {}) == Code("(H + 1)*(H + 1)", ("H",))
    assert size_text(sympy.Integer(3), {}) == Code("3")


def test_names_in_letters_that_every_compiler_takes() -> None:
    assert ascii_name("h_α") == "h_u03B1" and ascii_name("h_2") == "h_2"
    assert all(ascii_name(word) == word for word in KEYWORDS)


# --- functions ------------------------------------------------------------------------------------------------------


def test_a_definition_stands_behind_those_that_it_calls() -> None:
    assert CUDA.definitions(["silu"]) == [
        "__device__ inline real logistic(real a, real e) { return (a > 0 ? real(1) : e)*(1/(1 + e)); }",
        "__device__ inline real sigmoid(real a) { return logistic(a, exp(-fabs(a))); }",
        "__device__ inline real silu(real a) { return a*sigmoid(a); }",
    ]
    assert CUDA.definitions(["exp", "tanh", "sqrt"]) == []


def test_every_function_that_is_called_is_the_librarys_or_defined() -> None:
    for called_ in PLAIN_C.names:
        assert called_ in PLAIN_C.own or hasattr(math, called_) or called_ in ("INFINITY", "real"), called_
    assert not set(PLAIN_C.own) & set(dir(math)), "it would hide the library's"


def test_no_word_of_cuda_stands_in_what_the_family_shares() -> None:
    folder = Path(c_family.__file__).parent
    for path in folder.glob("*.py"):
        words = set(re.findall(r"\w+", path.read_text()))
        assert not words & {"__device__", "__global__", "threadIdx", "blockIdx", "blockDim", "cupy", "cp", "CUDA"}, path.name


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The functions of the column, compiled as C."""
    folder = tmp_path_factory.mktemp("c")
    lines = ["#include <math.h>", "#define real(x) ((double)(x))", *PLAIN_C.definitions(PLAIN_C.functions.values())]
    for primitive, function in PLAIN_C.functions.items():
        arguments = [f"x{k}" for k in range(PRIMITIVES[primitive].arity)]
        typed = ", ".join(f"double {x}" for x in arguments)
        lines.append(f"double of_{primitive}({typed}) {{ return {function}({', '.join(arguments)}); }}")
    source = folder / "primitives.c"
    source.write_text("\n".join(lines))
    command = [
        "cc",
        "-std=c11",
        "-O1",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Werror",
        "-o",
        str(folder / "primitives.so"),
        str(source),
        "-lm",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    library = ctypes.CDLL(str(folder / "primitives.so"))

    def of(primitive: str) -> Any:
        found = getattr(library, f"of_{primitive}")
        found.restype, found.argtypes = ctypes.c_double, [ctypes.c_double] * PRIMITIVES[primitive].arity
        return found

    return of


@pytest.mark.parametrize("primitive", list(PLAIN_C.functions))
def test_a_c_compiler_computes_what_rows_define(primitive: str, compiled: Callable[[str], Any]) -> None:
    row = PRIMITIVES[primitive]
    rng = np.random.default_rng(3)
    for _ in range(20):
        args = rng.uniform(*row.domain, row.arity)
        expected = float(sympy.sympify(row.definition(*map(sympy.Float, args))))
        assert compiled(primitive)(*args) == pytest.approx(expected, rel=1e-13, abs=1e-15)


# --- pieces of text -------------------------------------------------------------------------------------------------


def test_pieces_know_what_stands_in_them() -> None:
    row, j = name("row"), name("j")
    index = code("{}*{} + {}", row, Code("H", ("H",)), j)
    assert index == Code("row*H + j", ("row", "H", "j"))
    assert code("{}[{}] = {{}};", "out", index) == Code("out[row*H + j] = {};", ("row", "H", "j"))
    assert joined(" + ", [EMPTY, row, EMPTY, j]) == Code("row + j", ("row", "j"))
    assert (in_parentheses(j), in_parentheses(index).text) == (j, "(row*H + j)")
    assert [line.text for line in indented([row, EMPTY])] == ["    row", ""]
    assert names_in([index, j, name("k")]) == ("row", "H", "j", "k")
    assert mentions([index], j) and not mentions([index], name("k")) and not mentions([], j)
