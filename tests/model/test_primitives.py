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
from cellspec.model.primitive import Primitive
from cellspec.model.primitives import CALLABLE, PRIMITIVES, column
from cellspec.model.spelling import Definition, Spelling, called, spelling
from cellspec.oracle.primitives import rule

FUNCTIONS = {name: row for name, row in PRIMITIVES.items() if row.derivatives}
"""All but operators, which printers of expressions spell."""

TARGETS, ARRAYS = {"numpy", "cuda", "torch", "jax"}, {"numpy"}
"""The columns; those of array libraries, which may do without words where they have the ufuncs of which a row is made."""

UFUNCS = ("minimum", "maximum", "abs", "expm1", "logaddexp")

every = pytest.mark.parametrize("row", FUNCTIONS.values(), ids=FUNCTIONS)


# --- spellings -----------------------------------------------------------------------------------------------------


def test_forms_of_a_spelling() -> None:
    assert spelling("np.tanh")(["a"]) == "np.tanh(a)"
    assert spelling("np.maximum")(["a", "b"]) == "np.maximum(a, b)"
    assert spelling("np.maximum({0}, 0)")(["a"]) == "np.maximum(a, 0)"
    own = spelling("f(a, b) = exp(-a)/(1 + g(np.e(b)))")
    assert own(["x", "2*y"]) == "f(x, 2*y)" and own.function == "f"
    assert own.definition == Definition("f", ("a", "b"), "exp(-a)/(1 + g(np.e(b)))")
    assert own.definition.calls == ("exp", "g"), "what is a part of something else is no function of a module"
    assert called("a*(b + np.maximum(_f({0}), (c)))") == ["np.maximum", "_f"]
    assert spelling("-np.f({0})").is_negation and not own.is_negation


def _ufuncs(row: Primitive) -> set[str]:
    """The functions of which the row's ``numpy`` column makes it."""
    return {type(node).__name__ for node in sympy.sympify(row.numpy(*_letters(row))).atoms(sympy.Function)}


def _letters(row: Primitive) -> list[sympy.Symbol]:
    return list(sympy.symbols("a b c"))[: row.arity]


def _drawn(row: Primitive) -> list[Any]:
    """Arguments in the row's domain."""
    rng = np.random.default_rng(5)
    return [rng.uniform(*row.domain, 50) for _ in range(row.arity)]


@every
def test_every_function_has_words_in_every_target(row: Primitive) -> None:
    """An array library may make it of ufuncs instead, all of which it has."""
    assert row.spellings.keys() >= TARGETS - ARRAYS
    for target in ARRAYS - row.spellings.keys():
        assert _ufuncs(row) != {row.name}, target
        assert all(isinstance(getattr(np, name), np.ufunc) for name in _ufuncs(row)), target
    for target, word in row.spellings.items():
        text = word([f"<{k}>" for k in range(row.arity)])
        assert set(re.findall(r"<\d>", text)) == {f"<{k}>" for k in range(row.arity)}, target
        if word.definition is not None:
            assert len(word.definition.arguments) == row.arity
            assert set(word.definition.arguments) <= set(re.findall(r"\w+", str(word.definition.value))), target


def test_targets_are_those_of_the_table() -> None:
    """A target that the table does not know would be one that no test asks for."""
    assert {target for row in PRIMITIVES.values() for target in row.spellings} == TARGETS
    assert column("cuda").keys() == FUNCTIONS.keys()


def _brought_along(name: str) -> Callable[..., Any]:
    """A function of a module's own, as its name says: of what is special, Python's; of others, what ufuncs make."""
    if hasattr(math, name):
        return np.vectorize(getattr(math, name), otypes=[np.float64])
    space = [{"erfc": np.vectorize(math.erfc, otypes=[np.float64])}, {n: getattr(np, n) for n in UFUNCS}, "numpy"]
    made: Callable[..., Any] = sympy.lambdify(
        _letters(PRIMITIVES[name]), PRIMITIVES[name].numpy(*_letters(PRIMITIVES[name])), space
    )
    return made


@pytest.mark.parametrize("name", [name for name in column("numpy") if name != "where"])
def test_words_of_numpy_mean_the_definition(name: str) -> None:
    args = _drawn(FUNCTIONS[name])
    text = column("numpy")[name]([f"args[{k}]" for k in range(len(args))])
    own = {word: _brought_along(word[1:]) for word in re.findall(r"\b_\w+", text)}
    np.testing.assert_allclose(eval(text, {"np": np, "args": args, **own}), rule(name).value(args), rtol=1e-12, atol=1e-15)


AUXILIARY: dict[str, Callable[..., float]] = {
    "square": lambda a: a * a,
    "logistic": lambda a, e: (1 if a > 0 else e) / (1 + e),
    "signed_as": lambda b, r: r + b if r != 0 and (r < 0) != (b < 0) else r,
}
"""Functions that definitions in CUDA call, and that are no primitives."""


def _in_c(word: Spelling) -> Callable[..., float]:
    """The function of a spelling for CUDA, its definition read as the expression of Python that it nearly is."""
    known: dict[str, Any] = {**{name: getattr(math, name) for name in dir(math)}, **AUXILIARY, "real": float}
    if word.definition is None:
        found: Callable[..., float] = known[word.function]
        return found
    others = {other.function: other for other in column("cuda").values() if other.function in word.definition.calls}
    known |= {name: _in_c(other) for name, other in others.items()}
    condition, chooses, branches = word.definition.value.replace("||", "or").partition(" ? ")
    yes, _, no = branches.partition(" : ")
    value = f"({yes}) if {condition} else ({no})" if chooses else condition
    made: Callable[..., float] = eval(f"lambda {', '.join(word.definition.arguments)}: {value}", known)
    return made


@every
def test_words_of_cuda_mean_the_definition(row: Primitive) -> None:
    args, function = _drawn(row), _in_c(row.spellings["cuda"])
    found = [function(*map(float, at)) for at in zip(*args, strict=True)]
    np.testing.assert_allclose(np.array(found, float), rule(row.name).value(args), rtol=1e-12, atol=1e-15)


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
    """To add one, add a row: nothing else in the compiler names those of which nothing is told but in their rows.

    Sources that modules bring along are named after them, and a backend may keep its column with itself.
    """
    root = Path(cellspec.__file__).parent
    names = ("relu", "leaky_relu", "hard_tanh", "softplus", "logsigmoid", "softsign", "gelu", "elu")
    for path in sorted(root.rglob("*.py")):
        if path.parent != root / "model" / "rows" and path.name != "spelling.py" and path.parent.name != "runtime":
            code = re.sub(r'(?s:""".*?""")|#.*|calls = \{.*\}', "", path.read_text())
            assert not re.findall(rf"\b({'|'.join(names)})\b", code), path
