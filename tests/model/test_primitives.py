"""The table of primitives: every row is spelled for every target, and what a row says of its function is true."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

import cellspec
from cellspec.backends.common import own_functions, with_callees
from cellspec.backends.cupy.cuda import CUDA
from cellspec.model.primitive import Primitive
from cellspec.model.primitives import CALLABLE, PRIMITIVES, column
from cellspec.model.spelling import Definition, spelling
from cellspec.oracle.primitives import rule

FUNCTIONS = {name: row for name, row in PRIMITIVES.items() if row.derivatives}
"""All but operators, which printers of expressions spell."""

every = pytest.mark.parametrize("row", FUNCTIONS.values(), ids=FUNCTIONS)


# --- spellings -----------------------------------------------------------------------------------------------------


def test_forms_of_a_spelling() -> None:
    assert spelling("np.tanh")(["a"]) == "np.tanh(a)"
    assert spelling("np.maximum")(["a", "b"]) == "np.maximum(a, b)"
    assert spelling("np.maximum({0}, 0)")(["a"]) == "np.maximum(a, 0)"
    own = spelling("f(a, b) = e/(1 + g(np.e(b))) where e = exp(-a) where c = h(a)")
    assert own(["x", "2*y"]) == "f(x, 2*y)" and own.function == "f"
    assert own.definition == Definition("f", ("a", "b"), "e/(1 + g(np.e(b)))", (("e", "exp(-a)"), ("c", "h(a)")))
    assert set(own.definition.calls) == {"g", "exp", "h"}, "what is a part of something else is no function of a module"


def _ufuncs(row: Primitive) -> set[str]:
    """The functions of which the row's ``numpy`` column makes it."""
    return {type(node).__name__ for node in sympy.sympify(row.numpy(*_letters(row))).atoms(sympy.Function)}


def _letters(row: Primitive) -> list[sympy.Symbol]:
    return list(sympy.symbols("a b c"))[: row.arity]


@every
@pytest.mark.parametrize("target", ["numpy", "cuda"])
def test_every_function_is_spelled_for_every_target(row: Primitive, target: str) -> None:
    """By a word of its own; an array library may make it of ufuncs instead, all of which it has."""
    if target == "numpy" and target not in row.spellings:
        assert all(isinstance(getattr(np, name), np.ufunc) for name in _ufuncs(row) - {"erfc"})
        assert row.numpy(*_letters(row)).func.__name__ != row.name
        return
    text = row.spellings[target]([f"<{k}>" for k in range(row.arity)])
    assert all(f"<{k}>" in text for k in range(row.arity))
    if (definition := row.spellings[target].definition) is not None:
        assert len(definition.arguments) == row.arity
        assert all(re.search(rf"\b{argument}\b", str(definition)) for argument in definition.arguments)


def test_definitions_in_numpy_say_what_they_are() -> None:
    for name, word in column("numpy").items():
        assert bool(FUNCTIONS[name].about) == (word.definition is not None), name
    for text in own_functions("cp").values():
        assert "np." not in text and re.fullmatch(r'def _\w+\(z: Any\) -> Any:\n    """.+\."""\n(    .+\n)*    return .+', text)


def test_definitions_call_what_there_is() -> None:
    """A function of a module's own brings along those that it calls; the others are CUDA's, or in NumPy's case none."""
    assert with_callees(["gelu", "silu", "tanh"]) == ["erfc", "gelu", "sigmoid", "silu", "tanh"]
    texts = CUDA.definitions({word.function for word in column("cuda").values()})
    defined = {re.split(r"[ (]", text.removeprefix("__device__ inline real "))[0] for text in texts}
    for text in texts:
        called = set(re.findall(r"(?<![\w.])(\w+)\(", text.split("{", 1)[1]))
        assert called <= {*defined, *dir(math), "real"}, text
    order = [re.split(r"[ (]", text.removeprefix("__device__ inline real "))[0] for text in texts]
    for k, text in enumerate(texts):
        assert not set(re.findall(r"(\w+)\(", text.split("{", 1)[1])) & set(order[k + 1 :]), "it is defined later"


def _in_numpy() -> dict[str, Any]:
    """The functions that a module of NumPy defines for itself, and those that only loops can make."""
    space: dict[str, Any] = {"np": np, "Any": Any}
    space |= {f"_{name}": np.vectorize(getattr(math, name), otypes=[np.float64]) for name in ("erf", "erfc")}
    for text in own_functions("np").values():
        exec(text, space)
    return space


@pytest.mark.parametrize("name", [name for name in column("numpy") if name != "where"])
def test_words_of_numpy_mean_the_definition(name: str) -> None:
    row = FUNCTIONS[name]
    rng = np.random.default_rng(5)
    args = [rng.uniform(*row.domain, 50) for _ in range(row.arity)]
    found = eval(row.spellings["numpy"]([f"args[{k}]" for k in range(row.arity)]), {**_in_numpy(), "args": args})
    np.testing.assert_allclose(found, rule(name).value(args), rtol=1e-12, atol=1e-15)


# --- what rows say -------------------------------------------------------------------------------------------------


@every
def test_what_is_no_ufunc_is_not_computed_in_place(row: Primitive) -> None:
    """What is made of several calls is made in place if the last of them is, and arithmetic always is."""
    assert row.in_place == (_ufuncs(row) != {row.name} or isinstance(getattr(np, row.name, None), np.ufunc))


@pytest.mark.parametrize("name", [name for name in CALLABLE if PRIMITIVES[name].arity == 1 and name in FUNCTIONS])
def test_a_slope_made_of_the_result_alone_may_be_rounded_beside_one(name: str) -> None:
    x, y = sympy.symbols("x y")
    slope = sympy.sympify(FUNCTIONS[name].derivatives[0](x, y))
    of_result = slope.free_symbols == {y} and any(term.is_number for add in slope.atoms(sympy.Add) for term in add.args)
    assert FUNCTIONS[name].slope_beside_one == of_result


@pytest.mark.parametrize("name", [name for name, row in PRIMITIVES.items() if row.in_sympy])
def test_sympys_own_function_is_the_definition(name: str) -> None:
    row = PRIMITIVES[name]
    rng = np.random.default_rng(7)
    of_numbers: Callable[..., Any] = row.in_sympy  # type: ignore[assignment]
    for point in rng.uniform(*row.domain, (10, row.arity)):
        expected = float(rule(name).value([np.array([u]) for u in point])[0])
        assert float(of_numbers(*map(sympy.Float, point))) == pytest.approx(expected, rel=1e-12)


def test_a_primitive_stands_in_its_row() -> None:
    """To add one, add a row: nothing else in the compiler names those of which nothing is told but in their rows."""
    root = Path(cellspec.__file__).parent
    names = ("gelu", "silu", "softsign", "elu", "leaky_relu", "hard_tanh", "softplus", "logsigmoid", "relu")
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".jinja") and path.parent != root / "model" / "rows" and path.name != "spelling.py":
            code = re.sub(r'""".*?"""|#[^\n]*', "", path.read_text(), flags=re.DOTALL)
            assert not re.findall(rf"\b({'|'.join(names)})\b", code), path
